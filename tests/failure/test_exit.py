"""The end of the interpreter with work in flight: status 0, nothing printed, at once. And pools that nobody closed."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

import katipo
from katipo import _engine
from tests.support.pattern import pattern
from tests.support.procs import run_python
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.support.certs import Certificates
    from tests.support.origin import Origin

AT_ONCE = 15.0
"""Seconds for a program that starts, sends requests and exits. A loaded machine needs three; every hang is longer."""
ROUNDS = 5
"""Without the workers being joined at exit, 15 of 60 runs crashed."""

PROLOGUE = """
import asyncio, sys, threading
import katipo
url, tls, cacert = sys.argv[1:4]
pool = katipo.Pool(workers=2)
def in_flight(n=30):
    kept = []
    for index in range(n):
        kept.append(pool.async_get(url + "/big?size=300000"))
        kept.append(pool.async_get(tls + "/big?size=300000", cacert=cacert))
        kept.append(pool.async_get(tls + "/hang", cacert=cacert, http_version="3-only"))
    return kept
def started(**options):
    handle = pool.async_get(url + "/big?size=1000000000", stream=True, **options)
    next(iter(handle))
    return handle
"""

PROGRAMS = {
    "buffered requests in flight": "kept = in_flight()",
    "handles dropped": "in_flight()",
    "a request that is never answered": """
kept = pool.async_get(url + "/hang?stage=body&size=10")
pool.get(url + "/count")
""",
    "paused streams": """
streams = [pool.async_get(base + "/big?size=1000000000", stream=True, stream_window=1, **options)
           for base, options in ((url, {}), (tls, {"cacert": cacert}), (tls, {"cacert": cacert, "http_version": "3-only"}))]
for stream in streams:
    next(iter(stream))
""",
    "half an upload": """
kept = []
for options in ({}, {"on_abandon": "finish"}, {"http_version": "3-only"}):
    handle = pool.async_post(tls + "/upload", stream_body=True, cacert=cacert, **options)
    handle.send_body(b"half")
    kept.append(handle)
pool.get(url + "/count")
""",
    "open mailboxes": """
box = katipo.Mailbox()
for index in range(50):
    pool.async_get(url + "/big?size=100000", reply_to=box, stream=True, stream_window=1000)
box.receive()
""",
    "daemon threads blocked everywhere": """
box = katipo.Mailbox()
upload = pool.async_post(url + "/upload?gate=never-opened", stream_body=True, upload_window=1)
barrier = threading.Barrier(6)
def blocked(call):
    barrier.wait()
    call()
def send():
    while True:
        upload.send_body(bytes(1 << 20))
async def awaiting():
    await pool.async_get(url + "/hang")
calls = [
    lambda: pool.get(url + "/hang"),
    lambda: list(pool.async_get(url + "/hang?stage=body", stream=True)),
    box.receive,
    send,
    lambda: asyncio.run(awaiting()),
]
for call in calls:
    threading.Thread(target=blocked, args=(call,), daemon=True).start()
barrier.wait()
pool.get(url + "/count")
""",
    "a daemon thread that makes requests without end": """
ready = threading.Event()
def work():
    while True:
        pool.get(url + "/count")
        ready.set()
threading.Thread(target=work, daemon=True).start()
ready.wait()
""",
    "an event loop that is left": """
async def main():
    asyncio.ensure_future(waiting())
    await pool.async_get(url + "/count")
async def waiting():
    await pool.async_get(url + "/hang")
asyncio.run(main())
""",
    "sys.exit in a thread-laden program": """
kept = in_flight(5)
sys.exit(0)
""",
    "handles kept in a cycle of module globals": """
class Holder: pass
holder = Holder()
holder.self, holder.kept, holder.pool = holder, in_flight(5), pool
sys.modules["holder"] = holder
""",
    "a pool that did nothing": "",
    "a closed pool": """
in_flight(3)
pool.close()
""",
}


@pytest.mark.core
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=[name.replace(" ", "-") for name in PROGRAMS])
def test_the_interpreter_ends_quietly_and_at_once(origin: Origin, certs: Certificates, program: str) -> None:
    """Whatever is in flight, the exit status is 0 and nothing is printed."""
    for _ in range(ROUNDS):
        arguments = [origin.strict_http, origin.strict_https, str(certs.ca)]
        finished = run_python(PROLOGUE + program, timeout=AT_ONCE, args=arguments)
        assert (finished.status, finished.stdout, finished.stderr) == (0, "", "")


def test_threads_that_are_no_daemons_finish_first(origin: Origin) -> None:
    """Python waits for them before anything of ours ends: their requests are answered."""
    program = """
def work():
    threading.main_thread().join()
    print(pool.get(url + "/drip?n=3&delay=0.1").content)
threading.Thread(target=work).start()
"""
    finished = run_python(PROLOGUE + program, timeout=AT_ONCE, args=[origin.strict_http, "", ""])
    assert (finished.status, finished.stderr) == (0, "")
    assert finished.stdout.strip() == repr(pattern(0, 3))


def test_a_request_after_the_end_is_refused(origin: Origin) -> None:
    """A function that runs at exit after ours finds the pool closed; one that runs before can still use it."""
    program = """
import atexit
def late():
    try:
        pool.get(url + "/count")
    except katipo.PoolClosed as error:
        print("late", error.code)
def early():
    print("early", pool.get(url + "/count").status_code)
atexit.register(early)
pool.get(url + "/count")
"""
    # Registered before katipo is imported, it runs last.
    source = "import atexit\natexit.register(lambda: late())\n" + PROLOGUE + program
    finished = run_python(source, timeout=AT_ONCE, args=[origin.strict_http, "", ""])
    assert (finished.status, finished.stderr) == (0, "")
    assert finished.stdout.split("\n") == ["early 200", "late pool_closed", ""]


def test_an_exception_ends_the_program_with_its_traceback_alone(origin: Origin) -> None:
    """Work in flight adds nothing to what Python says, and changes no status."""
    program = """
kept = in_flight(5) if tls else [pool.async_get(url + "/hang")]
sys.exit("the end")
"""
    finished = run_python(PROLOGUE + program, timeout=AT_ONCE, args=[origin.strict_http, "", ""])
    assert (finished.status, finished.stdout, finished.stderr.strip()) == (1, "", "the end")


@pytest.mark.core
def test_a_dropped_pool_warns_and_lets_go(origin: Origin) -> None:
    """A pool that was used and not closed: ResourceWarning, and its threads and connections are gone soon after."""
    gc.collect()  # what tests before this one left in cycles
    before = _engine.counts()
    pool = katipo.Pool(name="dropped")
    pool.get(f"{origin.strict_http}/count")
    with pytest.warns(ResourceWarning, match="unclosed.*dropped"):
        del pool
        gc.collect()
    wait_until(lambda: _engine.counts() == before)


def test_a_dropped_pool_that_did_nothing_does_not_warn() -> None:
    """There is nothing to be closed."""
    pool = katipo.Pool()
    del pool
    gc.collect()


def test_a_handle_keeps_its_pool(origin: Origin) -> None:
    """A pool goes when its last request has gone, not before: the answer comes."""
    pool = katipo.Pool()
    gate = origin.fresh_id()
    handle = pool.async_get(f"{origin.strict_http}/drip?n=1&gate={gate}")
    del pool
    gc.collect()
    origin.open_gate(gate)
    assert handle.result(AT_ONCE).content == pattern(0, 1)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del handle
        gc.collect()


def test_a_dropped_pool_finishes_what_nobody_waits_for(origin: Origin) -> None:
    """Fire and forget: a plain request whose handle and pool have gone is still answered."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    pool = katipo.Pool()
    pool.async_get(f"{origin.strict_http}/drip?n=1&gate={gate}&id={name}")
    origin.journal(name, until="started")
    with pytest.warns(ResourceWarning, match="unclosed"):
        del pool
        gc.collect()
    origin.open_gate(gate)
    origin.journal(name, until="finished")
