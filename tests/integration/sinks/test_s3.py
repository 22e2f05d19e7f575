"""The sink `s3` against moto's server, and against scripted answers: each verdict."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
import zstandard

import logfan
from logfan.record import Record
from logfan.sink import Sink, SinkUnavailable
from logfan.testing import record
from logfan.testing.conformance import Break, How, SinkConformance
from logfan_sinks.s3 import S3Sink
from support.gate import Gate
from support.moto import Moto
from support.opener import opener
from support.scripted_http import Reply, Request, ScriptedServer

Open = Callable[..., S3Sink]
RECEIVED_AT = 1_795_651_200.0  # 2026-11-26T00:00:00Z
_numbers = count()


@pytest.fixture(scope="module")
def s3() -> Iterator[Moto]:
    with Moto() as server:
        yield server


@pytest.fixture
def bucket(s3: Moto) -> str:
    """One of this test's own."""
    name = f"logs-{next(_numbers)}"
    s3.create(name)
    return name


@pytest.fixture
def opened(s3: Moto, bucket: str, tmp_path: Path) -> Iterator[Open]:
    """Opens a sink to the bucket, and closes it at the end."""
    secret = tmp_path / "secret"
    secret.write_text("b\n")
    given = {
        "bucket": bucket, "endpoint": s3.endpoint, "region": "us-east-1",
        "access_key_id": "a", "secret_access_key_file": secret, "timeout": "20s",
    }  # fmt: skip
    with opener(S3Sink, "archive", **given) as opened:
        yield opened


class Bucket(ScriptedServer):
    """Takes each key once, and lists nothing. It keeps the order of objects, of which moto knows
    no more than the second."""

    listing = Reply(200, b"<ListBucketResult></ListBucketResult>")

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, bytes] = {}
        self.answers = threading.Event()
        self.answers.set()
        self.answer = self._answered

    def _answered(self, request: Request) -> Reply:
        if not self.answers.is_set():
            self.answers.wait()
            return Reply(0)
        if request.method == "GET":
            return self.listing
        if self.replies:
            return self.replies.popleft()
        if request.path in self.objects:
            return Reply(412)
        self.objects[request.path] = request.body
        return Reply(200, headers={"ETag": '"1"'})

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Answer nothing."""
        self.answers.clear()
        yield
        self.answers.set()


@pytest.fixture
def server() -> Iterator[Bucket]:
    server = Bucket()
    with server.running():
        yield server


def numbered(count: int, first: int = 0) -> list[Record]:
    return [
        record({"n": n}, message_id=str(n), received_at=RECEIVED_AT)
        for n in range(first, first + count)
    ]


def lines(s3: Moto, bucket: str) -> list[Any]:
    found = b"".join(s3.objects(bucket).values()).splitlines()
    return [json.loads(line)["body"]["n"] for line in found]


def puts(server: Bucket) -> list[Request]:
    return [request for request in server.requests if request.method == "PUT"]


def test_a_batch_is_an_object_whose_key_its_records_make(
    opened: Open, s3: Moto, bucket: str
) -> None:
    sink = opened(prefix="/of/shop")
    sink.write(numbered(3))
    sink.write(numbered(2, 3))
    sink.write([record({"n": 5, "time": "2026-11-25T23:59:59Z"}, message_id="5")])
    keys = [*s3.objects(bucket)]
    assert sorted(key.rpartition("/")[0] for key in keys) == [
        "of/shop/2026-11-25", "of/shop/2026-11-26", "of/shop/2026-11-26",
    ]  # fmt: skip
    assert all(key.endswith(".jsonl") for key in keys)
    assert sorted(lines(s3, bucket)) == [0, 1, 2, 3, 4, 5]


def test_days_have_objects_of_their_own(opened: Open, s3: Moto, bucket: str) -> None:
    days = ["2026-11-25", "2026-11-26", "2026-11-25"]
    records = [record({"n": n, "time": f"{day}T12:00:00Z"}) for n, day in enumerate(days)]
    opened().write(records)
    found = {key.split("/")[0]: content for key, content in s3.objects(bucket).items()}
    assert {day: content.count(b"\n") for day, content in found.items()} == {
        "2026-11-25": 2, "2026-11-26": 1,
    }  # fmt: skip


def test_a_batch_that_is_there_already_is_done(opened: Open, s3: Moto, bucket: str) -> None:
    opened().write(numbered(3))
    again = opened()
    again.write(numbered(3))  # 412
    assert lines(s3, bucket) == [0, 1, 2]
    again.write(numbered(4))
    assert len(s3.objects(bucket)) == 2


def test_equal_records_without_identity_are_all_kept(opened: Open, s3: Moto, bucket: str) -> None:
    sink = opened(format="raw")
    same = [record(b"ping", received_at=RECEIVED_AT) for _ in range(2)]
    for _ in range(3):
        sink.write(same)
    assert b"".join(s3.objects(bucket).values()) == b"ping\n" * 6


def test_a_retry_of_what_has_no_identity_has_the_same_key(opened: Open, server: Bucket) -> None:
    sink = opened(endpoint=server.url)
    server.replies += [Reply(500), Reply(412)]
    records = [record(b"ping"), record(b"ping")]
    with pytest.raises(SinkUnavailable, match="500"):
        sink.write(records)
    sink.open()
    sink.write(records)
    sink.write(records)
    first, second, third = [request.path for request in puts(server)]
    assert first == second != third


def test_each_object_is_one_put_that_never_replaces(opened: Open, server: Bucket) -> None:
    opened(endpoint=server.url, format="raw").write([record(b"x" * (12 << 20))])
    (put,) = puts(server)
    assert put.headers["if-none-match"] == "*"
    assert len(put.body) == (12 << 20) + 1
    assert "uploads" not in put.path


@pytest.mark.parametrize(
    "reply",
    [Reply(status) for status in (301, 400, 401, 403, 404, 409, 413, 429, 500, 503)]
    + [Reply(0)],
    ids=lambda reply: str(reply.status),
)  # fmt: skip
def test_every_other_answer_is_not_now(opened: Open, server: Bucket, reply: Reply) -> None:
    sink = opened(endpoint=server.url)
    server.replies.append(reply)
    with pytest.raises(SinkUnavailable) as caught:
        sink.write(numbered(1))
    assert "\n" not in str(caught.value)
    sink.write(numbered(1))
    assert len(puts(server)) == 2


def test_two_sinks_of_one_folder_are_a_conflict() -> None:
    options: dict[str, dict[str, Any]] = {
        "a": {"prefix": "x"}, "b": {"prefix": "x/", "endpoint": "http://S3.example.org/"},
        "other": {"prefix": "y"}, "named": {"prefix": "x", "compress": "gzip"},
        "text": {"prefix": "x", "format": "text"}, "raw": {"prefix": "x", "format": "raw"},
        "elsewhere": {"prefix": "x", "endpoint": "http://s3.example.com"},
        "amazon": {"prefix": "x", "endpoint": None},
        "bucket": {"prefix": "x", "bucket": "others"},
    }  # fmt: skip
    given = {"bucket": "logs", "endpoint": "http://s3.example.org"}
    wrong = S3Sink.conflicts(
        {name: S3Sink.Config.model_validate({**given, **more}) for name, more in options.items()}
    )
    assert set(wrong) == {"b", "raw"}
    assert "sinks.a" in wrong["b"]
    assert "prefix" in wrong["b"]
    assert "sinks.text" in wrong["raw"]


def test_a_bucket_that_is_missing_is_seen_when_it_opens(opened: Open) -> None:
    with pytest.raises(SinkUnavailable, match="NoSuchBucket"):
        opened(bucket="nowhere")


def test_who_may_not_list_may_put(opened: Open, server: Bucket) -> None:
    server.listing = Reply(403)
    opened(endpoint=server.url).write(numbered(1))
    assert len(puts(server)) == 1


def test_a_server_that_is_away_is_named(opened: Open) -> None:
    with pytest.raises(SinkUnavailable, match="Connection refused"):
        opened(endpoint="http://127.0.0.1:1")


def test_a_server_that_hangs_is_not_waited_for_without_end(
    opened: Open, s3: Moto, bucket: str
) -> None:
    sink = opened(timeout="1s")
    s3.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(SinkUnavailable):
            sink.write(numbered(2))
        assert time.monotonic() - began < 20
    finally:
        s3.thaw()
    sink = opened()
    sink.write(numbered(2))
    assert lines(s3, bucket) == [0, 1]


@pytest.mark.parametrize(
    ("compress", "undo", "suffix"),
    [
        ("gzip", gzip.decompress, ".jsonl.gz"),
        ("zstd", lambda raw: zstandard.ZstdDecompressor().decompress(raw), ".jsonl.zst"),
    ],
)
def test_objects_are_compressed(
    opened: Open, s3: Moto, bucket: str, compress: str, undo: Callable[[bytes], bytes], suffix: str
) -> None:
    opened(compress=compress).write(numbered(500))
    ((key, content),) = s3.objects(bucket).items()
    assert key.endswith(suffix)
    assert len(content) < 20_000
    assert undo(content).count(b"\n") == 500


def test_the_secret_is_in_no_error(opened: Open, tmp_path: Path, server: Bucket) -> None:
    secret = tmp_path / "s"
    secret.write_text("s3cret\n")
    sink = opened(endpoint=server.url, secret_access_key_file=secret)
    server.replies.append(Reply(403, b"<Code>SignatureDoesNotMatch</Code>"))
    with pytest.raises(SinkUnavailable, match="SignatureDoesNotMatch") as caught:
        sink.write(numbered(1))
    assert "s3cret" not in str(caught.value)
    with pytest.raises(SinkUnavailable, match="No such file"):
        opened(secret_access_key_file=tmp_path / "none")


def test_credentials_of_the_environment_are_used(
    opened: Open, server: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-outside")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    sink = opened(endpoint=server.url, access_key_id=None, secret_access_key_file=None, region=None)
    sink.write(numbered(1))
    day = datetime.now(UTC).strftime("%Y%m%d")
    assert f"Credential=from-outside/{day}/us-east-1/s3" in puts(server)[0].headers["authorization"]


class TestConformance(SinkConformance):
    sink_class: ClassVar[type[Sink[Any]]] = S3Sink
    exactly_once = True
    ordered = False  # over days, which have objects of their own
    cannot: ClassVar[dict[str, str]] = {"refuses": "an object is taken or not now"}

    @pytest.fixture(autouse=True)
    def _bucket(self, server: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        self.server = server
        self.secret = tmp_path_factory.mktemp("secret") / "key"
        self.secret.write_text("b")
        with Gate(int(server.url.rpartition(":")[2])) as self.gate:
            yield

    def options(self, folder: Path) -> dict[str, Any]:
        return {
            "bucket": "logs", "endpoint": f"http://127.0.0.1:{self.gate.port}", "timeout": "2s",
            "region": "us-east-1", "access_key_id": "a",
            "secret_access_key_file": str(self.secret),
        }  # fmt: skip

    def break_it(self, how: How, folder: Path) -> Break:
        return (self.gate.shut, self.gate.open) if how == "away" else self.server.silent()

    def read_back(self, sink: Sink[Any], folder: Path) -> list[bytes]:
        return [line for content in self.server.objects.values() for line in content.splitlines()]

    def expected(self, record: Record) -> bytes:
        return logfan.json_lines([record])[0]
