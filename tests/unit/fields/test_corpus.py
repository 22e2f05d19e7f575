"""What real libraries publish (`tests/publishers`) is read as `expected.toml` says."""

import json
from collections import Counter
from collections.abc import Sequence

import pytest
from pika.spec import BasicProperties

from logfan import field, json_lines, time_of
from logfan.amqp_properties import EncodedProperties, decode_properties
from logfan.json_format import json_pieces
from logfan.record import Properties
from logfan.stage.redact import Redactor
from logfan.stage.where import Where
from logfan_sinks.formats import encode_text, encoder, text_pieces
from publishers.messages import TEXTS, Message, corpus, expectations

_START_SECONDS = 60
"""Between a program's log and the recorder's receipt, where the program's end comes in."""
_DAY_SECONDS = 86400
_NO_LOGS = (("python", "celery-task"), ("broker", "rabbitmq-event"))
_BY_LINE = ("amqp-publish", "syslog-ng-headers", "syslog-ng-json")
"""Programs that read one line at a time."""

CORPUS = corpus()
GROUPS = {
    f"{language}.{publisher}": [
        one for one in CORPUS if (one.language, one.publisher) == (language, publisher)
    ]
    for language, publisher in expectations()
}
LANGUAGES = {
    language: [one for one in CORPUS if one.language == language]
    for language in dict.fromkeys(one.language for one in CORPUS)
}
by_language = pytest.mark.parametrize("messages", LANGUAGES.values(), ids=LANGUAGES)


def test_each_publisher_logged_each_text() -> None:
    for name, messages in GROUPS.items():
        first = messages[0]
        if (first.language, first.publisher) in _NO_LOGS:
            continue
        lines = () if first.publisher in _BY_LINE else ("lines",)
        logged = Counter(message.logged for message in messages)
        for text in ("info", "warning", "error", *lines):
            assert logged[text] == 1, (name, text)


def test_each_message_is_of_a_publisher_in_the_table() -> None:
    assert {(one.language, one.publisher) for one in CORPUS} == {*expectations()}


@by_language
def test_the_level_is_what_the_program_asked_for(messages: Sequence[Message]) -> None:
    column = field("level").column
    for message in messages:
        assert field("level")(message.record) == message.level, message.name
        if message.expected.decode:
            assert field("level")(message.delivered) is None, message.name
    records = [message.record for message in messages]
    trees = [parsed(message) for message in messages]
    assert column(records, trees) == [message.level for message in messages]


def parsed(message: Message) -> object:
    try:
        return message.record.json()
    except ValueError:
        return None


@by_language
def test_where_chooses_errors_by_the_level(messages: Sequence[Message]) -> None:
    """Also in what is packed: it is decompressed for that."""
    where = Where.of({"level": "error"})
    for message in messages:
        for record in (message.delivered, message.record):
            assert where.decide(record) is (message.level == "error"), message.name


@by_language
def test_the_message_is_what_was_logged(messages: Sequence[Message]) -> None:
    for message in messages:
        text = field("message")(message.record)
        assert message.is_message(text), (message.name, text)


@by_language
def test_the_time_is_when_it_was_logged(messages: Sequence[Message]) -> None:
    for message in messages:
        time, place = time_of(message.record), message.expected.time
        if not place:
            assert time is None, message.name
            continue
        assert time is not None, message.name
        # The lines that syslog-ng reads have a time of their own.
        apart = _DAY_SECONDS if message.publisher in _BY_LINE else _START_SECONDS
        assert abs(message.delivered.received_at - time) < apart, message.name
        without = message.record.properties._replace(timestamp=None, headers={})
        bare = type(message.record)(message.record.body, "", "", False, 0.0, without)
        assert (time_of(bare) is None) == (place == "properties"), message.name


@by_language
def test_a_line_of_text_shows_what_was_logged(messages: Sequence[Message]) -> None:
    for message in messages:
        line = encode_text(message.record).decode()
        assert line, message.name
        assert line.isprintable() or not line.isascii(), message.name
        assert "\n" not in line, message.name
        if message.delivered.body:
            assert b"".join(text_pieces(message.record)).decode() == line, message.name
        if message.logged in TEXTS:
            assert TEXTS[message.logged].rpartition("\n")[2] in line, message.name


@by_language
def test_a_line_of_json_holds_all_of_it(messages: Sequence[Message]) -> None:
    records = [message.delivered for message in messages]
    lines = json_lines(records)
    for message, line in zip(messages, lines, strict=True):
        pieces = b"".join(json_pieces(message.delivered))
        assert line == json_lines([message.delivered])[0] == pieces, message.name
        assert b"\n" not in line, message.name
        written = json.loads(line)
        assert written["exchange"] == message.delivered.exchange, message.name
        body = parsed(message)
        if body is not None and not message.expected.decode:
            assert written["body"] == body, message.name


@by_language
def test_a_raw_line_is_the_body_with_one_newline(messages: Sequence[Message]) -> None:
    records = [message.delivered for message in messages]
    for record, line in zip(records, encoder("raw")(records), strict=True):
        assert line + b"\n" == record.body.removesuffix(b"\n") + b"\n"


def test_nan_of_a_real_publisher_is_null_with_a_mark() -> None:
    for message in GROUPS["python.structlog-dicts"]:
        assert b"NaN" in message.delivered.body
        written = json.loads(json_lines([message.delivered])[0])
        assert written["body"]["load"] is None
        assert written["body_replaced"] == ["NaN"]


@by_language
def test_redact_changes_what_it_should_alone(messages: Sequence[Message]) -> None:
    """Where it finds nothing the record is the same; a field that is there is replaced."""
    nothing = Redactor(["user.password"], [r"(?i)token=\S+"])
    for message in messages:
        assert nothing.apply(message.delivered) is message.delivered, message.name
        text = TEXTS.get(message.logged, "")
        if message.logged != "info" or not message.level:
            continue
        changed = Redactor(patterns=["order 4711"]).apply(message.delivered)
        shown = encode_text(changed.decoded() if message.expected.decode else changed).decode()
        in_headers = str(changed.headers)
        assert "order 4711" not in shown + in_headers, message.name
        assert "[redacted] is paid" in shown + in_headers, (message.name, text)


@by_language
def test_properties_are_read_as_they_were_sent(messages: Sequence[Message]) -> None:
    """pika reads the same of these bytes, but that it cuts floats; and what we write of them is
    read as the same again."""
    for message in messages:
        ours = decode_properties(message.raw)
        theirs = BasicProperties()
        theirs.decode(message.raw)
        for name in Properties._fields:
            if name != "headers":
                assert getattr(ours, name) == getattr(theirs, name), (message.name, name)
        assert [*ours.headers] == [*(theirs.headers or {})], message.name
        for name, value in ours.headers.items():
            if not isinstance(value, float):
                assert alike(value, theirs.headers[name]), (message.name, name)
        again = b"".join(EncodedProperties(ours).encode())
        assert decode_properties(again) == ours, message.name


def alike(ours: object, theirs: object) -> bool:
    """pika gives times without their zone."""
    replace = getattr(ours, "replace", None)
    if hasattr(ours, "tzinfo") and replace is not None:
        return bool(replace(tzinfo=None) == theirs) or ours == theirs
    return ours == theirs


@by_language
def test_properties_are_written_byte_for_byte(messages: Sequence[Message]) -> None:
    """All but headers whose type has several lengths, and an empty table of headers."""
    for message in messages:
        ours = decode_properties(message.raw)
        plain = all(isinstance(value, str | bool) for value in ours.headers.values())
        is_empty = not ours.headers and message.raw[0] & 0x20
        if plain and not is_empty:
            assert b"".join(EncodedProperties(ours).encode()) == message.raw, message.name
