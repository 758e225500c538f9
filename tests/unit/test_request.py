"""Requests as values, and the methods that can be sent."""

from __future__ import annotations

import copy
import pickle

import pytest

from katipo.errors import BadOptions, InvalidURL, UnsupportedProtocol
from katipo.headers import Headers
from katipo.request import Request, check_method, request_from_parts
from katipo.url import URL


def test_a_request_has_its_parts() -> None:
    """The method in upper case, the URL as URL, headers as Headers, content as bytes."""
    request = Request("post", "http://x", headers={"A": "b"}, content="ü")
    assert request.method == "POST"
    assert isinstance(request.url, URL)
    assert request.url == "http://x/"
    assert request.headers == Headers({"a": "b"})
    assert request.content == "ü".encode()
    assert Request("GET", URL("http://y/")).content is None


def test_content_is_copied() -> None:
    """Changing the caller's buffer does not change the request."""
    buffer = bytearray(b"abc")
    request = Request("POST", "http://x/", content=buffer)
    buffer[0] = 0
    assert request.content == b"abc"


def test_a_request_that_cannot_be_sent_cannot_be_made() -> None:
    """Method and URL are checked when it is made."""
    with pytest.raises(UnsupportedProtocol):
        Request("GET", "x")
    with pytest.raises(InvalidURL):
        Request("GET", "http://x:99999/")
    with pytest.raises(BadOptions):
        Request("G T", "http://x/")


def test_a_request_of_checked_parts_is_built_when_looked_at() -> None:
    """What the pool makes is the same as what is made by hand; a header of None is not there."""
    request = request_from_parts("GET", "http://x", [("A", "b"), ("Accept", None)], bytearray(b"c"))  # type: ignore[list-item]
    assert request.url == "http://x/"
    assert request.content == b"c"
    assert request.headers.multi_items() == [("a", "b")]
    assert request.headers is request.headers
    assert request_from_parts("GET", "http://x").headers == {}


def test_a_request_pickles_and_copies() -> None:
    """Also before anything of it has been looked at."""
    request = request_from_parts("PUT", "http://u:p@x/a?b", {"A": "b"}, b"c")
    for again in (pickle.loads(pickle.dumps(request)), copy.copy(request), copy.deepcopy(request)):
        assert (again.method, again.url, again.content) == ("PUT", "http://u:p@x/a?b", b"c")
        assert again.headers == {"a": "b"}


def test_the_repr_shows_no_secret() -> None:
    """Neither userinfo nor headers nor content."""
    request = Request("GET", "http://u:hunter2@x/a", headers={"authorization": "hunter2"}, content="hunter2")
    assert repr(request) == "<Request('GET', 'http://[secure]@x/a')>"


@pytest.mark.parametrize(
    ("method", "sent"), [("GET", b"GET"), ("get", b"GET"), ("PropFind", b"PROPFIND"), ("M-X", b"M-X")]
)
def test_a_method_is_sent_in_upper_case(method: str, sent: bytes) -> None:
    """As httpx does it."""
    assert check_method(method) == sent


@pytest.mark.parametrize("method", ["", "G T", "GET\r\nX: 1", "GET\0", "GÉT", "GET /", "CONNECT", "connect", 3, b"GET"])
def test_what_is_no_method_is_refused(method: str) -> None:
    """A method is a token, and CONNECT is no request."""
    with pytest.raises(BadOptions, match="method") as caught:
        check_method(method)
    assert caught.value.code == "bad_opts"


def test_trace_has_no_body() -> None:
    """RFC 9110 9.3.8."""
    assert check_method("TRACE") == b"TRACE"
    with pytest.raises(BadOptions, match="TRACE"):
        check_method("trace", has_body=True)
    with pytest.raises(BadOptions, match="TRACE"):
        Request("TRACE", "http://x/", content=b"")
