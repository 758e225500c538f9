"""Workers that die: what they held fails once with worker_died, and the pool goes on with new ones."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Literal

import pytest

import katipo
from katipo.messages import Chunk, Failed, Started
from katipo.testing import kill_worker
from tests.support.pattern import pattern
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

HANG = 30.0
HOW: tuple[Literal["poller", "memory", "multi"], ...] = ("poller", "memory", "multi")


@pytest.mark.core
@pytest.mark.parametrize("how", HOW)
def test_requests_in_every_stage_fail_once_and_the_pool_goes_on(
    make_pool: Callable[..., katipo.Pool], endpoint: Endpoint, origin: Origin, hostile: Hostile, how: Any
) -> None:
    """Queued, connecting, waiting for headers, in the body, paused, uploading: one WorkerDied each; what was answered stays
    answered; the next request is served by a new worker."""
    pool, box = make_pool(max_host_connections=6), katipo.Mailbox()
    answered = pool.async_get(endpoint("/count"), **endpoint.options)
    assert answered.result(HANG).status_code == 200
    stages: dict[str, str] = {name: origin.fresh_id() for name in ("headers", "body", "paused", "upload")}
    kept: list[katipo.Handle] = []

    def start(ref: str, url: str, **options: Any) -> katipo.Handle:
        kept.append(pool.async_request("POST", url, reply_to=box, ref=ref, **endpoint.options, **options))
        return kept[-1]

    start("headers", endpoint("/hang", id=stages["headers"]))
    start("body", endpoint("/hang", stage="body", size=100, id=stages["body"]))
    start("paused", endpoint("/big", size=1 << 30, id=stages["paused"]), stream=True, stream_window=1)
    start("upload", endpoint("/upload", id=stages["upload"]), stream_body=True).send_body(b"some")
    hole = hostile.black_hole().url
    refs = {*stages, "connecting"}
    kept.append(pool.async_get(hole, reply_to=box, ref="connecting"))
    for index in range(8):  # more than the black hole's host may have connections: some wait for their turn
        kept.append(pool.async_get(hole, reply_to=box, ref=f"queued {index}"))
        refs.add(f"queued {index}")
    origin.journal(stages["headers"], until="started")
    origin.journal(stages["body"], until="sent>=100")
    origin.journal(stages["paused"], until="sent>=1")
    origin.journal(stages["upload"], until="received>=4")
    wait_until(lambda: pool.statistics().queued > 0)

    kill_worker(pool, how=how)
    ends: list[str] = []
    while len(ends) < len(refs):
        message = box.receive(HANG)
        if isinstance(message, Failed):
            assert isinstance(message.error, katipo.WorkerDied)
            assert message.error.code == "worker_died"
            ends.append(message.ref)
        else:
            assert message.ref == "paused"
            assert isinstance(message, (Started, Chunk))
    assert sorted(ends) == sorted(refs)

    assert answered.result(0).status_code == 200
    assert pool.get(endpoint("/count"), **endpoint.options).status_code == 200
    assert len(box) == 0
    # The requests are told first; then the worker lets go of what it held.
    wait_until(lambda: pool.statistics().restarts == 1)
    wait_until(lambda: pool.statistics().workers == 1)
    assert (pool.statistics().in_flight, pool.statistics().queued) == (0, 0)
    for name in stages.values():
        origin.journal(name, until="disconnected")


@pytest.mark.parametrize("how", HOW)
def test_everybody_who_waits_is_told(pool: katipo.Pool, endpoint: Endpoint, origin: Origin, how: Any) -> None:
    """Threads in result(), in an iteration and in send_body, and a task, raise WorkerDied; chunks that were there come
    first."""
    names = [origin.fresh_id() for _ in range(4)]
    buffered = pool.async_get(endpoint("/hang", id=names[0]), **endpoint.options)
    streamed = pool.async_get(endpoint("/hang", stage="body", size=100, id=names[1]), stream=True, **endpoint.options)
    sending = pool.async_post(
        endpoint("/upload", gate=names[2], id=names[2]), stream_body=True, upload_window=1, **endpoint.options
    )
    awaited = pool.async_get(endpoint("/hang", id=names[3]), **endpoint.options)
    received: list[bytes] = []
    raised: list[str] = []

    def iterate() -> None:
        received.extend(message.data for message in streamed if isinstance(message, Chunk))

    def send() -> None:
        while True:
            sending.send_body(bytes(1 << 20))

    async def awaiting() -> None:
        await awaited

    def run(call: Callable[[], object]) -> None:
        with pytest.raises(katipo.WorkerDied) as caught:
            call()
        raised.append(caught.value.code)

    calls: list[Callable[[], object]] = [buffered.result, iterate, send, lambda: asyncio.run(awaiting())]
    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for name, until in zip(names, ("started", "sent>=100", "started", "started"), strict=True):
        origin.journal(name, until=until)
    kill_worker(pool, how=how)
    for thread in threads:
        thread.join(HANG)
    assert raised == ["worker_died"] * 4
    assert b"".join(received) == pattern(0, 100)[: len(b"".join(received))]


def test_the_other_workers_are_not_disturbed(
    make_pool: Callable[..., katipo.Pool], endpoint: Endpoint, origin: Origin
) -> None:
    """One of two workers dies; a request of the other one is answered."""
    pool, gate = make_pool(workers=2, max_in_flight=1), origin.fresh_id()
    # With room for one request each, the second spills over to the other worker.
    handles = [pool.async_get(endpoint("/drip", n=1, gate=gate), **endpoint.options) for _ in range(2)]
    kill_worker(pool, 0)
    wait_until(lambda: any(handle.done() for handle in handles))
    origin.open_gate(gate, None)
    outcomes: list[object] = []
    for handle in handles:
        try:
            outcomes.append(handle.result(HANG).content)
        except katipo.WorkerDied as error:
            outcomes.append(error.code)
    assert sorted(outcomes, key=str) == sorted([pattern(0, 1), "worker_died"], key=str)


@pytest.mark.parametrize("how", HOW)
def test_an_idle_worker_that_dies_is_replaced_too(pool: katipo.Pool, endpoint: Endpoint, how: Any) -> None:
    """Death with nothing in flight fails nobody."""
    pool.get(endpoint("/count"), **endpoint.options)
    kill_worker(pool, how=how)
    wait_until(lambda: pool.statistics().restarts == 1)
    assert pool.get(endpoint("/count"), **endpoint.options).status_code == 200
    assert pool.statistics().failed == 0


def test_the_pool_goes_on_through_several_deaths_under_load(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Every request of a load that is hit by deaths has one outcome: an answer or worker_died."""
    box, count = katipo.Mailbox(), 0
    for death in range(6):
        for _ in range(30):
            pool.async_get(endpoint("/drip", n=3), reply_to=box, **endpoint.options)
            count += 1
        kill_worker(pool, how=HOW[death % 3])
        wait_until(lambda: pool.statistics().restarts == death + 1)  # noqa: B023  # called in this round
    answered = 0
    for _ in range(count):
        message = box.receive(HANG)
        if isinstance(message, Failed):
            assert isinstance(message.error, katipo.WorkerDied)
        else:
            answered += 1
    assert len(box) == 0
    statistics = pool.statistics()
    assert (statistics.in_flight, statistics.completed, statistics.failed) == (0, answered, count - answered)
    assert pool.get(endpoint("/count"), **endpoint.options).status_code == 200


@pytest.mark.core
def test_a_pool_whose_workers_die_too_often_gives_up(pool: katipo.Pool, origin: Origin) -> None:
    """Restarts that come too fast are not kept up for ever: requests then fail with WorkerDied, at once."""

    def kill_and_go_on(deaths: int) -> None:
        pool.get(f"{origin.strict_http}/count", timeout_ms=20_000)
        kill_worker(pool)
        wait_until(lambda: pool.statistics().restarts == deaths)

    def kill_one_after_the_other() -> None:
        for deaths in range(1, 200):
            kill_and_go_on(deaths)

    with pytest.raises(katipo.WorkerDied) as raised:
        kill_one_after_the_other()
    assert raised.value.code == "worker_died"
    assert raised.value.request_sent is False
    assert pool.statistics().restarts >= 10


def test_killing_what_is_not_there_is_bad_options(pool: katipo.Pool, origin: Origin) -> None:
    """A pool that has started nothing, an index beyond the workers, an unknown way."""
    with pytest.raises(katipo.BadOptions):
        kill_worker(pool)
    pool.get(f"{origin.strict_http}/count")
    with pytest.raises(katipo.BadOptions):
        kill_worker(pool, 7)
    with pytest.raises(katipo.BadOptions):
        kill_worker(pool, how="spell")  # type: ignore[arg-type]
