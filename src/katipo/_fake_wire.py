"""What a FakePool's two sides would see of each other on a wire: the request as a server reads it, the response as libcurl
hands it over.

A request's headers are made of the options that libcurl would have been given, so what the handler sees is what a server
would: User-Agent, Accept, the offered codings, Basic credentials, cookies. Nothing here does I/O.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Iterable, Mapping
from time import time
from typing import Any, Final

from .decoding import make_decoder
from .errors import ResponseTooLarge
from .headers import Headers
from .response import Response
from .url import URL

__all__ = [
    "OptionNumbers",
    "body_as_delivered",
    "cookie_lines_after",
    "header_block",
    "header_lines",
    "request_headers",
]

_BASIC: Final = 1  # CURLAUTH_BASIC
_PIECE: Final = 1048576
"""Decoded at a time; arbitrary."""
_BODYLESS: Final = frozenset({204, 304})  # RFC 9110 6.4.1


class OptionNumbers:
    """libcurl's numbers of the options that show on the wire."""

    __slots__ = ("accept_encoding", "cookielist", "httpauth", "httpheader", "password", "useragent", "username")

    def __init__(self, option: Callable[[str], tuple[int, int] | None]) -> None:
        for name in self.__slots__:
            found = option(name.upper())
            setattr(self, name, -1 if found is None else found[0])

    accept_encoding: int
    cookielist: int
    httpauth: int
    httpheader: int
    password: int
    useragent: int
    username: int


# ---------------------------------------------------------------------------------------------------- the request


def request_headers(
    numbers: OptionNumbers, options: Iterable[tuple[int, Any]], url: URL, body: int | None
) -> list[tuple[bytes, bytes]]:
    """The header fields that libcurl would send. `body`: its length, -1 where that is not known, None without one."""
    values: dict[int, Any] = {}
    jar: list[bytes] = []
    for number, value in options:
        if number == numbers.cookielist:
            jar.append(value)
        else:
            values[number] = value
    given: list[tuple[bytes, bytes]] = []
    named: set[bytes] = set()
    for line in values.get(numbers.httpheader, ()):
        name, colon, value = line.partition(b":")
        if not colon:  # "Name;": sent without a value
            name, value = line[:-1], b""
        named.add(name.lower())
        if value or not colon:  # "Name:": not sent
            given.append((name, value.strip()))
    own: list[tuple[bytes, bytes]] = [(b"Host", url.netloc)]
    credentials = _basic(numbers, values, url)
    if credentials is not None:
        own.append((b"Authorization", credentials))
    if (agent := values.get(numbers.useragent)) is not None:
        own.append((b"User-Agent", agent))
    own.append((b"Accept", b"*/*"))
    if (codings := values.get(numbers.accept_encoding)) is not None:
        own.append((b"Accept-Encoding", codings))
    if cookies := _matching(jar, url):
        own.append((b"Cookie", b"; ".join(cookies)))
    fields = [field for field in own if field[0].lower() not in named] + given
    if body is not None:
        fields.append((b"Transfer-Encoding", b"chunked") if body < 0 else (b"Content-Length", b"%d" % body))
    return fields


def _basic(numbers: OptionNumbers, values: Mapping[int, Any], url: URL) -> bytes | None:
    if values.get(numbers.httpauth, _BASIC) != _BASIC:
        return None  # what takes a challenge first
    user, password = values.get(numbers.username), values.get(numbers.password)
    if user is None and (url.username or url.password):
        user, password = url.username.encode(), url.password.encode()
    if user is None and password is None:
        return None
    return b"Basic " + b2a_base64((user or b"") + b":" + (password or b""), newline=False)


# ---------------------------------------------------------------------------------------------------- cookies
# In Netscape format, as libcurl has them: domain, whether it covers its subdomains, path, secure, expiry, name, value.


def _matching(lines: Iterable[bytes], url: URL) -> list[bytes]:
    host, path = url.raw_host, url.raw_path.partition(b"?")[0] or b"/"
    found: list[tuple[int, bytes]] = []
    now = time()
    for line in lines:
        domain, covers, where, secure, expiry, name, value = line.split(b"\t")
        domain = domain.removeprefix(b"#HttpOnly_").lower()
        bare = domain.lstrip(b".")
        here = host == bare or (covers == b"TRUE" and host.endswith(b"." + bare))
        prefix = where.rstrip(b"/") + b"/"
        under = path == where or path.startswith(prefix) or where == b"/"
        if here and under and (secure != b"TRUE" or url.scheme == "https") and not 0 < int(expiry) < now:
            found.append((len(where), name + b"=" + value))
    return [pair for _, pair in sorted(found, key=lambda item: -item[0])]  # RFC 6265 5.4: longer paths first


def cookie_lines_after(
    numbers: OptionNumbers, options: Iterable[tuple[int, Any]], headers: Headers, url: URL
) -> tuple[bytes, ...]:
    """All cookies known after the response: those that were given, and what its Set-Cookie headers change."""
    jar: dict[tuple[bytes, bytes, bytes], bytes] = {}
    for number, value in options:
        if number == numbers.cookielist:
            parts = value.split(b"\t")
            jar[parts[0].removeprefix(b"#HttpOnly_").lstrip(b"."), parts[2], parts[5]] = value
    for value in headers.get_list("set-cookie"):
        key, line = _line_of(value, url)
        if key is not None:
            jar.pop(key, None)
            if line is not None:
                jar[key] = line
    return tuple(jar.values())


def _line_of(header: str, url: URL) -> tuple[tuple[bytes, bytes, bytes] | None, bytes | None]:
    """(key, line) of a Set-Cookie header (RFC 6265 5.2, 5.3); no key: to be ignored; no line: the cookie goes."""
    first, *rest = header.split(";")
    name, equals, value = first.partition("=")
    host, own_path = url.raw_host.decode("ascii"), url.raw_path.partition(b"?")[0].decode("ascii")
    attributes = {key.strip().lower(): text.strip() for key, _, text in (part.partition("=") for part in rest)}
    domain = attributes.get("domain", "").lstrip(".").lower()
    if (
        not equals
        or not name.strip()
        or "\t" in header
        or (domain and host != domain and not host.endswith("." + domain))
    ):
        return None, None
    path = attributes.get("path", "")
    if not path.startswith("/"):
        path = own_path.rpartition("/")[0] or "/"
    expiry = _expiry(attributes)
    fields = (
        ("#HttpOnly_" if "httponly" in attributes else "") + ("." + domain if domain else host),
        "TRUE" if domain else "FALSE",
        path,
        "TRUE" if "secure" in attributes else "FALSE",
        str(expiry),
        name.strip(),
        value.strip(),
    )
    key = ((domain or host).encode(), path.encode(), name.strip().encode())
    return key, None if 0 < expiry <= time() else "\t".join(fields).encode()


def _expiry(attributes: Mapping[str, str]) -> int:
    """Seconds of the epoch; 0: with the session."""
    seconds = attributes.get("max-age")
    if seconds is not None and seconds.lstrip("-").isdigit():
        return max(1, int(time()) + int(seconds)) if int(seconds) > 0 else 1
    if "expires" in attributes:
        from email.utils import parsedate_to_datetime

        try:
            return max(1, int(parsedate_to_datetime(attributes["expires"]).timestamp()))
        except (ValueError, OverflowError):  # no date: as if it were not there
            return 0
    return 0


# ---------------------------------------------------------------------------------------------------- the response


def header_lines(headers: Headers) -> bytes:
    """Fields as lines of a header block."""
    return b"".join(name + b": " + value + b"\r\n" for name, value in headers.raw)


def header_block(response: Response) -> bytes:
    """A response's status line and headers, as libcurl hands them over."""
    phrase = response.reason_phrase.encode("iso-8859-1", "replace")
    start = b"%s %d %s" % (response.http_version.encode("ascii"), response.status_code, phrase)
    return start.rstrip() + b"\r\n" + header_lines(response.headers)


def body_as_delivered(response: Response, *, method: str, decode: bool, limit: int) -> bytes:
    """The body that arrives: none where there can be none; decoded as libcurl would where `decode`; `limit` -1: none.

    Raises DecodingError, ResponseTooLarge.
    """
    if method == "HEAD" or response.status_code in _BODYLESS or response.status_code < 200:
        return b""
    content = response.content
    decoder = make_decoder(response.headers) if decode else None
    if decoder is not None:
        pieces: list[bytes] = []
        size = 0
        decoder.feed(content)
        while decoder.pending:
            pieces.append(decoder.next(_PIECE))
            size += len(pieces[-1])
            if 0 <= limit < size:
                break
        else:
            decoder.finish()
        content = b"".join(pieces)
    if 0 <= limit < len(content):
        raise ResponseTooLarge("the response is larger than max_response_bytes")
    return content
