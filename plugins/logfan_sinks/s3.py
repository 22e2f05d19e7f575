"""The sink `s3`: an object for each batch in a bucket of S3, or of what speaks its API."""

import gzip
import hashlib
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import zstandard
from pydantic import AfterValidator, Field, model_validator

import logfan
from logfan_sinks.address import Timeout, is_address
from logfan_sinks.extras import ExtraConfig
from logfan_sinks.formats import Format, encoder
from logfan_sinks.row import FieldName, time_of
from logfan_sinks.secret_file import must_be_readable, token_in

if TYPE_CHECKING:
    from obstore.store import S3Store

_WHY_CHARS = 300
_ENDPOINT = re.compile(r"https?://[\w.:%\[\]-]+/?", re.ASCII)
_ZSTD_LEVEL, _GZIP_LEVEL = 3, 6
_SUFFIXES = {"none": "", "gzip": ".gz", "zstd": ".zst"}
_MEDIA_TYPES = {"gzip": "application/gzip", "zstd": "application/zstd"}
# obstore has one error for 412, which proves that the object is there, and for 409, another write
# that goes on at the same time and may yet fail.
_IS_THERE = "status code: 412"
_FORBIDDEN = "status code: 403"
_ANSWER = "Server returned non-2xx status code: "


Plain = Annotated[str, Field(pattern=r"^[!-~]+$")]
"""What a header takes: obstore panics over any other."""


def _endpoint(url: str) -> str:
    if not (_ENDPOINT.fullmatch(url) and is_address(urlsplit(url))):
        raise ValueError("it is https://HOST:PORT or http://HOST:PORT, without a path")
    return url


def _folder(prefix: str) -> str:
    parts = [part for part in prefix.split("/") if part]
    if {".", ".."} & {*parts}:
        raise ValueError("it holds a part that is . or ..")
    return "".join(f"{part}/" for part in parts)


def _suffix(config: "S3Sink.Config") -> str:
    kind = "jsonl" if config.format == "json" else "log"
    return f".{kind}{_SUFFIXES[config.compress]}"


class S3Sink(logfan.Sink):
    """Put an object for each batch into a bucket of S3, its key made from the records.

    Done: 200, and 412 to `If-None-Match: *`, as the object is there already.
    Not now: every other answer, lost connections, and silence.
    Refused: nothing.
    Repeats: the key is the day of the records' own time and the hash of their ids, so that a batch
    that is put again is found, and no object is ever half there: it is one PUT. The daemon offers
    the same batch until it is taken. After a crash of the daemon the broker delivers again what was
    not acknowledged, in other batches: then as much as was under way may be there twice. A batch in
    which a record has no id has a key of its own, by which its retries are found all the same. So
    two sinks of one bucket need a `prefix` each, those of other daemons too.
    """

    class Config(ExtraConfig):
        library, extra = "obstore", "s3"

        bucket: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{3,63}$")]
        """The bucket, which must exist."""
        endpoint: Annotated[str, AfterValidator(_endpoint)] | None = None
        """The server, as https://s3.example.org, where it is not Amazon's."""
        region: Plain | None = None
        """The region; that of the environment (AWS_REGION), else us-east-1."""
        prefix: Annotated[str, Field(pattern=r"^[\w!.*'()=/-]*$"), AfterValidator(_folder)] = ""
        """The folder of the objects: PREFIX/2026-11-25/HASH.jsonl."""
        access_key_id: Plain | None = None
        """Whose key, with secret_access_key_file. Without them: the environment
        (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), else the role of the machine."""
        secret_access_key_file: Path | None = None
        """The file that holds the secret key."""
        session_token_file: Path | None = None
        """The file that holds the session token of a temporary key."""
        ca_file: Path | None = None
        """The authorities that the server's certificate may come from beside the system's."""
        format: Format = "json"
        """json: one object a line, with its origin and headers; text and raw: the body alone."""
        compress: Literal["none", "gzip", "zstd"] = "none"
        """Compress each object; its name ends in .gz or .zst."""
        id: tuple[FieldName, ...] = ()
        """Where to find the identity of a record that has no message id: fields such as
        ["headers.id", "order.id"]."""
        timeout: Timeout = 30.0
        """How long a request may take."""

        @model_validator(mode="after")
        def _is_whole(self) -> "S3Sink.Config":
            if (self.access_key_id is None) != (self.secret_access_key_file is None):
                raise ValueError("access_key_id and secret_access_key_file go together")
            if self.session_token_file is not None and self.access_key_id is None:
                raise ValueError("session_token_file goes with access_key_id")
            return self

    _store: "S3Store | None" = None
    _batch = ""
    """Stands for a batch without ids, until it is taken."""

    @classmethod
    def conflicts(cls, configs: Mapping[str, Any]) -> Mapping[str, str]:
        """Two sinks of one folder would take each other's objects for their own: the key tells
        records apart, and not what a sink makes of them."""
        seen: dict[tuple[str, ...], str] = {}
        faults = {}
        for name, config in configs.items():
            endpoint = (config.endpoint or "").rstrip("/").lower()
            place = (endpoint, config.bucket, config.prefix, _suffix(config))
            other = seen.setdefault(place, name)
            if other != name:
                faults[name] = (
                    f"gives its objects the same names in the same bucket as sinks.{other}, so "
                    "that one would stand for the other; give it a prefix of its own"
                )
        return faults

    def open(self) -> None:
        """Read the secrets, and see that the bucket is there."""
        import obstore
        from obstore.exceptions import BaseError

        self.close()
        config = self.config
        self._encode = encoder(config.format)
        self._batch = self._batch or uuid.uuid4().hex
        try:
            self._store = store = self._connected()
            next(iter(obstore.list(store, prefix=config.prefix or None, chunk_size=1)), None)
        except (BaseError, OSError, ValueError) as error:
            if _FORBIDDEN not in str(error):  # who may put need not be allowed to list
                raise _unavailable(error) from None

    def _connected(self) -> "S3Store":
        from obstore.store import S3Store

        config = self.config
        seconds = timedelta(seconds=config.timeout)
        client: dict[str, Any] = {
            "timeout": seconds, "connect_timeout": seconds,
            "user_agent": f"logfan/{logfan.__version__}",
            "allow_http": (config.endpoint or "").startswith("http:"),
        }  # fmt: skip
        if config.ca_file is not None:
            must_be_readable(config.ca_file, "ca_file: ")
            client["root_certificate"] = config.ca_file.read_bytes()
        files = {
            "secret_access_key": config.secret_access_key_file,
            "session_token": config.session_token_file,
        }
        keys = {
            "access_key_id": config.access_key_id, "endpoint": config.endpoint,
            "region": config.region,
        }  # fmt: skip
        given: Any = {name: value for name, value in keys.items() if value is not None}
        given |= {name: token_in(path) for name, path in files.items() if path is not None}
        # Failures are retried by the daemon, which logs them.
        return S3Store(
            config.bucket, config=given, client_options=client,  # type: ignore[arg-type]
            retry_config={"max_retries": 0, "retry_timeout": seconds},
        )  # fmt: skip

    def write(self, records: Sequence[logfan.Record]) -> None:
        """Put an object for each day of the records' time."""
        days: dict[str, list[logfan.Record]] = {}
        for record in records:
            days.setdefault(time_of(record)[:10], []).append(record)
        for day, share in days.items():
            self._put(self._key(day, share), b"\n".join((*self._encode(share), b"")))
        self._batch = uuid.uuid4().hex

    def _key(self, day: str, records: Iterable[logfan.Record]) -> str:
        """The same records give the same key; no others do."""
        digest = hashlib.blake2b(digest_size=16)
        for record in records:
            identity = record.id(*self.config.id)
            if identity is None:  # equal bodies are different records
                mark, raw = f"{self._batch}{record.received_at}".encode(), record.body
            else:
                mark, raw = b"", identity.encode("utf-8", "replace")
            digest.update(mark + len(raw).to_bytes(8) + raw)
        return f"{self.config.prefix}{day}/{digest.hexdigest()}{_suffix(self.config)}"

    def _put(self, key: str, content: bytes) -> None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError

        if self._store is None:
            raise logfan.SinkUnavailable("not connected")
        compress = self.config.compress
        if compress == "gzip":
            content = gzip.compress(content, _GZIP_LEVEL, mtime=0)
        elif compress == "zstd":
            content = zstandard.ZstdCompressor(_ZSTD_LEVEL).compress(content)
        plain = "application/x-ndjson" if self.config.format == "json" else "text/plain"
        try:
            obstore.put(
                self._store, key, content, mode="create", use_multipart=False,
                attributes={"Content-Type": _MEDIA_TYPES.get(compress, plain)},
            )  # fmt: skip
        except AlreadyExistsError as error:
            if _IS_THERE not in str(error):
                raise _unavailable(error) from None
        except (BaseError, OSError) as error:
            raise _unavailable(error) from None

    def close(self) -> None:
        self._store = None


def _unavailable(error: Exception) -> logfan.SinkUnavailable:
    """The cause on one line, without the library's own view of it."""
    if isinstance(error, OSError) and error.filename:
        return logfan.SinkUnavailable(f"{error.filename}: {error.strerror}")
    text, _, debug = str(error).partition("\n\nDebug source:")
    _, answered, answer = text.partition(_ANSWER)
    why = " ".join(f"answers {answer}".split() if answered else text.split())[:_WHY_CHARS]
    _, found, cause = debug.partition('message: "')
    return logfan.SinkUnavailable(f"{why} ({cause.partition(chr(34))[0]})" if found else why)


@logfan.hookimpl
def register_sinks(register: Any) -> None:
    register("s3", S3Sink)
