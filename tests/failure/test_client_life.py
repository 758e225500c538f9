"""Clients in programs: forked, interrupted by Ctrl-C, left open at exit, and run with every warning on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.procs import run_python
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

LATENCY = 0.2
"""Seconds that Ctrl-C may take, of the contract."""
RUNS = 3
"""The best of so many runs is looked at: a machine busy with something else delays one, not all."""

PROLOGUE = """
import asyncio, http.client, os, sys, threading, traceback, urllib.parse, warnings
import katipo
base, control, version, cacert, name = sys.argv[1:6]
options = dict(verify=cacert, http1=version == "1.1", http2=version == "2", http3=version == "3", timeout=30)

def ask(path):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(control).netloc, timeout=30)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    assert status in (200, 204), (path, status)

def open_gate(name):
    ask(f"/control/gate/{name}?permits=all")

def seen(name, until):
    ask(f"/control/journal/{name}?until={until}&timeout=10")
"""


def run(program: str, endpoint: Endpoint, origin: Origin, *interpreter: str) -> None:
    """Run it; it must end well and say nothing."""
    arguments = [endpoint.base, origin.strict_http, endpoint.version, endpoint.cacert, origin.fresh_id()]
    finished = run_python(PROLOGUE + program, timeout=60, args=arguments, options=interpreter)
    assert (finished.status, finished.stdout, finished.stderr) == (0, "", "")


# ---------------------------------------------------------------------------------------------------- fork


@pytest.mark.core
def test_a_forked_child_uses_the_same_clients(endpoint: Endpoint, origin: Origin) -> None:
    """With a stream, an upload and an exchange open in the parent, a child works with the very clients, cookies
    included, and ends; the parent goes on where it was, on its own connection."""
    run(
        """
warnings.simplefilter("ignore", DeprecationWarning)  # what Python 3.12 says of forks is another test's
client = katipo.Client(**options, cookies={"a": "1"})
other = katipo.AsyncClient(**options)
asyncio.run(other.get(base + "/count"))
client.get(base + "/cookies/set?b=2")
with (
    client.stream("GET", base + "/big?size=3000000") as stream,
    client.exchange("POST", base + f"/echo?id={name}") as exchange,
):
    pieces = stream.iter_bytes(1000)
    assert len(next(pieces)) == 1000
    exchange.send(b"before")
    echo = exchange.response().iter_bytes()
    assert next(echo) == b"before"

    def child():
        assert client.get(base + "/cookies").json()["cookies"] == {"a": "1", "b": "2"}
        client.get(base + "/cookies/set?c=3")
        assert len(client.cookies) == 3
        assert client.post(base + "/echo", content=iter([b"x", b"y"])).content == b"xy"
        with client.stream("GET", base + "/drip?n=3") as response:
            assert len(response.read()) == 3
        for broken in (lambda: stream.read(), lambda: list(pieces), lambda: next(echo), lambda: exchange.send(b"x")):
            try:
                broken()
            except (katipo.WorkerDied, katipo.StreamConsumed):
                pass
            else:
                raise AssertionError("the parent's requests are not the child's")
        assert asyncio.run(other.get(base + "/count")).status_code == 200
        client.close()

    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                child()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    exchange.send(b" after")
    exchange.finish()
    assert b"".join(echo) == b" after"
    assert sum(map(len, pieces)) == 3000000 - 1000
assert len(client.cookies) == 2
after = client.get(base + "/count")
assert after.metrics.connections_opened == 0
client.close()
asyncio.run(other.aclose())
""",
        endpoint,
        origin,
    )


# ---------------------------------------------------------------------------------------------------- Ctrl-C

INTERRUPTED = """
import asyncio, sys, time
import katipo

how, url = sys.argv[1:]
client = katipo.Client(timeout=None)
closed = []

def endless():
    try:
        while True:
            yield bytes(65536)
    finally:
        closed.append(True)

def waits():
    try:
        yield b"first"
        time.sleep(1000)
    finally:
        closed.append(True)

async def main():
    async with katipo.AsyncClient(timeout=None) as client:
        await client.get(url)

print("ready", flush=True)
try:
    if how == "get":
        client.get(url)
    elif how == "upload":
        client.post(url, content=endless())
    elif how == "piece":
        client.post(url, content=waits())
    elif how == "stream":
        with client.stream("GET", url) as response:
            response.read()
    elif how == "exchange":
        with client.exchange("POST", url) as exchange:
            exchange.response()
    elif how == "send":
        with client.exchange("POST", url) as exchange:
            while True:
                exchange.send(bytes(65536))
    elif how == "loop":
        asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", time.monotonic(), flush=True)
assert closed == [True] * (how in ("upload", "piece")), closed
assert client._session.pool.statistics().in_flight == 0
parts = url.partition("/hang")[0].partition("/upload")[0]
assert client.get(parts + "/count").status_code == 200
client.close()
"""
# CLOCK_MONOTONIC is one clock for all processes of a machine.


def interrupted(how: str, url: str, origin: Origin, name: str) -> float:
    """Send SIGINT to a program that blocks in a client once the server has its request: how long it took."""
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", INTERRUPTED, how, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        origin.journal(name, until="started")
        wait_until_blocked(process.pid)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, stderr) == (0, ""), (stdout, stderr)
    word, at = stdout.split()
    assert word == "interrupted"
    return float(at) - sent


def wait_until_blocked(pid: int) -> None:
    """Until the main thread sleeps in a system call, and still does a moment later."""
    seen: list[int] = []

    def blocked() -> bool:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            state = stat.read().rpartition(") ")[2].split()[0]
        with open(f"/proc/{pid}/task/{pid}/status", encoding="ascii") as status:
            switches = int(next(line for line in status if line.startswith("voluntary")).split()[1])
        seen.append(switches if state == "S" else -1)
        return len(seen) > 5 and len(set(seen[-5:])) == 1 and seen[-1] >= 0

    wait_until(blocked)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="whether a process is blocked is read from /proc")
@pytest.mark.parametrize(
    ("how", "path"),
    [
        ("get", "/hang"),
        ("upload", "/upload?gate=NAME"),
        ("piece", "/upload"),
        ("stream", "/hang?stage=body"),
        ("exchange", "/hang"),
        ("send", "/upload?gate=NAME"),
        ("loop", "/hang"),
    ],
)
def test_ctrl_c_interrupts_a_client(origin: Origin, how: str, path: str) -> None:
    """KeyboardInterrupt within 0.2 s, wherever it blocks; the server sees the request cut off, and never a whole body;
    iterables are closed, nothing is in flight, and the client goes on working."""
    taken = []
    for _ in range(RUNS):
        name = origin.fresh_id()
        url = f"{origin.strict_http}{path.replace('NAME', name)}{'&' if '?' in path else '?'}id={name}"
        taken.append(interrupted(how, url, origin, name))
        origin.open_gate(name, None)  # a server that does not read does not see the end
        seen = origin.journal(name, until="disconnected")
        if how in ("upload", "piece", "exchange", "send"):
            assert (seen.bodies, seen.finished) == (0, 0)
        if taken[-1] < LATENCY:
            break
    assert min(taken) < LATENCY


# ---------------------------------------------------------------------------------------------------- nothing left over


@pytest.mark.core
def test_normal_use_leaves_nothing_unclosed(endpoint: Endpoint, origin: Origin) -> None:
    """With -X dev and every warning an error: requests, streams read and left, uploads, exchanges, failures, on both faces
    and by the module's functions; nothing is said at exit either."""
    run(
        """
import gc
def pieces():
    yield b"one"
    yield b"two"
async def async_pieces():
    yield b"one"
    yield b"two"
def fails():
    yield b"one"
    raise LookupError
async def async_fails():
    yield b"one"
    raise LookupError

with katipo.Client(**options) as client:
    assert client.get(base + "/count").status_code == 200
    assert client.post(base + "/echo", content=pieces()).content == b"onetwo"
    with client.stream("GET", base + "/big?size=100000000") as response:
        for line in response.iter_bytes():
            break
    with client.stream("POST", base + "/echo", content=pieces()) as response:
        response.read()
    with client.exchange("POST", base + "/echo") as exchange:
        exchange.send(b"x")
        next(exchange.response().iter_bytes())
    for broken in (lambda: client.post(base + "/echo", content=fails()), lambda: client.get(base + "/hang", timeout=0.1)):
        try:
            broken()
        except (LookupError, katipo.ReadTimeout):
            pass
        else:
            raise AssertionError

async def main():
    async with katipo.AsyncClient(**options) as client:
        assert (await client.get(base + "/count")).status_code == 200
        assert (await client.post(base + "/echo", content=async_pieces())).content == b"onetwo"
        async with client.stream("GET", base + "/big?size=100000000") as response:
            async for line in response.aiter_bytes():
                break
        async with client.stream("POST", base + "/echo", content=async_pieces()) as response:
            await response.aread()
        async with client.exchange("POST", base + "/echo") as exchange:
            await exchange.send(b"x")
            await anext((await exchange.response()).aiter_bytes())
        try:
            await client.post(base + "/echo", content=async_fails())
        except LookupError:
            pass
        try:
            await asyncio.wait_for(client.get(base + "/hang"), 0.1)
        except asyncio.TimeoutError:
            pass

asyncio.run(main())
assert katipo.get(control + "/count").status_code == 200
with katipo.stream("GET", control + "/drip?n=3") as response:
    assert len(response.read()) == 3
gc.collect()
""",
        endpoint,
        origin,
        "-X",
        "dev",
        "-W",
        "error",
    )


@pytest.mark.parametrize("endpoint", ["1.1"], indirect=True)
@pytest.mark.parametrize("how", ["stream", "upload", "exchange", "threads", "loop", "module"])
def test_a_program_may_end_in_the_middle(endpoint: Endpoint, origin: Origin, how: str) -> None:
    """Whatever is open, the interpreter ends at once, without a crash or a word about katipo's insides."""
    program = f"""
how = {how!r}
if how == "loop":
    async def main():
        client = katipo.AsyncClient(**options)
        manager = client.stream("GET", base + f"/hang?stage=body&id={{name}}")
        response = await manager.__aenter__()
        await anext(response.aiter_bytes())
        asyncio.ensure_future(client.get(base + "/hang"))
        await asyncio.sleep(0)
        raise SystemExit(0)
    asyncio.run(main())
elif how == "module":
    manager = katipo.stream("GET", control + f"/hang?stage=body&id={{name}}")
    next(manager.__enter__().iter_bytes())
else:
    client = katipo.Client(**options)
    if how == "stream":
        manager = client.stream("GET", base + f"/big?size=1000000000&id={{name}}")
        pieces = manager.__enter__().iter_bytes()
        next(pieces)
    elif how == "upload":
        def endless():
            while True:
                yield bytes(65536)
        manager = client.stream("POST", base + f"/echo?id={{name}}", content=endless())
        next(manager.__enter__().iter_bytes())
    elif how == "exchange":
        manager = client.exchange("POST", base + f"/echo?id={{name}}")
        manager.__enter__().send(b"x")
        seen(name, "received>=1")
    elif how == "threads":
        for _ in range(4):
            threading.Thread(target=client.get, args=(base + f"/hang?id={{name}}",), daemon=True).start()
        seen(name, "count>=4")
sys.exit(0)
"""
    arguments = [endpoint.base, origin.strict_http, endpoint.version, endpoint.cacert, name := origin.fresh_id()]
    finished = run_python(PROLOGUE + program, timeout=20, args=arguments)
    said = [line for line in finished.stderr.splitlines() if "ResourceWarning" not in line]
    assert (finished.status, finished.stdout, said) == (0, "", [])
    origin.journal(name, until="disconnected")
