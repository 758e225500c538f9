"""Where a request's time went: libcurl's own timers, and the time spent waiting for a turn.

The timers are cumulative, as CURLINFO_*_TIME_T are: each counts from the start of the transfer, not from the one
before.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ._frozen import dataclass

if TYPE_CHECKING:
    from struct import Struct

__all__ = ["Metrics"]

METRICS_FORMAT: Final = "=13q46s2x"
"""What Metrics.unpack takes, equal to the engine's: eight times in microseconds (queue, namelookup, connect,
appconnect, pretransfer, starttransfer, redirect, total), bytes sent and received, connections opened, primary and
local port, and the primary IP, NUL-padded (46 is INET6_ADDRSTRLEN)."""

_US: Final = 1_000_000


@lru_cache(maxsize=1)
def _layout() -> Struct:
    from struct import Struct

    return Struct(METRICS_FORMAT)


@dataclass(frozen=True, slots=True)
class Metrics:
    """The measurements of one request. Times in seconds, sizes in bytes; 0 where a phase did not take place.

    `queue_time` is the time in katipo before libcurl had the request, and is not part of `total_time`. `redirect_time`
    is the time of all transfers before the last, `connections_opened` 0 where an open connection was used.
    """

    queue_time: float = 0.0
    namelookup_time: float = 0.0
    connect_time: float = 0.0
    appconnect_time: float = 0.0
    pretransfer_time: float = 0.0
    starttransfer_time: float = 0.0
    redirect_time: float = 0.0
    total_time: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    connections_opened: int = 0
    primary_ip: str = ""
    primary_port: int = 0
    local_port: int = 0

    @classmethod
    def unpack(cls, blob: bytes) -> Metrics:
        """From the engine's record, laid out as METRICS_FORMAT. Raises struct.error for one of another size."""
        q, n, c, a, p, s, r, t, sent, received, opened, primary_port, local_port, ip = _layout().unpack(blob)
        return cls(
            q / _US,
            n / _US,
            c / _US,
            a / _US,
            p / _US,
            s / _US,
            r / _US,
            t / _US,
            sent,
            received,
            opened,
            ip.partition(b"\0")[0].decode("ascii", "replace"),
            primary_port,
            local_port,
        )
