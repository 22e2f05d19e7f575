"""The status page: what `/` serves, and the style and the script that it needs.

The page holds the main facts, each escaped, for who has no JavaScript. `page/status.js` asks for
`/status.json` again and again, and shows all of it.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from logfan.runtime.foreign_text import text_of
from logfan.telemetry.sink_health import duration

_REASONS = 20
_FOLDER = Path(__file__).parent / "page"
_PAGE = Template((_FOLDER / "status.html").read_text())
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Its content security policy: nothing inline, nothing of another host."""
FILES: Mapping[str, tuple[str, bytes]] = {
    "/status.css": ("text/css; charset=utf-8", (_FOLDER / "status.css").read_bytes()),
    "/status.js": ("text/javascript; charset=utf-8", (_FOLDER / "status.js").read_bytes()),
}
"""What the page refers to: the type and the content of each path."""
_COUNTS = ("held", "retries", "written", "filtered", "rejected", "dead_lettered", "dropped")


def page(status: Mapping[str, Any]) -> str:
    """The page, of what `/status.json` holds."""
    ready, rate, left = status["ready"], status["rate"], status["time_to_drain_seconds"]
    verdict = "Ready" if ready else "Not ready"
    lasts = duration(max(0.0, status["now"] - status["since"]))
    texts = {
        "tone": "good" if ready else "bad",
        "title": f"{'✓' if ready else '✕'} {verdict} · logfan {status['instance']}".rstrip(),
        "instance": status["instance"], "about": status["version"], "detail": status["detail"],
        "ready": f"{verdict}: {status['state']} for {lasts}",
        "received": f"{rate['received']:,.1f}/s", "acknowledged": f"{rate['acknowledged']:,.1f}/s",
        "in_flight": _count(status["in_flight"]), "prefetch": _count(status["prefetch"]),
        "window": str(min(100, 100 * status["in_flight"] // status["prefetch"])),
        "waiting": _count(status["queue_ready"]), "queue": status["queue"],
        "drain": "unknown" if left is None else duration(left),
        "dead": _count(status["dead_letters_waiting"]),
    }  # fmt: skip
    return _PAGE.substitute(
        {name: html.escape(text) for name, text in texts.items()},
        reasons="".join(f"<li>{html.escape(one)}</li>" for one in status["reasons"]),
        sinks="".join(_row(sink, status["now"]) for sink in status["sinks"]),
    )


def _row(sink: Mapping[str, Any], now: float) -> str:
    e = html.escape
    failure = e(sink["failure"] or "")
    note = "" if sink["required"] else ' <span class="tag">not required</span>'
    lasts = duration(max(0.0, now - sink["since"]))
    stuck = ' class="stuck"' if sink["required"] and sink["state"] != "up" else ""
    return (
        f'<tr role="row" data-state="{e(sink["state"])}"{stuck}><th role="rowheader" scope="row">'
        f"<b>{e(sink['name'])}</b>{note}</th>"
        f'<td role="cell" class="state"><b>{e(sink["state"])}</b> <span>for {lasts}</span></td>'
        + "".join(
            f'<td role="cell" class="n" data-label="{name.replace("_", "-").capitalize()}">'
            f"{_count(sink[name])}</td>"
            for name in _COUNTS
        )
        + f'<td role="cell" class="failure">{failure}</td></tr>'
    )


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def shown(reasons: Sequence[str]) -> list[str]:
    """Reasons as they go out: encodable, each cut, the first of many."""
    shown = [text_of(reason) for reason in reasons[:_REASONS]]
    more = len(reasons) - len(shown)
    return [*shown, f"and {more} more"] if more else shown
