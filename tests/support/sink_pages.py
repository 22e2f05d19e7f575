"""The page of each built-in sink in `plugins/docs/`, made from its class by `make docs`."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from click.testing import CliRunner

from logfan.cli.sinks import sinks
from logfan.plugins.discovery import discover

FOLDER = Path(__file__).parents[2] / "plugins/docs"
_VERDICTS = ("Done:", "Not now:", "Refused:", "Repeats:")
_WORDS = """## The verdicts

Each page says what the sink makes of the answers of the other side:

| word | means |
| --- | --- |
| Done | the records are where they belong, and count for the acknowledgement |
| Not now | they are held and sent again, without end: the sink is down meanwhile |
| Refused | for good: these records go to the dead-letter queue, all others on |
| Repeats | what keeps a record that comes twice from being there twice |
"""


@cache
def pages() -> dict[str, str]:
    """Each page's text by its file name."""
    kinds = sorted(discover([], []).kinds)
    made = {f"{kind}.md": "\n".join(_page(kind)) for kind in kinds}
    summaries = (f"| [`{kind}`]({kind}.md) | {_lines(kind)[1].rstrip('.')} |" for kind in kinds)
    index = "\n".join(
        ["# The built-in sinks", "", "| kind | does |", "| --- | --- |", *summaries, "", _WORDS]
    )
    return {**made, "README.md": index}


@cache
def _lines(kind: str) -> list[str]:
    """What `logfan sinks KIND` prints, without the keys that every sink has."""
    result = CliRunner().invoke(sinks, [kind], env={"LOGFAN_CONFIG": ""}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def _page(kind: str) -> Iterator[str]:
    lines = _lines(kind)[1:]
    start = lines.index("[sinks.NAME]")
    end = lines.index("", start)
    yield from (f"# The sink `{kind}`", "", lines[0], "")
    yield from _verdicts(lines[1:start])
    yield from ("```toml", *lines[start:end], "```", "", "| key | type, default | meaning |")
    yield "| --- | --- | --- |"
    yield from _options(lines[end + 1 :])
    yield from ("", f"Made by `make docs` from `logfan sinks {kind}`.", "")


def _verdicts(lines: list[str]) -> Iterator[str]:
    """The rest of the docstring; a verdict begins a point of a list."""
    text: list[str] = []
    for line in lines:
        if line.startswith(_VERDICTS):
            word, _, rest = line.partition(": ")
            text.append(f"- **{word}**: {rest}")
        elif text and line and text[-1].startswith("- "):
            text[-1] += f" {line}"
        elif line:
            text.append(line)
    if text:
        yield from (*text, "")


def _options(lines: list[str]) -> Iterator[str]:
    at = 0
    while at < len(lines):
        key, _, kind = lines[at].partition("  ")
        at += 1
        meaning = ""
        if at < len(lines) and lines[at].startswith("    "):
            meaning = lines[at].strip()
            at += 1
        yield f"| `{key}` | {_cell(kind)} | {_cell(meaning)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
