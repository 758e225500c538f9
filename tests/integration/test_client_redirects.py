"""Redirects that a client follows: where they lead, what goes along, what is sent again, and what stays at home."""

from __future__ import annotations

import contextlib
import io
from typing import IO, TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.hostile import Peer, response, serve, serve_forever
from tests.support.pattern import pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Hostile
    from tests.support.certs import Certificates
    from tests.support.clients import AnyClient, ClientMaker
    from tests.support.endpoints import Endpoint
    from tests.support.hostile import RequestHead, ScriptedServer
    from tests.support.nginx import Nginx
    from tests.support.origin import Origin
    from tests.support.proxy import HTTPProxy

CODES = (301, 302, 303, 307, 308)


def moved(location: str, status: int = 302, *headers: tuple[str, str]) -> bytes:
    """The bytes of a redirect."""
    return response(b"moved", status, [("Location", location), *headers])


def head_of(server: ScriptedServer, connection: int = 0) -> RequestHead:
    """The last request's head on a connection."""
    head = server.peer(connection).head
    assert head is not None
    return head


@pytest.fixture
def follower(clients: ClientMaker) -> AnyClient:
    """A client that follows redirects."""
    return clients(follow_redirects=True)


# Whether, and how many


@pytest.mark.parametrize("code", CODES)
def test_a_redirect_is_an_answer_unless_asked_otherwise(
    clients: ClientMaker, endpoint: Endpoint, origin: Origin, code: int
) -> None:
    """The default, and `follow_redirects=False` or None in the call of a client that follows."""
    name = origin.fresh_id()
    url = endpoint(f"/redirect/{code}", to=f"/count?id={name}")
    quiet, following = clients(**endpoint.client_options), clients(follow_redirects=True, **endpoint.client_options)
    answers = [quiet.get(url), following.get(url, follow_redirects=False), following.get(url, follow_redirects=None)]
    for answer in answers:
        assert (answer.status_code, answer.content, answer.history) == (code, b"elsewhere", [])
        assert answer.has_redirect_location
    with pytest.raises(katipo.HTTPStatusError, match="Redirect location: '/count"):
        answers[0].raise_for_status()
    assert origin.journal(name).count == 0


@pytest.mark.core
@pytest.mark.parametrize("code", CODES)
def test_a_redirect_is_followed(clients: ClientMaker, endpoint: Endpoint, code: int) -> None:
    """By the client's switch and by the call's, quick and long, streamed and not; history has what came before."""
    url, target = endpoint(f"/redirect/{code}", to="/headers?x=1"), endpoint("/headers", x=1)
    client = clients(**endpoint.client_options)
    following = clients(follow_redirects=True, **endpoint.client_options)
    with client.stream("GET", url, follow_redirects=True) as streamed:
        assert streamed.status_code == 200
        streamed.read()
    for answer in (following.get(url), client.get(url, follow_redirects=True), streamed.response):
        assert (answer.status_code, answer.json()["query"]) == (200, "x=1")
        assert answer.url == answer.request.url == target
        (first,) = answer.history
        assert first.url == url
        assert (first.status_code, first.content, first.history) == (code, b"elsewhere", [])
        assert first.headers["location"] == "/headers?x=1"
        assert answer.cookiejar is None


def test_a_chain_over_several_servers(follower: AnyClient, hostile: Hostile) -> None:
    """Relative and absolute Locations in turn; each response of the history has what came before it."""
    last = hostile(serve(response(b"end")))
    middle = hostile(serve(moved(f"{last.url}/c", 308)))
    first = hostile(serve(moved("b?x", 301), moved(f"//localhost:{middle.port}/m", 307)))
    answer = follower.get(f"{first.url}/a")
    assert answer.content == b"end"
    assert [(each.status_code, str(each.url)) for each in answer.history] == [
        (301, f"{first.url}/a"),
        (307, f"{first.url}/b?x"),
        (308, f"{middle.url}/m"),
    ]
    assert answer.url == f"{last.url}/c"
    for count, each in enumerate(answer.history):
        assert each.history == answer.history[:count]


@pytest.mark.parametrize("allowed", [0, 1, 3])
@pytest.mark.parametrize("how", ["quick", "long", "stream"])
def test_a_loop_ends(clients: ClientMaker, hostile: Hostile, allowed: int, how: str) -> None:
    """TooManyRedirects after as many hops as the client allows, with the request that came last."""
    server = hostile(then=serve_forever(moved("/again")))
    client = clients(follow_redirects=True, max_redirects=allowed)
    calls: dict[str, Callable[[], object]] = {
        "quick": lambda: client.get(server.url),
        "long": lambda: client.get(server.url, params={"a": "1"}),
        "stream": lambda: client.stream("GET", server.url).__enter__(),
    }
    with pytest.raises(katipo.TooManyRedirects, match=f"more than {allowed}") as caught:
        calls[how]()
    assert caught.value.request is not None
    if allowed:
        assert caught.value.request.url == f"{server.url}/again"
    assert server.peer(0).received.count(b" HTTP/1.1\r\n") == allowed + 1


def test_as_many_as_are_allowed_are_followed(clients: ClientMaker, hostile: Hostile) -> None:
    """The bound is on redirects, not on requests."""
    server = hostile(serve(moved("/1"), moved("/2"), response(b"end")))
    answer = clients(follow_redirects=True, max_redirects=2).get(server.url)
    assert (answer.content, len(answer.history)) == (b"end", 2)


# What is sent next


@pytest.mark.parametrize(
    ("code", "method", "then"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "DELETE", "GET"),
        (303, "HEAD", "HEAD"),
        (301, "HEAD", "HEAD"),
        (301, "PUT", "PUT"),
        (302, "PATCH", "PATCH"),
        (302, "DELETE", "DELETE"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
        (307, "DELETE", "DELETE"),
    ],
)
def test_the_method_after_a_redirect(
    clients: ClientMaker, endpoint: Endpoint, origin: Origin, code: int, method: str, then: str
) -> None:
    """As RFC 9110 15.4 and fetch have it; body and headers of the body stay with their method, other headers always."""
    client = clients(follow_redirects=True, **endpoint.client_options)
    name = origin.fresh_id()
    body = None if method == "HEAD" else pattern(0, 50_000)
    answer = client.request(
        method,
        endpoint(f"/redirect/{code}", to=f"/upload?id={name}", read="all"),
        content=body,
        headers={"X-A": "b"} if body is None else {"X-A": "b", "Content-Type": "x/y", "Content-Language": "de"},
    )
    assert answer.request.method == then
    assert answer.history[0].request.method == method
    if then == "HEAD":
        assert origin.journal(name, until="finished").count == 1
        return
    seen = answer.json()
    headers = {name.lower(): value for name, value in seen["headers"]}
    kept = then == method
    assert (seen["method"], seen["length"]) == (then, 50_000 if kept else 0)
    assert headers["x-a"] == "b"
    assert ("content-type" in headers, "content-language" in headers) == (kept, kept)
    assert answer.request.content == (body if kept else None)


KINDS = ("bytes", "list", "memory", "path", "file", "form", "json", "multipart")


@pytest.fixture
def make_body(tmp_path: Path) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Makes arguments for a body of each of KINDS, which can be sent again. Files are closed with the test."""
    data = pattern(0, 100_000)
    path = tmp_path / "body"
    path.write_bytes(data)
    with contextlib.ExitStack() as held:

        def opened() -> IO[bytes]:
            file = held.enter_context(open(path, "rb"))
            file.seek(10)
            return file

        kinds: dict[str, Callable[[], dict[str, Any]]] = {
            "bytes": lambda: {"content": data},
            "list": lambda: {"content": [data[:50_000], data[50_000:]]},
            "memory": lambda: {"content": io.BytesIO(data)},
            "path": lambda: {"content": path},
            "file": lambda: {"content": opened()},
            "form": lambda: {"data": {"a": "x" * 1000}},
            "json": lambda: {"json": ["x" * 1000]},
            "multipart": lambda: {"data": {"a": "b"}, "files": {"f": opened(), "g": io.BytesIO(data), "h": path}},
        }
        yield lambda kind: kinds[kind]()


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_a_body_is_sent_again(
    clients: ClientMaker, endpoint: Endpoint, make_body: Callable[[str], dict[str, Any]], kind: str
) -> None:
    """Whole, from where it began, with its content type."""
    client = clients(follow_redirects=True, **endpoint.client_options)
    reference = client.post(endpoint("/upload"), **make_body(kind)).json()
    seen = client.post(endpoint("/redirect/307", to="/upload", read="all"), **make_body(kind)).json()
    assert seen["length"] == reference["length"] > 0
    if kind != "multipart":  # whose boundary differs
        assert seen["sha256"] == reference["sha256"]
    types = [value.partition(";")[0] for name, value in seen["headers"] if name.lower() == "content-type"]
    assert len(types) == (kind in ("form", "json", "multipart"))


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("kind", ["bytes", "list", "memory", "file"])
def test_a_body_that_was_not_read_is_sent_again(
    clients: ClientMaker,
    origin: Origin,
    certs: Certificates,
    make_body: Callable[[str], dict[str, Any]],
    version: str,
    kind: str,
) -> None:
    """The server answers before it has read the body. Not over HTTP/3: libcurl ends the first body short of its length
    there, for which aioquic ends the connection.
    """
    client = clients(follow_redirects=True, verify=str(certs.ca), http2=version == "2")
    reference = client.post(f"{origin.strict_https}/upload", **make_body(kind)).json()
    answer = client.post(f"{origin.strict_https}/redirect/307?to=/upload", **make_body(kind))
    assert (answer.json()["length"], answer.json()["sha256"]) == (reference["length"], reference["sha256"])


@pytest.mark.parametrize("kind", ["generator", "iterator", "pipe"])
@pytest.mark.parametrize("code", [307, 308])
def test_a_body_that_can_be_read_once_is_not_sent_again(
    clients: ClientMaker, endpoint: Endpoint, origin: Origin, kind: str, code: int
) -> None:
    """StreamConsumed, and the target is asked for nothing; where the body is not wanted again, all is well."""
    client = clients(follow_redirects=True, **endpoint.client_options)
    name = origin.fresh_id()

    class Pipe:
        def __init__(self) -> None:
            self._left = [b"abc"]

        def read(self, size: int = -1) -> bytes:
            return self._left.pop() if self._left else b""

    def once() -> Any:
        if kind == "pipe":
            return Pipe()
        return iter([b"abc"]) if kind == "iterator" else (piece for piece in [b"abc"])

    url = endpoint(f"/redirect/{code}", to=f"/upload?id={name}", read="all")
    with pytest.raises(katipo.StreamConsumed, match=f"answered {code}"):
        client.post(url, content=once())
    with pytest.raises(katipo.StreamConsumed), client.stream("POST", url, content=once()):
        pass
    assert origin.journal(name).count == 0
    answer = client.post(endpoint("/redirect/303", to="/headers", read="all"), content=once())
    assert answer.json()["method"] == "GET"


# Where it leads


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/x", "/x"),
        ("x?y", "/a/x?y"),
        ("?y", "/a/b?y"),
        ("../x", "/x"),
        ("", "/a/b?q"),
        ("#f", "/a/b?q"),
        ("  /x  ", "/x"),
        ("/x y", "/x%20y"),
        ("/%zz", "/%25zz"),
        ("/x\xc3\xbc", "/x%C3%BC"),
        ("./", "/a/"),
        ("//localhost:{port}/x", "/x"),
        ("//user:secret@localhost:{port}/x", "/x"),
        ("HTTP://LOCALHOST:{port}/x", "/x"),
        ("http://localhost:{port}", "/"),
        ("http://localhost:{port}?x", "/?x"),
    ],
)
def test_oddities_of_a_location(follower: AnyClient, hostile: Hostile, location: str, target: str) -> None:
    """What is a reference by RFC 3986 is followed, as browsers read it; what cannot stand in a URL is encoded."""
    answers: list[bytes] = []

    def script(peer: Peer) -> None:
        for answer in answers:
            peer.read_request()
            peer.send(answer)
        peer.wait_closed()

    server = hostile(script)
    answers += [moved(location.replace("{port}", str(server.port))), response(b"end")]
    answer = follower.get(f"{server.url}/a/b?q")
    assert answer.content == b"end"
    assert head_of(server).target == target
    assert head_of(server).get("Authorization") is None
    assert "secret" not in str(answer.url)


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("ftp://localhost/", katipo.UnsupportedProtocol),
        ("file:///etc/passwd", katipo.UnsupportedProtocol),
        ("javascript:alert(1)", katipo.UnsupportedProtocol),
        ("mailto:a@b", katipo.UnsupportedProtocol),
        ("http://", katipo.RemoteProtocolError),
        ("http:///x", katipo.RemoteProtocolError),
        ("//", katipo.RemoteProtocolError),
        ("http://localhost:99999/", katipo.RemoteProtocolError),
        ("http://[::1/", katipo.RemoteProtocolError),
        ("http://exa mple/", katipo.RemoteProtocolError),
        ("/a\x01b", katipo.RemoteProtocolError),
        ("\\\\localhost\\x", katipo.RemoteProtocolError),
    ],
)
def test_locations_that_lead_nowhere(
    follower: AnyClient, hostile: Hostile, location: str, error: type[katipo.RequestError]
) -> None:
    """The server's fault, with the request that it answered; nothing else is asked."""
    server = hostile(serve(moved(location)))
    with pytest.raises(error) as caught:
        follower.get(server.url)
    assert caught.value.request is not None
    assert caught.value.request.url == f"{server.url}/"
    assert server.accepted == 1


def test_redirects_without_a_location_are_answers(follower: AnyClient, hostile: Hostile) -> None:
    """As are 300, 304 and 305 with one."""
    for status in (301, 302, 303, 307, 308):
        assert follower.get(hostile(serve(response(b"x", status))).url).status_code == status
    for status in (300, 305, 306):
        assert follower.get(hostile(serve(moved("/x", status))).url).status_code == status


def test_several_locations_that_differ_are_refused(follower: AnyClient, hostile: Hostile) -> None:
    """Nobody may choose: libcurl takes it for a broken response."""
    server = hostile(serve(moved("/first", 302, ("Location", "/second"))))
    with pytest.raises(katipo.RemoteProtocolError, match="Location"):
        follower.get(server.url)
    assert server.accepted == 1


def test_the_fragment_goes_along(follower: AnyClient, origin: Origin) -> None:
    """Unless the Location has one of its own (RFC 9110 10.2.2)."""
    url = f"{origin.strict_http}/redirect/302"
    assert follower.get(f"{url}?to=/count#mine").url.fragment == "mine"
    assert follower.get(f"{url}?to=/count%23theirs#mine").url.fragment == "theirs"


def test_a_redirect_can_change_the_version(clients: ClientMaker, certs: Certificates, origin: Origin) -> None:
    """From plain HTTP/1.1 to HTTP/2 over TLS."""
    client = clients(follow_redirects=True, verify=str(certs.ca))
    answer = client.get(f"{origin.strict_http}/redirect/302", params={"to": f"{origin.strict_https}/count"})
    assert (answer.http_version, answer.history[0].http_version) == ("HTTP/2", "HTTP/1.1")


def test_a_large_body_of_a_redirect_is_not_downloaded(follower: AnyClient, hostile: Hostile) -> None:
    """Streamed, a redirect's own body is of no interest: the rest of a large one is cut off."""

    def endless(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 302 Found\r\nLocation: /end\r\nContent-Length: 1000000000\r\n\r\n")
        peer.wait_closed()

    server = hostile(endless, serve(response(b"end")))
    with follower.stream("GET", server.url) as streamed:
        assert streamed.read() == b"end"
    server.peer(0).script_ended.wait(10)
    assert server.peer(0).closed is not None


# What stays at home


SECRETS = {
    "Authorization": "Bearer t0psecret",
    "Cookie": "c=t0psecret",
    "Proxy-Authorization": "Basic t0psecret",
    "X-Api-Key": "t0psecret",
    "X-Auth-Token": "t0psecret",
    "X-Amz-Security-Token": "t0psecret",
    "Private-Token": "t0psecret",
}


def _signed(request: katipo.Request) -> katipo.Request:
    request.headers["X-Signature"] = "t0psecret"
    return request


def elsewhere(hostile: Hostile, where: str, certs: Certificates) -> ScriptedServer:
    """A second server at another origin: another port, another host name, or another scheme."""
    return hostile(then=serve_forever(response(b"end")), tls=certs.localhost if where == "scheme" else None)


@pytest.mark.core
@pytest.mark.parametrize("where", ["port", "host", "scheme"])
@pytest.mark.parametrize("code", [302, 307])
@pytest.mark.parametrize(
    "options",
    [
        {"headers": SECRETS},
        {"auth": ("user", "t0psecret")},
        {"auth": katipo.BearerAuth("t0psecret")},
        {"auth": _signed},
        {"cookies": {"c": "t0psecret"}},
        {"curl_options": {"COOKIE": "c=t0psecret"}},
        {"curl_options": {"XOAUTH2_BEARER": "t0psecret"}},
    ],
    ids="headers basic bearer function cookies curl-cookie curl-bearer".split(),
)
def test_credentials_of_a_call_stay_home(
    clients: ClientMaker, hostile: Hostile, certs: Certificates, where: str, code: int, options: dict[str, Any]
) -> None:
    """The first server gets them; another origin sees none of them, whatever differs; other headers go along."""
    second = elsewhere(hostile, where, certs)
    host = "127.0.0.1" if where == "host" else "localhost"
    scheme = "https" if where == "scheme" else "http"
    first = hostile(serve(moved(f"{scheme}://{host}:{second.port}/", code)))
    client = clients(verify=str(certs.ca), follow_redirects=True)
    headers = {"X-Plain": "yes", "Idempotency-Key": "plain", **options.get("headers", {})}
    assert client.post(first.url, content=b"body", **{**options, "headers": headers}).content == b"end"
    head = head_of(second)
    if "XOAUTH2_BEARER" not in options.get("curl_options", {}):
        assert any(secret in first.peer(0).received for secret in (b"t0psecret", b"Basic dXNlcjp0MHBzZWNyZXQ="))
    assert b"t0psecret" not in head.raw
    assert head.get("Authorization") is None
    assert head.get("Cookie") is None
    assert (head.get("X-Plain"), head.get("Idempotency-Key")) == ("yes", "plain")


def test_credentials_of_a_client_stay_home(clients: ClientMaker, hostile: Hostile) -> None:
    """Its headers, cookies without a domain, auth, and the userinfo of a URL; asked for by the caller itself, all come."""
    second = hostile(then=serve_forever(response(b"end")))
    first = hostile(then=serve_forever(moved(f"{second.url}/")))
    client = clients(follow_redirects=True, headers={"X-Api-Key": "t0psecret"}, cookies={"c": "t0psecret"})
    for url in (first.url, first.url.replace("://", "://user:t0psecret@")):
        client.get(url)
        assert "t0psecret" not in head_of(second).raw.decode()
        assert head_of(second).get("Authorization") is None
    authorized = clients(follow_redirects=True, auth=katipo.BearerAuth("t0psecret"))
    authorized.get(first.url)
    assert b"Bearer t0psecret" in first.peer(1).received
    assert "t0psecret" not in head_of(second, 1).raw.decode()
    client.get(second.url)
    assert (head_of(second).get("X-Api-Key"), head_of(second).get("Cookie")) == ("t0psecret", "c=t0psecret")
    authorized.get(second.url)
    assert head_of(second, 1).get("Authorization") == "Bearer t0psecret"


def test_credentials_do_not_come_back(clients: ClientMaker, hostile: Hostile) -> None:
    """A redirect that leads home again has lost them, as in fetch."""
    heads: list[RequestHead] = []

    def script(peer: Peer) -> None:
        for answer in (moved(f"{second.url}/"), response(b"home")):
            heads.append(peer.read_head())
            peer.send(answer)
        peer.wait_closed()

    first = hostile(script)
    second = hostile(serve(moved(f"{first.url}/back")))
    client = clients(follow_redirects=True, auth=("user", "secret"), headers={"X-Api-Key": "k"}, cookies={"c": "d"})
    assert client.get(first.url).content == b"home"
    assert [head.get("Authorization") is not None for head in heads] == [True, False]
    assert [head.get("X-Api-Key") for head in heads] == ["k", None]
    assert [head.get("Cookie") for head in heads] == ["c=d", None]


def test_credentials_stay_within_their_origin(clients: ClientMaker, endpoint: Endpoint) -> None:
    """A redirect within the origin keeps all of them."""
    client = clients(follow_redirects=True, auth=("user", "secret"), cookies={"c": "d"}, **endpoint.client_options)
    url = endpoint("/redirect/302", to="/headers")
    answer = client.get(url, headers={"X-Api-Key": "k"})
    seen = {name.lower(): value for name, value in answer.json()["headers"]}
    assert seen["authorization"].startswith("Basic ")
    assert (seen["x-api-key"], seen["cookie"]) == ("k", "c=d")


def test_a_host_header_stays_home(follower: AnyClient, hostile: Hostile) -> None:
    """One of the caller's own names the first origin only."""
    second = hostile(serve(response(b"end")))
    first = hostile(serve(moved("/here"), moved(second.url)))
    follower.get(first.url, headers={"Host": "mine.example"})
    assert head_of(first).get("Host") == "mine.example"
    assert head_of(second).get("Host") == f"localhost:{second.port}"


def test_a_client_certificate_stays_home(clients: ClientMaker, nginx: Nginx, certs: Certificates) -> None:
    """The caller's own request shows it; a redirect there from another origin does not, nor by a connection that did."""
    client = clients(verify=str(certs.ca), cert=(str(certs.client.cert), str(certs.client.key)), follow_redirects=True)
    away = {"url": f"{nginx.https}/client-cert"}
    assert client.get(f"{nginx.https}/client-cert").text.startswith("SUCCESS")
    redirected = client.get(f"{nginx.http}/redirect-to", params=away)
    assert redirected.url == away["url"]
    assert redirected.text.strip() == "NONE"
    with client.stream("GET", f"{nginx.http}/redirect-to", params=away) as streamed:
        assert streamed.read().strip() == b"NONE"
    assert client.get(f"{nginx.https}/client-cert").text.startswith("SUCCESS")
    refused = client.get(f"{nginx.http}/redirect-to", params={"url": f"{nginx.mutual}/get"})
    assert (refused.status_code, "No required SSL certificate" in refused.text) == (400, True)
    assert client.get(f"{nginx.mutual}/get").status_code == 200


def test_a_client_certificate_stays_within_its_origin(clients: ClientMaker, nginx: Nginx, certs: Certificates) -> None:
    """A redirect within the origin shows it."""
    client = clients(verify=str(certs.ca), cert=(str(certs.client.cert), str(certs.client.key)), follow_redirects=True)
    answer = client.get(f"{nginx.mutual}/redirect-to", params={"url": "/client-cert"})
    assert answer.text.startswith("SUCCESS")


def test_the_proxys_credentials_stay_with_the_proxy(
    clients: ClientMaker, hostile: Hostile, http_proxy: Callable[..., HTTPProxy]
) -> None:
    """Each hop goes through it and logs in; no server sees how."""
    proxy = http_proxy(auth=("user", "t0psecret"))
    second = hostile(serve(response(b"end", headers=[("Connection", "close")])))
    first = hostile(serve(moved(second.url, 302, ("Connection", "close"))))
    client = clients(follow_redirects=True, proxy=proxy.url.replace("://", "://user:t0psecret@"))
    assert client.get(first.url).content == b"end"
    assert len(proxy.requests) == 2
    assert all(asked.authorization for asked in proxy.requests)
    for server in (first, second):
        assert head_of(server).get("Proxy-Authorization") is None
        assert b"t0psecret" not in server.peer(0).received


def test_no_secret_is_in_the_error_of_a_redirect(follower: AnyClient, hostile: Hostile) -> None:
    """The userinfo of a Location is neither used nor shown."""
    server = hostile(serve(moved(f"http://user:t0psecret@127.0.0.1:{hostile.refused_port()}/")))
    with pytest.raises(katipo.ConnectError) as caught:
        follower.get(server.url)
    assert "t0psecret" not in f"{caught.value!s} {caught.value!r} {caught.value.request!r}"
