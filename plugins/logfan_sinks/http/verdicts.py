"""What an HTTP answer means for the records that were sent. Sans-I/O."""

import enum
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

_LONGEST_PACE_SECONDS = 3600.0
_REASON_CHARS = 300


class Verdict(enum.Enum):
    """What becomes of the records of one request."""

    DONE = "done"
    NOT_NOW = "not now"
    """Held, and sent again."""
    REFUSED = "refused"
    """For good, for at least one of them: sent again in halves, until it is known which."""
    ALL_REFUSED = "all refused"
    """For good, whatever they hold."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side answered."""

    status: int
    body: bytes = b""
    """Its beginning."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By their names in lower case."""

    def __str__(self) -> str:
        text = " ".join(self.body.decode("utf-8", "replace").split())[:_REASON_CHARS]
        return f"{self.status} {text}".strip()

    def retry_after(self, now: float | None = None) -> float | None:
        """The pace that the other side asks for, in seconds: `Retry-After` as a number or a date.
        None without one that can be read. No longer than an hour."""
        asked = self.headers.get("retry-after", "").strip()
        if not asked:
            return None
        try:
            seconds = float(asked)
        except ValueError:
            try:
                when = parsedate_to_datetime(asked).timestamp()
            except (ValueError, TypeError, OverflowError):
                return None
            seconds = when - (time.time() if now is None else now)
        return min(max(seconds, 0.0), _LONGEST_PACE_SECONDS) if seconds == seconds else None


@dataclass(frozen=True, slots=True)
class Table:
    """The verdict for each status: the table of one kind of server."""

    refused: frozenset[int]
    """Statuses that are about the records themselves."""
    done: frozenset[int] = frozenset()
    """Beside 2xx."""
    not_now: frozenset[int] | None = None
    """None: whatever is neither done nor refused, as nothing is lost by waiting. Else what is in
    none of the three is refused, whatever the records hold."""

    def of(self, answer: Answer) -> Verdict:
        """The verdict for the records of one request."""
        status = answer.status
        if 200 <= status < 300 or status in self.done:
            return Verdict.DONE
        if status in self.refused:
            return Verdict.REFUSED
        held = self.not_now is None or status in self.not_now
        return Verdict.NOT_NOW if held else Verdict.ALL_REFUSED


def advice(answer: Answer) -> str:
    """What an operator can do about an answer that waiting alone does not change."""
    return _ADVICE.get(answer.status, "") or (_REDIRECT if 300 <= answer.status < 400 else "")


_REDIRECT = "it redirects, which is not followed: set the address that it names"
_ADVICE = {
    401: "check the credentials",
    403: "check what these credentials may do",
    404: "check the path of the url",
    405: "check the method and the path of the url",
    407: "check the proxy's credentials",
}
