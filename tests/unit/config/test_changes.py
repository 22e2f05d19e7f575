"""What a reload changes, named without values, and what it leaves behind at the broker."""

from pathlib import Path

import pytest

from logfan.amqp.failures import Cause, ConnectionFailure
from logfan.amqp.reconnect import StartupPolicy
from logfan.config.changes import changed_keys, elsewhere, left_behind, named
from logfan.config.loader import Prepared, prepare

SINK = '[sinks.a]\nkind = "file"\npath = "a.log"\n'
OTHER = '[rabbitmq]\nurls = ["amqp://bob:s3cret@other"]\n'


def prepared(folder: Path, text: str) -> Prepared:
    config = folder / "config.toml"
    config.write_text(f"[plugins]\ndirectories = []\n{text}")
    return prepare(config, environ={})


CHANGES: dict[str, tuple[str, str, list[str]]] = {
    "nothing": (SINK, f"# a remark\n{SINK}", []),
    "a key": (SINK, f"[rabbitmq]\nprefetch = 7\n{SINK}", ["rabbitmq.prefetch"]),
    "a secret": (SINK, f"{OTHER}{SINK}", ["rabbitmq.urls"]),
    "a sink's option": (SINK, SINK.replace("a.log", "b.log"), ["sinks.a.path"]),
    "an option more": (SINK, f'{SINK}format = "raw"\n', ["sinks.a.format (new)"]),
    "an option within": (
        f'{SINK}rotate = {{ size = "1MiB", keep = 2 }}\n',
        f'{SINK}rotate = {{ size = "1MiB", keep = 3 }}\n', ["sinks.a.rotate.keep"],
    ),
    "a sink instead of another": (
        SINK, SINK.replace("sinks.a", "sinks.b"), ["sinks.a (removed)", "sinks.b (new)"],
    ),
    "an argument": (
        SINK, f"[queue.arguments]\nx-max-length = 5\n{SINK}",
        ["queue.arguments.x-max-length (new)"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_the_keys_are_named_without_their_values(what: str, tmp_path: Path) -> None:
    old, new, keys = CHANGES[what]
    found = changed_keys(prepared(tmp_path, old), prepared(tmp_path, new))
    assert found == keys
    assert "s3cret" not in named(found)


LEFT: dict[str, tuple[str, str]] = {
    '[queue]\nname = "new"\n': ("queue.name changed", "rabbitmqctl delete_queue logfan"),
    '[queue]\ntype = "exclusive"\n': ("queue.type changed", "rabbitmqctl delete_queue logfan"),
    '[exchange]\nname = "new"\n': ("exchange.name changed", "messages of both"),
    '[queue]\nrouting_keys = ["a"]\n': ("queue.routing_keys changed", "old bindings"),
    '[dead_letter]\nqueue = "new"\n': ("'logfan.dead'", "LOGFAN_DEAD_LETTER__QUEUE=logfan.dead"),
    OTHER: ("rabbitmq.urls changed", "localhost:5672"),
}


@pytest.mark.parametrize("change", LEFT)
def test_what_stays_at_the_broker_is_reported_with_the_way_out(change: str, tmp_path: Path) -> None:
    remarks = "\n".join(left_behind(prepared(tmp_path, SINK), prepared(tmp_path, change + SINK)))
    for words in LEFT[change]:
        assert words in remarks
    assert "s3cret" not in remarks


def test_an_exclusive_queue_leaves_nothing_behind(tmp_path: Path) -> None:
    old = prepared(tmp_path, f'[queue]\ntype = "exclusive"\n[dead_letter]\nenabled = false\n{SINK}')
    assert list(left_behind(old, prepared(tmp_path, f'[queue]\nname = "new"\n{SINK}'))) == []


def test_another_password_is_another_way_to_the_broker_and_another_prefetch_is_not(
    tmp_path: Path,
) -> None:
    old = prepared(tmp_path, OTHER + SINK)
    assert elsewhere(old, prepared(tmp_path, OTHER.replace("s3cret", "other") + SINK))
    assert not elsewhere(old, prepared(tmp_path, f"{OTHER}prefetch = 7\n{SINK}"))


AWAY = ConnectionFailure(Cause.UNREACHABLE, "away")
REFUSED = ConnectionFailure(Cause.REFUSED, "no", at_declaration=True)


@pytest.mark.parametrize(
    ("startup", "failure", "attempts", "over"),
    [
        (StartupPolicy.at_start("retry"), AWAY, 9, False),
        (StartupPolicy.at_start("retry"), REFUSED, 1, True),
        (StartupPolicy.at_start("fail"), AWAY, 1, False),
        (StartupPolicy.at_start("fail"), AWAY, 2, True),
        (StartupPolicy.at_start("fail"), REFUSED, 1, True),
        (StartupPolicy(), AWAY, 9, False),
        (StartupPolicy(), REFUSED, 9, False),
    ],
)
def test_what_ends_an_attempt_to_subscribe_with_two_urls(
    startup: StartupPolicy, failure: ConnectionFailure, attempts: int, over: bool
) -> None:
    assert startup.gives_up(failure, attempts, brokers=2) is over
