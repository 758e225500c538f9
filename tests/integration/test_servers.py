"""The servers of the suites, asked with the standard library and aioquic only: a failure here is theirs, not katipo's."""

import asyncio
import hashlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamReset

from tests.conftest import Hostile
from tests.support import hostile as steps
from tests.support.caddy import Caddy
from tests.support.certs import Certificates
from tests.support.endpoints import Endpoint
from tests.support.hostile import Peer
from tests.support.httpbin import Httpbin
from tests.support.nginx import Nginx
from tests.support.origin import Origin
from tests.support.pattern import pattern
from tests.support.proxy import HTTPProxy, SocksProxy, Tinyproxy

BODY = pattern(0, 300_000)


def ask(
    url: str, method: str = "GET", body: bytes | Iterable[bytes] | None = None, ca: Any = None
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """One HTTP/1.1 request with the standard library."""
    parts = urlsplit(url)
    assert parts.hostname
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=context, timeout=20)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", body)
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


class Http3Client(QuicConnectionProtocol):
    """One HTTP/3 request at a time with aioquic."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._h3 = H3Connection(self._quic)
        self._blocks: list[dict[bytes, bytes]] = []
        self._body = b""
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def ask(self, url: str, method: str = "GET", body: bytes = b"") -> tuple[list[dict[bytes, bytes]], bytes]:
        """The header blocks of the response (trailers last) and its body."""
        parts = urlsplit(url)
        stream = self._quic.get_next_available_stream_id()
        headers = {
            ":method": method,
            ":scheme": "https",
            ":authority": parts.netloc,
            ":path": f"{parts.path}?{parts.query}",
        }
        if body:
            headers["content-length"] = str(len(body))
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._h3.send_headers(stream, fields, end_stream=not body)
        if body:
            self._h3.send_data(stream, body, end_stream=True)
        self.transmit()
        await asyncio.wait_for(self._done, 20)
        return self._blocks, self._body

    def quic_event_received(self, event: QuicEvent) -> None:
        """Collect the response."""
        for item in self._h3.handle_event(event):
            if isinstance(item, HeadersReceived):
                self._blocks.append(dict(item.headers))
            elif isinstance(item, DataReceived):
                self._body += item.data
            if isinstance(item, HeadersReceived | DataReceived) and item.stream_ended:
                self._done.set_result(None)
        if isinstance(event, StreamReset | ConnectionTerminated) and not self._done.done():
            self._done.set_exception(ConnectionError(f"{event}"))


async def ask3(url: str, ca: Any, method: str = "GET", body: bytes = b"") -> tuple[list[dict[bytes, bytes]], bytes]:
    """One HTTP/3 request."""
    parts = urlsplit(url)
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="localhost")
    configuration.load_verify_locations(str(ca))
    async with connect(
        "127.0.0.1", parts.port or 0, configuration=configuration, create_protocol=Http3Client
    ) as client:
        assert isinstance(client, Http3Client)
        return await client.ask(url, method, body)


def test_httpbin_reads_a_chunked_body(httpbin: Httpbin) -> None:
    """httpbin sees the body of a request of unknown length."""
    status, body, _ = ask(f"{httpbin.url}/post", "POST", iter([b"one ", b"two"]))
    assert (status, json.loads(body)["data"]) == (200, "one two")


def test_nginx_serves_its_locations(nginx: Nginx, certs: Certificates) -> None:
    """Statuses, files, limits, trailers, the proxied httpbin, and the log that counts executions."""
    assert ask(f"{nginx.https}/get", ca=certs.ca)[0] == 200
    assert ask(f"{nginx.http}/return/418")[0] == 418
    assert ask(f"{nginx.http}/files/medium")[1] == pattern(0, nginx.files["medium"])
    assert ask(f"{nginx.http}/limited", "POST", bytes(5000))[0] == 413
    assert ask(f"{nginx.http}/trailers")[1] == pattern(0, 1024)
    assert ask(f"{nginx.https}/client-cert", ca=certs.ca)[1].strip() == b"NONE"
    ask(f"{nginx.http}/return/200?token=here")
    nginx.wait_executed("token=here")
    assert nginx.executed("token=here") == 1


@pytest.mark.parametrize("name", ["wrong_host", "self_signed", "expired"])
def test_nginx_has_bad_certificates(nginx: Nginx, certs: Certificates, name: str) -> None:
    """Each is refused by a client that trusts the tests' CA."""
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(f"{getattr(nginx, name)}/return/200", ca=certs.ca)


def test_nginx_closes_after_few_requests(nginx: Nginx) -> None:
    """The special port ends a connection with its fifth request."""
    parts = urlsplit(nginx.few_http)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=10)
    kept = []
    for _ in range(5):
        connection.request("GET", "/return/200")
        response = connection.getresponse()
        response.read()
        kept.append(response.getheader("Connection"))
    connection.close()
    assert kept == ["keep-alive"] * 4 + ["close"]


async def test_caddy_speaks_http3(caddy: Caddy, certs: Certificates) -> None:
    """httpbin over HTTP/3, with a body, and in the log."""
    blocks, body = await ask3(f"{caddy.https}/post?token=three", certs.ca, "POST", b"hello")
    assert blocks[0][b":status"] == b"200"
    assert json.loads(body)["data"] == "hello"
    caddy.wait_executed("token=three")
    assert "HTTP/3" in next(line for line in caddy.requests() if "token=three" in line)


@pytest.mark.parametrize("front", ["http", "https", "strict_http", "strict_https"])
def test_origin_over_http1(origin: Origin, certs: Certificates, front: str) -> None:
    """An upload, a download, and the journal on every front end over HTTP/1.1."""
    base, name = getattr(origin, front), origin.fresh_id()
    status, body, _ = ask(f"{base}/upload?id={name}", "POST", iter([BODY[:1000], BODY[1000:]]), certs.ca)
    answer = json.loads(body)
    assert (status, answer["length"], answer["sha256"]) == (200, len(BODY), hashlib.sha256(BODY).hexdigest())
    assert ask(f"{base}/big?size=300000", ca=certs.ca)[1] == BODY
    assert origin.journal(name, "finished").received == len(BODY)


@pytest.mark.parametrize("front", ["https", "strict_https"])
async def test_origin_over_http3(origin: Origin, certs: Certificates, front: str) -> None:
    """An upload, a download on both front ends over HTTP/3."""
    base = getattr(origin, front)
    _, body = await ask3(f"{base}/upload", certs.ca, "POST", BODY)
    assert json.loads(body)["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert (await ask3(f"{base}/big?size=300000", certs.ca))[1] == BODY


async def test_strict_front_end_has_the_frames_of_http3(origin: Origin, certs: Certificates) -> None:
    """Trailers, an early answer, a reset, a refusal. (This client's aioquic need not know informational blocks.)"""
    base = origin.strict_https
    blocks, _ = await ask3(f"{base}/trailers", certs.ca)
    assert blocks[-1] == {b"x-trailer-1": b"value-1", b"x-trailer-2": b"value-2"}
    blocks, _ = await ask3(f"{base}/early-413", certs.ca, "POST", BODY)
    assert blocks[0][b":status"] == b"413"
    for path in ("/reset-mid-body", f"/refuse?id={origin.fresh_id()}", f"/drop?id={origin.fresh_id()}"):
        with pytest.raises(ConnectionError):
            await ask3(base + path, certs.ca)


def test_strict_front_end_holds_an_upload_back(origin: Origin) -> None:
    """Behind a shut gate only windows and kernel buffers fill; the open gate lets the rest through."""
    name, gate = origin.fresh_id(), origin.fresh_id()
    size = 64 << 20
    answers: list[bytes] = []
    url = f"{origin.strict_http}/upload?id={name}&gate={gate}&first=65536"
    sender = threading.Thread(target=lambda: answers.append(ask(url, "POST", bytes(size))[1]))
    sender.start()
    assert origin.journal(name, "received>=65536").received < size // 4
    origin.open_gate(gate, None)
    sender.join(20)
    assert json.loads(answers[0])["length"] == size


def test_origin_sees_a_client_go(origin: Origin) -> None:
    """A client that closes while it waits is in the journal as disconnected."""
    name = origin.fresh_id()
    port = urlsplit(origin.strict_http).port or 0
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(f"GET /hang?id={name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert origin.journal(name, "started").disconnected == 0
    assert origin.journal(name, "disconnected").count == 1


def test_endpoint_makes_urls_and_options(endpoint: Endpoint, certs: Certificates) -> None:
    """Queries are escaped, the options choose the version."""
    assert endpoint("/drip", n=3, id="a b").endswith("/drip?n=3&id=a%20b")
    assert endpoint.options["cacert"] == str(certs.ca)
    assert endpoint.http_version.endswith(endpoint.version)


def test_hostile_server_sends_byte_by_byte_and_resets(hostile: Hostile) -> None:
    """The script's bytes arrive, its RST too, and the request is recorded."""
    go = threading.Event()
    server = hostile(
        [
            steps.read_request(),
            steps.send_slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"),
            steps.wait(go),
            steps.reset(),
        ]
    )
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(b"POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
        data = b""
        while not data.endswith(b"ab"):
            data += sock.recv(100)
        go.set()
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
    head = server.peer().head
    assert head is not None
    assert (head.method, head.target) == ("POST", "/x")
    assert server.peer().received.endswith(b"abc")


@pytest.mark.parametrize("tls", [False, True])
def test_hostile_server_sees_how_a_client_goes(hostile: Hostile, certs: Certificates, tls: bool) -> None:
    """An orderly close is "eof"."""
    seen: list[str] = []

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(steps.response(b"read"))
        seen.append(peer.wait_closed())

    server = hostile(script, tls=certs.localhost if tls else None)
    sock = socket.create_connection(("127.0.0.1", server.port))
    if tls:
        sock = ssl.create_default_context(cafile=certs.ca).wrap_socket(sock, server_hostname="localhost")
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    answer = b""
    while not answer.endswith(b"read"):
        answer += sock.recv(1000)
    # Nothing is unread now, TLS tickets included, which would make the close a reset.
    sock.close()
    server.wait_scripts()
    assert seen == ["eof"]


def test_hostile_server_reports_an_unexpected_connection(hostile: Hostile) -> None:
    """A connection beyond the scripts is an error of the test."""
    server = steps.ScriptedServer()
    socket.create_connection(("127.0.0.1", server.port)).close()
    server.peer()
    server.wait_scripts()
    with pytest.raises(AssertionError, match="was not expected"):
        server.close()


def test_addresses_that_do_not_answer(hostile: Hostile) -> None:
    """The black hole completes no connect; the refused port refuses."""
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", hostile.black_hole().port), timeout=0.2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", hostile.refused_port()))


def test_http_proxy_tunnels_and_refuses(origin: Origin, http_proxy: Callable[..., HTTPProxy]) -> None:
    """CONNECT and absolute targets are passed on and recorded; wrong credentials are not."""
    port = urlsplit(origin.strict_http).port
    proxy = http_proxy()
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    connection.set_tunnel("localhost", port)
    connection.request("GET", "/count")
    assert connection.getresponse().read().startswith(b"{")
    connection.close()
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    connection.request("GET", f"{origin.strict_http}/count")
    assert connection.getresponse().status == 200
    connection.close()
    assert [request.method for request in proxy.requests] == ["CONNECT", "GET"]
    strict = http_proxy(auth=("user", "secret"))
    assert ask(f"{strict.url}/x")[0] == 407


def test_socks_proxy_connects_by_name(origin: Origin, socks_proxy: Callable[..., SocksProxy]) -> None:
    """A SOCKS5 request with credentials reaches the origin."""
    port = urlsplit(origin.strict_http).port
    assert port
    proxy = socks_proxy(auth=("user", "secret"))
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as sock:
        sock.sendall(
            b"\x05\x01\x02" + b"\x01\x04user\x06secret" + b"\x05\x01\x00\x03\x09localhost" + port.to_bytes(2, "big")
        )
        answer = b""
        while len(answer) < 14:
            answer += sock.recv(14 - len(answer))
        sock.sendall(b"GET /count HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert proxy.requests[0].target == f"localhost:{port}"
    assert proxy.requests[0].authorization == "user:secret"


def test_tinyproxy_forwards(origin: Origin, tinyproxy: Tinyproxy) -> None:
    """The real proxy opens a tunnel."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(tinyproxy.url).port, timeout=10)
    connection.set_tunnel("127.0.0.1", urlsplit(origin.strict_http).port)
    connection.request("GET", "/count")
    assert connection.getresponse().status == 200
    connection.close()
