"""Downloads: a response that goes to a file, written by the worker, and gone on with where an earlier one was cut off.

Shared by both faces. What it knows of files is in `_part`; how it waits is the face's. The target is not touched before
everything is there and has been checked: then the part is synced and renamed, in a thread that may block.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Mapping
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ._arguments import DOWNLOAD_NAMES, check_names
from ._frozen import Frozen
from ._part import Part, strong_validator
from ._sending import send
from .downloads import Download
from .errors import BadOptions, HTTPStatusError, RemoteProtocolError, ResponseNotRead
from .handle import write_to, written
from .metrics import Metrics
from .options import OFFER
from .response import Response
from .streaming import dismiss, drain, incoming_of
from .url import URL

if TYPE_CHECKING:
    from ._ask import Ask
    from ._session import Session

__all__ = ["AsyncProgress", "Progress", "Wanted", "download", "wanted"]

Progress: TypeAlias = Callable[[int, "int | None"], object]
"""Called with the bytes there are, those of an earlier download included, and how many there will be, or None."""
AsyncProgress: TypeAlias = Callable[[int, "int | None"], "Awaitable[object] | object"]

_PROGRESS_EVERY: Final = 0.1
"""Seconds between two calls of a progress function. As often as people can follow."""
_SHA256: Final = re.compile("[0-9a-f]{64}")
_CONTENT_RANGE: Final = re.compile(r"bytes +(?:(\d+)-(\d+)|\*)/(?:(\d+)|\*)", re.IGNORECASE)
"""RFC 9110 14.4. What does not match says nothing."""


class Wanted(Frozen):
    """What a call of download() asks for, checked."""

    __slots__ = ("ask", "progress", "resume", "sha256", "target")

    ask: Ask
    target: str
    resume: bool
    progress: AsyncProgress | None
    sha256: str | bool

    def __init__(self, ask: Ask, target: str, resume: bool, progress: AsyncProgress | None, sha256: str | bool) -> None:
        self._set(ask, progress, resume, sha256, target)


def wanted(
    session: Session,
    url: str | URL,
    path: str | os.PathLike[str],
    options: Mapping[str, Any],
    *,
    resume: bool,
    progress: AsyncProgress | None,
    sha256: str | bool | None,
    call: str = "download()",
) -> Wanted:
    """Check the arguments of a call; nothing has been sent.

    Raises BadOptions, InvalidURL, UnsupportedProtocol, PoolClosed.
    """
    check_names(options, DOWNLOAD_NAMES, call)
    target = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None  # pyright: ignore[reportUnnecessaryIsInstance]
    if not isinstance(target, str) or not target or "\0" in target:
        raise BadOptions("path: must be a path, as a str or os.PathLike[str]")
    if not isinstance(resume, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadOptions(f"resume: must be True or False, not {type(resume).__name__}")
    if progress is not None and not callable(progress):
        raise BadOptions(f"progress: must be a function, not {type(progress).__name__}")
    if isinstance(sha256, str):
        sha256 = sha256.lower()
        if not _SHA256.fullmatch(sha256):
            raise BadOptions("sha256: must be 64 hexadecimal digits, or True")
    elif sha256 is not None and not isinstance(sha256, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadOptions(f"sha256: must be a str, True or None, not {type(sha256).__name__}")
    ask = session.ask("GET", url, {"follow_redirects": True, **options}, stream=True)
    ask.decode = False
    taken = [name for name in ("Range", "If-Range") if name in ask.headers]
    if taken:
        raise BadOptions("; ".join(f"headers: {name} is the download's own" for name in taken))
    if ask.headers.get("accept-encoding") == OFFER.decode():  # nobody has said otherwise
        ask.headers["Accept-Encoding"] = "identity"
    return Wanted(ask, target, resume, progress, sha256 or False)


# ---------------------------------------------------------------------------------------------------- one download


async def download(session: Session, asked: Wanted) -> Download:
    """Download a file. Whatever goes wrong, the target is as it was, and what can be gone on from stays in the part.

    Raises HTTPStatusError for a status that is none of a download; RequestError ("sha256_mismatch"); BadOptions where
    another download holds the part; OSError; the request's error; what the progress function raises.
    """
    running = _Running(session, asked)
    try:
        return await running.run()
    finally:
        running.part.close()


class _Running:
    """One download under way."""

    def __init__(self, session: Session, asked: Wanted) -> None:
        self.face = session.face
        self.session = session
        self.asked = asked
        self.part = Part(asked.target)
        self.url = str(asked.ask.url)
        self.size = 0  # bytes that are there
        self.total: int | None = None
        self.resumed_from = 0
        self.reported = -1

    async def run(self) -> Download:
        face, part, asked = self.face, self.part, self.asked
        self.size = self.resumed_from = await face.in_thread(part.find, self.url, asked.resume)
        while True:
            response = await send(self.session, self._ask())
            try:
                is_whole = await self._take(response)
            except BaseException:
                await self._drop(response)
                raise
            if is_whole:
                break
        await self._report()
        digest = await face.in_thread(part.finish, self.size, asked.sha256)
        from pathlib import Path

        return Download(
            Path(asked.target),
            self.size,
            response.status_code,
            response.headers,
            self.resumed_from,
            digest,
            _metrics(response),
        )

    def _ask(self) -> Ask:
        """The request for what is missing."""
        ask = copy(self.asked.ask)
        if self.size:
            assert self.part.validator is not None
            ask.headers = ask.headers.copy()
            ask.headers["Range"] = f"bytes={self.size}-"
            ask.headers["If-Range"] = self.part.validator
        return ask

    async def _take(self, response: Response) -> bool:
        """Take what a response brings. False: another request is needed."""
        status = response.status_code
        if status == 416 and self.size:
            # The validator held, or it would be a 200; but only a total says whether there is an end to be missed.
            _, _, total = _content_range(response)
            is_whole = total == self.size and self._is_of_the_part(response)
            await drain(response)
            return is_whole or self._start_over()
        if status == 206 and self.size:
            start, end, total = _content_range(response)
            fits = start == self.size and end is not None and end >= self.size and (total is None or end < total)
            if not fits or not self._is_of_the_part(response):
                await drain(response)
                return self._start_over()
            self.total = total
        elif status == 200:
            await self._begin(response)
        elif status == 206:
            raise RemoteProtocolError("206 to a request without a Range", request=response.request)
        else:
            await drain(response)
            raise _status_error(response)
        before = self.size
        await self._receive(response)
        if self.total is None or self.size == self.total:
            return True
        if status == 206 and before < self.size < self.total:  # a server may send less than was asked for
            return False
        raise RemoteProtocolError(
            f"the response ended with {self.size} bytes of {self.total}", request=response.request
        )

    def _is_of_the_part(self, response: Response) -> bool:
        """Whether a response may be about the representation that the part is of."""
        etag = response.headers.get("etag")
        validator = self.part.validator
        return etag is None or validator is None or not validator.startswith('"') or etag == validator

    def _start_over(self) -> bool:
        self.size = self.resumed_from = 0
        return False

    async def _begin(self, response: Response) -> None:
        headers = response.headers
        self._start_over()
        validator = strong_validator(headers.get("etag"), headers.get("last-modified"), headers.get("date"))
        length = headers.get("content-length", "")
        self.total = int(length) if length.isascii() and length.isdigit() else None
        await self.face.in_thread(self.part.begin, self.url, validator)

    async def _receive(self, response: Response) -> None:
        """Have the body written to the part, and wait for its end."""
        incoming = incoming_of(response, claim=True)
        offset = self.size
        handle = incoming.handle
        await self.face.in_thread(self.part.receive, partial(write_to, handle, offset=offset))
        every = None if self.asked.progress is None else _PROGRESS_EVERY
        while not await incoming.written_out(every):
            self.size = offset + written(handle)
            await self._report()
        self.size = offset + written(handle)

    async def _report(self) -> None:
        if self.asked.progress is not None and self.reported != self.size:
            self.reported = self.size
            await self.face.call(self.asked.progress, self.size, self.total)

    async def _drop(self, response: Response) -> None:
        """It failed, or nobody waits any more. Wait for the worker's last write: the part's lock is gone with it."""
        await dismiss(response)
        await self.face.files_closed(incoming_of(response).handle)


def _content_range(response: Response) -> tuple[int | None, int | None, int | None]:
    """First byte, last byte, and how many there are in all; None for what is not said."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    if found is None:
        return None, None, None
    start, end, total = (None if each is None else int(each) for each in found.groups())
    return start, end, total


def _metrics(response: Response) -> Metrics:
    try:
        return response.metrics
    except ResponseNotRead:  # a 416 with a large body, which was cut off
        return Metrics()


def _status_error(response: Response) -> HTTPStatusError:
    if not response.is_success:
        try:
            response.raise_for_status()
        except HTTPStatusError as error:
            return error
    message = f"'{response.status_code} {response.reason_phrase}' is no answer to a download"
    return HTTPStatusError(message, request=response.request, response=response)
