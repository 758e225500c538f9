"""Cookies as values: the opaque jar that libcurl hands from one request to the next, and those a response sets.

Nothing here matches cookies to URLs: libcurl does that. No repr shows a value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from .errors import BadOptions

__all__ = ["CookieJar", "ResponseCookies", "cookie_lines", "parse_set_cookie"]

_TABS: Final = 6  # domain, subdomains, path, secure, expiry, name, value


@final
class CookieJar:
    """An immutable set of cookies, as a response left it: pass it as `cookiejar` to a later request.

    `lines`: cookies in Netscape format, seven fields with tabs between (CURLOPT_COOKIELIST).
    Raises BadOptions for a line that is not one; libcurl would take some of those as commands.
    """

    __slots__ = ("_lines",)
    _lines: tuple[bytes, ...]

    def __init__(self, lines: Iterable[bytes] = ()) -> None:
        checked = tuple(bytes(line) for line in lines)
        for line in checked:
            if line.count(b"\t") != _TABS or any(c in line for c in (b"\r", b"\n", b"\0")):
                raise BadOptions("cookiejar: a line is not a cookie in Netscape format")
        self._lines = checked

    @classmethod
    def _from_engine(cls, lines: tuple[bytes, ...]) -> CookieJar:
        jar = cls.__new__(cls)
        jar._lines = lines
        return jar

    def __len__(self) -> int:
        return len(self._lines)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CookieJar):
            return NotImplemented
        return self._lines == other._lines

    def __hash__(self) -> int:
        return hash((CookieJar, self._lines))

    def __repr__(self) -> str:
        count = len(self._lines)
        return f"<CookieJar [{count} {'cookie' if count == 1 else 'cookies'}]>"

    def __reduce__(self) -> tuple[type[CookieJar], tuple[tuple[bytes, ...]]]:
        return CookieJar, (self._lines,)


def cookie_lines(jar: CookieJar) -> tuple[bytes, ...]:
    """The jar's cookies as libcurl's COOKIELIST takes them."""
    return jar._lines  # pyright: ignore[reportPrivateUsage]


def jar_from_lines(lines: tuple[bytes, ...]) -> CookieJar:
    """A jar of lines that come from libcurl, which are not checked again."""
    return CookieJar._from_engine(lines)  # pyright: ignore[reportPrivateUsage]


class ResponseCookies(dict[str, str]):
    """The cookies that a response sets, value by name. The repr shows names only."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<ResponseCookies [{', '.join(self)}]>"


def parse_set_cookie(value: str) -> tuple[str, str] | None:
    """Name and value of a Set-Cookie header, as RFC 6265 5.2 reads it; None where it is to be ignored."""
    name, sep, rest = value.partition(";")[0].partition("=")
    name = name.strip(" \t")
    return (name, rest.strip(" \t")) if sep and name else None


def response_cookies(values: Iterable[str]) -> ResponseCookies:
    """The cookies of a response's Set-Cookie headers; of those with the same name, the last."""
    return ResponseCookies(pair for pair in map(parse_set_cookie, values) if pair is not None)
