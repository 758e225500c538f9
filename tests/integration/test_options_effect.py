"""Options that show at the server or in the time that a request may take, each against a server that can tell."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.hostile import response, serve, serve_forever
from tests.support.pattern import pattern
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Hostile
    from tests.support.certs import Certificates
    from tests.support.endpoints import Endpoint
    from tests.support.nginx import Nginx
    from tests.support.origin import Origin

SHORT = 300
"""Milliseconds of a timeout that is to run out."""
NEVER: Any = {"timeout_ms": 0, "connecttimeout_ms": 0}


# ------------------------------------------------------------------------------------------------ clocks


@pytest.mark.parametrize("stage", ["headers", "body"])
def test_the_total_timeout(pool: katipo.Pool, endpoint: Endpoint, origin: Origin, stage: str) -> None:
    """`timeout_ms` ends a request that hangs before or in its response, and the server sees it go."""
    name = origin.fresh_id()
    with pytest.raises(katipo.TotalTimeout) as caught:
        pool.get(endpoint("/hang", stage=stage, id=name), timeout_ms=SHORT, **endpoint.options)
    assert (caught.value.code, caught.value.curl_code) == ("operation_timedout", 28)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.request_sent is True
    assert caught.value.metrics is not None
    assert caught.value.metrics.total_time >= SHORT / 2000
    origin.journal(name, until="disconnected")


def test_the_total_timeout_holds_for_streams_and_for_waiting(
    make_pool: Callable[..., katipo.Pool], endpoint: Endpoint, origin: Origin
) -> None:
    """A stream has no more time than a buffered response, and a request that waits for its turn none to spare."""
    pool = make_pool(max_host_connections=1, max_concurrent_streams=1)
    name = origin.fresh_id()
    stream = pool.async_get(
        endpoint("/hang", stage="body", size=10, id=name), stream=True, timeout_ms=1500, **endpoint.options
    )
    origin.journal(name, until="started")
    waiting = pool.async_get(endpoint("/count"), timeout_ms=SHORT, **endpoint.options)
    with pytest.raises(katipo.TotalTimeout) as caught:
        waiting.result(30)
    assert caught.value.request_sent is False
    with pytest.raises(katipo.TotalTimeout):
        list(stream)


def test_chunks_before_a_timeout_are_delivered(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """What came before the time ran out is delivered, then one error."""
    got: list[Any] = []
    handle = pool.async_get(endpoint("/hang", stage="body", size=500), stream=True, timeout_ms=1000, **endpoint.options)
    with pytest.raises(katipo.TotalTimeout):
        got.extend(handle)
    assert isinstance(got[0], katipo.Started)
    assert b"".join(message.data for message in got[1:]) == pattern(0, 500)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_connect_timeout_of_tcp(pool: katipo.Pool, hostile: Hostile, scheme: str) -> None:
    """A connect that never completes is a ConnectTimeout, with nothing sent."""
    hole = hostile.black_hole()
    with pytest.raises(katipo.ConnectTimeout) as caught:
        pool.get(hole.url.replace("http:", f"{scheme}:"), connecttimeout_ms=SHORT)
    assert (caught.value.code, caught.value.request_sent) == ("operation_timedout", False)


def test_the_connect_timeout_of_tls(pool: katipo.Pool, hostile: Hostile) -> None:
    """A server that accepts and does not shake hands is one, too."""
    server = hostile(lambda peer: peer.wait_closed())
    server.ignore_errors()
    with pytest.raises(katipo.ConnectTimeout) as caught:
        pool.get(server.url.replace("http:", "https:"), connecttimeout_ms=SHORT)
    assert caught.value.request_sent is False
    server.peer(0).wait_closed()


def test_the_connect_timeout_of_quic(pool: katipo.Pool, certs: Certificates) -> None:
    """A UDP port where nobody answers is one over HTTP/3."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(katipo.ConnectTimeout) as caught:
            pool.get(url, http_version="3-only", connecttimeout_ms=SHORT, cacert=certs.ca)
    assert caught.value.request_sent is False


def test_connecting_is_no_longer_measured_once_connected(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A slow answer is no slow connect."""
    answer = pool.get(endpoint("/drip", delay=0.6), connecttimeout_ms=SHORT, **endpoint.options)
    assert answer.status_code == 200
    again = pool.get(endpoint("/drip", delay=0.6), connecttimeout_ms=SHORT, **endpoint.options)
    assert again.metrics.connections_opened == 0


def test_waiting_for_a_turn_is_not_connecting(make_pool: Callable[..., katipo.Pool], origin: Origin) -> None:
    """The connect timeout does not run while a request waits in the queue."""
    pool = make_pool(max_host_connections=1)
    url = origin.strict_http + "/drip?delay=0.8"
    handles = [pool.async_get(url, connecttimeout_ms=SHORT) for _ in range(2)]
    assert [handle.result(30).status_code for handle in handles] == [200, 200]


@pytest.mark.parametrize("stage", ["headers", "body"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_read_timeout(pool: katipo.Pool, endpoint: Endpoint, stage: str, stream: bool) -> None:
    """A server that goes silent is a ReadTimeout."""
    handle = pool.async_get(
        endpoint("/hang", stage=stage), read_timeout_ms=SHORT, stream=stream, **NEVER, **endpoint.options
    )
    with pytest.raises(katipo.ReadTimeout) as caught:
        list(handle) if stream else handle.result(30)
    assert caught.value.code == "operation_timedout"


def test_the_read_timeout_is_one_of_inactivity(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A response that takes long in small steps does not run into it."""
    answer = pool.get(endpoint("/drip", n=12, delay=0.15), read_timeout_ms=600, **NEVER, **endpoint.options)
    assert answer.content == pattern(0, 12)


def test_the_read_timeout_does_not_count_a_full_window(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """While the caller leaves the window full nobody waits for the peer."""
    size = 4 << 20
    handle = pool.async_get(
        endpoint("/big", size=size),
        stream=True,
        stream_window=16384,
        read_timeout_ms=SHORT,
        **NEVER,
        **endpoint.options,
    )
    messages = iter(handle)
    assert isinstance(next(messages), katipo.Started)
    # Longer than the timeout, in which nothing is taken.
    assert not threading.Event().wait(3 * SHORT / 1000)
    assert not handle.done()
    assert sum(len(each.data) for each in messages if isinstance(each, katipo.Chunk)) == size


def test_the_write_timeout(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """A server that takes nothing more of the body is a WriteTimeout."""
    gate = origin.fresh_id()
    with pytest.raises(katipo.WriteTimeout) as caught:
        pool.post(
            endpoint("/upload", gate=gate),
            body=bytes(32 << 20),
            write_timeout_ms=2 * SHORT,
            **NEVER,
            **endpoint.options,
        )
    origin.open_gate(gate, None)
    assert (caught.value.code, caught.value.request_sent) == ("operation_timedout", True)


def test_the_write_timeout_does_not_count_a_caller_who_sends_nothing(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """While the caller has nothing to send nobody waits for the peer."""
    handle = pool.async_post(
        endpoint("/upload"), stream_body=True, write_timeout_ms=SHORT, read_timeout_ms=SHORT, **NEVER,
        **endpoint.options,
    )  # fmt: skip
    handle.send_body(b"before")
    assert not threading.Event().wait(3 * SHORT / 1000)
    handle.send_body(b"after")
    handle.finish_body()
    assert handle.result(30).json()["length"] == 11


def test_the_pool_timeout(make_pool: Callable[..., katipo.Pool], endpoint: Endpoint, origin: Origin) -> None:
    """A request whose turn does not come in time is a PoolTimeout, with nothing sent; the others are not touched."""
    pool = make_pool(max_host_connections=1, max_concurrent_streams=1)
    name, gate, beyond = origin.fresh_id(), origin.fresh_id(), origin.fresh_id()
    held = pool.async_get(endpoint("/drip", id=name, gate=gate), pool_timeout_ms=SHORT, **endpoint.options)
    origin.journal(name, until="started")
    with pytest.raises(katipo.PoolTimeout) as caught:
        pool.get(endpoint("/count", id=beyond), pool_timeout_ms=SHORT, **endpoint.options)
    assert (caught.value.code, caught.value.request_sent) == ("operation_timedout", False)
    origin.open_gate(gate)
    assert held.result(30).status_code == 200
    assert origin.journal(beyond).count == 0


def test_low_speed_is_libcurl_s_own_clock(pool: katipo.Pool, origin: Origin) -> None:
    """LOW_SPEED_TIME of `curl_options` reaches libcurl."""
    with pytest.raises(katipo.TimeoutException) as caught:
        pool.get(
            origin.strict_http + "/hang?stage=body",
            curl_options={"LOW_SPEED_TIME": 1, "LOW_SPEED_LIMIT": 1000},
            **NEVER,
        )
    assert caught.value.code == "operation_timedout"


# ------------------------------------------------------------------------------------------------ versions


@pytest.mark.parametrize(
    ("option", "secure", "expected"),
    [
        ("none", False, "HTTP/1.1"),
        ("none", True, "HTTP/2"),
        ("1.1", True, "HTTP/1.1"),
        ("2", True, "HTTP/2"),
        ("2tls", True, "HTTP/2"),
        ("2tls", False, "HTTP/1.1"),
        ("2-prior-knowledge", False, "HTTP/2"),
        ("3-only", True, "HTTP/3"),
    ],
)
def test_the_version_that_is_spoken(
    pool: katipo.Pool, origin: Origin, certs: Certificates, option: Any, secure: bool, expected: str
) -> None:
    """`http_version` decides what is offered, and what is spoken is in the response."""
    base = origin.strict_https if secure else origin.strict_http
    answer = pool.get(base + "/headers", http_version=option, cacert=certs.ca)
    assert answer.http_version == expected
    assert answer.json()["http_version"] == expected.removeprefix("HTTP/")


def test_http_3_with_a_way_back(pool: katipo.Pool, origin: Origin, nginx: Nginx, certs: Certificates) -> None:
    """`"3"` speaks HTTP/3 where it is to be had, and something older where it is not."""
    assert pool.get(origin.strict_https + "/count", http_version="3", cacert=certs.ca).status_code == 200
    answer = pool.get(nginx.https + "/return/200", http_version="3", cacert=certs.ca)
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2")


def test_http_1_0_is_sent_as_such(pool: katipo.Pool, hostile: Hostile) -> None:
    """`"1.0"` shows in the request line, and the body has a length."""
    server = hostile(serve(response(b"ok")))
    assert pool.post(server.url, body=b"12345", http_version="1.0").content == b"ok"
    received = server.peer(0).received
    assert received.startswith(b"POST / HTTP/1.0\r\n")
    assert b"content-length: 5" in received.lower()


# ------------------------------------------------------------------------------------------------ the way to the server


def test_a_unix_socket(pool: katipo.Pool, tmp_path: Path) -> None:
    """`unix_socket_path` goes there, and the URL is still the request's."""
    path = tmp_path / "server.sock"
    seen: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve_one() -> None:
            peer, _ = listening.accept()
            with peer:
                seen.append(peer.recv(65536))
                peer.sendall(response(b"from the socket"))

        thread = threading.Thread(target=serve_one)
        thread.start()
        answer = pool.get("http://any.example/path", unix_socket_path=path)
        thread.join(30)
    assert answer.content == b"from the socket"
    assert seen[0].startswith(b"GET /path HTTP/1.1\r\nHost: any.example\r\n")


def test_an_interface(pool: katipo.Pool, origin: Origin) -> None:
    """`interface` chooses the address that the request comes from; one that is not there is an error."""
    url = origin.strict_http.replace("localhost", "127.0.0.1") + "/headers"
    assert pool.get(url, interface="127.0.0.9").json()["client"][0] == "127.0.0.9"
    assert pool.get(url).json()["client"][0] == "127.0.0.1", "another request's connection is not used"
    with pytest.raises(katipo.ConnectError) as caught:
        pool.get(url, interface="no-such-interface0")
    assert (caught.value.code, caught.value.request_sent) == ("interface_failed", False)


def test_resolve_and_connect_to_are_for_their_request_alone(
    pool: katipo.Pool, origin: Origin, hostile: Hostile
) -> None:
    """RESOLVE and CONNECT_TO redirect the request that has them, and no later one of the pool."""
    port = origin.strict_http.rpartition(":")[2]
    other = hostile(then=serve_forever(response(b"other")))
    url = f"http://resolved.test:{port}/count"
    assert pool.get(url, curl_options={"RESOLVE": [f"resolved.test:{port}:127.0.0.1"]}).status_code == 200
    with pytest.raises(katipo.ConnectError):
        pool.get(url, timeout_ms=20000)
    options: Any = {"curl_options": {"CONNECT_TO": [f"localhost:{port}:localhost:{other.port}"]}}
    url = origin.strict_http + "/count"
    assert pool.get(url, **options).content == b"other"
    assert pool.get(url).json()["count"] == 1
    assert pool.get(url, **options).content == b"other"


def test_a_port_that_refuses(pool: katipo.Pool, hostile: Hostile) -> None:
    """Nobody listening is a ConnectError, also a ConnectionError of Python's, with nothing sent."""
    with pytest.raises(katipo.ConnectError) as caught:
        pool.get(f"http://127.0.0.1:{hostile.refused_port()}/")
    assert isinstance(caught.value, ConnectionError)
    assert (caught.value.code, caught.value.curl_code) == ("couldnt_connect", 7)
    assert caught.value.request_sent is False
    assert caught.value.request is not None
    assert caught.value.metrics is not None


def test_a_host_that_does_not_exist(pool: katipo.Pool) -> None:
    """A name that is not known is a ConnectError."""
    with pytest.raises(katipo.ConnectError) as caught:
        pool.get("http://no-such-host.invalid/", timeout_ms=20000)
    assert (caught.value.code, caught.value.request_sent) == ("couldnt_resolve_host", False)


@pytest.mark.parametrize("seconds", [0, 60, -1])
def test_the_dns_cache(pool: katipo.Pool, origin: Origin, seconds: int) -> None:
    """Any lifetime of a looked-up name will do, off and for ever among them."""
    for _ in range(2):
        answer = pool.get(
            origin.strict_http + "/count", dns_cache_timeout=seconds, curl_options={"FRESH_CONNECT": True}
        )
        assert (answer.status_code, answer.metrics.connections_opened) == (200, 1)


def test_a_doh_server_is_asked(pool: katipo.Pool, hostile: Hostile, certs: Certificates) -> None:
    """`doh_url` sends the lookup there; an answer that makes no sense is a failed lookup."""
    nonsense = response(b"no dns message", headers=[("Content-Type", "application/dns-message")])
    server = hostile(then=serve_forever(nonsense), tls=certs.localhost, alpn=["http/1.1"])
    with pytest.raises(katipo.ConnectError) as caught:
        pool.get(
            "http://name.test/",
            doh_url=f"https://127.0.0.1:{server.port}/dns-query",
            timeout_ms=20000,
            curl_options={"DOH_SSL_VERIFYPEER": 0, "DOH_SSL_VERIFYHOST": 0},
        )
    assert caught.value.code == "couldnt_resolve_host"
    assert b" /dns-query" in server.peer(0).received


@pytest.mark.parametrize("option", ["tcp_fastopen", "pipewait", "verbose"])
def test_a_switch_either_way_gets_an_answer(pool: katipo.Pool, origin: Origin, option: Any) -> None:
    """Options without an effect that a server on loopback could tell are passed on and do no harm."""
    for value in (True, False):
        options: Any = {option: value}
        assert pool.get(origin.strict_http + "/count", **options).status_code == 200


def test_without_pipewait_a_burst_opens_connections(
    make_pool: Callable[..., katipo.Pool], origin: Origin, certs: Certificates
) -> None:
    """`pipewait` waits for a connection that may carry several requests; without it each opens its own at once."""
    used: dict[bool, int] = {}
    for pipewait in (True, False):
        pool = make_pool()
        name, gate = origin.fresh_id(), origin.fresh_id()
        url = f"{origin.strict_https}/drip?id={name}&gate={gate}"
        handles = [pool.async_get(url, cacert=certs.ca, pipewait=pipewait) for _ in range(8)]
        origin.journal(name, until="count>=8")
        origin.open_gate(gate, None)
        assert all(handle.result(30).http_version == "HTTP/2" for handle in handles)
        used[pipewait] = len(set(origin.journal(name).ports))
    assert used[True] == 1
    assert used[False] > 1


# ------------------------------------------------------------------------------------------------ what comes back


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chunked", [0, 1])
def test_the_largest_response(pool: katipo.Pool, endpoint: Endpoint, stream: bool, chunked: int) -> None:
    """As many bytes as allowed are delivered; one more is ResponseTooLarge, with or without a length."""
    limit = 100_000

    def get(size: int) -> bytes:
        handle = pool.async_get(
            endpoint("/big", size=size, chunked=chunked), stream=stream, max_response_bytes=limit, **endpoint.options
        )
        if stream:
            return b"".join(message.data for message in handle if isinstance(message, katipo.Chunk))
        return handle.result(30).content

    assert get(limit) == pattern(0, limit)
    with pytest.raises(katipo.ResponseTooLarge) as caught:
        get(limit + 1)
    assert caught.value.code == "filesize_exceeded"


def test_a_response_of_no_bytes_at_all(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """`max_response_bytes=0` takes a response without a body and no other."""
    assert pool.head(endpoint("/count"), max_response_bytes=0, **endpoint.options).status_code == 200
    assert pool.get(endpoint("/status/204"), max_response_bytes=0, **endpoint.options).status_code == 204
    with pytest.raises(katipo.ResponseTooLarge):
        pool.get(endpoint("/count"), max_response_bytes=0, **endpoint.options)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_the_limit_is_of_decoded_bytes(pool: katipo.Pool, endpoint: Endpoint, coding: str, stream: bool) -> None:
    """What is delivered is counted, not what was sent."""
    handle = pool.async_get(
        endpoint("/coded", coding=coding, size=200_000, fill="zero"),
        stream=stream,
        max_response_bytes=100_000,
        **endpoint.options,
    )
    got: list[Any] = []
    with pytest.raises(katipo.ResponseTooLarge) as caught:
        got.extend(handle) if stream else handle.result(30)
    assert sum(len(message.data) for message in got[1:]) <= 100_000
    assert caught.value.code == "filesize_exceeded"


def test_a_range(pool: katipo.Pool, nginx: Nginx) -> None:
    """RANGE of `curl_options` and a Range header ask for a part."""
    url = nginx.http + "/files/medium"
    ways: list[Any] = [{"curl_options": {"RANGE": "1000-1999"}}, {"headers": {"Range": "bytes=1000-1999"}}]
    for way in ways:
        answer = pool.get(url, **way)
        assert (answer.status_code, answer.content) == (206, pattern(1000, 1000))


def test_texts_and_flags_of_curl_options(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A text, a number and a flag reach libcurl, by their names in any spelling."""
    answer = pool.get(
        endpoint("/headers"),
        curl_options={"REFERER": "http://from.example/", "CURLOPT_PATH_AS_IS": True, "tcp_keepalive": 1},
        **endpoint.options,
    )
    assert {"referer": "http://from.example/"}.items() <= {
        name.lower(): value for name, value in answer.json()["headers"]
    }.items()


def test_the_metrics_of_a_request(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Times are in order, sizes are right, and the addresses are those of the connection."""
    body = pattern(0, 10_000)
    first = pool.post(endpoint("/echo"), body=body, **endpoint.options).metrics
    assert 0 <= first.connect_time <= first.appconnect_time <= first.pretransfer_time
    assert 0 < first.pretransfer_time <= first.starttransfer_time <= first.total_time
    assert (first.bytes_sent, first.bytes_received, first.connections_opened) == (10_000, 10_000, 1)
    assert (first.primary_ip, str(first.primary_port)) == ("127.0.0.1", endpoint.base.rpartition(":")[2])
    if endpoint.version == "3":  # what sends a body has a connection to itself there
        first = pool.get(endpoint("/headers"), **endpoint.options).metrics
    answer = pool.get(endpoint("/headers"), **endpoint.options)
    assert answer.metrics.connections_opened == 0
    assert answer.metrics.local_port == first.local_port == answer.json()["client"][1]
    assert answer.elapsed.total_seconds() > 0


def test_the_time_in_the_queue_is_measured(make_pool: Callable[..., katipo.Pool], origin: Origin) -> None:
    """`queue_time` is the wait for a turn, and no part of `total_time`."""
    pool = make_pool(max_host_connections=1)
    name, gate = origin.fresh_id(), origin.fresh_id()
    held = pool.async_get(f"{origin.strict_http}/drip?id={name}&gate={gate}")
    waiting = pool.async_get(origin.strict_http + "/count")
    wait_until(lambda: pool.statistics().queued == 1)
    assert not threading.Event().wait(0.3)
    origin.open_gate(gate)
    assert held.result(30).metrics.queue_time < 0.3
    metrics = waiting.result(30).metrics
    assert metrics.queue_time >= 0.3 > metrics.total_time
    assert waiting.result().elapsed.total_seconds() == pytest.approx(metrics.queue_time + metrics.total_time, abs=1e-5)
