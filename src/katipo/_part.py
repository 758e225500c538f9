"""The part of a download: `NAME.part` beside the target, until it is whole; and `NAME.part.json`, what it is a part of.

The record says which URL the part is of (a digest: URLs may carry signatures), and the validator under which the rest may
be asked for (RFC 9110 13.1.5). Without one there is nothing to go on with, and a part that failed is removed.

Whoever works on a part holds a lock on it (`flock`). The worker's descriptor is a copy and holds it too: as long as a write
may come, nobody else can begin. Bytes are written in order, so a part's size is how far it has come. (After a loss of
power that need not be true: whoever must know gives a digest.)

Every method may block on the disk. They may be called from any thread, one at a time, but for close(), which may come at
any moment: what has not begun by then does nothing.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from typing import Any, Final, cast

from .errors import BadOptions, RequestError

__all__ = ["Closed", "Part", "strong_validator"]

_READ_AT_ONCE: Final = 1 << 20
"""Bytes hashed between two looks at whether to go on. Arbitrary."""

_open_parts: set[Part] = set()
"""Changed by single operations, which the GIL makes atomic. A forked child must not hold their locks."""


class Closed(Exception):
    """The part was closed before this could be done: whoever asked has gone."""


class Part:
    """The part of one target. Nothing is touched before `begin`."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.path = f"{target}.part"
        self.record_path = f"{target}.part.json"
        self.validator: str | None = None
        """What the rest may be asked for with (If-Range)."""
        self._lock = threading.Lock()
        self._fd = -1
        self._closed = False
        self._begun = False

    # ------------------------------------------------------------------------------------------------ looking

    def find(self, url: str, resume: bool) -> int:
        """Bytes that are there of this URL and can be gone on from; the part is locked if it is there at all.

        Raises BadOptions where another download holds it, or the target is a folder; OSError.
        """
        with self._lock:
            self._check_open()
            if os.path.isdir(self.target):
                raise BadOptions("path: it is a folder")
            if not os.path.isdir(os.path.dirname(self.target) or "."):
                raise FileNotFoundError(errno.ENOENT, "the folder of the download's path is not there")
            if not self._open(create=False) or not resume:
                return 0
            record = self._read_record()
            if record is None or record.get("url") != _digest_of(url):
                return 0
            validator = record.get("validator")
            if not isinstance(validator, str):
                return 0
            self.validator = validator
            return os.fstat(self._fd).st_size

    def _open(self, *, create: bool) -> bool:
        """Open and lock it. False: it is not there."""
        import fcntl

        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        while self._fd < 0:
            try:
                fd = os.open(self.path, flags, 0o666)
            except FileNotFoundError:
                if create:
                    raise
                return False
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise BadOptions("path: what stands in its part's place is not a regular file")
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise BadOptions("path: another download to it is under way") from None
                if self._is_still(fd):
                    self._fd, fd = fd, -1
                    _open_parts.add(self)
            finally:
                if fd >= 0:
                    os.close(fd)
        return True

    def _is_still(self, fd: int) -> bool:
        """Whether the file that was locked is the part: another download may just have made it the target."""
        try:
            now = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(now, os.fstat(fd))

    def _read_record(self) -> dict[str, Any] | None:
        """None: there is none that can be read; then the download starts over."""
        import json

        try:
            with open(self.record_path, encoding="utf-8") as file:
                record: object = json.load(file)
        except (FileNotFoundError, ValueError):
            return None
        return cast("dict[str, Any]", record) if isinstance(record, dict) else None

    # ------------------------------------------------------------------------------------------------ writing

    def begin(self, url: str, validator: str | None) -> None:
        """Start over: an empty part, and its record, if a failed download can be gone on from. Raises as find()."""
        with self._lock:
            self._check_open()
            self._open(create=True)
            self._begun = True
            os.ftruncate(self._fd, 0)
            self.validator = validator
            if validator is None:
                _remove(self.record_path)
                return
            import json

            fresh = f"{self.record_path}.new"
            with open(fresh, "w", encoding="utf-8", opener=_open_no_link) as file:
                json.dump({"url": _digest_of(url), "validator": validator}, file)
            os.replace(fresh, self.record_path)

    def receive(self, write: Callable[[int], None]) -> None:
        """Have the rest written to it: `write` is given the descriptor, of which it makes one of its own."""
        with self._lock:
            self._check_open()
            write(self._fd)

    # ------------------------------------------------------------------------------------------------ the end

    def finish(self, size: int, sha256: str | bool) -> str | None:
        """It is whole: check it, make it durable, and make it the target. Returns its digest, if that was asked for.

        `sha256`: False, True, or the digest that is expected, in lower case.
        Raises RequestError ("sha256_mismatch") for another digest, the part removed; OSError; Closed.
        """
        with self._lock:
            self._check_open()
            fd, self._fd = self._fd, -1  # ours: close() must not close it under us
        is_part = True
        try:
            if os.fstat(fd).st_size != size:
                raise OSError(errno.EIO, "the download's part has another size than was written")
            digest = self._hashed(fd) if sha256 else None
            if isinstance(sha256, str) and digest != sha256:
                self._remove_both()
                raise RequestError(
                    "the SHA-256 of what was downloaded is not the one that was expected", code="sha256_mismatch"
                )
            os.fsync(fd)
            with self._lock:
                self._check_open()
                os.replace(self.path, self.target)
                is_part = False
                _remove(self.record_path)
            _sync_folder(self.target)
            return digest
        except BaseException:
            if is_part and self.validator is None:
                self._remove_both()
            raise
        finally:
            _open_parts.discard(self)
            os.close(fd)

    def _hashed(self, fd: int) -> str:
        import hashlib

        digest = hashlib.sha256()
        offset = 0
        while data := os.pread(fd, _READ_AT_ONCE, offset):
            digest.update(data)
            offset += len(data)
            if self._closed:
                raise Closed
        return digest.hexdigest()

    def close(self) -> None:
        """Let go of it. What can be gone on from stays, the rest of what was begun is removed. Idempotent."""
        with self._lock:
            self._closed = True
            fd, self._fd = self._fd, -1
            if fd < 0:
                return
            try:
                if self._begun and (self.validator is None or os.fstat(fd).st_size == 0):
                    self._remove_both()
            finally:
                _open_parts.discard(self)
                os.close(fd)

    def _remove_both(self) -> None:
        _remove(self.path)
        _remove(self.record_path)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed

    def forget(self) -> None:
        """In a forked child: the parent has it."""
        fd, self._fd = self._fd, -1
        self._closed = True
        self._lock = threading.Lock()
        if fd >= 0:
            os.close(fd)


def _forget_all() -> None:
    while _open_parts:
        _open_parts.pop().forget()


os.register_at_fork(after_in_child=_forget_all)


def _digest_of(url: str) -> str:
    import hashlib

    return hashlib.sha256(url.encode()).hexdigest()


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _sync_folder(path: str) -> None:
    """Make a rename durable."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def strong_validator(etag: str | None, last_modified: str | None, date: str | None) -> str | None:
    """What a range of the same representation can be asked for with (If-Range), of a response's headers; or None.

    A strong ETag; or else a Last-Modified that is at least one second older than the response: it is strong then (RFC 9110
    8.8.2.2). A weak ETag beside it does not make it weaker.
    """
    if etag is not None and len(etag) >= 2 and etag[0] == etag[-1] == '"':
        return etag
    if last_modified is None or date is None:
        return None
    from email.utils import parsedate_to_datetime

    try:
        changed, sent = parsedate_to_datetime(last_modified), parsedate_to_datetime(date)
        return last_modified if (sent - changed).total_seconds() >= 1 else None
    except (ValueError, TypeError):  # no dates; or one of them is without a zone
        return None
