"""The checker itself: it finds what is put wrong by hand, and reports it where there is nothing."""

import base64
import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import zstandard

from chaos import bodies, checker
from chaos.checker import DeadLetter, Finding, Journal, NothingToCheck, Source, check

RUN = "cafe01"
RNG = random.Random(1)
BODIES = [bodies.make(RUN, number, RNG) for number in range(200)]


def journal(count: int = 200, *, resent: Sequence[int] = ()) -> Journal:
    made = Journal(run=RUN)
    for number in range(count):
        made.times.append(2 if number in resent else 1)
        made.epochs.append(1)
        made.confirmed.append(1)
    return made


def raw(path: Path, lines: Sequence[bytes]) -> Source:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return Source("raw", "raw", path)


def envelope(body: bytes, number: int, *, redelivered: bool = False) -> bytes:
    try:
        content = json.loads(body)
    except ValueError:
        try:
            content = body.decode()
        except UnicodeDecodeError:
            content = {"base64": base64.b64encode(body).decode()}
    line = {"message_id": f"{RUN}-{number}", "body": content}
    if redelivered:
        line["redelivered"] = True
    return json.dumps(line).encode()


def only(findings: Sequence[Finding]) -> Finding:
    assert len(findings) == 1
    return findings[0]


def test_what_is_complete_and_in_order_has_no_fault(tmp_path: Path) -> None:
    lines = [envelope(body, number) for number, body in enumerate(BODIES)]
    as_json = Source("json", "json", tmp_path / "out.jsonl")
    as_json.path.write_bytes(b"\n".join([*lines, b""]))
    findings = check(journal(), [raw(tmp_path / "raw.log", BODIES), as_json])
    assert [finding.faults(0) for finding in findings] == [[], []]
    assert [finding.distinct for finding in findings] == [200, 200]
    # All three kinds of bodies were among them.
    assert {body[:1] for body in BODIES} == {b"{", b"i"}
    assert any(b'"base64"' in line for line in lines)


def test_a_confirmed_message_in_no_file_is_lost(tmp_path: Path) -> None:
    finding = only(check(journal(), [raw(tmp_path / "r", BODIES[:50] + BODIES[51:])]))
    assert finding.lost == [50]
    assert "1 lost (50)" in finding.faults(0)[0]


def test_one_that_was_never_confirmed_may_be_missing(tmp_path: Path) -> None:
    unsure = journal()
    unsure.confirmed[50] = 0
    finding = only(check(unsure, [raw(tmp_path / "r", BODIES[:50] + BODIES[51:])]))
    assert not finding.faults(0)


def test_each_publisher_has_its_own_findings_in_files_that_are_shared(tmp_path: Path) -> None:
    theirs = [bodies.make("beef02", number, RNG) for number in range(50)]
    plain = Journal(run="beef02", name="plain")
    plain.times.extend([1] * 50)
    plain.epochs.extend([1] * 50)
    plain.confirmed.extend([1] * 50)
    mixed = [*BODIES[:100], *theirs[:49], *BODIES[100:], bodies.make("dead03", 0, RNG)]
    ours, others = checker.check_all([journal(), plain], [raw(tmp_path / "r", mixed)])
    assert (ours.sink, others.sink) == ("raw", "raw (plain)")
    assert (ours.distinct, others.distinct) == (200, 49)
    assert others.faults(0) == ["raw (plain): 1 lost (49)"]
    assert ours.faults(0) == ["raw: 1 unexpected (dead03-0)"]


def test_what_was_published_while_nothing_could_be_bound_is_unrouted_and_nothing_else(
    tmp_path: Path,
) -> None:
    file = tmp_path / "published.journal"
    lines = ["run cafe01", "p 0 1 100", "p 1 1 200", "p 2 1 300", "c 0", "c 1", "c 2"]
    # Published in the span and without a confirm, then again after it: that one is owed.
    lines += ["p 3 1 250", "p 3 2 400", "c 3"]
    file.write_text("".join(f"{line}\n" for line in lines))
    read = Journal.read(file, name="plain", unbound=[(150, 299)])
    finding = only(check(read, [raw(tmp_path / "r", BODIES[:1])]))
    assert finding.unrouted == 1
    assert finding.lost == [2, 3]


def test_an_id_that_was_never_published_is_unexpected(tmp_path: Path) -> None:
    others = [bodies.make("beef02", 3, RNG), bodies.make(RUN, 200, RNG)]
    finding = only(check(journal(), [raw(tmp_path / "r", [*BODIES, *others])]))
    assert finding.unexpected == ["beef02-3", "cafe01-200"]


@pytest.mark.parametrize("place", [0, 8, 30, -1, -5])
def test_one_changed_byte_is_corrupt(tmp_path: Path, place: int) -> None:
    broken = bytearray(BODIES[7])
    broken[place] ^= 1
    finding = only(
        check(journal(), [raw(tmp_path / "r", [*BODIES[:7], bytes(broken), *BODIES[8:]])])
    )
    assert len(finding.corrupt) == 1
    assert finding.lost == [7]


def test_two_lines_glued_together_are_corrupt_and_both_lost(tmp_path: Path) -> None:
    glued = [*BODIES[:7], BODIES[7] + BODIES[8], *BODIES[9:]]
    finding = only(check(journal(), [raw(tmp_path / "r", glued)]))
    assert len(finding.corrupt) == 1
    assert finding.lost == [7, 8]


def test_a_last_line_without_its_end_is_torn(tmp_path: Path) -> None:
    source = raw(tmp_path / "r", BODIES)
    source.path.write_bytes(source.path.read_bytes() + BODIES[0][:20])
    assert len(only(check(journal(), [source])).torn) == 1


def test_an_envelope_with_anothers_body_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(envelope(BODIES[1], 0) + b"\n" + b'{"half": \n')
    finding = only(check(journal(), [Source("json", "json", path)]))
    assert len(finding.corrupt) == 2


def test_copies_count_beyond_the_times_it_was_published(tmp_path: Path) -> None:
    lines = [*BODIES, BODIES[3], BODIES[3], BODIES[9]]
    finding = only(check(journal(resent=[9]), [raw(tmp_path / "r", lines)]))
    assert finding.duplicated == 2
    assert not finding.faults(2)
    assert "2 duplicated, 1 explained" in finding.faults(1)[0]


def test_out_of_order_is_a_fault_unless_it_came_again(tmp_path: Path) -> None:
    swapped = [*BODIES[:5], BODIES[6], BODIES[5], *BODIES[7:]]
    source = raw(tmp_path / "r", swapped)
    assert only(check(journal(), [source])).misordered == [5]
    resent = only(check(journal(resent=[5]), [source]))
    assert (resent.late, resent.misordered) == (1, [])
    other_channel = journal()
    other_channel.epochs[6] = 2
    assert only(check(other_channel, [source])).late == 0
    # The JSON sink tells that it was delivered twice; that excuses the same message elsewhere.
    path = tmp_path / "j"
    numbers = [*range(5), 6, 5, *range(7, 200)]
    lines = [envelope(BODIES[n], n, redelivered=n == 5) for n in numbers]
    path.write_bytes(b"\n".join([*lines, b""]))
    findings = check(journal(), [source, Source("json", "json", path)])
    assert [(finding.late, finding.misordered) for finding in findings] == [(1, []), (1, [])]


def test_what_a_sink_wanted_later_may_be_overtaken_and_no_other(tmp_path: Path) -> None:
    source = raw(tmp_path / "r", [*BODIES[:5], BODIES[6], BODIES[5], *BODIES[7:]])

    def misordered(late: int) -> list[int]:
        findings = check(journal(), [source], overtaken=lambda _, number: number == late)
        return only(findings).misordered

    assert (misordered(5), misordered(4)) == ([], [5])


def test_rotated_and_compressed_files_belong_to_it_and_half_copies_do_not(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    parts = [b"".join(body + b"\n" for body in BODIES[i : i + 50]) for i in range(0, 200, 50)]
    stamps = [f"{path}.20261124T10000{n}.000000Z" for n in range(3)]
    Path(f"{stamps[0]}.gz").write_bytes(gzip.compress(parts[0]))
    Path(f"{stamps[1]}.zst").write_bytes(zstandard.compress(parts[1]))
    Path(stamps[1]).write_bytes(parts[1])  # killed between the copy's end and the removal
    Path(stamps[2]).write_bytes(parts[2])
    Path(f"{stamps[2]}.zst.part").write_bytes(b"half")
    path.write_bytes(parts[3])
    finding = only(check(journal(), [Source("app", "raw", path)]))
    assert finding.files == 4
    assert not finding.faults(0)


def test_refused_records_are_in_the_dead_letters_and_nowhere_else(tmp_path: Path) -> None:
    def refuses(sink: str, number: int) -> bool:
        return sink == "raw" and number == 4

    letter = DeadLetter("raw", "number 4 is refused", BODIES[4])
    rest = raw(tmp_path / "r", BODIES[:4] + BODIES[5:])
    everything = raw(tmp_path / "all", BODIES)

    def judged(source: Source, letters: Sequence[DeadLetter]) -> list[str]:
        return only(check(journal(), [source], letters, refuses=refuses)).faults(0)

    assert judged(rest, [letter]) == []
    assert "1 lost (4)" in judged(rest, [])[0]
    assert "wrongly refused" in judged(everything, [letter])[0]
    wrong = DeadLetter("raw", "number 5 is refused", BODIES[5])
    assert "wrongly refused" in judged(rest, [letter, wrong])[0]
    assert "1 lost" in judged(rest, [DeadLetter("other", "number 4", BODIES[4])])[0]
    reasonless = DeadLetter("raw", "because", BODIES[4])
    assert "wrongly refused" in "".join(judged(rest, [reasonless]))


def test_nothing_to_compare_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(NothingToCheck, match="there is no"):
        check(journal(), [Source("raw", "raw", tmp_path / "elsewhere" / "r")])
    silent = tmp_path / "journal"
    silent.write_text("run cafe01\np 0 1 5\n")
    with pytest.raises(NothingToCheck, match="not one"):
        Journal.read(silent)
    # A folder that is there but empty of messages: all of them are lost.
    empty = only(check(journal(), [raw(tmp_path / "r", [])]))
    assert len(empty.lost) == 200


def test_the_journal_is_read_as_the_publisher_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text("run cafe01\np 0 1 5\np 1 1 6\nc 0\np 1 2 7\nc 1\np 2 2 8\n")
    read = Journal.read(path)
    assert (read.run, list(read.times), list(read.epochs)) == ("cafe01", [1, 2, 1], [1, 1, 2])
    assert (read.count, read.resent) == (2, 1)


def test_it_is_a_command_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "journal"
    path.write_text(f"run {RUN}\np 0 1 5\np 1 1 6\nc 0\nc 1\n")
    raw(tmp_path / "r", BODIES[:1])
    assert checker.main([str(path), f"raw:{tmp_path}/r"]) == 1
    assert "1 lost (1)" in capsys.readouterr().out
    raw(tmp_path / "r", BODIES[:2])
    assert checker.main([str(path), f"raw:{tmp_path}/r"]) == 0


def test_the_judge_shares_no_code_with_the_judged() -> None:
    for name in ("checker.py", "bodies.py"):
        text = (Path(__file__).parent / name).read_text()
        assert "import logfan" not in text
        assert "from logfan" not in text
