"""Waiting for a condition that nothing announces: the one place in the suites that polls.

Where the thing to wait for can be waited for (an event, a process, a socket), wait for that instead.
"""

import time
from collections.abc import Callable

# Short enough that a test does not feel it, long enough that a waiting test costs no CPU worth counting.
INTERVAL = 0.01


def wait_until(predicate: Callable[[], object], timeout: float = 10.0, message: str = "") -> None:
    """Return when `predicate()` is true; raise TimeoutError with `message` when that takes more than `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() >= deadline:
            raise TimeoutError(message or f"not within {timeout} s: {predicate}")
        time.sleep(INTERVAL)
