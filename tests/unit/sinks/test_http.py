"""The sink `http` against a real server: each verdict, each encoding, each way to log in."""

import base64
import itertools
import json
import socket
import threading
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError

from logfan.record import Record
from logfan.sink import RecordsRejected, SinkUnavailable
from logfan.testing import record
from logfan_sinks.http import HttpSink
from logfan_sinks.http.delivery import chunks
from logfan_sinks.http.verdicts import Answer
from logfan_sinks.template import compiled
from support.certificates import server_context
from support.gate import Gate
from support.opener import open_one
from support.scripted_http import Reply, Request, ScriptedServer


def opened(server: ScriptedServer, **options: Any) -> HttpSink:
    return open_one(HttpSink, "web", {"url": f"{server.url}/logs", **options})


def numbered(count: int) -> list[Record]:
    return [record({"n": n}, message_id=f"m-{n}") for n in range(count)]


def numbers(server: ScriptedServer) -> list[list[int]]:
    """The numbers of each request."""
    return [[json.loads(line)["body"]["n"] for line in body.splitlines()] for body in server.bodies]


def test_lines_arrive_in_order_in_one_request(server: ScriptedServer) -> None:
    opened(server).write(numbered(3))
    assert numbers(server) == [[0, 1, 2]]
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/logs")
    assert request.headers["content-type"] == "application/x-ndjson"
    assert request.headers["user-agent"].startswith("logfan/")


def test_an_array_and_single_requests(server: ScriptedServer) -> None:
    opened(server, encoding="array").write(numbered(2))
    opened(server, encoding="single", format="text", method="PUT").write(numbered(2))
    assert [one["body"]["n"] for one in json.loads(server.bodies[0])] == [0, 1]
    assert server.bodies[1:] == [b'{"n":0}', b'{"n":1}']
    assert [request.method for request in server.requests] == ["POST", "PUT", "PUT"]


def test_a_template_with_a_number_that_json_cannot_carry_is_a_fault() -> None:
    with pytest.raises(ValueError, match="more than 64 bits; write it as a string"):
        compiled({"text": "{message}", "n": [1, 10**23]})


def test_a_template_for_webhooks(server: ScriptedServer) -> None:
    template = {"text": "{level}: {message} {{{headers.host}}}", "to": ["#ops", 7], "n": "{user}"}
    sink = opened(server, encoding="single", template=template)
    body = {"level": "ERR", "msg": "it\n failed", "user": {"id": 7}}
    sink.write([record(body, headers={"host": "web-1"}), record(b"\xff plain")])
    assert json.loads(server.bodies[0]) == {
        "text": "error: it\n failed {web-1}", "to": ["#ops", 7], "n": '{"id":7}',
    }  # fmt: skip
    assert json.loads(server.bodies[1])["text"] == ": \\xff plain {}"


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_2xx_is_done(server: ScriptedServer, status: int) -> None:
    server.replies.append(Reply(status))
    opened(server).write(numbered(2))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 401, 403, 404, 301, 399])
def test_what_is_not_now_holds_all_of_it(server: ScriptedServer, status: int) -> None:
    server.replies.append(Reply(status, b"busy  \n just now"))
    with pytest.raises(SinkUnavailable, match=f"answers {status} busy just now"):
        opened(server).write(numbered(2))


def test_faults_of_the_config_name_what_to_look_at(server: ScriptedServer) -> None:
    for status, word in ((401, "credentials"), (403, "may do"), (404, "path"), (302, "redirects")):
        server.replies.append(Reply(status))
        with pytest.raises(SinkUnavailable, match=word):
            opened(server).write(numbered(1))


def test_the_pace_that_is_asked_for_is_passed_on(server: ScriptedServer) -> None:
    server.replies.append(Reply(429, headers={"Retry-After": "7"}))
    with pytest.raises(SinkUnavailable) as caught:
        opened(server).write(numbered(1))
    assert caught.value.retry_after == 7.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("1.5", 1.5), ("-3", 0), ("99999", 3600), ("nan", None), ("soon", None),
        ("", None),
        (format_datetime(datetime(2026, 11, 26, tzinfo=UTC) + timedelta(seconds=30)), 30),
        (format_datetime(datetime(2026, 11, 25, tzinfo=UTC)), 0),
    ],
)  # fmt: skip
def test_retry_after_as_a_number_or_a_date(text: str, seconds: float | None) -> None:
    now = datetime(2026, 11, 26, tzinfo=UTC).timestamp()
    assert Answer(429, headers={"retry-after": text}).retry_after(now) == seconds


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_record_is_found_by_halving(server: ScriptedServer, status: int) -> None:
    def answer(request: Request) -> Reply:
        bad = b'{"n":5}' in request.body or b'{"n":6}' in request.body
        return Reply(status, b"no such field") if bad else Reply()

    server.answer = answer
    with pytest.raises(RecordsRejected) as caught:
        opened(server).write(numbered(9))
    assert dict(caught.value.reasons) == dict.fromkeys(
        (5, 6), f"refused with {status} no such field"
    )
    assert not caught.value.later
    taken = [n for request in numbers(server) for n in request if not {5, 6} & {*request}]
    assert taken == [0, 1, 2, 3, 4, 7, 8]  # in the order of their delivery


def test_what_was_taken_is_not_offered_again(server: ScriptedServer) -> None:
    server.replies += [Reply(), Reply(422), Reply(503, headers={"Retry-After": "2"})]
    with pytest.raises(RecordsRejected) as caught:
        opened(server, max_records=1).write(numbered(5))
    assert [*caught.value.reasons] == [1]
    assert [*caught.value.later] == [2, 3, 4]
    assert caught.value.retry_after == 2.0


@pytest.mark.parametrize("status", [0])
def test_a_connection_that_ends_is_not_now(server: ScriptedServer, status: int) -> None:
    sink = opened(server)
    sink.write(numbered(1))
    server.replies.append(Reply(status))
    with pytest.raises(SinkUnavailable, match=r"127\.0\.0\.1:\d+: "):
        sink.write(numbered(1))
    sink.write(numbered(1))
    assert len(server.requests) == 3


def test_nobody_who_listens_is_seen_when_it_opens() -> None:
    with ScriptedServer().running() as server:
        pass
    with pytest.raises(SinkUnavailable, match="Connection refused") as caught:
        opened(server)
    assert "object at" not in str(caught.value)


def test_a_silent_server_is_not_waited_for_without_end(server: ScriptedServer) -> None:
    end = threading.Event()

    def answer(_: Request) -> Reply:
        end.wait(60)
        return Reply()

    server.answer = answer
    sink = opened(server, timeout="300ms")
    with pytest.raises(SinkUnavailable, match="timed out"):
        sink.write(numbered(1))
    end.set()


@pytest.mark.slow
def test_a_server_that_takes_little_at_a_time_is_not_silent(server: ScriptedServer) -> None:
    gate = Gate(urlsplit(server.url).port or 0)
    gate.slow_seconds = 3.5
    with gate:
        config = {"url": f"http://127.0.0.1:{gate.port}", "timeout": "3s", "format": "raw"}
        sink = open_one(HttpSink, "web", config)
        sink.write([record(b"x" * 8_000_000)])
    assert [len(request.body) for request in server.requests] == [8_000_001]


def test_requests_are_bounded_by_bytes_and_by_count(server: ScriptedServer) -> None:
    opened(server, max_request_bytes="400B").write(numbered(9))
    assert [n for request in numbers(server) for n in request] == [*range(9)]
    assert len(server.bodies) > 2
    assert all(len(body) <= 401 for body in server.bodies)
    assert [*chunks([5, 5, 50, 1], 10, 10)] == [(0, 2), (2, 3), (3, 4)]
    assert [*chunks([1] * 5, 2, 100)] == [(0, 2), (2, 4), (4, 5)]


def test_compressed_and_with_credentials_from_files(server: ScriptedServer, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    opened(server, compress="gzip", token_file=str(secret)).write(numbered(2))
    opened(server, username="ann", password_file=str(secret), headers={"X-Team": "a"}).write(
        numbered(1)
    )
    assert numbers(server) == [[0, 1], [0]]
    first, second = (request.headers for request in server.requests)
    assert first["authorization"] == "Bearer s3cret"
    assert first["content-encoding"] == "gzip"
    assert base64.b64decode(second["authorization"].split()[1]) == b"ann:s3cret"
    assert second["x-team"] == "a"


def test_a_header_of_the_config_takes_the_place_of_ours_however_it_is_written(
    server: ScriptedServer,
) -> None:
    headers = {"content-type": "text/x-logs", "USER-AGENT": "shop", "idempotency-key": "one"}
    opened(server, headers=headers).write(numbered(1))
    opened(server, headers=headers).write([record(b"no id")])
    first, second = (request.headers for request in server.requests)
    for sent in (first, second):
        assert sent["content-type"] == "text/x-logs"
        assert sent["user-agent"] == "shop"
    assert len(first["idempotency-key"]) == 32
    assert second["idempotency-key"] == "one"


def test_a_login_is_sent_in_utf_8(server: ScriptedServer, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("pässwört€\n")
    opened(server, username="änn", password_file=str(secret)).write(numbered(1))
    sent = server.requests[0].headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == "änn:pässwört€"


@pytest.mark.parametrize("token", ["s3cret\nsecond", "s3cret\r\nX-A: b", "s3cret€", "s3cret\0"])
def test_a_token_that_fits_no_header_is_named_and_not_shown(
    server: ScriptedServer, tmp_path: Path, token: str
) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    with pytest.raises(SinkUnavailable, match=f"^{file}: holds more than a token") as caught:
        opened(server, token_file=str(file)).write(numbered(1))
    assert "s3cret" not in str(caught.value)


def test_the_same_records_have_the_same_key(server: ScriptedServer) -> None:
    sink = opened(server)
    for records in (numbered(2), numbered(2), numbered(3), [record(b"no id")]):
        sink.write(records)
    keys = [request.headers.get("idempotency-key") for request in server.requests]
    assert keys[0] == keys[1] != keys[2]
    assert keys[3] is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"url": "ftp://a/b"}, "https://HOST"), ({"url": "http://a:b@c/d"}, "password_file"),
        ({"url": "http://a", "username": "x"}, "go together"),
        ({"url": "http://a", "encoding": "array", "format": "raw"}, "array holds JSON"),
        ({"url": "http://a", "template": {"a": "{b..c}"}}, "empty part"),
        ({"url": "http://a", "headers": {"X-A": "a\nb"}}, "pattern"),
        ({"url": "http://a", "headers": {"X-A": "€"}}, "pattern"),
        ({"url": "http://a", "headers": {"X A": "a"}}, "pattern"),
        ({"url": "http://a", "headers": {"X-A": "a", "x-a": "b"}}, "x-a twice"),
        ({"url": "http://a", "headers": {"content-length": "5"}}, "content-length is made for"),
        ({"url": "http://a", "headers": {"Transfer-Encoding": "chunked"}}, "is made for each"),
        ({"url": "http://a", "headers": {"content-encoding": "gzip"}}, "take compress"),
        (
            {"url": "http://a", "headers": {"authorization": "a"}, "token_file": "t"},
            "authorization and token_file are two ways",
        ),
        ({"url": "http://a", "media_type": "a\r\nb"}, "pattern"),
        ({"url": "http://a", "username": "x", "password_file": "p", "token_file": "t"}, "two ways"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        HttpSink.Config.model_validate(options)


def test_a_secret_that_cannot_be_read_names_its_file(server: ScriptedServer) -> None:
    with pytest.raises(SinkUnavailable, match="/no/such/file: No such file"):
        opened(server, token_file="/no/such/file")


@pytest.mark.slow
@pytest.mark.parametrize(("size", "pace"), [(1 << 20, 0.0), (20, 0.1)])
def test_an_answer_without_an_end_is_not_read_without_end(size: int, pace: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        ends = threading.Event()

        def serve() -> None:
            while not ends.is_set():
                with suppress(OSError), listener.accept()[0] as stream:
                    if not stream.recv(1 << 16):
                        continue
                    stream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    while not ends.wait(pace):
                        stream.sendall(b"%x\r\n%b\r\n" % (size, b"x" * size))

        thread = threading.Thread(target=serve)
        thread.start()
        config = {"url": f"http://127.0.0.1:{listener.getsockname()[1]}", "timeout": "1s"}
        sink = HttpSink(HttpSink.Config.model_validate(config), name="web")
        try:
            sink.open()
            sink.write(numbered(1))
            sink.write(numbered(1))
        finally:
            ends.set()
            sink.close()
            thread.join(60)
        assert not thread.is_alive()


HEADER = b"HTTP/1.1 200 OK\r\nX-Slow: "


@pytest.mark.parametrize("at_once", [b"", HEADER, b"HTTP/1.1 100 Continue\r\n\r\n" * 3])
@pytest.mark.parametrize("by_tls", [False, True])
def test_headers_that_drip_are_not_waited_for_without_end(
    at_once: bytes, by_tls: bool, tmp_path: Path
) -> None:
    context = server_context(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        ends = threading.Event()

        def serve() -> None:
            while not ends.is_set():
                with suppress(OSError), ExitStack() as stack:
                    stream = stack.enter_context(listener.accept()[0])
                    stream.settimeout(10)
                    if by_tls:
                        stream = stack.enter_context(context.wrap_socket(stream, server_side=True))
                    if not stream.recv(1 << 16):
                        continue
                    stream.sendall(at_once)
                    rest = itertools.chain(HEADER[: 0 if at_once else None], itertools.repeat(97))
                    while not ends.wait(0.05):
                        stream.sendall(bytes((next(rest),)))

        thread = threading.Thread(target=serve)
        thread.start()
        scheme = "https" if by_tls else "http"
        config: dict[str, Any] = {
            "url": f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", "timeout": "300ms",
        }  # fmt: skip
        if by_tls:
            config["tls"] = {"ca_file": str(tmp_path / "ca.pem")}
        sink = HttpSink(HttpSink.Config.model_validate(config), name="web")
        until = threading.Timer(10, ends.set)
        until.start()
        try:
            sink.open()
            with pytest.raises(SinkUnavailable, match="timed out"):
                sink.write(numbered(1))
            assert not ends.is_set()
        finally:
            until.cancel()
            ends.set()
            sink.close()
            thread.join(60)


def test_by_tls_with_the_certificate_verified(tmp_path: Path) -> None:
    context = server_context(tmp_path)
    with ScriptedServer(context).running() as server:
        opened(server, tls={"ca_file": str(tmp_path / "ca.pem")}).write(numbered(2))
        assert numbers(server) == [[0, 1]]
        with pytest.raises(SinkUnavailable, match="certificate verify failed"):
            opened(server)
        opened(server, tls={"verify": False}).write(numbered(1))
