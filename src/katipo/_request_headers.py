"""A request's headers and body as the caller gave them: checked, and turned into the lines and the framing libcurl is
given.

libcurl passes header lines on as they are, CR and LF included, and sends a caller's Content-Length beside its own
Transfer-Encoding; so names and values are checked here, and the message's framing is never left to a caller's line:
those headers are read, compared with the body, and dropped (RFC 9112 section 6).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias, cast

from ._curl_options import LONG_MAX, Problems, Refused, kind_of
from ._frozen import dataclass
from ._pattern import pattern
from .errors import BadOptions
from .headers import Headers

Header: TypeAlias = tuple[bytes, bytes, bytes | None]
"""(name as given, name in lower case, value or None where the header is not to be sent)"""

FORM_TYPE: Final = b"application/x-www-form-urlencoded"

# RFC 9110 section 5.6.2.
_TOKEN: Final = pattern(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# As in headers.py: every control character but HTAB (RFC 9110 section 5.5).
_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_DIGITS: Final = pattern(rb"[0-9]{1,19}")

_EXPECT_CONTENT: Final = frozenset((b"POST", b"PUT", b"PATCH"))
"""Methods sent with "Content-Length: 0" where there is no body, as httpx does (RFC 9110 section 8.6)."""

_CONNECTION: Final = frozenset((b"close", b"keep-alive", b"te"))
"""What a caller may ask of a connection. "upgrade" is not among it: katipo could not speak the other protocol."""

_TAKEN: Final = frozenset(
    (
        b"accept-encoding",
        b"connection",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"transfer-encoding",
        b"user-agent",
    )
)
"""Names that mean something to `frame`; all others are passed on."""

_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding"))

NO_EXPECT: Final = b"Expect:"
"""Keeps libcurl from waiting a second for a "100 Continue" that many servers never send."""

NO_TYPE: Final = b"Content-Type:"
"""Keeps libcurl from calling every POST a form."""


PLAIN_LINES: Final = [NO_EXPECT, NO_TYPE]


@dataclass(frozen=True, slots=True)
class Body:
    data: bytes
    is_form: bool


@dataclass(frozen=True, slots=True)
class Framing:
    """What headers and body come to."""

    lines: list[bytes]
    """For HTTPHEADER: without User-Agent and Accept-Encoding where the caller said nothing of them."""
    headers: list[tuple[bytes, bytes]]
    """As the caller gave them, those with None left out, a form's Content-Type added: for the Request."""
    body: bytes | None
    declared_length: int
    own_agent: bool
    own_accept: bool


# ------------------------------------------------------------------------------------------------ checks


@lru_cache(maxsize=512)  # Arbitrary: programs use few names; the entries are small.
def _checked_name(name: bytes) -> bytes | None:
    """The name in lower case, None where it is no token."""
    return name.lower() if _TOKEN.fullmatch(name) else None


def _name_refused(name: bytes) -> str:
    """Shows a bad name up to its first bad character: what follows may be a value that slipped in."""
    start = _TOKEN.match(name)
    shown = start[0][:60].decode("ascii") if start else ""
    if name.startswith(b":"):
        return "a pseudo-header is not the caller's to set"
    return f"the name beginning {shown!r} is not a valid header name" if shown else "a name is not a valid header name"


def _encoded(value: object) -> bytes | None:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            return None
    return bytes(value) if isinstance(value, bytes) else None


def checked_headers(value: object) -> list[Header] | None:
    """Headers from a mapping or an iterable of pairs; None where there are none."""
    pairs = _pairs(value, "headers")
    headers: list[Header] = []
    wrong: list[str] = []
    for name, content in pairs:
        raw = _encoded(name)
        if raw is None:
            wrong.append(f"a name must be str or bytes, not {kind_of(name)}")
            continue
        lower = _checked_name(raw)
        if lower is None:
            wrong.append(_name_refused(raw))
            continue
        if content is None:
            headers.append((raw, lower, None))
            continue
        data = _encoded(content)
        if data is None:
            wrong.append(
                f"the value of {raw[:60].decode('ascii')!r} must be str, bytes or None, not {kind_of(content)}"
            )
        elif _FORBIDDEN.search(data):
            wrong.append(
                f"the value of {raw[:60].decode('ascii')!r} must not contain CR, LF, NUL or other control characters"
            )
        else:
            headers.append((raw, lower, data.strip(b" \t")))
    if wrong:
        raise Refused("; ".join(wrong))
    return headers or None


def addable_headers(value: object) -> list[Header]:
    """Headers that somebody else adds to a request whose framing is settled. Raises BadOptions for what cannot be added."""
    try:
        headers = checked_headers(value) or []
    except Refused as refused:
        raise BadOptions(f"headers: {refused.text}") from None
    for name, lower, content in headers:
        if content is None or lower in _TAKEN:
            what = "take" if content is None else "add"
            raise BadOptions(f"headers: {name[:60].decode('ascii')!r} is not an observer's to {what}")
    return headers


def with_lines(lines: Sequence[bytes], added: Iterable[Header]) -> list[bytes]:
    """A request's lines for HTTPHEADER, and those of further headers whose names it does not have."""
    known = {re.split(rb"[:;]", line, maxsplit=1)[0].lower() for line in lines}
    return [*lines, *(_line(name, value) for name, lower, value in added if lower not in known)]


def _line(name: bytes, value: bytes | None) -> bytes:
    # libcurl sends "Name:" not at all, and "Name;" with no value.
    return name + b":" if value is None else name + b": " + value if value else name + b";"


def _pairs(value: object, what: str) -> Iterable[tuple[object, object]]:
    if isinstance(value, Mapping):
        if isinstance(value, Headers):
            return cast("Iterable[tuple[object, object]]", value.raw)
        # A multi-valued mapping, such as httpx.Headers, gives every value; items() may join them.
        several = getattr(cast(Any, value), "multi_items", None)
        return cast("Iterable[tuple[object, object]]", several() if callable(several) else value.items())
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise Refused(f"must be a mapping or an iterable of pairs, not {kind_of(cast(Any, value))}")
    pairs: list[tuple[object, object]] = []
    for item in cast("Iterable[object]", value):
        if not isinstance(item, (tuple, list)) or len(cast("list[object]", item)) != 2:
            raise Refused(f"every item of {what} must be a pair")
        pairs.append((cast("list[object]", item)[0], cast("list[object]", item)[1]))
    return pairs


def checked_body(value: object) -> Body:
    """Bytes of a body: as they are, a str's as UTF-8, or a form's."""
    if isinstance(value, bytes):
        return Body(value, False)
    if isinstance(value, str):
        try:
            return Body(value.encode(), False)
        except UnicodeEncodeError:
            raise Refused("is not encodable as UTF-8") from None
    if not isinstance(value, Mapping):
        try:
            return Body(memoryview(cast(Any, value)).tobytes(), False)
        except TypeError:
            pass
        if not isinstance(value, Iterable):
            raise Refused(f"must be bytes, str, a mapping or an iterable of pairs, not {kind_of(cast(Any, value))}")
    return Body(_form(_pairs(cast(Any, value), "a form")), True)


def _form(pairs: Iterable[tuple[object, object]]) -> bytes:
    fields: list[tuple[str | bytes, str | bytes]] = []
    for key, value in pairs:
        name = _form_text(key)
        many: Sequence[object] = (value,)
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview)):
            many = cast("Sequence[object]", value)
        fields.extend((name, _form_text(item)) for item in many)
    from urllib.parse import urlencode

    try:
        return urlencode(fields).encode("ascii")
    except UnicodeEncodeError:
        raise Refused("a form's key or value is not encodable as UTF-8") from None


def _form_text(value: object) -> str | bytes:
    """As httpx writes a form's primitive values."""
    if isinstance(value, (str, bytes)):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise Refused(f"a form's keys and values must be str, bytes, int, float, bool or None, not {kind_of(value)}")


# ------------------------------------------------------------------------------------------------ framing


def frame(
    headers: list[Header] | None, body: Body | None, *, stream_body: bool, method: bytes, problems: Problems
) -> Framing:
    """Turn checked headers and body into lines for libcurl; what contradicts itself goes to `problems`."""
    if headers is None and body is None:
        data = b"" if not stream_body and method in _EXPECT_CONTENT else None
        return Framing(PLAIN_LINES, [], data, -1, False, False)
    lines: list[bytes] = []
    shown: list[tuple[bytes, bytes]] = []
    seen: dict[bytes, list[bytes | None]] = {}
    for name, lower, value in headers or ():
        if lower in _TAKEN:
            seen.setdefault(lower, []).append(value)
        if value is not None:
            shown.append((name, value))
        if lower not in _FRAMING:
            lines.append(_line(name, value))
    data = None if body is None else body.data
    if data is None and not stream_body and method in _EXPECT_CONTENT:
        data = b""
    declared = -1
    if seen:
        declared = _declared(seen, data, stream_body, problems)
        _check_single(seen, problems)
        if declared == 0 and data is None and not stream_body:
            data = b""
    if b"expect" not in seen:
        lines.append(NO_EXPECT)
    if b"content-type" not in seen:
        if body is not None and body.is_form:
            lines.append(b"Content-Type: " + FORM_TYPE)
            shown.append((b"Content-Type", FORM_TYPE))
        else:
            lines.append(NO_TYPE)
    own_agent, own_accept = b"user-agent" in seen, b"accept-encoding" in seen
    return Framing(lines, shown, data, declared if stream_body else -1, own_agent, own_accept)


def _check_single(seen: Mapping[bytes, list[bytes | None]], problems: Problems) -> None:
    if len(seen.get(b"host", ())) > 1:
        problems.add("headers: Host is given more than once")
    for value in seen.get(b"connection", ()):
        if value and not _CONNECTION.issuperset(option.strip(b" \t").lower() for option in value.split(b",")):
            problems.add("headers: Connection may only say close, keep-alive or TE")


def _declared(
    seen: Mapping[bytes, list[bytes | None]], data: bytes | None, stream_body: bool, problems: Problems
) -> int:
    """The length that a Content-Length header gives, -1 where there is none; offences of either framing header."""
    lengths = seen.get(b"content-length")
    codings = seen.get(b"transfer-encoding")
    has_body = stream_body or bool(data)
    if codings is not None:
        if lengths is not None:
            problems.add("headers: Content-Length with Transfer-Encoding")
        if codings == [None]:
            if has_body:
                problems.add("headers: Transfer-Encoding of a body cannot be taken away")
        elif len(codings) > 1 or codings[0] is None or codings[0].lower() != b"chunked":
            problems.add('headers: Transfer-Encoding may only be "chunked"')
        elif not stream_body:
            problems.add("headers: Transfer-Encoding requires stream_body")
    if lengths is None:
        return -1
    if len(lengths) > 1:
        problems.add("headers: Content-Length is given more than once")
        return -1
    text = lengths[0]
    if text is None:
        if has_body:
            problems.add("headers: Content-Length of a body cannot be taken away")
        return -1
    if not _DIGITS.fullmatch(text) or int(text) > LONG_MAX:
        problems.add("headers: Content-Length is not a length")
        return -1
    length = int(text)
    if not stream_body and length != len(data or b""):
        problems.add("headers: Content-Length is not the length of the body")
    return length
