"""Requests as values: what was asked for, for responses and errors to carry.

Nothing is sent from here. A request that the pool makes keeps what its caller passed and builds URL and Headers when
somebody looks: most never do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias, cast

from ._compat import Buffer
from ._pattern import pattern
from .errors import BadOptions
from .headers import Headers, HeaderTypes
from .url import URL

__all__ = ["Request", "RequestContent", "check_method"]

RequestContent: TypeAlias = "Buffer | str"

_METHODS: Final = {
    method: method.encode("ascii") for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
}
_TOKEN: Final = pattern(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 9.1


def check_method(method: str, *, has_body: bool = False) -> bytes:
    """The method as it is sent: in upper case, as httpx does it (RFC 9110 9.1 has methods case-sensitive).

    `has_body`: the request has, or will stream, content. Raises BadOptions for what is no token; for CONNECT, whose
    answer is a tunnel (RFC 9110 9.3.6) and which libcurl makes itself where there is a proxy; for TRACE with content
    (9.3.8).
    """
    known = _METHODS.get(method) if isinstance(method, str) else None  # pyright: ignore[reportUnnecessaryIsInstance]
    if known is not None:
        return known
    if not isinstance(method, str) or _TOKEN.fullmatch(method) is None:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadOptions("method: must be a token, such as GET")
    method = method.upper()
    if method == "CONNECT":
        raise BadOptions("method: CONNECT cannot be sent as a request; use the option proxy")
    if method == "TRACE" and has_body:
        raise BadOptions("method: TRACE cannot have a body")
    return method.encode("ascii")


class Request:
    """A request. Pickles; its repr shows no credential and no content.

    `method`: in any case. `headers`: as for Headers. `content`: bytes-like or str (UTF-8), copied; None: no body.
    Raises BadOptions for a method, InvalidURL and UnsupportedProtocol for a URL that cannot be sent.
    """

    __slots__ = ("_content", "_headers", "_method", "_streamed", "_url")
    _method: str
    _streamed: bool
    _url: URL | str
    _headers: Headers | HeaderTypes | None
    _content: Buffer | None

    def __init__(
        self,
        method: str,
        url: str | URL,
        *,
        headers: HeaderTypes | None = None,
        content: RequestContent | None = None,
    ) -> None:
        self._method = check_method(method, has_body=content is not None).decode("ascii")
        self._url = url if isinstance(url, URL) else URL(url)
        self._headers = Headers(headers)
        self._content = content.encode("utf-8") if isinstance(content, str) else _copied(content)
        self._streamed = False

    @classmethod
    def _trusted(
        cls, method: str, url: str | URL, headers: HeaderTypes | None = None, content: Buffer | None = None
    ) -> Request:
        """A request whose parts have been checked, built when looked at. Pairs must not be a one-shot iterator.

        `method`: in upper case. Header values of None, which the pool takes for "do not send", are left out.
        """
        self = cls.__new__(cls)
        self._method = method
        self._url = url
        self._headers = headers
        self._content = content
        self._streamed = False
        return self

    @classmethod
    def _of_client(cls, method: str, url: URL, headers: Headers, content: bytes | None, has_body: bool) -> Request:
        """A client's request, with headers of its own for hooks and auth flows to change."""
        self = cls._trusted(method, url, headers.copy(), content)
        self._streamed = has_body and content is None
        return self

    @property
    def method(self) -> str:
        """The method, in upper case."""
        return self._method

    @property
    def url(self) -> URL:
        """The URL."""
        if not isinstance(self._url, URL):
            self._url = URL(self._url)
        return self._url

    @property
    def headers(self) -> Headers:
        """The headers given by the caller; libcurl adds its own when sending."""
        if not isinstance(self._headers, Headers):
            self._headers = Headers(_without_none(self._headers))
        return self._headers

    @property
    def content(self) -> bytes | None:
        """The body; None for none, and where it is streamed."""
        if self._content is not None and not isinstance(self._content, bytes):
            self._content = _copied(self._content)
        return self._content

    @property
    def is_streamed(self) -> bool:
        """Whether there is a body that `content` does not have: it comes from a file or an iterable."""
        return self._streamed

    def __repr__(self) -> str:
        return f"<Request({self._method!r}, {self.url.redacted()!r})>"

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self._method, str(self._url), self.headers, self.content, self._streamed)


def _restore(
    cls: type[Request], method: str, url: str, headers: Headers, content: bytes | None, streamed: bool
) -> Request:
    self = cls._trusted(method, url, headers, content)  # pyright: ignore[reportPrivateUsage]
    self._streamed = streamed  # pyright: ignore[reportPrivateUsage]
    return self


def _copied(content: Buffer | None) -> bytes | None:
    return None if content is None else bytes(content)


def _without_none(headers: HeaderTypes | None) -> HeaderTypes | None:
    if headers is None:
        return None
    pairs = cast("Iterable[tuple[str, str | None]]", headers.items() if isinstance(headers, Mapping) else headers)
    return [(name, value) for name, value in pairs if value is not None]


RequestParts: TypeAlias = tuple[str, str | URL, HeaderTypes | None, Buffer | None]
"""The arguments of request_from_parts, for a request that is made when somebody looks at it."""

request_from_parts: Final = Request._trusted  # pyright: ignore[reportPrivateUsage]
"""Request._trusted, for the pool."""

client_request: Final = Request._of_client  # pyright: ignore[reportPrivateUsage]
"""Request._of_client, for the clients."""
