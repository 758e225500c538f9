"""URLs as RFC 3986 has them, read as browsers do where users meet the difference, strict where that is safer.

What a URL becomes when it is read, so that it says what is sent:
- scheme and host in lower case; a host with other than ASCII in it as IDNA (UTS 46, not transitional);
  percent-encoding in a host undone; IPv4 in any notation as four numbers (WHATWG), IPv6 in its short form (RFC 5952);
- a scheme's default port left out; an empty path "/"; dot segments resolved (RFC 3986 5.2.4; libcurl would do it too);
- in path, query, fragment and userinfo, characters that may not stand there percent-encoded as UTF-8, a stray "%" as
  "%25". Percent-encoding that is there stays as it is.

Refused: control characters (CR, LF, NUL, tab), a backslash in host or path, a port outside 1 to 65535.

Userinfo stays in the URL that libcurl gets, which uses it as the user and password of the request. The fragment is not
sent.
"""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeAlias, TypedDict, cast, final

from ._compat import Unpack
from ._pattern import pattern
from .errors import InvalidURL, UnsupportedProtocol, redact

__all__ = ["URL", "ParamTypes", "encode_params", "prepare"]

Primitive: TypeAlias = str | int | float | bool | None
# Iterable[tuple[...]] would say as much, but a dict is one too (of its keys): mypy then gives up on {"a": 1, "b": ["c"]}.
Pairs: TypeAlias = Sequence[tuple[str, Primitive]] | Iterator[tuple[str, Primitive]] | ItemsView[str, Primitive]
ParamTypes: TypeAlias = str | Mapping[str, Primitive | Sequence[Primitive]] | Pairs

_MAX_LENGTH: Final = 8_000_000
"""libcurl's own bound for a string (CURL_MAX_INPUT_LENGTH)."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = 65535

_CONTROL: Final = pattern(r"[\x00-\x1f\x7f]")
# RFC 3986, appendix B
_PARTS: Final = pattern(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_HOST_PORT: Final = pattern(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
# WHATWG forbidden domain code points; "_" is no host name character either, but is in use.
_BAD_IN_HOST: Final = pattern(r"[\x00-\x20\"#%/:<>?@\[\\\]^`{|}\x7f]")
_NUMBER: Final = pattern(r"0[xX][0-9a-fA-F]*|[0-9]+")

# What is percent-encoded, by the sets of the WHATWG URL standard (as httpx); in each, a "%" that begins no escape.
_STRAY: Final = r"%(?![0-9A-Fa-f]{2})|"
_UNSAFE_PATH: Final = pattern(_STRAY + r"[^\x21\x24-\x3b\x3d\x40-\x5f\x61-\x7a\x7c\x7e]")
_UNSAFE_QUERY: Final = pattern(_STRAY + r"[^\x21\x24-\x3b\x3d\x3f-\x5b\x5d-\x7e]")
_UNSAFE_FRAGMENT: Final = pattern(_STRAY + r"[^\x21\x23-\x3b\x3d\x3f-\x5f\x61-\x7e]")
_UNSAFE_USERINFO: Final = pattern(_STRAY + r"[^A-Za-z0-9\-._~!$%&'()*+,:]")

# The hot path: URLs that are already what they would become, but for an empty path. Lower case, no userinfo, a plain
# port, a host that no notation of IPv4 can be confused with (its last label starts with a letter), or an ordinary IPv4
# address. Escapes and dot segments are looked for apart. Each part ends where the next begins: nothing to backtrack
# into.
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_COMMON: Final = pattern(
    rf"((https?)://(?:(?:[a-z0-9_-]+\.)*[a-z][a-z0-9_-]*|{_OCTET}(?:\.{_OCTET}){{3}})"
    r"(:(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}))?)"
    r"((?:/[!$-;=@-\[\]^_a-z|~]*)?(?:\?[!$-;=?-\[\]-~]*)?)"
    r"(?:#[!#-;=?-\[\]^_a-z{|}~]*)?"
)
_STRAY_PERCENT: Final = pattern(r"%(?![0-9A-Fa-f]{2})")


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8"))


def _resolve_dots(path: str) -> str:
    """RFC 3986 5.2.4, for an absolute path. "%2e" is a dot as well (WHATWG, libcurl)."""
    if "/." not in path and "/%2" not in path:
        return path
    segments: list[str] = []
    parts = path.split("/")[1:]
    for i, part in enumerate(parts):
        plain = part.replace("%2e", ".").replace("%2E", ".")
        if plain not in (".", ".."):
            segments.append(part)
            continue
        if plain == ".." and segments:
            segments.pop()
        if i == len(parts) - 1:
            segments.append("")
    return "/" + "/".join(segments)


def _ipv4(host: str) -> str | None:
    """Four decimal numbers for an IPv4 address in any notation that libcurl and browsers know; None for a name."""
    parts = host.removesuffix(".").split(".")
    if not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    if len(parts) > 4:
        raise InvalidURL("invalid IPv4 address in URL")
    numbers: list[int] = []
    for part in parts:
        try:
            if part[:2] in ("0x", "0X"):
                numbers.append(int(part[2:] or "0", 16))
            else:
                numbers.append(int(part, 8 if part[0] == "0" else 10))
        except ValueError:
            raise InvalidURL("invalid IPv4 address in URL") from None
    *high, low = numbers
    if any(number > 255 for number in high) or low >= 256 ** (4 - len(high)):
        raise InvalidURL("invalid IPv4 address in URL")
    address = low + sum(number << (24 - 8 * i) for i, number in enumerate(high))
    return ".".join(str(byte) for byte in address.to_bytes(4, "big"))


def _ipv6(literal: str) -> str:
    from ipaddress import IPv6Address

    address, percent, zone = literal.partition("%")
    try:
        parsed = IPv6Address(address)
    except ValueError:
        raise InvalidURL("invalid IPv6 address in URL") from None
    # Python writes mapped addresses in one way up to 3.12 and in another from 3.13 on.
    text = f"::ffff:{parsed.ipv4_mapped}" if parsed.ipv4_mapped else str(parsed)
    if not percent:
        return text
    zone = zone.removeprefix("25")  # RFC 6874
    if re.fullmatch(r"[A-Za-z0-9._~-]+", zone) is None:
        raise InvalidURL("invalid IPv6 zone in URL")
    return f"{text}%25{zone}"


@lru_cache(maxsize=256)  # a client talks to few hosts, and IDNA costs about 20 us; the number is arbitrary
def _normalize_host(host: str) -> str:
    """The host as it is sent: ASCII, lower case; an IPv6 address without its brackets. Raises InvalidURL."""
    if host.startswith("["):
        return _ipv6(host[1:-1])
    if "%" in host:
        try:
            host = _unquote(host, errors="strict")
        except UnicodeDecodeError:
            raise InvalidURL("invalid host in URL") from None
    if not host.isascii():
        import idna

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:
            raise InvalidURL("invalid international host name in URL") from None
    host = host.lower()
    if not host or host == "." or _BAD_IN_HOST.search(host):
        raise InvalidURL("invalid host in URL")
    return _ipv4(host) or host


def encode_params(params: ParamTypes) -> str:
    """A query of parameters: form-encoded as httpx does it (True "true", None ""), a str as it is."""
    if isinstance(params, str):
        return params.removeprefix("?")
    items = cast("Iterable[tuple[str, object]]", params.items() if isinstance(params, Mapping) else params)
    pairs: list[tuple[str, str | bytes]] = []
    for key, value in items:
        values = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else [value]
        pairs.extend((key, _param(item)) for item in values)
    from urllib.parse import urlencode

    return urlencode(pairs)


def _param(value: object) -> str | bytes:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value
    return "" if value is None else str(value)


class URLParts(TypedDict, total=False):
    """What URL.copy_with changes. `raw_path` is path and query; `params` becomes the query."""

    scheme: str
    userinfo: str
    username: str | None
    password: str | None
    host: str
    port: int | None
    path: str
    raw_path: str | bytes
    query: str | bytes | None
    params: ParamTypes
    fragment: str


@final
class URL:
    """An absolute http or https URL. Immutable; equal to its str, with the same hash; its repr hides the userinfo.

    `url`: a str or another URL. `params`: added to its query.
    Raises UnsupportedProtocol without a scheme or with another one, InvalidURL for what is malformed, TypeError.
    """

    __slots__ = ("_fragment", "_host", "_path", "_port", "_query", "_scheme", "_text", "_userinfo")
    _text: str
    _scheme: str
    _userinfo: str
    _host: str  # as sent: IDNA, an IPv6 address without brackets
    _port: int | None
    _path: str
    _query: str | None  # None: no "?" at all
    _fragment: str | None

    def __init__(self, url: str | URL, *, params: ParamTypes | None = None) -> None:
        if isinstance(url, URL):
            for name in URL.__slots__:
                setattr(self, name, getattr(url, name))
        elif isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            self._parse(url)
        else:
            raise TypeError(f"url must be str or katipo.URL, not {type(url).__name__}")
        if params is not None and (added := encode_params(params)):
            self._query = f"{self._query}&{added}" if self._query else added
            self._parse(self._join())

    def _parse(self, text: str) -> None:
        if len(text) > _MAX_LENGTH:
            raise InvalidURL("URL is too long")
        if _CONTROL.search(text):
            raise InvalidURL("URL has a control character in it")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidURL("URL has a character in it that is not Unicode text") from None
        match = _PARTS.fullmatch(text)
        assert match is not None  # every string matches
        scheme, authority, path, query, fragment = match.groups()
        self._scheme = _check_scheme(scheme, authority)
        if not authority:
            raise InvalidURL("URL has no host")
        userinfo, _, host_port = authority.rpartition("@")
        # Browsers take a backslash for a slash, other software for a part of the host: nobody may choose.
        if "\\" in authority or "\\" in path:
            raise InvalidURL("URL has a backslash in its host or path")
        self._host, self._port = _split_host(host_port, self._scheme)
        self._userinfo = _UNSAFE_USERINFO.sub(_escape, userinfo)
        self._path = _resolve_dots(_UNSAFE_PATH.sub(_escape, path) or "/")
        self._query = None if query is None else _UNSAFE_QUERY.sub(_escape, query)
        self._fragment = None if fragment is None else _UNSAFE_FRAGMENT.sub(_escape, fragment)
        self._text = self._join()

    def _join(self) -> str:
        userinfo = f"{self._userinfo}@" if self._userinfo else ""
        fragment = "" if self._fragment is None else f"#{self._fragment}"
        return f"{self._scheme}://{userinfo}{self._host_port()}{self._path_query()}{fragment}"

    def _host_port(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return host if self._port is None else f"{host}:{self._port}"

    def _path_query(self) -> str:
        return self._path if self._query is None else f"{self._path}?{self._query}"

    @property
    def scheme(self) -> str:
        """ "http" or "https"."""
        return self._scheme

    @property
    def userinfo(self) -> bytes:
        """User and password, percent-encoded, as b"user:password"; b"" without."""
        return self._userinfo.encode("ascii")

    @property
    def username(self) -> str:
        """The user, decoded; "" without."""
        return _unquote(self._userinfo.partition(":")[0])

    @property
    def password(self) -> str:
        """The password, decoded; "" without."""
        return _unquote(self._userinfo.partition(":")[2])

    @property
    def host(self) -> str:
        """The host for people: international names in Unicode, IPv6 addresses without brackets."""
        if "xn--" in self._host:
            import idna

            try:
                return idna.decode(self._host)
            except idna.IDNAError:
                pass
        return self._host

    @property
    def raw_host(self) -> bytes:
        """The host as it is sent, in ASCII, IPv6 addresses without brackets."""
        return self._host.encode("ascii")

    @property
    def port(self) -> int | None:
        """The port; None if it is the scheme's default."""
        return self._port

    @property
    def netloc(self) -> bytes:
        """host or host:port, as in a Host header."""
        return self._host_port().encode("ascii")

    @property
    def path(self) -> str:
        """The path, decoded."""
        return _unquote(self._path)

    @property
    def query(self) -> bytes:
        """The query, percent-encoded, without "?"."""
        return (self._query or "").encode("ascii")

    @property
    def params(self) -> list[tuple[str, str]]:
        """The query's parameters, decoded."""
        from urllib.parse import parse_qsl

        return parse_qsl(self._query or "", keep_blank_values=True)

    @property
    def raw_path(self) -> bytes:
        """Path and query as they are sent."""
        return self._path_query().encode("ascii")

    @property
    def fragment(self) -> str:
        """The fragment, decoded; "" without. Never sent."""
        return _unquote(self._fragment or "")

    @property
    def origin(self) -> str:
        """scheme://host:port, always with the port: equal for URLs of one origin (RFC 6454)."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{self._scheme}://{host}:{self._port or _DEFAULT_PORTS[self._scheme]}"

    def join(self, url: str | URL) -> URL:
        """The URL that the reference `url` means, seen from this one (RFC 3986 5.2).

        Userinfo stays unless `url` has a host. Raises as URL does.
        """
        if isinstance(url, URL):
            return url
        if _CONTROL.search(url):
            raise InvalidURL("URL has a control character in it")
        match = _PARTS.fullmatch(url)
        assert match is not None
        scheme, authority, path, query, fragment = match.groups()
        if scheme is not None:
            return URL(url)
        if authority is not None:
            return URL(f"{self._scheme}:{url}")
        if not path:
            path = self._path
            query = self._query if query is None else query
        elif not path.startswith("/"):
            path = self._path.rpartition("/")[0] + "/" + path
        userinfo = f"{self._userinfo}@" if self._userinfo else ""
        text = f"{self._scheme}://{userinfo}{self._host_port()}{path}"
        return URL(text + ("" if query is None else f"?{query}") + ("" if fragment is None else f"#{fragment}"))

    def copy_with(self, **parts: Unpack[URLParts]) -> URL:
        """A URL with some parts changed. Parts are given decoded, except `userinfo`, `query` and `raw_path`.

        `username` and `password` None: none. Raises as URL does, TypeError for a name that is no part.
        """
        if unknown := parts.keys() - URLParts.__annotations__.keys():
            raise TypeError(f"copy_with: no such part: {', '.join(sorted(unknown))}")
        new = URL(self)
        new._scheme = parts.get("scheme", self._scheme)
        new._port = parts.get("port", self._port)
        if "host" in parts:
            host = parts["host"]
            new._host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        new._userinfo = _new_userinfo(self, parts)
        if "path" in parts:
            new._path = "/" + _quote(parts["path"]).removeprefix("/")
        if "raw_path" in parts:
            path, mark, query = _ascii(parts["raw_path"]).partition("?")
            new._path, new._query = "/" + path.removeprefix("/"), query if mark else None
        if "query" in parts:
            given = parts["query"]
            new._query = None if given is None else _ascii(given)
        if "params" in parts:
            new._query = encode_params(parts["params"]) or None
        if "fragment" in parts:
            new._fragment = _quote(parts["fragment"]) or None
        if re.search(r"[/?#@\\]", new._host) or re.search(r"[/?#@\\]", new._userinfo) or "#" in new._path_query():
            raise InvalidURL("copy_with: a part has a character in it that ends it")
        return URL(new._join())

    def redacted(self) -> str:
        """The URL for a log: without userinfo, and without the values of query parameters named like a key or token."""
        return redact(self._text)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"URL({self.redacted()!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, URL):
            return self._text == other._text
        if isinstance(other, str):
            return self._text == other
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[type[URL], tuple[str]]:
        return URL, (self._text,)


def _ascii(part: str | bytes) -> str:
    return part.decode("ascii") if isinstance(part, bytes) else part


def _unquote(part: str, errors: str = "replace") -> str:
    if "%" not in part:
        return part
    from urllib.parse import unquote

    return unquote(part, errors=errors)


def _quote(part: str, safe: str = "/!$&'()*+,;=:@~") -> str:
    """A part that was given decoded: its "%" means itself."""
    from urllib.parse import quote

    return quote(part, safe=safe)


def _new_userinfo(url: URL, parts: URLParts) -> str:
    if "userinfo" in parts:
        return _UNSAFE_USERINFO.sub(_escape, parts["userinfo"])
    if "username" not in parts and "password" not in parts:
        return url.userinfo.decode("ascii")
    username = parts.get("username", url.username) or ""
    password = parts.get("password", url.password) or ""
    text = _quote(username, safe="")
    return f"{text}:{_quote(password, safe='')}" if password else text


def _check_scheme(scheme: str | None, authority: str | None) -> str:
    if scheme is None or (authority is None and scheme.lower() not in _DEFAULT_PORTS):
        raise UnsupportedProtocol("URL has no scheme: it must begin with http:// or https://")
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        raise UnsupportedProtocol("URL has a scheme other than http and https")
    return scheme


def _split_host(host_port: str, scheme: str) -> tuple[str, int | None]:
    match = _HOST_PORT.fullmatch(host_port)
    if match is None:
        raise InvalidURL("invalid host or port in URL")
    host, digits = match.groups()
    if not host:
        raise InvalidURL("URL has no host")
    host = _normalize_host(host)
    if not digits:
        return host, None
    # Longer than any port with zeros before it that somebody may have meant: int() of a very long text is slow.
    port = int(digits) if len(digits) <= 10 else 0
    if not 1 <= port <= _MAX_PORT:
        raise InvalidURL("invalid port in URL: it must be between 1 and 65535")
    return host, None if port == _DEFAULT_PORTS[scheme] else port


def effective_url(raw: bytes) -> URL:
    """The URL that libcurl reports, in which what a URL may not hold is percent-encoded first. Raises as URL does."""
    text = re.sub(rb"[\x00-\x20\\\x7f-\xff]", lambda match: b"%%%02X" % match[0][0], raw)
    return URL(text.decode("ascii"))


def _has_plain_escapes(url: str) -> bool:
    return "/%2" not in url and _STRAY_PERCENT.search(url) is None


def prepare(url: str | URL) -> tuple[bytes, bytes]:
    """What the engine needs of a URL: (URL for libcurl, without fragment; origin as b"scheme://host:port").

    Raises as URL does.
    """
    if isinstance(url, str) and "/." not in url and ("%" not in url or _has_plain_escapes(url)):
        match = _COMMON.fullmatch(url)
        if match is not None:
            origin, scheme, port, path = match.groups()
            sent = origin + path if path[:1] == "/" else f"{origin}/{path}"
            if port is None:
                origin += ":443" if scheme == "https" else ":80"
            return sent.encode("ascii"), origin.encode("ascii")
    if not isinstance(url, URL):
        url = URL(url)
    return str(url).partition("#")[0].encode("ascii"), url.origin.encode("ascii")
