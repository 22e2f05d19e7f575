"""What one message, or a hundred thousand, can make the built-in sinks hold or do at the most."""

import subprocess
import sys
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from logfan import json_lines
from logfan.testing import record
from logfan_sinks.formats import EscapeTable, escape
from logfan_sinks.metrics import MetricsSink
from logfan_sinks.metrics.series import _label_value
from logfan_sinks.stdout import escape_json

LONG = 70_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "deed", "times"),
    [
        (r"b'\0' * size", "formats.encode_text", 12),
        (r"'\u202e'.encode() * (size // 3)", "formats.encode_text", 12),
        (r"b'\xff' * size", "as_json", 6),
        (r"b'\x22' + b'\x7f' * size + b'\x22'", "as_stdout_does", 18),
        (r"('\x22' + '\U000e0001' * (size // 4) + '\x22').encode()", "as_stdout_does", 18),
    ],
)
def test_a_hostile_body_costs_a_small_multiple_of_its_size(
    body: str, deed: str, times: int
) -> None:
    """What it becomes is up to eight times as long; the rest is one copy of it."""
    program = textwrap.dedent(f"""
        import resource
        from logfan import json_lines
        from logfan.testing import record
        from logfan_sinks import formats, stdout

        def as_json(one):
            return json_lines([one])[0]

        def as_stdout_does(one):
            return stdout.escape_json(as_json(one).decode()).encode()

        size = 4 << 20
        one = record({body})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        {deed}(one)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / size)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert float(done.stdout) < times


@pytest.mark.slow
@given(st.text(), st.sampled_from(["a", "é", "\n", "\u202e", "\U000e0001", "\x7f", "\ud800"]))
def test_long_texts_are_escaped_as_short_ones_are(text: str, filler: str) -> None:
    for escaped in (escape, escape_json):
        one = escaped(filler)
        short = "".join(map(escaped, text))
        assert escaped(filler * LONG + text + filler) == one * LONG + short + one


def test_the_table_of_escapes_stays_small() -> None:
    table = EscapeTable(lambda char: f"<{char}>")
    text = "".join(map(chr, range(0x10000, 0x20000)))
    assert text.translate(table) == "".join(f"<{char}>" for char in text)
    assert len(table) <= 4096


@pytest.mark.slow
@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers() | st.floats(), st.lists))
def test_a_label_value_is_short_whatever_it_is_made_of(value: Any) -> None:
    shown = _label_value(value)
    assert len(shown) <= 200
    shown.encode()


@pytest.mark.slow
def test_a_hundred_thousand_label_values_make_no_more_series_than_allowed() -> None:
    config = MetricsSink.Config.model_validate(
        {
            "counters": [{"name": "hostile", "labels": {"user": "user"}}],
            "histograms": [{"name": "hostile_ms", "labels": {"user": "user"}, "value": "n"}],
            "max_series": 50,
        }
    )
    sink = MetricsSink(config, name="hostile")
    sink.open()
    try:
        for start in range(0, 100_000, 1000):
            sink.write([record({"user": f"{n}" * 60, "n": n}) for n in range(start, start + 1000)])
        for metric in sink.metrics:
            assert len(metric.values) == 51
            assert max(len(label) for labels in metric.values for label in labels) <= 200
        name = "hostile_total"
        assert REGISTRY.get_sample_value(name, {"user": "other"}) == 100_000 - 50
    finally:
        sink.close()


def test_headers_as_large_as_a_frame_may_be_are_one_line_of_bounded_length() -> None:
    # A broker takes no header table beyond one frame: 128 KiB.
    for value in ("\0" * 131_000, b"\xff" * 131_000, {"k" * 250 + str(n): n for n in range(500)}):
        (line,) = json_lines([record(b"{}", headers={"wild": value})])
        assert b"\n" not in line
        assert len(line) < 7 * 131_072
