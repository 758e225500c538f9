"""A client's request from the call to its response: hops, authentication, attempts. Shared by both faces.

    send        hop after hop: follows redirects
    _hop        attempt after attempt: what the auth flow asks for
    _attempt    one transfer: cookies, hooks, body, the engine

Each is a loop around the next. What it decides with (`_ask`, `auth`, `cookie_store`, `_session`) knows no waiting.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from ._ask import Ask, redirected
from ._content import Body, BytesBody, FileBody, StreamBody
from ._incoming import Incoming
from ._upload import Upload, respond
from .cookie_store import merged_header
from .errors import BadOptions, Error, StreamConsumed, StreamError, TooManyRedirects
from .handle import Handle, send_file
from .headers import Headers
from .pool import Prepared, start_request
from .request import Request
from .response import Response, adopt_response, sets_cookies
from .streaming import AsyncStreamingResponse, StreamingResponse, dismiss, drain, read_whole, streamed

if TYPE_CHECKING:
    from ._session import Session

__all__ = ["Duplex", "send"]


async def send(session: Session, ask: Ask, first: Response | None = None) -> Response:
    """The response to what was asked, redirects followed if that was asked too.

    `first`: the response to the first hop, where it is there already.
    """
    history: list[Response] = []
    while True:
        if first is None:
            response = await _hop(session, ask, history)
        else:
            response, first = first, None
            await _finished(session, response, [])
        try:
            if not (ask.follow and response.has_redirect_location):
                if not ask.stream:
                    await read_whole(response)
                return response
            if len(history) >= session.max_redirects:
                raise TooManyRedirects(
                    f"the server redirected more than {session.max_redirects} times", request=response.request
                )
            ask = redirected(ask, response)
            await drain(response)
        except BaseException:
            await dismiss(response)
            raise
        history = [*history, response]


async def _hop(session: Session, ask: Ask, history: list[Response]) -> Response:
    """The response to one hop, the auth flow's last."""
    if ask.auth is None:
        return await _attempt(session, ask, ask.request(), history)
    flow = ask.auth.auth_flow(ask.request())
    try:
        request = _first_of(flow)
        body_sent = False
        while True:
            body_sent = body_sent or request.is_streamed
            response = await _attempt(session, ask, request, history)
            try:
                following = await _continued(flow, ask, response)
                if following is None:
                    return response
                if body_sent and following.is_streamed and ask.body is not None and not ask.body.can_replay:
                    raise StreamConsumed(
                        f"the server answered {response.status_code}: the body is to be sent again, and came from an "
                        "iterable that can be read once"
                    )
                await drain(response)
            except BaseException:
                await dismiss(response)
                raise
            history = [*history, response]
            request = following
    finally:
        flow.close()


async def _continued(flow: Generator[Request, Response, None], ask: Ask, response: Response) -> Request | None:
    """The request that the auth flow wants sent next; None: the response is the answer."""
    assert ask.auth is not None
    if ask.auth.requires_response_body:
        await read_whole(response)
    try:
        return _checked(flow.send(response))
    except StopIteration:
        return None


def _first_of(flow: Generator[Request, Response, None]) -> Request:
    """What an auth flow wants sent first."""
    try:
        return _checked(next(flow))
    except StopIteration:
        raise BadOptions("auth: the flow ended without a request to send") from None


def _checked(request: object) -> Request:
    if isinstance(request, Request):
        return request
    raise BadOptions(f"auth: the flow must yield a Request, not {type(request).__name__}")


async def _attempt(session: Session, ask: Ask, request: Request, history: list[Response]) -> Response:
    """One transfer."""
    face = session.face
    _add_cookies(session, ask, request)
    for hook in session.hooks("request"):
        await face.call(hook, request)
    body = _body_of(ask, request)
    streams = ask.stream or ask.informational
    upload = Upload(face, body) if isinstance(body, StreamBody) else None
    handle = _start(session, ask, request, stream=streams)
    try:
        if streams:
            incoming = Incoming(face, handle, request, upload, limit=ask.max_bytes)
            try:
                response = await _started(session, ask, request, incoming)
            except BaseException:
                await incoming.close()
                raise
        else:
            response = await respond(face, handle, upload)
    except BaseException:
        handle.cancel()
        raise
    await _finished(session, response, history)
    return response


def _body_of(ask: Ask, request: Request) -> Body | None:
    """The body of what is sent: the call's, or its own where an auth flow made another request."""
    if request.is_streamed:
        return ask.body
    content = request.content
    if isinstance(ask.body, BytesBody) and content is ask.body.data:
        return ask.body
    return None if content is None else BytesBody(content)


def _add_cookies(session: Session, ask: Ask, request: Request) -> None:
    given = request.headers.get("cookie")
    # A header of the caller's own, or of an auth flow's, is all that is sent.
    if "cookie" in ask.headers or b"cookie" in ask.unsent or (given is not None and given != ask.cookie_header):
        return
    # A flow may ask elsewhere, for a token perhaps: what the caller set is meant for the call's origin.
    at_home = request.url is ask.url or request.url.origin == ask.url.origin
    own, addressed = ask.cookies if at_home else None, ask.addressed and at_home
    stored = None if session.cookies.empty else session.cookies.header_for(request.url, addressed=addressed)
    value = merged_header(stored, own, url=request.url, addressed=addressed)
    ask.cookie_header = value
    if value:
        request.headers["Cookie"] = value
    else:
        request.headers.pop("cookie", None)


def _start(session: Session, ask: Ask, request: Request, *, stream: bool, duplex: bool = False) -> Handle:
    """Hand the request over to the pool, with its body if that is whole or a file."""
    auth: Mapping[str, object] = {} if ask.auth is None else ask.auth.pool_options(request.url)
    settings = session.settings(
        session.proxy_for(ask, request.url),
        keeps_credentials=ask.keeps_credentials,
        auth=auth,
        curl_options=ask.curl_options,
    ).with_limits(ask.clocks(), -1 if stream and ask.decode else ask.max_bytes)
    body = None if duplex else _body_of(ask, request)
    opened = body.open() if isinstance(body, FileBody) else None
    try:
        headers = request.headers
        length = opened[2] if opened is not None else body.length if isinstance(body, StreamBody) else None
        if length is not None and "content-length" not in headers and "transfer-encoding" not in headers:
            headers = headers.copy()
            headers["Content-Length"] = str(length)
        prepared: Prepared = session.prepared(
            settings,
            request.method,
            headers,
            ask.unsent,
            body.data if isinstance(body, BytesBody) else None,
            stream=stream,
            decode=ask.decode,
            stream_body=duplex or (body is not None and not isinstance(body, BytesBody)),
            informational=ask.informational,
        )
        handle = start_request(session.pool, prepared, request)
        if ask.on_start is not None:
            ask.on_start(handle)
        if opened is not None:
            try:
                send_file(handle, *opened)
            except Error:
                if not handle.done():
                    handle.cancel()
                    raise
        return handle
    finally:
        if opened is not None:
            import os

            os.close(opened[0])


async def _started(session: Session, ask: Ask, request: Request, incoming: Incoming) -> Response:
    """The response whose headers have come."""
    face = session.face

    async def on_informational(status: int, headers: Headers) -> None:
        for hook in session.hooks("informational"):
            await face.call(hook, request, status, headers)

    started = await incoming.start(on_informational)
    cls: Any = AsyncStreamingResponse if face.is_async else StreamingResponse
    response: Response = streamed(cls, started, request, incoming, decode=ask.decode)
    return response


async def _finished(session: Session, response: Response, history: list[Response]) -> None:
    """A response has come: keep its cookies, make it the client's, show it to the hooks."""
    if sets_cookies(response):
        fields = (value for name, value in response.headers.raw if name.lower() == b"set-cookie")
        session.cookies.extract(response.url, fields)  # as bytes: what is no UTF-8 is for the store to judge
    adopt_response(response, history=history, default_encoding=session.default_encoding)
    try:
        for hook in session.hooks("response"):
            await session.face.call(hook, response)
    except BaseException:
        await dismiss(response)
        raise


class Duplex:
    """A request whose body and whose response are both open. Shared by both faces' exchanges."""

    __slots__ = ("_ask", "_flow", "_handle", "_incoming", "_request", "_response", "_session", "_turn")

    def __init__(self, session: Session, ask: Ask) -> None:
        self._session = session
        self._ask = ask
        self._response: Response | None = None
        self._turn = [True]  # to wait for the response: taken by who does; list.pop() is atomic
        self._flow: Generator[Request, Response, None] | None = None
        self._request: Request
        self._handle: Handle
        self._incoming: Incoming

    async def open(self) -> None:
        """Send the headers."""
        session, ask = self._session, self._ask
        request = ask.request(duplex=True)
        if ask.auth is not None:
            # Its first request only: what has gone up cannot be sent again.
            self._flow = ask.auth.auth_flow(request)
            request = _first_of(self._flow)
        _add_cookies(session, ask, request)
        for hook in session.hooks("request"):
            await session.face.call(hook, request)
        self._request = request
        self._handle = _start(session, ask, request, stream=True, duplex=True)
        self._incoming = Incoming(session.face, self._handle, request, None, limit=ask.max_bytes)

    async def send(self, data: Any) -> None:
        """Send a piece, when there is room for it."""
        await self._session.face.send(self._handle, data)

    def finish(self) -> None:
        """The body ends here."""
        self._handle.finish_body()

    async def response(self) -> Response:
        """The response, as soon as its headers are there. An interrupted wait loses nothing."""
        if self._response is None:
            try:
                self._turn.pop()
            except IndexError:
                raise StreamError("somebody else is waiting for this exchange's response already") from None
            try:
                response = await _started(self._session, self._ask, self._request, self._incoming)
                await _finished(self._session, response, [])
                self._response = response
            finally:
                self._turn.append(True)
        return self._response

    async def close(self) -> None:
        """Cancel what is still in flight."""
        if self._flow is not None:
            self._flow.close()
        self._handle.cancel()
        if self._response is not None:
            await dismiss(self._response)
