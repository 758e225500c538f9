"""Header fields in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import katipo

if TYPE_CHECKING:
    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.hostile import Peer
    from tests.support.origin import Origin


def sent(pool: katipo.Pool, endpoint: Endpoint, headers: Any, path: str = "/headers") -> list[tuple[str, str]]:
    """The fields that the server got, in order, names in lower case."""
    response = pool.get(endpoint(path), headers=headers, **endpoint.options)
    assert response.http_version == endpoint.http_version
    return [(name.lower(), value) for name, value in response.json()["headers"]]


def values(fields: list[tuple[str, str]], name: str) -> list[str]:
    """The values of one name, in order."""
    return [value for each, value in fields if each == name]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-One": "1", "X-Two": "2"},
        {b"X-One": b"1", b"X-Two": b"2"},
        [("X-One", "1"), (b"X-Two", b"2")],
        katipo.Headers({"X-One": "1", "X-Two": "2"}),
        iter([("X-One", "1"), ("X-Two", "2")]),
    ],
    ids=["mapping", "bytes", "pairs", "Headers", "iterator"],
)
def test_headers_are_added_in_every_form(pool: katipo.Pool, origin: Origin, headers: Any) -> None:
    """A mapping, pairs, str or bytes: the fields arrive."""
    seen = pool.get(origin.strict_http + "/headers", headers=headers).json()["headers"]
    found = {name.lower(): value for name, value in seen}
    assert (found["x-one"], found["x-two"]) == ("1", "2")


def test_added_headers_reach_the_server(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A header with its value, text beyond ASCII as UTF-8."""
    fields = sent(pool, endpoint, {"X-Plain": 'a, b; c="d"', "X-Text": "é€"})
    assert values(fields, "x-plain") == ['a, b; c="d"']
    assert values(fields, "x-text") == ["é€".encode().decode("latin-1")]


def test_default_headers(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A plain request says who asks and what it takes, once each, and no more."""
    fields = sent(pool, endpoint, None)
    assert values(fields, "user-agent") == [f"katipo/{katipo.__version__}"]
    assert values(fields, "accept") == ["*/*"]
    assert {part.strip() for part in values(fields, "accept-encoding")[0].split(",")} == {"gzip", "deflate", "br"}
    assert {name for name, _ in fields} <= {"host", ":authority", "user-agent", "accept", "accept-encoding"}


@pytest.mark.parametrize("name", ["User-Agent", "Accept", "Accept-Encoding", "user-agent"])
def test_a_default_header_is_replaced(pool: katipo.Pool, endpoint: Endpoint, name: str) -> None:
    """A caller's field takes the place of the default one, whatever its case."""
    assert values(sent(pool, endpoint, {name: "mine"}), name.lower()) == ["mine"]


@pytest.mark.parametrize("name", ["User-Agent", "Accept", "Accept-Encoding"])
def test_a_default_header_is_removed_by_none(pool: katipo.Pool, endpoint: Endpoint, name: str) -> None:
    """None says that a field is not to be sent at all."""
    assert values(sent(pool, endpoint, {name: None}), name.lower()) == []


@pytest.mark.parametrize("name", ["X-Empty", "User-Agent", "Accept"])
def test_an_empty_value_is_sent_empty(pool: katipo.Pool, endpoint: Endpoint, name: str) -> None:
    """An empty str is a field with no value, not the lack of one."""
    assert values(sent(pool, endpoint, {name: ""}), name.lower()) == [""]


def test_repeated_request_headers_are_sent_in_order(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Pairs may repeat a name; every one is sent."""
    fields = sent(pool, endpoint, [("X-Many", "1"), ("X-Other", "x"), ("x-many", "2"), ("X-Many", "3")])
    assert values(fields, "x-many") == ["1", "2", "3"]


def test_repeated_response_headers_keep_their_order(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A response's fields are all there, joined by `[]` and one by one in `get_list`."""
    response = pool.get(endpoint("/set-headers") + "?x-many=1&x-other=o&x-many=2&X-Many=3", **endpoint.options)
    assert response.headers.get_list("X-MANY") == ["1", "2", "3"]
    assert response.headers["x-many"] == "1, 2, 3"
    mine = [name for name, _ in response.headers.multi_items() if name.startswith("x-")]
    assert mine == ["x-many", "x-other", "x-many", "x-many"]


def test_host_may_be_chosen(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A Host header of the caller's names another host to the same server."""
    fields = sent(pool, endpoint, {"Host": "other.example"})
    assert [value for name, value in fields if name in ("host", ":authority")] == ["other.example"]


def test_a_real_server_gets_and_gives_headers(pool: katipo.Pool, web: Endpoint) -> None:
    """httpbin behind a proxy sees what was added and sends what was asked for."""
    seen = pool.get(web("/headers"), headers={"X-Added": "yes"}, **web.options)
    assert seen.json()["headers"]["X-Added"] == "yes"
    given = pool.get(web("/response-headers") + "?X-Given=1&X-Given=2", **web.options)
    assert given.headers.get_list("x-given") == ["1", "2"]


def test_a_large_header_each_way(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Fields of some kilobytes arrive whole in both directions."""
    value = "v" * 4000
    assert values(sent(pool, endpoint, {"X-Large": value}), "x-large") == [value]
    response = pool.get(endpoint("/set-headers") + f"?x-large={value}", **endpoint.options)
    assert response.headers["x-large"] == value


def test_informational_responses_leave_no_trace(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """1xx blocks are not part of the response that follows them."""
    response = pool.get(endpoint("/interim", status=103, n=3), **endpoint.options)
    assert (response.status_code, response.content) == (200, b"final")
    assert response.headers["x-final"] == "yes"
    assert "link" not in response.headers


def test_trailers_of_a_buffered_response(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Trailer fields come after the body, apart from the headers."""
    response = pool.get(endpoint("/trailers", n=2, size=1000), **endpoint.options)
    assert len(response.content) == 1000
    assert response.trailers.multi_items() == [("x-trailer-1", "value-1"), ("x-trailer-2", "value-2")]
    assert "x-trailer-1" not in response.headers


def test_a_response_without_trailers_has_none(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """`trailers` is empty where the server sent none."""
    assert len(pool.get(endpoint("/count"), **endpoint.options).trailers) == 0


ODD = (
    b"HTTP/1.1 200 Quite\xfc fine\r\n"
    b"X-Nospace:value\r\n"
    b"X-Padded: \t padded \t \r\n"
    b"X-Empty:\r\n"
    b"X-Latin: caf\xe9\r\n"
    b"X-Folded: one\r\n two\r\n"
    b"CONTENT-LENGTH: 2\r\n\r\nok"
)


def test_odd_but_legal_response_headers(pool: katipo.Pool, hostile: Hostile) -> None:
    """No space after the colon, padding, no value, Latin-1, a folded line: all are read."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(ODD)

    response = pool.get(hostile(script).url)
    assert response.content == b"ok"
    assert response.headers["x-nospace"] == "value"
    assert response.headers["x-padded"] == "padded"
    assert response.headers["x-empty"] == ""
    assert response.headers["x-latin"] == "café"
    assert response.headers["x-folded"] == "one two"
    assert response.reason_phrase == "Quiteü fine"


def test_field_names_keep_their_case_on_http1(pool: katipo.Pool, hostile: Hostile) -> None:
    """What goes out on HTTP/1.1 is spelled as the caller spelled it."""
    lines: list[str] = []

    def script(peer: Peer) -> None:
        lines.extend(name for name, _ in peer.read_head().headers)
        peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    pool.get(hostile(script).url, headers={"x-MiXed-Case": "1"})
    assert "x-MiXed-Case" in lines


@pytest.mark.parametrize(
    "block",
    [b"X-Huge: " + b"h" * 150_000 + b"\r\n", b"".join(b"X-%d: 1\r\n" % n for n in range(6000))],
    ids=["one header", "many headers"],
)
def test_headers_without_bounds_end_the_request(pool: katipo.Pool, hostile: Hostile, block: bytes) -> None:
    """A server cannot fill memory with header fields: beyond libcurl's limits the request fails."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\n" + block + b"Content-Length: 0\r\n\r\n")

    server = hostile(script)
    server.ignore_errors()
    with pytest.raises((katipo.ResponseTooLarge, katipo.ReadError)) as caught:
        pool.get(server.url)
    assert caught.value.code in ("too_large", "recv_error")
