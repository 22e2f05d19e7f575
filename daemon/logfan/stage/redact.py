"""`redact`: what must not leave is replaced before a sink gets it. Sans-I/O.

JSON stays JSON, and what is not replaced stays byte for byte. Patterns are looked for in keys,
strings and numbers, in text that is no JSON, and in headers. They are looked for in what a reader
sees: a compressed body is decompressed before and compressed again, and one in another character
set than UTF-8 becomes UTF-8.
"""

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from logfan.charsets import in_utf8, is_unlike_json
from logfan.record import Record, as_utf8, json_of, readable, with_body
from logfan.stage.json_edit import edited
from logfan.stage.patterns import Patterns

MASK = "[redacted]"
_HEADERS = "headers"
_KEY_BYTES = 64
_HASH_BYTES = 16


class Redactor:
    """Replaces the values at paths, and what patterns find."""

    def __init__(
        self,
        paths: Sequence[str] = (),
        patterns: Sequence[str] = (),
        *,
        mask: str = MASK,
        key: bytes | None = None,
    ) -> None:
        """With a `key`, a keyed hash takes the place of each value instead of `mask`, so that
        records can still be joined. Raises ValueError for what is no path, or no pattern."""
        split = [path.removeprefix("json.").split(".") for path in paths]
        for path, parts in zip(paths, split, strict=True):
            if "" in parts:
                raise ValueError(
                    f"the path {path!r} has an empty part; write names between dots: user.email"
                )
        self._headers = [parts[1:] for parts in split if parts[0] == _HEADERS and parts[1:]]
        self._paths = [parts for parts in split if parts[0] != _HEADERS or not parts[1:]]
        # A body has none of these values where the last name of no path occurs in it. A number may
        # be an index, and then it does not occur.
        self._last = [_last_name(parts).encode() for parts in self._paths]
        self._patterns = Patterns(patterns)
        self._mask = mask
        self._key = None if key is None else key[:_KEY_BYTES]

    def apply(self, record: Record) -> Record:
        """The record without what must not leave; itself where there is nothing of that."""
        plain = readable(record) or record
        changed = self._apply(plain)
        if changed is plain:
            return record
        if plain is record:
            return changed
        # No larger than it came, as a batch of them is held.
        packed = gzip.compress(changed.body, 1, mtime=0)
        return with_body(changed, packed, changed.properties._replace(content_encoding="gzip"))

    def _apply(self, record: Record) -> Record:
        properties = record.properties
        body, text, is_json = record.body, record.body, False
        # An escaped letter, or another character set, is seen only where the text is read.
        odd = is_unlike_json(body)
        escaped = odd or b"\\" in body
        named = bool(self._last) and (escaped or any(last in body for last in self._last))
        matched = self._patterns.are_any and (escaped or self._patterns.occur(body))
        if named or matched:
            json = json_of(record)
            is_json, text = json.is_json, json.written or json.text
            if odd and not is_json:
                text = in_utf8(body, properties.content_type, properties.content_encoding) or body
        if is_json:
            body = edited(text, self._paths, self._value, self._scalar if matched else None)
        elif matched:
            body = self._patterns.replaced(text, self._instead)
        headers = properties.headers and self._inside(properties.headers, self._headers)
        if body == text and headers is properties.headers:
            return record
        if body == text:
            body = record.body
        elif odd and text is not record.body:
            properties = as_utf8(properties)
        return with_body(record, body, properties._replace(headers=headers))

    def _instead(self, found: bytes) -> bytes:
        if self._key is None:
            return self._mask.encode()
        return hashlib.blake2b(found, key=self._key, digest_size=_HASH_BYTES).hexdigest().encode()

    def _value(self, raw: bytes) -> bytes:
        """In the place of a whole value."""
        plain = orjson.loads(raw).encode() if raw[:1] == b'"' else raw
        return orjson.dumps(self._instead(plain).decode())

    def _scalar(self, raw: bytes) -> bytes:
        """A key, a string or a number, with what patterns find in it replaced."""
        is_text = raw[:1] == b'"'
        plain = orjson.loads(raw).encode() if is_text else raw
        changed = self._patterns.replaced(plain, self._instead)
        return raw if changed == plain else orjson.dumps(changed.decode())

    def _inside(
        self, table: Mapping[str, Any], paths: Sequence[Sequence[str]]
    ) -> Mapping[str, Any]:
        """Headers, or a table of theirs: the same one where nothing is replaced."""
        changed = {name: self._header(name, value, paths) for name, value in table.items()}
        return changed if any(changed[name] is not table[name] for name in table) else table

    def _header(self, name: str, value: Any, paths: Sequence[Sequence[str]]) -> Any:
        rest = [
            parts[count:]
            for parts in paths
            if (count := name.count(".") + 1) and ".".join(parts[:count]) == name
        ]
        if [] in rest:
            text = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
            return self._instead(text).decode()
        if isinstance(value, Mapping):
            return self._inside(value, rest)
        if isinstance(value, list | tuple):
            items = [
                self._header("", one, [["", *parts] for parts in _inside_list(rest, place)])
                for place, one in enumerate(value)
            ]
            same = all(new is old for new, old in zip(items, value, strict=True))
            return value if same else tuple(items)
        if isinstance(value, str | bytes):
            text = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
            changed = self._patterns.replaced(text, self._instead)
            if changed != text:
                return changed if isinstance(value, bytes) else changed.decode("utf-8", "replace")
        return value


def _last_name(parts: Sequence[str]) -> str:
    return next((part for part in reversed(parts) if not part.isdecimal()), "")


def _inside_list(paths: Sequence[Sequence[str]], place: int) -> Sequence[Sequence[str]]:
    """What a list is asked for, and what its element at this place is."""
    found = (parts[1:] for parts in paths if parts[0].isdecimal() and int(parts[0][:9]) == place)
    return [*paths, *(parts for parts in found if parts not in paths)]
