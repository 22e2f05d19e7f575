"""The table of `plugins/docs/publishers.md`, made from `expected.toml` by `make docs`."""

from collections.abc import Iterator
from itertools import groupby

from publishers.messages import HERE, NO_LEVEL, Expected, expectations

PAGE = HERE.parents[1] / "plugins/docs/publishers.md"
_MARK = "<!-- made by `make docs` -->\n"
_HEADINGS = {
    "python": "Python", "node": "Node.js", "go": "Go", "java": "Java", "rust": "Rust",
    "debian": "Debian's programs", "broker": "RabbitMQ",
    "broker-json": "RabbitMQ, `log.exchange.formatter = json`",
}  # fmt: skip
_TIMES = {"": "receipt", "body": "body", "properties": "property"}


def page() -> str:
    """The page with its table as it should be."""
    by_hand, mark, _ = PAGE.read_text(encoding="utf-8").partition(_MARK)
    return "\n".join([by_hand + mark, *_tables()])


def _tables() -> Iterator[str]:
    for language, publishers in groupby(expectations().items(), key=lambda one: one[0][0]):
        yield f"### {_HEADINGS[language]}\n"
        yield "| publisher | sends | level | message | time |"
        yield "| --- | --- | --- | --- | --- |"
        yield from (_row(name, expected) for (_, name), expected in publishers)
        yield ""


def _row(name: str, expected: Expected) -> str:
    level = "none" if expected.levels.get("all") == NO_LEVEL else "read"
    message = "the text" if expected.message == "{text}" else "the line"
    if expected.decode:
        level, message = f"{level}, decoded", f"{message}, decoded"
    sends = expected.sends.replace("|", "\\|")
    return f"| {name} | {sends} | {level} | {message} | {_TIMES[expected.time]} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
