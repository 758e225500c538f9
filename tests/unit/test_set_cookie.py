"""Reading Set-Cookie fields, dates, domains and paths as RFC 6265bis has it."""

from __future__ import annotations

import calendar
import subprocess
import sys
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katipo._set_cookie import (
    MAX_AGE,
    PAST,
    SetCookie,
    default_path,
    domain_matches,
    domains_of,
    is_address,
    is_public_suffix,
    parse_date,
    parse_set_cookie,
    path_matches,
)

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z


def read(line: str | bytes) -> SetCookie:
    parsed = parse_set_cookie(line.encode() if isinstance(line, str) else line, NOW)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        ("foo=bar", ("foo", "bar")),
        ("foo=bar;", ("foo", "bar")),
        (" foo = bar ; Secure", ("foo", "bar")),
        ("\tfoo\t=\tbar\t", ("foo", "bar")),
        ("foo=bar=baz", ("foo", "bar=baz")),
        ("foo=", ("foo", "")),
        ("foo", ("", "foo")),
        ("=bar", ("", "bar")),
        ("foo=a b  c", ("foo", "a b  c")),
        ("foo=a\tb", ("foo", "a\tb")),
        ('foo="bar"', ("foo", '"bar"')),
        ('foo="a;b"', ("foo", '"a')),
        ("foo=a,b", ("foo", "a,b")),
        ("foo=%3B%0A", ("foo", "%3B%0A")),
        ("f@o(o)=b", ("f@o(o)", "b")),
        ("föö=bär", ("föö", "bär")),
        ("Secure", ("", "Secure")),
        ("Path=/x; Secure", ("Path", "/x")),
    ],
)
def test_name_and_value(line: str, pair: tuple[str, str]) -> None:
    """5.6: up to the first semicolon, at the first equals sign, white space around taken off, quotes kept."""
    cookie = read(line)
    assert (cookie.name, cookie.value) == pair


@pytest.mark.parametrize(
    "line", [b"", b"=", b" = ; Secure", b";", b"; foo=bar", b"   ", b"foo=b\xffr", b"f\xe9=bar", b"=\xff"]
)
def test_what_has_no_name_and_no_value_or_cannot_be_sent_back_is_ignored(line: bytes) -> None:
    """Bytes that are no UTF-8 would come back as others."""
    assert parse_set_cookie(line, NOW) is None


@pytest.mark.parametrize("code", [*range(0x20), 0x7F])
@pytest.mark.parametrize("line", ["f{}o=bar", "foo=b{}r", "foo=bar; Pa{}th=/", "foo=bar; Path=/{}"])
def test_control_characters_spoil_the_whole_field_but_for_the_tab(code: int, line: str) -> None:
    """Wherever they stand."""
    assert (parse_set_cookie(line.format(chr(code)).encode(), NOW) is not None) == (code == 9)


@pytest.mark.parametrize(
    ("name", "value", "kept"), [(1, 4095, True), (4096, 0, True), (0, 4096, True), (1, 4096, False), (4096, 1, False)]
)
def test_name_and_value_together_have_at_most_4096_bytes(name: int, value: int, kept: bool) -> None:
    """White space around them does not count."""
    line = b" " * 20 + b"n" * name + b" = " + b"v" * value + b"   ; Secure"
    assert (parse_set_cookie(line, NOW) is not None) == kept


def test_bytes_are_counted_and_not_characters() -> None:
    """2048 characters of two bytes each fill it."""
    assert parse_set_cookie(b"a=" + "é".encode() * 2047, NOW) is not None
    assert parse_set_cookie(b"a=" + "é".encode() * 2048, NOW) is None


def test_an_attribute_that_is_too_long_is_ignored_alone() -> None:
    """1024 bytes are not too long."""
    just = "/" + "x" * 1023
    assert read(f"a=b; Path={just}").path == just
    parsed = read(f"a=b; Path={just}x; Secure; Domain={'d' * 1025}")
    assert parsed.path is None
    assert not parsed.has_path
    assert parsed.domain is None
    assert parsed.secure
    assert read(f"a=b; Path=/short; Path={just}x").path == "/short"


@pytest.mark.parametrize(
    ("attributes", "expires"),
    [
        ("", None),
        ("Max-Age=60", NOW + 60),
        ("mAX-aGE = 60 ", NOW + 60),
        ("Max-Age=0", PAST),
        ("Max-Age=-1", PAST),
        ("Max-Age=-999999999999999999999", PAST),
        ("Max-Age=007", NOW + 7),
        ("Max-Age=", None),
        ("Max-Age", None),
        ("Max-Age=-", None),
        ("Max-Age=+60", None),
        ("Max-Age=60s", None),
        ("Max-Age=1.5", None),
        ('Max-Age="60"', None),
        ("Max-Age=6 0", None),
        ("Max-Age=\u0666", None),
        (f"Max-Age={MAX_AGE}", NOW + MAX_AGE),
        (f"Max-Age={MAX_AGE + 1}", NOW + MAX_AGE),
        ("Max-Age=" + "9" * 1024, NOW + MAX_AGE),
        ("Max-Age=60; Max-Age=70", NOW + 70),
        ("Max-Age=60; Max-Age=x", NOW + 60),
        ("Expires=Tue, 14 Nov 2023 22:14:20 GMT", NOW + 60),
        ("Expires=Tue, 14 Nov 2023 22:14:20 GMT; Expires=nonsense", NOW + 60),
        ("Expires=Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Expires=Fri, 31 Dec 9999 23:59:59 GMT", NOW + MAX_AGE),
        ("Expires=nonsense", None),
        ("Expires=Tue, 14 Nov 2023 22:14:20 GMT; Max-Age=5", NOW + 5),
        ("Max-Age=5; Expires=Thu, 01 Jan 1970 00:00:00 GMT", NOW + 5),
        ("Max-Age=x; Expires=Tue, 14 Nov 2023 22:14:20 GMT", NOW + 60),
    ],
)
def test_expiry(attributes: str, expires: float | None) -> None:
    """Max-Age before Expires, the last that can be read, 400 days at most."""
    assert read(f"a=b; {attributes}").expires == expires


@pytest.mark.parametrize(
    ("attributes", "domain"),
    [
        ("", None),
        ("Domain=Example.COM", "example.com"),
        ("Domain=.example.com", "example.com"),
        ("Domain=..example.com", ".example.com"),
        ("Domain=", None),
        ("Domain=.", None),
        ("Domain", None),
        ("domain = example.com ", "example.com"),
        ("Domain=a.example; Domain=b.example", "b.example"),
        ("Domain=a.example; Domain=", None),
        ("Domain=example.com:80", "example.com:80"),
    ],
)
def test_the_domain(attributes: str, domain: str | None) -> None:
    """Without its leading dot, in lower case; the last one counts, an empty one too."""
    assert read(f"a=b; {attributes}").domain == domain


def test_a_domain_that_is_not_ascii_spoils_the_field_if_it_counts() -> None:
    """5.7, step 8."""
    assert parse_set_cookie("a=b; Domain=münchen.example".encode(), NOW) is None
    assert read("a=b; Domain=münchen.example; Domain=x.example").domain == "x.example"


@pytest.mark.parametrize(
    ("attributes", "path", "has_path"),
    [
        ("", None, False),
        ("Path=/", "/", True),
        ("PATH=/Foo/", "/Foo/", True),
        ("Path=foo", None, True),
        ("Path=", None, True),
        ("Path", None, True),
        ('Path="/foo"', None, True),
        ("Path=/a; Path=/b", "/b", True),
        ("Path=/a; Path=b", None, True),
        ("Path=/a=b", "/a=b", True),
        ("Path=/a b", "/a b", True),
    ],
)
def test_the_path(attributes: str, path: str | None, has_path: bool) -> None:
    """What does not begin with a slash is the default path."""
    parsed = read(f"a=b; {attributes}")
    assert (parsed.path, parsed.has_path) == (path, has_path)


@pytest.mark.parametrize(
    ("attributes", "flags"),
    [
        ("", (False, False, "Default")),
        ("Secure", (True, False, "Default")),
        (" sEcURe ", (True, False, "Default")),
        ("Secure=false", (True, False, "Default")),
        ("Secured", (False, False, "Default")),
        ("HttpOnly", (False, True, "Default")),
        ("httponly=x;secure", (True, True, "Default")),
        ("SameSite=Strict", (False, False, "Strict")),
        ("samesite=LAX", (False, False, "Lax")),
        ("SameSite=none", (False, False, "None")),
        ("SameSite", (False, False, "Default")),
        ("SameSite=Later", (False, False, "Default")),
        ("SameSite=Lax; SameSite=Strict", (False, False, "Strict")),
        ("SameSite=Lax; SameSite=what", (False, False, "Default")),
        ("Priority=High; Partitioned;;= ;=x; Version=1", (False, False, "Default")),
    ],
)
def test_flags(attributes: str, flags: tuple[bool, bool, str]) -> None:
    """In any case of letters; a flag's value means nothing; unknown attributes neither."""
    parsed = read(f"a=b; {attributes}")
    assert (parsed.secure, parsed.http_only, parsed.same_site) == flags


@given(st.binary(max_size=300))
def test_no_field_is_an_error(line: bytes) -> None:
    """Whatever bytes it has; and what is read keeps the rules."""
    parsed = parse_set_cookie(line, NOW)
    if parsed is not None:
        assert parsed.name or parsed.value
        assert ";" not in parsed.name + parsed.value
        assert "=" not in parsed.name
        assert not any(ord(c) < 32 and c != "\t" for c in parsed.name + parsed.value)
        assert parsed.path is None or parsed.path.startswith("/")
        assert parsed.expires is None or parsed.expires <= NOW + MAX_AGE


_PARTS = st.sampled_from(
    [
        "a=b",
        "a",
        "=",
        ";",
        " ",
        "Domain=",
        "Path=/",
        "Secure",
        "Max-Age=1",
        "SameSite=None",
        "Expires=",
        "1 Jan 2000 1:1:1",
    ]
)


@given(st.lists(_PARTS, max_size=12).map("".join))
def test_no_mixture_of_what_fields_are_made_of_is_an_error(line: str) -> None:
    """Closer to real fields than any bytes."""
    parse_set_cookie(line.encode(), NOW)


# ------------------------------------------------------------------------------------------------------- dates


def utc(*parts: int) -> float:
    return datetime(*parts, tzinfo=timezone.utc).timestamp()  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wed, 09 Jun 2021 10:18:14 GMT", utc(2021, 6, 9, 10, 18, 14)),
        ("Wednesday, 09-Jun-21 10:18:14 GMT", utc(2021, 6, 9, 10, 18, 14)),
        ("Wed Jun  9 10:18:14 2021", utc(2021, 6, 9, 10, 18, 14)),
        ("2021 jUNe 9 10:18:14", utc(2021, 6, 9, 10, 18, 14)),
        ("10:18:14 9 2021 June", utc(2021, 6, 9, 10, 18, 14)),
        ("9th Jun 2021 1:2:3", utc(2021, 6, 9, 1, 2, 3)),
        ("09 Jun 2021 10:18:14.123", utc(2021, 6, 9, 10, 18, 14)),
        ("09 Jun 2021z 10:18:14z", utc(2021, 6, 9, 10, 18, 14)),
        ("09 Jun 70 00:00:00", utc(1970, 6, 9, 0, 0, 0)),
        ("09 Jun 99 00:00:00", utc(1999, 6, 9, 0, 0, 0)),
        ("09 Jun 69 00:00:00", utc(2069, 6, 9, 0, 0, 0)),
        ("09 Jun 00 00:00:00", utc(2000, 6, 9, 0, 0, 0)),
        ("1 1 Jan 5 00:00:00", None),
        ("1 Jan 1601 00:00:00", utc(1601, 1, 1, 0, 0, 0)),
        ("31 Dec 1600 23:59:59", None),
        ("1 Jan 999 00:00:00", None),
        ("29 Feb 2020 00:00:00", utc(2020, 2, 29, 0, 0, 0)),
        ("29 Feb 2021 00:00:00", None),
        ("31 Apr 2021 00:00:00", None),
        ("0 Jan 2021 00:00:00", None),
        ("32 Jan 2021 00:00:00", None),
        ("1 Jan 2021 24:00:00", None),
        ("1 Jan 2021 23:60:00", None),
        ("1 Jan 2021 23:59:60", None),
        ("1 Jan 20211 00:00:00", None),
        ("1 Jan 2021", None),
        ("1 Jan 2021 00:00", None),
        ("1 Jan 00:00:00", None),
        ("Jan 2021 00:00:00", None),
        ("1 2021 00:00:00", None),
        ("001 Jan 2021 00:00:00", None),
        ("", None),
        ("0", None),
    ],
)
def test_dates(text: str, expected: float | None) -> None:
    """5.1.1."""
    assert parse_date(text.encode()) == expected


@given(
    st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2069, 12, 31)),
    st.sampled_from(
        ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y", "%d/%b/%Y/%H:%M:%S"]
    ),
)
def test_every_date_in_the_usual_forms_is_read(moment: datetime, form: str) -> None:
    """Against the standard library's arithmetic."""
    expected: float | None = calendar.timegm(moment.timetuple())
    if form == "%d/%b/%Y/%H:%M:%S":
        assert "/" in moment.strftime(form)
    assert parse_date(moment.strftime(form).encode()) == expected


# --------------------------------------------------------------------------------------------- domains and paths


@pytest.mark.parametrize(
    ("host", "domain", "matches"),
    [
        ("example.com", "example.com", True),
        ("www.example.com", "example.com", True),
        ("a.b.example.com", "example.com", True),
        ("example.com", "www.example.com", False),
        ("badexample.com", "example.com", False),
        ("example.com", "com", True),
        ("example.com", "example.org", False),
        ("1.2.3.4", "1.2.3.4", True),
        ("1.2.3.4", "3.4", False),
        ("1.2.3.4", "2.3.4", False),
        ("::1", "::1", True),
        ("example.com.", "example.com", False),
        ("localhost", "localhost", True),
        ("x.localhost", "localhost", True),
    ],
)
def test_domain_matching(host: str, domain: str, matches: bool) -> None:
    """5.1.3, and the list of all that a host matches agrees with it."""
    assert domain_matches(host, domain) is matches
    assert (domain in domains_of(host)) is matches


def test_a_name_of_many_labels_is_no_way_to_make_work() -> None:
    """Beyond the DNS's longest name there are no parents."""
    assert len(domains_of("a." * 126 + "a")) == 127
    assert domains_of("a." * 500_000 + "a") == ["a." * 500_000 + "a"]


@pytest.mark.parametrize(("host", "answer"), [("1.2.3.4", True), ("::1", True), ("1.example", False), ("a1", False)])
def test_addresses(host: str, answer: bool) -> None:
    """As URL writes them."""
    assert is_address(host) is answer


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "/"), ("/", "/"), ("/a", "/"), ("/a/", "/a"), ("/a/b", "/a"), ("/a/b/", "/a/b"), ("a/b", "/"),
        ("//", "/"), ("//a", "/"),
    ],
)  # fmt: skip
def test_default_path(path: str, expected: str) -> None:
    """5.1.4: up to the last slash."""
    assert default_path(path) == expected


@pytest.mark.parametrize(
    ("path", "cookie_path", "matches"),
    [
        ("/", "/", True),
        ("/foo", "/", True),
        ("/foo", "/foo", True),
        ("/foo/bar", "/foo", True),
        ("/foo/bar", "/foo/", True),
        ("/foobar", "/foo", False),
        ("/foo", "/foo/", False),
        ("/Foo", "/foo", False),
        ("/", "/foo", False),
        ("/fo%6F", "/foo", False),
    ],
)
def test_path_matching(path: str, cookie_path: str, matches: bool) -> None:
    """5.1.4."""
    assert path_matches(path, cookie_path) is matches


@pytest.mark.parametrize(
    ("domain", "answer"),
    [
        ("com", True),
        ("co.uk", True),
        ("example.com", False),
        ("example.co.uk", False),
        ("github.io", True),
        ("someone.github.io", False),
        ("anything.ck", True),
        ("www.ck", False),
        ("kobe.jp", True),
        ("x.kobe.jp", True),
        ("city.kobe.jp", False),
        ("xn--55qx5d.cn", True),
        ("xn--85x722f.xn--55qx5d.cn", False),
        ("localhost", True),
        ("nosuchtld", True),
        ("example.nosuchtld", False),
        ("co.uk.", True),
        ("example.co.uk.", False),
        ("a..b", True),
        (".com", True),
        ("..", True),
        ("", True),
    ],
)
def test_public_suffixes(domain: str, answer: bool) -> None:
    """Rules, wildcards, exceptions, the private part, names nobody knows, and what is no name."""
    assert is_public_suffix(domain) is answer


def test_the_list_is_loaded_only_for_a_domain_attribute() -> None:
    """It costs more than all the rest of the import."""
    program = """
import sys
from katipo import Cookies, URL
c = Cookies({"a": "1"})
c.set("b", "2", domain="www.example.com")
c.extract(URL("https://www.example.com/"), [b"c=1", b"d=1; Path=/x; Secure", b"e=1; Domain=other.example"])
c.extract(URL("http://localhost/"), [b"c=1; Domain=localhost"])
c.extract(URL("http://1.2.3.4/"), [b"c=1; Domain=1.2.3.4"])
assert c.header_for(URL("https://www.example.com/"))
assert "publicsuffixlist" not in sys.modules
c.extract(URL("https://www.example.com/"), [b"f=1; Domain=example.com"])
assert "publicsuffixlist" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
