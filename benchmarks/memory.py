"""How much memory streams and requests in flight take: `python -m benchmarks.memory`. README.md says how to read it.

Every figure comes from a process of its own, which warms up with a few requests, resets the kernel's record of its peak
resident memory, does the work, and reads that record: no sampling, nothing is missed. Needs Linux.
"""

import argparse
import asyncio
import contextlib
import gc
import http.client
import json
import pathlib
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

from benchmarks import clients, servers
from benchmarks.cores import CLIENT_CORE, on_core
from benchmarks.scenarios.scenario import check

_KIB, _MIB = 1 << 10, 1 << 20
_PIECE = bytes(64 * _KIB)
_REQUESTS = 1000
_BODY_BYTES = 1024
_PAUSE_EVERY, _PAUSE_SECONDS = 64 * _MIB, 0.1  # sixteen stops in 1 GiB, each long enough to fill any buffer on the way
_UPLOAD_SECONDS = 5  # how long the slow server takes for the whole body


@dataclass(frozen=True)
class Order:
    """What to do, where: `base` is the server to talk to, `origin` the plain one behind it."""

    figure: str
    base: str
    origin: str
    authority: str | None
    size: int


@dataclass(frozen=True)
class Growth:
    """Peak resident memory above the baseline, in bytes, and how long it took, in seconds."""

    peak: int
    elapsed: float


class Peak:
    """The kernel's record of this process's peak resident memory, from now on."""

    def __init__(self) -> None:
        gc.collect()
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        self._baseline = _status("VmRSS")

    def growth(self) -> int:
        """Return by how many bytes the peak since then lies above where it started."""
        return _status("VmHWM") - self._baseline


def _status(field: str) -> int:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * _KIB
    raise RuntimeError(f"no {field} in /proc/self/status")


async def _download(client: clients.Adapter, order: Order) -> None:
    next_pause = _PAUSE_EVERY

    async def pause(total: int) -> None:
        nonlocal next_pause
        if total >= next_pause:
            next_pause += _PAUSE_EVERY
            await asyncio.sleep(_PAUSE_SECONDS)

    check(await client.download(f"{order.base}/big?size={order.size}", pause), order.size)


async def _upload(client: clients.Adapter, order: Order) -> None:
    url = f"{order.base}/slow-upload?rate={order.size // _UPLOAD_SECONDS}"
    check(await client.upload(url, _PIECE, order.size // len(_PIECE)), order.size)


async def _in_flight(client: clients.Adapter, order: Order) -> None:
    """Have the server hold every answer until it has every request, then let them all come at once."""
    url = f"{order.base}/hold?size={_BODY_BYTES}"
    requests = asyncio.gather(*(client.get(url) for _ in range(_REQUESTS)))
    while not requests.done() and _origin_number(order.origin, "/held") < _REQUESTS:
        await asyncio.wait([requests], timeout=0.02)
    _origin_number(order.origin, "/release")
    for length in await requests:
        check(length, _BODY_BYTES)


def _origin_number(origin: str, path: str) -> int:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(origin).netloc)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return int(connection.getresponse().read())


_FIGURES: dict[str, Callable[[clients.Adapter, Order], Awaitable[None]]] = {
    "download": _download,
    "upload": _upload,
    "in-flight": _in_flight,
    "in-flight-tls": _in_flight,
}


async def _measure(adapter: type[clients.Adapter], order: Order) -> Growth:
    async with adapter(order.authority) as client:
        for _ in range(4):
            check(await client.get(f"{order.base}/small"), 1024)
        _origin_number(order.origin, "/held")
        peak, start = Peak(), time.perf_counter()
        await _FIGURES[order.figure](client, order)
        return Growth(peak.growth(), time.perf_counter() - start)


def _run(name: str, order: Order) -> Growth:
    """Measure in a fresh process; raises CalledProcessError when that fails."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--measure", name, json.dumps(asdict(order))],
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=on_core(CLIENT_CORE),
    )
    return Growth(**json.loads(answer.stdout))


def _report(name: str, figure: str, growth: Growth, size: int) -> str:
    peak = growth.peak / _MIB
    if figure.startswith("in-flight"):
        beyond = (growth.peak - _REQUESTS * _BODY_BYTES) / _REQUESTS / _KIB
        scheme = "HTTPS" if figure.endswith("tls") else "HTTP"
        what = f"{_REQUESTS:,} buffered requests in flight, {scheme}"
        return f"| {name} | {what} | {peak:.1f} MiB: {beyond:.1f} KiB each beyond the body | {growth.elapsed:.1f} |"
    what = "down, the consumer pausing" if figure == "download" else "up, the server reading slowly"
    return f"| {name} | {size // _MIB:,} MiB {what} | {peak:.1f} MiB | {growth.elapsed:.1f} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="streams of 128 MiB instead of 1 GiB")
    parser.add_argument("--clients", default="katipo", help=f"of {', '.join(clients.NAMES)}; separated by commas")
    parser.add_argument("--figures", default=",".join(_FIGURES), help=f"of {', '.join(_FIGURES)}; separated by commas")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure and print a table; with --measure, be one of the measured processes."""
    options = _options()
    if options.measure:
        name, order = options.measure
        growth = asyncio.run(_measure(clients.load(name), Order(**json.loads(order))))
        print(json.dumps(asdict(growth)))
        return
    size = 128 * _MIB if options.quick else 1024 * _MIB
    print("| client | what | growth of resident memory | s |\n| --- | --- | ---: | ---: |")
    with servers.running() as found:
        for name in options.clients.split(","):
            for figure in options.figures.split(","):
                tls = figure.endswith("tls")
                base, authority = (found.tls.base, found.authority) if tls else (found.plain.base, None)
                growth = _run(name, Order(figure, base, found.plain.base, authority, size))
                print(_report(name, figure, growth, size), flush=True)


if __name__ == "__main__":
    main()
