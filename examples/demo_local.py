"""The demonstration against its own server: what a pool does that a loop of requests does not."""

import asyncio
import collections
import time
from collections.abc import AsyncIterator

from demo_screen import Screen, milliseconds, resident_bytes, size

import katipo
from katipo.messages import Chunk

_MANY = 2000
_MANY_WAIT_MS = 300
_LOCK_STEPS = 20
_FLOOD_BYTES = 256 << 20
_STANDSTILL_SECONDS = 1.5
_HELD_MEMORY_BYTES = 32 << 20
_UNDER_LOAD = 300
_KILL_AFTER_SECONDS = 0.2  # well within the half second that the server takes over each answer


async def show(screen: Screen, base: str) -> None:
    """Run every section; each makes its own pool, which is closed when it ends."""
    for section in (_many, _both_ways, _slow_consumer, _cancel, _worker_killed, _where_time_went):
        await section(screen, base)


async def _counter(pool: katipo.Pool, base: str, name: str) -> int:
    response = await pool.async_get(f"{base}/counters")
    return int(response.json()[name])


async def _many(screen: Screen, base: str) -> None:
    screen.section(
        f"{_MANY:,} requests in flight on one pool",
        f"One native thread; the server takes {_MANY_WAIT_MS} ms over each answer.",
    )
    right = peak = 0
    async with katipo.Pool() as pool:
        for what in ("on new connections", "on the same again"):
            start = time.perf_counter()
            handles = [pool.async_get(f"{base}/wait?ms={_MANY_WAIT_MS}&n={n}") for n in range(_MANY)]
            submitted = time.perf_counter() - start
            answers = asyncio.gather(*handles)
            while not answers.done():
                now = pool.statistics()
                peak = max(peak, now.in_flight)
                done = _MANY - now.in_flight
                screen.progress(f"{done:,} answered, {now.in_flight:,} in flight", part=done / _MANY)
                await asyncio.wait([answers], timeout=0.02)
            responses, elapsed = await answers, time.perf_counter() - start
            screen.line(
                f"   {what}: submitted in {milliseconds(submitted)}, answered in {elapsed:.2f} s, "
                f"{_MANY / elapsed:,.0f} a second; at most {peak:,} in flight, {pool.statistics().connections:,} open"
            )
            right += sum(response.content == b"%d" % n for n, response in enumerate(responses))
        screen.check(
            right == 2 * _MANY and peak > _MANY // 2, f"{right:,} of {2 * _MANY:,} answers belong to their requests"
        )


async def _both_ways(screen: Screen, base: str) -> None:
    screen.section(
        "A body up and a response down at the same time",
        "The server sends each piece back at once; piece n+1 goes up when piece n has come down.",
    )
    async with katipo.Pool() as pool:
        handle = pool.async_post(f"{base}/echo", stream=True, stream_body=True)
        async with handle:
            messages = aiter(handle)
            rounds: list[float] = []
            came_back = 0
            await handle.asend_body(_piece(0))
            for n in range(_LOCK_STEPS):
                sent = time.perf_counter()
                came_back += await _read_exactly(messages, len(_piece(n))) == _piece(n)
                rounds.append(time.perf_counter() - sent)
                screen.progress(f"piece {n + 1} of {_LOCK_STEPS} is back", part=(n + 1) / _LOCK_STEPS)
                if n + 1 < _LOCK_STEPS:
                    await handle.asend_body(_piece(n + 1))
            handle.finish_body()
            ended = [message async for message in messages]
        screen.line(f"   one piece there and back: {milliseconds(sorted(rounds)[len(rounds) // 2])} (median)")
        screen.check(
            came_back == _LOCK_STEPS and len(ended) == 1,
            f"{came_back} of {_LOCK_STEPS} pieces came back before the next was sent, then the end",
        )


def _piece(n: int) -> bytes:
    return b"piece %d;" % n * 100


async def _read_exactly(messages: AsyncIterator[katipo.Message], length: int) -> bytes:
    """Return the next `length` bytes of a stream: chunks come as they come."""
    data = b""
    while len(data) < length:
        message = await anext(messages)
        if isinstance(message, Chunk):
            data += message.data
    return data


async def _slow_consumer(screen: Screen, base: str) -> None:
    screen.section(
        "A slow consumer holds a fast server back",
        f"The server sends {size(_FLOOD_BYTES)} as fast as it can; the consumer takes one chunk, then sleeps.",
    )
    async with katipo.Pool() as pool, katipo.Pool() as watch:
        before = resident_bytes(trimmed=True)
        handle = pool.async_get(f"{base}/flood?size={_FLOOD_BYTES}", stream=True)
        async with handle:
            messages = aiter(handle)
            taken = len(await _first_chunk(messages))
            await _stand_still(watch, base)
            sent = await _counter(watch, base, "flood_bytes")
            until = time.monotonic() + _STANDSTILL_SECONDS
            while time.monotonic() < until:
                screen.progress(f"asleep: {size(taken)} taken, {size(resident_bytes() - before)} more memory held")
                await asyncio.sleep(0.05)
            later = await _counter(watch, base, "flood_bytes")
            peak = resident_bytes()
            screen.line(f"   asleep: {size(taken)} taken, {size(sent)} sent, most of it in the kernel's socket buffers")
            screen.line(f"   {_STANDSTILL_SECONDS} s later: {size(later)} sent, {size(later - sent)} more than before")
            async for message in messages:
                if isinstance(message, Chunk):
                    taken += len(message.data)
                    peak = max(peak, resident_bytes())
                    screen.progress(f"awake: {size(taken)} taken", part=taken / _FLOOD_BYTES)
        screen.line(f"   awake: all {size(taken)} taken; this process's memory grew by at most {size(peak - before)}")
        screen.check(
            later == sent and taken == _FLOOD_BYTES and peak - before < _HELD_MEMORY_BYTES,
            "the server stood still while the consumer slept, and nothing was lost",
        )


async def _first_chunk(messages: AsyncIterator[katipo.Message]) -> bytes:
    async for message in messages:
        if isinstance(message, Chunk):
            return message.data
    return b""


async def _stand_still(pool: katipo.Pool, base: str) -> None:
    """Return when the server's counter has not moved for 0.2 s, after 3 s at the latest: every buffer is full."""
    last, deadline = -1, time.monotonic() + 3
    while (sent := await _counter(pool, base, "flood_bytes")) != last and time.monotonic() < deadline:
        last = sent
        await asyncio.sleep(0.2)


async def _cancel(screen: Screen, base: str) -> None:
    screen.section("A cancel", "An answer without end is cancelled while it drips in; the server notices.")
    async with katipo.Pool() as pool:
        before = await _counter(pool, base, "hung_up")
        handle = pool.async_get(f"{base}/drip", stream=True)
        messages, outcome, chunks = aiter(handle), "no error", 0
        async for message in messages:
            chunks += isinstance(message, Chunk)
            if chunks == 10:
                break
            screen.progress(f"{chunks} chunks taken")
        start = time.perf_counter()
        handle.cancel()
        try:
            async for _ in messages:
                chunks += 1
        except katipo.Cancelled:
            outcome = "Cancelled"
        took = time.perf_counter() - start
        deadline, hung_up = time.monotonic() + 3, before
        while hung_up == before and time.monotonic() < deadline:
            hung_up = await _counter(pool, base, "hung_up")
            await asyncio.sleep(0.01)
        screen.line(f"   the consumer got {outcome} after {milliseconds(took)}")
        screen.check(
            outcome == "Cancelled" and chunks == 10 and hung_up == before + 1,
            "no chunk came after the cancel, and the server saw the connection close",
        )


async def _worker_killed(screen: Screen, base: str) -> None:
    half = _UNDER_LOAD // 2
    screen.section(
        "A worker is killed under load and replaced",
        f"Two workers with {half} requests each; the poller of one is made to fail.",
    )
    async with katipo.Pool(workers=2, max_in_flight=half) as pool:
        first = await _load(screen, pool, base, kill=True)
        screen.line(f"   under the kill: {_tally(first)}; restarts: {pool.statistics().restarts}")
        second = await _load(screen, pool, base, kill=False)
        statistics = pool.statistics()
        screen.line(f"   afterwards: {_tally(second)}; workers: {statistics.workers}")
        screen.check(
            first == {"ok": half, "worker_died": half} and statistics.restarts == 1 and second == {"ok": _UNDER_LOAD},
            "each request of the dead worker failed once, its neighbour's and all further ones are fine",
        )


async def _load(screen: Screen, pool: katipo.Pool, base: str, *, kill: bool) -> dict[str, int]:
    """Have all requests in flight, kill a worker if asked to, and return how many ended how."""
    handles = [pool.async_get(f"{base}/wait?ms=500&n={n}") for n in range(_UNDER_LOAD)]
    ends = asyncio.gather(*handles, return_exceptions=True)
    if kill:
        await asyncio.wait([ends], timeout=_KILL_AFTER_SECONDS)
        screen.line(f"   killed with {pool.statistics().in_flight} requests in flight")
        katipo.testing.kill_worker(pool)
    while not ends.done():
        screen.progress(f"{sum(handle.done() for handle in handles)} of {_UNDER_LOAD} have ended")
        await asyncio.wait([ends], timeout=0.02)
    return dict(collections.Counter(_name(end) for end in await ends))


def _name(end: katipo.Response | BaseException) -> str:
    if isinstance(end, katipo.Error):
        return end.code
    return "ok" if isinstance(end, katipo.Response) and end.is_success else repr(end)


def _tally(ends: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(ends.items()))


async def _where_time_went(screen: Screen, base: str) -> None:
    screen.section(
        "Where the time of a request went",
        "The server thinks for 40 ms, then sends four pieces, 40 ms apart; then the same once more.",
    )
    async with katipo.Pool() as pool:
        first = (await pool.async_get(f"{base}/parts?ms=40")).metrics
        screen.timeline(first)
        second = (await pool.async_get(f"{base}/parts?ms=40")).metrics
        screen.timeline(second)
        opened = [first.connections_opened, second.connections_opened]
        thinking = second.starttransfer_time - second.pretransfer_time
        receiving = second.total_time - second.starttransfer_time
        screen.check(
            opened == [1, 0] and 0.035 < thinking < 0.5 and 0.11 < receiving < 0.5,
            "the pauses are where the server made them, and the second request used the first one's connection",
        )
