"""A plugin in one file, in a daemon's folder of them."""

from pathlib import Path


def add_drop_in(folder: Path, name: str, code: str) -> Path:
    """Put it below `folder`, where `DaemonProcess` looks; returns the folder of plugins."""
    plugins = folder / "plugins"
    plugins.mkdir(mode=0o755, exist_ok=True)
    (plugins / f"{name}.py").write_text(code)
    return plugins
