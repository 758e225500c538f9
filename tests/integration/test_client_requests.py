"""What a client sends: methods, URLs, query parameters, headers; and what it refuses before anything is sent."""

from __future__ import annotations

import pickle
import re
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.hostile import response, serve, serve_forever

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Hostile
    from tests.support.clients import AnyClient, ClientMaker
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin
    from tests.support.proxy import HTTPProxy


def sent(answer: katipo.Response) -> dict[str, list[str]]:
    """The request's headers as the origin's /headers received them: values by name."""
    found: dict[str, list[str]] = {}
    for name, value in answer.json()["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


@pytest.fixture
def local(clients: ClientMaker) -> AnyClient:
    """A client without a version of its own."""
    return clients()


# Methods


@pytest.mark.core
@pytest.mark.parametrize("method", ["get", "head", "options", "post", "put", "patch", "delete"])
def test_each_method_is_sent(clients: ClientMaker, endpoint: Endpoint, origin: Origin, method: str) -> None:
    """A method of the client's sends that method, over each version, and says so in the response."""
    client = clients(**endpoint.client_options)
    name = origin.fresh_id()
    answer = getattr(client, method)(endpoint("/headers", id=name))
    assert answer.status_code == 200
    assert answer.http_version == endpoint.http_version
    assert answer.request.method == method.upper()
    assert answer.url == endpoint("/headers", id=name)
    assert origin.journal(name, until="finished").count == 1
    if method == "head":
        assert answer.content == b""
    else:
        assert answer.json()["method"] == method.upper()


def test_a_method_of_the_callers_own(local: AnyClient, origin: Origin) -> None:
    """Any token is a method; it goes out in upper case."""
    answer = local.request("purge", f"{origin.strict_http}/headers")
    assert answer.json()["method"] == answer.request.method == "PURGE"


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\nX: y", "CONNECT", None, 1, ["GET"]])
def test_what_is_no_method_is_refused(local: AnyClient, origin: Origin, method: Any) -> None:
    """BadOptions names the argument; nothing is sent."""
    name = origin.fresh_id()
    with pytest.raises(katipo.BadOptions, match="method"):
        local.request(method, f"{origin.strict_http}/headers?id={name}")
    assert origin.journal(name).count == 0


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_methods_that_expect_content_say_that_there_is_none(local: AnyClient, origin: Origin, method: str) -> None:
    """Without a body they carry `Content-Length: 0`; GET and DELETE carry no length."""
    assert sent(local.request(method, f"{origin.strict_http}/headers"))["content-length"] == ["0"]
    assert "content-length" not in sent(local.delete(f"{origin.strict_http}/headers"))


# URLs


@pytest.mark.parametrize(
    ("base", "url", "path"),
    [
        ("", "/headers", "/headers"),
        ("/", "headers", "/headers"),
        ("/headers", "a", "/headers/a"),
        ("/headers", "/a", "/headers/a"),
        ("/headers/", "a/b/", "/headers/a/b/"),
        ("/headers", "", "/headers/"),
        ("/headers", "v1/users:search", "/headers/v1/users:search"),
        ("/x", "../headers", "/headers"),
        ("/headers", "//elsewhere.invalid/a", "/headers/elsewhere.invalid/a"),
    ],
)
def test_relative_urls_are_put_below_the_base(
    clients: ClientMaker, origin: Origin, base: str, url: str, path: str
) -> None:
    """As in httpx: the base's path comes first, whether the URL begins with a slash or not."""
    client = clients(base_url=origin.strict_http + base)
    answer = client.get(url)
    assert answer.json()["path"] == path
    assert answer.url == origin.strict_http + path


def test_a_relative_url_brings_its_query(clients: ClientMaker, origin: Origin) -> None:
    """A query alone is a URL as well."""
    client = clients(base_url=f"{origin.strict_http}/headers")
    assert client.get("?a=1").json()["query"] == "a=1"
    assert client.get("b?c=%2F").json()["query"] == "c=%2F"


def test_the_base_does_not_touch_absolute_urls(clients: ClientMaker, origin: Origin) -> None:
    """A URL with a scheme, or a URL object, stands for itself."""
    client = clients(base_url="http://nowhere.invalid/api")
    url = f"{origin.strict_http}/headers"
    assert client.get(url).json()["path"] == "/headers"
    assert client.get(katipo.URL(url)).json()["path"] == "/headers"


def test_the_base_may_be_changed(clients: ClientMaker, origin: Origin) -> None:
    """The next request sees it; "" takes it away."""
    client = clients()
    assert client.client.base_url == ""
    with pytest.raises(katipo.UnsupportedProtocol):
        client.get("/headers")
    client.client.base_url = origin.strict_http
    assert client.client.base_url == origin.strict_http + "/"
    assert client.get("/headers").status_code == 200
    client.client.base_url = ""
    with pytest.raises(katipo.UnsupportedProtocol):
        client.get("/headers")


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("", katipo.UnsupportedProtocol),
        ("localhost/", katipo.UnsupportedProtocol),
        ("ftp://localhost/", katipo.UnsupportedProtocol),
        ("file:///etc/passwd", katipo.UnsupportedProtocol),
        ("http://", katipo.InvalidURL),
        ("http:///x", katipo.InvalidURL),
        ("http://localhost:0/", katipo.InvalidURL),
        ("http://localhost:65536/", katipo.InvalidURL),
        ("http://localhost:x/", katipo.InvalidURL),
        ("http://local host/", katipo.InvalidURL),
        ("http://[::1/", katipo.InvalidURL),
        ("http://1.2.3.256/", katipo.InvalidURL),
        ("http://localhost/\r\nX: y", katipo.InvalidURL),
        ("http://localhost\\@evil/", katipo.InvalidURL),
    ],
)
def test_what_is_no_url_is_refused(local: AnyClient, url: str, error: type[katipo.Error]) -> None:
    """With and without options, by the same errors."""
    with pytest.raises(error):
        local.get(url)
    with pytest.raises(error):
        local.get(url, params={"a": "b"})
    with pytest.raises(error), local.stream("GET", url):
        pass


@pytest.mark.parametrize("url", [None, 1, b"http://localhost/", ["http://localhost/"]])
def test_a_url_of_another_type_is_a_type_error(local: AnyClient, url: Any) -> None:
    """As everywhere in Python."""
    with pytest.raises(TypeError):
        local.get(url)
    with pytest.raises(TypeError):
        local.get(url, headers={"a": "b"})


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/headers/ä b", "/headers/%C3%A4%20b"),
        ("/headers/%C3%A4%20b", "/headers/%C3%A4%20b"),
        ("/headers/%c3%a4", "/headers/%C3%A4"),  # libcurl's: the same by RFC 3986 6.2.2.1
        ("/headers/a%2Fb/%2e%2e", "/headers/"),
        ("/headers/./a/../b", "/headers/b"),
        ("/headers/100%", "/headers/100%25"),
        ("/headers//a", "/headers//a"),
        ("/headers/a#part", "/headers/a"),
        ("/headers?q=ä&x=a+b", "/headers?q=%C3%A4&x=a+b"),
        ("/headers?", "/headers?"),
    ],
)
def test_what_a_url_comes_to_on_the_wire(local: AnyClient, hostile: Hostile, path: str, seen: str) -> None:
    """Percent-encoding that is there stays; what may not stand there is encoded; the quick way and the long one agree."""
    server = hostile(then=serve_forever(response(b"ok")))
    first = local.get(server.url + path)
    second = local.get(server.url + path, headers={"x-long": "1"})
    targets = re.findall(rb"^GET (\S+) HTTP", server.peer(0).received, re.MULTILINE)
    assert [target.decode() for target in targets] == [seen, seen]
    assert first.url == second.url
    assert first.request.url == second.request.url
    assert first.request.url == katipo.URL(server.url + path)


def test_the_fragment_stays_in_the_url_of_the_response(local: AnyClient, origin: Origin) -> None:
    """It is not sent, and not lost: buffered and streamed responses agree."""
    url = f"{origin.strict_http}/headers#part"
    assert local.get(url).request.url == url
    assert local.get(url, params={"a": "1"}).request.url == f"{origin.strict_http}/headers?a=1#part"
    with local.stream("GET", url) as streamed:
        streamed.read()
    assert streamed.response.request.url == url


def test_international_hosts_are_sent_in_ascii(clients: ClientMaker, http_proxy: Callable[..., HTTPProxy]) -> None:
    """IDNA in the target and the Host header; the URL shows what was meant."""
    proxy = http_proxy(refuse=403)
    answer = clients(proxy=proxy.url).get("http://BÜCHER.example/ü")
    assert answer.status_code == 403
    (asked,) = proxy.requests
    assert asked.target == "http://xn--bcher-kva.example/%C3%BC"
    assert dict(asked.headers)["Host"] == "xn--bcher-kva.example"
    assert answer.url.host == "bücher.example"


def test_an_ipv6_address_is_a_host(local: AnyClient) -> None:
    """Brackets in the URL and in the Host header, none in between."""
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("there is no IPv6 on loopback")
    heads: list[bytes] = []

    def serve_one() -> None:
        connection, _ = listener.accept()
        with connection:
            heads.append(connection.recv(65536))
            connection.sendall(response(b"six"))

    with listener:
        thread = threading.Thread(target=serve_one)
        thread.start()
        port = listener.getsockname()[1]
        answer = local.get(f"http://[0:0::0:1]:{port}/")
        thread.join(10)
    assert answer.content == b"six"
    assert answer.url.host == "::1"
    assert answer.metrics.primary_ip == "::1"
    assert f"\r\nHost: [::1]:{port}\r\n".encode() in heads[0]


# Userinfo


@pytest.mark.core
@pytest.mark.parametrize("long", [False, True])
def test_userinfo_becomes_basic_auth_and_shows_nowhere(clients: ClientMaker, endpoint: Endpoint, long: bool) -> None:
    """User and password of a URL are sent, decoded, and are in no URL, repr, message or history afterwards."""
    client = clients(**endpoint.client_options)
    url = endpoint("/basic", user="me@home", password="to:p/hush")
    own = url.replace("://", "://me%40home:to:p%2Fhush@")
    options: dict[str, Any] = {"headers": {"x-long": "1"}} if long else {}
    answer = client.get(own, **options)
    assert answer.status_code == 200
    assert answer.url == answer.request.url == url
    for shown in (
        repr(answer),
        repr(answer.request),
        str(answer.url),
        repr(answer.request.headers),
        repr(client.client),
    ):
        assert "home" not in shown.replace("user=me%40home", "")  # of the query
        assert "hush" not in shown.replace("password=to%3Ap%2Fhush", "")


def test_userinfo_shows_in_no_error(local: AnyClient, hostile: Hostile) -> None:
    """Neither in the message nor in the request of an error, pickled or not."""
    url = f"http://me:topsecret@127.0.0.1:{hostile.refused_port()}/"
    for call in (lambda: local.get(url), lambda: local.post(url, content=b"x"), lambda: _open(local, url)):
        with pytest.raises(katipo.ConnectError) as caught:
            call()
        error = caught.value
        for shown in (str(error), repr(error), repr(error.request), str(error.request and error.request.url)):
            assert "topsecret" not in shown
        assert b"topsecret" not in pickle.dumps(error).replace(b"Basic ", b"")


def _open(client: AnyClient, url: str) -> None:
    with client.stream("GET", url):
        raise AssertionError("nobody listens there")


def test_auth_stands_before_userinfo(clients: ClientMaker, origin: Origin) -> None:
    """As in httpx: what is given as auth is what is sent, and the URL's user is dropped."""
    url = f"{origin.strict_http}/headers".replace("://", "://url:url@")
    basic = {"client": "Basic Y2xpZW50OmNsaWVudA==", "call": "Basic Y2FsbDpjYWxs", "url": "Basic dXJsOnVybA=="}
    assert sent(clients().get(url))["authorization"] == [basic["url"]]
    client = clients(auth=("client", "client"))
    assert sent(client.get(url))["authorization"] == [basic["client"]]
    assert sent(client.get(url, auth=("call", "call")))["authorization"] == [basic["call"]]
    assert "authorization" not in sent(client.get(f"{origin.strict_http}/headers", auth=None))


def test_userinfo_of_the_base_is_the_users_of_all(clients: ClientMaker, origin: Origin) -> None:
    """It is no part of the URLs of requests and responses, and not of the client's repr."""
    client = clients(base_url=f"{origin.strict_http}/basic".replace("://", "://user:secret@"))
    answer = client.get("")
    assert answer.status_code == 200
    assert answer.url == f"{origin.strict_http}/basic/"
    assert "secret" not in repr(client.client)


# Query parameters


def test_params_are_merged(clients: ClientMaker, endpoint: Endpoint) -> None:
    """The URL's stay as they are; then the client's, then the call's, of which one takes the place of the client's."""
    client = clients(params={"key": "k", "page": 1}, **endpoint.client_options)
    url = endpoint("/headers")

    def query(url: str, **options: Any) -> str:
        return str(client.get(url, **options).json()["query"])

    assert query(url) == "key=k&page=1"
    assert query(url + "?a=%2F&b") == "a=%2F&b&key=k&page=1"
    assert query(url + "?a=1", params={"page": 2, "x": None}) == "a=1&key=k&page=2&x="
    assert query(url, params=[("t", "1"), ("t", 2.5), ("f", False)]) == "key=k&page=1&t=1&t=2.5&f=false"
    assert query(url, params=iter([("page", "3")])) == "key=k&page=3"
    assert query(url, params={"t": ["1", "2"]}) == "key=k&page=1&t=1&t=2"
    assert query(url, params="raw=%2f+x") == "key=k&page=1&raw=%2f+x"
    assert query(url, params={"b": b"a\xff"}) == "key=k&page=1&b=a%FF"
    assert query(url, params={}) == "key=k&page=1"
    assert query(url, params=None) == "key=k&page=1"
    assert query(url, params={"ü&=": "a b"}) == "key=k&page=1&%C3%BC%26%3D=a+b"


def test_params_of_the_client_may_be_changed(clients: ClientMaker, origin: Origin) -> None:
    """The next request sees it."""
    client = clients(base_url=origin.strict_http)
    assert client.get("/headers").json()["query"] == ""
    client.client.params = {"a": "1"}
    assert client.client.params == [("a", "1")]
    assert client.get("/headers").json()["query"] == "a=1"
    client.client.params = None
    assert client.get("/headers").json()["query"] == ""


# Headers


@pytest.mark.core
def test_the_default_headers(clients: ClientMaker, endpoint: Endpoint) -> None:
    """What a client sends when nobody says anything; the quick way and the long one send the same."""
    client = clients(**endpoint.client_options)
    quick = sent(client.get(endpoint("/headers")))
    quick.pop("host", None)
    assert quick == {
        "accept": ["*/*"],
        "accept-encoding": [client.headers["accept-encoding"]],
        "user-agent": [f"katipo/{katipo.__version__}"],
    }
    long = sent(client.get(endpoint("/headers"), params={"a": "1"}))
    long.pop("host", None)
    assert long == quick
    with client.stream("GET", endpoint("/headers")) as streamed:
        streamed.read()
    seen = sent(streamed.response)
    seen.pop("host", None)
    assert seen == quick


def test_headers_of_a_request_stand_before_the_clients(clients: ClientMaker, endpoint: Endpoint) -> None:
    """Names are compared in any case; all values of a name are replaced; several of one name are all sent."""
    client = clients(headers={"X-A": "client", "X-B": "client"}, **endpoint.client_options)
    seen = sent(client.get(endpoint("/headers"), headers=[("x-a", "1"), ("X-A", "2"), ("X-C", "")]))
    assert (seen["x-a"], seen["x-b"], seen["x-c"]) == (["1", "2"], ["client"], [""])
    assert client.headers["x-a"] == "client"


def test_a_header_of_none_is_not_sent(clients: ClientMaker, endpoint: Endpoint) -> None:
    """Those of the client, those of its own accord, and those that libcurl would send by itself."""
    names = {"User-Agent": None, "accept": None, "ACCEPT-ENCODING": None, "X-A": None}
    client = clients(headers={"X-A": "client", "X-B": "client"}, **endpoint.client_options)
    assert sent(client.get(endpoint("/headers"), headers=names)).keys() - {"host"} == {"x-b"}
    assert sent(client.get(endpoint("/headers"))).keys() - {"host"} >= {"x-a", "x-b", "user-agent", "accept"}
    without = clients(headers=names, **endpoint.client_options)
    assert sent(without.get(endpoint("/headers"))).keys() - {"host"} == set()
    assert sent(without.get(endpoint("/headers"), headers={"accept": "x/y"}))["accept"] == ["x/y"]


def test_headers_may_be_changed_in_place(clients: ClientMaker, endpoint: Endpoint) -> None:
    """The next request sees what was added, changed and deleted, the defaults too, in the quick way and the long one."""
    client = clients(**endpoint.client_options)
    url = endpoint("/headers")
    assert "x-a" not in sent(client.get(url))
    client.headers["X-A"] = "1"
    assert sent(client.get(url))["x-a"] == ["1"]
    client.headers["x-a"] = "2"
    client.headers["user-agent"] = "mine"
    assert (sent(client.get(url))["x-a"], sent(client.get(url))["user-agent"]) == (["2"], ["mine"])
    client.headers.update({"X-B": "b"})
    del client.headers["x-a"], client.headers["user-agent"], client.headers["accept"]
    for options in ({}, {"params": {"q": "1"}}):
        seen = sent(client.get(url, **options))
        assert seen.keys() - {"host"} == {"accept-encoding", "x-b"}


def test_headers_may_be_replaced(clients: ClientMaker, origin: Origin) -> None:
    """As in httpx: the defaults stay where the new ones do not name them."""
    client = clients(headers={"X-A": "1"})
    client.client.headers = {"X-B": "2", "Accept": "a/b"}
    seen = sent(client.get(f"{origin.strict_http}/headers"))
    assert "x-a" not in seen
    assert (seen["x-b"], seen["accept"]) == (["2"], ["a/b"])
    assert "user-agent" in seen


def test_headers_that_are_no_ascii(clients: ClientMaker, endpoint: Endpoint) -> None:
    """Text goes as UTF-8, bytes as they are; a response's are read as UTF-8 where they are, else as ISO-8859-1."""
    client = clients(**endpoint.client_options)
    seen = sent(client.get(endpoint("/headers"), headers={"x-text": "grün", "x-bytes": "grün".encode("latin-1")}))
    assert seen["x-text"] == ["grün".encode().decode("latin-1")]
    assert seen["x-bytes"] == ["grün"]
    assert client.get(endpoint("/set-headers", **{"x-a": "grün"})).headers["x-a"] == "grün"
    assert client.get(endpoint("/set-headers") + "?x-a=gr%FCn").headers["x-a"] == "grün"


REFUSED_HEADERS: list[Any] = [
    {"X-A": "a\r\nX-B: b"},
    {"X-A": "a\nb"},
    {"X-A": "a\0b"},
    {"X-A\r\nX-B": "b"},
    {"X A": "b"},
    {"": "b"},
    {":path": "/"},
    {"X-ä": "b"},
    {"X-A": 1},
    {"Content-Length": "5"},
    {"Transfer-Encoding": "gzip"},
    {"Connection": "upgrade"},
    [("Host", "a"), ("Host", "b")],
    [("X-A",)],
    "X-A: b",
    7,
]


@pytest.mark.parametrize("headers", REFUSED_HEADERS, ids=repr)
def test_headers_that_are_refused(clients: ClientMaker, origin: Origin, headers: Any) -> None:
    """BadOptions before anything is sent, whether they are the call's, the client's, or were put there in place."""
    name = origin.fresh_id()
    url = f"{origin.strict_http}/headers?id={name}"
    with pytest.raises(katipo.BadOptions, match="headers"):
        clients().get(url, headers=headers)
    with pytest.raises(katipo.BadOptions, match="headers"):
        clients(headers=headers).get(url)
    if isinstance(headers, dict) and all(isinstance(value, str) for value in headers.values()):
        client = clients()
        client.headers.update(headers)
        with pytest.raises(katipo.BadOptions, match="headers"):
            client.get(url)
        with pytest.raises(katipo.BadOptions, match="headers"), client.stream("GET", url):
            pass
    assert origin.journal(name).count == 0


def test_a_refused_value_is_not_shown(local: AnyClient) -> None:
    """The message names the header, never what was in it."""
    with pytest.raises(katipo.BadOptions) as caught:
        local.get("http://localhost/", headers={"Authorization": "Bearer tok\nen"})
    assert "Authorization" in str(caught.value)
    assert "tok" not in str(caught.value)


def test_the_host_header_may_be_the_callers(local: AnyClient, hostile: Hostile) -> None:
    """It is sent in the place of libcurl's, once."""
    server = hostile(serve(response(b"ok")))
    local.get(server.url, headers={"Host": "other.example"})
    head = server.peer(0).head
    assert head is not None
    assert head.get_all("host") == ["other.example"]


# Arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parms": {}}, "parms: did you mean params"),
        ({"allow_redirects": True}, "allow_redirects: did you mean follow_redirects"),
        ({"body": b""}, "body: did you mean content"),
        ({"proxies": {}}, "proxies: did you mean proxy"),
        ({"timeout_ms": 5}, "timeout_ms: did you mean timeout"),
        ({"verify": False}, "verify: it is the client's"),
        ({"no_such_thing": 1}, "no_such_thing: .* has no such argument"),
        ({"cookie": {}, "header": {}}, "cookie: did you mean cookies.*; header: did you mean headers"),
    ],
)
def test_unknown_arguments_are_named(local: AnyClient, options: dict[str, Any], message: str) -> None:
    """BadOptions, and TypeError as Python has it, with the nearest name; from each kind of call."""
    for error in (katipo.BadOptions, TypeError):
        with pytest.raises(error, match=message):
            local.get("http://localhost/", **options)
    with pytest.raises(katipo.BadOptions, match=message), local.stream("GET", "http://localhost/", **options):
        pass


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timeout": "5"}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"follow_redirects": "yes"}, "follow_redirects"),
        ({"max_response_bytes": -1}, "max_response_bytes"),
        ({"max_response_bytes": True}, "max_response_bytes"),
        ({"decode": 1}, "decode"),
        ({"proxy": 1}, "proxy"),
        ({"proxy": "gopher://x"}, "proxy"),
        ({"auth": "user:secret"}, "auth"),
        ({"auth": ("user",)}, "auth"),
        ({"cookies": "a=b"}, "cookies"),
        ({"cookies": {"a": 1}}, "cookies"),
        ({"cookies": {"a": "b; c"}}, "cookies"),
        ({"curl_options": []}, "curl_options"),
        ({"curl_options": {"NO_SUCH": 1}}, "NO_SUCH"),
        ({"params": 1}, "params"),
        ({"params": ["ab"]}, "params"),
        ({"params": {"a": "\ud800"}}, "params"),
    ],
)
def test_wrong_values_are_named(local: AnyClient, options: dict[str, Any], named: str) -> None:
    """The message says which argument it was, and never shows what may be a secret."""
    with pytest.raises(katipo.BadOptions, match=named) as caught:
        local.get("http://localhost/", **options)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"http1": False, "http2": False}, "http1, http2, http3"),
        ({"http2": 1}, "http2"),
        ({"trust_env": None}, "trust_env"),
        ({"limits": 5}, "limits"),
        ({"max_redirects": -1}, "max_redirects"),
        ({"max_redirects": True}, "max_redirects"),
        ({"event_hooks": {"requests": []}}, "event_hooks"),
        ({"event_hooks": {"request": print}}, "event_hooks"),
        ({"event_hooks": {"request": [1]}}, "event_hooks"),
        ({"default_encoding": "klingon"}, "default_encoding"),
        ({"default_encoding": None}, "default_encoding"),
        ({"pool": object()}, "pool"),
        ({"verify": "/no/such/file"}, "verify"),
        ({"verify": 1}, "verify"),
        ({"cert": 5}, "cert"),
        ({"tls": "1.3"}, "tls"),
        ({"auth": "x"}, "auth"),
        ({"workers": 0}, "workers"),
        ({"curl_options": {"URL": "http://x/"}}, "URL"),
        ({"params": 1}, "params"),
        ({"base_url": "http://localhost/?key=secret"}, "base_url"),
    ],
)
def test_wrong_arguments_of_a_client_are_named(clients: ClientMaker, options: dict[str, Any], named: str) -> None:
    """When it is made, not when it is used."""
    with pytest.raises(katipo.BadOptions, match=named):
        clients(**options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"base_url": "/api"}, katipo.UnsupportedProtocol),
        ({"base_url": "ftp://x/"}, katipo.UnsupportedProtocol),
        ({"base_url": "http://:80/"}, katipo.InvalidURL),
        ({"no_such": 1}, TypeError),
    ],
)
def test_wrong_urls_and_names_of_a_client(clients: ClientMaker, options: Any, error: type[Exception]) -> None:
    """The errors of URLs are those of requests; a name that is none is Python's own TypeError."""
    with pytest.raises(error):
        clients(**options)


# Its life


@pytest.mark.core
def test_a_closed_client_refuses(clients: ClientMaker, origin: Origin) -> None:
    """PoolClosed from every kind of call; closing again is no error."""
    client = clients()
    url = f"{origin.strict_http}/count"
    assert not client.client.is_closed
    assert client.get(url).status_code == 200
    client.close()
    client.close()
    assert client.client.is_closed
    assert repr(client.client).endswith(" closed>")
    for options in ({}, {"params": {"a": "1"}}):
        with pytest.raises(katipo.PoolClosed):
            client.get(url, **options)
    with pytest.raises(katipo.PoolClosed), client.stream("GET", url):
        pass


def _fail(answer: katipo.Response) -> None:
    assert answer.status_code == 200
    raise KeyError


def test_a_client_is_closed_by_its_block(origin: Origin) -> None:
    """Also when the block raises."""
    client = katipo.Client()
    with pytest.raises(KeyError), client:
        _fail(client.get(f"{origin.strict_http}/count"))
    assert client.is_closed


@pytest.mark.anyio
async def test_an_async_client_is_closed_by_its_block(origin: Origin) -> None:
    """Also when the block raises."""
    client = katipo.AsyncClient()
    with pytest.raises(KeyError):
        async with client:
            _fail(await client.get(f"{origin.strict_http}/count"))
    assert client.is_closed
