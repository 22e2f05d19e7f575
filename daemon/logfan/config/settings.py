"""TOML and secret files into typed settings, with every fault at once.

Attributes are named like the keys of config.toml. Durations are seconds, sizes are bytes.
"""

import re
import secrets
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from logfan.config import amqp_url
from logfan.config.amqp_limits import short_string
from logfan.config.file_permissions import denied, why_unreadable
from logfan.config.named_files import files_of
from logfan.config.units import Duration, Size
from logfan.config.validation_errors import shown
from logfan.faults import Fault, Faults
from logfan.runtime.file_names import checked_name
from logfan.runtime.foreign_text import hide, line_of
from logfan.runtime.small_file import read_small
from logfan.stage.redact import MASK, Redactor
from logfan.stage.stage import Stage
from logfan.stage.where import Where
from logfan.transform import Transform

PositiveDuration = Annotated[Duration, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
_KEY = secrets.token_bytes(32)
ShortString = Annotated[str, AfterValidator(short_string)]
Name = Annotated[ShortString, Field(min_length=1)]


def _file_name(given: Any, handler: ValidatorFunctionWrapHandler) -> Path:
    return checked_name(given, handler(given))


FilePath = Annotated[Path, WrapValidator(_file_name)]


def _written(default: str) -> Any:
    """A default as people write it; it is parsed like any other value."""
    return Field(default=default, validate_default=True)


def _table() -> Any:
    """A table that need not be written: it is made of its own defaults."""
    return Field(default={}, validate_default=True)


class Table(BaseModel):
    """A table of config.toml: unknown keys are faults, and nothing changes after loading."""

    # Built where it is used: most tables are only ever read as a part of Settings.
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)


def check_url(secret: SecretStr) -> SecretStr:
    """Raise ValueError, without the password, where it is no usable AMQP URL."""
    amqp_url.parse(secret.get_secret_value())
    return secret


def _not_empty(urls: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not urls:
        raise ValueError("must not be empty; write a list of URLs: amqp://USER:PASSWORD@HOST:PORT")
    return urls


def check_http_url(secret: SecretStr) -> SecretStr:
    """Raise ValueError, without the password, where it is no usable URL of HTTP."""
    help_text = "write http://HOST:15672 or https://, with USER:PASSWORD@ where it is another login"
    try:
        parts = urlsplit(secret.get_secret_value())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ValueError(help_text)
    return secret


_TEXT = WithJsonSchema({"type": "string"})
BrokerUrl = Annotated[SecretStr, AfterValidator(check_url), _TEXT]
DEFAULT_URL = "amqp://guest:guest@localhost:5672/%2F"


class TlsSettings(Table):
    """`rabbitmq.tls`"""

    ca_file: FilePath | None = None
    """The CA that signed the broker's certificate; none: those of the system."""
    cert_file: FilePath | None = None
    """The client's certificate, with its chain. With a URL without a user the login is EXTERNAL."""
    key_file: FilePath | None = None
    """Its private key, without a passphrase."""
    verify: bool = True
    """false: takes any certificate of the broker."""


class ReconnectSettings(Table):
    """`rabbitmq.reconnect`"""

    initial: PositiveDuration = _written("500ms")
    """The first delay; it doubles with each failure, and is varied."""
    max: PositiveDuration = _written("30s")
    """The longest delay. Where nothing answers it is 2 s, or `initial` where that is more: to ask
    costs nothing, and logfan is soon back."""


class RabbitmqSettings(Table):
    """`rabbitmq`"""

    urls: Annotated[
        tuple[BrokerUrl, ...],
        AfterValidator(_not_empty),
        Field(json_schema_extra={"default": [DEFAULT_URL]}),  # pydantic would hide it
    ] = (SecretStr(DEFAULT_URL),)
    """Where the broker is, tried in turn: amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps://."""
    url_file: FilePath | None = None
    """A file that holds the URLs in place of `urls`, a line each."""
    tls: TlsSettings = _table()
    """For URLs with amqps://."""
    prefetch: Annotated[int, Field(ge=1, le=65535)] = 1000
    """Most messages held unacknowledged."""
    max_in_flight_bytes: Annotated[Size, Field(ge=1)] = _written("64MiB")
    """Most bytes of bodies held, whatever the prefetch; headers beyond 4 KiB count as well."""
    acknowledgement_timeout: Annotated[Duration, Field(ge=1)] = _written("30m")
    """The broker's `consumer_timeout`. A third of it is how long a window may wait for a sink."""
    heartbeat: Annotated[Duration, Field(ge=1, le=65535)] = _written("30s")
    """A connection on which the broker is silent for longer counts as lost."""
    fast_path: bool = True
    """Read deliveries in one pass of our own; false: in pika's way."""
    startup: Literal["retry", "fail"] = "retry"
    """What to do where the broker is away at the start: try again, or exit with 69."""
    reconnect: ReconnectSettings = _table()
    """How soon a connection is tried again."""
    management_url: Annotated[SecretStr, AfterValidator(check_http_url), _TEXT] | None = None
    """RabbitMQ's management API, which `logfan doctor` asks; the daemon does not."""

    def read_urls(self) -> list[str]:
        """The URLs to try in turn; `url_file` is read anew at each call. Raises Faults."""
        urls = self._urls()
        for url in urls:
            hide(amqp_url.parse(url).password or "")
        return urls

    def _urls(self) -> list[str]:
        if self.url_file is None:
            return [url.get_secret_value() for url in self.urls]
        value = shown("rabbitmq.url_file", str(self.url_file))
        try:
            text = read_small(self.url_file).decode()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8"
            if isinstance(error, PermissionError):
                why = denied(self.url_file)
            problem = f"cannot be read ({why}); it names a file that holds the URL, a line each"
            raise Faults([Fault("rabbitmq.url_file", problem, value)]) from None
        lines = [line.strip() for line in text.splitlines()]
        urls = [line for line in lines if line and not line.startswith("#")]
        faults = [] if urls else [Fault("rabbitmq.url_file", "the file holds no URL", value)]
        for number, url in enumerate(urls, 1):
            try:
                check_url(SecretStr(url))
            except ValueError as error:
                faults.append(Fault("rabbitmq.url_file", f"URL {number}: {error}"))
        if faults:
            raise Faults(faults)
        return urls


class ExchangeSettings(Table):
    """`exchange`"""

    name: Name = "logs"
    """What programs publish to."""
    type: Literal["fanout", "direct", "topic", "headers", "x-consistent-hash"] = "fanout"
    """Its type, to create it with, or as it must be."""
    durable: bool = False
    """Whether to create it so that it outlives a restart of the broker."""
    declare: Literal["auto", "passive", "never"] = "auto"
    """auto: used as it is, else created; passive: it must exist; never: used unasked."""


def parse_limit(value: object) -> object:
    """A delivery limit, or `"none"`. Raises ValueError."""
    if value is None or value == "none":
        return value
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if isinstance(number, int) and not isinstance(number, bool) and number >= 1:
        return number
    raise ValueError('must be a number of returns from 1 on, or "none" where there is no limit')


NotNegative = Annotated[int, Field(ge=0)]


class QueueArguments(BaseModel):
    """The entries of `queue.arguments` that RabbitMQ knows: `message_ttl` is `x-message-ttl`."""

    model_config = ConfigDict(
        strict=True, defer_build=True, alias_generator=lambda name: "x-" + name.replace("_", "-")
    )

    message_ttl: NotNegative = 0
    expires: Count = 1
    max_length: NotNegative = 0
    max_length_bytes: NotNegative = 0
    max_priority: Count = 1
    delivery_limit: int = 0
    quorum_initial_group_size: Count = 1
    max_in_memory_length: NotNegative = 0
    max_in_memory_bytes: NotNegative = 0
    overflow: Literal["drop-head", "reject-publish", "reject-publish-dlx"] = "drop-head"
    queue_mode: Literal["default", "lazy"] = "default"
    dead_letter_strategy: Literal["at-most-once", "at-least-once"] = "at-most-once"
    queue_leader_locator: Literal["client-local", "balanced"] = "client-local"
    single_active_consumer: bool = False
    dead_letter_exchange: str = ""
    dead_letter_routing_key: str = ""
    queue_type: str = ""


class QueueSettings(Table):
    """`queue`"""

    name: Name = "logfan"
    """What is consumed."""
    type: Literal["classic", "quorum", "exclusive"] = "classic"
    """The first two are durable; exclusive: named by the broker, and gone with the connection."""
    declare: Literal["auto", "passive", "never"] = "auto"
    """As for the exchange; never: not bound either."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """To create it with: { x-max-length = 1000000 }."""
    routing_keys: tuple[ShortString, ...] | None = None
    """Binding keys; without them "" is bound, and "#" on a topic exchange."""
    delivery_limit: Annotated[int | Literal["none"] | None, BeforeValidator(parse_limit)] = None
    """The limit in force on a quorum queue, which a policy may have set; else what it was declared
    with, or the broker's default."""

    @property
    def kind(self) -> str:
        """The `x-queue-type` to declare with: that of `arguments` wins."""
        own = "quorum" if self.type == "quorum" else "classic"
        return str(self.arguments.get("x-queue-type", own))

    def binding_keys(self, exchange_type: str) -> tuple[str, ...]:
        """What it is bound with, to an exchange of this type."""
        if self.routing_keys is not None:
            return self.routing_keys
        return ("#",) if exchange_type == "topic" else ("",)


class DeadLetterSettings(Table):
    """`dead_letter`"""

    queue: Name | None = None
    """Empty means `<queue.name>.dead`."""
    enabled: bool = True
    """false: what a sink refuses is offered to it again, without end."""
    max_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A sink that refuses a larger share of its last 1,000 records is paused."""


@dataclass(frozen=True, slots=True)
class Listen:
    """A host and a port; port 0 takes any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(value: object) -> object:
    """`"127.0.0.1:9464"` or `"[::1]:9464"` into a Listen. Raises ValueError."""
    if isinstance(value, Listen):
        return value
    help_text = 'write HOST:PORT, such as "127.0.0.1:9464" or "[::1]:9464"'
    if not isinstance(value, str):
        raise ValueError(help_text)  # noqa: TRY004 - pydantic reports ValueError as a fault
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\]/@]+)):(\d{1,5})", value.strip())
    if match is None:
        raise ValueError(help_text)
    port = int(match[3])
    if port > 65535:
        raise ValueError(f"the port must be from 1 to 65535 (0 takes any free one); {help_text}")
    return Listen(match[1] or match[2], port)


class HttpTlsSettings(Table):
    """`http.tls`"""

    cert_file: FilePath | None = None
    """The certificate, with its chain."""
    key_file: FilePath | None = None
    """Its private key."""


class HttpSettings(Table):
    """`http`"""

    listen: Annotated[Listen, BeforeValidator(parse_listen), _TEXT] = _written("127.0.0.1:9464")
    """Host and port."""
    tls: HttpTlsSettings = _table()
    """Serve https."""


class PluginSettings(Table):
    """`plugins`"""

    directories: tuple[FilePath, ...] = (Path("/etc/logfan/plugins"),)
    """Folders of drop-in plugins; one that is missing is no fault."""
    disabled: tuple[str, ...] = ()
    """Plugins not to load: files without .py, entry points or distributions."""


class LogSettings(Table):
    """`log`"""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines to write. With debug, warnings of the AMQP library come too."""
    format: Literal["text", "json"] = "text"
    """json: an object a line, for machines."""


class BatchSettings(Table):
    """`sinks.<name>.batch`"""

    max_records: Count = 5000
    """Most records."""
    max_bytes: Annotated[Size, Field(ge=1)] = _written("8MiB")
    """Most bytes of bodies."""
    linger: Duration = _written("0ms")
    """How long to wait for more; none: take what has arrived."""


class RetrySettings(Table):
    """`sinks.<name>.retry`"""

    initial: PositiveDuration = _written("200ms")
    """The first delay."""
    max: PositiveDuration = _written("30s")
    """The longest delay."""
    jitter: bool = True
    """Vary the delays, so that many daemons do not come back in step."""


def _paths_to_redact(paths: tuple[str, ...]) -> tuple[str, ...]:
    Redactor(paths)
    return paths


def _patterns_to_redact(patterns: tuple[str, ...]) -> tuple[str, ...]:
    Redactor((), patterns)
    return patterns


class RedactSettings(Table):
    """`sinks.<name>.redact`"""

    paths: Annotated[tuple[str, ...], AfterValidator(_paths_to_redact)] = ()
    """Values to replace: dotted paths into the JSON body, which reach into each element of a list,
    and headers.NAME."""
    patterns: Annotated[tuple[str, ...], AfterValidator(_patterns_to_redact)] = ()
    """What to replace wherever it occurs: email, card, iban, ipv4, ipv6, jwt, bearer, or regular
    expressions of RE2."""
    mask: str = Field(default=MASK, validation_alias="with")
    """What takes its place."""
    hash: bool = False
    """true: a keyed hash takes its place instead, so that records can still be joined."""
    key_file: FilePath | None = None
    """The file that holds the hash's key; without one the key is new at each start."""

    @model_validator(mode="after")
    def _is_of_use(self) -> "RedactSettings":
        if not self.paths and not self.patterns:
            raise ValueError("it names neither paths nor patterns; name some, or leave it out")
        if self.key_file is not None and not self.hash:
            raise ValueError("key_file is for hash = true; add that, or leave key_file out")
        return self

    def redactor(self, key: bytes | None = None) -> Redactor:
        """Raises as `read_key` does, unless a key is given."""
        key = key or self.read_key()
        return Redactor(self.paths, self.patterns, mask=self.mask, key=key if self.hash else None)

    def read_key(self) -> bytes | None:
        """The hashes' key as it is now; None where there are no hashes. Raises OSError where it
        cannot be read, ValueError where it is empty."""
        if not self.hash:
            return None
        key = _KEY if self.key_file is None else read_small(self.key_file).strip()
        if not key:
            raise ValueError("the file is empty")
        return key


class _PluginTable(Table):
    """A table with keys of a sink or a transform beside the host's."""

    model_config = ConfigDict(extra="allow")

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # Without the plugin's own keys, of which one may be a password.
        return [(name, getattr(self, name)) for name in type(self).model_fields]

    @property
    def options(self) -> Mapping[str, Any]:
        """The plugin's own keys, not validated here."""
        return self.model_extra or {}


class TransformSettings(_PluginTable):
    """A table of `sinks.<name>.transforms`: all keys but `kind` are the transform's own."""

    kind: Name
    """Which transform."""


class SinkSettings(_PluginTable):
    """`sinks.<name>`: the host's keys; all others are the sink's own."""

    kind: Name
    """Which sink."""
    required: bool = True
    """false: its failure never holds a message back, and what it missed is counted."""
    batch: BatchSettings = _table()
    """How much one write may hold."""
    retry: RetrySettings = _table()
    """How soon a failure is tried again, without end; the delay doubles each time."""
    decode: bool = False
    """Undo the compression of bodies first: gzip, zlib, deflate, bz2, xz, lzma and zstd, as
    content_encoding or the header compression declare it, zlib and gzip also where nothing does.
    What cannot be decoded, or would be larger than 64 MiB or (beyond 1 MiB) 200 times its size,
    goes on as it came, and is counted."""
    where: Where | None = None
    """Which records the sink gets: { level = ["error", "critical"], routing_key = { prefix =
    "shop." } }. All matchers must hold; of a list of tables one must. All others are settled."""
    on_error: Literal["keep", "drop"] = "keep"
    """What becomes of a record whose body would decide in `where` and is no JSON, or which `redact`
    cannot decompress."""
    sample: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """The share of the records to keep, the same ones in each attempt and instance; what a table
    of `where` marks with always = true is kept."""
    transforms: tuple[TransformSettings, ...] = ()
    """Code of your own that changes or filters the records, in this order: [{ kind = "NAME", … }].
    `logfan sinks` lists what there is."""
    redact: RedactSettings | None = None
    """What to replace before the sink gets it: { paths = ["user.email"], patterns = ["card"] }."""

    def stage(
        self, transforms: Sequence[tuple[str, Transform]] = (), key: bytes | None = None
    ) -> Stage | None:
        """What is done to records before the sink gets them; None where that is nothing.
        `transforms` are those that are named, each behind its kind. Raises as
        `RedactSettings.redactor` does, which takes the `key`."""
        steps = self.decode, self.where, self.redact, *transforms
        if steps == (False, None, None) and self.sample >= 1.0:
            return None
        return Stage(
            decode_bytes=self.batch.max_bytes if self.decode else None,
            where=self.where, keeps_undecided=self.on_error == "keep", sample=self.sample,
            transforms=transforms,
            redactor=None if self.redact is None else self.redact.redactor(key),
        )  # fmt: skip


class Settings(Table):
    """All of config.toml."""

    instance: Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]*$", max_length=64)] = ""
    """Which of several daemons this is, for file names and views."""
    shutdown_timeout: Duration = _written("30s")
    """How long a stop may drain; then what is left goes back to the broker."""
    watch: bool = False
    """Reload when the file changes, or one that a key ending in `_file` names, a sink's too."""
    rabbitmq: RabbitmqSettings = _table()
    """The broker, and how much is held of what it delivers."""
    exchange: ExchangeSettings = _table()
    """Where messages come from."""
    queue: QueueSettings = _table()
    """Where they wait for logfan."""
    dead_letter: DeadLetterSettings = _table()
    """Where records go that a sink refuses for good."""
    http: HttpSettings = _table()
    """Metrics, health and the status page."""
    plugins: PluginSettings = _table()
    """Where sinks of your own are found."""
    log: LogSettings = _table()
    """The daemon's own log, on standard error."""
    sinks: dict[str, SinkSettings] = Field(default_factory=dict)
    """A table for each sink, under a name of your choice."""

    def files(self) -> dict[str, Path]:
        """The files that the host's own keys name, by key."""
        return dict(files_of(self, ""))

    @property
    def dead_letter_queue(self) -> str:
        """`dead_letter.queue`, or what stands for it."""
        return self.dead_letter.queue or f"{self.queue.name}.dead"


HOMES = {
    key: f"{table}.{key}"
    for table, model in (
        ("rabbitmq", RabbitmqSettings), ("exchange", ExchangeSettings), ("queue", QueueSettings),
        ("dead_letter", DeadLetterSettings), ("http", HttpSettings), ("plugins", PluginSettings),
        ("log", LogSettings),
    )
    for key in model.model_fields
    if key not in ("name", "type", "declare", "queue", "format")
} | {"url": "rabbitmq.urls", "host": "rabbitmq.urls", "port": "http.listen"}  # fmt: skip
"""Where a key lives that people write into the wrong table."""
TOO_DEEP = "is nested too deeply"
_DEEPEST = 64


def read_table(path: Path) -> dict[str, Any]:
    """The TOML file as a table. Raises Faults that name the file and the line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        why = why_unreadable(path, error)
        raise Faults([Fault(str(path), f"cannot be read: {why}")]) from None
    try:
        table = tomllib.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise Faults([Fault(str(path), f"is not UTF-8 (line {line}); save it as UTF-8")]) from None
    except tomllib.TOMLDecodeError as error:
        raise Faults(
            [Fault(str(path), f"is not valid TOML: {line_of(error)}{_toml_hint(raw)}")]
        ) from None
    except ValueError:  # Python's own, of a number with more digits than it converts
        raise Faults([Fault(str(path), "a number in it has too many digits")]) from None
    except RecursionError:
        table = None
    if table is None or is_deep(table):
        raise Faults([Fault(str(path), TOO_DEEP)])
    return table


def is_deep(value: object) -> bool:
    """Whether lists and tables lie in each other as no config needs it: what walks through them
    would run out of stack."""
    level = [value]
    for _ in range(_DEEPEST):
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        if not inner:
            return False
        level = inner
    return True


def _toml_hint(raw: bytes) -> str:
    if re.search(rb"^[ \t]*[\w.]+[ \t]*:\s", raw, re.MULTILINE):
        return "; in TOML it is key = value, not key: value"
    if re.search(rb"=\s*(True|False|None)\b", raw):
        return "; TOML writes true and false in lower case"
    return ""
