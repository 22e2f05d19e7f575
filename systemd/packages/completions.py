"""Completion for bash, zsh and fish: click's own, which ask `logfan` itself at each Tab."""

from click.shell_completion import get_completion_class

from logfan.cli import main

PLACES = {
    "bash": "share/bash-completion/completions/logfan",
    "zsh": "share/zsh/site-functions/_logfan",
    "fish": "share/fish/vendor_completions.d/logfan.fish",
}
"""Where each shell looks, below a prefix."""


def completions() -> dict[str, str]:
    """Each file's text by its place below a prefix."""
    return {place: _script(shell) for shell, place in PLACES.items()}


def _script(shell: str) -> str:
    made = get_completion_class(shell)
    assert made is not None, shell  # noqa: S101 - click has all three
    return made(main, {}, "logfan", "_LOGFAN_COMPLETE").source()
