"""What a client's download returns."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ._frozen import Frozen

if TYPE_CHECKING:
    from pathlib import Path

    from .headers import Headers
    from .metrics import Metrics

__all__ = ["Download"]


class Download(Frozen):
    """A file that was downloaded."""

    __slots__ = ("headers", "metrics", "path", "resumed_from", "sha256", "size", "status_code")

    path: Path
    size: int
    """Bytes of the whole file."""
    status_code: int
    """Of the last response: 200, 206, or 416 where nothing was missing but the end."""
    headers: Headers
    resumed_from: int
    """Bytes that were there from an earlier download; 0: it was made anew."""
    sha256: str | None
    """In hexadecimal, if it was asked for."""
    metrics: Metrics
    """Of the last transfer."""

    def __init__(
        self,
        path: Path,
        size: int,
        status_code: int,
        headers: Headers,
        resumed_from: int,
        sha256: str | None,
        metrics: Metrics,
    ) -> None:
        self._set(headers, metrics, path, resumed_from, sha256, size, status_code)

    def __repr__(self) -> str:
        resumed = f" resumed_from={self.resumed_from}" if self.resumed_from else ""
        return f"<Download {os.fspath(self.path)!r} size={self.size}{resumed}>"
