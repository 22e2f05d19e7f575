"""A new environment with logfan as it is installed from a wheel, and the tools of this one; no
network."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
_TOOLS = {"pip": "pip", "pytest": "pytest", "mypy": "mypy"}


class FreshVenv:
    """One in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv/bin"
        python = self.bin / "python"
        self._run("-m", "venv", "--without-pip", str(folder / "venv"))
        self._run("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
        (built,) = folder.glob("*.whl")
        pip = ("-m", "pip", "--disable-pip-version-check", "-q", "--python", str(python))
        self._run(*pip, "install", "--no-deps", "--no-index", str(built))
        # What is installed here, behind what is installed there.
        (site,) = (folder / "venv").glob("lib/python*/site-packages")
        ours = sysconfig.get_path("purelib")
        (site / "zz_ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        for name, module in _TOOLS.items():
            tool = self.bin / name
            tool.write_text(f'#!/bin/sh\nexec {python} -m {module} "$@"\n')
            tool.chmod(0o755)
        self.environ = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "PATH": f"{self.bin}:/usr/bin:/bin", "COLUMNS": "200",
            "PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # as pip has it: the value of the option, which is off
        }  # fmt: skip

    @staticmethod
    def _run(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def shell(self, line: str, folder: Path) -> str:
        """Run a line of shell in the folder. Returns what it prints."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=folder, env=self.environ, text=True, check=False, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        return done.stdout
