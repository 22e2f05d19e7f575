"""Where the servers of sinks are, and how long they are waited for: what `check` takes, the
libraries take too."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from logfan.cli import main
from logfan_sinks.http.client import with_path

HTTP = {"url": '"http://127.0.0.1:1/"'}
KINDS = {
    "http": HTTP, "loki": HTTP, "otlp": HTTP, "elasticsearch": {**HTTP, "index": '"logs"'},
    "kafka": {"brokers": '["127.0.0.1:1"]', "topic": '"logs"'},
    "s3": {"bucket": '"logs"'},
    "postgres": {"dsn": '"postgresql://logfan@127.0.0.1:1/logs"'},
    "amqp": {"url": '"amqp://127.0.0.1:1/%2F"', "exchange": '"copies"'},
    "syslog": {"address": '"tcp://127.0.0.1:1"'},
}  # fmt: skip
LONG_LABEL = "a" * 64


def check(folder: Path, kind: str, **keys: str) -> tuple[int, str]:
    """The exit code and the output of `logfan check`; keys are written as in TOML."""
    table = {"kind": f'"{kind}"', **KINDS[kind], **keys}
    lines = "".join(f"{key} = {value}\n" for key, value in table.items())
    (folder / "config.toml").write_text(f"[sinks.a]\n{lines}")
    done = CliRunner().invoke(main, ["check", "--config", str(folder / "config.toml")])
    return done.exit_code, done.output


@pytest.mark.parametrize("kind", KINDS)
def test_a_time_in_which_no_server_can_answer_or_no_library_can_wait_is_a_fault(
    kind: str, tmp_path: Path
) -> None:
    for timeout in ("1ms", "10m", "1d"):
        assert check(tmp_path, kind, timeout=f'"{timeout}"')[0] == 0
    for timeout, why in {"0s": "at least 0.001 s", "25d": "at most 86400 s"}.items():
        code, output = check(tmp_path, kind, timeout=f'"{timeout}"')
        assert code == 78
        assert f'sinks.a.timeout = "{timeout}": must be {why}' in output


@pytest.mark.parametrize("kind", ["http", "loki", "otlp", "elasticsearch"])
@pytest.mark.parametrize(
    "place", ["127.0.0.1:99999", "127.0.0.1:abc", "127.0.0.1:-1", "127.0.0.1:0", "a..b", LONG_LABEL]
)
def test_a_url_whose_server_cannot_be_asked_for_is_a_fault(
    kind: str, place: str, tmp_path: Path
) -> None:
    code, output = check(tmp_path, kind, url=f'"http://{place}/"')
    assert code == 78
    assert "sinks.a.url" in output
    assert "http://HOST:PORT/PATH" in output


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("syslog", "address", '"tcp://a..b"'),
        ("syslog", "address", f'"udp://{LONG_LABEL}:514"'),
        ("s3", "endpoint", '"http://127.0.0.1:99999"'),
        ("s3", "endpoint", '"http://a b"'),
        ("s3", "bucket", '"a b"'),
        ("s3", "region", '"eu\\nwest"'),
        ("kafka", "brokers", '[""]'),
        ("kafka", "topic", '"my logs"'),
        ("kafka", "topic", '".."'),
        ("kafka", "topic", f'"{"a" * 250}"'),
        ("kafka", "topic", '"a\\u0000"'),
        ("kafka", "max_message_bytes", '"999B"'),
        ("kafka", "max_message_bytes", '"2GiB"'),
        ("amqp", "exchange", f'"{"€" * 86}"'),
        ("amqp", "routing_key", f'"{"€" * 86}"'),
    ],
)
def test_what_the_library_would_not_take_is_a_fault(
    kind: str, key: str, value: str, tmp_path: Path
) -> None:
    code, output = check(tmp_path, kind, **{key: value})
    assert code == 78
    assert f"sinks.a.{key}" in output


def test_a_path_is_added_to_a_url_before_its_query() -> None:
    for url, whole in {
        "http://a:1": "http://a:1/push",
        "http://a:1/": "http://a:1/push",
        "http://a:1?team=x/y": "http://a:1/push?team=x/y",
        "http://a:1/own": "http://a:1/own",
    }.items():
        assert with_path(url, "/push") == whole
