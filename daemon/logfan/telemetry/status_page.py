"""The status page: whole in itself, and everything in it escaped."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from logfan.runtime.foreign_text import text_of

_REASONS = 20
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--good:#1a7f37;--bad:#c62828}
body{font:15px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h1 small{font-weight:400;opacity:.6}
table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.good{color:var(--good)}.bad{color:var(--bad)}
meter{width:100%}a{color:inherit}
"""


def page(status: Mapping[str, Any], reasons: Sequence[str]) -> str:
    """The page; `reasons`: why the daemon is not ready."""
    e = html.escape
    verdict = (
        "".join(f'<p class="bad">✗ {e(reason)}</p>' for reason in shown(reasons))
        or '<p class="good">✓ consuming, all required sinks are up</p>'
    )
    instance = f" · {e(str(status['instance']))}" if status["instance"] else ""
    ready = "unknown" if status["queue_ready"] is None else f"{status['queue_ready']:,}"
    rows = "".join(_sink_row(sink) for sink in status["sinks"])
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta http-equiv="refresh" content="5"><meta name="viewport" content="width=device-width">'
        f"<title>logfan</title><style>{_STYLE}</style>"
        f"<h1>logfan <small>{e(status['version'])}{instance}</small></h1>{verdict}"
        f"<p>{e(status['detail'])}</p>"
        "<table><tr><th class=n>received<th class=n>acknowledged<th class=n>in flight"
        "<th class=n>waiting in the queue"
        f"<tr><td class=n>{status['received']:,}<td class=n>{status['acknowledged']:,}"
        f"<td class=n>{status['in_flight']:,} of {status['prefetch']:,}<td class=n>{ready}</table>"
        f'<meter max="{status["prefetch"]}" value="{status["in_flight"]}"></meter>'
        "<table><tr><th>sink<th>state<th class=n>written<th class=n>held<th class=n>retries"
        f"<th class=n>dead-lettered<th class=n>dropped{rows}</table>"
        '<p><a href="/metrics">metrics</a> · <a href="/readyz">readyz</a> · '
        '<a href="/healthz">healthz</a></p></html>\n'
    )


def _sink_row(sink: Mapping[str, Any]) -> str:
    state = '<span class="good">up</span>'
    if sink["failure"] is not None:
        state = f'<span class="bad">{html.escape(str(sink["failure"]))}</span>'
    note = "" if sink["required"] else " <small>(not required)</small>"
    return (
        f"<tr><td>{html.escape(sink['name'])}{note}<td>{state}<td class=n>{sink['written']:,}"
        f"<td class=n>{sink['held']:,}<td class=n>{sink['retries']:,}"
        f"<td class=n>{sink['dead_lettered']:,}<td class=n>{sink['dropped']:,}"
    )


def shown(reasons: Sequence[str]) -> list[str]:
    """Reasons as they go out: encodable, each cut, the first of many."""
    shown = [text_of(reason) for reason in reasons[:_REASONS]]
    more = len(reasons) - len(shown)
    return [*shown, f"and {more} more"] if more else shown
