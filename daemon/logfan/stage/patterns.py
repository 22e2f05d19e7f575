"""Patterns that `redact` looks for: named ones with their check digits, and one's own. Sans-I/O."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Replace = Callable[[bytes], bytes]
"""Takes what was found, and gives what stands in its place."""

_PATTERN_BYTES = 1000


class _Named(NamedTuple):
    pattern: str
    check: Callable[[str], bool] | None = None
    """Whether what was found is one indeed."""


def is_card(text: str) -> bool:
    """The check digit of payment cards (Luhn)."""
    digits = [int(char) for char in text if char.isdecimal()][::-1]
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return any(digits) and (sum(digits[::2]) + doubled) % 10 == 0


def is_iban(text: str) -> bool:
    """The check digits of an IBAN (ISO 7064, mod 97-10)."""
    plain = text.replace(" ", "")
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_HEX = r"[0-9A-Fa-f]{1,4}"
NAMED: Mapping[str, _Named] = {
    "email": _Named(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"),
    "card": _Named(r"\b[0-9](?:[ -]?[0-9]){12,18}\b", is_card),
    "iban": _Named(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", is_iban),
    "ipv4": _Named(rf"\b(?:{_BYTE}\.){{3}}{_BYTE}\b"),
    "ipv6": _Named(
        rf"(?:{_HEX}:){{7}}{_HEX}|(?:{_HEX}:){{1,6}}(?::{_HEX}){{1,6}}|(?:{_HEX}:){{1,7}}:|::{_HEX}"
    ),
    "jwt": _Named(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*"),
    "bearer": _Named(r"(?i)\bbearer\s+[A-Za-z0-9._~+/=-]+"),
}


def compiled(pattern: str, problem: str) -> Any:
    """A regular expression of RE2. Raises ValueError: `problem`, then RE2's reason."""
    if len(pattern.encode()) > _PATTERN_BYTES:
        raise ValueError(f"a pattern of more than {_PATTERN_BYTES} bytes")
    try:
        return _compiled(pattern)
    except ValueError as error:
        raise ValueError(f"{problem}: {error}") from None


def _compiled(pattern: str) -> Any:
    """Raises ValueError with RE2's reason."""
    import re2  # type: ignore[import-untyped] # 2.4 MiB that only patterns need

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(text) from None


class Patterns:
    """Several patterns, searched in linear time."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Names of `NAMED`, or regular expressions of RE2. Raises ValueError, naming the one that
        is neither."""
        self._each: list[tuple[Any, Callable[[str], bool] | None]] = []
        parts: list[str] = []
        for text in patterns:
            named = NAMED.get(text, _Named(text))
            pattern = compiled(
                named.pattern,
                f"{text!r} is neither a named pattern ({', '.join(NAMED)}) nor a regular "
                "expression of RE2",
            )
            if pattern.search(b"") is not None:
                raise ValueError(f"{text!r} matches nothing at all, and so everywhere")
            self._each.append((pattern, named.check))
            parts.append(f"(?:{named.pattern})")
        # One search for all of them, which is not to be had where two name a group alike.
        try:
            self._searches = [_compiled("|".join(parts)).search] if parts else []
        except ValueError:
            self._searches = [pattern.search for pattern, _ in self._each]

    @property
    def are_any(self) -> bool:
        return bool(self._each)

    def occur(self, text: bytes) -> bool:
        """Whether one of them occurs; its check digits are not looked at."""
        return any(search(text) is not None for search in self._searches)

    def replaced(self, text: bytes, replace: Replace) -> bytes:
        if not self.occur(text):
            return text
        for pattern, check in self._each:
            text = pattern.sub(_replacing(check, replace), text)
        return text


def _replacing(check: Callable[[str], bool] | None, replace: Replace) -> Callable[[Any], bytes]:
    def one(match: Any) -> bytes:
        found: bytes = match.group()
        if check is not None and not check(found.decode("ascii", "replace")):
            return found
        return replace(found)

    return one
