"""The OCI image, unpacked and run without root, on a real RabbitMQ."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from logfan import __version__
from logfan.testing.node import RabbitNode
from support.broker import Names, publish, waiting
from support.container import Container, Image
from support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]  # the first one builds the release

SINKS = """
[sinks.archive]
kind = "file"
path = "app.log"
format = "raw"
"""


@pytest.fixture(scope="module")
def image(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    [archive] = dist.glob("logfan-*-oci-*.tar")
    return Image(archive, tmp_path_factory.mktemp("image") / "image", __version__)


@pytest.fixture
def container(image: Image, node: RabbitNode, names: Names, tmp_path: Path) -> Iterator[Container]:
    with Container(image, tmp_path, node.url, names, SINKS) as started:
        yield started


def test_a_message_goes_through_and_term_ends_it_with_0(
    container: Container, node: RabbitNode, names: Names
) -> None:
    publish(node.url, names.exchange, [b"hello"])
    wait_until(lambda: container.acked() == 1, "the message is acknowledged")
    assert (container.logs / "app.log").read_bytes() == b"hello\n"
    assert container.stop() == 0, container.log()
    assert waiting(node.url, names.queue) == 0


def test_the_health_check_follows_the_daemon(container: Container) -> None:
    kind, *probe = container.image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert container.run(*probe) == 0
    assert container.run("/usr/bin/logfan", "status") == 0
    assert container.stop() == 0, container.log()
    assert container.run(*probe) == 1


def test_the_health_check_takes_no_proxy(container: Container) -> None:
    _, *probe = container.image.config["Healthcheck"]["Test"]
    proxy = "http://127.0.0.1:1"  # as docker sets it in containers where it is configured to
    assert container.run(*probe, HTTP_PROXY=proxy, http_proxy=proxy) == 0


@pytest.mark.parametrize("address", ["127.0.0.2", "[::1]", "[::]", "0.0.0.0"])
def test_the_health_check_asks_where_http_listens(
    image: Image, node: RabbitNode, names: Names, tmp_path: Path, address: str
) -> None:
    container = Container(image, tmp_path, node.url, names, SINKS)
    container.address = address
    try:
        container.start(ready=False)
        _, *probe = image.config["Healthcheck"]["Test"]
        wait_until(lambda: container.run(*probe) == 0, "the health check is passed")
    finally:
        assert container.stop() == 0, container.log()


def test_a_config_among_the_logs_is_not_read(
    image: Image, node: RabbitNode, names: Names, tmp_path: Path
) -> None:
    container = Container(image, tmp_path, node.url, names, SINKS)
    (container.logs / "config.toml").write_text("of whom?")
    with container:
        assert container.run("/usr/bin/logfan", "pause", "archive") == 0, container.log()


def test_a_sink_is_paused_from_within(container: Container) -> None:
    assert container.run("/usr/bin/logfan", "pause", "archive") == 0, container.log()
    paused = 'logfan_sink_pause_seconds{sink="archive"}'
    wait_until(lambda: container.metric(paused) > 0, "the sink is paused")
    assert container.run("/usr/bin/logfan", "resume", "archive") == 0
    wait_until(lambda: container.metric(paused) == 0, "the sink goes on")


def test_it_is_no_root_and_has_no_shell_and_no_package_manager(image: Image) -> None:
    assert image.process["user"] == {"uid": 65532, "gid": 65532}
    programs = set()
    for path in image.root.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            assert not mode & (stat.S_ISUID | stat.S_ISGID), path
            if path.parent.name in ("bin", "sbin"):
                programs.add(path.name)
    assert programs == {"logfan", (image.root / "usr/bin/python3").readlink().name}


def test_nothing_is_left_to_compile(image: Image) -> None:
    for source in (image.root / "usr/lib/logfan/logfan").rglob("*.py"):
        assert [*source.parent.glob(f"__pycache__/{source.stem}.cpython-*.pyc")], source
