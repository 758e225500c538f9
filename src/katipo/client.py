"""The blocking client."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, cast

from ._arguments import EXCHANGE_NAMES, REQUEST_NAMES, ClientOptions, ExchangeOptions, check_names
from ._client_base import ClientBase
from ._compat import Buffer, Self, Unpack
from ._face import BLOCKING, run
from ._sending import Duplex, send
from .response import Response
from .streaming import StreamingResponse
from .url import URL

if TYPE_CHECKING:
    import os

    from ._arguments import DownloadOptions
    from ._download import Progress
    from ._download_many import ManyProgress, Targets
    from .downloads import Download
    from .errors import Error

__all__ = ["Client", "Exchange"]


class Exchange:
    """A request and its response, both open: `with client.exchange("POST", url) as exchange`.

    One thread may send while another reads the response.
    """

    __slots__ = ("_duplex",)

    def __init__(self, duplex: Duplex) -> None:
        self._duplex = duplex

    def send(self, data: Buffer) -> None:
        """Send a piece of the request's body; blocks while a window of it is waiting.

        Raises:
            StreamClosed: the request has been answered.
            LocalProtocolError: `data` goes beyond the Content-Length that was given; nothing was taken.
            Error: the request's own, when it failed.
        """
        run(self._duplex.send(data))

    def finish(self) -> None:
        """The request's body ends here. Idempotent."""
        self._duplex.finish()

    def response(self) -> StreamingResponse:
        """The response, as soon as its headers are there, also before finish(). The same one each time.

        Raises:
            StreamError: another thread is waiting for it.
            Error: the request's own, when it failed.
        """
        return cast("StreamingResponse", run(self._duplex.response()))


class Client(ClientBase):
    """An HTTP client: connections, cookies, and what all of its requests have in common. Any number of threads may use it.

    `base_url`: what relative URLs are relative to. `headers`, `params`, `cookies`: sent with every request. `auth`:
    (user, password), or an Auth. `timeout`: seconds, or a Timeout; None: none. `limits`: on connections. `verify`: False,
    or a path to CAs. `cert`: a client certificate: path, (cert, key) or (cert, key, password). `tls`: a TLS. `proxy`: a
    URL; None: the environment's if `trust_env`; "": direct. `http1`, `http2`, `http3`: which versions may be spoken;
    `http3` beside the others races HTTP/3 against TCP. `event_hooks`: functions by event: "request" (Request), "response"
    (Response), "informational" (Request, status, Headers of a 1xx). `default_encoding`: of texts that name no charset.
    `max_response_bytes`: of what is delivered of one response. `workers`: native threads. `pool`: a Pool to share, which
    stays open. `curl_options`: further libcurl options by name.

    Obligation: close it, or use it in a `with` block.

    Raises:
        BadOptions, InvalidURL, UnsupportedProtocol: an argument that cannot be honoured.
    """

    __slots__ = ()
    _face = BLOCKING

    def request(self, method: str, url: str | URL, **options: Unpack[ClientOptions]) -> Response:
        """Send a request and block the calling thread, but not the GIL, until its response is there and read.

        Ctrl-C interrupts it and cancels the request.

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
                    first = handle.result()
                except BaseException:
                    handle.cancel()
                    raise
                if session.is_final(first):
                    return first
        check_names(options, REQUEST_NAMES, "request()")
        return run(send(session, session.ask(method, url, options), first))

    def get(self, url: str | URL, **options: Unpack[ClientOptions]) -> Response:
        """`request` with GET."""
        return self.request("GET", url, **options)

    def head(self, url: str | URL, **options: Unpack[ClientOptions]) -> Response:
        """`request` with HEAD."""
        return self.request("HEAD", url, **options)

    def options(self, url: str | URL, **options: Unpack[ClientOptions]) -> Response:
        """`request` with OPTIONS."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str | URL, **options: Unpack[ClientOptions]) -> Response:
        """`request` with POST."""
        return self.request("POST", url, **options)

    def put(self, url: str | URL, **options: Unpack[ClientOptions]) -> Response:
        """`request` with PUT."""
        return self.request("PUT", url, **options)

    def patch(self, url: str | URL, **options: Unpack[ClientOptions]) -> Response:
        """`request` with PATCH."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str | URL, **options: Unpack[ClientOptions]) -> Response:
        """`request` with DELETE."""
        return self.request("DELETE", url, **options)

    @contextmanager
    def stream(
        self, method: str, url: str | URL, **options: Unpack[ClientOptions]
    ) -> Generator[StreamingResponse, None, None]:
        """Send a request, and read its response as it comes. Leaving the block cancels what is still in flight.

        A body from an iterable goes up until the response's headers are there, and then whenever the response is waited
        for. Raises as `request` does.
        """
        check_names(options, REQUEST_NAMES, "stream()")
        response = cast(
            "StreamingResponse", run(send(self._session, self._session.ask(method, url, options, stream=True)))
        )
        try:
            yield response
        finally:
            response.close()

    @contextmanager
    def exchange(
        self, method: str, url: str | URL, **options: Unpack[ExchangeOptions]
    ) -> Generator[Exchange, None, None]:
        """Send a request whose body and response are open at the same time. Leaving the block cancels what is in flight.

        Redirects are not followed, and an auth flow's first request is its only one: what has gone up cannot be sent again.
        Raises as `request` does.
        """
        check_names(options, EXCHANGE_NAMES, "exchange()")
        duplex = Duplex(self._session, self._session.ask(method, url, options, stream=True))
        run(duplex.open())
        try:
            yield Exchange(duplex)
        finally:
            run(duplex.close())

    def download(
        self,
        url: str | URL,
        path: str | os.PathLike[str],
        *,
        resume: bool = True,
        progress: Progress | None = None,
        sha256: str | bool | None = None,
        **options: Unpack[DownloadOptions],
    ) -> Download:
        """Download a file. It stands at `path` when it is there as a whole; what was there before stays until then.

        `resume`: go on with what an earlier, failed download has left in `path` + ".part", if the server still has the same.
        `progress`: called with the bytes that are there and how many there will be, or None: ten times a second at most,
        and at the end. `sha256`: the digest that is expected, in hexadecimal, or True to have it computed. Redirects are
        followed; the bytes are saved as they were sent.

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
        return run(download(session, asked))

    def download_many(
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
        `folder` is made if it is not there. `progress`: as download()'s, with the URL before, and from several threads.
        The rest is as in download(). Ctrl-C, and what `progress` raises, cancels all.
        """
        from ._download_many import download_many_blocking, many_wanted

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
        return download_many_blocking(session, jobs, concurrency)

    def close(self) -> None:
        """Close the client, and its pool if that is its own: what is in flight fails with PoolClosed. Idempotent."""
        self._session.closed = True
        if self._session.owns_pool:
            self._session.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
