"""Event hooks of clients: when they are called and with what, what they may change, and what comes of those that raise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.hostile import response
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import Hostile
    from tests.support.clients import AnyClient, ClientMaker
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin


class Refused(Exception):
    """What a hook raises."""


def refuse(*_: object) -> None:
    raise Refused


def in_flight(client: AnyClient) -> int:
    """Requests of the client's pool that have not ended."""
    return client.client._session.pool.statistics().in_flight


@pytest.mark.core
@pytest.mark.parametrize("how", ["buffered", "stream"])
def test_hooks_are_called_in_order(clients: ClientMaker, endpoint: Endpoint, how: str) -> None:
    """For every hop: those of the request, those of 1xx responses, those of the response; plain functions and async ones."""
    calls: list[tuple[str, Any]] = []
    client = clients(follow_redirects=True, **endpoint.client_options)

    def note(name: str) -> Any:
        def hook(*args: Any) -> None:
            about = args[0]
            calls.append((name, about.status_code if isinstance(about, katipo.Response) else about.url.path))

        return hook

    client.client.event_hooks = {
        "request": [note("request 1"), client.hook(note("request 2"))],
        "informational": [client.hook(note("1xx"))],
        "response": [client.hook(note("response 1")), note("response 2")],
    }
    url = endpoint("/redirect/302", to="/interim")
    if how == "stream":
        with client.stream("GET", url) as streamed:
            assert streamed.read() == b"final"
    else:
        assert client.get(url).content == b"final"
    assert calls == [
        ("request 1", "/redirect/302"),
        ("request 2", "/redirect/302"),
        ("response 1", 302),
        ("response 2", 302),
        ("request 1", "/interim"),
        ("request 2", "/interim"),
        ("1xx", "/interim"),
        ("response 1", 200),
        ("response 2", 200),
    ]


def test_hooks_may_be_given_and_changed(clients: ClientMaker, origin: Origin) -> None:
    """As an argument, as a whole, and in place; without any, the quick way is taken again."""
    calls: list[int] = []
    client = clients(event_hooks={"response": [lambda _: calls.append(1)]})
    url = f"{origin.strict_http}/count"
    client.get(url)
    client.client.event_hooks["response"].append(lambda _: calls.append(2))
    client.get(url)
    assert calls == [1, 1, 2]
    client.client.event_hooks = {"request": [lambda _: calls.append(3)]}
    client.get(url)
    assert calls == [1, 1, 2, 3]
    client.client.event_hooks["request"].clear()
    client.get(url)
    client.client.event_hooks = None
    client.get(url)
    assert calls == [1, 1, 2, 3]
    assert client.client.event_hooks == {"request": [], "response": [], "informational": []}


def test_a_request_hook_may_change_headers(clients: ClientMaker, endpoint: Endpoint) -> None:
    """Add, replace and delete, of this request alone; what it cannot send is refused."""
    client = clients(headers={"X-A": "client"}, **endpoint.client_options)

    def change(request: katipo.Request) -> None:
        request.headers["X-A"] = "hook"
        request.headers["X-B"] = "hook"
        del request.headers["User-Agent"]

    client.client.event_hooks["request"].append(client.hook(change))
    seen = {name.lower(): value for name, value in client.get(endpoint("/headers")).json()["headers"]}
    assert (seen["x-a"], seen["x-b"]) == ("hook", "hook")
    assert "user-agent" not in seen
    assert client.headers["x-a"] == "client"
    client.client.event_hooks["request"].append(lambda request: request.headers.update({"X-C": "a\r\nb"}))
    with pytest.raises(katipo.BadOptions, match="X-C"):
        client.get(endpoint("/headers"))


def test_a_request_hook_sees_what_is_sent(clients: ClientMaker, origin: Origin) -> None:
    """Method, URL, cookies, auth, content; a streamed body shows that there is one."""
    seen: list[katipo.Request] = []
    client = clients(
        auth=("user", "secret"), cookies={"a": "1"}, params={"p": "1"}, event_hooks={"request": [seen.append]}
    )
    client.post(f"{origin.strict_http}/echo", json={"x": 1})
    client.post(f"{origin.strict_http}/echo", content=iter([b"x"]))
    first, second = seen
    assert (first.method, first.url.query, first.content) == ("POST", b"p=1", b'{"x":1}')
    assert first.headers["content-type"] == "application/json"
    assert first.headers["cookie"] == "a=1"
    assert first.headers["authorization"].startswith("Basic ")
    assert (second.content, second.is_streamed) == (None, True)
    assert "secret" not in repr(first)


def test_a_request_hook_that_raises_sends_nothing(clients: ClientMaker, origin: Origin) -> None:
    """Its own exception is what the caller sees, and later hooks are not called; a body is not begun."""
    calls: list[object] = []
    client = clients()
    client.client.event_hooks = {"request": [client.hook(refuse), calls.append]}
    name = origin.fresh_id()
    url = f"{origin.strict_http}/upload?id={name}"
    pieces = iter([b"a", b"b"])
    with pytest.raises(Refused):
        client.get(url)
    with pytest.raises(Refused):
        client.post(url, content=pieces)
    with pytest.raises(Refused), client.stream("GET", url):
        pass
    assert list(pieces) == [b"a", b"b"]
    assert calls == []
    assert origin.journal(name).count == 0
    client.client.event_hooks = None
    assert client.get(url).status_code == 200


def test_a_response_hook_that_raises_ends_the_request(clients: ClientMaker, endpoint: Endpoint, origin: Origin) -> None:
    """Its own exception is what the caller sees; a streamed response is cancelled, and the server sees that."""
    client = clients(**endpoint.client_options)
    client.client.event_hooks = {"response": [client.hook(refuse)]}
    with pytest.raises(Refused):
        client.get(endpoint("/count"))
    name = origin.fresh_id()
    with pytest.raises(Refused), client.stream("GET", endpoint("/hang", stage="body", id=name)):
        pass
    origin.journal(name, until="disconnected")
    wait_until(lambda: in_flight(client) == 0)
    client.client.event_hooks["response"].clear()
    assert client.get(endpoint("/count")).status_code == 200


def test_errors_by_a_hook(clients: ClientMaker, endpoint: Endpoint) -> None:
    """The usual use: every answer that is none raises; redirects do too, as in httpx."""
    client = clients(**endpoint.client_options)
    client.client.event_hooks["response"].append(client.hook(lambda answer: answer.raise_for_status()))
    assert client.get(endpoint("/status/204")).status_code == 204
    for status in (404, 500):
        with pytest.raises(katipo.HTTPStatusError, match=str(status)) as caught:
            client.get(endpoint(f"/status/{status}"))
        assert caught.value.response.status_code == status
        assert caught.value.response.content == b"status %d" % status


def test_a_response_hook_may_read(clients: ClientMaker, endpoint: Endpoint) -> None:
    """`read` and `aread` are there for buffered and streamed responses; what a hook has read can be read again."""
    client = clients(**endpoint.client_options)
    read: list[bytes] = []
    if client.face == "sync":

        def hook(answer: Any) -> None:
            read.append(answer.read())

        client.client.event_hooks["response"].append(hook)
    else:

        async def async_hook(answer: Any) -> None:
            read.append(await answer.aread())

        client.client.event_hooks["response"].append(async_hook)
    url = endpoint("/set-headers", **{"x-a": "1"})
    assert client.get(url).content == b"headers"
    with client.stream("GET", url) as streamed:
        assert streamed.read() == b"headers"
        assert b"".join(streamed.pieces("bytes", 3)) == b"headers"
        assert "".join(streamed.pieces("text")) == "headers"
    assert read == [b"headers"] * 2


def test_an_async_hook_needs_an_async_client(origin: Origin) -> None:
    """A blocking client says so, and leaves no coroutine behind that nobody awaited."""

    async def hook(_: object) -> None:
        raise AssertionError("it is not run")

    client = katipo.Client(trust_env=False, event_hooks={"request": [hook]})
    with client, pytest.raises(katipo.BadOptions, match="AsyncClient"):
        client.get(f"{origin.strict_http}/count")


# 1xx


@pytest.mark.core
@pytest.mark.parametrize("how", ["buffered", "stream"])
def test_early_hints(clients: ClientMaker, endpoint: Endpoint, how: str) -> None:
    """Each 103 with its own headers, in order, before the response is there."""
    seen: list[tuple[str, int, str | None]] = []
    client = clients(**endpoint.client_options)

    def note(request: katipo.Request, status: int, headers: katipo.Headers) -> None:
        seen.append((request.url.path, status, headers.get("link")))

    client.client.event_hooks["informational"].append(client.hook(note))
    wanted = [("/interim", 103, f"</style-{index}.css>; rel=preload") for index in range(3)]
    url = endpoint("/interim", n=3)
    if how == "stream":
        with client.stream("GET", url) as streamed:
            assert seen == wanted
            assert streamed.read() == b"final"
            answer = streamed.response
    else:
        answer = client.get(url)
        assert answer.content == b"final"
    assert seen == wanted
    assert answer.headers["x-final"] == "yes"
    assert "link" not in answer.headers
    assert answer.metrics.total_time > 0


def test_nobody_is_asked_about_1xx_without_a_hook(clients: ClientMaker, endpoint: Endpoint) -> None:
    """They are passed over."""
    assert clients(**endpoint.client_options).get(endpoint("/interim", n=3)).content == b"final"


def test_a_1xx_hook_that_raises_cancels(clients: ClientMaker, hostile: Hostile) -> None:
    """Its own exception is what the caller sees, while the server has not answered yet; it sees the client go."""
    server = hostile(
        [
            lambda peer: peer.read_request(),
            lambda peer: peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
            lambda peer: peer.wait_closed(),
        ]
    )
    client = clients()
    client.client.event_hooks = {"informational": [client.hook(refuse)]}
    with pytest.raises(Refused):
        client.get(server.url)
    server.peer(0).wait_closed()
    wait_until(lambda: in_flight(client) == 0)


def test_buffered_responses_are_whole_with_a_1xx_hook(clients: ClientMaker, web: Endpoint) -> None:
    """Decoded, bounded, with text and JSON, though they come as streams behind the scenes."""
    client = clients(max_response_bytes=2000, **web.client_options)
    client.client.event_hooks["informational"].append(lambda *_: None)
    assert client.get(web("/gzip")).json()["gzipped"] is True
    assert client.get(web("/gzip"), decode=False).content[:2] == b"\x1f\x8b"
    assert client.head(web("/get")).content == b""
    assert client.post(web("/anything"), content=b"abc").json()["data"] == "abc"
    with pytest.raises(katipo.ResponseTooLarge):
        client.get(web("/bytes/2001"))


def test_a_cut_response_is_an_error_with_a_1xx_hook(clients: ClientMaker, hostile: Hostile) -> None:
    """As without one: half a body is never taken for a whole one."""
    half = response(b"half", headers=[("Content-Length", "10")], length=False)
    server = hostile([lambda peer: peer.read_request(), lambda peer: peer.send(half), lambda peer: peer.close()])
    client = clients(event_hooks={"informational": [lambda *_: None]})
    with pytest.raises(katipo.RemoteProtocolError):
        client.get(server.url)
