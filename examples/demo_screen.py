"""What the demonstration prints: headings, one line of progress at a time, bars, and checks.

On a terminal the line of progress is rewritten in place and there is colour (not with NO_COLOR); elsewhere, progress is
left out and only what stays is printed.
"""

import ctypes
import gc
import os
import pathlib
import sys
import time
from dataclasses import dataclass, field

import katipo

_BAR_WIDTH = 48
_REDRAW_SECONDS = 0.05
_PHASES = (
    ("waiting for a turn", "queue_time", "."),
    ("name lookup", "namelookup_time", "n"),
    ("TCP connect", "connect_time", "c"),
    ("TLS handshake", "appconnect_time", "t"),
    ("getting ready", "pretransfer_time", "g"),
    ("sent, waiting", "starttransfer_time", "w"),
    ("receiving", "total_time", "r"),
)


@dataclass
class Screen:
    """Standard output, and how many checks have failed so far."""

    failed: int = 0
    checked: int = 0
    _terminal: bool = field(default_factory=sys.stdout.isatty)
    _sections: int = 0
    _drawn_at: float = 0.0

    def section(self, title: str, text: str) -> None:
        """Begin a section."""
        self._sections += 1
        self.line(f"\n{self._style('1', f'{self._sections}. {title}')}\n   {self._style('2', text)}")

    def line(self, text: str) -> None:
        """Print a line that stays, in place of the line of progress."""
        print(f"\r\x1b[K{text}" if self._terminal else text, flush=True)

    def progress(self, text: str, *, part: float | None = None) -> None:
        """Show how far it is; `part` of the whole, from 0 to 1, as a bar before the text."""
        if not self._terminal or time.monotonic() - self._drawn_at < _REDRAW_SECONDS:
            return
        self._drawn_at = time.monotonic()
        bar = "" if part is None else f"[{'#' * round(part * 24):<24}] "
        print(f"\r\x1b[K   {bar}{text}", end="", flush=True)

    def check(self, passed: bool, text: str) -> None:
        """Print a check, and remember it when it failed."""
        self.checked += 1
        self.failed += not passed
        self.line(f"   {self._style('32', 'ok') if passed else self._style('1;31', 'FAILED')}: {text}")

    def timeline(self, metrics: katipo.Metrics) -> None:
        """Draw where the time of a request went: one bar for each phase that took place, in its place."""
        whole = metrics.queue_time + metrics.total_time
        end = 0.0
        for name, attribute, mark in _PHASES:
            since, until = end, getattr(metrics, attribute) + (metrics.queue_time if attribute != "queue_time" else 0)
            if until <= since:
                continue
            end = until
            left, right = (round(at / whole * _BAR_WIDTH) for at in (since, until))
            bar = " " * min(left, _BAR_WIDTH - 1) + mark * max(right - left, 1)
            self.line(f"   {name:<22} |{bar:<{_BAR_WIDTH}}| {milliseconds(until - since):>10}")
        where = "a new connection" if metrics.connections_opened else "a connection that was open already"
        self.line(
            f"   {milliseconds(whole)} in all for {size(metrics.bytes_received)}, on {where}, "
            f"to {metrics.primary_ip} port {metrics.primary_port}"
        )

    def _style(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._terminal and not os.environ.get("NO_COLOR") else text


def milliseconds(seconds: float) -> str:
    """Return a time for people."""
    return f"{seconds * 1000:,.2f} ms"


def size(count: int) -> str:
    """Return a number of bytes for people."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(count) >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count} bytes"


def resident_bytes(*, trimmed: bool = False) -> int:
    """Return the memory that this process holds now; 0 where the system does not say.

    `trimmed`: first give back what earlier sections have freed, so that what comes cannot hide in it.
    """
    if trimmed:
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc has it
            trim(0)
    statm = pathlib.Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
