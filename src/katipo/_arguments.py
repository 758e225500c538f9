"""The arguments of a client's calls: their types for checkers, their names at run time.

Annotations are evaluated here, as in `_request_options`.
"""

import os
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict

from ._compat import Buffer
from ._request_options import CurlOptions, FormField, FormPairs, HeaderOptions
from .auth import Auth
from .config import TLS, Limits, Timeout
from .cookie_store import Cookies
from .errors import BadOptions
from .headers import Headers
from .request import Request
from .url import URL, ParamTypes

if TYPE_CHECKING:
    from .pool import Pool

__all__ = [
    "AsyncClientOptions",
    "AsyncExchangeOptions",
    "ClientArguments",
    "ClientOptions",
    "DownloadOptions",
    "EventHooks",
    "ExchangeOptions",
    "OneOffOptions",
    "check_names",
]

Content: TypeAlias = Buffer | str | os.PathLike[str] | os.PathLike[bytes] | IO[bytes] | Iterable[Buffer]
AsyncContent: TypeAlias = Content | AsyncIterable[Buffer]
FileContent: TypeAlias = Buffer | str | IO[bytes] | os.PathLike[str] | os.PathLike[bytes]
FileType: TypeAlias = (
    FileContent
    | tuple[str | None, FileContent]
    | tuple[str | None, FileContent, str | None]
    | tuple[str | None, FileContent, str | None, Mapping[str, str]]
)
Files: TypeAlias = Mapping[str, FileType] | Sequence[tuple[str, FileType]]
Data: TypeAlias = Mapping[str, FormField] | FormPairs | str | Buffer
CookieTypes: TypeAlias = Cookies | Mapping[str, str] | Iterable[tuple[str, str]]
AuthTypes: TypeAlias = Auth | tuple[str | bytes, str | bytes] | Callable[[Request], Request]
TimeoutTypes: TypeAlias = (
    Timeout
    | float
    | tuple[float | None, float | None]
    | tuple[float | None, float | None, float | None]
    | tuple[float | None, float | None, float | None, float | None]
)
Path: TypeAlias = str | os.PathLike[str]
CertTypes: TypeAlias = Path | tuple[Path, Path] | tuple[Path, Path, str | bytes]
Hook: TypeAlias = Callable[..., None] | Callable[..., Awaitable[None]]
EventHooks: TypeAlias = Mapping[Literal["request", "response", "informational"], Sequence[Hook]]


class ExchangeOptions(TypedDict, total=False):
    """Arguments of `exchange`. One left out takes the client's value; None switches it off."""

    params: ParamTypes | None
    headers: HeaderOptions | Headers | None
    cookies: CookieTypes | None
    auth: AuthTypes | None
    proxy: str | None
    timeout: TimeoutTypes | None
    decode: bool
    max_response_bytes: int | None
    curl_options: CurlOptions | None


class ClientOptions(ExchangeOptions, total=False):
    """Arguments of a blocking client's requests. One left out takes the client's value; None switches it off.

    `content`: bytes-like, str (UTF-8), a path (os.PathLike; a str is always the body), an open binary file, or an iterable
    of bytes. `data`: a form. `files`: multipart. `json`: anything that json.dumps takes. `params`: added to the URL's query.
    `headers`: a value None: that header is not sent. `timeout`: seconds, or a Timeout. `proxy`: a URL, "": direct.
    `decode`: whether content codings are undone. `max_response_bytes`: of what is delivered.
    """

    content: Content | None
    data: Data | None
    files: Files | None
    json: Any
    follow_redirects: bool | None


class AsyncExchangeOptions(ExchangeOptions, total=False):
    """Arguments of an asynchronous `exchange`: the same."""


class AsyncClientOptions(ExchangeOptions, total=False):
    """Arguments of an asynchronous client's requests: as ClientOptions; `content` may be an async iterable too."""

    content: AsyncContent | None
    data: Data | None
    files: Files | None
    json: Any
    follow_redirects: bool | None


class DownloadOptions(ExchangeOptions, total=False):
    """Arguments of `download` beside its own: those of a request without a body. Bytes are saved as they were sent,
    so there is no `decode`; no content coding is asked for, unless the call or the client has an Accept-Encoding of its own.
    """

    follow_redirects: bool | None


class OneOffOptions(ClientOptions, total=False):
    """Arguments of the module-level functions: a request's, and those of the client that is made for it."""

    verify: bool | str | os.PathLike[str]
    cert: CertTypes | None
    tls: TLS | None
    trust_env: bool
    http1: bool
    http2: bool
    http3: bool
    max_redirects: int
    default_encoding: str


if TYPE_CHECKING:

    class ClientArguments(TypedDict):
        """All arguments of Client and AsyncClient."""

        base_url: str | URL
        headers: HeaderOptions | Headers | None
        params: ParamTypes | None
        cookies: CookieTypes | None
        auth: AuthTypes | None
        timeout: TimeoutTypes | None
        limits: Limits
        verify: bool | str | os.PathLike[str]
        cert: CertTypes | None
        tls: TLS | None
        proxy: str | None
        trust_env: bool
        http1: bool
        http2: bool
        http3: bool
        follow_redirects: bool
        max_redirects: int
        event_hooks: EventHooks | None
        default_encoding: str
        max_response_bytes: int | None
        workers: int
        pool: Pool | None
        curl_options: CurlOptions | None


EXCHANGE_NAMES: Final = frozenset(ExchangeOptions.__annotations__)
REQUEST_NAMES: Final = frozenset(ClientOptions.__annotations__)
DOWNLOAD_NAMES: Final = frozenset(DownloadOptions.__annotations__) - {"decode"}

_MEANT: Final = {
    "allow_redirects": "follow_redirects",
    "body": "content",
    "cookiejar": "cookies",
    "follow": "follow_redirects",
    "followlocation": "follow_redirects",
    "proxies": "proxy",
    "query": "params",
    "timeout_ms": "timeout",
    "connecttimeout_ms": "timeout",
    "read_timeout_ms": "timeout",
}
"""What users of requests, of aiohttp and of the pool write."""

_OF_THE_CLIENT: Final = frozenset(
    (
        "base_url",
        "cert",
        "http1",
        "http2",
        "http3",
        "limits",
        "tls",
        "trust_env",
        "verify",
        "max_redirects",
        "event_hooks",
    )
)


class UnknownArgument(BadOptions, TypeError):
    """An argument of a name that the call does not have. TypeError, as Python's own."""


def check_names(given: Mapping[str, object], known: frozenset[str], call: str) -> None:
    """Raise UnknownArgument for names that are not known, with the nearest that are."""
    if given.keys() <= known:
        return
    from difflib import get_close_matches

    texts: list[str] = []
    for name in sorted(given.keys() - known):
        near = _MEANT.get(name) or next(iter(get_close_matches(name, known, n=1)), None)
        if name in _OF_THE_CLIENT:
            texts.append(f"{name}: it is the client's, not a request's")
        elif near is not None and near in known:
            texts.append(f"{name}: did you mean {near}?")
        else:
            texts.append(f"{name}: {call} has no such argument")
    raise UnknownArgument("; ".join(texts))
