"""Nothing to do costs nothing: no spinning on what a server closed, nor on a lookup that was given up."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.hostile import Peer, read_request, response, send
from tests.support.procs import cpu_seconds, thread_count
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

HANG = 30.0
WATCHED = 1.0
"""Seconds over which CPU is measured. A worker that spins takes all of them, one that sleeps next to nothing."""
IDLE = 0.3
"""CPU seconds beyond which something spins: room for whatever else this process does."""


def cpu_while_idle() -> float:
    """What this process, all its threads, spends in `WATCHED` seconds in which nothing is asked of it."""
    before = cpu_seconds()
    time.sleep(WATCHED)  # the measurement, not a wait
    return cpu_seconds() - before


@pytest.mark.core
def test_an_idle_pool_costs_no_cpu(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A worker with an idle connection sleeps."""
    pool.get(endpoint("/count"), **endpoint.options)
    assert pool.statistics().connections >= 1
    assert cpu_while_idle() < IDLE


@pytest.mark.core
@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
def test_a_connection_that_the_server_closes_while_idle_costs_no_cpu(
    pool: katipo.Pool, hostile: Hostile, how: str
) -> None:
    """Its end is no event that comes again and again; the next request has a new connection."""
    gone = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(response(b"first"))
        getattr(peer, how)()
        gone.set()

    server = hostile(script, [read_request(), send(response(b"second"))])
    assert pool.get(server.url).content == b"first"
    assert gone.wait(HANG)
    assert cpu_while_idle() < IDLE
    assert pool.get(server.url).content == b"second"


def test_data_that_nobody_asked_for_costs_no_cpu(pool: katipo.Pool, hostile: Hostile) -> None:
    """Bytes on an idle connection are left where they are, and the connection is not used again."""
    gone = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(response(b"first"))
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsmuggle")
        gone.set()
        peer.wait_closed()

    server = hostile(script, [read_request(), send(response(b"second"))])
    assert pool.get(server.url).content == b"first"
    assert gone.wait(HANG)
    assert cpu_while_idle() < IDLE
    assert pool.get(server.url).content == b"second"


def test_a_paused_stream_costs_no_cpu(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A full window is waited for, not asked after; the sockets' readiness notwithstanding."""
    handle = pool.async_get(endpoint("/big", size=1 << 30), stream=True, stream_window=1, **endpoint.options)
    messages = iter(handle)
    next(messages)
    next(messages)
    wait_until(lambda: cpu_while_idle() < IDLE, 10 * WATCHED)
    handle.cancel()


def test_a_paused_stream_whose_server_has_gone_costs_no_cpu(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """A reset behind a full window: whether it is noticed now or when reading goes on, nothing spins, and it is an error."""
    gate = origin.fresh_id()
    handle = pool.async_get(
        endpoint("/reset-mid-body", size=1 << 20, sent=50_000, gate=gate),
        stream=True,
        stream_window=1,
        **endpoint.options,
    )
    messages = iter(handle)
    next(messages)
    origin.open_gate(gate)
    assert cpu_while_idle() < IDLE
    with pytest.raises(katipo.TransportError):
        list(messages)


def test_an_upload_that_waits_for_its_caller_costs_no_cpu(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """A body of which nothing is sent is waited for, although the socket could be written."""
    name = origin.fresh_id()
    handle = pool.async_post(endpoint("/upload", id=name), stream_body=True, **endpoint.options)
    handle.send_body(b"some")
    origin.journal(name, until="received>=4")
    assert cpu_while_idle() < IDLE
    handle.finish_body()
    assert handle.result(HANG).json()["length"] == 4


def test_a_server_that_is_silent_costs_no_cpu(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """Requests that wait for an answer sleep."""
    name = origin.fresh_id()
    handles = [pool.async_get(endpoint("/hang", id=name), **endpoint.options) for _ in range(20)]
    origin.journal(name, until="count>=20")
    assert cpu_while_idle() < IDLE
    for handle in handles:
        handle.cancel()


# ---------------------------------------------------------------------------------------------------- slow lookups


@pytest.fixture
def slow_host(hostile: Hostile) -> Iterator[tuple[str, dict[str, Any], threading.Event, threading.Event]]:
    """A name whose lookup waits: its URL, the options for it, an event when it was asked for, one that lets it end.

    The resolver of the system cannot be slowed down from here without root; the one that is given as `doh_url` can.
    """
    asked, let_go = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.read_some()  # the beginning of a TLS handshake that does not go on
        asked.set()
        let_go.wait(HANG)
        peer.close()

    server = hostile(then=script)
    server.ignore_errors()
    doh_url = f"{server.url.replace('http:', 'https:')}/dns-query"
    yield "http://slow.katipo.test/", {"doh_url": doh_url}, asked, let_go
    let_go.set()


def test_a_cancel_in_a_slow_lookup_is_prompt(
    pool: katipo.Pool,
    endpoint: Endpoint,
    slow_host: tuple[str, dict[str, Any], threading.Event, threading.Event],
) -> None:
    """cancel() during a lookup holds up neither its caller nor the worker, and the end of the lookup costs no CPU."""
    url, options, asked, let_go = slow_host
    handle = pool.async_get(url, **options)
    assert asked.wait(HANG)
    handle.cancel()
    with pytest.raises(katipo.Cancelled) as raised:
        handle.result(0)
    assert raised.value.request_sent is False
    assert pool.get(endpoint("/count"), timeout_ms=10_000, **endpoint.options).status_code == 200
    let_go.set()
    assert cpu_while_idle() < IDLE


def test_a_timeout_in_a_slow_lookup_is_a_connect_timeout(
    pool: katipo.Pool, slow_host: tuple[str, dict[str, Any], threading.Event, threading.Event]
) -> None:
    """The connect clock runs from the start of the lookup."""
    url, options, _, _ = slow_host
    with pytest.raises(katipo.ConnectTimeout):
        pool.get(url, connecttimeout_ms=300, **options)


def test_neighbours_are_served_while_a_lookup_waits(
    pool: katipo.Pool,
    endpoint: Endpoint,
    slow_host: tuple[str, dict[str, Any], threading.Event, threading.Event],
) -> None:
    """DNS never blocks the worker."""
    url, options, asked, _ = slow_host
    waiting = [pool.async_get(url, **options) for _ in range(5)]
    assert asked.wait(HANG)
    for _ in range(10):
        assert pool.get(endpoint("/count"), timeout_ms=10_000, **endpoint.options).status_code == 200
    assert not any(handle.done() for handle in waiting)
    for handle in waiting:
        handle.cancel()


@pytest.mark.slow
def test_abandoned_lookups_of_the_system_s_resolver_cost_no_cpu(
    make_pool: Callable[..., katipo.Pool], endpoint: Endpoint
) -> None:
    """Names that nobody knows, looked up and given up at once, many at a time: prompt, and quiet when the answers come."""
    pool = make_pool()
    pool.get(endpoint("/count"), **endpoint.options)
    before = thread_count()
    for round_ in range(3):
        handles = [pool.async_get(f"http://nobody-{round_}-{index}.katipo.invalid/") for index in range(30)]
        for handle in handles:
            handle.cancel()
        assert all(handle.done() for handle in handles)
        assert pool.get(endpoint("/count"), timeout_ms=10_000, **endpoint.options).status_code == 200
    assert cpu_while_idle() < IDLE
    pool.close()
    # The lookups end by themselves, when the resolver gives up; until then they hold a thread and a socket each.
    wait_until(lambda: thread_count() <= before, 120)
