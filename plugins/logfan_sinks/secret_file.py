"""A secret, such as a password, that a file holds."""

import re
import stat
from pathlib import Path

from pydantic import SecretStr

import logfan

_MOST_CHARS = 64 << 10
HEADER_TEXT = r"^[\t -~\xa0-\xff]*$"
"""What a header of HTTP may hold."""


def must_be_readable(path: Path, key: str = "") -> None:
    """Raises `logfan.SinkUnavailable`, whose text begins with `key`, where there is no such file,
    also for a pipe, which may never end."""
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)
        if is_regular:
            path.open("rb").close()
    except OSError as error:
        raise logfan.SinkUnavailable(f"{key}{path}: {error.strerror}") from None
    if not is_regular:
        raise logfan.SinkUnavailable(f"{key}{path}: it is no regular file")


def secret_in(path: Path) -> str:
    """The text of the file, without white space around it. Raises as `must_be_readable` does, and
    for what is not UTF-8."""
    must_be_readable(path)
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_MOST_CHARS).strip()
    except UnicodeDecodeError:
        raise logfan.SinkUnavailable(f"{path}: it is not UTF-8") from None
    except OSError as error:
        raise logfan.SinkUnavailable(f"{path}: {error.strerror}") from None


def token_in(path: Path) -> str:
    """The same of what goes into a header: the error of one that does not fit would quote it."""
    token = secret_in(path)
    if not re.fullmatch(HEADER_TEXT, token):
        raise logfan.SinkUnavailable(
            f"{path}: holds more than a token: several lines, or characters that no header takes"
        )
    return token


def secret_of(given: SecretStr | None, path: Path | None) -> str:
    """What the config has itself, else what the file holds. Raises as `secret_in` does."""
    return secret_in(path) if given is None else given.get_secret_value()  # type: ignore[arg-type]
