"""Means to test programs that use katipo, and katipo itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from .errors import BadOptions
from .pool import Pool, engine_fault

if TYPE_CHECKING:
    from ._fake_pool import FakePool, Handler

__all__ = ["FakePool", "Handler", "kill_worker"]

How = Literal["poller", "memory", "multi"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: programs that are not tests do not pay for it.
    if name in ("FakePool", "Handler"):
        from . import _fake_pool

        return getattr(_fake_pool, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def kill_worker(pool: Pool, index: int | None = None, how: How = "poller") -> None:
    """Make a worker die as it would of a fatal error: it fails what it holds with WorkerDied, and the pool replaces it.

    `index`: which of the pool's workers, from 0; None: the first that runs. `how`: what fails next in it, its poller
    ("poller"), an allocation ("memory") or a call of libcurl's multi interface ("multi"). It returns at once; the
    worker dies when it comes to the call.

    Raises:
        BadOptions: another `how`, or no such worker runs.
    """
    if how not in get_args(How):
        raise BadOptions(f'how: one of "poller", "memory", "multi", not {how!r}')
    if not engine_fault(pool, index, how):
        raise BadOptions("index: no worker runs" if index is None else f"index: no worker {index} runs")
