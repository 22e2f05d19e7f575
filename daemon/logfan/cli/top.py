"""`logfan top`: a live view of running daemons; a line each interval where it is piped."""

import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from logfan.cli.common import EXIT_SIGNAL, Seconds
from logfan.cli.status import daemons_arguments, endpoints, replace_what_cannot_be_printed

if TYPE_CHECKING:
    from logfan.cli.status_client import Endpoint
    from logfan.cli.top_view import Seen

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_LEAST_SECONDS = 0.2


@click.command()
@daemons_arguments
@click.option(
    "--interval", default="1s", show_default=True, metavar="DURATION",
    type=Seconds(_LEAST_SECONDS, 3600.0), help="From one look to the next.",
)  # fmt: skip
def top(urls: Sequence[str], config: Path | None, ca_file: Path | None, interval: float) -> None:
    """Watch running daemons: what flows, what waits and until when, each sink's state and since
    when.

    Each URL is where a daemon serves HTTP, as https://HOST:PORT; without one it is http.listen of
    the config. A daemon that goes away is shown as such, until it is back. Keys: s state, n name,
    r rate, h held, b batch and d dead letters sort the sinks; space pauses; q quits. Where the
    output is no terminal, it is a line for each daemon and interval.
    """
    daemons = [Watched(one, interval) for one in endpoints(urls, config, ca_file)]
    replace_what_cannot_be_printed()
    for one in daemons:
        one.start()
    if sys.stdout.isatty() and sys.stdin.isatty():
        from logfan.cli.top_screen import watch

        number = watch([one.seen for one in daemons], interval, _ENDS)
    else:
        number = _lines(daemons, interval)
    if number is not None:
        raise SystemExit(EXIT_SIGNAL + number)


class Watched:
    """Asks one daemon again and again, on a thread of its own, so that none waits for another."""

    def __init__(self, endpoint: "Endpoint", interval: float) -> None:
        from logfan.cli.top_view import Seen

        self._endpoint = endpoint
        self._interval = interval
        self._seen: Seen = Seen(endpoint.url)
        self.asked = threading.Event()
        """Set once it was asked."""

    def start(self) -> None:
        """Ask from now on, until the process ends."""
        threading.Thread(target=self._run, daemon=True).start()

    def seen(self) -> "Seen":
        """What is known of it now."""
        return self._seen

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            self._seen = self._look()
            self.asked.set()
            time.sleep(max(0.0, began + self._interval - time.monotonic()))

    def _look(self) -> "Seen":
        from logfan.cli.status_client import Unreachable
        from logfan.cli.top_view import Seen

        try:
            return Seen(self._endpoint.url, self._endpoint.fetch().view)
        except Unreachable as why:
            return self._seen.away(str(why), time.time())


def _lines(daemons: Sequence[Watched], interval: float) -> int:
    """A line for each daemon, each interval, until a signal or the end of who reads."""
    from logfan.runtime import signals

    # Not an event: its `set`, called while the same thread is in its `wait`, waits for ever.
    over: queue.SimpleQueue[int] = queue.SimpleQueue()
    with signals.handling(dict.fromkeys(_ENDS, lambda number, _frame: over.put(number))):
        for one in daemons:
            while over.empty() and not one.asked.wait(0.1):
                pass
        while over.empty():
            for one in daemons:
                click.echo(one.seen().line)
            with suppress(queue.Empty):
                return over.get(timeout=interval)
        return over.get()
