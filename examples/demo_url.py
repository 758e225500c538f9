"""The demonstration against a server that was named: what makes sense with any, and does no harm to it."""

import asyncio
import collections
import time

from demo_screen import Screen, milliseconds, size

import katipo
from katipo.messages import Chunk, Started

_AT_ONCE = 20
_TAKE_BYTES = 8 << 20
_TAKE_SECONDS = 6.0
_PAUSE_SECONDS = 0.1
_WHOLE_BYTES = 1 << 20  # what is larger is asked for with HEAD, where it is asked for many times
_MOST_BYTES = 16 << 20
_GLANCE_BYTES = 64 << 10
_PATIENCE = katipo.Timeout(8.0, total=15.0)
_OPTIONS: katipo.RequestOptions = {"timeout_ms": 8_000, "followlocation": True, "max_response_bytes": _MOST_BYTES}


async def show(screen: Screen, url: str) -> None:
    """Run every section, but for the client's on one pool; an error of the first request ends the demonstration."""
    async with katipo.Pool() as pool, katipo.AsyncClient(follow_redirects=True, timeout=_PATIENCE) as client:
        if not await _client(screen, client, url):
            return
        length = await _one(screen, pool, url)
        if length is not None:
            await _slow_consumer(screen, pool, url)
            await _cancel(screen, pool, url)
            await _several(screen, pool, "GET" if length <= _WHOLE_BYTES else "HEAD", url)


async def _client(screen: Screen, client: katipo.AsyncClient, url: str) -> bool:
    """Whether there was an answer."""
    screen.section("A client", "A GET whose redirects are followed, read as it comes, and left after 64 KiB.")
    try:
        async with client.stream("GET", url) as response:
            for each in response.history:
                screen.line(f"   {each.status_code} {each.url.redacted()}")
            screen.line(f"   {response.status_code} {response.url.redacted()}, {response.http_version}")
            taken = 0
            async for piece in response.aiter_bytes():
                taken += len(piece)
                if taken >= _GLANCE_BYTES:
                    break
    except katipo.Error as error:
        screen.check(False, f"{type(error).__name__} ({error.code}): {error.message}")
        return False
    kept = ", ".join(sorted(client.cookies)) or "none"
    part = "the beginning" if taken >= _GLANCE_BYTES else "the whole"
    screen.line(f"   {part}, {size(taken)}; cookies: {kept}")
    screen.check(response.status_code > 0, "the client got an answer")
    try:
        await client.get(url, timeout=katipo.Timeout(None, total=0.001))
        fired = "no error"
    except katipo.Error as error:
        fired = type(error).__name__
    screen.line(f"   once more, with a millisecond for everything: {fired}")
    return True


async def _one(screen: Screen, pool: katipo.Pool, url: str) -> int | None:
    """Return the body's length, or None when there was no answer."""
    screen.section("Where the time of a request went", "One GET, then another.")
    length = 0
    try:
        for _ in range(2):
            response = await pool.async_get(url, **_OPTIONS)
            secured = "TLS" if str(response.url).startswith("https:") else "no TLS"
            screen.line(
                f"   {response.status_code} {response.reason_phrase}".rstrip()
                + f", {response.http_version}, {secured}, {size(len(response.content))} of body"
            )
            screen.timeline(response.metrics)
            length = len(response.content)
    except katipo.ResponseTooLarge as error:
        screen.check(True, f"the server answers, with more than {size(_MOST_BYTES)}: cut off")
        if error.metrics is not None:
            screen.timeline(error.metrics)
        return _MOST_BYTES
    except katipo.Error as error:
        screen.check(False, f"{type(error).__name__} ({error.code}): {error.message}")
        return None
    screen.check(True, "the server answers")
    return length


async def _slow_consumer(screen: Screen, pool: katipo.Pool, url: str) -> None:
    screen.section(
        "A response taken slowly",
        f"A window of 64 KiB, {milliseconds(_PAUSE_SECONDS)} of sleep after each chunk; up to {size(_TAKE_BYTES)}.",
    )
    chunks, taken, status, until = 0, 0, 0, time.monotonic() + _TAKE_SECONDS
    # The whole response may be longer than is taken here: leaving the block cancels the rest.
    async with pool.async_get(url, stream=True, stream_window=65536, **_OPTIONS) as handle:
        async for message in handle:
            if isinstance(message, Started):
                status = message.status_code
            elif isinstance(message, Chunk):
                chunks, taken = chunks + 1, taken + len(message.data)
                screen.progress(f"{chunks} chunks, {size(taken)}")
                if taken >= _TAKE_BYTES or time.monotonic() > until:
                    break
                await asyncio.sleep(_PAUSE_SECONDS)
    screen.line(f"   {status}, {chunks} chunks, {size(taken)}")
    screen.check(status > 0, "the response came chunk by chunk, at the consumer's pace")


async def _cancel(screen: Screen, pool: katipo.Pool, url: str) -> None:
    screen.section("A cancel", "Sent, and cancelled before the answer can be here.")
    handle = pool.async_get(url, **_OPTIONS)
    start, outcome = time.perf_counter(), "no error"
    handle.cancel()
    try:
        await handle
    except katipo.Cancelled:
        outcome = "Cancelled"
    screen.line(f"   {outcome} after {milliseconds(time.perf_counter() - start)}")
    screen.check(outcome == "Cancelled" and pool.statistics().in_flight == 0, "nothing is in flight any more")


async def _several(screen: Screen, pool: katipo.Pool, method: str, url: str) -> None:
    screen.section(f"{_AT_ONCE} {method} requests in flight", "All submitted before the first answer is looked at.")
    start = time.perf_counter()
    handles = [pool.async_request(method, url, **_OPTIONS) for _ in range(_AT_ONCE)]
    peak = pool.statistics().in_flight
    ends = asyncio.gather(*handles, return_exceptions=True)
    while not ends.done():
        done = sum(handle.done() for handle in handles)
        screen.progress(f"{done} of {_AT_ONCE} have ended", part=done / _AT_ONCE)
        await asyncio.wait([ends], timeout=0.02)
    elapsed, tally = time.perf_counter() - start, collections.Counter[str]()
    for end in await ends:
        tally[str(end.status_code) if isinstance(end, katipo.Response) else getattr(end, "code", repr(end))] += 1
    what = ", ".join(f"{count} x {name}" for name, count in sorted(tally.items()))
    screen.line(f"   {what} in {elapsed:.2f} s, at most {peak} in flight, {pool.statistics().connections} connections")
    screen.check(sum(tally.values()) == _AT_ONCE and any(name.isdigit() for name in tally), "every request ended once")
