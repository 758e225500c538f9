"""The demonstration of the clients against its own servers: what users of requests and httpx know, and what neither has."""

import asyncio
import contextlib
import itertools
import os
import pathlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import demo_versions
from demo_screen import Screen, milliseconds

import katipo

_CREATED = 500
_MANY = 1000
_LOCK_STEPS = 20
_FIRES_AFTER = 0.25
_LATE = 1.0  # a machine that is busy with something else


def show(screen: Screen, base: str) -> None:
    """Run every section; each makes its own clients."""
    _created(screen, base)
    _everyday(screen, base)
    asyncio.run(_many(screen, base))
    _streamed(screen, base)
    _exchange(screen, base)
    _timeouts(screen, base)
    _versions(screen)


def _threads() -> int:
    tasks = pathlib.Path("/proc/self/task")
    return len(os.listdir(tasks)) if tasks.exists() else threading.active_count()


def _created(screen: Screen, base: str) -> None:
    screen.section("Making a client", f"{_CREATED} are made and closed; threads start with the first request only.")
    katipo.Client().close()  # loads libcurl, which is needed once
    before, start = _threads(), time.perf_counter()
    for _ in range(_CREATED):
        katipo.Client().close()
    each = (time.perf_counter() - start) / _CREATED
    with katipo.Client() as client:
        idle = _threads()
        start = time.perf_counter()
        client.get(f"{base}/wait")
        first = time.perf_counter() - start
        busy = _threads()
    screen.line(f"   {each * 1e6:,.0f} microseconds each; the first request of one took {milliseconds(first)}")
    screen.check(before == idle < busy, "no thread was started before the first request")


def _everyday(screen: Screen, base: str) -> None:
    screen.section("Every day", "JSON, a redirect that is followed, a cookie that is kept.")
    with katipo.Client(base_url=base, follow_redirects=True, headers={"X-Team": "spiders"}) as client:
        item = client.post("/item", json={"name": "katipo"}).raise_for_status().json()
        stranger = client.get("/who").status_code
        response = client.get("/login", params={"next": "/"})
        came_by = [f"{each.status_code} {each.url.path}" for each in response.history]
        screen.line(f"   posted {item}; then {' -> '.join(came_by)} -> {response.status_code} {response.url.path}")
        screen.line(f"   {client.cookies!r}, whose value is not shown")
        right = (item["number"], stranger, response.text, len(response.history)) == (1, 401, "you", 1)
        screen.check(right and client.get("/who").is_success, "the login's cookie was sent from then on")


async def _many(screen: Screen, base: str) -> None:
    screen.section(
        f"{_MANY:,} requests at once, one AsyncClient", "At most 100 connections; the others wait for their turn."
    )
    async with katipo.AsyncClient(base_url=base) as client:
        start = time.perf_counter()
        gets = [client.get("/wait", params={"ms": 20, "n": n}) for n in range(_MANY)]
        responses = await asyncio.gather(*gets)
        elapsed = time.perf_counter() - start
        ports = {response.metrics.local_port for response in responses}
    right = sum(response.text == str(n) for n, response in enumerate(responses))
    screen.line(f"   {elapsed:.2f} s over {len(ports)} connections, {_MANY / elapsed:,.0f} a second")
    screen.check(
        right == _MANY and len(ports) <= 100, f"{right:,} answers belong to their requests, and the limit was kept"
    )


def _streamed(screen: Screen, base: str) -> None:
    screen.section("A response line by line", "The answer has no end; after ten lines the block is left.")
    with katipo.Client(base_url=base) as client:
        before = client.get("/counters").json()["hung_up"]
        with client.stream("GET", "/drip") as response:
            lines = list(itertools.islice(response.iter_lines(), 10))
        deadline, hung_up = time.monotonic() + 3, before
        while hung_up == before and time.monotonic() < deadline:
            hung_up = client.get("/counters").json()["hung_up"]
        screen.check(
            lines == ["drip"] * 10 and hung_up == before + 1, "ten lines came, and the server saw the client go"
        )


def _exchange(screen: Screen, base: str) -> None:
    screen.section(
        "An exchange: both directions at once, in a blocking client",
        "Piece n+1 is sent when piece n has come back; one thread does both.",
    )
    with katipo.Client() as client, client.exchange("POST", f"{base}/echo") as exchange:
        exchange.send(b"piece 0")
        response = exchange.response()
        pieces, came_back, start = response.iter_bytes(), 0, time.perf_counter()
        for n in range(_LOCK_STEPS):
            came_back += _next(pieces, len(b"piece %d" % n)) == b"piece %d" % n
            if n + 1 < _LOCK_STEPS:
                exchange.send(b"piece %d" % (n + 1))
        each = (time.perf_counter() - start) / _LOCK_STEPS
        exchange.finish()
        rest = list(pieces)
    screen.line(f"   {milliseconds(each)} there and back")
    screen.check(came_back == _LOCK_STEPS and not rest, f"{came_back} of {_LOCK_STEPS} pieces came back in step")


def _next(pieces: Iterator[bytes], length: int) -> bytes:
    """The next `length` bytes: where pieces end means nothing."""
    data = b""
    while len(data) < length:
        data += next(pieces)
    return data


def _timeouts(screen: Screen, base: str) -> None:
    screen.section("Five clocks", f"Each is set to {_FIRES_AFTER} s in turn, all others off; each has its own error.")
    off = katipo.Timeout(None)

    def only(**clock: float) -> katipo.Timeout:
        return katipo.Timeout(off, **clock)

    with (
        socket.create_server(("127.0.0.1", 0)) as mute,  # takes connections, and says nothing to a TLS handshake
        katipo.Client(base_url=base) as client,
        katipo.Client(base_url=base, limits=katipo.Limits(max_connections=1)) as narrow,
        narrow.stream("GET", "/drip", timeout=None),
    ):
        nobody = f"https://127.0.0.1:{mute.getsockname()[1]}/"
        cases: list[tuple[type[katipo.Error], str, Callable[[], object]]] = [
            (katipo.ConnectTimeout, "no TLS handshake", lambda: client.get(nobody, timeout=only(connect=_FIRES_AFTER))),
            (katipo.ReadTimeout, "no answer", lambda: client.get("/wait?ms=9000", timeout=only(read=_FIRES_AFTER))),
            (
                katipo.WriteTimeout,
                "a server that reads nothing",
                lambda: client.post("/deaf", content=itertools.repeat(bytes(65536)), timeout=only(write=_FIRES_AFTER)),
            ),
            (
                katipo.PoolTimeout,
                "the only connection is taken",
                lambda: narrow.get("/wait", timeout=only(pool=_FIRES_AFTER)),
            ),
            (
                katipo.TotalTimeout,
                "an answer that comes, and comes",
                lambda: client.get("/drip", timeout=only(total=_FIRES_AFTER)),
            ),
        ]
        right = 0
        for expected, what, call in cases:
            start = time.perf_counter()
            try:
                call()
                name = "no error"
            except katipo.Error as error:
                name = type(error).__name__
            took = time.perf_counter() - start
            right += name == expected.__name__ and _FIRES_AFTER * 0.95 <= took < _FIRES_AFTER + _LATE
            screen.line(f"   {what + ':':<33} {name} after {milliseconds(took)}")
    screen.check(right == len(cases), f"{right} of {len(cases)} clocks fired, each with its own error")


def _versions(screen: Screen) -> None:
    screen.section("HTTP/1.1, 2 and 3", "The same client code, the same server, three switches; 103 by a hook.")
    hints: list[str] = []

    def on_informational(request: katipo.Request, status: int, headers: katipo.Headers) -> None:
        hints.append(f"{status} {headers.get('link', '')}")

    spoken: list[str] = []
    with contextlib.ExitStack() as held:
        try:
            base, authority = held.enter_context(demo_versions.running())
        except ImportError as error:
            screen.line(f"   not shown: {error.name} is not installed (pip install --group demo)")
            return
        for http1, http2, http3 in ((True, False, False), (True, True, False), (False, False, True)):
            with katipo.Client(
                http1=http1,
                http2=http2,
                http3=http3,
                verify=authority,
                event_hooks={"informational": [on_informational]},
                timeout=10.0,
            ) as client:
                response = client.get(base)
            spoken.append(response.http_version)
            screen.line(f"   {response.http_version}: the server says {response.text}")
            screen.timeline(response.metrics)
    screen.line(f"   informational responses: {', '.join(hints) or 'none'}")
    screen.check(spoken == ["HTTP/1.1", "HTTP/2", "HTTP/3"], "each version was spoken when it was asked for")
