"""Which core the servers run on and which the clients, and the limits that both need."""

import os
import resource
from collections.abc import Callable

_CORES = sorted(os.sched_getaffinity(0))

CLIENT_CORE = _CORES[0]
SERVER_CORE = _CORES[-1]
SHARED = CLIENT_CORE == SERVER_CORE
"""True on a machine with one core: servers and clients then take turns, and the figures say little."""


def on_core(core: int) -> Callable[[], None]:
    """Return what a child process runs before it starts: pinned to `core`, with as many descriptors as it may have."""

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    return prepare
