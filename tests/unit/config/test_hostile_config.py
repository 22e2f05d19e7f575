"""Config files that people get wrong: each named with the place and the way out."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from logfan.cli import main
from logfan.sink import SinkUnavailable
from logfan_sinks.secret_file import secret_in

SINK = '[sinks.a]\nkind = "stdout"\n'
FILE = '[sinks.a]\nkind = "file"\npath = "a.log"\n'
COUNTER = '[sinks.m]\nkind = "metrics"\n[[sinks.m.counters]]\nname = "x_total"\n'


def check(folder: Path, text: str | bytes, **environ: str) -> Result:
    """`logfan check` on this text; the environment holds nothing else of ours."""
    file = folder / "config.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    clean = {name: None for name in os.environ if name.startswith("LOGFAN_")}
    return CliRunner(env={**clean, **environ}).invoke(main, ["check", "--config", str(file)])


HOSTILE: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "empty file": ("", ("sinks", "at least one sink")),
    "no sinks": ("[rabbitmq]\n", ("sinks", "at least one sink")),
    "yaml": ("rabbitmq:\n  prefetch: 5\n", ("not valid TOML", "line 1", "key = value")),
    "unclosed string": (f'{SINK}format = "te\n', ("not valid TOML", "line 3")),
    "python bool": (f"{SINK}required = True\n", ("not valid TOML", "lower case")),
    "double table": (f"{SINK}{SINK}", ("not valid TOML", "twice")),
    "double key": ('[log]\nlevel = "info"\nlevel = "debug"\n' + SINK, ("not valid TOML", "line 3")),
    "not utf-8": (b'[log]\nlevel = "\xff"\n', ("not UTF-8", "line 2")),
    "kind of sink too long": (f'[sinks.a]\nkind = "{"x" * 70_000}"\n', ("sinks.a.kind", "at most")),
    "misspelt table": (f"[rabitmq]\nprefetch = 1\n{SINK}", ("rabitmq", 'did you mean "rabbitmq"')),
    "misspelt key": (f"[rabbitmq]\nprefech = 1\n{SINK}", ("rabbitmq.prefech", '"prefetch"')),
    "key at the top": (f"prefetch = 1\n{SINK}", ("prefetch", "rabbitmq.prefetch")),
    "no time": (
        f'[rabbitmq]\nacknowledgement_timeout = "0s"\n{SINK}',
        ('rabbitmq.acknowledgement_timeout = "0s"', "at least 1 s"),
    ),
    "empty path": (
        f'[rabbitmq.tls]\nca_file = ""\n{SINK}', ('rabbitmq.tls.ca_file = ""', "must not be empty"),
    ),
    "empty folder of plugins": (
        f'[plugins]\ndirectories = [""]\n{SINK}', ("plugins.directories.0", "must not be empty"),
    ),
    "empty path of a sink": (
        '[sinks.a]\nkind = "sqlite"\npath = ""\n', ('sinks.a.path = ""', "must not be empty"),
    ),
    "path that no file can have": (
        '[sinks.a]\nkind = "sqlite"\npath = "a\\u0000"\n', ("sinks.a.path", "U+0000"),
    ),
    "prefetch zero": (f"[rabbitmq]\nprefetch = 0\n{SINK}", ("rabbitmq.prefetch = 0", "at least 1")),
    "prefetch too large": (
        f"[rabbitmq]\nprefetch = 70000\n{SINK}", ("rabbitmq.prefetch = 70000", "at most 65535"),
    ),
    "prefetch as text": (
        f'[rabbitmq]\nprefetch = "many"\n{SINK}', ('rabbitmq.prefetch = "many"', "whole number"),
    ),
    "duration as number": (
        f"shutdown_timeout = 30\n{SINK}", ("shutdown_timeout = 30", '"5s"'),
    ),
    "duration without unit": (
        f'[rabbitmq]\nheartbeat = "30"\n{SINK}', ('rabbitmq.heartbeat = "30"', "unit"),
    ),
    "duration that no clock can wait for": (
        f'{SINK}batch = {{ linger = "53000w" }}\n', ("sinks.a.batch.linger", "at most 36500d"),
    ),
    "number of many digits": (
        f"{SINK}x = {'9' * 5000}\n", ("config.toml: a number in it has too many digits",),
    ),
    "tables in tables": (f"{SINK}[{'.'.join('a' * 3000)}]\n", ("nested too deeply",)),
    "lists in lists": (f"{SINK}x = {'[' * 3000}{']' * 3000}\n", ("nested too deeply",)),
    "size in words": (
        f'[rabbitmq]\nmax_in_flight_bytes = "64 megs"\n{SINK}',
        ("rabbitmq.max_in_flight_bytes", '"8MiB"'),
    ),
    "url without scheme": (
        f'[rabbitmq]\nurls = ["localhost:5672"]\n{SINK}', ("rabbitmq.urls.0", "amqp://"),
    ),
    "http url": (
        f'[rabbitmq]\nurls = ["http://localhost:15672"]\n{SINK}', ("rabbitmq.urls.0", "amqp://"),
    ),
    "url as text": (
        f'[rabbitmq]\nurls = "amqp://localhost"\n{SINK}', ("rabbitmq.urls", "list"),
    ),
    "no urls": (f"[rabbitmq]\nurls = []\n{SINK}", ("rabbitmq.urls", "empty")),
    "slash in the password": (
        f'[rabbitmq]\nurls = ["amqp://bob:s3cret/x@host/v"]\n{SINK}',
        ("rabbitmq.urls.0", "percent-encode", "%2F"),
    ),
    "at in the password": (
        f'[rabbitmq]\nurls = ["amqp://bob:s3cret@x@host/v"]\n{SINK}',
        ("rabbitmq.urls.0", "percent-encode"),
    ),
    "hash in the password": (
        f'[rabbitmq]\nurls = ["amqp://bob:s3cret#1@host/v"]\n{SINK}',
        ("rabbitmq.urls.0", "percent-encode"),
    ),
    "port of letters": (
        f'[rabbitmq]\nurls = ["amqp://host:amqp/"]\n{SINK}', ("rabbitmq.urls.0", "port"),
    ),
    "two vhosts": (
        f'[rabbitmq]\nurls = ["amqp://host/a/b"]\n{SINK}', ("rabbitmq.urls.0", "%2F"),
    ),
    "url file away": (
        f'[rabbitmq]\nurl_file = "nowhere"\n{SINK}',
        ('rabbitmq.url_file = "nowhere"', "No such file"),
    ),
    "url and url file": (
        f'[rabbitmq]\nurls = ["amqp://h"]\nurl_file = "x"\n{SINK}',
        ("rabbitmq.url_file", "keep one"),
    ),
    "unknown start": (
        f'[rabbitmq]\nstartup = "wait"\n{SINK}', ('rabbitmq.startup = "wait"', '"retry" or "fail"'),
    ),
    "backoff upside down": (
        f'[rabbitmq]\nreconnect = {{ initial = "1m", max = "1s" }}\n{SINK}',
        ("rabbitmq.reconnect.initial", "rabbitmq.reconnect.max"),
    ),
    "ca away": (
        f'[rabbitmq]\ntls = {{ ca_file = "ca.pem" }}\n{SINK}',
        ("rabbitmq.tls.ca_file", "does not exist"),
    ),
    "key without certificate": (
        f'[http]\ntls = {{ key_file = "config.toml" }}\n{SINK}', ("http.tls.key_file", "cert_file"),
    ),
    "near-miss value": (
        f'[queue]\ntype = "quorom"\n{SINK}', ('queue.type = "quorom"', 'did you mean "quorum"'),
    ),
    "listen without port": (
        f'[http]\nlisten = "127.0.0.1"\n{SINK}', ("http.listen", '"127.0.0.1:9464"'),
    ),
    "listen on a wild port": (
        f'[http]\nlisten = "127.0.0.1:99999"\n{SINK}', ("http.listen", "65535"),
    ),
    "a stream among the queue's arguments": (
        f'[queue]\narguments = {{ x-queue-type = "stream" }}\n{SINK}',
        ('queue.arguments.x-queue-type = "stream"', "messages would be lost", '"classic"'),
    ),
    "a type of queue that there is not": (
        f'[queue]\narguments = {{ x-queue-type = "quantum" }}\n{SINK}',
        ("queue.arguments.x-queue-type", '"classic" or "quorum"'),
    ),
    "an exclusive quorum queue": (
        f'[queue]\ntype = "exclusive"\narguments = {{ x-queue-type = "quorum" }}\n{SINK}',
        ("queue.arguments.x-queue-type", 'must be "classic"'),
    ),
    "no delivery limit": (
        f"[queue]\ndelivery_limit = 0\n{SINK}", ("queue.delivery_limit = 0", '"none"'),
    ),
    "an odd delivery limit": (
        f'[queue]\ndelivery_limit = "few"\n{SINK}', ("queue.delivery_limit", '"none"'),
    ),
    "dead letters into the same queue": (
        f'[dead_letter]\nqueue = "logfan"\n{SINK}', ("dead_letter.queue", "consumed"),
    ),
    "ratio as percent": (
        f"[dead_letter]\nmax_ratio = 50\n{SINK}", ("dead_letter.max_ratio = 50", "at most 1"),
    ),
    "sink without kind": ("[sinks.a]\n", ("sinks.a.kind", "missing")),
    "unknown kind": ('[sinks.a]\nkind = "fiel"\n', ('sinks.a.kind = "fiel"', '"file"')),
    "kind of wrong type": ("[sinks.a]\nkind = 5\n", ("sinks.a.kind = 5", "string")),
    "sink is no table": ("[sinks]\na = 5\n", ("sinks.a", "table")),
    "sinks is no table": ('sinks = ["file"]\n', ("sinks", "table")),
    "sink of a wild name": ('[sinks."a b"]\nkind = "stdout"\n', ("sinks.a b", "letters")),
    "misspelt option": (f'{FILE}fromat = "raw"\n', ("sinks.a.fromat", '"format"')),
    "host key in the wrong place": (
        f"{FILE}max_records = 5\n", ("sinks.a.max_records", "sinks.a.batch.max_records"),
    ),
    "misspelt option within a table of the host": (
        f"{FILE}batch = {{ max_record = 5 }}\n", ("sinks.a.batch.max_record", '"max_records"'),
    ),
    "path missing": ('[sinks.a]\nkind = "file"\n', ("sinks.a.path", "missing")),
    "unknown field in a path": (
        '[sinks.a]\nkind = "file"\npath = "{day}.log"\n', ("sinks.a.path", "{day}", "{date}"),
    ),
    "brace in a path": (
        '[sinks.a]\nkind = "file"\npath = "{date.log"\n', ("sinks.a.path", "brace"),
    ),
    "two files on one path": (
        f'{FILE}[sinks.b]\nkind = "file"\npath = "./a.log"\n', ("sinks.b", "same path as sinks.a"),
    ),
    "batch of none": (
        f"{FILE}batch = {{ max_records = 0 }}\n", ("sinks.a.batch.max_records = 0", "at least 1"),
    ),
    "retry upside down": (
        f'{FILE}retry = {{ initial = "1h" }}\n', ("sinks.a.retry.initial", "sinks.a.retry.max"),
    ),
    "rotation of wrong size": (
        f"{FILE}rotate = {{ size = 100 }}\n", ("sinks.a.rotate.size = 100", '"8MiB"'),
    ),
    "compression unknown": (
        f'{FILE}rotate = {{ size = "1MiB", compress = "gz" }}\n',
        ("sinks.a.rotate.compress", '"gzip"'),
    ),
    "metric of a wild name": (
        COUNTER.replace("x_total", "x-total"), ("sinks.m.counters.0.name", "pattern"),
    ),
    "metric of our name": (
        COUNTER.replace("x_total", "logfan_x"), ("sinks.m.counters.0.name", "choose another"),
    ),
    "metrics without any": ('[sinks.m]\nkind = "metrics"\n', ("sinks.m", "defines no metric")),
    "metric in two sinks": (
        COUNTER + COUNTER.replace("sinks.m", "sinks.n"), ("sinks.n", "which sinks.m has already"),
    ),
    "buckets falling": (
        '[sinks.m]\nkind = "metrics"\nhistograms = [{ name = "h", value = "v", buckets = [2, 1] }]',
        ("sinks.m.histograms.0.buckets", "larger"),
    ),
    "nothing to disable": (
        f'[plugins]\ndisabled = ["fil"]\n{SINK}', ('plugins.disabled = "fil"', '"file"'),
    ),
    "plugin folder is a file": (
        f'[plugins]\ndirectories = ["/etc/hostname"]\n{SINK}', ("/etc/hostname", "folders"),
    ),
    "queue name of 256 bytes": (
        f'[queue]\nname = "{"q" * 256}"\n{SINK}', ("queue.name", "256 bytes", "255"),
    ),
    "queue name of 128 characters, 256 bytes": (
        f'[queue]\nname = "{"ü" * 128}"\n{SINK}', ("queue.name", "256 bytes", "255"),
    ),
    "queue name that leaves no room for .dead": (
        f'[queue]\nname = "{"q" * 251}"\n{SINK}', ("queue.name", "256 bytes", "dead_letter.queue"),
    ),
    "exchange name of 256 bytes": (
        f'[exchange]\nname = "{"é" * 128}"\n{SINK}', ("exchange.name", "256 bytes"),
    ),
    "dead-letter queue of 256 bytes": (
        f'[dead_letter]\nqueue = "{"é" * 128}"\n{SINK}', ("dead_letter.queue", "256 bytes"),
    ),
    "routing key of 256 bytes": (
        f'[queue]\nrouting_keys = ["a", "{"é" * 128}"]\n{SINK}',
        ("queue.routing_keys.1", "256 bytes"),
    ),
    "empty queue name": (f'[queue]\nname = ""\n{SINK}', ("queue.name", "must not be empty")),
    "empty dead-letter queue": (
        f'[dead_letter]\nqueue = ""\n{SINK}', ("dead_letter.queue", "must not be empty"),
    ),
    "default exchange": (f'[exchange]\nname = ""\n{SINK}', ("exchange.name", "must not be empty")),
    "reserved queue": (f'[queue]\nname = "amq.mine"\n{SINK}', ("queue.name", "reserved", "amq.")),
    "reserved exchange": (
        f'[exchange]\nname = "amq.logs"\n{SINK}', ("exchange.name", "reserved", "amq.fanout"),
    ),
    "predefined exchange of another type": (
        f'[exchange]\nname = "amq.topic"\n{SINK}', ("exchange.type", '"topic"'),
    ),
    "reserved dead-letter queue": (
        f'[dead_letter]\nqueue = "amq.dead"\n{SINK}', ("dead_letter.queue", "reserved"),
    ),
    "argument as a fraction": (
        f"[queue]\narguments = {{ x-mine = 1.5 }}\n{SINK}",
        ("queue.arguments.x-mine = 1.5", "whole"),
    ),
    "argument as a fraction, deep within": (
        f"[queue]\narguments = {{ x-mine = [1, {{ a = [nan] }}] }}\n{SINK}",
        ("queue.arguments.x-mine.1.a.0", "whole"),
    ),
    "argument as a date": (
        f"[queue]\narguments = {{ x-mine = 2026-11-24 }}\n{SINK}",
        ("queue.arguments.x-mine", "date"),
    ),
    "argument as a time": (
        f"[queue]\narguments = {{ x-mine = 10:00:00 }}\n{SINK}", ("queue.arguments.x-mine", "time"),
    ),
    "argument before 1970": (
        f"[queue]\narguments = {{ x-mine = 1969-12-31T00:00:00Z }}\n{SINK}",
        ("queue.arguments.x-mine", "1970"),
    ),
    "argument beyond 64 bits": (
        f"[queue]\narguments = {{ x-mine = 9223372036854775808 }}\n{SINK}",
        ("queue.arguments.x-mine", "64 bits"),
    ),
    "argument's name too long": (
        f'[queue.arguments]\n"{"é" * 128}" = 1\n{SINK}', ("queue.arguments", "256 bytes"),
    ),
    "arguments beyond a frame": (
        f'[queue.arguments]\nx-mine = "{"a" * 131_000}"\n{SINK}', ("queue.arguments", "frame"),
    ),
    "length as text": (
        f'[queue]\narguments = {{ x-max-length = "1000" }}\n{SINK}',
        ('queue.arguments.x-max-length = "1000"', "whole number, without quotes"),
    ),
    "lifetime below nothing": (
        f"[queue]\narguments = {{ x-message-ttl = -1 }}\n{SINK}",
        ("queue.arguments.x-message-ttl = -1", "at least 0"),
    ),
    "switch as a number": (
        f"[queue]\narguments = {{ x-single-active-consumer = 1 }}\n{SINK}",
        ("queue.arguments.x-single-active-consumer = 1", "true or false"),
    ),
    "overflow unknown": (
        f'[queue]\narguments = {{ x-overflow = "drop" }}\n{SINK}',
        ("queue.arguments.x-overflow", '"drop-head"', '"reject-publish"'),
    ),
    "instance of a wild name": (f'instance = "a/b"\n{SINK}', ("instance", "pattern")),
}  # fmt: skip


def test_an_empty_path_of_a_variable_is_named_with_the_variable(tmp_path: Path) -> None:
    done = check(tmp_path, SINK, LOGFAN_RABBITMQ__TLS__CA_FILE="")
    assert done.exit_code == 78
    place = 'rabbitmq.tls.ca_file (from LOGFAN_RABBITMQ__TLS__CA_FILE) = ""'
    assert f"{place}: must not be empty" in done.output


@pytest.mark.parametrize("case", HOSTILE)
def test_each_is_reported_with_its_place(case: str, tmp_path: Path) -> None:
    text, words = HOSTILE[case]
    result = check(tmp_path, text)
    assert result.exit_code == 78, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert "s3cret" not in result.output
    for word in words:
        assert word in result.output


FITTING: dict[str, str] = {
    "queue name of 250 bytes": f'[queue]\nname = "{"é" * 125}"\n',
    "queue name of 255 bytes, its dead letters elsewhere": (
        f'[queue]\nname = "{"q" * 255}"\n[dead_letter]\nqueue = "{"d" * 255}"\n'
    ),
    "queue name of 255 bytes without dead letters": (
        f'[queue]\nname = "{"q" * 255}"\n[dead_letter]\nenabled = false\n'
    ),
    "routing keys": f'[queue]\nrouting_keys = ["", "{"k" * 255}"]\n',
    "predefined exchange": '[exchange]\nname = "amq.fanout"\n',
    "predefined exchange of another type, named": (
        '[exchange]\nname = "amq.topic"\ntype = "topic"\n'
    ),
    "queue that the broker named": '[queue]\nname = "amq.gen-abc"\ndeclare = "passive"\n',
    "all that AMQP carries": (
        '[queue.arguments]\nx-a = 9223372036854775807\nx-b = "é"\nx-c = [1, "a", { d = true }]\n'
        "x-d = 2026-11-24T10:00:00Z\nx-max-length = 1000\nx-message-ttl = 0\n"
        'x-single-active-consumer = true\nx-overflow = "reject-publish"\n'
    ),
}


@pytest.mark.parametrize("case", FITTING)
def test_what_fits_into_amqp_is_no_fault(case: str, tmp_path: Path) -> None:
    result = check(tmp_path, f"{FITTING[case]}{SINK}")
    assert result.exit_code == 0, result.output


def test_a_name_from_the_environment_that_is_not_utf8_is_a_fault(tmp_path: Path) -> None:
    result = check(tmp_path, SINK, LOGFAN_QUEUE__NAME="q\udcff")
    assert result.exit_code == 78
    assert "queue.name (from LOGFAN_QUEUE__NAME)" in result.output
    assert "UTF-8" in result.output


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    result = check(
        tmp_path,
        '[rabbitmq]\nprefetch = 0\nurls = ["nonsense"]\n[log]\nlevel = "loud"\n'
        '[sinks.a]\nkind = "file"\n[sinks.b]\nkind = "nope"\n',
    )
    for place in (
        "rabbitmq.prefetch",
        "rabbitmq.urls.0",
        "log.level",
        "sinks.a.path",
        "sinks.b.kind",
    ):
        assert place in result.output
    assert "5 faults in" in result.output


VARIABLES: dict[str, tuple[str, dict[str, str], str]] = {
    "table misspelt": ("", {"LOGFAN_RABITMQ__PREFETCH": "5"}, 'did you mean "LOGFAN_RABBITMQ"'),
    "no number": (
        "", {"LOGFAN_RABBITMQ__PREFETCH": "lots"},
        "rabbitmq.prefetch (from LOGFAN_RABBITMQ__PREFETCH)",
    ),
    "key misspelt": (
        "", {"LOGFAN_RABBITMQ__PREFECH": "5"},
        "rabbitmq.prefech (from LOGFAN_RABBITMQ__PREFECH): unknown key",
    ),
    "no JSON": ("", {"LOGFAN_RABBITMQ__URLS": "amqp://h"}, "as JSON"),
    "a sink's option": (
        "", {"LOGFAN_SINKS__A__FORMAT": "xml"}, "sinks.a.format (from LOGFAN_SINKS__A__FORMAT)",
    ),
    "an item of a list": (
        "", {"LOGFAN_RABBITMQ__URLS": '["http://h"]'},
        "rabbitmq.urls.0 (from LOGFAN_RABBITMQ__URLS)",
    ),
    "a key of a table": (
        "", {"LOGFAN_LOG": '{"level": "loud"}'}, "log.level (from LOGFAN_LOG)",
    ),
    "in lower case": (
        "", {"logfan_log__Level": "loud"}, "log.level (from logfan_log__Level)",
    ),
    "the instance": ("", {"LOGFAN_INSTANCE": "a/b"}, "instance (from LOGFAN_INSTANCE)"),
    "a value that does not go with the file's": (
        '[rabbitmq]\nreconnect = { initial = "2s" }\n', {"LOGFAN_RABBITMQ__RECONNECT__MAX": "1s"},
        "rabbitmq.reconnect.max is from LOGFAN_RABBITMQ__RECONNECT__MAX",
    ),
    "a URL beside the file's": (
        '[rabbitmq]\nurl_file = "u"\n', {"LOGFAN_RABBITMQ__URLS": '["amqp://h"]'},
        "rabbitmq.urls is from LOGFAN_RABBITMQ__URLS",
    ),
    "a file of URLs beside the file's": (
        '[rabbitmq]\nurls = ["amqp://h"]\n', {"LOGFAN_RABBITMQ__URL_FILE": "u"},
        "rabbitmq.url_file (from LOGFAN_RABBITMQ__URL_FILE): is set beside",
    ),
    "a file that is not there": (
        "", {"LOGFAN_RABBITMQ__URL_FILE": "u"},
        'rabbitmq.url_file (from LOGFAN_RABBITMQ__URL_FILE) = "u": cannot be read',
    ),
    "a CA that is not there": (
        "", {"LOGFAN_RABBITMQ__TLS__CA_FILE": "ca"},
        "rabbitmq.tls.ca_file (from LOGFAN_RABBITMQ__TLS__CA_FILE)",
    ),
    "the queue of the dead letters": (
        '[dead_letter]\nqueue = "q"\n', {"LOGFAN_QUEUE__NAME": "q"},
        "queue.name is from LOGFAN_QUEUE__NAME",
    ),
    "another kind, whose option is missing": (
        "", {"LOGFAN_SINKS__A__KIND": "file"}, "sinks.a.kind is from LOGFAN_SINKS__A__KIND",
    ),
    "a sink that is nowhere else": (
        "", {"LOGFAN_SINKS__ARCHIV__PATH": "x"},
        "sinks.archiv.kind (from LOGFAN_SINKS__ARCHIV__PATH): is missing",
    ),
    "a plugin that is not there": (
        "", {"LOGFAN_PLUGINS__DISABLED": '["nothing"]'},
        "plugins.disabled (from LOGFAN_PLUGINS__DISABLED)",
    ),
    "a folder that is none": (
        "", {"LOGFAN_PLUGINS__DIRECTORIES": '["/etc/hostname"]'},
        "plugins.directories is from LOGFAN_PLUGINS__DIRECTORIES",
    ),
    "a port of the HTTP side": (
        "", {"LOGFAN_HTTP__LISTEN": "nowhere"}, "http.listen (from LOGFAN_HTTP__LISTEN)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", VARIABLES)
def test_a_fault_that_comes_from_a_variable_names_it(tmp_path: Path, what: str) -> None:
    text, environ, words = VARIABLES[what]
    result = check(tmp_path, text + SINK, **environ)
    assert result.exit_code == 78
    assert words in result.output


def test_a_variable_that_names_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "away.toml"
    result = CliRunner(env={"LOGFAN_CONFIG": str(file)}).invoke(main, ["check"])
    assert result.exit_code == 78
    assert f"{file} (from LOGFAN_CONFIG): cannot be read" in result.output


def test_a_wrong_instance_of_the_command_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(SINK)
    environ = {"LOGFAN_INSTANCE": "x"}
    result = CliRunner(env=environ).invoke(main, ["check", "-c", str(file), "--instance", "a/b"])
    assert result.exit_code == 78
    assert "instance (from --instance)" in result.output


def test_a_variable_overrides_the_file(tmp_path: Path) -> None:
    result = check(tmp_path, SINK, LOGFAN_RABBITMQ__PREFETCH="7", LOGFAN_SINKS__A__FORMAT="json")
    assert result.exit_code == 0
    assert "prefetch 7" in result.output


@pytest.mark.parametrize("place", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    result = CliRunner().invoke(main, ["check", "--config", str(path)])
    assert result.exit_code == 78
    assert f"{path}: cannot be read" in result.output


def test_a_password_in_a_file_that_others_may_read_is_warned_about(tmp_path: Path) -> None:
    text = f'[rabbitmq]\nurls = ["amqp://bob:s3cret@host"]\n{SINK}'
    result = check(tmp_path, text)
    assert result.exit_code == 0
    assert "may be read by everybody" in result.output
    assert "s3cret" not in result.output


def test_run_says_the_same_as_check(tmp_path: Path) -> None:
    checked = check(tmp_path, HOSTILE["misspelt key"][0])
    ran = CliRunner().invoke(main, ["run", "--config", str(tmp_path / "config.toml")])
    assert (ran.exit_code, ran.output) == (checked.exit_code, checked.output)


BETWEEN: dict[str, tuple[str, tuple[str, ...]]] = {
    "arguments and another key": (
        '[queue]\ndeclare = "no"\narguments = { x-max-length = "a", x-queue-type = "stream" }\n',
        ("queue.declare", "queue.arguments.x-max-length", "messages would be lost"),
    ),
    "files and another key": (
        '[rabbitmq]\nprefetch = 0\nurl_file = "away"\ntls = { ca_file = "away" }\n',
        ("rabbitmq.prefetch", "rabbitmq.url_file", "rabbitmq.tls.ca_file"),
    ),
    "names and another key": (
        '[log]\nlevel = "loud"\n[exchange]\nname = "amq.mine"\n[queue]\nname = "amq.mine"\n',
        ("log.level", "exchange.name", "queue.name"),
    ),
    "delays of a sink, and another key": (
        'instance = "a/b"\n[sinks.b]\nkind = "stdout"\nretry = { initial = "2m" }\nrequired = 5\n',
        ("instance", "sinks.b.required", "sinks.b.retry.initial"),
    ),
    "two files on one path, of which one has a wrong key of the host's": (
        f"{FILE.replace('sinks.a', 'sinks.y')}required = 5\n{FILE.replace('sinks.a', 'sinks.z')}",
        ("sinks.y.required", "same path as sinks.y"),
    ),
}


@pytest.mark.parametrize("case", BETWEEN)
def test_faults_between_keys_are_reported_beside_those_of_single_keys(
    tmp_path: Path, case: str
) -> None:
    text, places = BETWEEN[case]
    result = check(tmp_path, text + SINK)
    assert result.exit_code == 78
    for place in places:
        assert place in result.output
    assert f"{len(places)} faults in" in result.output


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[rabbitmq]\nreconnect = { initial = "1m", max = "soon" }\n', "rabbitmq.reconnect.max"),
        ('[queue]\ntype = "quick"\narguments = { x-queue-type = "quorum" }\n', "queue.type"),
        ('[exchange]\nname = "amq.topic"\ntype = "topi"\n', "exchange.type"),
        ('[dead_letter]\nqueue = "logfan"\n[queue]\nname = ""\n', "queue.name"),
        ("rabbitmq = 5\n", "rabbitmq"),
    ],
)
def test_nothing_is_derived_from_an_invalid_key(tmp_path: Path, text: str, place: str) -> None:
    result = check(tmp_path, text + SINK)
    assert place in result.output
    assert "1 fault in" in result.output


@pytest.mark.parametrize(
    "key",
    ["rabbitmq.url_file", "rabbitmq.tls.ca_file", "http.tls.cert_file", "sinks.a.path"],
)
def test_a_path_with_a_null_character_is_a_fault(tmp_path: Path, key: str) -> None:
    table, _, name = key.rpartition(".")
    sink = "" if table == "sinks.a" else SINK
    kind = 'kind = "file"\n' if table == "sinks.a" else ""
    result = check(tmp_path, f'{sink}[{table}]\n{kind}{name} = "a\\u0000"\n')
    assert result.exit_code == 78, result.output
    assert f"fault  {key}" in result.output


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "large"])
def test_a_file_of_secrets_that_never_ends_is_named(tmp_path: Path, what: str) -> None:
    """To read a pipe waits for its writer, and a device or a large file fills the memory."""
    file = Path("/dev/zero") if what == "device" else tmp_path / what
    if what == "pipe":
        os.mkfifo(file)
    elif what == "folder":
        file.mkdir()
    elif what == "large":
        file.touch()
        os.truncate(file, 1 << 40)
    redact = f'redact = {{ paths = ["a"], hash = true, key_file = "{file}" }}\n'
    result = check(tmp_path, f'[rabbitmq]\nurl_file = "{file}"\n{SINK}{redact}')
    assert result.exit_code == 78
    assert result.output.count("cannot be read") == 2, result.output
    if what != "large":  # OpenSSL reads a part of it
        tls = f'[rabbitmq]\nurls = ["amqps://host/"]\ntls = {{ ca_file = "{file}" }}\n'
        assert "rabbitmq.tls.ca_file" in check(tmp_path, f"{tls}{SINK}").output
    # What a sink's key names is looked at for changes; the sink itself reports what is wrong.
    http = f'[sinks.a]\nkind = "http"\nurl = "http://localhost:1"\ntoken_file = "{file}"\n'
    assert check(tmp_path, http).exit_code == 0
    if what != "large":
        with pytest.raises(SinkUnavailable, match="no regular file"):
            secret_in(file)


def test_a_secret_that_is_not_utf_8_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"caf\xe9")
    with pytest.raises(SinkUnavailable, match=r"token: it is not UTF-8"):
        secret_in(tmp_path / "token")


@pytest.mark.parametrize(
    ("linger", "timeout", "is_named"), [("11s", "30s", True), ("9s", "30s", False)]
)
def test_a_linger_that_hands_the_window_back_is_named(
    tmp_path: Path, linger: str, timeout: str, is_named: bool
) -> None:
    rabbitmq = f'[rabbitmq]\nacknowledgement_timeout = "{timeout}"\n'
    result = check(tmp_path, f'{rabbitmq}{SINK}batch = {{ linger = "{linger}" }}\n')
    assert result.exit_code == 0
    assert ("sinks.a.batch.linger" in result.output) is is_named, result.output
