"""Small GETs: 1 KiB each, the whole response in Python."""

import asyncio
import time

from benchmarks.clients import Adapter

from .scenario import Effort, Scenario, check

_SMALL_BYTES = 1024
_AT_ONCE = 64
_WARM_UP_SECONDS = 0.2  # arbitrary: long enough for every connection to be open


async def _one_after_another(client: Adapter, url: str, until: float) -> int:
    count = 0
    while time.perf_counter() < until:
        check(await client.get(url), _SMALL_BYTES)
        count += 1
    return count


async def _at_once(client: Adapter, base: str, seconds: float) -> int:
    until = time.perf_counter() + seconds
    counts = await asyncio.gather(*(_one_after_another(client, f"{base}/small", until) for _ in range(_AT_ONCE)))
    return sum(counts)


async def _warm_up_at_once(client: Adapter, base: str) -> None:
    await _at_once(client, base, _WARM_UP_SECONDS)


async def _run_at_once(client: Adapter, base: str, effort: Effort) -> int:
    return await _at_once(client, base, effort.seconds)


async def _warm_up_one(client: Adapter, base: str) -> None:
    await _one_after_another(client, f"{base}/small", time.perf_counter() + _WARM_UP_SECONDS)


async def _run_one(client: Adapter, base: str, effort: Effort) -> int:
    return await _one_after_another(client, f"{base}/small", time.perf_counter() + effort.seconds)


AT_ONCE = Scenario(
    name="at-once",
    title="1 KiB GETs over HTTP/1.1, 64 awaited at once",
    unit="requests",
    server="plain",
    warm_up=_warm_up_at_once,
    run=_run_at_once,
)
ONE_AT_A_TIME = Scenario(
    name="one-by-one",
    title="1 KiB GETs over HTTP/1.1, one at a time",
    unit="requests",
    server="plain",
    warm_up=_warm_up_one,
    run=_run_one,
)
AT_ONCE_HTTP2 = Scenario(
    name="at-once-http2",
    title="1 KiB GETs over TLS and HTTP/2 (nginx), 64 awaited at once",
    unit="requests",
    server="http2",
    warm_up=_warm_up_at_once,
    run=_run_at_once,
    clients=("katipo", "katipo-pool", "wreq", "pycurl"),
)
