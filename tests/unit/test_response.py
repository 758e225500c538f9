"""Responses, made by hand and from the engine's parts."""

from __future__ import annotations

import copy
import pickle
import struct
from datetime import timedelta

import pytest

from katipo.cookies import CookieJar
from katipo.errors import HTTPStatusError, ResponseNotRead
from katipo.headers import Headers
from katipo.metrics import METRICS_FORMAT, Metrics
from katipo.request import Request
from katipo.response import Response, adopt_response, complete_response, response_from_engine

REQUEST = Request("GET", "http://u:hunter2@example.com/a")
METRICS = struct.pack(METRICS_FORMAT, 250_000, 0, 0, 0, 0, 0, 0, 1_000_000, 1, 2, 1, 80, 4000, b"127.0.0.1")
COOKIE = b"example.com\tFALSE\t/\tFALSE\t0\tsid\thunter2"


def from_engine(
    status: int = 200, block: bytes = b"HTTP/1.1 200 OK\r\n\r\n", content: bytes = b"", url: bytes | None = None
) -> Response:
    return response_from_engine(REQUEST, status, block, content, b"", (COOKIE,), url, METRICS)


def typed(content_type: str, content: bytes) -> Response:
    return Response(200, headers={"Content-Type": content_type}, content=content)


def test_the_engines_parts_become_a_response() -> None:
    """Headers, trailers, cookies, URL and metrics are taken apart when looked at."""
    block = b"HTTP/1.1 201 Made: here\r\nContent-Type: text/plain\r\nSet-Cookie: a=b; Path=/\r\n\r\n"
    response = response_from_engine(REQUEST, 201, block, b"hi", b"X-Sum: 1\r\n", (COOKIE,), b"http://y/z", METRICS)
    assert (response.status_code, response.reason_phrase, response.http_version) == (201, "Made: here", "HTTP/1.1")
    assert response.headers["content-type"] == "text/plain"
    assert response.headers is response.headers
    assert (response.content, response.text) == (b"hi", "hi")
    assert response.trailers == {"x-sum": "1"}
    assert response.cookies == {"a": "b"}
    assert response.cookiejar == CookieJar([COOKIE])
    assert response.url == "http://y/z"
    assert response.request is REQUEST
    assert response.metrics.primary_ip == "127.0.0.1"
    assert response.elapsed == timedelta(seconds=1.25)
    assert response.history == []


@pytest.mark.parametrize(
    ("block", "version", "reason"),
    [
        (b"HTTP/2 200\r\n\r\n", "HTTP/2", "OK"),
        (b"HTTP/3 200 \r\n\r\n", "HTTP/3", "OK"),
        (b"HTTP/1.0 200 Fine by me\r\n\r\n", "HTTP/1.0", "Fine by me"),
        (b"HTTP/1.1 200\r\n\r\n", "HTTP/1.1", "OK"),
        (b"HTTP/1.1 200 f\xfcr\n\n", "HTTP/1.1", "für"),
    ],
)
def test_version_and_reason_come_from_the_status_line(block: bytes, version: str, reason: str) -> None:
    """Where the line has no reason, the standard phrase stands in."""
    response = from_engine(block=block)
    assert (response.http_version, response.reason_phrase) == (version, reason)


def test_an_effective_url_left_out_is_the_requests() -> None:
    """Nothing was redirected."""
    assert from_engine().url is REQUEST.url


def test_a_response_can_be_made_by_hand() -> None:
    """With nothing, with content, with text, with JSON."""
    empty = Response(204)
    assert (empty.content, empty.text, empty.http_version, empty.reason_phrase) == (b"", "", "HTTP/1.1", "No Content")
    assert empty.trailers == {}
    assert (empty.metrics, empty.elapsed) == (Metrics(), timedelta(0))
    assert (empty.cookiejar, empty.history, empty.cookies) == (None, [], {})
    assert Response(200, content="ü").content == "ü".encode()
    assert Response(200, text="ü").headers["content-type"] == "text/plain; charset=utf-8"
    made = Response(200, json={"a": ["ü"]})
    assert (made.json(), made.headers["content-type"]) == ({"a": ["ü"]}, "application/json")
    assert Response(200, headers={"content-type": "text/x"}, text="a").headers["content-type"] == "text/x"
    with pytest.raises(TypeError, match="only one"):
        Response(200, text="a", json={})


def test_a_response_without_a_request_says_so() -> None:
    """The request may be set later."""
    response = Response(200)
    with pytest.raises(RuntimeError, match="without a request"):
        _ = response.url
    response.request = REQUEST
    assert response.url == REQUEST.url


@pytest.mark.parametrize(
    ("content_type", "content", "text"),
    [
        ("text/plain", b"\xc3\xbc", "ü"),
        ("text/plain", b"\xfc", "\ufffd"),
        ("text/plain; charset=iso-8859-1", b"\xfc", "ü"),
        ('text/plain;Charset="ISO-8859-1"', b"\xfc", "ü"),
        ("text/plain; a=b; charset = utf-16", "ü".encode("utf-16"), "ü"),
        ("text/plain; charset=nonsense", b"\xc3\xbc", "ü"),
        ("text/plain; charset=base64", b"\xc3\xbc", "ü"),
        ("text/plain; charset=idna", b"\xc3\xbc", "ü"),
        ("text/plain; charset=", b"\xc3\xbc", "ü"),
        ("", b"\xc3\xbc", "ü"),
    ],
)
def test_text_follows_the_content_types_charset(content_type: str, content: bytes, text: str) -> None:
    """UTF-8 where there is none, or none that makes text; never an error."""
    assert typed(content_type, content).text == text


def test_the_encoding_can_be_set_before_text_is_read() -> None:
    """Afterwards it would change nothing any more."""
    response = typed("text/plain", b"\xfc")
    assert response.encoding == "utf-8"
    response.encoding = "latin-1"
    assert response.text == "ü"
    with pytest.raises(ValueError, match="before text is read"):
        response.encoding = "ascii"
    with pytest.raises(LookupError, match="nonsense"):
        Response(200).encoding = "nonsense"


def test_json_reads_utf_16_and_refuses_what_is_none() -> None:
    """The encodings of RFC 4627; a ValueError otherwise."""
    assert Response(200, content='{"a": 1}'.encode("utf-16")).json() == {"a": 1}
    assert Response(200, content=b"1.5").json(parse_float=str) == "1.5"
    with pytest.raises(ValueError, match="Expecting value"):
        Response(200).json()


@pytest.mark.parametrize(
    ("status", "true"),
    [
        (100, {"is_informational"}),
        (200, {"is_success"}),
        (299, {"is_success"}),
        (304, {"is_redirect"}),
        (404, {"is_client_error", "is_error"}),
        (500, {"is_server_error", "is_error"}),
        (600, set[str]()),
    ],
)
def test_the_status_says_what_kind_it_is(status: int, true: set[str]) -> None:
    """One kind for each hundred; errors are 4xx and 5xx."""
    names = ["is_informational", "is_success", "is_redirect", "is_client_error", "is_server_error", "is_error"]
    assert {name for name in names if getattr(Response(status), name)} == true


def test_raise_for_status_returns_a_success() -> None:
    """The response itself, for chaining."""
    response = Response(204, request=REQUEST)
    assert response.raise_for_status() is response


@pytest.mark.parametrize(
    ("status", "start"),
    [
        (101, "Informational response '101 Switching Protocols'"),
        (304, "Redirect response '304 Not Modified'"),
        (404, "Client error '404 Not Found'"),
        (503, "Server error '503 Service Unavailable'"),
        (999, "Unexpected status '999'"),
    ],
)
def test_raise_for_status_raises_outside_2xx(status: int, start: str) -> None:
    """The message says what and where, without userinfo."""
    response = Response(status, request=REQUEST)
    with pytest.raises(HTTPStatusError) as caught:
        response.raise_for_status()
    assert str(caught.value) == f"{start} for url 'http://[secure]@example.com/a'"
    assert caught.value.response is response
    assert caught.value.request is REQUEST


def test_a_redirects_error_says_where_to_and_a_request_is_not_needed() -> None:
    """The location's userinfo is hidden as well."""
    response = Response(302, headers={"location": "http://u:hunter2@y/"})
    assert response.has_redirect_location
    with pytest.raises(HTTPStatusError) as caught:
        response.raise_for_status()
    assert str(caught.value) == "Redirect response '302 Found'\nRedirect location: 'http://[secure]@y/'"
    assert caught.value.request is None


def test_a_response_whose_body_has_not_ended_has_no_end_yet() -> None:
    """Headers are there; content, trailers and metrics come with the end."""
    response = response_from_engine(REQUEST, 200, b"HTTP/2 200\r\nA: b\r\n\r\n", None, None, None, None, None)
    assert response.headers == {"a": "b"}
    assert response.cookiejar is None
    for name in ("content", "text", "trailers", "metrics", "elapsed"):
        with pytest.raises(ResponseNotRead):
            getattr(response, name)
    complete_response(response, content=b"x", trailers=b"T: 1\r\n", metrics=METRICS)
    assert (response.text, response.trailers) == ("x", Headers({"t": "1"}))
    assert response.metrics.total_time == 1.0


def test_a_clients_response_has_history_and_no_cookiejar() -> None:
    """And the client's default encoding."""
    response, first = from_engine(content=b"\xfc"), Response(302)
    adopt_response(response, history=[first], default_encoding="latin-1")
    assert (response.history, response.cookiejar, response.text) == ([first], None, "ü")


def test_a_response_pickles_and_copies() -> None:
    """Before and after it was looked at."""
    response = from_engine(block=b"HTTP/1.1 200 Good\r\nA: b\r\n\r\n", content=b"x")
    for again in (pickle.loads(pickle.dumps(response)), copy.deepcopy(response)):
        assert (again.headers["a"], again.text, again.reason_phrase) == ("b", "x", "Good")
        assert again.cookiejar == response.cookiejar
        assert pickle.loads(pickle.dumps(again)).text == "x"


def test_the_repr_shows_the_status_only() -> None:
    """No URL, no header, no body."""
    assert repr(from_engine(content=b"hunter2")) == "<Response [200 OK]>"
    assert repr(Response(999)) == "<Response [999]>"
