"""The sink `elasticsearch` against a real OpenSearch: each verdict of its table."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import pytest

from logfan.record import Record
from logfan.sink import RecordsRejected, SinkUnavailable
from logfan.testing import hostile_records, record
from logfan_sinks.elasticsearch import ElasticsearchSink
from support.needed import needed
from support.opener import opener
from support.opensearch import OpenSearch
from support.waiting import wait_until

Open = Callable[..., ElasticsearchSink]
_numbers = count()


@pytest.fixture(scope="module")
def opensearch() -> Iterator[OpenSearch]:
    with needed(), OpenSearch() as server:
        yield server


@pytest.fixture
def index() -> str:
    """The name of one of this test's own."""
    return f"logs-{next(_numbers)}"


@pytest.fixture
def opened(opensearch: OpenSearch, index: str) -> Iterator[Open]:
    """Opens a sink to the index, and closes it at the end."""
    with opener(ElasticsearchSink, "search", url=opensearch.url, index=index) as opened:
        yield opened


def numbered(count: int, first: int = 0) -> list[Record]:
    return [record({"n": n}, message_id=str(n)) for n in range(first, first + count)]


def held(opensearch: OpenSearch, index: str) -> list[int]:
    return sorted(document["n"] for document in opensearch.documents(index))


def test_documents_are_found_by_their_fields(
    opened: Open, opensearch: OpenSearch, index: str
) -> None:
    body = {"msg": "it failed", "level": "ERR", "time": "2026-11-25T23:59:59Z"}
    opened(index=f"{index}-{{date}}").write([record(body, routing_key="shop", message_id="m-1")])
    query = {"query": {"range": {"@timestamp": {"gte": "2026-11-25T23:59:00Z"}}}}
    opensearch.ask("POST", f"/{index}-2026.11.25/_refresh")
    (hit,) = opensearch.ask("POST", f"/{index}-2026.11.25/_search", query)["hits"]["hits"]
    assert hit["_id"] == "m-1"
    assert hit["_source"]["log.level"] == "error"
    assert hit["_source"]["logfan"]["routing_key"] == "shop"


def test_what_is_there_already_is_done(opened: Open, opensearch: OpenSearch, index: str) -> None:
    sink = opened()
    sink.write(numbered(3))
    sink.write(numbered(5))
    sink.write([*numbered(2), *numbered(2)])
    assert held(opensearch, index) == [0, 1, 2, 3, 4]


def test_documents_without_identity_are_all_kept(
    opened: Open, opensearch: OpenSearch, index: str
) -> None:
    opened().write([record({"n": 7}), record({"n": 7})])
    assert held(opensearch, index) == [7, 7]


def test_a_closed_index_is_not_now(opened: Open, opensearch: OpenSearch, index: str) -> None:
    sink = opened()
    sink.write(numbered(1))
    opensearch.ask("POST", f"/{index}/_close")
    with pytest.raises(SinkUnavailable, match="400 index_closed_exception"):
        sink.write(numbered(2))
    opensearch.ask("POST", f"/{index}/_open")
    sink.write(numbered(2))
    assert held(opensearch, index) == [0, 1]


def test_a_block_as_of_a_full_disk_is_not_now(
    opened: Open, opensearch: OpenSearch, index: str
) -> None:
    sink = opened()
    sink.write(numbered(1))
    block = "index.blocks.read_only_allow_delete"
    opensearch.ask("PUT", f"/{index}/_settings", {block: True})
    with pytest.raises(SinkUnavailable, match=r"(403|429) cluster_block_exception"):
        sink.write(numbered(2))
    opensearch.ask("PUT", f"/{index}/_settings", {block: None})
    opensearch.ask("PUT", f"/{index}/_settings", {"index.blocks.write": True})
    with pytest.raises(SinkUnavailable, match="403 cluster_block_exception"):
        sink.write(numbered(2))
    opensearch.ask("PUT", f"/{index}/_settings", {"index.blocks.write": None})
    sink.write(numbered(2))
    assert held(opensearch, index) == [0, 1]


def test_an_index_that_may_not_be_made_is_not_now(
    opened: Open, opensearch: OpenSearch, index: str
) -> None:
    setting = "action.auto_create_index"
    opensearch.ask("PUT", "/_cluster/settings", {"transient": {setting: "false"}})
    try:
        with pytest.raises(SinkUnavailable, match="404 index_not_found_exception"):
            opened().write(numbered(1))
    finally:
        opensearch.ask("PUT", "/_cluster/settings", {"transient": {setting: None}})
    opened().write(numbered(1))
    assert held(opensearch, index) == [0]


def test_a_field_of_another_type_is_refused_alone(
    opened: Open, opensearch: OpenSearch, index: str
) -> None:
    sink = opened()
    sink.write(numbered(1))
    records = [*numbered(2, 1), record({"n": {"a": 1}}, message_id="x"), *numbered(2, 3)]
    with pytest.raises(RecordsRejected) as caught:
        sink.write(records)
    assert [*caught.value.reasons] == [2]
    assert caught.value.reasons[2].startswith("refused with 400 mapper_parsing_exception")
    assert not caught.value.later
    assert held(opensearch, index) == [0, 1, 2, 3, 4]


def test_long_identities_are_indexed_once(opened: Open, opensearch: OpenSearch, index: str) -> None:
    sink = opened(id=["headers.id"])
    records = [
        record({"n": 1}, headers={"id": "x" * 512}), record({"n": 2}, headers={"id": "x" * 513}),
        record({"n": 3}, headers={"id": "é" * 300}),
    ]  # fmt: skip
    sink.write(records)
    sink.write(records)
    assert held(opensearch, index) == [1, 2, 3]


def test_a_pipeline_that_is_missing_is_not_now(
    opened: Open, opensearch: OpenSearch, index: str
) -> None:
    sink = opened(pipeline="nowhere")
    with pytest.raises(SinkUnavailable, match=r"pipeline with id \[nowhere\] does not exist"):
        sink.write(numbered(2))
    assert held(opensearch, index) == []


def test_an_alias_without_a_write_index_is_not_now(
    opened: Open, opensearch: OpenSearch, index: str
) -> None:
    for name in ("a", "b"):
        opensearch.ask("PUT", f"/{index}-{name}", {"aliases": {index: {}}})
    sink = opened()
    with pytest.raises(SinkUnavailable, match="no write index is defined for alias"):
        sink.write(numbered(2))
    write = {"add": {"index": f"{index}-a", "alias": index, "is_write_index": True}}
    opensearch.ask("POST", "/_aliases", {"actions": [write]})
    sink.write(numbered(2))
    assert held(opensearch, index) == [0, 1]


def test_too_many_shards_are_not_now(opened: Open, opensearch: OpenSearch, index: str) -> None:
    setting = "cluster.max_shards_per_node"
    sink = opened()
    opensearch.ask("PUT", "/_cluster/settings", {"transient": {setting: 1}})
    try:
        with pytest.raises(SinkUnavailable, match="maximum shards open"):
            sink.write(numbered(2))
    finally:
        opensearch.ask("PUT", "/_cluster/settings", {"transient": {setting: None}})
    sink.write(numbered(2))
    assert held(opensearch, index) == [0, 1]


def test_a_name_that_no_index_may_have_is_not_now(opened: Open) -> None:
    with pytest.raises(SinkUnavailable, match="400 invalid_index_name_exception"):
        opened(index="_logs").write(numbered(2))


def test_nothing_that_we_add_has_a_document_refused(
    opened: Open, opensearch: OpenSearch, index: str
) -> None:
    named: list[dict[str, Any]] = [
        {"n": 1}, {"n": "abc"}, {"n": {"deep": 1}}, {"a": "x", "a.b": "y"}, {"": "x"},
        {"day": "2026-11-26"}, {"day": "none"}, {".": 1, "..": 2, "a..b": 3, " ": 4},
    ]  # fmt: skip
    sink = opened()
    sink.write([record({"n": n}, headers=headers) for n, headers in enumerate(named)])
    assert held(opensearch, index) == [*range(len(named))]
    docker = {"log": "hello", "stream": "stderr", "level": "error"}
    opened(index=f"{index}-docker").write([record(docker)])
    opened(index=f"{index}-year").write([record({"n": 1, "ts": "0001-01-01T00:00:00Z"})])
    opensearch.ask("POST", f"/{index}/_refresh")
    for query in (
        {"term": {"logfan.headers.keyword": "n=abc"}},
        {"query_string": {"query": 'logfan.headers:"day=none"'}},
    ):
        found = opensearch.ask("POST", f"/{index}/_search", {"query": query})
        assert found["hits"]["total"]["value"] == 1


@pytest.mark.parametrize(
    "first", [{"log": "hello"}, {"logfan": "a program"}, {"day": 1}], ids=["log", "logfan", "day"]
)
def test_a_document_is_not_refused_for_what_is_ours_whatever_came_before(
    opened: Open, opensearch: OpenSearch, index: str, first: dict[str, Any]
) -> None:
    sink = opened()
    sink.write([record({"n": 0, **first}, routing_key="2026-11-26")])
    bodies: list[dict[str, Any]] = [{"n": 1, "level": "error"}, {"n": "no number"}, {"n": 3}]
    with pytest.raises(RecordsRejected) as caught:
        sink.write([record(body, routing_key="shop.orders") for body in bodies])
    assert [*caught.value.reasons] == [1]
    assert not caught.value.later
    assert "[n]" in caught.value.reasons[1]
    assert held(opensearch, index) == [0, 1, 3]


def test_requests_within_bounds_hold_all_of_it(
    opened: Open, opensearch: OpenSearch, index: str
) -> None:
    opened(max_records=700, max_request_bytes="50kB", compress="gzip").write(numbered(3000))
    assert held(opensearch, index) == [*range(3000)]


def test_every_hostile_record_is_taken(opened: Open, opensearch: OpenSearch, index: str) -> None:
    hostile = hostile_records()
    opened().write([*hostile.values()])
    assert len(opensearch.documents(index)) == len(hostile)


def test_a_crash_loses_and_repeats_nothing(
    opened: Open, opensearch: OpenSearch, index: str
) -> None:
    sink = opened(timeout="5s")
    sink.write(numbered(500))
    opensearch.freeze()
    with pytest.raises(SinkUnavailable, match="timed out"):
        sink.write(numbered(500, 500))
    opensearch.kill()
    with pytest.raises(SinkUnavailable, match="refused"):
        sink.open()
    opensearch.start()

    def is_written() -> bool:  # as the host does, as long as it takes
        with suppress(SinkUnavailable):
            sink.open()
            sink.write(numbered(500, 500))
            return True
        return False

    wait_until(is_written, "it is up again, and takes what was held")
    assert held(opensearch, index) == [*range(1000)]
