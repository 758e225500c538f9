"""Requests that die on a connection used before: what may have been executed is never sent twice, the rest is."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import pytest

import katipo
from tests.support.hostile import Peer, PeerClosed, response, serve_forever

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Hostile
    from tests.support.certs import Certificates
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

HANG = 30.0
IDEMPOTENT = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"]
NOT_IDEMPOTENT = ["POST", "PATCH", "UNKNOWN"]


def serves_once_then_dies(how: str) -> Callable[[Peer], None]:
    """A connection that answers one request, reads the next, and goes without a byte of response."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(response(b"first"))
        peer.read_request()
        peer.reset() if how == "reset" else peer.close()

    return script


def recording(seen: list[str]) -> Callable[[Peer], None]:
    """A connection that notes the method of each request and answers it."""

    def script(peer: Peer) -> None:
        while True:
            try:
                head, _ = peer.read_request()
            except (PeerClosed, TimeoutError):
                return
            seen.append(head.method)
            peer.send(response(b"" if head.method == "HEAD" else b"again"))

    return script


# ---------------------------------------------------------------------------------------------------- HTTP/1


@pytest.mark.core
@pytest.mark.parametrize("method", NOT_IDEMPOTENT)
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("body", [b"pay", None], ids=["body", "no-body"])
def test_a_request_that_is_not_idempotent_is_not_sent_twice(
    pool: katipo.Pool, hostile: Hostile, method: str, how: str, body: bytes | None
) -> None:
    """The reused connection dies after the request was sent: an error of the network, and no second request."""
    seen: list[str] = []
    server = hostile(serves_once_then_dies(how), then=recording(seen))
    assert pool.get(server.url).content == b"first"
    options: dict[str, Any] = {} if body is None else {"body": body}
    with pytest.raises((katipo.NetworkError, katipo.RemoteProtocolError)) as raised:
        pool.request(method, server.url, **options)
    assert raised.value.request_sent is True
    # A request that was sent again would have come before this one.
    assert pool.get(server.url).content == b"again"
    assert seen == ["GET"]


@pytest.mark.core
@pytest.mark.parametrize("method", IDEMPOTENT)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_idempotent_request_is_sent_again(pool: katipo.Pool, hostile: Hostile, method: str, how: str) -> None:
    """The same with a method that may be repeated (RFC 9110 9.2.2): the caller does not notice."""
    seen: list[str] = []
    server = hostile(serves_once_then_dies(how), then=recording(seen))
    assert pool.get(server.url).content == b"first"
    assert pool.request(method, server.url).status_code == 200
    assert seen == [method]


def test_an_idempotent_request_takes_its_body_along(pool: katipo.Pool, hostile: Hostile) -> None:
    """A PUT that is sent again has its whole body again."""
    bodies: list[bytes] = []

    def second(peer: Peer) -> None:
        _, body = peer.read_request()
        bodies.append(body)
        peer.send(response(b"again"))

    server = hostile(serves_once_then_dies("close"), second)
    pool.get(server.url)
    assert pool.put(server.url, body=b"x" * 100_000).content == b"again"
    assert bodies == [b"x" * 100_000]


def test_a_streamed_body_that_was_begun_is_not_sent_again(pool: katipo.Pool, hostile: Hostile) -> None:
    """What libcurl has taken of a streamed PUT is gone: it fails, and no other connection sees a part of it."""
    seen: list[str] = []

    def first(peer: Peer) -> None:
        peer.read_request()
        peer.send(response(b"first"))
        peer.read_head()
        assert peer.read_chunk() == b"begun"
        peer.reset()

    server = hostile(first, then=recording(seen))
    pool.get(server.url)
    handle = pool.async_put(server.url, stream_body=True)
    handle.send_body(b"begun")
    with pytest.raises(katipo.TransportError):
        handle.result(HANG)
    assert pool.get(server.url).content == b"again"
    assert seen == ["GET"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_fresh_connection_that_dies_is_not_tried_again(pool: katipo.Pool, hostile: Hostile, method: str) -> None:
    """On a first connection an end without an answer is the server's answer."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.close()

    server = hostile(script)
    with pytest.raises(katipo.RemoteProtocolError) as raised:
        pool.request(method, server.url)
    assert raised.value.code == "got_nothing"
    assert server.accepted == 1


@pytest.mark.core
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_was_closed_while_idle_is_no_second_execution(
    pool: katipo.Pool, hostile: Hostile, method: str
) -> None:
    """What the server closed just before is not used for a GET; a POST is answered too, or fails, and goes out once at
    most."""
    seen: list[str] = []
    closed = threading.Event()

    def first(peer: Peer) -> None:
        peer.read_request()
        peer.send(response(b"first"))
        peer.close()
        closed.set()

    server = hostile(first, then=recording(seen))
    pool.get(server.url)
    assert closed.wait(HANG)
    try:
        content = pool.request(method, server.url).content
    except katipo.NetworkError:
        assert method == "POST"
        assert seen == []
    else:
        assert content == b"again"
        assert seen == [method]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_half_an_answer_is_not_asked_for_again(pool: katipo.Pool, hostile: Hostile, method: str) -> None:
    """Once a byte of response has come, nothing is sent again, whatever the method."""

    def first(peer: Peer) -> None:
        peer.read_request()
        peer.send(response(b"first"))
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        peer.close()

    server = hostile(first)
    pool.get(server.url)
    with pytest.raises(katipo.RemoteProtocolError) as raised:
        pool.request(method, server.url)
    assert raised.value.code == "partial_file"
    assert server.accepted == 1


def test_a_redirect_and_a_challenge_are_answers_and_may_be_followed_by_another_send(
    pool: katipo.Pool, origin: Origin
) -> None:
    """The guard is about lost connections: a POST that is redirected by 307, or challenged, is sent again."""
    first, second = origin.fresh_id(), origin.fresh_id()
    base = origin.strict_http
    pool.get(f"{base}/count")
    target = f"/upload%3Fid={second}"
    answer = pool.post(f"{base}/redirect/307?read=all&id={first}&to={target}", body=b"body", followlocation=True)
    assert answer.json()["length"] == 4
    assert (origin.journal(first).count, origin.journal(second).count) == (1, 1)
    name = origin.fresh_id()
    url = f"{base}/digest?id={name}"
    challenged = pool.post(url, body=b"body", http_auth="digest", username="user", password="secret")
    assert (challenged.status_code, challenged.content) == (200, b"body")


# ---------------------------------------------------------------------------------------------------- HTTP/2, HTTP/3


@pytest.mark.core
@pytest.mark.parametrize("endpoint", ["2", "3"], indirect=True)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_stream_is_sent_again(pool: katipo.Pool, endpoint: Endpoint, origin: Origin, method: str) -> None:
    """A server that says that it did not process a request has it again, a POST too."""
    for _ in range(3):
        name = origin.fresh_id()
        answer = pool.request(method, endpoint("/refuse", id=name), **endpoint.options)
        assert answer.status_code == 200
        assert origin.journal(name).count == 2


@pytest.mark.parametrize("endpoint", ["2", "3"], indirect=True)
def test_requests_go_on_after_a_goaway(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """A connection that its server ends is not used again: every POST is executed once, whatever the connection."""
    name = origin.fresh_id()
    for count in range(1, 21):
        answer = pool.post(endpoint("/goaway", id=name), body=b"x", **endpoint.options)
        assert answer.json()["count"] == count
    entry = origin.journal(name)
    assert entry.count == 20
    assert len(set(entry.ports)) > 1


@pytest.mark.parametrize("endpoint", ["2"], indirect=True)
def test_many_requests_pass_a_goaway(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """Streams in flight when connections end: a POST that is answered was executed once, another once at most."""
    names = [origin.fresh_id() for _ in range(100)]
    handles = [
        pool.async_post(endpoint("/goaway" if index % 10 == 5 else "/count", id=name), body=b"x", **endpoint.options)
        for index, name in enumerate(names)
    ]
    answered = 0
    for name, handle in zip(names, handles, strict=True):
        try:
            assert handle.result(HANG).json()["count"] == 1
        except katipo.TransportError:
            assert origin.journal(name).count <= 1
        else:
            answered += 1
    assert answered > 0


def resets_under_its_second_stream(seen: list[str]) -> Callable[[Peer], None]:
    """An HTTP/2 connection that answers one request, reads the next with its body, and is reset (TCP) under it."""

    def script(peer: Peer) -> None:
        machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        machine.initiate_connection()
        peer.send(machine.data_to_send())
        while True:
            for event in machine.receive_data(peer.read_some()):
                if isinstance(event, h2.events.RequestReceived):
                    seen.append(dict(event.headers)[b":method"].decode())
                elif isinstance(event, h2.events.StreamEnded):
                    if len(seen) == 2:
                        peer.reset()
                        return
                    machine.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
            peer.send(machine.data_to_send())

    return script


def answers_streams(seen: list[str]) -> Callable[[Peer], None]:
    """An HTTP/2 connection that answers every request."""

    def script(peer: Peer) -> None:
        machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        machine.initiate_connection()
        peer.send(machine.data_to_send())
        while True:
            try:
                data = peer.read_some()
            except (PeerClosed, TimeoutError):
                return
            for event in machine.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    seen.append(dict(event.headers)[b":method"].decode())
                elif isinstance(event, h2.events.StreamEnded):
                    machine.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
            peer.send(machine.data_to_send())

    return script


@pytest.mark.core
@pytest.mark.parametrize(("method", "times"), [("POST", 1), ("PATCH", 1), ("GET", 2)])
def test_a_multiplexed_connection_that_is_reset_is_guarded_too(
    pool: katipo.Pool, hostile: Hostile, certs: Certificates, method: str, times: int
) -> None:
    """After a TCP reset libcurl sends again over HTTP/2 as well: a GET, but not what the server may have executed."""
    seen: list[str] = []
    server = hostile(resets_under_its_second_stream(seen), then=answers_streams(seen), tls=certs.localhost, alpn=["h2"])
    options: Any = {"cacert": str(certs.ca), "http_version": "2"}
    assert pool.put(server.url, **options).status_code == 200
    if times == 1:
        with pytest.raises((katipo.NetworkError, katipo.RemoteProtocolError)):
            pool.request(method, server.url, body=b"pay", **options)
    else:
        assert pool.request(method, server.url, body=b"pay", **options).status_code == 200
    assert pool.put(server.url, **options).status_code == 200
    assert seen.count(method) == times


@pytest.mark.core
@pytest.mark.parametrize("endpoint", ["2", "3"], indirect=True)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_an_idempotent_request_that_dies_on_a_reused_multiplexed_connection_is_sent_once_more(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, method: str
) -> None:
    """The connection closes under a request that it carried as its second: a GET is sent again, once, and answered."""
    name = origin.fresh_id()
    pool.get(endpoint("/count"), **endpoint.options)
    answer = pool.request(method, endpoint("/drop", id=name), **endpoint.options)
    assert answer.status_code == 200
    assert origin.journal(name).count == 2


@pytest.mark.parametrize("endpoint", ["2", "3"], indirect=True)
def test_it_is_sent_once_more_and_not_for_ever(pool: katipo.Pool, endpoint: Endpoint, origin: Origin) -> None:
    """A server that drops the request each time sees it twice; then the caller has the error."""
    name = origin.fresh_id()
    pool.get(endpoint("/count"), **endpoint.options)
    with pytest.raises(katipo.TransportError):
        pool.get(endpoint("/drop", id=name, times=10), **endpoint.options)
    assert origin.journal(name).count == 2


@pytest.mark.core
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_post_that_dies_on_a_reused_connection_is_executed_once(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin, method: str
) -> None:
    """Over every version: the server executed it and went, so it is not sent again."""
    name = origin.fresh_id()
    pool.get(endpoint("/count"), **endpoint.options)
    with pytest.raises((katipo.NetworkError, katipo.RemoteProtocolError)):
        pool.request(method, endpoint("/drop", id=name), body=b"pay", timeout_ms=20_000, **endpoint.options)
    assert pool.get(endpoint("/count"), **endpoint.options).status_code == 200
    assert origin.journal(name).count == 1


def test_posts_under_a_storm_of_closing_connections_are_executed_at_most_once(
    make_pool: Callable[..., katipo.Pool], endpoint: Endpoint, origin: Origin
) -> None:
    """Many at once, every other one losing its connection: none is ever executed twice."""
    pool = make_pool()
    names = [origin.fresh_id() for _ in range(60)]
    handles = [
        pool.async_post(
            endpoint("/drop" if index % 2 else "/count", id=name), body=b"pay", timeout_ms=20_000, **endpoint.options
        )
        for index, name in enumerate(names)
    ]
    for handle in handles:
        try:
            handle.result(HANG)
        except katipo.TransportError:
            continue
    assert all(origin.journal(name).count <= 1 for name in names)


def test_an_encrypted_connection_is_guarded_too(pool: katipo.Pool, hostile: Hostile, certs: Certificates) -> None:
    """HTTP/1.1 over TLS: a close without close_notify is no reason to send a POST again."""
    seen: list[str] = []
    server = hostile(serves_once_then_dies("close"), then=recording(seen), tls=certs.localhost)
    pool.get(server.url, cacert=str(certs.ca))
    with pytest.raises(katipo.TransportError):
        pool.post(server.url, body=b"pay", cacert=str(certs.ca))
    assert pool.get(server.url, cacert=str(certs.ca)).content == b"again"
    assert seen == ["GET"]


def test_a_get_is_not_retried_for_ever(pool: katipo.Pool, hostile: Hostile) -> None:
    """A connection that dies on its second request: the retry goes to a fresh one, and that is served."""
    server = hostile(serves_once_then_dies("close"), then=serve_forever(response(b"served")))
    assert pool.get(server.url).content == b"first"
    assert pool.get(server.url).content == b"served"
    assert server.accepted == 2
