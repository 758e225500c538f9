"""Bodies that the worker reads from a file, and writes to one: whole, or failed with a reason, and no descriptor left.

No public name leads here yet but the clients': uploads with `content=` a file, downloads. What is tested is what both
stand on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pytest

import katipo
import katipo.testing
from katipo import _engine
from katipo.handle import Handle, block_until_files_closed, until_files_closed
from katipo.messages import Chunk, Done, Started
from tests.support.pattern import pattern
from tests.support.procs import open_descriptors, run_python
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Hostile
    from tests.support.certs import Certificates
    from tests.support.endpoints import Endpoint
    from tests.support.hostile import Peer
    from tests.support.nginx import Nginx
    from tests.support.origin import Origin

# pyright: reportPrivateUsage=false

HANG = 30.0
"""Seconds after which something hangs."""
BIG = 3_000_001
"""Bytes: beyond every window and buffer of ours, and no multiple of anything."""
HUGE = 64 << 20
"""Bytes: beyond what the kernel's buffers take as well."""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    """A file of BIG bytes of the pattern, open for reading."""
    path = tmp_path / "source"
    path.write_bytes(pattern(0, BIG))
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    """An empty file, open for writing."""
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def no_file_is_left() -> Iterator[None]:
    """The engine holds no file once a test's requests have ended."""
    yield
    wait_until(lambda: _engine.counts()["files"] == 0, message="a file of the engine's is still open")


@pytest.fixture
def huge(tmp_path: Path) -> Iterator[Path]:
    """A file of HUGE zeros that takes no room."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(HUGE)
    yield path
    path.unlink()


def written(handle: Handle, size: int) -> bool:
    return handle._written() == size


def content_of(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def dies(peer: Peer) -> None:
    """A kept connection that is closed after its second request, without an answer."""
    peer.read_request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    peer.read_request()
    peer.close()


def never_asked(peer: Peer) -> None:
    """A connection that is opened, and on which nothing must come."""
    peer.wait_closed()
    assert peer.received == b""


def upload(pool: katipo.Pool, url: str, length: int | None, **options: Any) -> Handle:
    method = options.pop("method", "PUT")
    headers = {} if length is None else {"Content-Length": str(length)}
    return pool.async_request(method, url, stream_body=True, headers=headers, **options)


def download(pool: katipo.Pool, url: str, **options: Any) -> tuple[Handle, Iterator[Any], Started]:
    """A streamed request whose headers are there."""
    handle = pool.async_get(url, stream=True, decode=False, **options)
    messages = iter(handle)
    started = next(messages)
    assert isinstance(started, Started)
    return handle, messages, started


# ---------------------------------------------------------------------------------------------------- up


@pytest.mark.core
@pytest.mark.parametrize(("offset", "size"), [(0, BIG), (1000, 2_000_000), (BIG - 1, 1), (5, 0)])
def test_the_server_gets_the_file(pool: katipo.Pool, endpoint: Endpoint, source: int, offset: int, size: int) -> None:
    """What was asked for of the file arrives, and the caller may close its descriptor at once."""
    own = os.dup(source)
    handle = upload(pool, endpoint("/upload"), size, **endpoint.options)
    handle._send_file(own, offset, size)
    os.close(own)
    handle.finish_body()  # has no more to end
    answer = handle.result(HANG).json()
    expected = hashlib.sha256(pattern(offset, size)).hexdigest()
    assert (answer["length"], answer["sha256"]) == (size, expected)


def test_pieces_that_were_sent_before_come_first(pool: katipo.Pool, endpoint: Endpoint, source: int) -> None:
    """Pieces, then the file, under one Content-Length."""
    handle = upload(pool, endpoint("/upload"), 6 + BIG, method="POST", **endpoint.options)
    handle.send_body(b"abc")
    handle.send_body(b"def")
    handle._send_file(source, 0, BIG)
    handle.send_body(b"dropped: the body has ended")
    assert handle.result(HANG).json()["sha256"] == hashlib.sha256(b"abcdef" + pattern(0, BIG)).hexdigest()


def test_a_file_may_follow_a_body_without_length(pool: katipo.Pool, endpoint: Endpoint, source: int) -> None:
    """Without a Content-Length the body ends with the file."""
    handle = upload(pool, endpoint("/upload"), None, **endpoint.options)
    handle._send_file(source, 10, 100_000)
    assert handle.result(HANG).json()["sha256"] == hashlib.sha256(pattern(10, 100_000)).hexdigest()


def test_a_file_beyond_the_length_is_refused(pool: katipo.Pool, endpoint: Endpoint, source: int) -> None:
    """Refused at the call, with nothing taken: what fits can still be sent."""
    handle = upload(pool, endpoint("/upload"), 100, **endpoint.options)
    with pytest.raises(katipo.LocalProtocolError):
        handle._send_file(source, 0, 101)
    handle._send_file(source, 0, 100)
    assert handle.result(HANG).json()["length"] == 100


def test_a_file_short_of_the_length_fails_the_request(pool: katipo.Pool, endpoint: Endpoint, source: int) -> None:
    """It never looks complete to the server."""
    handle = upload(pool, endpoint("/upload"), BIG + 1, **endpoint.options)
    handle._send_file(source, 0, BIG)
    with pytest.raises(katipo.LocalProtocolError):
        handle.result(HANG)


def test_what_cannot_be_read_at_an_offset_is_refused(pool: katipo.Pool, endpoint: Endpoint, target: int) -> None:
    """Pipes, closed descriptors, ones open for writing alone: OSError at the call, and the request is as it was."""
    handle = upload(pool, endpoint("/upload"), 3, **endpoint.options)
    reader, writer = os.pipe()
    writes = os.open(f"/proc/self/fd/{target}", os.O_WRONLY)
    try:
        for fd, offset, length in [(reader, 0, 3), (writer, 0, 3), (writes, 0, 3), (-1, 0, 3), (target, -1, 3)]:
            with pytest.raises(OSError, match=r"Illegal seek|Bad file descriptor|Invalid argument"):
                handle._send_file(fd, offset, length)
        with pytest.raises(OSError, match="Invalid argument"):
            handle._send_file(target, 0, -1)
    finally:
        for fd in (reader, writer, writes):
            os.close(fd)
    handle.send_body(b"abc")
    handle.finish_body()
    assert handle.result(HANG).json()["length"] == 3


def test_a_body_that_is_not_streamed_has_no_file(pool: katipo.Pool, endpoint: Endpoint, source: int) -> None:
    """The calls of the other kind of request are refused."""
    handle = pool.async_get(endpoint("/headers"), **endpoint.options)
    with pytest.raises(katipo.StreamError):
        handle._send_file(source, 0, 1)
    with pytest.raises(katipo.StreamError):
        handle._write_to(source, 0)
    handle.result(HANG)


def test_a_file_that_shrinks_fails_the_request(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, huge: Path
) -> None:
    """Cut while it is being sent: a clear error, and no whole body at the server."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    url = endpoint("/upload", id=name, gate=gate, every=65536, first=65536)
    fd = os.open(huge, os.O_RDONLY)
    handle = upload(pool, url, HUGE, **endpoint.options)
    handle._send_file(fd, 0, HUGE)
    os.close(fd)
    origin.journal(name, until="received>=1")
    os.truncate(huge, 1000)
    origin.open_gate(gate, None)
    with pytest.raises(katipo.TransportError, match="shorter than was said") as caught:
        handle.result(HANG)
    assert caught.value.code == "read_error"
    assert origin.journal(name, until="over").bodies == 0


def test_a_file_that_cannot_be_read_fails_the_request(pool: katipo.Pool, endpoint: Endpoint, tmp_path: Path) -> None:
    """A folder opens, and can be positioned, and then every read fails."""
    fd = os.open(tmp_path, os.O_RDONLY)
    handle = upload(pool, endpoint("/upload"), 100, **endpoint.options)
    handle._send_file(fd, 0, 100)
    os.close(fd)
    with pytest.raises(katipo.TransportError, match="Is a directory") as caught:
        handle.result(HANG)
    assert caught.value.code == "read_error"


def test_an_early_answer_ends_the_upload(pool: katipo.Pool, endpoint: Endpoint, source: int) -> None:
    """413 in the middle of the file is the answer."""
    handle = upload(pool, endpoint("/early/413", how="stop", read=10_000), BIG, **endpoint.options)
    handle._send_file(source, 0, BIG)
    assert handle.result(HANG).status_code == 413


@pytest.mark.core
def test_a_cancel_in_the_middle_of_a_file(pool: katipo.Pool, endpoint: Endpoint, origin: Origin, huge: Path) -> None:
    """The server sees the body cut off, and the engine lets go of the file."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    url = endpoint("/upload", id=name, gate=gate, every=65536, first=65536)
    fd = os.open(huge, os.O_RDONLY)
    handle = upload(pool, url, HUGE, **endpoint.options)
    handle._send_file(fd, 0, HUGE)
    os.close(fd)
    origin.journal(name, until="received>=1")
    handle.cancel()
    assert block_until_files_closed(handle, HANG)
    with pytest.raises(katipo.Cancelled):
        handle.result(HANG)
    origin.open_gate(gate, None)
    assert origin.journal(name, until="over").bodies == 0


def test_nginx_gets_the_file_over_tls_and_refuses_a_large_one(
    pool: katipo.Pool, nginx: Nginx, certs: Certificates, source: int
) -> None:
    """A server that was not written for us: all of it, and a 413 in the middle."""
    handle = upload(pool, f"{nginx.https}/put", BIG, cacert=str(certs.ca))
    handle._send_file(source, 0, BIG)
    assert handle.result(HANG).status_code == 200
    for url, options in [(nginx.http, {}), (nginx.https, {"cacert": str(certs.ca)})]:
        handle = upload(pool, f"{url}/limited", BIG, **options)
        with contextlib.suppress(katipo.StreamClosed):  # the length alone may have been answered
            handle._send_file(source, 0, BIG)
        assert handle.result(HANG).status_code == 413


def test_a_file_is_sent_again_after_a_challenge(pool: katipo.Pool, endpoint: Endpoint, source: int) -> None:
    """Digest takes two rounds; the file goes with the one that counts."""
    url = endpoint("/digest", user="u", password="p")
    login = {"http_auth": "digest", "username": "u", "password": "p", **endpoint.options}
    handle = upload(pool, url, BIG, **login)
    handle._send_file(source, 0, BIG)
    assert handle.result(HANG).status_code == 200


def test_a_file_is_sent_again_on_another_connection(pool: katipo.Pool, hostile: Hostile, source: int) -> None:
    """A PUT on a kept connection that dies is idempotent: libcurl sends it again, from the file's beginning.

    With pieces before the file that beginning is gone, and the request fails.
    """

    def answers(peer: Peer) -> None:
        head, body = peer.read_request()
        assert head.method == "PUT"
        assert body == pattern(0, BIG)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = hostile(dies, answers)
    assert pool.get(server.url).status_code == 200
    handle = upload(pool, server.url, BIG)
    handle._send_file(source, 0, BIG)
    assert handle.result(HANG).status_code == 200
    server = hostile(dies, then=never_asked)
    assert pool.get(server.url).status_code == 200
    handle = upload(pool, server.url, 3 + BIG)
    handle.send_body(b"abc")
    handle._send_file(source, 0, BIG)
    with pytest.raises(katipo.TransportError):
        handle.result(HANG)


def test_a_post_of_a_file_is_not_sent_twice(pool: katipo.Pool, hostile: Hostile, source: int) -> None:
    """That the file could be read again weakens no guard: a POST may have been executed."""

    server = hostile(dies, then=never_asked)
    assert pool.get(server.url).status_code == 200
    handle = upload(pool, server.url, BIG, method="POST")
    handle._send_file(source, 0, BIG)
    with pytest.raises(katipo.NetworkError):
        handle.result(HANG)


# ---------------------------------------------------------------------------------------------------- down


@pytest.mark.core
@pytest.mark.parametrize("size", [0, 1, BIG])
def test_the_body_goes_to_the_file(pool: katipo.Pool, endpoint: Endpoint, target: int, size: int) -> None:
    """From an offset on, whole and in order; what comes after is Done alone."""
    handle, messages, _ = download(pool, endpoint("/big", size=size), **endpoint.options)
    own = os.dup(target)
    handle._write_to(own, 7)
    os.close(own)
    (done,) = list(messages)
    assert isinstance(done, Done)
    assert done.metrics.bytes_received == size
    assert handle._written() == size
    assert content_of(target)[7:] == pattern(0, size)


def test_what_was_queued_before_comes_first(pool: katipo.Pool, endpoint: Endpoint, origin: Origin, target: int) -> None:
    """A window is full and the transfer paused when the file comes: it goes on, and no byte is lost or misplaced."""
    name = origin.fresh_id()
    url = endpoint("/big", size=BIG, id=name)
    handle, messages, _ = download(pool, url, stream_window=100_000, **endpoint.options)
    origin.journal(name, until="sent>=100000")
    handle._write_to(target, 0)
    assert isinstance(next(messages), Done)
    assert content_of(target) == pattern(0, BIG)


def test_chunks_that_were_taken_are_the_takers(pool: katipo.Pool, endpoint: Endpoint, target: int) -> None:
    """Only what has not been taken goes to the file."""
    url = endpoint("/big", size=BIG)
    handle, messages, _ = download(pool, url, stream_window=100_000, **endpoint.options)
    chunk = next(messages)
    assert isinstance(chunk, Chunk)
    handle._write_to(target, len(chunk.data))
    assert isinstance(next(messages), Done)
    os.pwrite(target, chunk.data, 0)
    assert content_of(target) == pattern(0, BIG)


def test_a_response_that_is_all_there_is_written_too(pool: katipo.Pool, endpoint: Endpoint, target: int) -> None:
    """The transfer has ended before the file comes: what is queued is written in the call."""
    handle, messages, _ = download(pool, endpoint("/big", size=100_000), **endpoint.options)
    wait_until(handle.done)
    handle._write_to(target, 0)
    assert handle._written() == 100_000
    assert isinstance(next(messages), Done)
    assert content_of(target) == pattern(0, 100_000)


def test_small_pieces_are_there_when_the_server_pauses(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, target: int
) -> None:
    """Nothing is held back to fill a buffer."""
    gate = origin.fresh_id()
    handle, messages, _ = download(pool, endpoint("/drip", n=3, size=10, gate=gate), **endpoint.options)
    handle._write_to(target, 0)
    for i in range(1, 4):
        origin.open_gate(gate)
        wait_until(partial(written, handle, 10 * i))
    assert isinstance(next(messages), Done)
    assert content_of(target) == pattern(0, 30)


async def test_a_loop_waits_for_the_end(pool: katipo.Pool, endpoint: Endpoint, target: int) -> None:
    """The same in an event loop."""
    handle = pool.async_get(endpoint("/big", size=BIG), stream=True, decode=False, **endpoint.options)
    messages = handle.__aiter__()
    assert isinstance(await messages.__anext__(), Started)
    handle._write_to(target, 0)
    assert isinstance(await messages.__anext__(), Done)
    assert await until_files_closed(handle, HANG)
    assert content_of(target) == pattern(0, BIG)


def test_max_response_bytes_counts(pool: katipo.Pool, endpoint: Endpoint, target: int) -> None:
    """The limit holds for what goes to a file."""
    url = endpoint("/big", size=BIG)
    handle, messages, _ = download(pool, url, max_response_bytes=BIG - 1, **endpoint.options)
    handle._write_to(target, 0)
    with pytest.raises(katipo.ResponseTooLarge):
        next(messages)
    assert handle._written() < BIG


def test_what_came_before_a_failure_is_written(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, target: int
) -> None:
    """A part can be resumed: the bytes before the cut are there, without a gap."""
    gate = origin.fresh_id()
    url = endpoint("/cut-mid-body", size=BIG, sent=200_000)
    handle, messages, _ = download(pool, url, **endpoint.options)
    handle._write_to(target, 0)
    with pytest.raises(katipo.Error):
        next(messages)
    written = handle._written()
    assert written <= 200_000
    assert endpoint.version != "1.1" or written == 200_000
    assert content_of(target) == pattern(0, written)
    origin.open_gate(gate, None)


@pytest.mark.core
def test_a_cancel_in_the_middle_of_a_download(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, target: int
) -> None:
    """It is cancelled; the file is let go, and what is in it is right."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    url = endpoint("/drip", n=3, size=10_000, gate=gate, id=name)
    handle, messages, _ = download(pool, url, **endpoint.options)
    handle._write_to(target, 0)
    origin.open_gate(gate)
    wait_until(lambda: handle._written() > 0)
    handle.cancel()
    assert block_until_files_closed(handle, HANG)
    with pytest.raises(katipo.Cancelled):
        next(messages)
    written = content_of(target)
    assert written == pattern(0, len(written))
    origin.journal(name, until="disconnected")


def test_a_dropped_handle_cancels_its_download(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, target: int
) -> None:
    """Nobody is left to hear of the end."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    handle, messages, _ = download(pool, endpoint("/drip", n=2, gate=gate, id=name), **endpoint.options)
    handle._write_to(target, 0)
    del handle, messages
    origin.journal(name, until="disconnected")


def test_what_cannot_be_written_at_an_offset_is_refused(
    pool: katipo.Pool, endpoint: Endpoint, source: int, target: int, tmp_path: Path
) -> None:
    """Pipes, descriptors open for reading or appending, a second file: OSError at the call, the response as it was."""
    handle, messages, _ = download(pool, endpoint("/big", size=1000), **endpoint.options)
    appends = os.open(tmp_path / "target", os.O_WRONLY | os.O_APPEND)
    reader, writer = os.pipe()
    try:
        for fd, offset in [(writer, 0), (reader, 0), (source, 0), (appends, 0), (target, -1), (-1, 0)]:
            with pytest.raises(OSError, match=r"Illegal seek|Bad file descriptor|Invalid argument"):
                handle._write_to(fd, offset)
    finally:
        for fd in (appends, reader, writer):
            os.close(fd)
    handle._write_to(target, 0)
    with pytest.raises(OSError, match="Invalid argument"):
        handle._write_to(target, 0)
    assert isinstance(next(messages), Done)
    assert content_of(target) == pattern(0, 1000)


def test_what_is_decoded_or_mailed_goes_to_no_file(pool: katipo.Pool, endpoint: Endpoint, target: int) -> None:
    """Bytes are written as sent, and a mailbox has its own consumers."""
    handle = pool.async_get(endpoint("/big", size=10), stream=True, **endpoint.options)
    with handle, pytest.raises(katipo.StreamError, match="decode"):
        handle._write_to(target, 0)
    box = katipo.Mailbox()
    mailed = pool.async_get(endpoint("/big", size=10), stream=True, decode=False, reply_to=box, **endpoint.options)
    with pytest.raises(katipo.StreamError):
        mailed._write_to(target, 0)
    box.close()


def test_nginx_fills_a_file(pool: katipo.Pool, nginx: Nginx, certs: Certificates, target: int) -> None:
    """64 MiB over HTTP/1.1 and over HTTP/2 and TLS."""
    size = nginx.files["big"]
    expected = hashlib.sha256(pattern(0, size)).digest()
    for base, options in [(nginx.http, {}), (nginx.https, {"cacert": str(certs.ca)})]:
        os.ftruncate(target, 0)
        handle, messages, _ = download(pool, f"{base}/files/big", **options)
        handle._write_to(target, 0)
        assert isinstance(next(messages), Done)
        assert hashlib.sha256(content_of(target)).digest() == expected


# ---------------------------------------------------------------------------------------------------- what goes wrong


FULL = """
import os, resource, sys
import katipo
from katipo.messages import Started
url, version, cacert, path, when = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # EFBIG; the signal is Python's to ignore, and it does
options = {"http_version": version, "cacert": cacert} if cacert else {}
with katipo.Pool() as pool:
    handle = pool.async_get(url, stream=True, decode=False, **options)
    messages = iter(handle)
    assert isinstance(next(messages), Started)
    while when == "late" and not handle.done():
        os.sched_yield()
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    handle._write_to(fd, 0)
    os.close(fd)
    try:
        print(next(messages))
    except katipo.TransportError as error:
        print(error.code, handle._written(), error.message)
    again = pool.get(url.replace("/big", "/headers"), **options)
    assert again.status_code == 200  # the worker lives
assert katipo._engine.counts()["files"] == 0
"""


@pytest.mark.parametrize("when", ["early", "late"])
def test_a_file_that_may_not_grow_fails_the_request(endpoint: Endpoint, tmp_path: Path, when: str) -> None:
    """A limit on a file's size: "write_error", the system's own words, and what fits is there."""
    size = 500_000 if when == "late" else BIG  # the first is all in the window before the file comes
    arguments = [str(endpoint.options.get(name, "")) for name in ("http_version", "cacert")]
    finished = run_python(FULL, args=[endpoint("/big", size=size), *arguments, str(tmp_path / "file"), when])
    assert finished.status == 0, finished.stderr
    assert finished.stdout.startswith("write_error 100000 "), finished.stdout
    assert "File too large" in finished.stdout
    assert (tmp_path / "file").read_bytes() == pattern(0, 100_000)


def test_a_full_disk_fails_the_request(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """ENOSPC, by the device that always has it."""
    handle, messages, _ = download(pool, endpoint("/big", size=BIG), **endpoint.options)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        handle._write_to(full, 0)
    finally:
        os.close(full)
    with pytest.raises(katipo.TransportError, match="No space left on device") as caught:
        next(messages)
    assert caught.value.code == "write_error"
    assert handle._written() == 0


@pytest.mark.parametrize("how", ["poller", "memory", "multi"])
def test_a_worker_that_dies_lets_go_of_files(
    pool: katipo.Pool,
    endpoint: Endpoint,
    origin: Origin,
    source: int,
    target: int,
    how: Literal["poller", "memory", "multi"],
) -> None:
    """Both directions fail, and the engine holds neither file."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    up = upload(pool, endpoint("/upload", gate=gate, every=65536, first=65536, id=name), BIG, **endpoint.options)
    up._send_file(source, 0, BIG)
    down, messages, _ = download(pool, endpoint("/drip", n=2, gate=gate), **endpoint.options)
    down._write_to(target, 0)
    origin.journal(name, until="received>=1")
    katipo.testing.kill_worker(pool, how=how)
    with pytest.raises(katipo.WorkerDied):
        up.result(HANG)
    with pytest.raises(katipo.WorkerDied):
        next(messages)
    assert block_until_files_closed(up, HANG)
    assert block_until_files_closed(down, HANG)


def test_a_pool_that_closes_lets_go_of_files(endpoint: Endpoint, origin: Origin, source: int, target: int) -> None:
    """A file that waits for a turn, one in the middle of it, one that is written: all are closed with the pool."""
    before = open_descriptors()
    name, gate = origin.fresh_id(), origin.fresh_id()
    pool = katipo.Pool(max_host_connections=1, max_concurrent_streams=2)
    url = endpoint("/upload", gate=gate, every=65536, first=65536, id=name)
    handles = [upload(pool, url, BIG, **endpoint.options) for _ in range(3)]
    for handle in handles:
        handle._send_file(source, 0, BIG)
    origin.journal(name, until="received>=1")
    pool.close()
    for handle in handles:
        with pytest.raises(katipo.PoolClosed):
            handle.result(HANG)
        assert block_until_files_closed(handle, HANG)
    files = {fd: what for fd, what in open_descriptors().items() if "/source" in what}
    assert files == {fd: what for fd, what in before.items() if "/source" in what}


FORK = """
import os, sys, traceback
import katipo
from katipo.messages import Done, Started
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
url, version, cacert, source, target = sys.argv[1:]
options = {"http_version": version, "cacert": cacert} if cacert else {}

def of_files():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            pass
    return [each for each in found if each in (source, target)]

pool = katipo.Pool()
read, write = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR | os.O_CREAT)
size = os.fstat(read).st_size
up = pool.async_put(url + "/upload?rate=1000000", stream_body=True, headers={"Content-Length": str(size)}, **options)
up._send_file(read, 0, size)
down = pool.async_get(url + "/big?size=20000000", stream=True, decode=False, **options)
messages = iter(down)
assert isinstance(next(messages), Started)
down._write_to(write, 0)
os.close(read)
os.close(write)
while not down._written():
    os.sched_yield()
assert not down.done() and not up.done()
assert len(of_files()) == 2
pid = os.fork()
if pid == 0:
    status = 1
    try:
        assert of_files() == [], of_files()
        assert katipo._engine.counts()["files"] == 0
        for wait in (lambda: up.result(30), lambda: next(messages)):
            try:
                wait()
            except katipo.WorkerDied:
                pass
            else:
                raise AssertionError("a request of the parent's went on in the child")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
_, status = os.waitpid(pid, 0)
assert status == 0
assert isinstance(next(messages), Done)
assert up.result(30).json()["length"] == size
pool.close()
assert of_files() == []
assert katipo._engine.counts()["files"] == 0
"""


def test_a_fork_in_the_middle(endpoint: Endpoint, source: int, tmp_path: Path) -> None:
    """The parent's transfers go on; the child closes its copies of the files, and writes nothing."""
    arguments = [str(endpoint.options.get(name, "")) for name in ("http_version", "cacert")]
    target = tmp_path / "forked"
    base = endpoint("/").rstrip("/")
    finished = run_python(FORK, timeout=60, args=[base, *arguments, str(tmp_path / "source"), str(target)])
    assert finished.status == 0, finished.stderr
    assert target.read_bytes() == pattern(0, 20_000_000)


def test_an_unlinked_file_can_be_sent(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A temporary file without a name, as multipart uploads and pipes on their way to a body use them."""
    with tempfile.TemporaryFile() as file:
        file.write(pattern(0, 1000))
        file.flush()
        handle = upload(pool, endpoint("/upload"), 1000, **endpoint.options)
        handle._send_file(file.fileno(), 0, 1000)
    assert handle.result(HANG).json()["length"] == 1000


# ---------------------------------------------------------------------------------------------------- played requests


def test_a_fake_pools_handler_gets_the_file(source: int) -> None:
    """A request that no worker runs reads its body from a file as well."""

    def handler(request: katipo.Request) -> katipo.Response:
        return katipo.Response(200, text=hashlib.sha256(request.content or b"").hexdigest())

    with katipo.testing.FakePool(handler) as pool:
        handle = upload(pool, "http://fake/", BIG)
        handle._send_file(source, 0, BIG)
        assert handle.result(HANG).text == hashlib.sha256(pattern(0, BIG)).hexdigest()
        assert block_until_files_closed(handle, HANG)
        short = upload(pool, "http://fake/", BIG + 1)
        short._send_file(source, 0, BIG + 1)
        with pytest.raises(katipo.TransportError, match="shorter than was said"):
            short.result(HANG)
        assert block_until_files_closed(short, HANG)


@pytest.mark.parametrize("size", [0, 1000, BIG])
def test_a_fake_pools_response_goes_to_the_file(target: int, size: int) -> None:
    """All of it in the window when the file comes, or more than that."""
    with katipo.testing.FakePool(lambda _: katipo.Response(200, content=pattern(0, size))) as pool:
        handle, messages, _ = download(pool, "http://fake/", stream_window=100_000)
        handle._write_to(target, 3)
        assert isinstance(next(messages), Done)
        assert block_until_files_closed(handle, HANG)
    assert content_of(target)[3:] == pattern(0, size)


@pytest.mark.parametrize("size", [1000, BIG])
def test_a_fake_pools_response_that_cannot_be_written(size: int) -> None:
    """It fails as a real one."""
    with katipo.testing.FakePool(lambda _: katipo.Response(200, content=pattern(0, size))) as pool:
        handle, messages, _ = download(pool, "http://fake/", stream_window=100_000)
        full = os.open("/dev/full", os.O_WRONLY)
        handle._write_to(full, 0)
        os.close(full)
        with pytest.raises(katipo.TransportError, match="No space left on device"):
            next(messages)
        assert block_until_files_closed(handle, HANG)
