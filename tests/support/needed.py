"""What tests need from elsewhere: brokers, servers and tools that are fetched."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from logfan.testing.debian import DebianUnavailable
from logfan.testing.node import NodeUnavailable
from support.axe import AxeUnavailable
from support.java import JavaUnavailable
from support.versitygw import GoUnavailable

_UNAVAILABLE = (
    AxeUnavailable, DebianUnavailable, GoUnavailable, JavaUnavailable, NodeUnavailable,
)  # fmt: skip


@contextmanager
def needed(what: str = "") -> Iterator[None]:
    """Where it cannot be had the test is skipped; in CI it fails. `what`: put before the reason."""
    try:
        yield
    except _UNAVAILABLE as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{what}{error}")
