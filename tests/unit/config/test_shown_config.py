"""The config as it is shown: whole, in the units that people write, without a secret."""

from pathlib import Path

import orjson

from logfan.config.loader import prepare
from logfan.config.shown_config import HIDDEN, shown_config
from support.drop_ins import add_drop_in

SECRETS = ("s3cret1", "s3cret2", "s3cret3", "s3cret4", "s3cret5", "s3cret6", "s3cret7")
PLUGIN = '''
import logfan

class Note(logfan.Sink):
    """Takes notes."""

    class Config(logfan.SinkConfig):
        target: str = "x"
        api_key: str = ""
        signing_key: str = ""
        nested: dict[str, str] = {}
        every: logfan.Duration = 90.0

    def open(self): ...
    def write(self, records): ...
    def flush(self): ...
    def close(self): ...

@logfan.hookimpl
def register_sinks(register):
    register("note", Note)
'''


def test_every_key_is_shown_with_its_value_and_no_secret(tmp_path: Path) -> None:
    plugins = add_drop_in(tmp_path, "note", PLUGIN)
    config = tmp_path / "config.toml"
    config.write_text(
        'shutdown_timeout = "90s"\n'
        f'[plugins]\ndirectories = ["{plugins}"]\n'
        '[rabbitmq]\nurls = ["amqp://bob:s3cret1@example.org/v"]\nprefetch = 7\n'
        '[sinks.plain]\nkind = "stdout"\nwhere = { level = ["error"] }\n'
        '[sinks.plain.batch]\nmax_bytes = "1MiB"\n'
        '[sinks.web]\nkind = "http"\nurl = "https://example.org/logs"\n'
        'headers = { Authorization = "Bearer s3cret2", X-Tenant = "s3cret3" }\n'
        '[sinks.far]\nkind = "http"\nurl = "https://example.org/logs?token=s3cret4"\n'
        '[sinks.own]\nkind = "note"\ntarget = "mail://bob:s3cret5@host"\napi_key = "s3cret6"\n'
        'signing_key = "s3cret7"\nnested = { folder = "/var", password = "s3cret1" }\n'
    )
    keys = shown_config(prepare(config, environ={}))
    assert not [one for one in SECRETS if one in str(keys)], keys
    assert {
        "shutdown_timeout": "90s",
        "rabbitmq.prefetch": 7,
        "rabbitmq.urls": [HIDDEN],
        "rabbitmq.max_in_flight_bytes": "64MiB",
        "rabbitmq.reconnect.initial": "500ms",
        "rabbitmq.tls.verify": True,
        "http.listen": "127.0.0.1:9464",
        "queue.routing_keys": None,
        "sinks.plain.kind": "stdout",
        "sinks.plain.batch.max_bytes": "1MiB",
        "sinks.plain.where.level": ["error"],
        "sinks.web.url": "https://example.org/logs",
        "sinks.web.headers.X-Tenant": HIDDEN,
        "sinks.far.url": HIDDEN,
        "sinks.own.api_key": HIDDEN,
        "sinks.own.signing_key": HIDDEN,
        "sinks.own.target": HIDDEN,
        "sinks.own.nested.folder": "/var",
        "sinks.own.every": "90s",
    }.items() <= keys.items()


def test_a_transform_is_shown_with_its_sink(tmp_path: Path) -> None:
    plugins = add_drop_in(
        tmp_path,
        "cut",
        "import logfan\n\n"
        "class Cut(logfan.Transform):\n"
        '    """Cuts."""\n\n'
        "    class Config(logfan.SinkConfig):\n"
        "        most: int = 3\n        password: str = ''\n\n"
        "    def apply(self, records):\n        return records\n\n"
        "@logfan.hookimpl\ndef register_transforms(register):\n    register('cut', Cut)\n",
    )
    config = tmp_path / "config.toml"
    config.write_text(
        f'[plugins]\ndirectories = ["{plugins}"]\n'
        '[sinks.plain]\nkind = "stdout"\ntransforms = [{ kind = "cut", password = "s3cret1" }]\n'
    )
    keys = shown_config(prepare(config, environ={}))
    assert keys["sinks.plain.transforms[0].kind"] == "cut"
    assert keys["sinks.plain.transforms[0].most"] == 3
    assert "s3cret1" not in str(keys)


def test_a_number_of_more_than_64_bits_is_text(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[plugins]\ndirectories = []\n[sinks.a]\nkind = "stdout"\n'
        f"where = {{ n = {{ above = {10**23} }}, f = {{ below = inf }} }}\n"
    )
    keys = shown_config(prepare(config, environ={}))
    assert keys["sinks.a.where.n.above"] == str(10**23)
    assert orjson.dumps(keys)
