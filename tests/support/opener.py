"""Opens sinks for a test, and closes them at its end."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from logfan.sink import Sink

S = TypeVar("S", bound=Sink[Any])


def open_one(kind: type[S], name: str, options: Mapping[str, Any]) -> S:
    """Opens one that need not be closed."""
    sink = kind(kind.Config.model_validate(options), name=name)
    sink.open()
    return sink


@contextmanager
def opener(kind: type[S], name: str, **given: Any) -> Iterator[Callable[..., S]]:
    """A function that opens one with these options, and more or others of its own."""
    with ExitStack() as stack:

        def opened(**options: Any) -> S:
            sink = kind(kind.Config.model_validate({**given, **options}), name=name)
            stack.callback(sink.close)
            sink.open()
            return sink

        yield opened
