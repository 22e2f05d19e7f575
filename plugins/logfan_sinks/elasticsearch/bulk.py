"""Elasticsearch's bulk API: what to send, and what each item's answer means. Sans-I/O.

The operation is `create`, with an `_id` where the record has an identity: a document that is there
already answers 409, which is done.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

import logfan
from logfan_sinks.http.verdicts import Answer
from logfan_sinks.outcome import Outcome
from logfan_sinks.row import json_of, text_of, time_of

FILTER_PATH = "items.*.status,items.*.error.type,items.*.error.reason"
"""Answers without what is not looked at."""

_level, _message = logfan.field("level").read, logfan.field("message").read
_ID_BYTES = 512
"""A longer `_id` fails the whole request, and nothing of it is indexed."""
_REASON_CHARS = 300
_DONE = (200, 201, 409)
# These are about the index alone, which may be one that has passed.
_ABOUT_INDEX = ("index_closed_exception", "index_not_found_exception", "cluster_block_exception")
_BAD_REQUEST = 400
# These answer 400, and yet are not about the document.
_NOT_NOW_TYPES = (
    "index_closed_exception", "cluster_block_exception", "es_rejected_execution_exception",
    "circuit_breaking_exception", "unavailable_shards_exception", "index_not_found_exception",
    "invalid_index_name_exception",  # the config gives the name
)  # fmt: skip
# Nor are these, by how the reason begins. What follows may quote the document.
_NOT_NOW_REASONS = {
    "validation_exception": ("Validation Failed: 1: this action would add [",),
    "illegal_argument_exception": (
        "pipeline with id [", "no write index is defined for alias [",
        "Number of documents in shard [",
    ),
}  # fmt: skip


def document(record: logfan.Record, *, with_ours: bool = True) -> bytes:
    """The record as one JSON object on one line. A JSON object as body gives its own fields, so
    that `@timestamp` and `message` are where tools look for them. `with_ours`: beside these, what
    the body does not know."""
    own: dict[str, Any] = {"@timestamp": time_of(record)}
    try:
        tree = record.json()
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        tree = {"message": text_of(_message(record))}
    if with_ours:
        own["logfan"] = _origin(record)
        if (level := _level(record)) is not None and _has_room_for_level(tree):
            own["log.level"] = level
    return json_of({**own, **tree}).encode()


def _origin(record: logfan.Record) -> dict[str, Any]:
    origin: dict[str, Any] = {
        "exchange": text_of(record.exchange), "routing_key": text_of(record.routing_key)
    }  # fmt: skip
    if headers := record.properties.headers:
        origin["headers"] = _listed(headers)
    return origin


def _listed(headers: Mapping[str, Any]) -> list[str]:
    """As `name=value`: one field of text, whatever the names and the types. A field for each header
    takes the type of its first value, and refuses the documents with another one."""
    return [f"{name}={_text_of(value)}" for name, value in headers.items()]


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    text = json_of(value)
    return str(orjson.loads(text)) if text.startswith('"') else text


def _has_room_for_level(tree: Mapping[str, Any]) -> bool:
    """Whether `log.level` is no second type of a field. Docker's `log` is a string."""
    log = tree.get("log")
    return log is None or (isinstance(log, dict) and "level" not in log)


def index_of(template: str, record: logfan.Record) -> str:
    """`{date}` is the day (UTC) of the record's own time, so that a repeat goes to the same index;
    without one that of its receipt."""
    if "{date}" not in template:
        return template
    return template.replace("{date}", time_of(record)[:10].replace("-", "."))


def identity(record: logfan.Record, fields: Sequence[str]) -> str | None:
    """The `_id`; a long one is hashed."""
    found = record.id(*fields)
    if found is None or len(found.encode("utf-8", "replace")) <= _ID_BYTES:
        return found
    return hashlib.blake2b(found.encode("utf-8", "replace"), digest_size=32).hexdigest()


def action(index: str, identity: str | None) -> bytes:
    """The line before a document."""
    target = {"_index": index} if identity is None else {"_index": index, "_id": identity}
    return json_of({"create": target}).encode()


def outcome_of(answer: Answer, count: int) -> Outcome:
    """What became of each document, by an answer of 2xx. Raises ValueError where its items are not
    as many as were sent."""
    tree = orjson.loads(answer.body)
    items = tree.get("items") if isinstance(tree, dict) else None
    if not isinstance(items, list) or len(items) != count:
        found = len(items) if isinstance(items, list) else "no"
        raise ValueError(f"answers with {found} items for {count} documents")
    outcome = Outcome()
    for place, item in enumerate(items):
        result = item.get("create") if isinstance(item, dict) else None
        if not isinstance(result, dict):
            raise ValueError(  # noqa: TRY004 - of a server's answer
                f"answers with an item that is none: {str(item)[:_REASON_CHARS]}"
            )
        status = result.get("status")
        if status in _DONE:
            continue
        error = result.get("error")
        if not isinstance(error, dict):
            error = {"reason": error}
        kind = str(error.get("type", ""))
        reason = str(error.get("reason", ""))
        why = f"{status} {kind}: {reason}"[:_REASON_CHARS]
        if status == _BAD_REQUEST and not _is_not_now(kind, reason):
            outcome.refused[place] = f"refused with {why}"
        else:
            outcome.later[place] = f"answers {why}"
            outcome.whole |= kind not in _ABOUT_INDEX
    return outcome


def _is_not_now(kind: str, reason: str) -> bool:
    return kind in _NOT_NOW_TYPES or reason.startswith(_NOT_NOW_REASONS.get(kind, ()))
