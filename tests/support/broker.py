"""What tests do to a broker beside the daemon: publish with confirms, count, look."""

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import pika

from logfan.testing.node import RabbitNode, erlang_binary
from support.waiting import wait_until

_TRIES = 10


@dataclass(frozen=True, slots=True)
class Names:
    """An exchange and a queue of one test's own."""

    exchange: str
    queue: str

    @classmethod
    def unique(cls, test: str) -> Self:
        word = re.sub(r"\W+", "-", test)[:40]
        mark = f"{word}-{secrets.token_hex(3)}"
        return cls(f"logs-{mark}", f"queue-{mark}")


@contextmanager
def channel(url: str, *, confirms: bool = False) -> Iterator[Any]:
    """A blocking channel."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        opened = connection.channel()
        if confirms:
            opened.confirm_delivery()
        yield opened
    finally:
        if connection.is_open:
            connection.close()


def suspend(node: RabbitNode, queue: str) -> None:
    """Have a classic queue answer nothing, until `resume`: the broker itself goes on."""
    _to_process(node, queue, "suspend")


def resume(node: RabbitNode, queue: str) -> None:
    """End `suspend`."""
    _to_process(node, queue, "resume")


def _to_process(node: RabbitNode, queue: str, do: str) -> None:
    name = f'rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)'
    node.eval(f"{{ok, Q}} = rabbit_amqqueue:lookup({name}), sys:{do}(amqqueue:get_pid(Q))")


def publish(url: str, exchange: str, bodies: Iterable[bytes], **properties: Any) -> int:
    """Publish without waiting for each confirm, and return once the broker has answered for all: a
    quorum queue may lose what is on its way to it when the channel closes."""
    basic = pika.BasicProperties(delivery_mode=2, **properties)
    count, through = 0, 0
    with channel(url) as open_channel:
        unconfirmed: set[int] = set()

        def on_confirm(frame: Any) -> None:
            nonlocal through
            tag = frame.method.delivery_tag
            if frame.method.multiple:
                unconfirmed.difference_update(range(through, tag))
                through = tag
            unconfirmed.discard(tag)

        # Beneath the blocking channel, which would wait for each.
        open_channel._impl.confirm_delivery(on_confirm)
        for count, body in enumerate(bodies, 1):
            unconfirmed.add(count)
            open_channel.basic_publish(exchange, "", body, basic)
        open_channel._flush_output(lambda: not unconfirmed)
    return count


def declare_bound(url: str, names: Names, **properties: Any) -> None:
    """A fanout exchange, and a durable queue with these properties that is bound to it."""
    with channel(url) as admin:
        admin.exchange_declare(names.exchange, "fanout", durable=True)
        admin.queue_declare(names.queue, **{"durable": True, **properties})
        admin.queue_bind(names.queue, names.exchange)


def delete_queue(url: str, queue: str) -> None:
    """With all that waits in it."""
    with channel(url) as admin:
        admin.queue_delete(queue)


def make_anew(url: str, queue: str, **arguments: Any) -> None:
    """Delete the queue, and declare it with these arguments; again where a daemon came between."""
    for _ in range(_TRIES):
        with suppress(pika.exceptions.ChannelClosedByBroker), channel(url) as admin:
            admin.queue_delete(queue)
            admin.queue_declare(queue, durable=True, arguments=arguments)
            return
    raise AssertionError(f"a daemon was first {_TRIES} times: {queue}")


def waiting(url: str, queue: str) -> int:
    """How many messages wait in the queue."""
    with channel(url) as open_channel:
        declared = open_channel.queue_declare(queue, passive=True)
        return int(declared.method.message_count)


ALL = (".*", ".*", ".*")


def add_user(
    node: RabbitNode,
    name: str,
    permissions: Sequence[str] = ALL,
    *,
    password: str = "secret",
    vhost: str = "/",
) -> None:
    """A user who may configure, write and read what these patterns match. `rabbitmqctl` does the
    same, at 500 times the cost."""
    user, secret = map(erlang_binary, (name, password))
    node.eval(f'ok = rabbit_auth_backend_internal:add_user({user}, {secret}, <<"test">>).')
    permit(node, name, permissions, vhost=vhost)


def permit(node: RabbitNode, name: str, permissions: Sequence[str], *, vhost: str = "/") -> None:
    """From now on the user may configure, write and read what these patterns match."""
    user, host, *patterns = map(erlang_binary, (name, vhost, *permissions))
    node.eval(
        "ok = rabbit_auth_backend_internal:set_permissions("
        f'{user}, {host}, {", ".join(patterns)}, <<"test">>).'
    )


def delete_user(node: RabbitNode, name: str) -> None:
    """The user, and what he may do."""
    user = erlang_binary(name)
    node.eval(f'ok = rabbit_auth_backend_internal:delete_user({user}, <<"test">>).')


def limit_user(node: RabbitNode, name: str, limit: str, most: int) -> None:
    """Such as `max-connections`."""
    user, table = erlang_binary(name), erlang_binary(f'{{"{limit}": {most}}}')
    node.eval(f'ok = rabbit_auth_backend_internal:set_user_limits({user}, {table}, <<"test">>).')


def add_vhost(node: RabbitNode, name: str) -> None:
    """A virtual host that guest may use."""
    node.eval(
        f'ok = rabbit_vhost:add({erlang_binary(name)}, <<"test">>),'
        "ok = rabbit_auth_backend_internal:set_permissions("
        f'<<"guest">>, {erlang_binary(name)}, <<".*">>, <<".*">>, <<".*">>, <<"test">>).'
    )


def delete_vhost(node: RabbitNode, name: str) -> None:
    """The virtual host, and what is in it."""
    node.eval(f'rabbit_vhost:delete({erlang_binary(name)}, <<"test">>).')


def metadata_to_disk(node: RabbitNode) -> None:
    """Queues, bindings and policies as they are now outlive a SIGKILL. RabbitMQ 4.2 and newer keep
    them in Khepri, which writes at once."""
    node.eval("catch mnesia:sync_log().")


QUEUES = 'rabbit_amqqueue:info_all(<<"/">>, [name, messages, arguments, consumers])'
EXCHANGES = 'rabbit_exchange:info_all(<<"/">>, [name, arguments])'
QUEUE_NAMES = 'rabbit_amqqueue:list_names(<<"/">>)'
BINDINGS = 'rabbit_binding:info_all(<<"/">>)'


def listed(node: RabbitNode, *lists: str) -> list[str]:
    """Each item of these Erlang lists, such as `QUEUES`, as a line; sorted."""
    printed = node.eval(f'[io:format("~0tp~n", [One]) || One <- {" ++ ".join(lists)}], ok.')
    return sorted(printed.splitlines()[:-1])


@contextmanager
def memory_alarm(node: RabbitNode) -> Iterator[None]:
    """The broker has less memory than it wants, and blocks who publishes."""
    node.eval("vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1}).")
    try:
        wait_until(lambda: "memory" in node.eval("rabbit_alarm:get_alarms()."), "an alarm")
        yield
    finally:
        node.eval("vm_memory_monitor:set_vm_memory_high_watermark(0.9).")
        wait_until(lambda: "memory" not in node.eval("rabbit_alarm:get_alarms()."), "no alarm")


@contextmanager
def granting(node: RabbitNode, **limits: int) -> Iterator[None]:
    """What the node grants whoever connects meanwhile: `channel_max`, `frame_max`,
    `max_message_size`."""
    before = {name: _granted(node, name) for name in limits}
    for name, most in limits.items():
        _grant(node, name, str(most))
    try:
        yield
    finally:
        for name, value in before.items():
            _grant(node, name, value)


@contextmanager
def impatient(node: RabbitNode) -> Iterator[None]:
    """The node waits a second for an acknowledgement: its consumer_timeout."""

    def set_to(timeout: int, interval: int) -> None:
        node.eval(
            f"application:set_env(rabbit, consumer_timeout, {timeout}), "
            f"application:set_env(rabbit, channel_tick_interval, {interval})."
        )

    set_to(1000, 500)
    try:
        yield
    finally:
        set_to(1_800_000, 60_000)


def _granted(node: RabbitNode, name: str) -> str:
    return node.eval(f"{{ok, Most}} = application:get_env(rabbit, {name}), Most.").strip()


def _grant(node: RabbitNode, name: str, most: str) -> None:
    # RabbitMQ 4 reads the size of a message from where it keeps what does not change.
    node.eval(f"application:set_env(rabbit, {name}, {most}), persistent_term:put({name}, {most}).")
