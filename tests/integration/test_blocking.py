"""Blocking calls: from threads, beside each other, and interrupted by signals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

import katipo
from tests.support.pattern import pattern
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

pytestmark = pytest.mark.core

LATENCY = 0.2
"""Seconds that Ctrl-C may take, of the contract."""
RUNS = 3
"""The best of so many runs is looked at: a machine busy with something else delays one, not all."""


def test_many_threads_share_a_pool(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Two hundred calls from sixteen threads each get their own answer."""

    def call(number: int) -> bool:
        body = pattern(number, 1000 + number)
        return pool.post(endpoint("/echo"), body=body, **endpoint.options).content == body

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(call, range(200)))
    assert pool.statistics().completed == 200


def test_a_blocked_call_does_not_hold_the_gil(pool: katipo.Pool, origin: Origin) -> None:
    """While one thread waits for a response, others run Python, and open the gate that it waits for."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    url = f"{origin.strict_http}/drip?id={name}&gate={gate}"
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(pool.get(url).status_code))
    thread.start()
    origin.journal(name, until="started")
    assert sum(range(1_000_000)) == 499999500000
    origin.open_gate(gate)
    thread.join(30)
    assert answers == [200]


def test_one_pool_in_threads_and_an_event_loop_at_once(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Blocking calls, handles and a loop of its own in another thread do not get into each other's way."""

    async def loop() -> list[int]:
        handles = [pool.async_get(endpoint("/count"), **endpoint.options) for _ in range(50)]
        return [(await handle).status_code for handle in handles]

    with ThreadPoolExecutor(3) as threads:
        in_loops = [threads.submit(asyncio.run, loop()) for _ in range(2)]
        blocking = threads.submit(
            lambda: [pool.get(endpoint("/count"), **endpoint.options).status_code for _ in range(50)]
        )
        handles = [pool.async_get(endpoint("/count"), **endpoint.options) for _ in range(50)]
        assert [handle.result(30).status_code for handle in handles] == [200] * 50
        assert blocking.result(30) == [200] * 50
        assert [each.result(30) for each in in_loops] == [[200] * 50] * 2


def test_a_result_that_is_not_there_in_time(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """`result(timeout)` gives up waiting, not the request: the next call has the answer."""
    gate = origin.fresh_id()
    handle = pool.async_get(endpoint("/drip", gate=gate), **endpoint.options)
    for timeout in (0, 0.05):
        with pytest.raises(katipo.AwaitTimeout) as caught:
            handle.result(timeout)
        assert caught.value.code == "await_timeout"
        assert isinstance(caught.value, TimeoutError)
    assert not handle.done()
    origin.open_gate(gate)
    assert handle.result(30).content == pattern(0, 1)
    assert handle.result(0) is handle.result()


def test_several_threads_wait_for_one_handle(pool: katipo.Pool, origin: Origin) -> None:
    """Everybody who waits gets the same response."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    handle = pool.async_get(f"{origin.strict_http}/drip?id={name}&gate={gate}")
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(handle.result, 30) for _ in range(8)]
        origin.journal(name, until="started")
        origin.open_gate(gate)
        responses = {id(each.result(30)) for each in waiting}
    assert len(responses) == 1


def test_overload_in_threads_is_for_those_beyond_the_limit(
    make_pool: Callable[..., katipo.Pool], origin: Origin
) -> None:
    """Of twelve threads that call at once, as many as there is room for are served, the others told so."""
    pool = make_pool(2, max_in_flight=3)
    name, gate = origin.fresh_id(), origin.fresh_id()
    url = f"{origin.strict_http}/drip?id={name}&gate={gate}"

    def call() -> str:
        try:
            return str(pool.get(url).status_code)
        except katipo.Overload as error:
            return error.code

    with ThreadPoolExecutor(12) as threads:
        calls = [threads.submit(call) for _ in range(12)]
        origin.journal(name, until="count>=6")
        wait_until(lambda: sum(each.done() for each in calls) == 6)
        origin.open_gate(gate, None)
        ends = sorted(each.result(30) for each in calls)
    assert ends == ["200"] * 6 + ["overload"] * 6
    assert origin.journal(name).count == 6


PROGRAM = """
import sys, time
import katipo

how, url = sys.argv[1:]
pool = katipo.Pool()
box = katipo.Mailbox()
stream = None
if how == "iterate":
    stream = iter(pool.async_get(url, stream=True))
    next(stream), next(stream)
elif how == "send":
    upload = pool.async_post(url, stream_body=True, upload_window=1)
    upload.send_body(b"x" * (8 << 20))
print("waiting", flush=True)
try:
    if how == "get":
        pool.get(url, timeout_ms=0)
    elif how == "result":
        handle = pool.async_get(url, timeout_ms=0)
        handle.result()
    elif how == "timeout":
        handle = pool.async_get(url, timeout_ms=0)
        handle.result(1000)
    elif how == "iterate":
        next(stream)
    elif how == "send":
        upload.send_body(b"y")
    elif how == "receive":
        pool.async_get(url, timeout_ms=0, reply_to=box)
        box.receive()
    elif how == "close":
        handle = pool.async_get(url, timeout_ms=0)
        pool.close(drain=1000)
except KeyboardInterrupt:
    print("interrupted", time.monotonic(), flush=True)
if how == "result":
    print("in flight" if not handle.done() else "done", flush=True)
    handle.cancel()
elif how == "get":
    print(pool.statistics().in_flight, flush=True)
    print(pool.get(url.replace("/hang", "/count").replace("&stage=body", "")).status_code, flush=True)
pool.close()
"""
# CLOCK_MONOTONIC is one clock for all processes of a machine.


def interrupt(how: str, url: str, origin: Origin, name: str) -> tuple[float, list[str]]:
    """Run a program that blocks, send it SIGINT once the server has its request: how long it took, and its lines."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        origin.journal(name, until="started")
        wait_until_blocked(process.pid)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, stderr) == (0, ""), (stdout, stderr)
    lines = stdout.splitlines()
    word, at = lines[0].split()
    assert word == "interrupted"
    return float(at) - sent, lines[1:]


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
        ("result", "/hang"),
        ("timeout", "/hang"),
        ("iterate", "/hang?stage=body"),
        ("send", "/upload?gate=NAME"),
        ("receive", "/hang"),
        ("close", "/hang"),
    ],
)
def test_ctrl_c_interrupts_whatever_blocks(origin: Origin, how: str, path: str) -> None:
    """SIGINT raises KeyboardInterrupt in a blocked call within 0.2 s, and the program goes on as it likes."""
    taken = []
    for _ in range(RUNS):
        name = origin.fresh_id()
        url = f"{origin.strict_http}{path.replace('NAME', name)}{'&' if '?' in path else '?'}id={name}"
        seconds, lines = interrupt(how, url, origin, name)
        taken.append(seconds)
        if how == "get":
            assert lines == ["0", "200"], "the request is cancelled, and the pool serves the next one"
        elif how == "result":
            assert lines == ["in flight"], "the handle's request goes on"
        origin.open_gate(name, None)  # a server that does not read does not see the end
        origin.journal(name, until="disconnected")
        if seconds < LATENCY:
            break
    assert min(taken) < LATENCY


def test_a_signal_s_handler_that_returns_does_not_disturb_the_wait(pool: katipo.Pool, origin: Origin) -> None:
    """After a Python handler that raises nothing the call goes on waiting; the handler may make requests itself."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    seen: list[int] = []

    def handler(number: int, frame: object) -> None:
        seen.append(pool.get(origin.strict_http + "/count").status_code)
        if len(seen) == 3:
            origin.open_gate(gate)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        main = threading.get_ident()

        def reached(count: int) -> bool:
            return len(seen) >= count

        def poke() -> None:
            origin.journal(name, until="started")
            for count in range(1, 4):
                signal.pthread_kill(main, signal.SIGUSR1)
                wait_until(partial(reached, count))

        thread = threading.Thread(target=poke)
        thread.start()
        answer = pool.get(f"{origin.strict_http}/drip?id={name}&gate={gate}")
        thread.join(30)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (answer.status_code, seen) == (200, [200, 200, 200])


def test_a_handler_that_raises_cancels_the_blocking_call(pool: katipo.Pool, origin: Origin) -> None:
    """An exception from a signal's handler comes out of the call, and the server sees the request go."""
    name = origin.fresh_id()

    class Stop(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        main = threading.get_ident()

        def poke() -> None:
            origin.journal(name, until="started")
            signal.pthread_kill(main, signal.SIGUSR1)

        thread = threading.Thread(target=poke)
        thread.start()
        with pytest.raises(Stop):
            pool.get(f"{origin.strict_http}/hang?id={name}", timeout_ms=0)
        thread.join(30)
    finally:
        signal.signal(signal.SIGUSR1, before)
    origin.journal(name, until="disconnected")
    assert pool.statistics().in_flight == 0
