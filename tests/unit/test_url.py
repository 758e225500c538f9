"""URLs: what they become, what is refused, and the short cut for common ones."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katipo.errors import Error, InvalidURL, UnsupportedProtocol
from katipo.url import URL, effective_url, encode_params, prepare


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("http://x", "http://x/"),
        ("HTTP://EXAMPLE.com:80/A", "http://example.com/A"),
        ("https://x:443/", "https://x/"),
        ("http://x:443/", "http://x:443/"),
        ("http://x:/", "http://x/"),
        ("http://x:0080/", "http://x/"),
        ("http://x?q", "http://x/?q"),
        ("http://x/?", "http://x/?"),
        ("http://x#f", "http://x/#f"),
        ("http://x/a b/ü?q=ü x#ü", "http://x/a%20b/%C3%BC?q=%C3%BC%20x#%C3%BC"),
        ("http://x/%41%2f?%41", "http://x/%41%2f?%41"),
        ("http://x/100%?5%zz", "http://x/100%25?5%25zz"),
        ("http://x/a/./b/../c/..", "http://x/a/"),
        ("http://x/../../a", "http://x/a"),
        ("http://x/%2e%2E/a/.%2e/b", "http://x/b"),
        ("http://x/a//b", "http://x/a//b"),
        ("http://x/?a\\b/../c", "http://x/?a%5Cb/../c"),
        ("http://bücher.de/", "http://xn--bcher-kva.de/"),
        ("http://日本。jp/", "http://xn--wgv71a.jp/"),
        ("http://ex%61mple.com/", "http://example.com/"),
        ("http://web_1:8000/", "http://web_1:8000/"),
        ("http://example.com./", "http://example.com./"),
        ("http://127.1/", "http://127.0.0.1/"),
        ("http://0x7f.0.0.1/", "http://127.0.0.1/"),
        ("http://0177.0.0.1/", "http://127.0.0.1/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://1.2.3.4a/", "http://1.2.3.4a/"),
        ("http://[0:0::1]:80/", "http://[::1]/"),
        ("http://[::FFFF:1.2.3.4]/", "http://[::ffff:1.2.3.4]/"),
        ("http://[fe80::1%25eth0]/", "http://[fe80::1%25eth0]/"),
        ("http://[fe80::1%eth0]/", "http://[fe80::1%25eth0]/"),
        ("http://u:p@x/", "http://u:p@x/"),
        ("http://u@corp:p w@x/", "http://u%40corp:p%20w@x/"),
    ],
)
def test_a_url_says_what_is_sent(given_: str, expected: str) -> None:
    """Normal form, and stable: the normal form of the normal form is itself."""
    assert str(URL(given_)) == expected
    assert str(URL(expected)) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///p",
        "http:/x",
        "http:x",
        "http://:80/",
        "http://u@/",
        "http://x:0/",
        "http://x:65536/",
        "http://x:8a/",
        "http://x:-1/",
        "http://x:99999999999999999999/",
        "http://x/\r\nEvil: 1",
        "http://x/\t",
        "http://x/\0",
        "http://x/\x7f",
        "\nhttp://x/",
        "http://x\\@y/",
        "http://x/a\\b",
        "http://a b/",
        "http://a<b/",
        "http://x%00y/",
        "http://x%2fy/",
        "http://x%40y/",
        "http://%ff/",
        "http://[::1/",
        "http://::1/",
        "http://[zz]/",
        "http://[::1]x/",
        "http://[::1%25a b]/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://1.2.3.09/",
        "http://\u2603\u200d.net/",
        "http://x/\ud800",
    ],
)
def test_a_malformed_url_is_refused(url: str) -> None:
    """By the class and by the short cut alike."""
    for read in (URL, prepare):
        with pytest.raises(InvalidURL) as caught:
            read(url)
        assert caught.value.code == "url_malformat"


@pytest.mark.parametrize(
    "url",
    ["", "/", "/path", "//x/", "x", "example.com/", "localhost:80/", "ftp://x/", "file:///x", "ws://x/", " http://x/"],
)
def test_a_url_without_a_known_scheme_is_an_unsupported_protocol(url: str) -> None:
    """Only http and https are spoken."""
    for read in (URL, prepare):
        with pytest.raises(UnsupportedProtocol) as caught:
            read(url)
        assert (caught.value.code, caught.value.request_sent) == ("unsupported_protocol", False)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@x:99999/",
        "http://user:hun/ter2@x/",
        "http://user:hunter2/x@y/",
        "http://user:hunter2@[zz]/",
        "http://hunter2@a b/",
        "http://user:hunter2@x/\n",
        "http://user:hunter2@x\\/",
        "user:hunter2@x",
        "ftp://user:hunter2@x/",
        "hunter2://x/",
    ],
)
def test_an_error_shows_nothing_of_the_userinfo(url: str) -> None:
    """Also where the parts of the URL are not what they seem."""
    with pytest.raises(Error) as caught:
        URL(url)
    assert "hun" not in f"{caught.value!r}{caught.value}"


def test_a_value_of_another_type_is_a_type_error() -> None:
    """bytes are not guessed at."""
    for read in (URL, prepare):
        with pytest.raises(TypeError, match="not bytes"):
            read(b"http://x/")  # type: ignore[arg-type]


def test_the_parts_of_a_url() -> None:
    """Names and types are httpx's."""
    url = URL("https://us%40er:p%3Aw@bücher.de:8443/a%20b?x=1&y=&x=%C3%BC#fr%20ag")
    assert url.scheme == "https"
    assert url.userinfo == b"us%40er:p%3Aw"
    assert (url.username, url.password) == ("us@er", "p:w")
    assert (url.host, url.raw_host) == ("bücher.de", b"xn--bcher-kva.de")
    assert (url.port, url.netloc) == (8443, b"xn--bcher-kva.de:8443")
    assert (url.path, url.raw_path) == ("/a b", b"/a%20b?x=1&y=&x=%C3%BC")
    assert url.query == b"x=1&y=&x=%C3%BC"
    assert url.params == [("x", "1"), ("y", ""), ("x", "ü")]
    assert url.fragment == "fr ag"
    assert url.origin == "https://xn--bcher-kva.de:8443"


def test_the_parts_that_are_not_there() -> None:
    """Absent parts are empty; a default port is None."""
    url = URL("http://[::1]/")
    assert (url.userinfo, url.username, url.password) == (b"", "", "")
    assert (url.port, url.query, url.fragment, url.params) == (None, b"", "", [])
    assert (url.host, url.netloc, url.origin) == ("::1", b"[::1]", "http://[::1]:80")


def test_a_url_equals_its_text_and_hashes_like_it() -> None:
    """A URL finds what was stored under its str, and the other way round."""
    url = URL("http://x/")
    assert url == "http://x/"
    assert url == URL("HTTP://X")
    assert url != "http://y/"
    assert url != 3
    assert {url: 1}["http://x/"] == {"http://x/": 1}[url] == 1  # type: ignore[index]


def test_a_url_cannot_be_changed_and_pickles() -> None:
    """Parts are read-only; what comes back is equal."""
    url = URL("http://u:p@x/a?b#c")
    with pytest.raises(AttributeError):
        url.host = "y"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(url)) == url


def test_the_repr_hides_userinfo_and_tokens() -> None:
    """str is the whole URL, repr is for logs."""
    url = URL("http://user:hunter2@x/?token=hunter2&a=1")
    assert repr(url) == "URL('http://[secure]@x/?token=[secure]&a=1')"
    assert url.redacted() == "http://[secure]@x/?token=[secure]&a=1"
    assert str(url) == "http://user:hunter2@x/?token=hunter2&a=1"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("g", "http://a/b/c/g"),
        ("./g", "http://a/b/c/g"),
        ("g/", "http://a/b/c/g/"),
        ("/g", "http://a/g"),
        ("//g", "http://g/"),
        ("?y", "http://a/b/c/d;p?y"),
        ("g?y", "http://a/b/c/g?y"),
        ("#s", "http://a/b/c/d;p?q#s"),
        ("g#s", "http://a/b/c/g#s"),
        (";x", "http://a/b/c/;x"),
        ("", "http://a/b/c/d;p?q"),
        (".", "http://a/b/c/"),
        ("..", "http://a/b/"),
        ("../../../g", "http://a/g"),
        ("../g", "http://a/b/g"),
        ("g;x=1/../y", "http://a/b/c/y"),
        ("g?y/../x", "http://a/b/c/g?y/../x"),
        ("https://z/x", "https://z/x"),
    ],
)
def test_references_resolve_as_in_rfc_3986(reference: str, expected: str) -> None:
    """The examples of section 5.4."""
    assert URL("http://a/b/c/d;p?q").join(reference) == expected


def test_join_keeps_userinfo_only_on_the_same_host_and_refuses_what_url_refuses() -> None:
    """A reference with a host brings its own userinfo or none."""
    base = URL("http://u:p@a/")
    assert base.join("/x") == "http://u:p@a/x"
    assert base.join("//b/x") == "http://b/x"
    assert base.join(URL("http://c/")) == "http://c/"
    for bad in ("\\\\evil.com", "/x\r\n", "//x:99999"):
        with pytest.raises(InvalidURL):
            base.join(bad)
    with pytest.raises(UnsupportedProtocol):
        base.join("javascript:alert(1)")


def test_copy_with_changes_some_parts() -> None:
    """Parts are given decoded and encoded as their place needs it."""
    url = URL("http://u:p@x:81/a?b#c")
    assert url.copy_with(scheme="https", host="bücher.de", port=None) == "https://u:p@xn--bcher-kva.de/a?b#c"
    assert url.copy_with(username=None, password=None) == "http://x:81/a?b#c"
    assert url.copy_with(userinfo="") == "http://x:81/a?b#c"
    assert url.copy_with(username="m@n", password="o:p/") == "http://m%40n:o%3Ap%2F@x:81/a?b#c"
    assert url.copy_with(path="/x?y z%") == "http://u:p@x:81/x%3Fy%20z%25?b#c"
    assert url.copy_with(raw_path=b"/x?y", fragment="") == "http://u:p@x:81/x?y"
    assert url.copy_with(query=None) == "http://u:p@x:81/a#c"
    assert url.copy_with(params={"k": ["1", 2, None, True]}) == "http://u:p@x:81/a?k=1&k=2&k=&k=true#c"
    assert url.copy_with(host="::1", port=80).netloc == b"[::1]"
    assert url == "http://u:p@x:81/a?b#c"


def test_copy_with_lets_no_part_break_out() -> None:
    """A host with a slash or a query with a hash would become other parts."""
    url = URL("http://x/")
    for bad in ({"host": "y/z"}, {"host": "a@y"}, {"query": "a#b"}, {"raw_path": "/a#b"}, {"port": 70000}):
        with pytest.raises(InvalidURL):
            url.copy_with(**bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="no such part: hots"):
        url.copy_with(hots="y")  # type: ignore[call-arg]
    with pytest.raises(UnsupportedProtocol):
        url.copy_with(scheme="ftp")


def test_params_are_added_to_the_query() -> None:
    """Those that are there stay, and nothing is added for none."""
    assert URL("http://x/?a=1", params={"b": "2 ü"}) == "http://x/?a=1&b=2+%C3%BC"
    assert URL("http://x/", params=[("a", 1), ("a", None)]) == "http://x/?a=1&a="
    assert URL(URL("http://x/?a"), params={}) == "http://x/?a"
    assert encode_params("?a=b") == "a=b"


@pytest.mark.parametrize(
    ("url", "sent", "origin"),
    [
        ("http://x", b"http://x/", b"http://x:80"),
        ("https://x?q", b"https://x/?q", b"https://x:443"),
        ("https://x:8443/a?b#c", b"https://x:8443/a?b", b"https://x:8443"),
        ("http://127.0.0.1:8080/a%20b", b"http://127.0.0.1:8080/a%20b", b"http://127.0.0.1:8080"),
        ("http://u:p@X/a/../b#f", b"http://u:p@x/b", b"http://x:80"),
        ("http://[::1]:1/", b"http://[::1]:1/", b"http://[::1]:1"),
        ("http://127.1/", b"http://127.0.0.1/", b"http://127.0.0.1:80"),
    ],
)
def test_prepare_gives_what_the_engine_needs(url: str, sent: bytes, origin: bytes) -> None:
    """The fragment is not sent, userinfo is, and the origin has its port."""
    assert prepare(url) == prepare(URL(url)) == (sent, origin)


COMMON = st.from_regex(
    r"https?://(?:[a-z0-9._-]{1,12}|[0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::[0-9]{0,6})?"
    r"(?:/[A-Za-z0-9/._~%|\[\] -]{0,12})?(?:\?[a-z=&%?/'\"]{0,8})?(?:#[a-z]{0,3})?",
    fullmatch=True,
)


@given(COMMON | st.text(max_size=20).map("http://x/".__add__))
def test_the_short_cut_agrees_with_the_long_way(url: str) -> None:
    """For any URL: the same bytes but for a spelt-out default port, the same origin, the same refusal."""
    try:
        parsed = URL(url)
    except Error as error:
        with pytest.raises(type(error)):
            prepare(url)
        return
    sent, origin = prepare(url)
    assert URL(sent.decode()) == str(parsed).partition("#")[0]
    assert origin.decode() == parsed.origin
    assert not any(byte <= 0x20 or byte >= 0x7F for byte in sent)


def test_the_url_that_libcurl_reports_is_read_leniently() -> None:
    """Bytes that a server put into a Location do not make the response unreadable."""
    assert effective_url(b"http://x/a\\b c\xc3\xbc?\x01") == "http://x/a%5Cb%20c%C3%BC?%01"
