"""What several sinks are tried with."""

from collections.abc import Iterator

import pytest

from support.scripted_http import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A real HTTP server that answers as the test asks it to."""
    with ScriptedServer().running() as server:
        yield server
