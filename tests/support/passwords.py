"""Passwords as people and generators make them, and what of them must not be found anywhere."""

import base64
import json
import random
import string
from collections.abc import Iterator
from urllib.parse import quote

SPECIAL = "@:/#?%[]\"'\\ \t;&=+,<>{}|^`~!$*()"
WIDE = "\uff03\uff3b\uff3d\uff20\uff1a\uff0f\uff1f\uff05\uff0e\u201cé漢ß\u0301\u200b😀"
"""Some of these become the special ones of a URL once a library normalises them."""
SEQUENCES = (
    "%2F",
    "%40",
    "%zz",
    "%",
    "%FF",
    "%00",
    "://",
    "//",
    "[::1]",
    "]:",
    "..",
    "$(x)",
    "\\n",
)
_ALPHABET = string.ascii_letters + string.digits


def passwords(count: int, seed: int = 1) -> Iterator[str]:
    """Each is made of recognisable pieces with something special between them. With 60 and more
    each special thing is in one of them."""
    rng = random.Random(seed)
    everything = [*SPECIAL, *WIDE, *SEQUENCES]
    for number in range(count):
        pieces = ["".join(rng.choices(_ALPHABET, k=rng.randint(6, 9))) for _ in range(3)]
        between = [
            rng.choice([rng.choice(SPECIAL), rng.choice(WIDE), rng.choice(SEQUENCES), ""])
            for _ in range(4)
        ]
        between[rng.randrange(4)] = everything[number % len(everything)]
        first, *rest = between
        yield first + "".join(piece + gap for piece, gap in zip(pieces, rest, strict=True))


def needles(password: str, user: str = "") -> set[str]:
    """The password in each of its spellings, and each piece of it that is long enough to be
    recognised in any other text."""
    plain = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
    whole = {
        password, quote(password, safe=""), quote(password), repr(password)[1:-1],
        json.dumps(password)[1:-1], plain, base64.b64encode(password.encode()).decode().rstrip("="),
    }  # fmt: skip
    text = "".join(char if char in _ALPHABET else " " for char in password)
    return whole | {piece for piece in text.split() if len(piece) >= 5}


def leaked(output: str, password: str, user: str = "") -> list[str]:
    """The lines that hold it, or a piece of it."""
    sought = needles(password, user)
    if not any(needle in output for needle in sought):
        return []
    return [line for line in output.splitlines() if any(needle in line for needle in sought)]
