"""Forks with requests in flight: the parent is undisturbed, the child starts anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.procs import run_python

if TYPE_CHECKING:
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

LIMIT = 60.0

PROLOGUE = """
import asyncio, gc, os, sys, threading, traceback, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # what Python 3.12 says of forks is another test's
import http.client, urllib.parse
import katipo
from katipo.messages import Chunk, Done, Started
base, control, version, cacert = sys.argv[1:5]
options = {"http_version": version, "cacert": cacert}
pool = katipo.Pool()

def ask(path):
    parts = urllib.parse.urlsplit(control)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status

def open_gate(name):
    assert ask(f"/control/gate/{name}?permits=all") == 204

def seen(name, until):
    assert ask(f"/control/journal/{name}?until={until}&timeout=10") == 200, (name, until)

def fork(child):
    "Run `child` in a forked process; wait for it, with a limit, and fail if it failed."
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
    return pid

def wait(pid):
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status

def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")
"""


def run(program: str, endpoint: Endpoint, origin: Origin, gate: str = "", **options: float) -> None:
    arguments = [endpoint.base, origin.strict_http, endpoint.option, endpoint.cacert, gate]
    finished = run_python(PROLOGUE + program, timeout=options.get("timeout", LIMIT), args=arguments)
    assert (finished.status, finished.stdout, finished.stderr) == (0, "", "")


@pytest.mark.core
def test_the_parent_is_undisturbed_and_the_child_works(endpoint: Endpoint, origin: Origin) -> None:
    """With requests in every direction in flight, a child makes its own, ends, and everything of the parent's is answered on
    the parent's connections."""
    program = """
gate = sys.argv[5]
first = pool.get(base + "/count", **options)
drip = pool.async_get(base + f"/drip?n=5&size=1000&gate={gate}", **options)
stream = pool.async_get(base + f"/big?size=3000000&id={gate}-big", stream=True, stream_window=1000, **options)
messages = iter(stream)
assert isinstance(next(messages), Started)
upload = pool.async_post(base + f"/upload?id={gate}-up", stream_body=True, **options)
upload.send_body(b"before")
seen(f"{gate}-up", "received>=6")

def child():
    response = pool.get(base + "/count", **options)
    assert response.status_code == 200
    assert response.metrics.connections_opened == 1
    handles = [pool.async_get(base + "/drip?n=3", **options) for _ in range(20)]
    assert all(len(handle.result(20).content) == 3 for handle in handles)
    async def main():
        return (await pool.async_get(base + "/count", **options)).status_code
    assert asyncio.run(main()) == 200
    pool.close()

for _ in range(3):
    wait(fork(child))
upload.send_body(b" after")
upload.finish_body()
open_gate(gate)
assert len(drip.result(20).content) == 5000
assert upload.result(20).json()["length"] == 12
assert sum(len(message.data) for message in messages if isinstance(message, Chunk)) == 3000000
after = pool.get(base + "/count", **options)
assert after.metrics.connections_opened == 0
assert pool.statistics().restarts == 0
pool.close()
"""
    run(program, endpoint, origin, origin.fresh_id())


@pytest.mark.core
def test_the_parents_handles_raise_worker_died_in_the_child(endpoint: Endpoint, origin: Origin) -> None:
    """result, await, iteration and send_body of requests that belong to the parent; cancel and finish do nothing; what was
    answered before stays answered."""
    program = """
gate = sys.argv[5]
answered = pool.async_get(base + "/count", **options)
answered.result(20)
hanging = pool.async_get(base + f"/drip?n=1&gate={gate}", **options)
stream = pool.async_get(base + f"/drip?n=1&gate={gate}", stream=True, **options)
upload = pool.async_post(base + f"/upload?id={gate}", stream_body=True, **options)
upload.send_body(b"some")
seen(gate, "received>=4")

def child():
    assert answered.result(0).status_code == 200
    assert hanging.done() and stream.done() and upload.done()
    error = raises(katipo.WorkerDied, lambda: hanging.result(20))
    assert error.code == "worker_died", error.code
    async def main():
        await hanging
    raises(katipo.WorkerDied, lambda: asyncio.run(main()))
    raises(katipo.WorkerDied, lambda: list(stream))
    raises(katipo.WorkerDied, lambda: upload.send_body(b"more"))
    for handle in (hanging, stream, upload):
        handle.cancel()
    upload.finish_body()
    assert pool.statistics().in_flight == 0
    assert pool.get(base + "/count", **options).status_code == 200

wait(fork(child))
open_gate(gate)
upload.finish_body()
assert hanging.result(20).status_code == 200
assert upload.result(20).json()["length"] == 4
assert isinstance(list(stream)[-1], Done)
pool.close()
"""
    run(program, endpoint, origin, origin.fresh_id())


@pytest.mark.core
def test_inherited_mailboxes_are_empty_and_usable(endpoint: Endpoint, origin: Origin) -> None:
    """The child sees no message of the parent's, and its own requests may reply there; the parent loses none."""
    program = """
gate, box = sys.argv[5], katipo.Mailbox()
done = pool.async_get(base + "/count", reply_to=box, ref="queued", **options)
pool.async_get(base + f"/drip?n=1&gate={gate}", reply_to=box, ref="in flight", **options)
while not len(box):
    pool.get(base + "/count", **options)

def child():
    assert len(box) == 0
    raises(katipo.AwaitTimeout, lambda: box.receive(0))
    pool.async_get(base + "/count", reply_to=box, ref="mine", **options)
    assert box.receive(20).ref == "mine"
    raises(katipo.AwaitTimeout, lambda: box.receive(0))
    box.close()
    raises(katipo.MailboxClosed, box.receive)

wait(fork(child))
open_gate(gate)
assert {box.receive(20).ref, box.receive(20).ref} == {"queued", "in flight"}
pool.close()
"""
    run(program, endpoint, origin, origin.fresh_id())


def test_the_server_sees_the_parent_s_close_although_the_child_lives(endpoint: Endpoint, origin: Origin) -> None:
    """The child has closed its copies of the parent's sockets."""
    program = """
gate = sys.argv[5]
hanging = pool.async_get(base + f"/hang?id={gate}", **options)
seen(gate, "started")
reading, writing = os.pipe()
pid = fork(lambda: os.read(reading, 1))
pool.close()
seen(gate, "disconnected")
os.write(writing, b"x")
wait(pid)
"""
    run(program, endpoint, origin, origin.fresh_id())


@pytest.mark.slow
def test_many_forks_under_load(endpoint: Endpoint, origin: Origin) -> None:
    """Threads make requests while another one forks: no child hangs, no request of the parent's is lost."""
    program = """
stop = threading.Event()
answers, errors = [], []
def work():
    while not stop.is_set():
        try:
            answers.append(pool.get(base + "/drip?n=3&size=500", **options).status_code)
        except BaseException as error:
            errors.append(error)
            return
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()

def child():
    assert pool.get(base + "/count", timeout_ms=20000, **options).status_code == 200

for _ in range(40):
    wait(fork(child))
stop.set()
for thread in threads:
    thread.join(20)
    assert not thread.is_alive()
assert not errors, errors
assert set(answers) == {200}
pool.close()
"""
    run(program, endpoint, origin, timeout=3 * LIMIT)


@pytest.mark.core
def test_a_child_that_exits_as_programs_do_is_quiet(endpoint: Endpoint, origin: Origin) -> None:
    """multiprocessing by fork: children that run Python's own exit, with requests of their own and of the parent's in
    flight."""
    program = """
import multiprocessing
gate = sys.argv[5]
kept = pool.async_get(base + f"/drip?n=1&gate={gate}", **options)
def work(number):
    left = pool.async_get(base + "/hang", **options)
    return pool.get(base + "/drip?n=%d" % number, **options).content
with multiprocessing.get_context("fork").Pool(3) as processes:
    assert [len(content) for content in processes.map(work, range(1, 7))] == [1, 2, 3, 4, 5, 6]
pid = os.fork()
if pid == 0:
    left = pool.async_get(base + "/hang", **options)
    sys.exit(0)
wait(pid)
open_gate(gate)
assert kept.result(20).status_code == 200
pool.close()
"""
    run(program, endpoint, origin, origin.fresh_id())


def test_a_fork_before_the_first_request_is_nothing_special(endpoint: Endpoint, origin: Origin) -> None:
    """A pool made before a fork works on both sides."""
    program = """
def child():
    assert pool.get(base + "/count", **options).status_code == 200
    pool.close()
pid = fork(child)
assert pool.get(base + "/count", **options).status_code == 200
wait(pid)
pool.close()
"""
    run(program, endpoint, origin)


def test_a_child_of_an_event_loop_has_loops_of_its_own(endpoint: Endpoint, origin: Origin) -> None:
    """Forked while a loop waits, the child runs a loop of its own; the parent's goes on."""
    program = """
gate = sys.argv[5]
def child():
    async def main():
        return (await pool.async_get(base + "/count", **options)).status_code
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: results.append(asyncio.run(main())))
    results = []
    thread.start()
    thread.join(20)
    assert results == [200], results
async def main():
    waiting = asyncio.ensure_future(asyncio.wait_for(pool.async_get(base + f"/drip?n=1&gate={gate}", **options), 20))
    await pool.async_get(base + "/count", **options)
    wait(fork(child))
    open_gate(gate)
    assert (await waiting).status_code == 200
asyncio.run(main())
pool.close()
"""
    run(program, endpoint, origin, origin.fresh_id())


def test_a_fork_warns_as_python_does_and_no_more(endpoint: Endpoint, origin: Origin) -> None:
    """Python 3.12 says that a process with threads forks: one DeprecationWarning, and nothing before 3.12."""
    program = """
pool.get(base + "/count", **options)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    pid = os.fork()
    if pid == 0:
        os._exit(0)
wait(pid)
assert [warning.category for warning in caught] == [DeprecationWarning] * (sys.version_info >= (3, 12)), caught
pool.close()
"""
    run(program, endpoint, origin)
