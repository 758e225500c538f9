"""Responses as values. One from the engine keeps what the engine gave and takes it apart when somebody looks."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Any, Final

from ._compat import Self
from ._pattern import pattern
from .cookies import CookieJar, ResponseCookies, jar_from_lines, response_cookies
from .errors import HTTPStatusError, ResponseNotRead
from .headers import Headers, HeaderTypes
from .metrics import Metrics
from .request import Request, RequestParts, request_from_parts
from .url import URL, effective_url

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["Response"]

_CHARSET: Final = pattern(r""";\s*charset\s*=\s*["']?([^\s"';]+)""", re.IGNORECASE)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_KINDS: Final = {1: "Informational response", 3: "Redirect response", 4: "Client error", 5: "Server error"}


_NO_CHARSETS: Final = ("idna", "punycode")
"""Codecs that make text, but of one name at a time: they can neither replace what is wrong nor decode in pieces."""


def known_text_encoding(name: str) -> bool:
    try:
        # Says no to codecs that do not make text (base64, rot13), unlike codecs.lookup.
        "".encode(name)
        return codecs.lookup(name).name not in _NO_CHARSETS
    except (LookupError, ValueError):
        return False


class Response:
    """A response, read to its end.

    By hand: at most one of `content` (bytes, or str as UTF-8), `text` (with a text/plain Content-Type) and `json`
    (anything but None, with an application/json one). Raises TypeError for more.
    """

    # What every response has stands in slots; the rest has its default in the class, and costs nothing until it is set.
    __slots__ = (
        "__dict__",
        "_block",
        "_content",
        "_cookiejar",
        "_metrics",
        "_request",
        "_trailers",
        "_url",
        "status_code",
    )
    status_code: int
    _block: bytes  # the headers as received, status line included; b"" by hand
    _headers: Headers | None = None  # None: still to be read from the block
    _content: bytes | None  # None: not read to its end
    _trailers: Headers | bytes | None
    _metrics: Metrics | bytes | None
    _cookiejar: CookieJar | tuple[bytes, ...] | None
    _url: URL | bytes | None  # None: the request's own
    _request: Request | RequestParts | None
    _history: list[Response] | None = None
    _cookies: ResponseCookies | None = None
    _encoding: str | None = None
    _default_encoding: str = "utf-8"
    _text: str | None = None

    def __init__(
        self,
        status_code: int,
        *,
        headers: HeaderTypes | None = None,
        content: bytes | str | None = None,
        text: str | None = None,
        json: Any = None,
        request: Request | None = None,
    ) -> None:
        if sum(part is not None for part in (content, text, json)) > 1:
            raise TypeError("Response takes only one of content, text and json")
        fields = Headers(headers)
        content_type = None
        if text is not None:
            content, content_type = text, "text/plain; charset=utf-8"
        elif json is not None:
            from json import dumps

            content = dumps(json, ensure_ascii=False, separators=(",", ":"))
            content_type = "application/json"
        if content_type is not None and "content-type" not in fields:
            fields["Content-Type"] = content_type
        self.status_code = int(status_code)
        self._block = b""
        self._headers = fields
        self._content = content.encode("utf-8") if isinstance(content, str) else bytes(content or b"")
        self._trailers = Headers()
        self._metrics = Metrics()
        self._cookiejar = None
        self._url = None
        self._request = request

    @classmethod
    def _from_engine(
        cls,
        request: Request | RequestParts | None,
        status_code: int,
        block: bytes,
        content: bytes | None,
        trailers: bytes | None,
        cookies: tuple[bytes, ...] | None,
        url: bytes | None,
        metrics: bytes | None,
    ) -> Self:
        """A response of the engine's own parts. `content`, `trailers`, `metrics` None: the body has not ended yet.

        `url` None: the request's own. `cookies` None: no cookiejar.
        """
        self = cls.__new__(cls)
        self._request = request
        self.status_code = status_code
        self._block = block
        self._content = content
        self._trailers = trailers
        self._cookiejar = cookies
        self._url = url
        self._metrics = metrics
        return self

    @property
    def headers(self) -> Headers:
        """The headers of the final response, as received."""
        if self._headers is None:
            self._headers = Headers.from_block(self._block)
        return self._headers

    def _status_line(self) -> list[bytes]:
        return self._block.partition(b"\n")[0].strip().split(None, 2)

    @property
    def http_version(self) -> str:
        """ "HTTP/1.0", "HTTP/1.1", "HTTP/2" or "HTTP/3"."""
        words = self._status_line()
        return words[0].decode("ascii", "replace") if words else "HTTP/1.1"

    @property
    def reason_phrase(self) -> str:
        """The reason in an HTTP/1 status line; where there is none, the standard phrase for the status, or ""."""
        words = self._status_line()
        if len(words) > 2:
            return words[2].decode("iso-8859-1")
        try:
            from http import HTTPStatus

            return HTTPStatus(self.status_code).phrase
        except ValueError:
            return ""

    @property
    def content(self) -> bytes:
        """The body, decoded unless the request said `decode=False`. Raises ResponseNotRead before it has ended."""
        if self._content is None:
            raise ResponseNotRead("the body of this response has not been read to its end")
        return self._content

    def read(self) -> bytes:
        """`content`: for code that is also given streamed responses, whose `read` it is, such as event hooks."""
        return self.content

    async def aread(self) -> bytes:
        """The same, for asynchronous code."""
        return self.content

    @property
    def charset_encoding(self) -> str | None:
        """The charset that Content-Type names; None if it names none, or one that Python does not know."""
        match = _CHARSET.search(self.headers.get("content-type", ""))
        return match[1] if match is not None and known_text_encoding(match[1]) else None

    @property
    def encoding(self) -> str:
        """What `text` is decoded with: what was set, else Content-Type's charset, else UTF-8.

        Setting it raises ValueError once `text` has been read, LookupError for an encoding that Python does not know.
        """
        if self._encoding is None:
            self._encoding = self.charset_encoding or self._default_encoding
        return self._encoding

    @encoding.setter
    def encoding(self, value: str) -> None:
        if self._text is not None:
            raise ValueError("encoding must be set before text is read")
        if not known_text_encoding(value):
            raise LookupError(f"unknown encoding: {value}")
        self._encoding = value

    @property
    def text(self) -> str:
        """The body as text; what does not decode is replaced by U+FFFD. Raises ResponseNotRead as `content` does."""
        if self._text is None:
            self._text = self.content.decode(self.encoding, "replace")
        return self._text

    def json(self, **kwargs: Any) -> Any:
        """The body as JSON (UTF-8, UTF-16 or UTF-32); `kwargs` go to json.loads. Raises ValueError for what is none."""
        from json import loads

        return loads(self.content, **kwargs)

    @property
    def cookies(self) -> ResponseCookies:
        """The cookies this response sets, value by name: of those with one name the last, also if it deletes."""
        if self._cookies is None:
            self._cookies = response_cookies(self.headers.get_list("set-cookie"))
        return self._cookies

    @property
    def cookiejar(self) -> CookieJar | None:
        """All cookies known after this request, to be given to the next one; None from a client."""
        if isinstance(self._cookiejar, tuple):
            self._cookiejar = jar_from_lines(self._cookiejar)
        return self._cookiejar

    @property
    def url(self) -> URL:
        """The URL that answered, after redirects that libcurl followed. Raises RuntimeError without a request."""
        if self._url is None:
            return self.request.url
        if isinstance(self._url, bytes):
            self._url = effective_url(self._url)
        return self._url

    @property
    def request(self) -> Request:
        """The request that this answers. Raises RuntimeError if it was made by hand without one; may be set then."""
        if isinstance(self._request, tuple):
            self._request = request_from_parts(*self._request)
        if self._request is None:
            raise RuntimeError("this response was made without a request")
        return self._request

    @request.setter
    def request(self, value: Request) -> None:
        self._request = value

    @property
    def history(self) -> list[Response]:
        """The redirects that a client followed to come here, oldest first. Empty from the pool."""
        if self._history is None:
            self._history = []
        return self._history

    @property
    def trailers(self) -> Headers:
        """The trailer fields (RFC 9110 6.5). Raises ResponseNotRead before the body has ended."""
        if isinstance(self._trailers, bytes):
            self._trailers = Headers.from_block(self._trailers)
        if self._trailers is None:
            raise ResponseNotRead("the trailers of a response are known when its body has been read to its end")
        return self._trailers

    @property
    def metrics(self) -> Metrics:
        """The measurements of the transfer. Raises ResponseNotRead before the body has ended."""
        if isinstance(self._metrics, bytes):
            self._metrics = Metrics.unpack(self._metrics)
        if self._metrics is None:
            raise ResponseNotRead("the metrics of a response are known when its body has been read to its end")
        return self._metrics

    @property
    def elapsed(self) -> timedelta:
        """From submission to the end of the body, waiting included. Raises ResponseNotRead as `metrics` does."""
        from datetime import timedelta

        return timedelta(seconds=self.metrics.queue_time + self.metrics.total_time)

    @property
    def is_informational(self) -> bool:
        """1xx."""
        return 100 <= self.status_code <= 199

    @property
    def is_success(self) -> bool:
        """2xx."""
        return 200 <= self.status_code <= 299

    @property
    def is_redirect(self) -> bool:
        """3xx, with or without a place to go."""
        return 300 <= self.status_code <= 399

    @property
    def is_client_error(self) -> bool:
        """4xx."""
        return 400 <= self.status_code <= 499

    @property
    def is_server_error(self) -> bool:
        """5xx."""
        return 500 <= self.status_code <= 599

    @property
    def is_error(self) -> bool:
        """4xx or 5xx."""
        return 400 <= self.status_code <= 599

    @property
    def has_redirect_location(self) -> bool:
        """A 301, 302, 303, 307 or 308 with a Location."""
        return self.status_code in _REDIRECTS and "location" in self.headers

    def raise_for_status(self) -> Self:
        """Return the response itself. Raises HTTPStatusError for a status outside 2xx."""
        if self.is_success:
            return self
        kind = _KINDS.get(self.status_code // 100, "Unexpected status")
        message = f"{kind} '{self._status()}'"
        if self._request is not None or self._url is not None:
            message += f" for url '{self.url.redacted()}'"
        if self.has_redirect_location:
            message += f"\nRedirect location: '{self.headers['location']}'"
        request = None if self._request is None else self.request
        raise HTTPStatusError(message, request=request, response=self)

    def _status(self) -> str:
        return f"{self.status_code} {self.reason_phrase}".rstrip()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{self._status()}]>"

    def _complete(self, *, content: bytes, trailers: Headers | bytes, metrics: Metrics | bytes) -> None:
        """Give a response made before its body had ended what was missing."""
        self._content = content
        self._trailers = trailers
        self._metrics = metrics

    def _adopt(self, *, history: list[Response] | None = None, default_encoding: str = "utf-8") -> None:
        """Make a pool's response a client's: with its history, without a cookiejar."""
        self._cookiejar = None
        if history:
            self._history = history
        if default_encoding != "utf-8":
            self._default_encoding = default_encoding


def sets_cookies(response: Response) -> bool:
    """Whether a response of the engine may have a Set-Cookie field. Asked of every response: nothing is parsed."""
    headers = response._headers  # pyright: ignore[reportPrivateUsage]
    if headers is None:
        return b"set-cookie" in response._block.lower()  # pyright: ignore[reportPrivateUsage]
    return "set-cookie" in headers


# What the pool and the clients call.
response_from_engine: Final = Response._from_engine  # pyright: ignore[reportPrivateUsage]
complete_response: Final = Response._complete  # pyright: ignore[reportPrivateUsage]
adopt_response: Final = Response._adopt  # pyright: ignore[reportPrivateUsage]
