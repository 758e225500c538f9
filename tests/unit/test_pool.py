"""Pool: what the call raises, where requests go, statistics, closing, verbose, death and exit."""

import asyncio
import contextlib
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import pytest

import katipo
from katipo import (
    BadOptions,
    Cancelled,
    InvalidURL,
    Overload,
    Pool,
    PoolClosed,
    PoolStatistics,
    UnsupportedProtocol,
    WorkerDied,
    _engine,
)
from katipo._verbose import hide
from katipo.testing import kill_worker
from tests.support.waiting import wait_until
from tests.unit.tiny_server import TinyServer

METHODS = ["get", "post", "put", "patch", "delete", "head", "options"]


# ---------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("method", METHODS)
def test_every_method_blocking_and_not(pool: Pool, tiny: TinyServer, method: str) -> None:
    """By name and by request()."""
    url = f"{tiny.url}/ok"
    expected = b"" if method == "head" else f"{method.upper()} /ok".encode()
    responses = [
        getattr(pool, method)(url),
        getattr(pool, f"async_{method}")(url).result(),
        pool.request(method, url),
        pool.async_request(method.upper(), url, timeout_ms=5000).result(),
    ]
    for response in responses:
        assert (response.status_code, response.reason_phrase, response.content) == (200, "Said", expected)
        assert (response.request.method, response.url, response.http_version) == (method.upper(), url, "HTTP/1.1")
        assert response.history == []
        assert response.cookiejar is not None


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
def test_bodies(pool: Pool, tiny: TinyServer, method: str) -> None:
    """Bytes and forms; the request remembers what was sent."""
    response = getattr(pool, method)(f"{tiny.url}/ok", body={"a": "1", "b": "x y"}, headers={"X-Mine": "yes"})
    assert response.content == b"a=1&b=x+y"
    assert response.request.content == b"a=1&b=x+y"
    assert response.request.headers["x-mine"] == "yes"
    assert getattr(pool, method)(f"{tiny.url}/ok", body=b"\0bytes").content == b"\0bytes"


def test_requests_in_flight_never_cross(pool: Pool, tiny: TinyServer) -> None:
    """Each gets its own answer, whoever asks first."""
    handles = {i: pool.async_get(f"{tiny.url}/ok?i={i}") for i in range(200)}
    for i in reversed(range(200)):
        assert handles[i].result().content == f"GET /ok?i={i}".encode()


def test_a_request_that_hangs_holds_up_nobody(pool: Pool, tiny: TinyServer) -> None:
    """Not even the first one to its origin, while it is not known yet whether connections can be shared."""
    for _ in range(10):
        pool.async_get(f"{tiny.url}/hang")
    assert pool.get(f"{tiny.url}/ok", timeout_ms=5000).status_code == 200


def test_references(pool: Pool, tiny: TinyServer) -> None:
    """The caller's own, or unique ints."""
    handles = [pool.async_get(f"{tiny.url}/ok") for _ in range(10)]
    assert len({handle.ref for handle in handles}) == 10
    assert all(type(handle.ref) is int for handle in handles)
    assert pool.async_get(f"{tiny.url}/ok", ref=("my", "own")).ref == ("my", "own")


# ---------------------------------------------------------------------------------------------------- what the call raises


def test_refusals_are_raised_by_the_call(pool: Pool, tiny: TinyServer) -> None:
    """With nothing sent and nothing in flight."""
    seen = len(tiny.seen)
    for call in (pool.get, pool.async_get):
        with pytest.raises(InvalidURL):
            call("http://:80/")
        for url in ("localhost/x", "ftp://localhost/", "file:///etc/passwd"):
            with pytest.raises(UnsupportedProtocol):
                call(url)
        with pytest.raises(BadOptions, match="did you mean timeout_ms"):
            call(tiny.url, timeout=1)  # type: ignore[call-arg]
    with pytest.raises(BadOptions, match="method"):
        pool.request("GET /", tiny.url)
    with pytest.raises(BadOptions, match="stream requires async_request"):
        pool.get(tiny.url, stream=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        pool.get(b"http://localhost/")  # type: ignore[arg-type]
    assert len(tiny.seen) == seen
    assert pool.statistics().in_flight == 0


def test_check_options_names_every_offender_and_sends_nothing(pool: Pool) -> None:
    """And has no answer where there is none."""
    assert pool.check_options(timeout_ms=1, stream=True) is None  # type: ignore[func-returns-value]
    with pytest.raises(BadOptions) as caught:
        pool.check_options(timeout_ms="1", maxredirs=-2, nonsense=1)  # type: ignore[call-arg, arg-type]
    assert all(name in caught.value.message for name in ("timeout_ms", "maxredirs", "nonsense"))
    assert pool.statistics().workers == 0


def test_bad_pool_options() -> None:
    """Every one of them is named."""
    with pytest.raises(BadOptions, match=r"workers.*max_in_flight"):
        Pool(0, max_in_flight=-1)
    with pytest.raises(BadOptions, match="drain"):
        Pool().close(drain=-1)


def test_overload_and_a_freed_slot(tiny: TinyServer) -> None:
    """Refused at once; free again when a transfer ends, not when its messages are read."""
    with Pool(workers=2, max_in_flight=1) as pool:
        first = pool.async_get(f"{tiny.url}/ok?gate=overload")
        second = pool.async_get(f"{tiny.url}/ok?gate=overload")
        with pytest.raises(Overload) as caught:
            pool.async_get(f"{tiny.url}/ok")
        assert (caught.value.code, caught.value.request_sent) == ("overload", False)
        assert caught.value.request is not None
        tiny.open("overload", 2)
        wait_until(lambda: first.done() and second.done())
        assert pool.get(f"{tiny.url}/ok").status_code == 200


# ---------------------------------------------------------------------------------------------------- statistics


def test_nothing_is_started_before_the_first_request(tiny: TinyServer) -> None:
    """No thread, no descriptor."""
    tiny.wait_idle()
    threads, descriptors = len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
    with Pool(workers=4) as pool:
        assert len(os.listdir("/proc/self/task")) == threads
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert pool.statistics() == PoolStatistics(0, 0, 0, 0, 0, 0, 0)


def test_statistics(pool: Pool, tiny: TinyServer) -> None:
    """Accepted and without a terminal event; completed; failed, cancelled ones included."""
    pool.get(f"{tiny.url}/ok")
    hanging = pool.async_get(f"{tiny.url}/hang")
    with pytest.raises(katipo.RemoteProtocolError):
        pool.get(f"{tiny.url}/cut")
    now = pool.statistics()
    assert (now.workers, now.in_flight, now.restarts, now.completed, now.failed) == (1, 1, 0, 1, 1)
    hanging.cancel()
    now = pool.statistics()
    assert (now.in_flight, now.completed, now.failed) == (0, 1, 2)
    with pytest.raises(AttributeError):
        now.workers = 2  # type: ignore[misc]


# ---------------------------------------------------------------------------------------------------- closing


def test_close_fails_what_is_in_flight_once(tiny: TinyServer) -> None:
    """PoolClosed, for whoever waits and in the mailbox; nothing hangs."""
    box = katipo.Mailbox()
    pool = Pool()
    handles = [pool.async_get(f"{tiny.url}/hang") for _ in range(5)]
    pool.async_get(f"{tiny.url}/hang", reply_to=box)
    errors: list[BaseException] = []

    def wait(handle: katipo.Handle) -> None:
        try:
            handle.result()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=wait, args=(handle,)) for handle in handles]
    for thread in threads:
        thread.start()
    pool.close()
    for thread in threads:
        thread.join(10)
    assert [type(error) for error in errors] == [PoolClosed] * 5
    message = box.receive(0)
    assert isinstance(message, katipo.Failed)
    assert isinstance(message.error, PoolClosed)
    assert pool.statistics().workers == 0
    pool.close()
    with pytest.raises(PoolClosed):
        pool.get(f"{tiny.url}/ok")


def test_close_drains(tiny: TinyServer) -> None:
    """What ends in time ends well; the rest is failed when the time is over."""
    pool = Pool()
    ends = pool.async_get(f"{tiny.url}/ok?gate=drain")
    thread = threading.Thread(target=pool.close, kwargs={"drain": 10})
    thread.start()
    wait_until(lambda: pool._closed)
    with pytest.raises(PoolClosed):
        pool.async_get(f"{tiny.url}/ok")
    tiny.open("drain")
    thread.join(10)
    assert ends.result(0).status_code == 200
    pool = Pool()
    hangs = pool.async_get(f"{tiny.url}/hang")
    start = time.monotonic()
    pool.close(drain=0.1)
    assert 0.1 <= time.monotonic() - start < 2
    with pytest.raises(PoolClosed):
        hangs.result(0)


def test_aclose_drains_and_cancelled_it_stops(tiny: TinyServer) -> None:
    """In an event loop."""

    async def main() -> None:
        async with Pool() as pool:
            handle = pool.async_get(f"{tiny.url}/ok?gate=aclose")
            closing = asyncio.ensure_future(pool.aclose(drain=10))
            await asyncio.sleep(0)
            tiny.open("aclose")
            await closing
            assert (await handle).status_code == 200
        pool = Pool()
        hangs = pool.async_get(f"{tiny.url}/hang")
        closing = asyncio.ensure_future(pool.aclose(drain=60))
        await asyncio.sleep(0.01)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(PoolClosed):
            await hangs
        await pool.aclose()
        assert pool.statistics().workers == 0

    asyncio.run(main())


def test_a_pool_that_is_dropped_warns_and_ends(tiny: TinyServer) -> None:
    """What is in flight runs to its end first; a pool without a worker says nothing."""
    gc.collect()  # errors that other tests caught may hold a handle, and with it a pool
    wait_until(lambda: _engine.counts()["workers"] == 0)
    pools = [Pool(name="dropped")]
    pools[0].async_get(f"{tiny.url}/ok?gate=pool-dropped")
    with pytest.warns(ResourceWarning, match="unclosed <Pool 'dropped'"):
        pools.clear()
    assert _engine.counts()["workers"] == 1
    tiny.open("pool-dropped")
    wait_until(lambda: _engine.counts()["workers"] == 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pool()
        gc.collect()


def test_everything_is_given_back(tiny: TinyServer) -> None:
    """Descriptors, threads and engine objects are where they were."""

    def census() -> tuple[int, int, dict[str, int]]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), _engine.counts()

    tiny.wait_idle()
    before = census()
    for _ in range(5):
        with Pool(workers=2) as pool:
            handles = [pool.async_get(f"{tiny.url}/ok") for _ in range(20)]
            handles.append(pool.async_get(f"{tiny.url}/hang"))
            handles[0].result()
        del handles, pool
    tiny.wait_idle()
    # A thread ends a moment after its join.
    wait_until(lambda: census() == before, message=f"{census()} where {before} was expected")


# ---------------------------------------------------------------------------------------------------- verbose


def test_verbose_goes_to_the_log_without_secrets(
    pool: Pool, tiny: TinyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is there when the response is."""
    with caplog.at_level(logging.DEBUG, logger="katipo.curl"):
        pool.get(
            f"{tiny.url}/ok?access_token=hunter1&x=seen",
            verbose=True,
            username="user",
            password="hunter2",
            http_auth="basic",
            headers={"Cookie": "a=hunter3", "X-Api-Key": "hunter4", "X-Plain": "seen too"},
        )
        logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "hunter" not in logged
    assert "aHVudGVyMg" not in logged
    assert "dXNlcjpodW50ZXIy" not in logged
    assert "> X-Plain: seen too" in logged
    assert "x=seen" in logged
    assert "< Content-Length: " in logged
    assert "> Authorization: [secure]" in logged


@pytest.mark.parametrize(
    ("kind", "line", "shown"),
    [
        (2, "Authorization: Basic dXNlcjpwYXNz", "Authorization: [secure]"),
        (2, "proxy-authorization: Basic dXNlcjpwYXNz", "proxy-authorization: [secure]"),
        (2, "Cookie: a=b; c=d", "Cookie: [secure]"),
        (1, "set-cookie: a=b; Path=/", "set-cookie: [secure]"),
        (1, "Date: today", "Date: today"),
        (2, "GET /x?token=abc&y=1 HTTP/1.1", "GET /x?token=[secure]&y=1 HTTP/1.1"),
        (0, "[HTTP/2] [1] [authorization: Bearer abc]", "[HTTP/2] [1] [authorization: [secure]]"),
        (0, "[HTTP/3] [0] [:path: /x?token=abc]", "[HTTP/3] [0] [:path: /x?token=[secure]]"),
        (0, "[HTTP/2] [1] [user-agent: katipo]", "[HTTP/2] [1] [user-agent: katipo]"),
        (0, 'Added cookie sid="abc" for domain example.org, path /, expire 0', None),
        (0, 'Replaced cookie sid="abc" for domain example.org, path /, expire 0', None),
        (0, "Issue another request to this URL: 'http://user:abc@example.org/'", None),
        (0, "Connected to example.org (192.0.2.1) port 80", "Connected to example.org (192.0.2.1) port 80"),
    ],
)
def test_what_a_verbose_line_shows(kind: int, line: str, shown: str | None) -> None:
    """Secrets go, the rest stays."""
    found = hide(kind, line)
    if shown is None:
        assert "abc" not in found
        assert "[secure]" in found
        assert "example.org" in found
    else:
        assert found == shown


# ---------------------------------------------------------------------------------------------------- death and exit


@pytest.mark.parametrize("how", ["poller", "memory", "multi"])
def test_a_worker_that_dies_is_replaced(tiny: TinyServer, how: str) -> None:
    """What it held fails with WorkerDied, once; the next request is served."""
    with Pool() as pool:
        assert pool.get(f"{tiny.url}/ok").status_code == 200
        handles = [pool.async_get(f"{tiny.url}/hang") for _ in range(3)]
        kill_worker(pool, how=how)  # type: ignore[arg-type]
        # The fault strikes at the next call; a request brings it on, and shares its worker's fate or starts the next one.
        with contextlib.suppress(WorkerDied):
            pool.get(f"{tiny.url}/ok")
        for handle in handles:
            with pytest.raises(WorkerDied) as caught:
                handle.result(10)
            assert caught.value.code == "worker_died"
        assert pool.get(f"{tiny.url}/ok").status_code == 200
        assert pool.statistics().restarts == 1


def test_kill_worker_refuses_what_makes_no_sense(pool: Pool, tiny: TinyServer) -> None:
    """Another way to die, or nobody to kill."""
    with pytest.raises(BadOptions, match="how"):
        kill_worker(pool, how="boredom")  # type: ignore[arg-type]
    with pytest.raises(BadOptions, match="no worker"):
        kill_worker(pool)
    pool.get(f"{tiny.url}/ok")
    with pytest.raises(BadOptions, match="no worker 5"):
        kill_worker(pool, 5)


EXIT = """
import sys, threading
import katipo
url = sys.argv[1]
pool = katipo.Pool(workers=2)
handles = [pool.async_get(url + "/hang") for _ in range(10)]
upload = pool.async_post(url + "/echo", stream_body=True, stream=True)
upload.send_body(b"half")
started = threading.Barrier(4)
def block():
    started.wait()
    handles[0].result()
def receive():
    started.wait()
    katipo.Mailbox().receive()
def iterate():
    started.wait()
    for _ in upload:
        pass
for target in (block, receive, iterate):
    threading.Thread(target=target, daemon=True).start()
started.wait()
"""


def test_exit_with_requests_in_flight(tiny: TinyServer) -> None:
    """Status 0, at once, with daemon threads blocked and an upload half done."""
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(EXIT), tiny.url]
    for _ in range(3):
        start = time.monotonic()
        finished = subprocess.run(command, timeout=60, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr
        assert time.monotonic() - start < 10


def test_a_blocking_call_cancelled_by_a_handler_is_cancelled(pool: Pool, tiny: TinyServer) -> None:
    """Whatever a signal's handler raises."""
    import signal

    class Interrupted(Exception):
        pass

    def handler(signum: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            pool.get(f"{tiny.url}/hang")
    finally:
        signal.signal(signal.SIGALRM, before)
    wait_until(lambda: pool.statistics().failed == 1)


def test_cancelled_is_no_asyncio_cancelled_error() -> None:
    """A request that was cancelled must not look like a task that was."""
    assert not issubclass(Cancelled, asyncio.CancelledError)


# ---------------------------------------------------------------------------------------------------- features, command line


def test_features() -> None:
    """Frozen, and says what is there."""
    features = katipo.features()
    assert {"http", "https"} <= features.protocols
    assert features.http_versions[:2] == ("HTTP/1.0", "HTTP/1.1")
    assert {"basic", "digest"} <= set(features.auth_schemes)
    assert "gzip" in features.codings
    with pytest.raises(AttributeError):
        features.libcurl = "x"  # type: ignore[misc]


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    """`katipo info` prints libcurl, its features, and what is missing."""
    from katipo.cli import main

    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert katipo.features().libcurl in printed
    assert "missing" in printed


def test_libcurl_is_found_without_importing_pycurl() -> None:
    """And KATIPO_LIBCURL that cannot be loaded is an ImportError that says so."""
    program = "import sys, katipo; katipo.features(); assert not {'pycurl', 'asyncio'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    program = "import katipo; katipo.Pool()"
    environment = {**os.environ, "KATIPO_LIBCURL": "/nowhere/libcurl.so.4"}
    finished = subprocess.run(
        [sys.executable, "-c", program], env=environment, timeout=60, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1
    assert "ImportError" in finished.stderr
    assert "/nowhere/libcurl.so.4" in finished.stderr


def test_importing_starts_nothing() -> None:
    """No thread, no libcurl."""
    program = """
import os, katipo
assert len(os.listdir("/proc/self/task")) == 1
assert "curl" not in open("/proc/self/maps").read()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
