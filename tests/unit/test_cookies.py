"""Cookies as values."""

from __future__ import annotations

import copy
import pickle

import pytest

from katipo.cookies import CookieJar, ResponseCookies, cookie_lines, jar_from_lines, parse_set_cookie, response_cookies
from katipo.errors import BadOptions

LINE = b"#HttpOnly_example.com\tFALSE\t/\tTRUE\t0\tsid\thunter2"


def test_a_jar_keeps_its_lines() -> None:
    """In order, and as they came."""
    assert cookie_lines(CookieJar([LINE, LINE])) == (LINE, LINE)
    assert len(CookieJar([LINE])) == 1
    assert not CookieJar()


@pytest.mark.parametrize("line", [b"", b"ALL", b"SESS", b"FLUSH", b"Set-Cookie: a=b", LINE + b"\nALL", LINE + b"\tx"])
def test_a_line_that_is_no_cookie_is_refused_without_showing_it(line: bytes) -> None:
    """libcurl would take some of them as commands."""
    with pytest.raises(BadOptions, match="cookiejar") as caught:
        CookieJar([line])
    assert "hunter2" not in repr(caught.value)


def test_the_repr_shows_how_many_and_no_value() -> None:
    """Neither names nor values nor hosts."""
    assert repr(CookieJar()) == "<CookieJar [0 cookies]>"
    assert repr(CookieJar([LINE])) == "<CookieJar [1 cookie]>"


def test_jars_are_values() -> None:
    """Equal with the same cookies, hashable, picklable, not to be changed."""
    jar = CookieJar([LINE])
    assert jar == jar_from_lines((LINE,)) == pickle.loads(pickle.dumps(jar)) == copy.copy(jar)
    assert jar != CookieJar()
    assert jar != (LINE,)
    assert len({jar, CookieJar([LINE])}) == 1
    with pytest.raises(AttributeError):
        jar.other = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("a=b", ("a", "b")),
        ("a=b; Path=/; HttpOnly", ("a", "b")),
        (" a = b=c ; x", ("a", "b=c")),
        ('a="q"', ("a", '"q"')),
        ("a=", ("a", "")),
        ("a", None),
        ("=b", None),
        ("; a=b", None),
        ("", None),
    ],
)
def test_a_set_cookie_header_is_read_as_in_rfc_6265(header: str, expected: tuple[str, str] | None) -> None:
    """Section 5.2: the first pair counts, a header without a name or a "=" does not."""
    assert parse_set_cookie(header) == expected


def test_of_cookies_with_one_name_the_last_counts() -> None:
    """A mapping of names to values whose repr has no values."""
    cookies = response_cookies(["a=hunter1; Path=/x", "b=2", "a=hunter2", "nonsense"])
    assert cookies == {"a": "hunter2", "b": "2"}
    assert isinstance(cookies, ResponseCookies)
    assert f"{cookies!r} {cookies}" == "<ResponseCookies [a, b]> <ResponseCookies [a, b]>"
    assert type(pickle.loads(pickle.dumps(cookies))) is ResponseCookies
