"""A request's body on its way up, piece by piece, while the response may already be coming down.

Blocking, whoever reads the response steps the upload in between. In an event loop a job pumps it. Either way an
exception in the caller's iterable aborts the request and is what the caller sees; an answer that comes before the body
has been sent ends the upload, and is the outcome.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from ._content import StreamBody
from ._face import Face
from .errors import Error, LocalProtocolError
from .handle import Handle, block_for_room, send_now
from .response import Response
from .waiting import Job, is_cancellation

__all__ = ["Upload", "respond"]


class Upload:
    """A body that is being sent. Used by one reader at a time."""

    __slots__ = (
        "_begun",
        "_body",
        "_face",
        "_handle",
        "_job",
        "_late",
        "_piece",
        "_pieces",
        "_stopping",
        "active",
        "error",
    )

    def __init__(self, face: Face, body: StreamBody) -> None:
        """Raises StreamConsumed for a one-shot iterable that has been sent before: nothing has been sent then."""
        self._face = face
        self._body = body
        self._pieces: Iterator[bytes] | AsyncIterator[bytes] = body.open()
        self._piece: bytes | None = None  # taken from the caller, with no room for it yet
        self._handle: Handle
        self._job: Job | None = None
        self._late: BaseException | None = None  # what the iterable raised when it was closed
        self._begun = self._stopping = False
        self.active = True
        self.error: BaseException | None = None
        """What aborted the request: the iterable's exception, or what was wrong with a piece."""

    def begin(self, handle: Handle) -> None:
        """The request is on its way."""
        self._handle = handle
        self._begun = True
        if self._face.is_async:
            self._job = Job(self._pump())

    @property
    def is_stepped(self) -> bool:
        """Whether the reader of the response has to step it, now."""
        return self.active and self._job is None

    def step(self) -> bool:
        """Send one more piece, or end the body. False: there is no room."""
        assert isinstance(self._pieces, Iterator)
        if self._handle.done():  # its outcome says the rest: no further piece is asked for
            self.active = False
            self._body.close()
            return True
        try:
            if self._piece is None:
                self._piece = next(self._pieces, None)
            if self._piece is None:
                self._handle.finish_body()
                self.active = False
            elif send_now(self._handle, self._piece):
                self._piece = None
            else:
                return False
        except BaseException as error:
            if not self._is_outcome(error):
                self._abort(error)
                raise
        if not self.active:
            self._body.close()
        return True

    async def _pump(self) -> None:
        handle = self._handle
        try:
            while not handle.done() and (piece := await self._face.next(self._pieces)) is not None:
                await self._face.send(handle, piece)
            if not self._stopping:  # an iterable that swallows its cancellation has not come to its end
                handle.finish_body()
        except GeneratorExit:  # the loop was closed: nothing more can be waited for
            handle.cancel()
            raise
        except BaseException as error:
            self._pump_failed(error)
        self.active = False
        try:
            self._body.close()
            if isinstance(self._pieces, AsyncIterator) and (aclose := getattr(self._pieces, "aclose", None)):
                await aclose()
        except GeneratorExit:
            raise
        except BaseException as error:
            self._closing_failed(error)

    def _pump_failed(self, error: BaseException) -> None:
        if self._is_outcome(error):  # of a request that was cancelled before this was, too
            return
        if self._stopping:
            self._closing_failed(error)
        else:
            self._abort(error)

    def _closing_failed(self, error: BaseException) -> None:
        """What the iterable's clean-up raised is for who stops the upload; that it was cancelled is not."""
        if not (self._stopping and is_cancellation(error)) and error is not self.error:
            self._late = error

    def _is_outcome(self, error: BaseException) -> bool:
        """Whether sending failed because the request has ended: its outcome says the rest."""
        if not isinstance(error, Error) or isinstance(error, LocalProtocolError) or not self._handle.done():
            return False
        self.active = False
        return True

    def _abort(self, error: BaseException) -> None:
        self.error = error
        self.active = False
        self._handle.cancel()
        self._body.close()

    async def stop(self) -> None:
        """The response is there, or nobody wants it any more. Raises what the iterable's clean-up raises."""
        self._stopping = True
        if self._job is not None:
            await self._job.stop()
        elif self.active and self._begun:
            self.active = False
            self._body.close()
        if self._late is not None:
            late, self._late = self._late, None
            raise late


async def respond(face: Face, handle: Handle, upload: Upload | None) -> Response:
    """The response of a buffered request whose body goes up in pieces."""
    if upload is None:
        return await face.response(handle)
    upload.begin(handle)
    try:
        while upload.is_stepped:
            if not upload.step():
                block_for_room(handle)
        response = await face.response(handle)
    except BaseException as error:
        handle.cancel()  # first: whatever the iterable does when it is closed, the body cannot look whole
        await upload.stop()
        if isinstance(error, Error) and upload.error is not None:
            raise upload.error from None
        raise
    await upload.stop()
    return response
