"""The table of the checks in `systemd/doctor.md`, made from the code by `make docs`."""

from pathlib import Path

from logfan.doctor.checks import page

PAGE = Path(__file__).parents[2] / "systemd/doctor.md"
_MARK = "## The checks\n\n"


def whole_page() -> str:
    """The page as it should be: what people wrote, and the table below."""
    written, mark, _ = PAGE.read_text(encoding="utf-8").partition(_MARK)
    assert mark, f"{PAGE} has no line {_MARK!r}"
    return f"{written}{mark}{page()}"


if __name__ == "__main__":
    PAGE.write_text(whole_page(), encoding="utf-8")
