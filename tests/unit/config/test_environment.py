"""`LOGFAN_…` variables into a table like config.toml's."""

from typing import Any

import pytest

from logfan.config.environment import environment_table, passed_over

READ: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "nothing of ours": ({"PATH": "/bin", "LOGFAN_CONFIG": "x.toml"}, {}),
    "a key at the top": ({"LOGFAN_INSTANCE": "7"}, {"instance": "7"}),
    "a key in a table": ({"LOGFAN_QUEUE__NAME": "[q]"}, {"queue": {"name": "[q]"}}),
    "a key in a table within a table": (
        {"LOGFAN_RABBITMQ__TLS__VERIFY": "false"}, {"rabbitmq": {"tls": {"verify": "false"}}},
    ),
    "any case": ({"logfan_Queue__Name": "Q"}, {"queue": {"name": "Q"}}),
    "a list": ({"LOGFAN_RABBITMQ__URLS": '["a", "b"]'}, {"rabbitmq": {"urls": ["a", "b"]}}),
    "a list or none": (
        {"LOGFAN_QUEUE__ROUTING_KEYS": '["10"]'}, {"queue": {"routing_keys": ["10"]}},
    ),
    "a table": ({"LOGFAN_LOG": '{"level": "debug"}'}, {"log": {"level": "debug"}}),
    "an address": ({"LOGFAN_HTTP__LISTEN": "[::1]:9"}, {"http": {"listen": "[::1]:9"}}),
    "an argument": (
        {"LOGFAN_QUEUE__ARGUMENTS__x-max-length": "5"},
        {"queue": {"arguments": {"x-max-length": 5}}},
    ),
    "the host's key of a sink": (
        {"LOGFAN_SINKS__A__REQUIRED": "false"}, {"sinks": {"a": {"required": "false"}}},
    ),
    "a sink's own key, as text": (
        {"LOGFAN_SINKS__A__PATH": "{date}.log"}, {"sinks": {"a": {"path": "{date}.log"}}},
    ),
    "a sink's own key, as a number": (
        {"LOGFAN_SINKS__A__MAX_FILES": "7"}, {"sinks": {"a": {"max_files": 7}}},
    ),
    "a sink's own key, as a table": (
        {"LOGFAN_SINKS__A__ROTATE": '{"keep": 3}'}, {"sinks": {"a": {"rotate": {"keep": 3}}}},
    ),
    "the key is laid over its table, whatever comes first": (
        {"LOGFAN_QUEUE__NAME": "b", "LOGFAN_QUEUE": '{"name": "a", "type": "quorum"}'},
        {"queue": {"name": "b", "type": "quorum"}},
    ),
    "an empty value": ({"LOGFAN_RABBITMQ__URLS": ""}, {"rabbitmq": {"urls": ""}}),
}  # fmt: skip


@pytest.mark.parametrize("what", READ)
def test_each_is_read_as_its_key_takes_it(what: str) -> None:
    environ, table = READ[what]
    assert environment_table(environ) == (table, [])


def test_what_is_not_json_is_named_without_its_value_and_the_others_count() -> None:
    environ = {
        "LOGFAN_RABBITMQ__URLS": "amqp://bob:s3cret@h",
        "LOGFAN_NOTHING": "1",
        "LOGFAN_QUEUE__NAME": "q",
    }
    table, faults = environment_table(environ)
    assert table == {"queue": {"name": "q"}}
    assert [fault.place for fault in faults] == [
        "environment variable LOGFAN_NOTHING", "environment variable LOGFAN_RABBITMQ__URLS",
    ]  # fmt: skip
    assert "s3cret" not in "".join(map(str, faults))


@pytest.mark.parametrize("value", ["[" * 1000 + "]" * 1000, '{"a":' * 1000 + "1" + "}" * 1000])
@pytest.mark.parametrize("key", ["RABBITMQ__URLS", "QUEUE__ARGUMENTS", "SINKS__A__WHERE"])
def test_what_is_nested_deeper_than_can_be_walked_through_is_named(key: str, value: str) -> None:
    table, faults = environment_table({f"LOGFAN_{key}": value, "LOGFAN_INSTANCE": "7"})
    assert table == {"instance": "7"}
    assert [str(fault) for fault in faults] == [
        f"environment variable LOGFAN_{key}: is nested too deeply"
    ]


def test_a_key_below_what_is_no_table_is_left_to_the_settings() -> None:
    table, faults = environment_table({"LOGFAN_QUEUE": "5", "LOGFAN_QUEUE__NAME": "q"})
    assert (table, faults) == ({"queue": 5}, [])


# As a pod gets them beside services called logfan, logfan-dead-letter and logfan-port.
KUBERNETES = {
    "LOGFAN_SERVICE_HOST": "10.96.0.7",
    "LOGFAN_SERVICE_PORT": "9464",
    "LOGFAN_SERVICE_PORT_METRICS": "9464",
    "LOGFAN_SERVICE_PORT_HTTP_ALT": "9465",
    "LOGFAN_PORT": "tcp://10.96.0.7:9464",
    "LOGFAN_PORT_9464_TCP": "tcp://10.96.0.7:9464",
    "LOGFAN_PORT_9464_TCP_PROTO": "tcp",
    "LOGFAN_PORT_9464_TCP_PORT": "9464",
    "LOGFAN_PORT_9464_TCP_ADDR": "10.96.0.7",
    "LOGFAN_PORT_53_UDP": "udp://10.96.0.7:53",
    "LOGFAN_DEAD_LETTER_SERVICE_HOST": "10.96.0.8",
    "LOGFAN_DEAD_LETTER_PORT": "tcp://10.96.0.8:80",
    "LOGFAN_DEAD_LETTER_PORT_80_TCP_ADDR": "10.96.0.8",
    "LOGFAN_PORT_SERVICE_HOST": "10.96.0.9",
    "LOGFAN_HTTP_PORT": "sctp://[fd00::1]:80",
}


@pytest.mark.parametrize("name", KUBERNETES)
def test_a_variable_of_kubernetes_is_passed_over(name: str) -> None:
    environ = {name: KUBERNETES[name]}
    assert environment_table(environ) == ({}, [])
    remark = passed_over(environ)
    assert remark is not None
    assert name in remark


def test_all_of_them_are_one_warning() -> None:
    environ = {**KUBERNETES, "LOGFAN_QUEUE__NAME": "q"}
    assert environment_table(environ) == ({"queue": {"name": "q"}}, [])
    remark = passed_over(environ)
    assert remark is not None
    assert f"and {len(KUBERNETES) - 1} more" in remark
    assert "enableServiceLinks: false" in remark
    assert passed_over({"LOGFAN_QUEUE__NAME": "q", "RABBITMQ_SERVICE_HOST": "10.1.1.1"}) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOGFAN_PORT", "9464"), ("LOGFAN_HTTP_PORT", "9464"), ("LOGFAN_QUEUE_NAME", "q"),
        ("LOGFAN_RABBITMQ__SERVICE_HOSTS", "h"), ("LOGFAN_SERVICE", "x"), ("LOGFAN_PORTS", "tcp://"),
    ],
)  # fmt: skip
def test_a_typo_is_still_reported(name: str, value: str) -> None:
    table, faults = environment_table({name: value})
    assert faults or table  # what names a table goes on to the settings, which know its keys
    assert passed_over({name: value}) is None


def test_a_sinks_own_key_may_be_called_like_that() -> None:
    environ = {"LOGFAN_SINKS__A__SERVICE_HOST": "h", "LOGFAN_SINKS__A__SERVICE_PORT": "5"}
    assert environment_table(environ) == (
        {"sinks": {"a": {"service_host": "h", "service_port": 5}}}, [],
    )  # fmt: skip
