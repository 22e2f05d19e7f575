"""The bench itself: its arithmetic, its pictures, its verdicts, and one real drain."""

import re
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench import bodies, chart, contest, crowd, disk, latency, table, targets
from bench.bodies import LINES, PLAIN, PUBLISHERS, TEXT, TRACED
from bench.build import Programs
from bench.clocks import CpuClock, interpolated
from bench.entrants import (
    AIO_PIKA,
    CUMULATIVE,
    FASTSTREAM,
    LIMIT,
    ONE,
    THREE,
    WHERE,
    Start,
    with_files,
)
from bench.plan import BACKLOG, INSTANCES, MAIN, PLANS, PREFETCH, QUEUES, SHAPE, SINKS, SIZE
from bench.results import Case, Drain, Latency, Results, quantile, slope
from bench.stage import Observer, Stage, queues_of, run
from logfan import json_lines
from logfan.testing import record
from logfan.testing.node import RabbitNode
from support.waiting import wait_until


def is_json(body: bytes) -> bool:
    try:
        return bool(record(body).json())
    except ValueError:
        return False


ACKED = "logfan_acked_messages_total"


def drained(case: Case, rate: float, cpu_us: float = 5.0) -> Drain:
    cpu = cpu_us * case.count / 1e6
    return Drain(case, case.count / rate, cpu, 40_000, 0.3, 0.25, 30 * case.count / 1e6, 0.01)


@pytest.fixture
def results() -> Results:
    """A run that reaches most targets, and some beyond."""
    found = Results(facts={"machine": "2 cores"})
    rates = {LIMIT: 50_000, ONE: 45_000, THREE: 40_000, WHERE: 38_500, CUMULATIVE: 28_000}
    for name, rate in {**rates, AIO_PIKA: 7_500, FASTSTREAM: 4_700}.items():
        found.drains += [drained(Case(MAIN, name, 1000), rate * x) for x in (0.9, 1.0, 1.2)]
    for name, rate, cpu_us in ((LIMIT, 50_000, 5.0), (THREE, 42_500, 18.0)):
        found.drains.append(drained(Case(MAIN, name, 1000, shape=TRACED), rate, cpu_us))
    for name, rate in ((LIMIT, 200), (ONE, 150)):
        found.drains.append(drained(Case(SIZE, name, 10, size=1 << 20), rate))
        found.drains.append(drained(Case(PREFETCH, name, 100, prefetch=100), rate))
    for number in (1, 2, 4):
        found.drains.append(drained(Case(SINKS, with_files(number), 1000), 1e4, 5 + 1.5 * number))
    for count in (10_000, 1_000_000):
        found.drains.append(drained(Case(BACKLOG, THREE, count), 40_000))
    found.latencies.append(Latency(ONE, 1000, 1000, 4000, "1,000/s", 0.9, 6.0, 8.0, 9.0))
    return found


def test_the_median_and_the_ends_of_several_drains_are_reported(results: Results) -> None:
    middle = results.median(MAIN, entrant=LIMIT)
    assert middle is not None
    assert middle.times == 3
    shown = [round(value) for value in (middle.rate_min, middle.rate, middle.rate_max)]
    assert shown == [45_000, 50_000, 60_000]
    assert middle.cpu_us == pytest.approx(5.0)


def test_a_ratio_compares_medians_of_the_same_run(results: Results) -> None:
    assert targets.ratio(THREE, LIMIT)(results) == pytest.approx(0.8)
    assert targets.ratio(THREE, "nobody")(results) is None
    assert targets.ratio(THREE, LIMIT, shape=TRACED)(results) == pytest.approx(0.85)


def test_every_target_is_judged_by_what_was_measured(results: Results) -> None:
    verdicts = [row.verdict for row in targets.rows(results)]
    assert verdicts == [
        "NOT REACHED", "NOT REACHED", "reached", "reached", "reached", "beyond", "beyond",
        "reached", "reached", "not measured", "not measured", "reached", "beyond", "reached",
        "not measured", "not measured", "beyond", "beyond",
    ]  # fmt: skip


def test_a_slower_or_a_missing_measurement_is_not_called_reached(results: Results) -> None:
    results.drains = [
        replace(drain, seconds=drain.seconds * 3, cpu_seconds=drain.cpu_seconds * 4)
        if drain.case.entrant in (ONE, THREE, WHERE)
        else drain
        for drain in results.drains
        if drain.case.group != BACKLOG
    ]
    verdicts = [row.verdict for row in targets.rows(results)]
    assert verdicts[:3] == ["NOT REACHED"] * 3
    assert verdicts[4:8] == ["NOT REACHED"] * 4
    assert verdicts[16] == "not measured"


def test_what_the_disk_allows_is_reported(results: Results, tmp_path: Path) -> None:
    [row] = [m for m in results.medians(SIZE) if m.case.entrant == LIMIT]
    results.disk_rate = 0.5 * row.rate * row.case.size
    assert "an fdatasync each 8 MiB. That is 0.50 of what" in table.markdown(results)
    moments = iter((0.0, 2.0, 3.0, 4.0, 10.0, 14.0))
    assert (
        disk.durable_rate(tmp_path, disk.SYNC_BYTES, lambda: next(moments)) == disk.SYNC_BYTES / 2
    )
    assert disk.durable_rate(tmp_path, disk.SYNC_BYTES) > 0


def test_values_of_lines_that_lie_close_do_not_cover_each_other(results: Results) -> None:
    results.latencies.append(Latency(ONE, 100, 100, 800, "100/s", 0.91, 6.1, 8.1, 9.1))
    form = r'class="axis" x="([0-9.]+)" y="([0-9.]+)" text-anchor="middle">([0-9.]+)<'
    places = re.findall(form, chart.latencies(results))
    heights = {value: (x, float(y)) for x, y, value in places}
    (column, one), (same, other) = heights["0.9"], heights["0.91"]
    assert column == same
    assert abs(one - other) > 12


def test_results_come_back_from_their_json(results: Results) -> None:
    again = Results.from_json(results.as_json())
    assert again == results
    assert table.markdown(again) == table.markdown(results)


def test_the_report_says_who_is_absent_and_what_failed(results: Results) -> None:
    results.absent[LIMIT] = "there is no C compiler (cc) here"
    results.failures.append("logfan-1 lost messages")
    text = table.markdown(results)
    assert "left out: C, cumulative acks (the limit): there is no C compiler" in text
    assert "**FAILED**: logfan-1 lost messages" in text


def test_the_pictures_are_xml_and_show_their_values(results: Results, tmp_path: Path) -> None:
    written = chart.write_all(results, tmp_path)
    assert {path.stem for path in written} == set(chart.CHARTS)
    texts = {path.stem: "".join(ET.parse(path).getroot().itertext()) for path in written}
    for value in ("50,000 (1.00)", "45,000 (0.90)", "logfan, three sinks", "messages a second"):
        assert value in texts["drain-rate"]
    for stem, path in zip(texts, written, strict=True):
        assert "prefers-color-scheme: dark" in path.read_text(), stem


def test_the_plain_and_the_headers_row_stand_side_by_side(results: Results) -> None:
    grid = table.grids(results)[0]
    rows = [(row[0], row[3], row[6]) for row in grid.rows]
    assert rows[:2] == [
        ("C, cumulative acks (the limit)", "1.00", "1.00"),
        ("C, cumulative acks (the limit), with headers", "1.00", "1.00"),
    ]
    assert rows[3:5] == [
        ("logfan, three sinks", "0.80", "1.00"),
        ("logfan, three sinks, with headers", "0.85", "3.60"),
    ]


def test_each_shape_is_held_against_the_limit_with_the_same_messages(results: Results) -> None:
    for name, rate in ((LIMIT, 40_000), (THREE, 30_000)):
        results.drains.append(drained(Case(SHAPE, name, 1000, shape=TEXT), rate))
    [grid] = [grid for grid in table.grids(results) if "shapes" in grid.title]
    assert [(row[0], row[3]) for row in grid.rows] == [
        ("no headers", "0.80"),
        ("constant headers and traceparent", "0.85"),
        ("text bodies", "0.75"),
    ]


def test_quantiles_and_slopes_are_those_of_the_textbook() -> None:
    values = [float(number) for number in range(1, 1001)]
    shares = (0.5, 0.99, 0.999, 1.0)
    assert [quantile(values, share) for share in shares] == [500, 990, 999, 1000]
    assert quantile([7.0], 0.999) == 7.0
    assert slope([(1, 5.0), (2, 7.0), (4, 11.0)]) == pytest.approx(2.0)
    samples = [(1.0, 0.0), (2.0, 1.0), (3.0, 1.0)]
    assert [interpolated(samples, at) for at in (0.5, 1.25, 2.5, 9.0)] == [0.0, 0.25, 1.0, 1.0]


@pytest.mark.parametrize("shape", [PLAIN, TEXT, LINES])
@pytest.mark.parametrize("size", [200, 1024, 1 << 20])
def test_a_body_has_its_size_its_number_and_its_stamp(size: int, shape: str) -> None:
    deck = bodies.deck(size, shape)
    assert len(deck) % size == 0
    body = bytearray(deck[:size])
    number_at, stamp_at = bodies.places(shape)
    body[number_at : number_at + bodies.NUMBER_DIGITS] = b"00000002"
    body[stamp_at : stamp_at + bodies.STAMP_DIGITS] = b"1234567890123456789"
    for lines in (bytes(body).splitlines(), json_lines([record(bytes(body))])):
        assert bodies.seen(lines * 2, 3) == (2, 1)
    if shape != TEXT:
        assert bodies.stamp_of(bytes(body)) == 1234567890123456789
    assert is_json(bytes(body)) == (shape != TEXT)
    assert (b"\n" in body) == (shape == LINES)


def test_each_message_is_timed_by_the_first_ack_that_covers_it(tmp_path: Path) -> None:
    bodies_sent = [
        b'{"seq":"%08d","ts":"%019d"}\n' % (number, sent * 10**6)
        for number, sent in enumerate((10, 20, 30))
    ]
    (tmp_path / "0.log").write_bytes(b"".join(bodies_sent))
    (tmp_path / "acks").write_bytes(array("q", [2, 25 * 10**6, 3, 31 * 10**6]).tobytes())
    assert latency.times_of(tmp_path / "0.log", tmp_path / "acks", 3) == [1.0, 5.0, 15.0]


def test_every_plan_takes_turns_and_leaves_out_who_is_absent() -> None:
    for make in PLANS.values():
        turns = list(make(60).turns([LIMIT]))
        assert turns
        assert LIMIT not in {case.entrant for case in turns}
    main = [case.entrant for case in PLANS["whole"](60).turns([]) if case.group == MAIN]
    rounds = [main[at : at + 14] for at in range(0, 42, 14)]
    assert [sorted(names) for names in rounds] == [sorted(rounds[0])] * 3
    assert len({names[0] for names in rounds}) == 3


@pytest.fixture(scope="module")
def stage(node: RabbitNode) -> Iterator[Stage]:
    """The bench's stage on the shared node, filled without a compiler."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Observer(node, folder, queues_of(2)) as observer:
            broker = CpuClock(observer.broker_pid)
            yield Stage(node, folder, Programs(), observer, broker)


@pytest.mark.parametrize(
    ("name", "shape"), [(THREE, PLAIN), (THREE, PUBLISHERS), (THREE, LINES), (WHERE, PLAIN)]
)
def test_a_real_drain_is_timed_and_verified(stage: Stage, name: str, shape: str) -> None:
    drain = contest.drain(stage, Case("test", name, 5_000, shape=shape))
    assert 0 < drain.seconds < 60
    assert 0 < drain.cpu_seconds < 60
    assert 0 < drain.broker_cpu_seconds < 60
    assert 0 <= drain.others_share < 1
    assert 10_000 < drain.memory_kib < 500_000
    assert drain.start_seconds > 0.05


def test_several_daemons_are_measured_as_one(stage: Stage) -> None:
    drain = crowd.drain(stage, Case(QUEUES, THREE, 5_000, queues=2))
    assert 0 < drain.seconds < 60
    assert 0 < drain.cpu_seconds < 60
    assert drain.count <= 5_000
    assert drain.memory_kib > 2 * 10_000


def test_two_instances_share_one_queue_and_together_hold_each_message_once(
    stage: Stage, tmp_path: Path
) -> None:
    case = Case(INSTANCES, THREE, 500, prefetch=20, instances=2)
    stage.declare(case.queue)
    crew = crowd.starts(stage, case, tmp_path)
    with crowd.Crowd(crew, tmp_path) as daemons:
        daemons.wait_ready()
        run(stage.filler(case.count, case.size), 60)
        wait_until(
            lambda: sum(contest.counted_at(start.port, ACKED) for start in crew) == case.count,
            "all messages are acknowledged",
        )
        daemons.stop()
    crowd.verify(crew, case.count, 0)
    assert all(path.stat().st_size for start in crew for path in start.files)


def test_the_files_of_several_instances_are_judged_together(tmp_path: Path) -> None:
    lines = [b'{"seq":"%08d"}\n' % number for number in range(4)]
    one, two = tmp_path / "0-1.log", tmp_path / "0-2.log"
    crew = [Start([], {}, [one]), Start([], {}, [two])]
    one.write_bytes(lines[1])
    for wrong in ([lines[0], lines[2]], lines):
        two.write_bytes(b"".join(wrong))
        with pytest.raises(RuntimeError, match=r"lost|duplicated"):
            crowd.verify(crew, 4, 0)
    crowd.verify(crew, 4, 1)  # one more than once, which the broker delivered again, as it says
    two.write_bytes(lines[0] + lines[2] + lines[3])
    crowd.verify(crew, 4, 0)


def test_several_instances_are_held_against_one_of_the_same_kind(results: Results) -> None:
    results.drains += [
        replace(drained(Case(INSTANCES, ONE, 1000, instances=2), 60_000), counted=500),
        drained(Case(INSTANCES, ONE, 1000), 40_000),
    ]
    [grid] = [grid for grid in table.grids(results) if "Several" in grid.title]
    assert [(row[1], row[4]) for row in grid.rows] == [
        ("2 on one queue", "0.75"),
        ("1 on one queue", "1.00"),
    ]
    assert Results.from_json(results.as_json()) == results


def test_a_sink_that_lacks_a_message_or_has_one_twice_fails_the_run(tmp_path: Path) -> None:
    lines = [b'{"seq":"%08d"}\n' % number for number in range(4)]
    file = tmp_path / "0.log"
    file.write_bytes(b"".join(lines))
    contest.verify([file], 4)
    for wrong in (lines[:3], [*lines[:3], lines[0]], [*lines, lines[0]]):
        file.write_bytes(b"".join(wrong))
        with pytest.raises(RuntimeError, match=r"lost|duplicated"):
            contest.verify([file], 4)
