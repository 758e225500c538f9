"""The process of one client: takes scenarios as lines of JSON on standard input and answers each with its figures.

Run by `compare`, pinned to the clients' core. A fresh session is made for every round, and warmed up before the clock
runs.
"""

import asyncio
import gc
import json
import os
import pathlib
import resource
import sys
import time
from dataclasses import asdict, dataclass

from benchmarks import clients
from benchmarks.scenarios import SCENARIOS, Effort


@dataclass(frozen=True)
class Order:
    """One round of one scenario."""

    scenario: str
    base: str
    authority: str | None
    server: int
    seconds: float
    size: int


@dataclass(frozen=True)
class Figures:
    """What it took: requests or bytes; seconds of wall clock, and of CPU (user and system) of client and server."""

    amount: int
    elapsed: float
    cpu: float
    server_cpu: float


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _cpu_seconds_of(process: int) -> float:
    """Return another process's CPU time so far; counted in ticks of 10 ms."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _measure(adapter: type[clients.Adapter], order: Order) -> Figures:
    scenario = SCENARIOS[order.scenario]
    async with adapter(order.authority) as client:
        await scenario.warm_up(client, order.base)
        gc.collect()
        server_cpu, cpu, start = _cpu_seconds_of(order.server), _cpu_seconds(), time.perf_counter()
        amount = await scenario.run(client, order.base, Effort(order.seconds, order.size))
        elapsed, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
        return Figures(amount, elapsed, cpu, _cpu_seconds_of(order.server) - server_cpu)


def main(name: str) -> None:
    """Serve orders for client `name` until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a client prints must not end up among the answers
    adapter = clients.load(name)
    for line in sys.stdin:
        figures = asyncio.run(_measure(adapter, Order(**json.loads(line))))
        print(json.dumps(asdict(figures)), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
