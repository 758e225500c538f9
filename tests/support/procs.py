"""Fresh interpreters that run a program text, and what this process holds: descriptors, threads, memory, CPU time.

The counts come from /proc, so they are those of the kernel and not of an allocator or of Python.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finished:
    """A program that has ended. `status` is negative when a signal ended it, as in subprocess."""

    status: int
    stdout: str
    stderr: str


def run_python(
    source: str,
    timeout: float = 30.0,
    *,
    env: Mapping[str, str] | None = None,
    args: Sequence[str] = (),
    options: Sequence[str] = (),
    cwd: Path | None = None,
) -> Finished:
    """Run `source` in a fresh interpreter that sees the installed package, with `args` in sys.argv[1:].

    `env` is added to this process's environment; `options` go to the interpreter (`-X dev`). faulthandler is on. Raises
    TimeoutError, with what the program had written, when it takes more than `timeout` seconds; it has then been killed.
    """
    command = [sys.executable, "-X", "faulthandler", *options, "-c", source, *args]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        raise TimeoutError(f"the program did not end within {timeout} s\nstdout: {stdout}\nstderr: {stderr}") from None
    return Finished(process.returncode, stdout, stderr)


def open_descriptors() -> dict[int, str]:
    """The descriptors of this process, each with what it refers to ("socket:[123]", "anon_inode:[eventpoll]", a path)."""
    found: dict[int, str] = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:
            continue  # the descriptor of this very listing
    return found


def threads() -> set[str]:
    """The kernel's ids of the threads in this process; the engine's workers and libcurl's resolvers included."""
    return set(os.listdir("/proc/self/task"))


def thread_count() -> int:
    """How many threads the kernel knows of in this process."""
    return len(threads())


def resident_bytes() -> int:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def cpu_seconds() -> float:
    """User and system time of all threads of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
