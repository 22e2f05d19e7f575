"""Options of sinks whose library comes with an extra of the package."""

from importlib.util import find_spec
from typing import Any, ClassVar

from pydantic import model_validator

import logfan


class ExtraConfig(logfan.SinkConfig):
    """Options that are a fault, with the way out, where the library is not installed."""

    library: ClassVar[str]
    """The module that is needed."""
    extra: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _has_library(cls, data: Any) -> Any:
        if find_spec(cls.library) is None:
            raise ValueError(
                f"{cls.library} is not installed: pip install 'logfan[{cls.extra}]' where logfan "
                "is installed"
            )
        return data
