"""The pool's limits, as the server sees them, over one worker and several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import katipo
from tests.support.hostile import response, serve_forever
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Hostile
    from tests.support.certs import Certificates
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

    MakePool = Callable[..., katipo.Pool]

pytestmark = pytest.mark.core

WORKERS = pytest.mark.parametrize("workers", [1, 3])
WITH_STREAMS = pytest.mark.parametrize("endpoint", ["2", "3"], indirect=True)


def connections(origin: Origin, name: str) -> int:
    """How many client ports the requests with this id came from."""
    return len(set(origin.journal(name).ports))


def start(pool: katipo.Pool, endpoint: Endpoint, count: int, **query: object) -> list[katipo.Handle]:
    """So many requests at once."""
    return [pool.async_get(endpoint("/drip", **query), **endpoint.options) for _ in range(count)]


@WORKERS
def test_connections_to_a_host_are_limited(
    make_pool: MakePool, endpoint: Endpoint, origin: Origin, workers: int
) -> None:
    """With two connections allowed, ten requests come over two, and all are answered."""
    pool = make_pool(workers, max_host_connections=2, max_concurrent_streams=3)
    name, gate = origin.fresh_id(), origin.fresh_id()
    handles = start(pool, endpoint, 10, id=name, gate=gate)
    # HTTP/2 and 3 find out that a connection carries several streams when the first response shows it.
    at_once = 2
    origin.journal(name, until=f"count>={at_once}")
    assert pool.statistics().in_flight == 10
    assert pool.statistics().connections <= 2
    origin.open_gate(gate, None)
    assert [handle.result(30).status_code for handle in handles] == [200] * 10
    assert connections(origin, name) <= 2


@WORKERS
def test_http1_has_exactly_as_many_connections_as_allowed(make_pool: MakePool, origin: Origin, workers: int) -> None:
    """On HTTP/1.1 a limit of three is three requests at the server, no more and no fewer, whatever the workers."""
    pool = make_pool(workers, max_host_connections=3)
    name, gate = origin.fresh_id(), origin.fresh_id()
    handles = [pool.async_get(f"{origin.strict_http}/drip?id={name}&gate={gate}") for _ in range(9)]
    origin.journal(name, until="count>=3")
    wait_until(lambda: pool.statistics().queued == 6)
    assert origin.journal(name).count == 3
    for done in range(1, 7):
        origin.open_gate(gate)
        assert origin.journal(name, until=f"count>={3 + done}").count == 3 + done
    origin.open_gate(gate, None)
    assert all(handle.result(30).status_code == 200 for handle in handles)
    assert connections(origin, name) == 3


@WORKERS
def test_the_limit_of_a_host_is_that_host_s_own(make_pool: MakePool, origin: Origin, workers: int) -> None:
    """A host at its limit does not hold up another."""
    pool = make_pool(workers, max_host_connections=1)
    gate, name = origin.fresh_id(), origin.fresh_id()
    held = [pool.async_get(f"{origin.strict_http}/drip?id={name}&gate={gate}") for _ in range(4)]
    origin.journal(name, until="started")
    assert pool.get(origin.http + "/count").status_code == 200
    origin.open_gate(gate, None)
    assert all(handle.result(30).status_code == 200 for handle in held)
    assert connections(origin, name) == 1


@WORKERS
def test_connections_are_limited_in_total(make_pool: MakePool, hostile: Hostile, workers: int) -> None:
    """Twelve hosts share two connections, idle ones making room, and every request is answered in its turn."""
    pool = make_pool(workers, max_total_connections=2)
    servers = [hostile(then=serve_forever(response(b"%d" % number))) for number in range(12)]
    handles = [pool.async_get(server.url) for server in servers]
    most = 0
    while not all(handle.done() for handle in handles):
        most = max(most, pool.statistics().connections)
    assert [handle.result(30).content for handle in handles] == [b"%d" % number for number in range(12)]
    assert most <= 2
    assert pool.statistics().connections <= 2


@WORKERS
def test_waiting_for_the_total_is_waiting_in_the_queue(make_pool: MakePool, origin: Origin, workers: int) -> None:
    """With one connection for everything, a second host's request waits for the first to end, and is then sent."""
    pool = make_pool(workers, max_total_connections=1)
    first, second, gate = origin.fresh_id(), origin.fresh_id(), origin.fresh_id()
    held = pool.async_get(f"{origin.strict_http}/drip?id={first}&gate={gate}")
    origin.journal(first, until="started")
    waiting = pool.async_get(f"{origin.http}/count?id={second}")
    wait_until(lambda: pool.statistics().queued == 1)
    assert origin.journal(second).count == 0
    origin.open_gate(gate)
    assert (held.result(30).status_code, waiting.result(30).status_code) == (200, 200)
    assert waiting.result().metrics.queue_time > 0


@pytest.mark.parametrize("limit", [0, 1, 3])
@WORKERS
def test_idle_connections_are_limited(make_pool: MakePool, origin: Origin, workers: int, limit: int) -> None:
    """After a burst over six connections no more idle ones are kept than allowed."""
    pool = make_pool(workers, max_idle_connections=limit)
    name, gate = origin.fresh_id(), origin.fresh_id()
    handles = [pool.async_get(f"{origin.strict_http}/drip?id={name}&gate={gate}") for _ in range(6)]
    origin.journal(name, until="count>=6")
    origin.open_gate(gate, None)
    assert all(handle.result(30).status_code == 200 for handle in handles)
    wait_until(lambda: pool.statistics().connections <= limit, message="idle connections are left")


def test_idle_connections_are_kept_by_default(make_pool: MakePool, origin: Origin) -> None:
    """Without a limit a burst's connections serve the next burst."""
    pool = make_pool()
    first, second, gate = origin.fresh_id(), origin.fresh_id(), origin.fresh_id()
    for name in (first, second):
        handles = [pool.async_get(f"{origin.strict_http}/drip?id={name}&gate={gate}") for _ in range(6)]
        origin.journal(name, until="count>=6")
        origin.open_gate(gate, 6)
        assert all(handle.result(30).status_code == 200 for handle in handles)
    assert set(origin.journal(first).ports) == set(origin.journal(second).ports)
    assert pool.statistics().connections == 6


def test_a_burst_to_an_http1_server_is_not_held_up(make_pool: MakePool, hostile: Hostile, certs: Certificates) -> None:
    """Requests that wait to see whether a connection carries streams go on as soon as it does not: one that hangs
    holds up nobody."""
    server = hostile(then=lambda peer: peer.wait_closed(), tls=certs.localhost, alpn=["http/1.1"])
    server.ignore_errors()
    pool = make_pool()
    handles = [pool.async_get(server.url, cacert=certs.ca) for _ in range(4)]
    wait_until(lambda: server.accepted == 4, message="requests wait for one that hangs")
    for handle in handles:
        handle.cancel()


@WITH_STREAMS
@WORKERS
def test_streams_share_a_connection(make_pool: MakePool, endpoint: Endpoint, origin: Origin, workers: int) -> None:
    """Twenty requests at once come over one connection on HTTP/2 and 3, whatever the number of workers."""
    pool = make_pool(workers)
    name, gate = origin.fresh_id(), origin.fresh_id()
    handles = start(pool, endpoint, 20, id=name, gate=gate)
    origin.journal(name, until="count>=20")
    origin.open_gate(gate, None)
    assert all(handle.result(30).status_code == 200 for handle in handles)
    assert connections(origin, name) == 1


@WORKERS
def test_without_multiplexing_each_request_has_its_connection(
    make_pool: MakePool, endpoint: Endpoint, origin: Origin, workers: int
) -> None:
    """`multiplexing=False` gives each request in flight a connection of its own, also after a first response."""
    pool = make_pool(workers, multiplexing=False)
    assert pool.get(endpoint("/count"), **endpoint.options).status_code == 200
    name, gate = origin.fresh_id(), origin.fresh_id()
    handles = start(pool, endpoint, 4, id=name, gate=gate)
    origin.journal(name, until="count>=4")
    origin.open_gate(gate, None)
    assert all(handle.result(30).http_version == endpoint.http_version for handle in handles)
    assert connections(origin, name) == 4


def test_streams_of_one_connection_are_limited(make_pool: MakePool, endpoint: Endpoint, origin: Origin) -> None:
    """With three streams to a connection and one connection, the server sees three requests at once."""
    pool = make_pool(max_host_connections=1, max_concurrent_streams=3)
    assert pool.get(endpoint("/count"), **endpoint.options).status_code == 200
    at_once = 1 if endpoint.version == "1.1" else 3
    name, gate = origin.fresh_id(), origin.fresh_id()
    handles = start(pool, endpoint, 9, id=name, gate=gate)
    origin.journal(name, until=f"count>={at_once}")
    wait_until(lambda: pool.statistics().queued == 9 - at_once)
    assert origin.journal(name).count == at_once
    origin.open_gate(gate, 1)
    origin.journal(name, until=f"count>={at_once + 1}")
    origin.open_gate(gate, None)
    assert all(handle.result(30).status_code == 200 for handle in handles)
    assert connections(origin, name) == 1


@WITH_STREAMS
def test_more_streams_than_one_connection_takes(make_pool: MakePool, endpoint: Endpoint, origin: Origin) -> None:
    """Where connections are not limited, requests beyond a connection's streams open another."""
    pool = make_pool(max_concurrent_streams=3)
    assert pool.get(endpoint("/count"), **endpoint.options).status_code == 200
    name, gate = origin.fresh_id(), origin.fresh_id()
    handles = start(pool, endpoint, 9, id=name, gate=gate)
    origin.journal(name, until="count>=9")
    origin.open_gate(gate, None)
    assert all(handle.result(30).status_code == 200 for handle in handles)
    assert connections(origin, name) == 3


@WORKERS
def test_overload_after_every_worker_is_full(make_pool: MakePool, origin: Origin, workers: int) -> None:
    """Requests spill over to workers with room; when none has, the call raises Overload and sends nothing."""
    pool = make_pool(workers, max_in_flight=2)
    name, gate, beyond = origin.fresh_id(), origin.fresh_id(), origin.fresh_id()
    url = f"{origin.strict_http}/drip?id={name}&gate={gate}"
    handles = [pool.async_get(url) for _ in range(2 * workers)]
    origin.journal(name, until=f"count>={2 * workers}")
    assert pool.statistics().in_flight == 2 * workers
    for call in (pool.async_get, pool.get, pool.async_post):
        with pytest.raises(katipo.Overload) as caught:
            call(f"{origin.strict_http}/count?id={beyond}")
        assert (caught.value.code, caught.value.request_sent) == ("overload", False)
        assert caught.value.request is not None
    assert pool.statistics().in_flight == 2 * workers
    origin.open_gate(gate, None)
    assert all(handle.result(30).status_code == 200 for handle in handles)
    assert origin.journal(beyond).count == 0


def test_a_mailbox_hears_nothing_of_a_refused_request(make_pool: MakePool, origin: Origin) -> None:
    """Overload is raised by the call and is no message."""
    pool = make_pool(max_in_flight=1)
    box = katipo.Mailbox()
    name, gate = origin.fresh_id(), origin.fresh_id()
    pool.async_get(f"{origin.strict_http}/drip?id={name}&gate={gate}", reply_to=box, ref="first")
    with pytest.raises(katipo.Overload):
        pool.async_get(origin.strict_http + "/count", reply_to=box, ref="second")
    origin.open_gate(gate)
    assert box.receive(30).ref == "first"
    with pytest.raises(katipo.AwaitTimeout):
        box.receive(0)


@pytest.mark.parametrize("how", ["answered", "cancelled", "failed", "unread"])
def test_a_freed_slot_is_used(make_pool: MakePool, origin: Origin, how: str) -> None:
    """A slot is free when its transfer ends, well or not, and whether or not anybody has read its messages."""
    pool = make_pool(max_in_flight=1)
    gate = origin.fresh_id()
    for _ in range(3):
        name = origin.fresh_id()
        stream = how == "unread"
        options: katipo.AsyncRequestOptions = {"stream": True} if stream else {}
        path = "/reset-mid-body" if how == "failed" else "/drip"
        handle = pool.async_get(f"{origin.strict_http}{path}?id={name}&gate={gate}", **options)
        origin.journal(name, until="started")
        with pytest.raises(katipo.Overload):
            pool.async_get(origin.strict_http + "/count")
        if how == "cancelled":
            handle.cancel()
        else:
            origin.open_gate(gate)
        wait_until(lambda: pool.statistics().in_flight == 0)
        assert pool.get(origin.strict_http + "/count").status_code == 200
        del handle


def test_queued_requests_count_as_in_flight(make_pool: MakePool, origin: Origin) -> None:
    """`max_in_flight` counts accepted requests, those that wait for a connection included."""
    pool = make_pool(max_in_flight=3, max_host_connections=1)
    name, gate = origin.fresh_id(), origin.fresh_id()
    url = f"{origin.strict_http}/drip?id={name}&gate={gate}"
    handles = [pool.async_get(url) for _ in range(3)]
    with pytest.raises(katipo.Overload):
        pool.async_get(url)
    origin.open_gate(gate, None)
    assert all(handle.result(30).status_code == 200 for handle in handles)


def test_several_workers_serve_many_hosts(make_pool: MakePool, hostile: Hostile) -> None:
    """Origins are spread over the workers, and every request finds its own server."""
    pool = make_pool(4, name="spread")

    servers = [hostile(then=serve_forever(response(b"server %d" % number))) for number in range(64)]
    handles = [(number, pool.async_get(server.url)) for _ in range(3) for number, server in enumerate(servers)]
    for number, handle in handles:
        assert handle.result(30).content == b"server %d" % number
    assert pool.statistics().workers == 4
