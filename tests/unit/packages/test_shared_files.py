"""Man pages and completions say what click's commands say, and the shells take them."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from logfan.cli import main
from packages.completions import PLACES, completions
from packages.man_pages import contexts, man_pages

COMMANDS = {one.command_path: one for one in contexts(click.Context(main, info_name="logfan"))}
PAGES = man_pages("1.2.3", epoch=86400)


def _plain(page: str) -> str:
    return page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")


def test_each_command_has_a_page() -> None:
    assert {"logfan", "logfan run", "logfan dlq", "logfan dlq replay"} <= {*COMMANDS}
    assert {*PAGES} == {f"{path.replace(' ', '-')}.1" for path in COMMANDS}


@pytest.mark.parametrize("path", COMMANDS)
def test_a_page_names_every_option_and_each_command_below(path: str) -> None:
    context = COMMANDS[path]
    page = _plain(PAGES[f"{path.replace(' ', '-')}.1"])
    for option in context.command.get_params(context):
        if isinstance(option, click.Option) and not option.hidden:
            for spelling in option.opts:
                assert spelling in page.partition(".SH OPTIONS")[2], spelling
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            assert f"\n.TP\n{name}\n" in page
            assert f"{path.replace(' ', '-')}-{name}(1)" in page


def test_a_page_keeps_examples_as_they_are_and_carries_date_and_version() -> None:
    page = _plain(PAGES["logfan-generate-alerts.1"])
    assert ".nf\n  logfan generate alerts > /etc/prometheus/rules/logfan.yml\n.fi" in page
    assert "\b" not in page
    assert '"1970-01-02" "logfan 1.2.3"' in page


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    script = tmp_path / "logfan"
    script.write_text(completions()[PLACES["bash"]])
    program = f"""
        . {script}
        COMP_WORDS=(logfan generate da); COMP_CWORD=2; _logfan_completion logfan
        COMP_WORDS=(logfan tap --wh); _logfan_completion logfan
        echo "${{COMPREPLY[@]}}"; complete -p logfan
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-euc", program], env={**os.environ, "PATH": path},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines()[0].split() == ["dashboard", "--where"]
    assert done.stdout.splitlines()[1].endswith("-F _logfan_completion logfan")
