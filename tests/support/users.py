"""Being another user for a while: modes do not bind root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NOBODY = 65534


@contextmanager
def ordinary_user() -> Iterator[None]:
    """As nobody, if this is root. Skips the test in a namespace that has no user but root."""
    user = os.geteuid()
    try:
        os.seteuid(user or NOBODY)
    except OSError:
        pytest.skip("this namespace has no user but root")
    try:
        yield
    finally:
        os.seteuid(user)
