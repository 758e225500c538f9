"""Streams of one HTTP/2 connection: what one of them leaves unread is read for the others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import pytest

import katipo
from katipo.messages import Chunk, Started

if TYPE_CHECKING:
    from tests.conftest import Hostile
    from tests.support.certs import Certificates
    from tests.support.hostile import Peer

ROUNDS = 60
ENDING = 60
LONGEST = 0.0004  # seconds that a client needs for a look at so many streams, by far


class Server:
    """When it has a round's requests to `/ends`, it sends a byte to `/goes-on`; a moment later, all at once and each in a
    TLS record of its own, the answers and another byte. The moment is another one each time: the client is somewhere in its
    look at the streams, having looked at `/goes-on`."""

    def __init__(self) -> None:
        self._machine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self._goes_on = 0
        self._ending: list[int] = []
        self._rounds = 0

    def __call__(self, peer: Peer) -> None:
        machine = self._machine
        machine.initiate_connection()
        while self._rounds < ROUNDS:
            peer.send(machine.data_to_send())
            for event in machine.receive_data(peer.read_some()):
                if isinstance(event, h2.events.RequestReceived):
                    self._take(event)
            if len(self._ending) == ENDING:
                self._answer(peer)
        machine.end_stream(self._goes_on)
        peer.send(machine.data_to_send())
        peer.wait_closed()

    def _take(self, event: h2.events.RequestReceived) -> None:
        if dict(event.headers)[b":path"] == b"/goes-on":
            self._goes_on = event.stream_id
            self._machine.send_headers(event.stream_id, [(":status", "200")])
        else:
            self._ending.append(event.stream_id)

    def _byte(self, value: bytes) -> bytes:
        self._machine.send_data(self._goes_on, value)
        return self._machine.data_to_send()

    def _end(self, stream: int) -> bytes:
        self._machine.send_headers(stream, [(":status", "200")], end_stream=True)
        return self._machine.data_to_send()

    def _answer(self, peer: Peer) -> None:
        first = self._byte(b"1")
        rest = [self._end(stream) for stream in self._ending]
        rest.append(self._byte(b"2"))
        peer.send(first)
        until = time.perf_counter() + LONGEST * self._rounds / ROUNDS
        while time.perf_counter() < until:
            pass
        peer.send_records(*rest)
        self._ending.clear()
        self._rounds += 1


@pytest.mark.core
def test_what_an_ended_stream_leaves_unread_is_read_for_the_others(hostile: Hostile, certs: Certificates) -> None:
    """libcurl stops reading where a stream has ended, although its TLS may hold more, of which no descriptor tells."""
    base = hostile(Server(), tls=certs.localhost, alpn=["h2"]).url
    with katipo.Pool(1) as pool:

        def ask(path: str, *, stream: bool = False) -> katipo.Handle:
            return pool.async_get(base + path, stream=stream, http_version="2", cacert=str(certs.ca), timeout_ms=20_000)

        messages = iter(ask("/goes-on", stream=True))
        assert isinstance(next(messages), Started)
        received = b""
        for n in range(ROUNDS):
            for handle in [ask("/ends") for _ in range(ENDING)]:
                assert handle.result(30).status_code == 200
            while len(received) < 2 * (n + 1):
                message = next(messages)
                assert isinstance(message, Chunk), (n, message)
                received += message.data
        assert received == b"12" * ROUNDS
