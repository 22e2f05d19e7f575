"""Prints what a message costs today, as the table of `today.py`; with --write it becomes it.

From the project's folder: PYTHONPATH=tests .venv/bin/python -m guard.show [--write]
"""

import sys
import tempfile
from pathlib import Path

from guard.stretches import STRETCHES

_TABLE = Path(__file__).with_name("today.py")
_BEGIN = "COUNTS = {\n"


def table() -> str:
    """The table as it stands in the file."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name, stretch in STRETCHES.items():
            counts = stretch.count(Path(folder) / name)
            lines.append(f'    "{name}": {counts},  # a {stretch.per}\n')
    return _BEGIN + "".join(lines) + "}\n"


def main() -> None:
    """Print it, or put it into the file."""
    today = table()
    if "--write" in sys.argv[1:]:
        before, _, _ = _TABLE.read_text().partition(_BEGIN)
        _TABLE.write_text(before + today)
    print(today, end="")


if __name__ == "__main__":
    main()
