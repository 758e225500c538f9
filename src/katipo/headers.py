"""Header fields: case-insensitive names, several values for a name, order kept (RFC 9110 5).

Headers that come from the engine are one block of bytes until somebody looks: most responses' headers are never read.
Bytes are decoded as ASCII, else as UTF-8, else as ISO-8859-1, one choice for a whole set, as httpx does; text is
encoded as UTF-8, so that it reads back as written.

`Headers` takes what it is given; `validate_header` is what stands between a caller's headers and the wire.
"""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from typing import Final, TypeAlias, TypeVar, cast, overload

from .errors import HIDDEN, BadOptions, is_secret_name, redact

__all__ = ["HeaderTypes", "Headers", "validate_header"]

_Item: TypeAlias = tuple[bytes, bytes, bytes]  # name as received, name in lower case, value
_T = TypeVar("_T")

# RFC 9110 5.6.2
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 5.5 forbids every control character but HTAB: CR, LF and NUL would make new fields, libcurl passes the
# others on and HTTP/2 servers reset the stream for them.
_BAD_IN_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_OWS: Final = b" \t\r"


def _encode(part: str | bytes, what: str) -> bytes:
    if isinstance(part, bytes):
        return part
    if not isinstance(part, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"header {what} must be str or bytes, not {type(part).__name__}")
    return part.encode("utf-8")


def validate_header(name: str | bytes, value: str | bytes) -> tuple[bytes, bytes]:
    """A request header as bytes, fit to be sent: the name a token, the value without control characters.

    White space around the value is not part of it and is dropped (RFC 9110 5.5). Raises BadOptions, whose message
    shows the name and never the value.
    """
    try:
        raw_name, raw_value = _encode(name, "name"), _encode(value, "value")
    except (TypeError, UnicodeEncodeError) as error:
        shown = repr(name) if isinstance(name, (str, bytes)) else type(name).__name__  # pyright: ignore[reportUnnecessaryIsInstance]
        problem = str(error) if isinstance(error, TypeError) else "text that has no UTF-8 form"
        raise BadOptions(f"headers: {shown}: {problem}") from None
    if _TOKEN.fullmatch(raw_name) is None:
        raise BadOptions(f"headers: {raw_name[:100]!r} is not a header name")
    if _BAD_IN_VALUE.search(raw_value) is not None:
        raise BadOptions(f"headers: the value of {raw_name.decode('ascii')!r} has a control character in it")
    return raw_name, raw_value.strip(b" \t")


def _parse(block: bytes) -> list[_Item]:
    items: list[_Item] = []
    for line in block.split(b"\n"):
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            # A folded line belongs to the value before it (RFC 9112 5.2).
            if items and (more := line.strip(_OWS)):
                raw, lower, start = items[-1]
                items[-1] = (raw, lower, start + b" " + more if start else more)
        elif line.startswith(b"HTTP/"):
            items.clear()  # a status line: what came before belongs to an earlier response
        elif colon and (name := name.strip(_OWS)):
            items.append((name, name.lower(), value.strip(_OWS)))
    return items


class Headers(MutableMapping[str, str]):
    """Header fields, mutable; a name may have several values.

    `headers`: another Headers, a mapping, or pairs; str or bytes. `headers[name]`, `get`, `items` and `values` join
    several values with ", "; for Set-Cookie use `get_list`. Raises TypeError for parts of another type.
    """

    __slots__ = ("_block", "_encoding", "_list")
    _block: bytes | None
    _list: list[_Item]
    _encoding: str | None

    def __init__(self, headers: HeaderTypes | None = None, encoding: str | None = None) -> None:
        self._block = None
        self._encoding = encoding
        if headers is None:
            self._list = []
        elif isinstance(headers, Headers):
            self._list = list(headers._items())
        else:
            pairs = cast(
                "Iterable[tuple[str | bytes, str | bytes]]",
                headers.items() if isinstance(headers, Mapping) else headers,
            )
            self._list = []
            for name, value in pairs:
                raw = _encode(name, "name")
                self._list.append((raw, raw.lower(), _encode(value, "value")))

    @classmethod
    def from_block(cls, block: bytes) -> Headers:
        """Headers as received: lines with or without a status line before and a blank line after them.

        Parsed when first looked at. Lines that are no header are skipped; of several blocks, the last counts.
        """
        self = cls.__new__(cls)
        self._block = block
        self._encoding = None
        return self

    def _items(self) -> list[_Item]:
        block = self._block
        if block is not None:
            # The list first: another thread that sees no block must find it.
            self._list = _parse(block)
            self._block = None
        return self._list

    @property
    def encoding(self) -> str:
        """How bytes become text: what was set, else "ascii", "utf-8" or "iso-8859-1", the first that fits all of
        them."""
        if self._encoding is None:
            whole = b"\n".join(raw + b"\n" + value for raw, _, value in self._items())
            self._encoding = "ascii" if whole.isascii() else _utf8_or_latin1(whole)
        return self._encoding

    @encoding.setter
    def encoding(self, value: str) -> None:
        self._encoding = value

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """(name, value) as they are on the wire, names in their own case."""
        return [(raw, value) for raw, _, value in self._items()]

    def _key(self, name: str) -> bytes:
        return name.lower().encode("utf-8", "surrogateescape")

    def _joined(self) -> dict[str, str]:
        encoding = self.encoding
        joined: dict[str, str] = {}
        for _, lower, value in self._items():
            name, text = lower.decode(encoding), value.decode(encoding)
            joined[name] = f"{joined[name]}, {text}" if name in joined else text
        return joined

    def keys(self) -> KeysView[str]:
        """The names, in lower case, each once."""
        return self._joined().keys()

    def values(self) -> ValuesView[str]:
        """The values, those of one name joined with ", "."""
        return self._joined().values()

    def items(self) -> ItemsView[str, str]:
        """Name and value, the values of one name joined with ", "."""
        return self._joined().items()

    def multi_items(self) -> list[tuple[str, str]]:
        """Name in lower case and value, one pair for each field."""
        encoding = self.encoding
        return [(lower.decode(encoding), value.decode(encoding)) for _, lower, value in self._items()]

    @overload
    def get(self, key: str) -> str | None: ...
    @overload
    def get(self, key: str, default: str) -> str: ...
    @overload
    def get(self, key: str, default: _T) -> str | _T: ...
    def get(self, key: str, default: object = None) -> object:
        """The value of `key`, several joined with ", "; `default` if there is none."""
        found = self.get_list(key)
        return ", ".join(found) if found else default

    def get_list(self, key: str, split_commas: bool = False) -> list[str]:
        """The values of `key`, one for each field, or one for each part between commas."""
        wanted = self._key(key)
        found = [value for _, lower, value in self._items() if lower == wanted]
        if not found:
            return []
        encoding = self.encoding
        values = [value.decode(encoding) for value in found]
        return [part.strip() for value in values for part in value.split(",")] if split_commas else values

    def update(self, headers: HeaderTypes | None = None) -> None:  # type: ignore[override]
        """Replace every name that `headers` has, with all its values; keep the others."""
        new = Headers(headers)._items()
        names = {lower for _, lower, _ in new}
        self._list = [item for item in self._items() if item[1] not in names] + new
        self._encoding = None

    def copy(self) -> Headers:
        """An independent copy."""
        new = Headers.__new__(Headers)
        new._block = None
        new._encoding = self._encoding
        new._list = list(self._items())
        return new

    __copy__ = copy

    def __getitem__(self, key: str) -> str:
        found = self.get_list(key)
        if not found:
            raise KeyError(key)
        return ", ".join(found)

    def __setitem__(self, key: str, value: str) -> None:
        """Replace all values of `key` by one, in the place of the first."""
        raw = _encode(key, "name")
        item = (raw, raw.lower(), _encode(value, "value"))
        items = self._items()
        places = [i for i, old in enumerate(items) if old[1] == item[1]]
        for place in reversed(places[1:]):
            del items[place]
        if places:
            items[places[0]] = item
        else:
            items.append(item)
        self._encoding = None

    def __delitem__(self, key: str) -> None:
        wanted = self._key(key)
        kept = [item for item in self._items() if item[1] != wanted]
        if len(kept) == len(self._list):
            raise KeyError(key)
        self._list = kept

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        wanted = self._key(key)
        return any(lower == wanted for _, lower, _ in self._items())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        """How many fields there are, as in httpx: several with one name count each."""
        return len(self._items())

    def __eq__(self, other: object) -> bool:
        """Equal with the same fields, whatever the case of names and the order of names."""
        if isinstance(other, Headers):
            theirs = other
        elif isinstance(other, (Mapping, list, tuple)):
            try:
                theirs = Headers(cast("HeaderTypes", other))
            except (TypeError, ValueError):
                return NotImplemented
        else:
            return NotImplemented
        return sorted(i[1:] for i in self._items()) == sorted(i[1:] for i in theirs._items())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Values of credentials, cookies, and anything named like a key or a token hidden; userinfo in URLs as well."""
        shown = [(name, HIDDEN if is_secret_name(name) else redact(value)) for name, value in self.multi_items()]
        as_dict = dict(shown)
        return f"Headers({as_dict if len(as_dict) == len(shown) else shown!r})"


def snapshot(headers: Headers) -> list[_Item]:
    """What `is_unchanged` compares with."""
    return list(headers._items())  # pyright: ignore[reportPrivateUsage]


def is_unchanged(headers: Headers, since: list[_Item]) -> bool:
    """Whether the fields are those of a snapshot. Asked for every request: it compares references."""
    return headers._list == since  # pyright: ignore[reportPrivateUsage]


def received_block(headers: Headers) -> bytes:
    """The block that Headers.from_block() was given; b"" once it has been parsed."""
    return headers._block or b""  # pyright: ignore[reportPrivateUsage]


def _utf8_or_latin1(whole: bytes) -> str:
    try:
        whole.decode("utf-8")
    except UnicodeDecodeError:
        return "iso-8859-1"
    return "utf-8"


HeaderTypes: TypeAlias = (
    Headers
    | Mapping[str, str]
    | Mapping[bytes, bytes]
    | Mapping[str, bytes]
    | Iterable[tuple[str, str] | tuple[bytes, bytes] | tuple[str, bytes]]
)
"""What makes Headers."""
