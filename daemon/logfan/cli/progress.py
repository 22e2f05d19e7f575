"""A progress bar on standard error, where that is a terminal and the work is long."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]


@contextmanager
def progress(label: str, total: int | None, *, long: bool, unit: str = "") -> Iterator[Advance]:
    """Gives the function that moves it on. `unit` "bytes" shows sizes, else counts."""
    if not (long and sys.stderr.isatty()):
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    counts = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    bar = Progress(
        TextColumn(label), BarColumn(), counts, TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    task = bar.add_task(label, total=total)
    with bar:
        yield lambda done: bar.advance(task, done)
