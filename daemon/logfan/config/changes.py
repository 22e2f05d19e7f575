"""What a reload changes: which keys, and what stays behind at the broker. Sans-I/O."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from logfan.config.amqp_url import address_of
from logfan.config.loader import Prepared

_MOST_NAMED = 20


def changed_keys(old: Prepared, new: Prepared) -> list[str]:
    """The paths of the keys that differ, without their values; empty where nothing does."""
    keys = list(_differences(old.settings, new.settings, ""))
    for file in new.contents:
        if file not in keys and old.contents.get(file) != new.contents[file]:
            keys.append(f"{file} (the file's content)")
    before = {spec.name: spec.kind.origin for spec in old.sinks}
    for spec in new.sinks:
        origin = before.get(spec.name, spec.kind.origin)
        if origin != spec.kind.origin and f"sinks.{spec.name}.kind" not in keys:
            keys.append(f"sinks.{spec.name}.kind (now from {spec.kind.origin}, before {origin})")
    return keys


def named(keys: list[str]) -> str:
    """The keys for a log line, as many as it can take."""
    more = len(keys) - _MOST_NAMED
    return ", ".join(keys[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def left_behind(old: Prepared, new: Prepared) -> Iterator[str]:
    """What goes on at the broker after the change and is no longer looked after, each with its
    consequence and the way out."""
    before, now = old.settings, new.settings
    queue, exchange = before.queue.name, before.exchange.name
    lives_on = before.queue.type != "exclusive"
    places, new_places = _places(old), _places(new)
    if lives_on and not set(places) & set(new_places):
        yield (
            f"rabbitmq.urls changed: queue {queue!r} at {', '.join(places)} stays bound to "
            f"exchange {exchange!r} there and fills; once what waits in it is not needed, delete "
            f"it there: rabbitmqctl delete_queue {queue}"
        )
        return
    if lives_on and (queue != now.queue.name or now.queue.type == "exclusive"):
        key = "queue.name" if queue != now.queue.name else "queue.type"
        yield (
            f"{key} changed: the old queue {queue!r} stays bound to exchange {exchange!r} and "
            "fills with a copy of every message, as nothing consumes it any more; consume it once "
            "more with the old config, or delete it with all it holds: rabbitmqctl delete_queue "
            f"{queue}"
        )
    elif lives_on and exchange != now.exchange.name:
        yield (
            f"exchange.name changed: queue {queue!r} stays bound to exchange {exchange!r} as well "
            "and gets the messages of both; take the old binding away in the management page, or "
            f"with rabbitmqadmin delete binding source={exchange} destination_type=queue "
            f"destination={queue}"
        )
    elif lives_on and before.queue.routing_keys != now.queue.routing_keys:
        yield (
            f"queue.routing_keys changed: the old bindings of queue {queue!r} to exchange "
            f"{exchange!r} stay, so it gets what they select as well; take them away in the "
            "management page"
        )
    letters = before.dead_letter_queue
    if before.dead_letter.enabled and letters != now.dead_letter_queue:
        yield (
            f"the dead-letter queue was {letters!r}: what waits there stays, and logfan dlq looks "
            f"at {now.dead_letter_queue!r} from now on; see to it with LOGFAN_DEAD_LETTER__QUEUE="
            f"{letters} logfan dlq list"
        )


def elsewhere(old: Prepared, new: Prepared) -> bool:
    """Whether the new config reaches the broker in another way: other URLs, files or TLS."""
    mine, other = old.settings.rabbitmq, new.settings.rabbitmq
    files = [
        {file: content for file, content in one.contents.items() if file.startswith("rabbitmq.")}
        for one in (old, new)
    ]
    return (mine.urls, mine.url_file, mine.tls) != (other.urls, other.url_file, other.tls) or (
        files[0] != files[1]
    )


def _places(prepared: Prepared) -> list[str]:
    return [address_of(url) for url in prepared.urls]


def _differences(old: object, new: object, place: str) -> Iterator[str]:
    if not (isinstance(old, BaseModel | Mapping) and isinstance(new, BaseModel | Mapping)):
        if type(old) is not type(new) or old != new:
            yield place
        return
    before: dict[str, Any] = dict(old)
    now: dict[str, Any] = dict(new)
    for key in {**before, **now}:
        here = f"{place}.{key}" if place else str(key)
        if key not in now:
            yield f"{here} (removed)"
        elif key not in before:
            yield f"{here} (new)"
        else:
            yield from _differences(before[key], now[key], here)
