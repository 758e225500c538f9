"""Many downloads into one folder, a few at a time.

In an event loop they are jobs beside each other; blocking, threads, for each of which the shared code runs as it does for
one. Either way the first that must not go on (Ctrl-C, a cancelled task, an exception that is no failure of a download)
cancels the others, and nothing returns before they have ended.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import unquote_to_bytes

from . import waiting
from ._download import Wanted, download, wanted
from ._face import run
from .downloads import Download
from .errors import BadOptions, Error
from .handle import Handle
from .url import URL

if TYPE_CHECKING:
    from ._session import Session

__all__ = ["ManyProgress", "Targets", "download_many", "download_many_blocking", "many_wanted", "names_for"]

Targets: TypeAlias = "Iterable[str | URL] | Mapping[str, str] | Mapping[URL, str]"
ManyProgress: TypeAlias = Callable[[str, int, "int | None"], "Awaitable[object] | object"]
"""Called with the URL as it was given, and as `Progress`."""
Outcome: TypeAlias = Download | Error | OSError
_Job: TypeAlias = "Wanted | Error"

CONCURRENCY: Final = 8
"""Downloads at a time. Between the 6 connections that browsers open to a host, and 16 of parallel downloaders; arbitrary."""
_NAME_BYTES: Final = 200
"""The most of a name that is kept: file systems take 255 bytes, and ".part.json.new" comes after it."""
_FORBIDDEN: Final = dict.fromkeys((*range(32), 127, *map(ord, '/\\:*?"<>|')), "_")
"""In a name that comes from a URL: separators, control characters, and what other systems do not take."""


# ---------------------------------------------------------------------------------------------------- names


def _name_in(url: URL) -> str:
    """A file name made of the URL's last path segment."""
    segment = url.raw_path.partition(b"?")[0].rpartition(b"/")[2]
    name = unquote_to_bytes(segment).decode("utf-8", "replace").translate(_FORBIDDEN).strip(" ")
    return name if name.strip(".") else "download"


def _numbered(name: str, number: int) -> str:
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(suffix) > 16:  # ".hidden", or no suffix at all
        stem, dot, suffix = name, "", ""
    tail = (f"-{number}" if number else "") + dot + suffix
    room = _NAME_BYTES - len(tail.encode())
    return stem.encode()[:room].decode("utf-8", "ignore") + tail


def _files_of(name: str) -> set[str]:
    """What a download of that name may touch, as a file system sees it that does not tell cases apart."""
    folded = name.casefold()
    return {folded, f"{folded}.part", f"{folded}.part.json", f"{folded}.part.json.new"}


def names_for(urls: Iterable[URL]) -> list[str]:
    """A file name for each URL: its last path segment, made safe; numbered where two would touch the same files.

    The same URLs in the same order get the same names, so that a second run goes on with the first one's parts.
    """
    taken: set[str] = set()
    names: list[str] = []
    for url in urls:
        wish, number = _name_in(url), 0
        while _files_of(name := _numbered(wish, number)) & taken:
            number += 1
        taken |= _files_of(name)
        names.append(name)
    return names


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name or name in (".", "..") or set(name) & {"/", "\0", os.sep, os.altsep}:
        raise BadOptions("urls: a name must be that of a file in the folder")
    return name


def _targets(urls: Targets) -> list[tuple[str | URL, str | None]]:
    if isinstance(urls, (str, bytes, URL)) or not isinstance(urls, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadOptions("urls: must be an iterable of URLs, or a mapping of URL to file name")
    if not isinstance(urls, Mapping):
        return [(url, None) for url in urls]
    named = cast("Mapping[str | URL, object]", urls)
    pairs: list[tuple[str | URL, str | None]] = [(url, _checked_name(name)) for url, name in named.items()]
    taken: set[str] = set()
    for _, name in pairs:
        files = _files_of(name or "")
        if files & taken:
            raise BadOptions("urls: two names would touch the same files")
        taken |= files
    return pairs


# ---------------------------------------------------------------------------------------------------- a call


def many_wanted(
    session: Session,
    urls: Targets,
    folder: str | os.PathLike[str],
    options: Mapping[str, Any],
    *,
    concurrency: int,
    resume: bool,
    progress: ManyProgress | None,
    sha256: bool,
) -> list[_Job]:
    """What a call asks for: for each URL a download, or what is wrong with it. The folder is there afterwards.

    Raises BadOptions for what is wrong with the call, OSError for a folder that cannot be made.
    """
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadOptions("concurrency: must be an int, 1 or more")
    if not isinstance(sha256, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadOptions("sha256: must be True or False: there is one digest for each file")
    where = os.fspath(folder) if isinstance(folder, (str, os.PathLike)) else None  # pyright: ignore[reportUnnecessaryIsInstance]
    if not isinstance(where, str) or not where:
        raise BadOptions("folder: must be a path, as a str or os.PathLike[str]")
    if progress is not None and not callable(progress):
        raise BadOptions(f"progress: must be a function, not {type(progress).__name__}")
    one = partial(wanted, session, options=options, resume=resume, sha256=sha256, call="download_many()")
    one("http://localhost/", where, progress=None)  # what is wrong with the call is wrong once
    jobs: list[_Job] = []
    pairs = _targets(urls)
    for url, name in pairs:
        told = None if progress is None else partial(progress, str(url))
        try:
            jobs.append(one(url, os.path.join(where, name or "download"), progress=told))
        except Error as error:
            jobs.append(error)
    unnamed = [job for job, (_, name) in zip(jobs, pairs, strict=True) if name is None and isinstance(job, Wanted)]
    names = iter(names_for(job.ask.url for job in unnamed))
    for i, (_, name) in enumerate(pairs):
        job = jobs[i]
        if name is None and isinstance(job, Wanted):
            jobs[i] = Wanted(job.ask, os.path.join(where, next(names)), job.resume, job.progress, job.sha256)
    os.makedirs(where, exist_ok=True)
    return jobs


class _Many:
    """The downloads of one call, whoever runs them."""

    def __init__(self, session: Session, jobs: list[_Job]) -> None:
        self.session = session
        self.outcomes: list[Outcome | None] = [job if isinstance(job, Error) else None for job in jobs]
        self._left: Iterator[tuple[int, Wanted]] = iter(
            [(i, job) for i, job in enumerate(jobs) if isinstance(job, Wanted)]
        )
        self._lock = threading.Lock()
        self._over = False
        self._handles: set[Handle] = set()

    def results(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome is not None]

    async def work(self) -> None:
        """Do one after the other of what is left."""
        while (job := self._next()) is not None:
            i, asked = job
            ask = asked.ask
            ask.on_start = self._watch
            if ask.timeout.total is not None:  # each has its own, from its own beginning
                ask.deadline = monotonic() + ask.timeout.total
            try:
                self.outcomes[i] = await download(self.session, asked)
            except (Error, OSError) as error:
                self.outcomes[i] = error

    def _next(self) -> tuple[int, Wanted] | None:
        with self._lock:
            return None if self._over else next(self._left, None)

    def _watch(self, handle: Handle) -> None:
        """A request has been made, for a thread that may have to be stopped."""
        with self._lock:
            self._handles = {each for each in self._handles if not each.done()}
            self._handles.add(handle)
            over = self._over
        if over:
            handle.cancel()

    def stop(self) -> None:
        """Begin nothing more, and cancel what is in flight. Any thread."""
        with self._lock:
            self._over = True
            handles, self._handles = self._handles, set()
        for handle in handles:
            handle.cancel()


async def download_many(session: Session, jobs: list[_Job], concurrency: int) -> list[Outcome]:
    """In an event loop: the outcomes, in the order of the jobs."""
    many = _Many(session, jobs)
    await waiting.side_by_side([many.work for _ in range(min(concurrency, len(jobs)))])
    return many.results()


def download_many_blocking(session: Session, jobs: list[_Job], concurrency: int) -> list[Outcome]:
    """In threads: the outcomes, in the order of the jobs. Ctrl-C cancels them all."""
    many = _Many(session, jobs)
    count = min(concurrency, len(jobs))
    if count <= 1:
        run(many.work())
        return many.results()
    fatal: list[BaseException] = []

    def work() -> None:
        try:
            run(many.work())
        except BaseException as error:
            fatal.append(error)
            many.stop()

    threads = [
        threading.Thread(target=copy_context().run, args=(work,), name=f"katipo-download-{i}") for i in range(count)
    ]
    begun: list[threading.Thread] = []
    try:
        for thread in threads:
            thread.start()
            begun.append(thread)
        for thread in begun:
            thread.join()
    except BaseException:
        many.stop()
        for thread in begun:
            thread.join()
        raise
    if fatal:
        raise fatal[0]
    return many.results()
