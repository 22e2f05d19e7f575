"""Checks over RabbitMQ's management API, where `rabbitmq.management_url` is given. Only GETs."""

import base64
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from logfan.amqp import queue_kinds
from logfan.amqp.queue_kinds import DELIVERY_LIMIT, Shape
from logfan.config.units import format_duration
from logfan.doctor import looks
from logfan.doctor.examination import Check, Examination
from logfan.doctor.findings import Finding, Severity, Unknown, advice, danger, ok, skipped, warning
from logfan.runtime.foreign_text import hide, line_of
from logfan.runtime.http_get import http_get
from logfan.runtime.tls import MANAGEMENT, client_context, handshake_problem, refusal

_SECONDS = 10.0
_MOST_BYTES = 16 << 20
_FULL = 0.9
_SKEW_SECONDS = 30.0
_NOT_GIVEN = "rabbitmq.management_url is not given"
_ALARMS = {
    "mem_alarm": "memory is short (vm_memory_high_watermark)",
    "disk_free_alarm": "disk space is short (disk_free_limit)",
}
_USED = (("fd_used", "fd_total", "file descriptors"), ("sockets_used", "sockets_total", "sockets"),
         ("proc_used", "proc_total", "Erlang processes"))  # fmt: skip
_POLICIES = ("message-ttl", "max-length", "max-length-bytes", "expires", "delivery-limit")


class _NoTls(Unknown):
    """The text has the way out, too."""


class Api:
    """One management API."""

    def __init__(self, exam: Examination) -> None:
        """Raises Unknown where it cannot be asked at all."""
        secret = exam.settings.rabbitmq.management_url
        if secret is None:
            raise Unknown(_NOT_GIVEN)
        parts = urlsplit(secret.get_secret_value())
        address = exam.brokers[0].address
        user, password = address.user or "guest", address.password or "guest"
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
        hide(password)
        host = parts.netloc.rpartition("@")[2]
        self.base = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        """Without user and password."""
        self.vhost = address.vhost
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {login}"}
        tls = exam.settings.rabbitmq.tls
        self._context = (
            client_context(tls.ca_file, tls.cert_file, tls.key_file, verify=tls.verify)
            if parts.scheme == "https"
            else None
        )
        self.date = ""
        """The last answer's header of that name."""

    def get(self, *path: str) -> Any:
        """The JSON at this path; each part is a name. Raises Unknown."""
        place = "/".join(quote(part, safe="") for part in path)
        try:
            found = http_get(
                f"{self.base}/api/{place}", seconds=_SECONDS, most_bytes=_MOST_BYTES,
                context=self._context, headers=self._headers,
            )  # fmt: skip
            if found.status == HTTPStatus.OK:
                self.date = found.headers.get("Date", "")
                return json.loads(found.body)
        except ssl.SSLError as error:
            why = refusal(line_of(error), MANAGEMENT) or handshake_problem(error, MANAGEMENT)
            raise _NoTls(f"the management API gives no TLS that holds: {why}") from None
        except (HTTPException, ValueError) as error:
            hint = "" if self._context else "; does that port speak HTTPS?"
            why = f"what answers there is no management API ({line_of(error, 100)}){hint}"
            raise Unknown(why) from None
        except OSError as error:
            raise Unknown(f"the management API does not answer: {line_of(error)}") from None
        why = _WHY.get(found.status, "")
        raise Unknown(f"the management API answers {found.status}{why}")

    def queue(self, name: str) -> Mapping[str, Any]:
        """What it has of a queue. Raises Unknown."""
        found = self.get("queues", self.vhost, name)
        return found if isinstance(found, Mapping) else {}


_WHY = {
    401: ": user or password is wrong, or the user has no tag (management, monitoring)",
    403: ": the user may not see this (tag monitoring)",
    404: ": it knows no such thing, or the URL is of something else",
}


def _main(exam: Examination) -> Mapping[str, Any]:
    if not exam.get(looks.main_queue).exists:
        raise Unknown("the queue does not exist yet")
    return exam.get(Api).queue(exam.settings.queue.name)


def reached(exam: Examination) -> Finding:
    """`rabbitmq.management_url` answers."""
    if exam.settings.rabbitmq.management_url is None:
        return skipped(_NOT_GIVEN)
    api = exam.get(Api)
    do = "correct rabbitmq.management_url, such as http://HOST:15672"
    try:
        found = api.get("overview")
        seen = isinstance(found, Mapping) and "rabbitmq_version" in found
        why = "" if seen else f"what answers at {api.base} is no management API"
    except _NoTls as unknown:
        why = str(unknown)
        do = "see why; `openssl s_client -connect` shows what it sends"
    except Unknown as unknown:
        why = str(unknown)
    if why:
        return warning(why, "what only the management API knows is not looked at", do)
    return ok(f"the management API at {api.base} answers")


def node_alarms(exam: Examination) -> Iterator[Finding]:
    """No node has an alarm, is down or cut off."""
    for node in exam.get(Api).get("nodes"):
        name = line_of(node.get("name"), 200)
        found = [why for key, why in _ALARMS.items() if node.get(key)]
        if not node.get("running", True):
            yield danger(
                f"node {name} is down",
                "classic queues of that node cannot be reached, quorum queues lose a copy",
                "start it, or remove it from the cluster",
            )
        elif node.get("partitions"):
            yield danger(
                f"node {name} is cut off from others of its cluster",
                "both sides go on by themselves; one of them loses its messages in the end",
                "see RabbitMQ's guide on network partitions",
            )
        elif found:
            yield danger(
                f"node {name}: {', '.join(found)}", "the broker blocks all publishers",
                "free memory or disk space there (`rabbitmq-diagnostics alarms`)",
            )  # fmt: skip
        else:
            yield ok(f"node {name} has no alarm")


def node_limits(exam: Examination) -> Iterator[Finding]:
    """No node is near a limit: descriptors, sockets, processes, disk."""
    for node in exam.get(Api).get("nodes"):
        near = [
            f"{node[used]:,} of {node[total]:,} {what}"
            for used, total, what in _USED
            if isinstance(node.get(used), int) and node.get(total)
            and node[used] >= _FULL * node[total]
        ]  # fmt: skip
        free, limit = node.get("disk_free"), node.get("disk_free_limit")
        if isinstance(free, int) and isinstance(limit, int) and limit <= free < 2 * limit:
            near.append(f"{free >> 20:,} MiB of disk left, {limit >> 20:,} MiB is its limit")
        name = line_of(node.get("name"), 200)
        if near:
            yield warning(
                f"node {name} is near its limits: {', '.join(near)}",
                "beyond them it takes no connection, or no message", "raise them, or free some",
            )  # fmt: skip
        else:
            yield ok(f"node {name} is far from its limits")


def _bindings(exam: Examination) -> list[Mapping[str, Any]]:
    """Of the queue, without the one to the default exchange, which each queue has."""
    if not exam.get(looks.main_queue).exists:
        raise Unknown("the queue does not exist yet")
    api = exam.get(Api)
    found = api.get("queues", api.vhost, exam.settings.queue.name, "bindings")
    return [one for one in found if one.get("source")]


def bound(exam: Examination) -> Finding:
    """The queue is bound to the exchange, with each configured key."""
    name, queue = exam.settings.exchange.name, exam.settings.queue
    here = [str(one.get("routing_key")) for one in exam.get(_bindings) if one["source"] == name]
    missing = [key for key in queue.routing_keys or () if key not in here]
    if not here and queue.declare == "never":
        return danger(
            f"queue {queue.name!r} is not bound to exchange {name!r}",
            'nothing arrives, and queue.declare = "never" keeps `run` from binding it',
            "bind it, or correct exchange.name and queue.name",
        )
    if not here or missing:
        keys = f" with {', '.join(map(repr, missing))}" if missing else ""
        return warning(
            f"queue {queue.name!r} is not bound to exchange {name!r}{keys}",
            "what is published now does not reach it; `run` binds it at its start",
            "start logfan, or bind the queue now",
        )
    return ok(f"queue {queue.name!r} is bound to exchange {name!r}")


def foreign_bindings(exam: Examination) -> Finding:
    """The queue is bound to nothing else."""
    settings = exam.settings
    keys = settings.queue.binding_keys(settings.exchange.type)
    others = [
        f"{line_of(one['source'], 100)!r} with {line_of(one.get('routing_key'), 100)!r}"
        for one in exam.get(_bindings)
        if one["source"] != settings.exchange.name
        or (settings.exchange.type != "fanout" and one.get("routing_key") not in keys)
    ]
    if others:
        return advice(
            f"queue {settings.queue.name!r} is also bound to {', '.join(others[:5])}",
            "the sinks get those messages, too", "unbind it where that is not meant",
        )  # fmt: skip
    return ok("no other binding")


def publishers(exam: Examination) -> Finding:
    """Somebody publishes to the exchange."""
    if not exam.get(looks.exchange).exists:
        raise Unknown("the exchange does not exist yet")
    api, name = exam.get(Api), exam.settings.exchange.name
    stats = api.get("exchanges", api.vhost, name).get("message_stats") or {}
    count = stats.get("publish_in", 0)
    if count:
        rate = (stats.get("publish_in_details") or {}).get("rate", 0.0)
        return ok(f"{count:,} messages were published to it, {rate:,.0f} a second now")
    return advice(
        f"nothing was published to exchange {name!r} since the broker began to count",
        "there may be no publisher, or it uses another exchange or virtual host",
        "check exchange.name and the publishers",
    )


def policies(exam: Examination) -> Iterator[Finding]:
    """No policy costs messages."""
    exam.get(Api)
    yield from _policy(exam, exam.get(looks.main_queue), letters=False)
    if exam.settings.dead_letter.enabled:
        yield from _policy(exam, exam.get(looks.dead_letter_queue), letters=True)


def _policy(exam: Examination, look: looks.QueueLook, *, letters: bool) -> Iterator[Finding]:
    if not look.exists:
        yield ok(f"queue {look.name!r} does not exist yet")
        return
    found = exam.get(Api).queue(look.name)
    policy = found.get("effective_policy_definition") or {}
    shape = Shape(arguments={"x-overflow": policy.get("overflow", "drop-head")})
    harmful = 0
    for key in _POLICIES:
        value, argument = policy.get(key), f"x-{key}"
        named = exam.settings.queue.delivery_limit
        if argument == DELIVERY_LIMIT and not letters and named == value:
            continue  # known, and counted with
        harm = queue_kinds.harm_of(argument, value, shape, value)
        text = harm.letters if letters else harm.consumed
        if text and value is not None:
            harmful += 1
            way = f"take {key} out of that policy for this queue"
            if argument == DELIVERY_LIMIT:
                way = f"{way}, or set queue.delivery_limit = {value}"
            yield danger(
                f"queue {look.name!r}: a policy sets {key} to {value}"
                f" ({line_of(found.get('policy') or found.get('operator_policy'), 100)})",
                text.partition("; ")[0], way,
            )  # fmt: skip
    if not harmful:
        yield ok(f"no policy costs messages in queue {look.name!r}")


def consumer_timeout(exam: Examination) -> Finding:
    """`consumer_timeout` of queue and policy is what is configured."""
    ours = exam.settings.rabbitmq.acknowledgement_timeout
    found = exam.get(_main)
    policy = found.get("effective_policy_definition") or {}
    values = (
        policy.get("consumer-timeout"),
        (found.get("arguments") or {}).get("x-consumer-timeout"),
    )
    theirs = [value / 1000 for value in values if isinstance(value, int)]
    if not theirs:
        raise Unknown(
            "no policy and no argument sets one, and the node's own consumer_timeout is not shown "
            "to clients: `rabbitmqctl environment | grep consumer_timeout`"
        )
    if min(theirs) < ours:
        return warning(
            f"the broker waits {format_duration(min(theirs))} for an acknowledgement, and "
            f"rabbitmq.acknowledgement_timeout is {format_duration(ours)}",
            "a sink that is down for longer makes the broker end the subscription, and what was "
            "held is delivered again",
            f'set rabbitmq.acknowledgement_timeout = "{format_duration(min(theirs))}"',
        )
    return ok(f"it waits {format_duration(min(theirs))}")


def programs(exam: Examination) -> Finding:
    """No other program consumes the queue."""
    api, others = exam.get(Api), set()
    for one in exam.get(_main).get("consumer_details") or ():
        details = one.get("channel_details") or {}
        connection = str(details.get("connection_name", ""))
        shown = api.get("connections", connection) if connection else {}
        properties = shown.get("client_properties") or {}
        if properties.get("product") != "logfan":
            name = properties.get("connection_name") or properties.get("product") or connection
            others.add(line_of(name, 100))
    if others:
        return warning(
            f"queue {exam.settings.queue.name!r} is consumed by {', '.join(sorted(others))}, too",
            "each message goes to one consumer: what others take never reaches the sinks",
            "give that program a queue of its own, bound to the exchange",
        )
    return ok("no other program consumes the queue")


def queue_state(exam: Examination) -> Finding:
    """The queue runs, with all its copies."""
    found = exam.get(_main)
    members, online = found.get("members") or (), found.get("online") or ()
    state = found.get("state", "running")
    if state not in ("running", "idle", "flow", "live"):
        return danger(
            f"queue {exam.settings.queue.name!r} is {line_of(state, 50)}",
            "it cannot be consumed", "see to the node that has it",
        )  # fmt: skip
    if len(online) < len(members):
        return warning(
            f"{len(online)} of {len(members)} copies of queue {exam.settings.queue.name!r} are "
            "there", "when more than half of them are gone, the queue stands still",
            "start the nodes that are down",
        )  # fmt: skip
    return ok(f"the queue is {line_of(state, 50)}")


def clock(exam: Examination) -> Finding:
    """The broker's clock agrees with ours. AMQP has none; that of the API's answers is compared."""
    api = exam.get(Api)
    api.get("overview")
    try:
        skew = parsedate_to_datetime(api.date).timestamp() - time.time()
    except ValueError:
        raise Unknown("AMQP has no clock, and the management API's answer has no date") from None
    if abs(skew) > _SKEW_SECONDS:
        return warning(
            f"the broker's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}",
            "times that it sets and times of receipt disagree; certificates may seem not yet "
            "valid", "run a time service on both machines",
        )  # fmt: skip
    return ok("the broker's clock agrees with ours")


_DANGER, _WARNING, _ADVICE = Severity.DANGER, Severity.WARNING, Severity.ADVICE
_BY = "management"
CHECKS = (
    Check("management", _BY, _WARNING, reached),
    Check("node-alarms", _BY, _DANGER, node_alarms),
    Check("node-limits", _BY, _WARNING, node_limits),
    Check("bindings", _BY, _DANGER, bound),
    Check("foreign-bindings", _BY, _ADVICE, foreign_bindings),
    Check("publishers", _BY, _ADVICE, publishers),
    Check("policies", _BY, _DANGER, policies),
    Check("consumer-timeout", _BY, _WARNING, consumer_timeout),
    Check("programs", _BY, _WARNING, programs),
    Check("queue-state", _BY, _DANGER, queue_state),
    Check("clock", _BY, _WARNING, clock),
)
