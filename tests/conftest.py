"""The shared RabbitMQ node, and what every test may ask for."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

from logfan.testing.node import NodeUnavailable, RabbitNode
from support.broker import Names

# How long an example takes is a matter of the machine's load; pytest's timeout bounds the test.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def node() -> Iterator[RabbitNode]:
    """One private node for the whole session; tests keep apart by their names on it."""
    yield from _running("rabbitmq_consistent_hash_exchange")


@pytest.fixture
def own_node() -> Iterator[RabbitNode]:
    """A node for a test that stops or kills it. All others share `node`: a start takes 5 s."""
    yield from _running()


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Names:
    """An exchange and a queue that no other test uses."""
    return Names.unique(request.node.name)


def _running(*plugins: str) -> Iterator[RabbitNode]:
    with ExitStack() as stack:
        try:
            node = stack.enter_context(RabbitNode(plugins=plugins))
        except NodeUnavailable as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
        yield node


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quick ones first: a broken core shows before the broker is asked."""
    items.sort(key=lambda item: ("/chaos/" in str(item.path), "/integration/" in str(item.path)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, as root, nothing may be skipped; some of it only root can do."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped and os.environ.get("CI") and os.geteuid() == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"\n{len(skipped)} skipped in CI, where nothing may be", red=True)
