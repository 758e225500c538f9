"""The asynchronous client, for asyncio (uvloop too) and trio."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, cast

from ._arguments import EXCHANGE_NAMES, REQUEST_NAMES, AsyncClientOptions, AsyncExchangeOptions, check_names
from ._client_base import ClientBase
from ._compat import Buffer, Self, Unpack
from ._face import LOOP
from ._sending import Duplex, send
from .response import Response
from .streaming import AsyncStreamingResponse
from .url import URL

if TYPE_CHECKING:
    import os

    from ._arguments import DownloadOptions
    from ._download import AsyncProgress
    from ._download_many import ManyProgress, Targets
    from .downloads import Download
    from .errors import Error

__all__ = ["AsyncClient", "AsyncExchange"]


class AsyncExchange:
    """A request and its response, both open: `async with client.exchange("POST", url) as exchange`.

    One task may send while another reads the response.
    """

    __slots__ = ("_duplex",)

    def __init__(self, duplex: Duplex) -> None:
        self._duplex = duplex

    async def send(self, data: Buffer) -> None:
        """Send a piece of the request's body; waits while a window of it is waiting. Cancelled, nothing was taken.

        Raises:
            StreamClosed: the request has been answered.
            LocalProtocolError: `data` goes beyond the Content-Length that was given; nothing was taken.
            Error: the request's own, when it failed.
        """
        await self._duplex.send(data)

    def finish(self) -> None:
        """The request's body ends here. Idempotent."""
        self._duplex.finish()

    async def response(self) -> AsyncStreamingResponse:
        """The response, as soon as its headers are there, also before finish(). The same one each time. Cancelled, nothing
        is lost: call it again.

        Raises:
            StreamError: another task is waiting for it.
            Error: the request's own, when it failed.
        """
        return cast("AsyncStreamingResponse", await self._duplex.response())


class AsyncClient(ClientBase):
    """An HTTP client: connections, cookies, and what all of its requests have in common. It may be used from several
    event loops at once.

    `base_url`: what relative URLs are relative to. `headers`, `params`, `cookies`: sent with every request. `auth`:
    (user, password), or an Auth. `timeout`: seconds, or a Timeout; None: none. `limits`: on connections. `verify`: False,
    or a path to CAs. `cert`: a client certificate: path, (cert, key) or (cert, key, password). `tls`: a TLS. `proxy`: a
    URL; None: the environment's if `trust_env`; "": direct. `http1`, `http2`, `http3`: which versions may be spoken;
    `http3` beside the others races HTTP/3 against TCP. `event_hooks`: functions by event: "request" (Request), "response"
    (Response), "informational" (Request, status, Headers of a 1xx). `default_encoding`: of texts that name no charset.
    `max_response_bytes`: of what is delivered of one response. `workers`: native threads. `pool`: a Pool to share, which
    stays open. `curl_options`: further libcurl options by name.

    Obligation: close it, or use it in an `async with` block.

    Raises:
        BadOptions, InvalidURL, UnsupportedProtocol: an argument that cannot be honoured.
    """

    __slots__ = ()
    _face = LOOP

    async def request(self, method: str, url: str | URL, **options: Unpack[AsyncClientOptions]) -> Response:
        """Send a request, and wait until its response is there and read.

        Cancelling the task cancels the request at once.

        Raises:
            BadOptions, InvalidURL, UnsupportedProtocol, Overload, PoolClosed: nothing was sent.
            Error: the request's own, when it failed. Whatever a hook, an auth flow or an iterable of the body raises.
        """
        session = self._session
        first: Response | None = None
        if not options:
            handle = session.quickly(method, url)
            if handle is not None:
                try:
                    first = await handle
                except BaseException:
                    handle.cancel()
                    raise
                if session.is_final(first):
                    return first
        check_names(options, REQUEST_NAMES, "request()")
        return await send(session, session.ask(method, url, options), first)

    async def get(self, url: str | URL, **options: Unpack[AsyncClientOptions]) -> Response:
        """`request` with GET."""
        return await self.request("GET", url, **options)

    async def head(self, url: str | URL, **options: Unpack[AsyncClientOptions]) -> Response:
        """`request` with HEAD."""
        return await self.request("HEAD", url, **options)

    async def options(self, url: str | URL, **options: Unpack[AsyncClientOptions]) -> Response:
        """`request` with OPTIONS."""
        return await self.request("OPTIONS", url, **options)

    async def post(self, url: str | URL, **options: Unpack[AsyncClientOptions]) -> Response:
        """`request` with POST."""
        return await self.request("POST", url, **options)

    async def put(self, url: str | URL, **options: Unpack[AsyncClientOptions]) -> Response:
        """`request` with PUT."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str | URL, **options: Unpack[AsyncClientOptions]) -> Response:
        """`request` with PATCH."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str | URL, **options: Unpack[AsyncClientOptions]) -> Response:
        """`request` with DELETE."""
        return await self.request("DELETE", url, **options)

    @asynccontextmanager
    async def stream(
        self, method: str, url: str | URL, **options: Unpack[AsyncClientOptions]
    ) -> AsyncGenerator[AsyncStreamingResponse, None]:
        """Send a request, and read its response as it comes. Leaving the block cancels what is still in flight.

        A body from an iterable goes up beside it. Raises as `request` does.
        """
        check_names(options, REQUEST_NAMES, "stream()")
        response = cast(
            "AsyncStreamingResponse", await send(self._session, self._session.ask(method, url, options, stream=True))
        )
        try:
            yield response
        finally:
            await response.aclose()

    @asynccontextmanager
    async def exchange(
        self, method: str, url: str | URL, **options: Unpack[AsyncExchangeOptions]
    ) -> AsyncGenerator[AsyncExchange, None]:
        """Send a request whose body and response are open at the same time. Leaving the block cancels what is in flight.

        Redirects are not followed, and an auth flow's first request is its only one: what has gone up cannot be sent again.
        Raises as `request` does.
        """
        check_names(options, EXCHANGE_NAMES, "exchange()")
        duplex = Duplex(self._session, self._session.ask(method, url, options, stream=True))
        await duplex.open()
        try:
            yield AsyncExchange(duplex)
        finally:
            await duplex.close()

    async def download(
        self,
        url: str | URL,
        path: str | os.PathLike[str],
        *,
        resume: bool = True,
        progress: AsyncProgress | None = None,
        sha256: str | bool | None = None,
        **options: Unpack[DownloadOptions],
    ) -> Download:
        """Download a file. It stands at `path` when it is there as a whole; what was there before stays until then.

        `resume`: go on with what an earlier, failed download has left in `path` + ".part", if the server still has the same.
        `progress`: called with the bytes that are there and how many there will be, or None: ten times a second at most,
        and at the end; it may be async. `sha256`: the digest that is expected, in hexadecimal, or True to have it computed.
        Redirects are followed; the bytes are saved as they were sent.

        Raises:
            HTTPStatusError: a status that is none of a download.
            RequestError: "sha256_mismatch"; the part is removed.
            BadOptions: also where another download to `path` is under way.
            OSError: the file cannot be made. A disk that is full meanwhile is a TransportError, "write_error".
            Others as `request` does, and what `progress` raises.
        """
        from ._download import download, wanted

        session = self._session
        asked = wanted(session, url, path, options, resume=resume, progress=progress, sha256=sha256)
        return await download(session, asked)

    async def download_many(
        self,
        urls: Targets,
        folder: str | os.PathLike[str],
        *,
        concurrency: int = 8,
        resume: bool = True,
        progress: ManyProgress | None = None,
        sha256: bool = False,
        **options: Unpack[DownloadOptions],
    ) -> list[Download | Error | OSError]:
        """Download many files into a folder, `concurrency` at a time. Returns what became of each, in the order of `urls`:
        a Download, or the exception that download() would have raised.

        `urls`: URLs, whose last path segments name the files, made safe and distinct; or a mapping of URL to file name.
        `folder` is made if it is not there. `progress`: as download()'s, with the URL before.
        The rest is as in download(). A cancel, and what `progress` raises, cancels all.
        """
        from ._download_many import download_many, many_wanted

        session = self._session
        jobs = many_wanted(
            session,
            urls,
            folder,
            options,
            concurrency=concurrency,
            resume=resume,
            progress=progress,
            sha256=sha256,
        )
        return await download_many(session, jobs, concurrency)

    async def aclose(self) -> None:
        """Close the client, and its pool if that is its own: what is in flight fails with PoolClosed. Idempotent."""
        self._session.closed = True
        if self._session.owns_pool:
            await self._session.pool.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
