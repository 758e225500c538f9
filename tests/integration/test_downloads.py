"""Downloads: whole or not there at all; gone on with where the server still has the same, and only there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

import katipo
import katipo.testing
from tests.support.hostile import response
from tests.support.pattern import pattern
from tests.support.procs import open_descriptors, run_python

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Hostile
    from tests.support.certs import Certificates
    from tests.support.clients import AnyClient, ClientMaker
    from tests.support.endpoints import Endpoint
    from tests.support.hostile import Peer
    from tests.support.nginx import Nginx
    from tests.support.origin import Origin

BIG = 3_000_001
ETAG = '"v1"'
SIZE = 100_000
"""Of what the scripted servers have."""
PART = 30_000
"""Of which so much is there from before."""


FAST = {"X-Fast": "yes"}
"""With which nginx's /slow/ is not slow."""


class Stop(Exception):
    """What a progress function raises."""


@pytest.fixture
def local(clients: ClientMaker) -> AnyClient:
    """A client without a version of its own."""
    return clients()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "file.bin"


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def content(target: Path) -> bytes:
    return target.read_bytes()


def record_of(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


def left_over(target: Path) -> list[str]:
    """What stands in the target's folder beside it."""
    return sorted(each.name for each in target.parent.iterdir() if each != target)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def stop_once_there_is(size: int) -> Callable[[int, int | None], None]:
    """A progress function that breaks a download off."""

    def progress(so_far: int, total: int | None) -> None:
        if so_far >= size:
            raise Stop

    return progress


# ---------------------------------------------------------------------------------------------------- whole


@pytest.mark.core
@pytest.mark.parametrize("size", [0, 1, BIG])
def test_a_file_is_there_as_a_whole(clients: ClientMaker, endpoint: Endpoint, target: Path, size: int) -> None:
    """Over each version: the bytes, what is said of them, and nothing beside them."""
    done = clients(**endpoint.client_options).download(endpoint("/big", size=size), target, sha256=True)
    assert target.read_bytes() == pattern(0, size)
    assert (done.path, done.size, done.status_code, done.resumed_from) == (target, size, 200, 0)
    assert done.sha256 == sha256(pattern(0, size))
    assert done.metrics.bytes_received == size
    assert done.headers["content-length"] == str(size)
    assert left_over(target) == []


def test_a_length_that_is_not_known(clients: ClientMaker, endpoint: Endpoint, target: Path) -> None:
    """A body without Content-Length ends where it ends, and its total is None."""
    seen: list[tuple[int, int | None]] = []
    clients(**endpoint.client_options).download(
        endpoint("/big", size=BIG, chunked=1), target, progress=lambda *said: seen.append(said)
    )
    assert target.read_bytes() == pattern(0, BIG)
    assert seen[-1] == (BIG, None)


def test_nginx_and_64_mib(clients: ClientMaker, nginx: Nginx, certs: Certificates, target: Path) -> None:
    """A server that was not written for us, over HTTP/1.1 and 2; the second takes the first one's place."""
    size = nginx.files["big"]
    expected = sha256(pattern(0, size))
    client = clients(verify=str(certs.ca))
    for base in (nginx.http, nginx.https):
        done = client.download(f"{base}/files/big", target, sha256=expected.upper())
        assert (done.size, done.sha256, done.resumed_from) == (size, expected, 0)
    with target.open("rb") as file:
        assert sha256(file.read()) == expected


def says_what_is_accepted(peer: Peer) -> None:
    asked, _ = peer.read_request()
    peer.send(response((asked.get("accept-encoding") or "").encode()))


def test_bytes_are_saved_as_they_were_sent(local: AnyClient, origin: Origin, hostile: Hostile, target: Path) -> None:
    """No content coding is asked for; one that comes all the same is kept. An Accept-Encoding of the caller's counts."""
    server = hostile(says_what_is_accepted)
    local.download(server.url, target)
    assert target.read_bytes() == b"identity"
    url = f"{origin.strict_http}/coded?coding=gzip&size=100000"
    local.download(url, target)
    assert target.read_bytes()[:2] == b"\x1f\x8b"
    server = hostile(says_what_is_accepted)
    local.download(server.url, target, headers={"Accept-Encoding": "br"})
    assert target.read_bytes() == b"br"


def test_redirects_are_followed_unless_told_not_to(local: AnyClient, origin: Origin, target: Path) -> None:
    """By default a download goes where the server says."""
    url = f"{origin.strict_http}/redirect/302?to=/big?size=10"
    assert local.download(url, target).size == 10
    target.unlink()
    with pytest.raises(katipo.HTTPStatusError) as caught:
        local.download(url, target, follow_redirects=False)
    assert caught.value.response.status_code == 302
    assert not target.exists()


# ---------------------------------------------------------------------------------------------------- nothing is touched


@pytest.mark.parametrize("status", [201, 204, 301, 404, 416, 500])
def test_other_statuses_touch_nothing(local: AnyClient, nginx: Nginx, target: Path, status: int) -> None:
    """HTTPStatusError, with the response; target, part and record are as they were."""
    for each in (target, part_of(target), record_of(target)):
        each.write_bytes(b"old")
    with pytest.raises(katipo.HTTPStatusError) as caught:
        local.download(f"{nginx.http}/return/{status}", target, follow_redirects=False)
    assert caught.value.response.status_code == status
    for each in (target, part_of(target), record_of(target)):
        assert each.read_bytes() == b"old"


def test_a_failed_status_leaves_no_file(local: AnyClient, nginx: Nginx, target: Path) -> None:
    """Where nothing was, nothing is; and the error's response can be read."""
    with pytest.raises(katipo.HTTPStatusError) as caught:
        local.download(f"{nginx.http}/return/404", target)
    assert caught.value.response.text == "status 404"
    assert not target.exists()
    assert left_over(target) == []


def test_the_target_stays_until_all_is_there(local: AnyClient, nginx: Nginx, target: Path) -> None:
    """A download that is broken off leaves what was there before."""
    target.write_bytes(b"old")
    with pytest.raises(Stop):
        local.download(f"{nginx.http}/slow/big", target, progress=stop_once_there_is(1))
    assert target.read_bytes() == b"old"


def test_a_part_that_cannot_be_gone_on_with_is_removed(local: AnyClient, hostile: Hostile, target: Path) -> None:
    """Without a strong validator nobody could say that the rest is of the same."""
    for headers in ("", 'ETag: W/"weak"\r\n', "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n"):

        def cut(peer: Peer, headers: str = headers) -> None:
            peer.read_request()
            peer.send(f"HTTP/1.1 200 OK\r\n{headers}Content-Length: {SIZE}\r\n\r\n".encode() + pattern(0, PART))
            peer.close()

        with pytest.raises(katipo.RemoteProtocolError):
            local.download(hostile(cut).url, target)
        assert not target.exists()
        assert left_over(target) == []


def test_too_large_a_file(local: AnyClient, origin: Origin, target: Path) -> None:
    """max_response_bytes holds for what goes to a file."""
    with pytest.raises(katipo.ResponseTooLarge):
        local.download(f"{origin.strict_http}/big?size={BIG}", target, max_response_bytes=BIG - 1)
    assert not target.exists()


def test_a_timeout_leaves_the_part(local: AnyClient, nginx: Nginx, target: Path) -> None:
    """`total` runs out in the middle; the next call goes on."""
    url = f"{nginx.http}/slow/big"
    with pytest.raises(katipo.TotalTimeout):
        local.download(url, target, timeout=katipo.Timeout(total=1.0))
    size = part_of(target).stat().st_size
    assert part_of(target).read_bytes() == pattern(0, size)
    assert size > 0


# ---------------------------------------------------------------------------------------------------- going on


@pytest.mark.core
@pytest.mark.parametrize("tls", [False, True])
def test_a_second_call_goes_on(
    clients: ClientMaker, nginx: Nginx, certs: Certificates, target: Path, tls: bool
) -> None:
    """What an earlier call has left is kept, and only the rest is sent."""
    base = nginx.https if tls else nginx.http
    client = clients(verify=str(certs.ca))
    with pytest.raises(Stop):
        client.download(f"{base}/slow/medium", target, progress=stop_once_there_is(1))
    size = part_of(target).stat().st_size
    assert 0 < size < nginx.files["medium"]
    assert str(base) not in record_of(target).read_text()  # URLs may carry signatures
    seen: list[int] = []
    done = client.download(
        f"{base}/slow/medium", target, progress=lambda n, _: seen.append(n), sha256=True, headers=FAST
    )
    assert (done.resumed_from, done.status_code, done.size) == (size, 206, nginx.files["medium"])
    assert done.metrics.bytes_received == done.size - size
    assert done.sha256 == sha256(pattern(0, done.size))
    assert seen == sorted(seen)
    assert (min(seen) >= size, seen[-1]) == (True, done.size)
    assert left_over(target) == []


def test_a_part_of_another_url_is_not_gone_on_with(local: AnyClient, nginx: Nginx, target: Path) -> None:
    """It starts over; so it does where the caller wants it to."""
    with pytest.raises(Stop):
        local.download(f"{nginx.http}/slow/medium", target, progress=stop_once_there_is(1))
    assert part_of(target).stat().st_size > 0
    done = local.download(f"{nginx.http}/files/medium", target)
    assert (done.resumed_from, done.status_code) == (0, 200)
    with pytest.raises(Stop):
        local.download(f"{nginx.http}/slow/medium", target, progress=stop_once_there_is(1))
    done = local.download(f"{nginx.http}/slow/small", target, resume=False)
    assert (done.resumed_from, target.read_bytes()) == (0, pattern(0, nginx.files["small"]))


def head(status: str, size: int, *lines: str) -> bytes:
    """A response's head with the usual validator, unless `lines` have one."""
    named = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {size}", *lines])
    return (named + ("" if "ETag" in named else f"\r\nETag: {ETAG}") + "\r\n\r\n").encode()


def cut_off(peer: Peer) -> None:
    """The first PART bytes of SIZE."""
    peer.read_request()
    peer.send(head("200 OK", SIZE) + pattern(0, PART))
    peer.close()


def ranged(start: int, end: int, *lines: str, total: str = str(SIZE)) -> bytes:
    """A 206 with these bytes, `end` excluded."""
    fields = (f"Content-Range: bytes {start}-{end - 1}/{total}", *lines)
    return head("206 Partial Content", end - start, *fields) + pattern(start, end - start)


WHOLE = head("200 OK", SIZE) + pattern(0, SIZE)


def asks(peer: Peer, start: int, validator: str = ETAG) -> None:
    """The next request is for the bytes from `start` on; 0: for all."""
    asked, _ = peer.read_request()
    assert asked.get("accept-encoding") == "identity"
    if start:
        assert (asked.get("range"), asked.get("if-range")) == (f"bytes={start}-", validator)
    else:
        assert (asked.get("range"), asked.get("if-range")) == (None, None)


def begin(local: AnyClient, url: str, target: Path) -> None:
    """Leave a part of PART bytes."""
    with pytest.raises(katipo.RemoteProtocolError):
        local.download(url, target)
    assert part_of(target).read_bytes() == pattern(0, PART)


def answers(*steps: tuple[int, bytes]) -> Callable[[Peer], None]:
    """A script: requests for the bytes from a number on, each with its answer; on one connection or several."""
    left = list(steps)

    def script(peer: Peer) -> None:
        while left:
            start, answer = left.pop(0)
            asks(peer, start)
            peer.send(answer)

    return script


def test_the_rest_is_asked_for_under_the_validator(local: AnyClient, hostile: Hostile, target: Path) -> None:
    """Range and If-Range, and the rest is appended."""
    server = hostile(cut_off, answers((PART, ranged(PART, SIZE))))
    begin(local, server.url, target)
    done = local.download(server.url, target)
    assert (done.resumed_from, done.size, done.status_code) == (PART, SIZE, 206)
    assert target.read_bytes() == pattern(0, SIZE)


def test_an_old_last_modified_is_a_validator(local: AnyClient, hostile: Hostile, target: Path) -> None:
    """One that is at least a second older than the response is strong."""
    changed = "Mon, 01 Jan 2024 00:00:00 GMT"

    def dated(peer: Peer) -> None:
        peer.read_request()
        lines = (f"Last-Modified: {changed}", "Date: Mon, 01 Jan 2024 00:00:01 GMT", 'ETag: W/"weak"')
        peer.send(head("200 OK", SIZE, *lines) + pattern(0, PART))
        peer.close()

    def goes_on(peer: Peer) -> None:
        asks(peer, PART, changed)
        peer.send(ranged(PART, SIZE, 'ETag: W/"weak"'))

    server = hostile(dated, goes_on)
    begin(local, server.url, target)
    assert local.download(server.url, target).resumed_from == PART


def test_a_200_starts_over(local: AnyClient, hostile: Hostile, target: Path) -> None:
    """The server has something else by now, and sends all of it."""
    fresh = head("200 OK", 5, 'ETag: "v2"') + b"fresh"
    server = hostile(cut_off, answers((PART, fresh)))
    begin(local, server.url, target)
    done = local.download(server.url, target)
    assert (done.resumed_from, done.status_code, target.read_bytes()) == (0, 200, b"fresh")


@pytest.mark.parametrize(
    "answer",
    [
        ranged(PART - 1, SIZE),
        ranged(0, SIZE),
        ranged(PART, SIZE, 'ETag: "v2"'),
        ranged(PART, SIZE, total=str(SIZE - 1)),
        head("206 Partial Content", 3) + b"abc",
        head("206 Partial Content", 3, "Content-Range: lines 1-3/9") + b"abc",
        head("206 Partial Content", 3, f"Content-Range: bytes {PART}-{PART - 1}/{SIZE}") + b"abc",
        head("416 Range Not Satisfiable", 3, f"Content-Range: bytes */{SIZE}") + b"abc",
        head("416 Range Not Satisfiable", 3) + b"abc",
        head("416 Range Not Satisfiable", 3, f"Content-Range: bytes */{PART}", 'ETag: "v2"') + b"abc",
    ],
)
def test_an_answer_that_does_not_fit_starts_over(
    local: AnyClient, hostile: Hostile, target: Path, answer: bytes
) -> None:
    """Another range, another representation, none that can be understood, a 416: everything is asked for again."""
    server = hostile(cut_off, then=answers((PART, answer), (0, WHOLE)))
    begin(local, server.url, target)
    done = local.download(server.url, target)
    assert (done.resumed_from, done.status_code, target.read_bytes()) == (0, 200, pattern(0, SIZE))


def test_a_part_that_is_whole(local: AnyClient, hostile: Hostile, target: Path) -> None:
    """All had come, and the end was missed: 416, and the total is what is there. It is checked as any other."""

    def all_but_the_end(peer: Peer) -> None:
        peer.read_request()
        peer.send(f"HTTP/1.1 200 OK\r\nETag: {ETAG}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        peer.send_chunk(pattern(0, PART))
        peer.close()

    unsatisfiable = head("416 Range Not Satisfiable", 3, f"Content-Range: bytes */{PART}") + b"abc"
    server = hostile(all_but_the_end, answers((PART, unsatisfiable)))
    begin(local, server.url, target)
    done = local.download(server.url, target, sha256=sha256(pattern(0, PART)))
    assert (done.resumed_from, done.status_code, done.size) == (PART, 416, PART)
    assert target.read_bytes() == pattern(0, PART)
    assert left_over(target) == []


def test_a_server_that_sends_less_than_was_asked_for(local: AnyClient, hostile: Hostile, target: Path) -> None:
    """The rest of it is asked for again."""
    middle = 60_000
    server = hostile(cut_off, then=answers((PART, ranged(PART, middle)), (middle, ranged(middle, SIZE))))
    begin(local, server.url, target)
    done = local.download(server.url, target)
    assert (done.resumed_from, done.size) == (PART, SIZE)
    assert target.read_bytes() == pattern(0, SIZE)


def test_a_206_that_nobody_asked_for(local: AnyClient, hostile: Hostile, target: Path) -> None:
    """A server that answers with a range where none was asked for makes no sense."""
    server = hostile(answers((0, ranged(0, SIZE))))
    with pytest.raises(katipo.RemoteProtocolError, match="206"):
        local.download(server.url, target)
    assert left_over(target) == []


def test_a_resumed_download_that_is_cut_off_again(local: AnyClient, hostile: Hostile, target: Path) -> None:
    """What has come is kept each time."""

    def cut_again(peer: Peer) -> None:
        asks(peer, PART)
        peer.send(ranged(PART, SIZE)[: -(SIZE - 2 * PART)])
        peer.close()

    server = hostile(cut_off, cut_again, answers((2 * PART, ranged(2 * PART, SIZE))))
    begin(local, server.url, target)
    with pytest.raises(katipo.RemoteProtocolError):
        local.download(server.url, target)
    assert part_of(target).read_bytes() == pattern(0, 2 * PART)
    assert local.download(server.url, target).resumed_from == 2 * PART
    assert target.read_bytes() == pattern(0, SIZE)


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"url": 1, "validator": 2}', b"\xff\xfe"])
def test_a_record_that_makes_no_sense_starts_over(
    local: AnyClient, hostile: Hostile, target: Path, record: bytes
) -> None:
    """As if there were none."""
    server = hostile(cut_off, answers((0, WHOLE)))
    begin(local, server.url, target)
    record_of(target).write_bytes(record)
    assert local.download(server.url, target).resumed_from == 0
    assert target.read_bytes() == pattern(0, SIZE)


# ---------------------------------------------------------------------------------------------------- digests


def test_another_digest_removes_the_part(local: AnyClient, nginx: Nginx, target: Path) -> None:
    """What was downloaded is not what was wanted: neither is it kept, nor gone on with."""
    target.write_bytes(b"old")
    with pytest.raises(katipo.RequestError, match="SHA-256") as caught:
        local.download(f"{nginx.http}/files/small", target, sha256="0" * 64)
    assert caught.value.code == "sha256_mismatch"
    assert target.read_bytes() == b"old"
    assert left_over(target) == []


def test_the_digest_is_of_the_whole_file(local: AnyClient, hostile: Hostile, target: Path) -> None:
    """A part that was changed on the disk is found out."""
    server = hostile(cut_off, answers((PART, ranged(PART, SIZE))))
    begin(local, server.url, target)
    with part_of(target).open("r+b") as file:
        file.write(b"!")
    with pytest.raises(katipo.RequestError) as caught:
        local.download(server.url, target, sha256=sha256(pattern(0, SIZE)))
    assert caught.value.code == "sha256_mismatch"


# ---------------------------------------------------------------------------------------------------- progress


def test_progress_is_told_at_the_end_in_any_case(local: AnyClient, nginx: Nginx, target: Path) -> None:
    """Once, with everything, however short the download was."""
    seen: list[tuple[int, int | None]] = []
    size = nginx.files["small"]
    local.download(f"{nginx.http}/files/small", target, progress=lambda *said: seen.append(said))
    assert seen == [(size, size)]


async def test_progress_may_be_async(nginx: Nginx, target: Path) -> None:
    """For the asynchronous client."""
    seen: list[int] = []

    async def progress(so_far: int, total: int | None) -> None:
        await asyncio.sleep(0)
        seen.append(so_far)

    async with katipo.AsyncClient(trust_env=False) as client:
        await client.download(f"{nginx.http}/files/small", target, progress=progress)
    assert seen == [nginx.files["small"]]


def test_an_async_progress_of_a_blocking_client(nginx: Nginx, target: Path) -> None:
    """It cannot be awaited there, which is said; the download is not silently without."""

    async def progress(so_far: int, total: int | None) -> None: ...

    with katipo.Client(trust_env=False) as client, pytest.raises(katipo.BadOptions, match="AsyncClient"):
        client.download(f"{nginx.http}/files/small", target, progress=progress)
    assert not target.exists()


# ---------------------------------------------------------------------------------------------------- two at once


def test_a_second_download_to_the_same_file_is_refused(local: AnyClient, nginx: Nginx, target: Path) -> None:
    """While one is under way; neither spoils the other."""
    refused: list[str] = []

    def progress(so_far: int, total: int | None) -> None:
        if not refused:
            with katipo.Client(trust_env=False) as other:
                try:
                    other.download(f"{nginx.http}/files/small", target)
                except katipo.BadOptions as error:
                    refused.append(error.message)

    done = local.download(f"{nginx.http}/slow/medium", target, progress=progress)
    assert refused == ["path: another download to it is under way"]
    assert target.read_bytes() == pattern(0, done.size)


# ---------------------------------------------------------------------------------------------------- broken off


async def test_a_cancelled_download_can_be_gone_on_with_at_once(nginx: Nginx, target: Path) -> None:
    """asyncio: the part is free again when the task has ended, and holds what had come."""
    begun = asyncio.Event()
    before = len(open_descriptors())
    async with katipo.AsyncClient(trust_env=False) as client:
        url = f"{nginx.http}/slow/medium"
        task = asyncio.create_task(client.download(url, target, progress=lambda n, _: begun.set() if n else None))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        size = part_of(target).stat().st_size
        done = await client.download(url, target, headers=FAST)
    assert (done.resumed_from, content(target)) == (size, pattern(0, done.size))
    assert len(open_descriptors()) <= before + 1  # the loop's wake queue


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_cancelled_download_in_trio(nginx: Nginx, target: Path) -> None:
    """The same under trio, where a cancelled scope lets nobody wait."""
    async with katipo.AsyncClient(trust_env=False) as client:
        url = f"{nginx.http}/slow/medium"
        with trio.CancelScope() as scope:
            await client.download(url, target, progress=lambda n, _: scope.cancel() if n else None)
        assert scope.cancelled_caught
        size = part_of(target).stat().st_size
        done = await client.download(url, target, headers=FAST)
    assert (done.resumed_from, content(target)) == (size, pattern(0, done.size))


INTERRUPTED = """
import os, signal, sys, threading
import katipo
url, target = sys.argv[1:]
with katipo.Client(trust_env=False) as client:
    def interrupt():
        while not (os.path.exists(target + ".part") and os.path.getsize(target + ".part")):
            pass
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        client.download(url, target)
    except KeyboardInterrupt:
        print("interrupted")
    size = os.path.getsize(target + ".part")
    done = client.download(url, target, headers={"X-Fast": "yes"})
    assert done.resumed_from == size, (done, size)
assert not any("file.bin" in os.readlink(f"/proc/self/fd/{each.name}") for each in os.scandir("/proc/self/fd")
               if os.path.islink(each.path))
"""


def test_ctrl_c_leaves_the_part(nginx: Nginx, target: Path) -> None:
    """KeyboardInterrupt comes through, the request is cancelled, and the next call goes on."""
    finished = run_python(INTERRUPTED, args=[f"{nginx.http}/slow/medium", str(target)], timeout=60)
    assert finished.status == 0, finished.stderr
    assert finished.stdout == "interrupted\n"
    assert target.read_bytes() == pattern(0, nginx.files["medium"])


FULL = """
import resource, signal, sys
import katipo
url, target = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with katipo.Client(trust_env=False) as client:
    try:
        client.download(url, target)
    except katipo.TransportError as error:
        print(error.code)
"""


def test_a_full_disk(nginx: Nginx, target: Path) -> None:
    """write_error; what fits is the part, and the next call goes on from there."""
    url = f"{nginx.http}/files/medium"
    finished = run_python(FULL, args=[url, str(target)])
    assert (finished.status, finished.stdout) == (0, "write_error\n"), finished.stderr
    with katipo.Client(trust_env=False) as client:
        done = client.download(url, target)
    assert (done.resumed_from, target.read_bytes()) == (100_000, pattern(0, done.size))


FORKED = """
import os, sys, warnings
import katipo
warnings.simplefilter("ignore", DeprecationWarning)
url, target = sys.argv[1:]
children = []
def progress(so_far, total):
    if not children:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)  # until the parent is through: a child that lives must not hold the part's lock
            os._exit(0)
        os.close(read)
        children.append((pid, write))
        raise RuntimeError("broken off")
with katipo.Client(trust_env=False) as client:
    try:
        client.download(url, target, progress=progress)
    except RuntimeError:
        pass
    done = client.download(url, target, headers={"X-Fast": "yes"})
    assert done.resumed_from > 0
pid, write = children[0]
os.close(write)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


def test_a_forked_child_does_not_hold_the_part(nginx: Nginx, target: Path) -> None:
    """It has closed its copies of the descriptors, and with them the lock."""
    finished = run_python(FORKED, args=[f"{nginx.http}/slow/medium", str(target)], timeout=60)
    assert finished.status == 0, finished.stderr
    assert target.read_bytes() == pattern(0, nginx.files["medium"])


# ---------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"path": ""}, "path"),
        ({"path": b"bytes"}, "path"),
        ({"path": 3}, "path"),
        ({"path": "nul\0"}, "path"),
        ({"resume": 1}, "resume"),
        ({"progress": 3}, "progress"),
        ({"sha256": "abc"}, "sha256"),
        ({"sha256": "g" * 64}, "sha256"),
        ({"sha256": 3}, "sha256"),
        ({"headers": {"Range": "bytes=0-1"}}, "headers: Range"),
        ({"headers": {"If-Range": '"x"'}}, "headers: If-Range"),
        ({"decode": True}, "decode"),
        ({"content": b"x"}, "content"),
        ({"follow": True}, "did you mean follow_redirects"),
    ],
)
def test_bad_arguments(local: AnyClient, hostile: Hostile, target: Path, arguments: dict[str, Any], named: str) -> None:
    """Named, and nothing is sent or written."""
    server = hostile()
    with pytest.raises(katipo.BadOptions, match=named):
        local.download(server.url, **{"path": target, **arguments})
    assert server.accepted == 0
    assert left_over(target) == []


def test_paths_that_cannot_be_written(local: AnyClient, hostile: Hostile, tmp_path: Path) -> None:
    """A folder, a folder that is not there, what is no regular file in the part's place: said before anything is sent."""
    server = hostile()
    with pytest.raises(katipo.BadOptions, match="folder"):
        local.download(server.url, tmp_path)
    with pytest.raises(FileNotFoundError):
        local.download(server.url, tmp_path / "nowhere" / "file")
    os.mkfifo(tmp_path / "fifo.part")
    with pytest.raises(katipo.BadOptions, match="regular file"):
        local.download(server.url, tmp_path / "fifo")
    (tmp_path / "link.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        local.download(server.url, tmp_path / "link")
    assert server.accepted == 0
    assert not (tmp_path / "elsewhere").exists()


def test_a_relative_path(local: AnyClient, nginx: Nginx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any path of Python's."""
    monkeypatch.chdir(tmp_path)
    done = local.download(f"{nginx.http}/files/small", "here")
    assert (str(done.path), (tmp_path / "here").stat().st_size) == ("here", nginx.files["small"])


def test_a_download_shows_no_secret(local: AnyClient, nginx: Nginx, target: Path) -> None:
    """Neither its repr nor its record has the URL."""
    with pytest.raises(Stop):
        local.download(f"{nginx.http}/slow/big?token=geheim", target, progress=stop_once_there_is(1))
    assert "geheim" not in record_of(target).read_text()
    assert set(json.loads(record_of(target).read_text())) == {"url", "validator"}
    done = local.download(f"{nginx.http}/files/small?token=geheim", target)
    assert "geheim" not in repr(done)


# ---------------------------------------------------------------------------------------------------- played


def test_a_fake_pool_has_downloads_too(clients: ClientMaker, target: Path) -> None:
    """A handler that knows ranges is gone on with as a server."""
    seen: list[str | None] = []

    def handler(request: katipo.Request) -> katipo.Response:
        asked = request.headers.get("range")
        seen.append(asked)
        if asked is None:
            return katipo.Response(200, content=pattern(0, SIZE), headers={"ETag": ETAG})
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        fields = {"ETag": ETAG, "Content-Range": f"bytes {start}-{SIZE - 1}/{SIZE}"}
        return katipo.Response(206, content=pattern(start, SIZE - start), headers=fields)

    with katipo.testing.FakePool(handler) as pool:
        client = clients(pool=pool)
        assert client.download("http://fake/x", target).size == SIZE
        with pytest.raises(Stop):
            client.download("http://fake/x", target, progress=stop_once_there_is(1))
        os.truncate(part_of(target), PART)
        assert client.download("http://fake/x", target).resumed_from == PART
    assert target.read_bytes() == pattern(0, SIZE)
    assert seen == [None, None, f"bytes={PART}-"]
