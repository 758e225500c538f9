"""What `Pool` may be called with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict

from ._curl_options import Problems, Refused, checked_bytes, checked_int
from ._option_table import INT_MAX, checked_flag

if TYPE_CHECKING:

    class PoolOptions(TypedDict):
        """A pool's options as the engine takes them: 0 (for max_idle_connections -1) where there is no limit."""

        workers: int
        multiplexing: bool
        max_total_connections: int
        max_host_connections: int
        max_idle_connections: int
        max_concurrent_streams: int
        max_in_flight: int
        name: bytes


_WORKERS_MAX: Final = 1024
"""Arbitrary: each is a thread, and one is enough for most programs."""


def check_pool_options(
    workers: object = 1,
    *,
    multiplexing: object = True,
    max_total_connections: object = 0,
    max_host_connections: object = 0,
    max_idle_connections: object = None,
    max_concurrent_streams: object = 100,
    max_in_flight: object = None,
    name: object = None,
) -> PoolOptions:
    """Check what `Pool` is called with. Raises BadOptions naming every offender."""
    problems = Problems()

    def checked(option: str, value: object, low: int, high: int = INT_MAX) -> int:
        try:
            return checked_int(value, low, high)
        except Refused as refused:
            problems.refuse(option, refused)
        except Exception:
            problems.add(f"{option}: could not be read")
        return low

    options: PoolOptions = {
        "workers": checked("workers", workers, 1, _WORKERS_MAX),
        "multiplexing": True,
        "max_total_connections": checked("max_total_connections", max_total_connections, 0),
        "max_host_connections": checked("max_host_connections", max_host_connections, 0),
        "max_idle_connections": -1,
        "max_concurrent_streams": checked("max_concurrent_streams", max_concurrent_streams, 1),
        "max_in_flight": 0,
        "name": b"",
    }
    if max_idle_connections is not None:
        options["max_idle_connections"] = checked("max_idle_connections", max_idle_connections, 0)
    if max_in_flight is not None:
        options["max_in_flight"] = checked("max_in_flight", max_in_flight, 1)
    try:
        options["multiplexing"] = checked_flag(multiplexing)
    except Refused as refused:
        problems.refuse("multiplexing", refused)
    if name is not None:
        try:
            options["name"] = checked_bytes(name, what="str")
        except Refused as refused:
            problems.refuse("name", refused)
    problems.raise_if_any()
    return options
