"""Verbose transfers' lines, from the engine's buffer to the logger `katipo.curl`, with credentials and cookies hidden.

A daemon thread, started with the first verbose request, takes lines as they come, until the last pool is closed. Whoever
takes a verbose request's result flushes first, so that its lines are in the log before it goes on. The engine's functions
are passed in: see `pool`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from . import waiting
from ._pattern import pattern
from .errors import HIDDEN, is_secret_name, redact

if TYPE_CHECKING:
    import logging

__all__ = ["VerboseLog", "hide"]

Take = Callable[[], "tuple[int, list[tuple[int, bytes]]]"]

_JOIN_SECONDS: Final = 1.0
"""How long close waits for the last lines. Arbitrary: they are logged in a moment, or a log handler is stuck."""

_MARKS: Final = ("*", "<", ">")
"""As curl -v writes them, by curl_infotype: text, header in, header out."""

# A header field as it stands alone ("Cookie: a=b") and as libcurl's HTTP/2 and HTTP/3 code shows it
# ("[HTTP/2] [1] [cookie: a=b]").
_FIELD: Final = pattern(r"(^|\[)(:?[!#$%&'*+\-.^_`|~0-9A-Za-z]+):(?=\s)(.*)$")
_TEXT: Final = (
    # lib/cookie.c: Added cookie name="value" for domain ..., Replaced cookie ...
    (pattern(r'(cookie \S+?)="?.*?"?( for domain |$)', re.IGNORECASE), rf"\1={HIDDEN}\2"),
    # lib/http.c: Server auth using Basic with user 'name', which may be the userinfo of a URL.
    (pattern(r"( with user )'.*'"), rf"\1'{HIDDEN}'"),
    # lib/vauth: what follows these words may be a secret.
    (pattern(r"\b(Basic|Bearer|Digest|NTLM|Negotiate) [A-Za-z0-9+/=._~-]{8,}.*"), rf"\1 {HIDDEN}"),
)


def hide(kind: int, line: str) -> str:
    """A line of libcurl's verbose output without credentials, cookie values and the userinfo of URLs."""
    field = _FIELD.search(line)
    if field is not None and is_secret_name(field[2]):
        return f"{line[: field.start(3)]} {HIDDEN}{']' if field[1] else ''}"
    if kind == 0:
        for pattern, shown in _TEXT:
            line = pattern.sub(shown, line)
    if line.endswith("]"):
        return redact(line[:-1]) + "]"
    return redact(line)


class VerboseLog:
    """The way from the engine to the logger. `take`: the engine's lines and how many were lost; `register`: its source."""

    def __init__(self, take: Take, register: waiting.Register) -> None:
        self._take = take
        self._register = register
        self._logger: logging.Logger | None = None
        self._thread: threading.Thread | None = None
        self._interrupt: waiting.Interrupt | None = None  # None: no thread runs, or it has been told to end
        # Held while lines are taken and logged, so that they stay in order and a flush means that they have been
        # logged. Reentrant, because a log handler may make a verbose request. Never taken by a finalizer.
        self._lock = threading.RLock()

    def start(self) -> None:
        """Start the thread unless it runs. A daemon: it must not keep the program alive."""
        if self._interrupt is None:
            with self._lock:
                if self._interrupt is None:
                    interrupt = self._interrupt = waiting.Interrupt()
                    self._thread = threading.Thread(target=self._run, args=(interrupt,), name="katipo-log", daemon=True)
                    self._thread.start()

    def stop(self) -> None:
        """Have the thread end when it has logged what is there. Takes no lock: a finalizer may call it."""
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            interrupt.set()

    def join(self) -> None:
        """Wait, for a moment, until the thread that was told to end has ended."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)

    def flush(self) -> None:
        """Log what is there."""
        with self._lock:
            lost, lines = self._take()
            if not lines and not lost:
                return
            logger = self._logger
            if logger is None:
                import logging  # not needed by programs that are not verbose

                logger = self._logger = logging.getLogger("katipo.curl")
            for kind, text in lines:
                mark = _MARKS[kind] if kind < len(_MARKS) else "?"
                for line in text.decode("utf-8", "replace").splitlines():
                    if line:
                        logger.debug("%s %s", mark, hide(kind, line))
            if lost:
                logger.debug("* %d lines were lost: the log was not read in time", lost)

    def _run(self, interrupt: waiting.Interrupt) -> None:
        while waiting.block_unless(self._register, interrupt):
            self.flush()
        self.flush()

    def after_fork_in_child(self) -> None:
        """The thread did not come along, nor may its lock's owner have."""
        self._lock = threading.RLock()
        self._thread = self._interrupt = None
