"""Bodies with a content_encoding: each outcome, and that a bomb never holds more than the cap."""

import bz2
import gzip
import lzma
import random
import re
import subprocess
import sys
import textwrap
import threading
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from logfan import compression
from logfan import record as api
from logfan.compression import (
    EXEMPT_BYTES,
    MAX_BYTES,
    MAX_RATIO,
    codings,
    codings_of_header,
    decode,
)
from logfan.testing import record

TEXT = b'{"level":"info","message":"hello"}'
FOLLOWED = "gzip: {} bytes of something else follow the stream"
SKIPPABLE = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"


def zstd(raw: bytes, *, write_checksum: bool = False) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=write_checksum).compress(raw)


def streamed(raw: bytes, window_log: int = 20) -> bytes:
    """A stream whose header does not say how much it holds."""
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(raw) + stream.flush()


def with_dictionary(raw: bytes) -> bytes:
    samples: list[bytes | bytearray | memoryview] = [
        b"order %d was placed and paid" % number for number in range(2000)
    ]
    trained = zstandard.train_dictionary(4096, samples)
    return zstandard.ZstdCompressor(dict_data=trained).compress(raw)


def gzipped(data: bytes) -> bytes:
    """Without the time of day: it stands in the names of tests."""
    return gzip.compress(data, mtime=0)


def raw_deflate(data: bytes) -> bytes:
    """Without zlib's beginning and end."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def alone(data: bytes) -> bytes:
    """In the container that lzma had before xz."""
    return lzma.compress(data, format=lzma.FORMAT_ALONE)


BACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzipped, "zstd": zstd, "zlib": zlib.compress, "deflate": raw_deflate,
    "bz2": bz2.compress, "xz": lzma.compress,
}  # fmt: skip


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (None, ()), ("", ()), ("identity", ()), ("utf-8", ()), ("UTF-8", ()), ("binary", ()),
        ("gzip", ("gzip",)), ("GZip", ("gzip",)), (" x-gzip ", ("gzip",)), ("zstd", ("zstd",)),
        ("gzip, zstd", ("gzip", "zstd")), ("identity,gzip,", ("gzip",)),
        ("deflate", ("deflate",)), ("zlib", ("zlib",)), ("x-bzip2", ("bz2",)), ("bz2", ("bz2",)),
        ("lzma", ("xz",)), ("xz", ("xz",)), ("zstandard", ("zstd",)), ("utf-8, bz2", ("bz2",)),
    ],
)  # fmt: skip
def test_an_encoding_is_read_as_publishers_write_it(
    written: str | None, names: tuple[str, ...]
) -> None:
    assert codings(written) == names


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("br", "'br' is not known; gzip, zlib, deflate, bz2, xz and zstd are"),
        ("compress", "'compress' is not known"),
        ("gzip;q=1", "is not known"),
        ("x" * 255, "is not known"),
        ("gzip, gzip, zstd", "3 encodings upon each other; 2 are undone"),
        (",".join(["gzip"] * 50), "50 encodings upon each other"),
    ],
)
def test_what_is_not_undone_is_named(written: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        codings(written)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("application/x-gzip", "x-gzip"), ("application/x-bz2", "bz2"),
        ("application/zstd", "zstd"), ("application/x-lzma", "xz"),
        ("gzip", "x-gzip"), ("Application/X-BZ2", "bz2"),
        ("zlib", "zlib"), ("", None), ("none", None), ("identity", None),
    ],
)  # fmt: skip
def test_the_header_of_kombu_is_read(written: str, name: str | None) -> None:
    assert codings_of_header(written) == (() if name is None else (name,))


def test_a_header_that_is_not_undone_is_named() -> None:
    with pytest.raises(ValueError, match="compression 'application/x-brotli' is not known; gzip,"):
        codings_of_header("application/x-brotli")


@given(st.binary(), st.lists(st.sampled_from([*BACK]), max_size=2))
def test_what_was_encoded_comes_back(raw: bytes, names: list[str]) -> None:
    body = raw
    for name in names:
        body = BACK[name](body)
    assert decode(body, names) == raw


@given(st.binary(max_size=300), st.sampled_from([*BACK]), st.data())
def test_any_bytes_are_decoded_or_refused_in_words(
    raw: bytes, name: str, data: st.DataObject
) -> None:
    good = bytearray(BACK[name](TEXT))
    at = data.draw(st.integers(0, len(good)))
    for body in (raw, bytes(good[:at]) + raw, bytes(good[:at]) + raw + bytes(good[at:])):
        why = ""
        try:
            decode(body, (name,))
        except ValueError as error:
            why = str(error)
        assert not why or why.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "body", "outcome"),
    [
        ("gzip", b"", b""),
        ("zstd", b"", b""),
        ("gzip", gzipped(b""), b""),
        ("zstd", zstd(b""), b""),
        ("gzip", gzipped(b"a") + gzipped(b"") + gzipped(b"b"), b"ab"),
        ("zstd", zstd(b"a") + zstd(b"b"), b"ab"),
        ("zstd", streamed(TEXT), TEXT),
        ("zstd", zstd(TEXT, write_checksum=True), TEXT),
        ("zstd", SKIPPABLE + zstd(b"a") + SKIPPABLE, b"a"),
        ("zstd", SKIPPABLE, b""),
        ("gzip", gzipped(TEXT) + bytes(500), TEXT),
        ("gzip", gzipped(TEXT)[:-1], "gzip: the stream is torn: its end is missing"),
        ("gzip", gzipped(TEXT)[:5], "gzip: the stream is torn: its end is missing"),
        ("zstd", zstd(TEXT)[:-1], "zstd: the stream is torn: its end is missing"),
        ("zstd", zstd(TEXT)[:3], "zstd: the stream is torn: its end is missing"),
        ("zstd", SKIPPABLE[:-1], "zstd: the stream is torn: its end is missing"),
        ("zstd", zstd(TEXT) + zstd(TEXT)[:9], "zstd: the stream is torn: its end is missing"),
        ("gzip", gzipped(TEXT) + b"xyz.", FOLLOWED.format(4)),
        ("gzip", gzipped(TEXT) + b"\0x", FOLLOWED.format(2)),
        ("zstd", zstd(TEXT) + b"more", "zstd: something else follows the stream"),
        ("gzip", TEXT, "gzip: the stream is damaged (incorrect header check)"),
        ("zstd", TEXT, "zstd: the stream is damaged (unknown frame descriptor)"),
        ("gzip", zlib.compress(TEXT), "gzip: the stream is damaged (incorrect header check)"),
        (
            "gzip",
            gzipped(TEXT)[:-8] + bytes(8),
            "gzip: the stream is damaged (incorrect data check)",
        ),
        (
            "zstd",
            zstd(TEXT, write_checksum=True)[:-4] + bytes(4),
            "zstd: the stream is damaged (restored data doesn't match checksum)",
        ),
        (
            "zstd",
            with_dictionary(b"order 7 was placed and paid"),
            "zstd: needs a dictionary, which logfan does not have",
        ),
        (
            "zstd",
            streamed(TEXT, window_log=24),
            "zstd: needs a window of more than 8 MiB (a long or ultra mode)",
        ),
        ("x-gzip", zlib.compress(TEXT), TEXT),
        ("x-gzip", gzipped(TEXT), TEXT),
        ("deflate", zlib.compress(TEXT), TEXT),
        ("deflate", raw_deflate(TEXT), TEXT),
        ("xz", alone(TEXT), TEXT),
        ("bz2", bz2.compress(b"a") + bz2.compress(b"b"), b"ab"),
        ("xz", lzma.compress(b"a") + lzma.compress(b"b"), b"ab"),
        ("zlib", zlib.compress(TEXT)[:-1], "zlib: the stream is torn: its end is missing"),
        ("deflate", raw_deflate(TEXT)[:-1], "deflate: the stream is torn: its end is missing"),
        ("bz2", bz2.compress(TEXT)[:-1], "bz2: the stream is torn: its end is missing"),
        ("xz", lzma.compress(TEXT)[:-1], "xz: the stream is torn: its end is missing"),
        ("xz", alone(TEXT)[:-2], "xz: the stream is torn: its end is missing"),
        ("zlib", zlib.compress(TEXT) + b"x", "zlib: 1 bytes of something else follow the stream"),
        ("bz2", bz2.compress(TEXT) + b"xy", "bz2: 2 bytes of something else follow the stream"),
        ("xz", lzma.compress(TEXT) + b"xy", "xz: 2 bytes of something else follow the stream"),
        ("zlib", TEXT, "zlib: the stream is damaged (incorrect header check)"),
        ("bz2", TEXT, "bz2: the stream is damaged (invalid data stream)"),
        ("xz", TEXT, "xz: the stream is damaged (input format not supported by decoder)"),
        ("xz", lzma.compress(TEXT, preset=7), "xz: needs a window of more than 8 MiB"),
        ("bz2", bz2.compress(b"") * 10_001, "bz2: has more than 10000 members"),
        ("gzip", gzipped(b"") * 10_001, "gzip: has more than 10000 members"),
        ("zstd", zstd(b"") * 10_001, "zstd: has more than 10000 frames"),
    ],
)  # fmt: skip
def test_each_odd_stream_has_one_outcome(name: str, body: bytes, outcome: bytes | str) -> None:
    if isinstance(outcome, bytes):
        assert decode(body, (name,)) == outcome
        return
    with pytest.raises(ValueError, match=f"^{re.escape(outcome)}$"):
        decode(body, (name,))


def test_a_chain_is_undone_from_its_end() -> None:
    body = zstd(gzipped(TEXT))
    assert decode(body, ("gzip", "zstd")) == TEXT
    with pytest.raises(ValueError, match="gzip: the stream is damaged"):
        decode(body, ("zstd", "gzip"))


@pytest.mark.parametrize("name", BACK)
def test_a_small_body_may_become_a_mebibyte_whatever_its_ratio(name: str) -> None:
    assert len(decode(BACK[name](bytes(EXEMPT_BYTES)), (name,))) == EXEMPT_BYTES
    with pytest.raises(ValueError, match=f"{name}: would be larger than 1 MiB and 200 times"):
        decode(BACK[name](bytes(EXEMPT_BYTES + 1)), (name,))


def test_beyond_that_the_ratio_counts_and_a_chain_is_counted_whole() -> None:
    allowed = random.Random(1).randbytes(100_000) + bytes(100_000 * (MAX_RATIO - 50))
    assert len(allowed) > EXEMPT_BYTES
    assert decode(zstd(allowed), ("zstd",)) == allowed
    once = zstd(bytes(EXEMPT_BYTES * 60))
    assert len(zstd(once)) * MAX_RATIO < EXEMPT_BYTES
    with pytest.raises(ValueError, match="zstd: would be larger than 1 MiB and 200 times"):
        decode(zstd(once), ("zstd", "zstd"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_the_size_has_a_cap_whatever_the_ratio(name: str) -> None:
    filler = SKIPPABLE[:4] + (400_000).to_bytes(4, "little") + bytes(400_000)
    padding = {"gzip": bytes(400_000), "zstd": filler}[name]
    full = BACK[name](bytes(MAX_BYTES))
    assert len(decode(full + padding, (name,))) == MAX_BYTES
    with pytest.raises(ValueError, match=f"{name}: would be larger than 64 MiB"):
        decode(BACK[name](bytes(MAX_BYTES + 1)) + padding, (name,))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gzip", "zstd", "bz2", "xz", "zlib"])
def test_a_bomb_never_holds_more_than_the_cap(name: str) -> None:
    """A stream of zeros, and 400 kB more so that only the cap on the size can stop it."""
    program = textwrap.dedent("""
        import bz2, lzma, random, resource, sys, zlib, zstandard
        from logfan.compression import decode
        if sys.argv[1] == "gzip":
            packer = zlib.compressobj(wbits=31)
            bomb = b"".join([packer.compress(bytes(1 << 20)) for _ in range(96)])
            bomb += packer.flush() + bytes(400_000)
        elif sys.argv[1] != "zstd":
            # Nothing may follow these: so the 400 kB that do not shrink are in it.
            first = random.Random(1).randbytes(400_000)
            packer = {"bz2": bz2.BZ2Compressor, "zlib": zlib.compressobj,
                      "xz": lambda: lzma.LZMACompressor(preset=0)}[sys.argv[1]]()
            bomb = packer.compress(first)
            bomb += b"".join([packer.compress(bytes(1 << 20)) for _ in range(96)])
            bomb += packer.flush()
            del packer, first
        else:
            packer = zstandard.ZstdCompressor().compressobj()
            bomb = b"\\x50\\x2a\\x4d\\x18" + (400_000).to_bytes(4, "little") + bytes(400_000)
            bomb += b"".join([packer.compress(bytes(1 << 20)) for _ in range(96)])
            bomb += packer.flush()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            decode(bomb, (sys.argv[1],))
        except ValueError as error:
            print(error)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, name],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    why, grown_kib = done.stdout.splitlines()
    assert why == f"{name}: would be larger than 64 MiB"
    assert int(grown_kib) < (MAX_BYTES + (MAX_BYTES >> 3)) // 1024 + 8 * 1024


def test_a_record_is_decoded_once_for_all_sinks(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    real = compression.decode

    def counted(body: bytes, names: tuple[str, ...]) -> bytes:
        nonlocal count
        count += 1
        return real(body, names)

    monkeypatch.setattr(api, "decode", counted)
    good = record(gzipped(TEXT * 1000), content_encoding="gzip")
    torn = record(gzipped(TEXT)[:-1], content_encoding="gzip")
    ready = threading.Barrier(8)
    seen: list[object] = []

    def look() -> None:
        ready.wait(60)
        seen.append(good.decoded())
        with pytest.raises(ValueError, match=r"the body cannot be decoded: gzip: .* torn"):
            torn.decoded()

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 8
    assert len(set(map(id, seen))) == 1
    assert count == 2


def test_a_decoded_record_is_the_message_without_its_encoding() -> None:
    one = record(
        gzipped(TEXT), content_encoding="X-GZIP", routing_key="shop", headers={"a": 1},
        message_id="m1", redelivered=True,
    )  # fmt: skip
    plain = one.decoded()
    assert (plain.body, plain.text, plain.size) == (TEXT, TEXT.decode(), len(TEXT))
    assert plain.json() is plain.json()
    assert plain.json()["message"] == "hello"
    assert (plain.routing_key, plain.message_id, plain.redelivered) == ("shop", "m1", True)
    assert plain.received_at == one.received_at
    assert plain.headers["a"] == 1
    assert plain.properties.content_encoding is None
    assert plain.decoded() is plain
    assert (one.body, one.properties.content_encoding) == (gzipped(TEXT), "X-GZIP")


@pytest.mark.parametrize("encoding", [None, "", "identity", "utf-8"])
def test_a_plain_record_is_its_own_decoded_record(encoding: str | None) -> None:
    one = record(TEXT, content_encoding=encoding)
    assert one.decoded() is one


@pytest.mark.parametrize(
    ("packed", "header"),
    [
        (zlib.compress(TEXT), "application/x-gzip"), (gzipped(TEXT), "application/x-gzip"),
        (bz2.compress(TEXT), "application/x-bz2"), (lzma.compress(TEXT), "application/x-lzma"),
        (zstd(TEXT), "application/zstd"),
    ],
    ids=["zlib", "gzip", "bz2", "lzma", "zstd"],
)  # fmt: skip
def test_what_celery_compresses_is_undone(packed: bytes, header: str) -> None:
    one = record(
        packed, content_encoding="utf-8", headers={"compression": header, "id": "7"}
    ).decoded()
    assert (one.body, dict(one.headers)) == (TEXT, {"id": "7"})
    assert one.properties.content_encoding == "utf-8"
    assert one.decoded() is one


def test_a_charset_beside_the_header_still_counts() -> None:
    headers = {"compression": "application/x-bz2"}
    one = record(bz2.compress("é".encode("latin-1")), content_encoding="latin-1", headers=headers)
    assert one.decoded().text == "é"


@pytest.mark.parametrize("value", [5, None, True, b"\xff", {"a": 1}, "none"])
def test_a_header_that_names_no_compression_is_none(value: object) -> None:
    one = record(TEXT, headers={"compression": value})
    assert one.decoded() is one


@pytest.mark.parametrize("packed", [zlib.compress(TEXT), zlib.compress(TEXT, 9), gzipped(TEXT)])
def test_zlib_and_gzip_are_undone_without_a_word(packed: bytes) -> None:
    assert record(packed).decoded().body == TEXT


@pytest.mark.parametrize(
    "body", [b"x^2 + y", b"x\x01", zlib.compress(TEXT)[:-1], zlib.compress(bytes(2 << 20)), b"x"]
)
def test_what_only_begins_like_it_is_left_as_it_came(body: bytes) -> None:
    one = record(body)
    assert one.decoded() is one
    assert one.decoded() is one


def test_an_unknown_encoding_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="cannot be decoded: the content_encoding 'br' is not"):
        record(TEXT, content_encoding="br").decoded()


def test_little_of_what_was_decoded_is_kept_however_many_records_wait() -> None:
    large = gzipped(bytes(EXEMPT_BYTES))
    waiting = [record(large, content_encoding="gzip") for _ in range(100)]
    for one in waiting:
        one.decoded()
    kept = [one for one in waiting if getattr(one, "_decoded", None)]
    assert kept == waiting[-15:]
    assert waiting[0].decoded().size == EXEMPT_BYTES
