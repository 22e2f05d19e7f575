"""The shared RabbitMQ node, and what every test may ask for."""

import gc
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from logfan import control
from logfan.cli import common
from logfan.plugins import discovery, drop_ins
from logfan.testing.debian import cache_folder
from logfan.testing.node import RabbitNode
from support import tls_node
from support.broker import Names
from support.needed import needed
from support.tls_node import TlsNode

# How long an example takes is a matter of the machine's load; pytest's timeout bounds the test.
settings.register_profile(
    "busy",
    max_examples=int(os.environ.get("LOGFAN_EXAMPLES", "50")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("busy")

# A run in the background of a shell ignores SIGINT, and so would the commands that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent
WITH_BROKER = ("chaos", "integration", "sinks", "brokers", "bench", "release")
SYSTEM_PLUGINS = Path("/etc/logfan/plugins")
TUNED_BY = ("LOGFAN_EXAMPLES", "LOGFAN_FUZZ_CASES", "LOGFAN_MACHINE_EXAMPLES", "LOGFAN_PASSWORDS")
"""Variables of the environment that make tests longer; all others of logfan's are for daemons."""


@pytest.fixture(scope="session")
def node() -> Iterator[RabbitNode]:
    """One private node for the whole session; tests keep apart by their names on it."""
    # Bodies as large as RabbitMQ 3.10 takes; RabbitMQ 4 takes 16 MiB by default.
    config = [f"max_message_size = {128 << 20}"]
    yield from _running("rabbitmq_consistent_hash_exchange", tls_node.PLUGIN, config=config)


@pytest.fixture
def own_node(node: RabbitNode) -> Iterator[RabbitNode]:
    """`node`, for a test that stops or kills it. It is up again for the next one."""
    yield node
    if node.pid is None:
        node.start()


@pytest.fixture
def fresh_node() -> Iterator[RabbitNode]:
    """A node for a test that changes what a restart does not bring back, or needs all of it."""
    yield from _running()


@pytest.fixture(scope="module")
def tls(node: RabbitNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsNode]:
    """`node` with TLS, for a file. A test that changes its certificate changes it back."""
    with TlsNode(node, tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Names:
    """An exchange and a queue that no other test uses."""
    return Names.unique(request.node.name)


def _running(*plugins: str, config: Sequence[str] = ()) -> Iterator[RabbitNode]:
    with needed(), RabbitNode(plugins=plugins, config=config) as node:
        yield node


def pytest_configure(config: pytest.Config) -> None:
    """Nothing of the user's or the system's is for the tests: home, umask, settings and plugins of
    logfan's own. A process that a test starts gets its folders of plugins from its config."""
    # What was unpacked stays where it is: a node is fetched once, not once a run.
    os.environ["XDG_CACHE_HOME"] = str(cache_folder().parent)
    home = tempfile.TemporaryDirectory(prefix="logfan-home-")
    config.add_cleanup(home.cleanup)
    os.environ["HOME"] = home.name
    # Where daemons have their control sockets; a long path would be none for a socket.
    run = tempfile.TemporaryDirectory(prefix="logfan-run-")
    config.add_cleanup(run.cleanup)
    os.environ["RUNTIME_DIRECTORY"] = run.name
    os.umask(0o022)
    for name in [name for name in os.environ if name.startswith("LOGFAN_")]:
        if name not in TUNED_BY:
            del os.environ[name]
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.setattr(common, "CONFIG_PLACES", (Path("config.toml"),))
    patch.setattr(control, "_SYSTEM", Path(run.name))
    patch.setattr(discovery, "plugin_files", _plugin_files)


def _plugin_files(directory: Path) -> list[tuple[Path, str | None]]:
    return [] if directory == SYSTEM_PLUGINS else drop_ins.plugin_files(directory)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The fast ones first: a broken core shows before the broker is asked. Then the longest, so
    that no worker is left with it alone at the end."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    folder = item.path.relative_to(TESTS).parts[0]
    return 1 + WITH_BROKER.index(folder) if folder in WITH_BROKER else 0


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What is there now stays to the end: no collection of garbage needs to look at it again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI, as root, nothing may be skipped; some of it only root can do."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    skipped = reporter.stats.get("skipped", [])
    if skipped and os.environ.get("CI") and os.geteuid() == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"\n{len(skipped)} skipped in CI, where nothing may be", red=True)
