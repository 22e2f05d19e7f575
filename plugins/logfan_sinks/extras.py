"""Libraries that a kind of sink needs, and that come with an extra of the package."""

from importlib.util import find_spec


def needs(module: str, *, extra: str) -> None:
    """Raises ValueError, with the way out, where the library is not installed."""
    if find_spec(module) is None:
        raise ValueError(
            f"{module} is not installed: pip install 'logfan[{extra}]' where logfan is installed"
        )
