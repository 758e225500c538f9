"""The clients' clocks on slow and hostile servers: each fires on its own, with its own exception, and at no other time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.hostile import read_request, response, send, wait_closed
from tests.support.pattern import pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Hostile
    from tests.support.clients import AnyClient, ClientMaker
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

SHORT = 0.25
PIECE = 65536


def timeout(**clocks: float) -> katipo.Timeout:
    """No clock but those that are named."""
    return katipo.Timeout(None, **clocks)


def raises(
    client: AnyClient, kind: type[katipo.TimeoutException], *, sent: bool, run: Callable[[], object], others: int = 0
) -> None:
    """`run` raises just that, and leaves nothing in flight but `others`."""
    with pytest.raises(katipo.TimeoutException) as raised:
        run()
    assert type(raised.value) is kind
    assert isinstance(raised.value, TimeoutError)
    assert (raised.value.code, raised.value.request_sent) == ("operation_timedout", sent)
    assert raised.value.request is not None
    assert raised.value.request.method in ("GET", "POST")
    assert client.client._session.pool.statistics().in_flight == others  # pyright: ignore[reportPrivateUsage]


def streamed(client: AnyClient, method: str, url: str, **options: Any) -> Callable[[], bytes]:
    """A call that streams a response and reads it to its end."""

    def run() -> bytes:
        with client.stream(method, url, **options) as answer:
            return answer.read()

    return run


# ---------------------------------------------------------------------------------------------------- each clock


@pytest.mark.core
def test_connecting(clients: ClientMaker, hostile: Hostile) -> None:
    """A connection that is never accepted, and a handshake that never ends."""
    client = clients(timeout=timeout(connect=SHORT))
    hole = hostile.black_hole().url
    raises(client, katipo.ConnectTimeout, sent=False, run=lambda: client.get(hole))
    raises(client, katipo.ConnectTimeout, sent=False, run=streamed(client, "GET", hole))
    secure = hostile([wait_closed()]).url.replace("http:", "https:")
    raises(client, katipo.ConnectTimeout, sent=False, run=lambda: client.get(secure))


@pytest.mark.core
def test_reading(clients: ClientMaker, endpoint: Endpoint, origin: Origin) -> None:
    """A server that never answers, and one that falls silent in the body: what came before is delivered first."""
    client = clients(**endpoint.client_options, timeout=timeout(read=SHORT))
    name = origin.fresh_id()
    raises(client, katipo.ReadTimeout, sent=True, run=lambda: client.get(endpoint("/hang", id=name)))
    origin.journal(name, until="disconnected")
    raises(client, katipo.ReadTimeout, sent=True, run=lambda: client.get(endpoint("/hang", stage="body", size=9)))
    taken: list[bytes] = []

    def read() -> None:
        with client.stream("GET", endpoint("/hang", stage="body", size=3000)) as answer:
            taken.extend(answer.pieces())

    raises(client, katipo.ReadTimeout, sent=True, run=read)
    assert b"".join(taken) == pattern(0, 3000)


@pytest.mark.core
@pytest.mark.parametrize("kind", ["bytes", "iterable"])
def test_writing(clients: ClientMaker, endpoint: Endpoint, origin: Origin, kind: str) -> None:
    """A server that takes nothing more of the body."""
    client = clients(**endpoint.client_options, timeout=timeout(write=SHORT, total=20))
    content: Any = bytes(32 << 20) if kind == "bytes" else (bytes(PIECE) for _ in range(512))
    gate = origin.fresh_id()
    url = endpoint("/upload", gate=gate)
    raises(client, katipo.WriteTimeout, sent=True, run=lambda: client.post(url, content=content))
    origin.open_gate(gate, None)


@pytest.mark.core
def test_waiting_for_a_turn(clients: ClientMaker, origin: Origin) -> None:
    """The pool's clock, while another request has the only connection; the connect clock does not run then."""
    gate = origin.fresh_id()
    client = clients(limits=katipo.Limits(max_connections=1), timeout=timeout(pool=SHORT, connect=SHORT / 4))
    with client.stream("GET", f"{origin.strict_http}/drip?gate={gate}", timeout=None) as busy:
        url = origin.strict_http + "/count"
        content: Any = iter([b"some"])
        for run in (
            lambda: client.get(url),
            streamed(client, "GET", url),
            lambda: client.post(url, content=content),
        ):
            raises(client, katipo.PoolTimeout, sent=False, run=run, others=1)
        origin.open_gate(gate)
        assert busy.read() == pattern(0, 1)
    assert client.get(url).status_code == 200


@pytest.mark.core
def test_everything_together(clients: ClientMaker, origin: Origin, hostile: Hostile) -> None:
    """The total clock, whatever is going on: connecting, waiting for an answer, a steady body, an upload."""
    client = clients(timeout=timeout(total=SHORT))
    hole = hostile.black_hole().url
    raises(client, katipo.TotalTimeout, sent=False, run=lambda: client.get(hole))
    raises(client, katipo.TotalTimeout, sent=True, run=lambda: client.get(origin.strict_http + "/hang"))
    drip = f"{origin.strict_http}/drip?n={1000}&size={10}&delay={0.01}"
    raises(client, katipo.TotalTimeout, sent=True, run=lambda: client.get(drip))
    raises(client, katipo.TotalTimeout, sent=True, run=streamed(client, "GET", drip))
    gate = origin.fresh_id()
    content: Any = (bytes(PIECE) for _ in range(512))
    url = f"{origin.strict_http}/upload?gate={gate}"
    raises(client, katipo.TotalTimeout, sent=True, run=lambda: client.post(url, content=content))
    origin.open_gate(gate, None)


def test_the_total_clock_is_the_callers_own_slowness_too(clients: ClientMaker, origin: Origin) -> None:
    """A stream whose reader stops has its window full, and a total timeout all the same: read does not fire."""
    client = clients(timeout=timeout(read=SHORT / 4, total=4 * SHORT))
    slept = threading.Event()

    def read() -> None:
        with client.stream("GET", f"{origin.strict_http}/big?size={1 << 30}") as answer:
            pieces = answer.pieces()
            next(pieces)
            assert not slept.wait(5 * SHORT)
            for _ in pieces:
                pass

    raises(client, katipo.TotalTimeout, sent=True, run=read)


def test_a_window_left_full_is_no_read_timeout(clients: ClientMaker, origin: Origin) -> None:
    """While nobody reads, the read clock stands still; it runs again when there is room."""
    client = clients(timeout=timeout(read=SHORT))
    size = 48 << 20
    with client.stream("GET", f"{origin.strict_http}/big?size={size}") as answer:
        pieces = answer.pieces()
        length = len(next(pieces))
        # Another request, which takes four times as long as this one may be silent.
        assert client.get(f"{origin.strict_http}/drip?delay={3 * SHORT}", timeout=None).status_code == 200
        assert length + sum(map(len, pieces)) == size


def test_an_iterable_that_takes_its_time_is_no_timeout(clients: ClientMaker, origin: Origin) -> None:
    """Neither read nor write fires while the body is open and the caller has sent nothing to take."""
    client = clients(timeout=timeout(read=SHORT, write=SHORT))

    def content() -> Iterator[bytes]:
        for _ in range(2):
            yield b"piece"
            assert not threading.Event().wait(2 * SHORT)

    body: Any = content()
    assert client.post(origin.strict_http + "/upload", content=body).json()["length"] == 10


def test_a_steady_server_is_not_silent(clients: ClientMaker, origin: Origin) -> None:
    """A body that takes longer than the read timeout, and never stops for that long, is whole."""
    client = clients(timeout=timeout(read=3 * SHORT))
    assert client.get(f"{origin.strict_http}/drip?n={10}&size={10}&delay={0.1}").content == pattern(0, 100)


# ---------------------------------------------------------------------------------------------------- across requests


def test_the_total_clock_spans_redirects(clients: ClientMaker, hostile: Hostile) -> None:
    """Each hop is quick enough, all of them together are not; the exception is of the hop that was under way."""

    def hop(peer: Any) -> None:
        while True:
            head = peer.read_head()
            assert not threading.Event().wait(SHORT / 2)
            peer.send(response(b"on", 302, [("Location", f"{head.target}x")]))

    server = hostile(hop, then=hop)
    server.ignore_errors()
    client = clients(timeout=timeout(total=2 * SHORT, read=2 * SHORT), follow_redirects=True)
    with pytest.raises(katipo.TotalTimeout) as raised:
        client.get(server.url + "/x")
    assert raised.value.request is not None
    assert raised.value.request.url.path.count("x") >= 2
    with pytest.raises(katipo.TotalTimeout), client.stream("GET", server.url + "/x"):
        pass


def test_the_read_clock_is_each_hops_own(clients: ClientMaker, origin: Origin) -> None:
    """Redirects that are quick one by one may take longer together than a read may."""
    url = origin.strict_http + "/redirect/302?to=/drip?delay=0.2"
    client = clients(timeout=timeout(read=2 * SHORT), follow_redirects=True)
    assert len(client.get(url).history) == 1


def test_a_requests_own_timeout(clients: ClientMaker, origin: Origin) -> None:
    """It replaces the client's; None switches all clocks off."""
    client = clients(timeout=timeout(read=SHORT))
    slow = f"{origin.strict_http}/drip?delay={2 * SHORT}"
    assert client.get(slow, timeout=30).status_code == 200
    raises(client, katipo.ReadTimeout, sent=True, run=lambda: client.get(slow))
    assert streamed(client, "GET", slow, timeout=None)() == pattern(0, 1)


def test_a_client_goes_on_after_a_timeout(clients: ClientMaker, hostile: Hostile) -> None:
    """The connection that was silent is not used again."""
    server = hostile([read_request(), wait_closed()], [read_request(), send(response(b"second"))])
    client = clients(timeout=timeout(read=SHORT))
    raises(client, katipo.ReadTimeout, sent=True, run=lambda: client.get(server.url))
    assert client.get(server.url).content == b"second"
    assert server.accepted == 2
