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
        "_piece",
        "_pieces",
        "_stopping",
        "_unraised",
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
        self._begun = self._stopping = False
        self._unraised: BaseException | None = None  # by the iterable, when there was no request to abort any more
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
        try:
            try:
                while (piece := await self._face.next(self._pieces)) is not None:
                    await self._face.send(self._handle, piece)
                self._handle.finish_body()
            finally:
                self.active = False
                self._body.close()
                if isinstance(self._pieces, AsyncIterator) and (aclose := getattr(self._pieces, "aclose", None)):
                    await aclose()
        except BaseException as error:
            cancelled = is_cancellation(error)
            if not self._is_outcome(error):
                if self._stopping or self._handle.done():
                    # Nobody who reads the response will meet it.
                    self._unraised = None if cancelled or isinstance(error, Error) else error
                else:  # cancelled from within perhaps: the body must not stay open for ever
                    self._abort(error)
            if cancelled:
                raise

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
        """The response is there, or nobody wants it any more. Raises what the iterable raises when it is closed."""
        self._stopping = True
        if self._job is not None:
            await self._job.stop()
            error, self._unraised = self._unraised, None
            if error is not None:
                raise error
        elif self.active and self._begun:
            self.active = False
            self._body.close()


async def respond(face: Face, handle: Handle, upload: Upload | None) -> Response:
    """The response of a buffered request whose body goes up in pieces."""
    if upload is None:
        return await face.response(handle)
    upload.begin(handle)
    try:
        while upload.is_stepped:
            if not upload.step():
                block_for_room(handle)
        return await face.response(handle)
    except Error:
        if upload.error is not None:
            raise upload.error from None
        raise
    finally:
        await upload.stop()
