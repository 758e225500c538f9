"""Many downloads: a few at a time, each with an outcome of its own, all over when the call is."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

import katipo
from tests.support.pattern import pattern
from tests.support.procs import run_python

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.clients import AnyClient, ClientMaker
    from tests.support.endpoints import Endpoint
    from tests.support.nginx import Nginx
    from tests.support.origin import Origin


@pytest.fixture
def local(clients: ClientMaker) -> AnyClient:
    """A client without a version of its own."""
    return clients()


class Stop(Exception):
    """What a progress function raises."""


def files_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.mark.core
def test_outcomes_are_in_the_order_of_the_urls(clients: ClientMaker, endpoint: Endpoint, tmp_path: Path) -> None:
    """Over each version: files by their URLs' names, failures among them as exceptions, in a folder that is made."""
    sizes = [10, 200_000, 0, 3, 70_000]
    urls = [endpoint("/big", size=size) for size in sizes]
    urls.insert(2, endpoint("/status/404"))
    client = clients(**endpoint.client_options)
    outcomes = client.download_many(urls, tmp_path / "made" / "here", concurrency=3, sha256=True)
    failed = outcomes.pop(2)
    assert isinstance(failed, katipo.HTTPStatusError)
    for i, (outcome, size) in enumerate(zip(outcomes, sizes, strict=True)):
        assert isinstance(outcome, katipo.Download)
        assert outcome.path == tmp_path / "made" / "here" / ("big" if not i else f"big-{i}")
        assert outcome.path.read_bytes() == pattern(0, size)
        assert outcome.sha256 is not None
    assert files_in(tmp_path / "made" / "here") == ["big", "big-1", "big-2", "big-3", "big-4"]


def test_names_may_be_given(local: AnyClient, nginx: Nginx, tmp_path: Path) -> None:
    """A mapping of URL to name."""
    names = {f"{nginx.http}/files/small": "one", f"{nginx.http}/files/medium": "two"}
    outcomes = local.download_many(names, tmp_path)
    assert [outcome.path.name for outcome in outcomes if isinstance(outcome, katipo.Download)] == ["one", "two"]
    assert files_in(tmp_path) == ["one", "two"]


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "nul\0", 3])
def test_names_that_lead_elsewhere_are_refused(local: AnyClient, nginx: Nginx, tmp_path: Path, name: Any) -> None:
    """A name is that of a file in the folder."""
    with pytest.raises(katipo.BadOptions, match="name"):
        local.download_many({f"{nginx.http}/files/small": name}, tmp_path)
    assert files_in(tmp_path) == []


def test_urls_that_are_none_are_outcomes(local: AnyClient, nginx: Nginx, tmp_path: Path) -> None:
    """One of them does not keep the others from being downloaded."""
    urls = ["http://", f"{nginx.http}/files/small", "ftp://host/x"]
    outcomes = local.download_many(iter(urls), tmp_path)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [katipo.InvalidURL, katipo.Download, katipo.UnsupportedProtocol]
    assert local.download_many([], tmp_path) == []


def test_no_more_than_so_many_at_a_time(local: AnyClient, origin: Origin, tmp_path: Path) -> None:
    """`concurrency` requests are in flight, and the next begins when one has ended."""
    name = origin.fresh_id()
    lock = threading.Lock()
    ended = 0
    executed: list[tuple[int, int]] = []

    def progress(url: str, so_far: int, total: int | None) -> None:
        nonlocal ended
        if so_far == 200:
            with lock:
                ended += 1
                executed.append((origin.journal(name).count, ended))

    urls = [f"{origin.strict_http}/drip?n=2&size=100&delay=0.2&i={i}&id={name}" for i in range(6)]
    outcomes = local.download_many(urls, tmp_path, concurrency=2, progress=progress)
    assert [type(outcome) for outcome in outcomes] == [katipo.Download] * 6
    # Each that ends leaves one beside it; without a limit all six would have been there at the first end.
    assert all(count <= number + 1 for count, number in executed)
    assert executed[0][0] == 2


def test_a_second_run_goes_on_with_the_first_ones_parts(local: AnyClient, nginx: Nginx, tmp_path: Path) -> None:
    """The same URLs have the same names."""
    urls = [f"{nginx.http}/slow/medium", f"{nginx.http}/slow/medium"]

    def progress(url: str, so_far: int, total: int | None) -> None:
        if so_far:
            raise Stop

    with pytest.raises(Stop):
        local.download_many(urls, tmp_path, progress=progress)
    sizes = [(tmp_path / f"{name}.part").stat().st_size for name in ("medium", "medium-1")]
    assert max(sizes) > 0
    outcomes = local.download_many(urls, tmp_path, headers={"X-Fast": "yes"})
    assert [outcome.resumed_from for outcome in outcomes if isinstance(outcome, katipo.Download)] == sizes
    assert files_in(tmp_path) == ["medium", "medium-1"]


def test_total_is_each_downloads_own(local: AnyClient, origin: Origin, tmp_path: Path) -> None:
    """It runs from when the download begins, and not while it waits for its turn."""
    urls = [f"{origin.strict_http}/drip?n=2&size=10&delay=0.4&i={i}" for i in range(3)]
    outcomes = local.download_many(urls, tmp_path, concurrency=1, timeout=katipo.Timeout(total=1.5))
    assert [type(outcome) for outcome in outcomes] == [katipo.Download] * 3


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"concurrency": "2"}, "concurrency"),
        ({"sha256": "0" * 64}, "sha256"),
        ({"progress": 1}, "progress"),
        ({"resume": None}, "resume"),
        ({"folder": 3}, "folder"),
        ({"folder": ""}, "folder"),
        ({"urls": "http://one"}, "urls"),
        ({"urls": 3}, "urls"),
        ({"decode": False}, "decode"),
        ({"headers": {"Range": "x"}}, "Range"),
    ],
)
def test_bad_arguments(local: AnyClient, tmp_path: Path, arguments: dict[str, Any], named: str) -> None:
    """They are the call's, not an outcome of each download."""
    given: dict[str, Any] = {"urls": ["http://localhost:1/"], "folder": tmp_path / "made", **arguments}
    with pytest.raises(katipo.BadOptions, match=named):
        local.download_many(given.pop("urls"), given.pop("folder"), **given)
    assert files_in(tmp_path) == []


async def test_a_cancel_ends_all(nginx: Nginx, tmp_path: Path) -> None:
    """asyncio: no download goes on when the task has ended, and their parts are free."""
    begun = asyncio.Event()
    urls = [f"{nginx.http}/slow/medium"] * 3
    async with katipo.AsyncClient(trust_env=False) as client:

        async def progress(url: str, so_far: int, total: int | None) -> None:
            if so_far:
                begun.set()

        task = asyncio.create_task(client.download_many(urls, tmp_path, concurrency=2, progress=progress))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        outcomes = await client.download_many(urls, tmp_path, headers={"X-Fast": "yes"})
    assert [type(outcome) for outcome in outcomes] == [katipo.Download] * 3


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_in_trio(nginx: Nginx, tmp_path: Path) -> None:
    """A cancelled scope ends all; an exception of the caller's comes through as it is; and it works."""
    slow = [f"{nginx.http}/slow/medium"] * 3
    async with katipo.AsyncClient(trust_env=False) as client:
        with trio.CancelScope() as scope:
            await client.download_many(slow, tmp_path, progress=lambda _, n, __: scope.cancel() if n else None)
        assert scope.cancelled_caught

        def progress(url: str, so_far: int, total: int | None) -> None:
            raise Stop

        with pytest.raises(Stop):
            await client.download_many(slow, tmp_path, progress=progress)
        outcomes = await client.download_many(slow, tmp_path, headers={"X-Fast": "yes"})
    assert [type(outcome) for outcome in outcomes] == [katipo.Download] * 3


INTERRUPTED = """
import os, signal, sys, threading
import katipo
url, folder = sys.argv[1:]
parts = [os.path.join(folder, name) for name in ("medium.part", "medium-1.part")]
with katipo.Client(trust_env=False) as client:
    def interrupt():
        while not all(os.path.exists(part) and os.path.getsize(part) for part in parts):
            pass
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    before = threading.active_count()
    try:
        client.download_many([url] * 4, folder, concurrency=2)
    except KeyboardInterrupt:
        print("interrupted", threading.active_count() <= before)
    print([os.path.exists(part) for part in parts], os.path.exists(os.path.join(folder, "medium-2.part")))
"""


def test_ctrl_c_ends_all(nginx: Nginx, tmp_path: Path) -> None:
    """The blocking client: KeyboardInterrupt comes through, no thread is left, and nothing more begins."""
    finished = run_python(INTERRUPTED, args=[f"{nginx.http}/slow/medium", str(tmp_path)], timeout=60)
    assert finished.status == 0, finished.stderr
    assert finished.stdout == "interrupted True\n[True, True] False\n"
