"""Text of foreign objects: exceptions, reasons, replies, bodies. Sans-I/O.

What others wrote may raise when it is asked for its text, may be without end, may hold half of a
character, a terminal's commands, or a password in a URL. It is taken here and nowhere else:
guarded, cut, and in linear time.
"""

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from urllib.parse import quote, unquote

REASON_CHARACTERS = 1000
"""So much of a failure's text is kept, shown and sent."""
TRACEBACK_CHARACTERS = 16_000
_FRAMES, _CHAINED, _GROUPED = 40, 4, 5
_SCANNED = 8
"""Text is cut before it is searched: to so many times of what is kept."""
_WORD = re.compile(r"\S+")
_SECRETS = 100
_SHORTEST_SECRET = 6
_COMMON_WORD = re.compile(r"[a-z]{0,12}")

_secrets: list[str] = []
"""What `mask` hides, the longest first."""


def text_of(
    value: object, most: int = REASON_CHARACTERS, how: Callable[[object], str] = str
) -> str:
    """`str(value)`, masked and cut to `most` characters, as text that any encoder takes. Never
    raises.

    `how` may be `repr`. Where it fails, or gives no string, the name of its type.
    """
    return cut(_taken(value, most * _SCANNED, how), most)


def line_of(value: object, most: int = REASON_CHARACTERS) -> str:
    """The same on one line, with single spaces."""
    return cut(" ".join(_taken(value, most * _SCANNED, str).split()), most)


def _taken(value: object, most: int, how: Callable[[object], str]) -> str:
    try:
        # A subclass of str may have methods of its own: from here on it is one of ours.
        text = str.__str__(how(value))
    except BaseException:  # noqa: BLE001 - a plugin's or a library's code, which may raise anything
        return f"{type_name(value)} (its text cannot be read)"
    if len(text) <= most:
        return mask(valid(text))
    # Where a URL is cut, the @ behind its password may be in what is cut off.
    return mask(f"{valid(text[:most])}@")[:-1]


def describe(error: BaseException) -> str:
    """`TypeName: text`, on one line; the type's name alone where there is no text."""
    text, name = line_of(error), type_name(error)
    if text and not text.startswith(f"{name} ("):
        return cut(f"{name}: {text}", REASON_CHARACTERS)
    return text or name


def type_name(value: object) -> str:
    """The name of its type, cut."""
    # By the slot itself: a metaclass may have a `__name__` of its own.
    return cut(valid(str.__str__(_SLOT_OF_NAME.__get__(type(value)))), 100)


def traceback_of(error: BaseException) -> str:
    """Its traceback, after those of what it came from, as Python shows them: the last frames of
    each, and the end where all of it is too long. Never raises."""
    try:
        text = mask(valid("\n".join(_lines_of_chain(error))))
    except BaseException:  # noqa: BLE001 - frames and sources of a plugin's, of any shape
        text = describe(error)
    return text if len(text) <= TRACEBACK_CHARACTERS else "…" + text[1 - TRACEBACK_CHARACTERS :]


def _lines_of_chain(error: BaseException) -> Iterator[str]:
    chain: list[tuple[BaseException, str]] = []
    one: BaseException | None = error
    link = ""
    # By the base's own slots: a plugin's exception may have attributes of its own.
    while one is not None and len(chain) < _CHAINED:
        chain.append((one, link))
        cause = _SLOTS["__cause__"].__get__(one)
        link = "The above exception was the direct cause of the following exception:"
        if cause is None and not _SLOTS["__suppress_context__"].__get__(one):
            cause = _SLOTS["__context__"].__get__(one)
            link = "During handling of the above exception, another exception occurred:"
        one = cause
    for one, link in reversed(chain):
        yield "Traceback (most recent call last):"
        for line in traceback.format_tb(_SLOTS["__traceback__"].__get__(one), limit=-_FRAMES):
            yield cut(line.rstrip("\n"), REASON_CHARACTERS)
        yield f"{type_name(one)}: {text_of(one)}"
        if issubclass(type(one), BaseExceptionGroup):
            for sub in BaseExceptionGroup.exceptions.__get__(one)[:_GROUPED]:
                yield f"  | {describe(sub)}"
        if link:
            yield f"\n{link}\n"


_SLOT_OF_NAME = vars(type)["__name__"]
_SLOTS = vars(BaseException)


def cut(text: str, most: int) -> str:
    """At most `most` characters; `…` as the last one marks that there was more."""
    return text if len(text) <= most else text[: max(0, most - 1)] + "…"


def valid(text: str) -> str:
    """The text with lone surrogates escaped, so that it can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def in_utf8(text: str) -> str:
    """An argument or an environment variable read as UTF-8, whatever the locale. Bytes that are
    none become lone surrogates."""
    if sys.getfilesystemencoding() == "utf-8":
        return text
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def hide(secret: str) -> None:
    """Have `mask` hide this from now on, in each spelling that it may come in.

    Left out: what is so short or so common that it would be found in any text.
    """
    plain = unquote(secret)
    if len(plain) < _SHORTEST_SECRET or _COMMON_WORD.fullmatch(plain):
        return
    spellings = {secret, plain, quote(plain, safe=""), quote(plain)}
    for text in (secret, plain):
        spellings |= {repr(text)[1:-1], json.dumps(text)[1:-1]}
    known = [old for old in _secrets if old not in spellings]
    _secrets[:] = sorted([*spellings, *known[:_SECRETS]], key=len, reverse=True)


def mask(text: str) -> str:
    """The text with user and password of every URL in it hidden: from `:/` to the last `@` of the
    same word, as a password may hold an @ that is not encoded. And each known secret (`hide`)."""
    for secret in _secrets:
        text = text.replace(secret, "***")
    return _WORD.sub(_masked, text) if ":/" in text and "@" in text else text


def _masked(match: re.Match[str]) -> str:
    word = match[0]
    start, end = word.find(":/"), word.rfind("@")
    while word.startswith("/", start + 1):
        start += 1
    return f"{word[: start + 1]}***{word[end:]}" if 0 <= start < end else word
