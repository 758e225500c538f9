"""Proxies from the environment: which variable counts, and what NO_PROXY exempts."""

from __future__ import annotations

import pytest

from katipo._environment import Proxies
from katipo.errors import BadOptions
from katipo.url import URL

HTTP = "http://proxy.test:3128"
HTTPS = "http://secure.test:3129"
ALL = "socks5h://all.test:1080"


def found(environ: dict[str, str], url: str) -> str:
    return Proxies(environ).proxy_for(URL(url))


def both(environ: dict[str, str]) -> tuple[str, str]:
    """The proxies for http and https."""
    return found(environ, "http://host.test/"), found(environ, "https://host.test/")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("", "")),
        ({"http_proxy": HTTP}, (HTTP, "")),
        ({"HTTP_PROXY": HTTP}, (HTTP, "")),
        ({"https_proxy": HTTPS}, ("", HTTPS)),
        ({"HTTPS_PROXY": HTTPS}, ("", HTTPS)),
        ({"all_proxy": ALL}, (ALL, ALL)),
        ({"ALL_PROXY": ALL, "http_proxy": HTTP}, (HTTP, ALL)),
        ({"http_proxy": HTTP, "HTTP_PROXY": "http://other.test"}, (HTTP, "")),
        ({"http_proxy": "", "HTTP_PROXY": HTTP}, ("", "")),
        ({"http_proxy": "", "all_proxy": ALL}, (ALL, ALL)),
        ({"http_proxy": "  " + HTTP + " "}, (HTTP, "")),
        ({"http_proxy": "proxy.test:3128"}, ("proxy.test:3128", "")),
        ({"Http_Proxy": HTTP}, ("", "")),
    ],
)
def test_which_variable_counts(environ: dict[str, str], expected: tuple[str, str]) -> None:
    """The scheme's own before the one for all, lower case before upper, empty ones too."""
    assert both(environ) == expected
    assert bool(Proxies(environ)) is any(expected)


def test_a_header_of_a_cgi_client_is_no_proxy() -> None:
    """HTTP_PROXY alone: a client cannot set the others, nor the one in lower case."""
    cgi = {"REQUEST_METHOD": "GET"}
    assert both({**cgi, "HTTP_PROXY": HTTP}) == ("", "")
    assert both({**cgi, "HTTP_PROXY": HTTP, "ALL_PROXY": ALL}) == (ALL, ALL)
    assert both({**cgi, "http_proxy": HTTP, "HTTPS_PROXY": HTTPS}) == (HTTP, HTTPS)
    assert both({"REQUEST_METHOD": "", "HTTP_PROXY": HTTP}) == ("", "")


@pytest.mark.parametrize(
    "value", ["ftp://secret.test", "http://secret.test:99999", "http://u:secret@/", "socks://h", "a b"]
)
@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_what_is_no_proxy_is_refused_by_its_variable(name: str, value: str) -> None:
    """At once, with no value shown."""
    with pytest.raises(BadOptions) as caught:
        Proxies({name: value})
    assert caught.value.message.startswith(f"{name} in the environment: ")
    assert "secret" not in f"{caught.value} {caught.value!r}"


def test_what_is_never_used_is_not_looked_at() -> None:
    """A bad proxy for all where each scheme has one; anything where NO_PROXY exempts everything, or there is no proxy."""
    assert both({"http_proxy": HTTP, "https_proxy": HTTPS, "all_proxy": "socks://h"}) == (HTTP, HTTPS)
    assert not Proxies({"http_proxy": "socks://h", "no_proxy": "*"})
    assert not Proxies({"no_proxy": "10.0.0.0/99"})


@pytest.mark.parametrize(
    ("no_proxy", "exempt", "proxied"),
    [
        ("*", ["http://a.test/", "http://[::1]/"], []),
        ("a.test, *", ["http://b.test/"], []),
        (
            "host.test",
            ["http://host.test/", "http://HOST.test:81/", "http://www.host.test/", "http://host.test./"],
            ["http://ahost.test/", "http://host.test.other/", "http://test/"],
        ),
        (".host.test", ["http://host.test/", "http://a.b.host.test/"], ["http://ahost.test/"]),
        ("*.host.test", ["http://host.test/", "http://www.host.test/"], ["http://ahost.test/"]),
        ("HOST.Test.", ["http://host.test/"], []),
        ("host.test:81", ["http://host.test:81/", "http://www.host.test:81/"], ["http://host.test/"]),
        ("host.test:80", ["http://host.test/"], ["http://host.test:81/"]),
        (" a.test ,\tb.test  c.test,,", ["http://a.test/", "http://b.test/", "http://c.test/"], ["http://d.test/"]),
        ("192.0.2.1", ["http://192.0.2.1/", "http://0xC0.0.513/"], ["http://192.0.2.10/", "http://a.192.0.2.1.test/"]),
        ("192.0.2.1:81", ["http://192.0.2.1:81/"], ["http://192.0.2.1/"]),
        ("192.0.2.0/24", ["http://192.0.2.255/"], ["http://192.0.3.0/", "http://host.test/", "http://[::1]/"]),
        ("192.0.2.77/24", ["http://192.0.2.1/"], ["http://192.0.3.0/"]),
        ("::1", ["http://[::1]/", "http://[0:0:0:0:0:0:0:1]:81/"], ["http://[::2]/", "http://127.0.0.1/"]),
        ("[::1]", ["http://[::1]/"], ["http://[::2]/"]),
        ("[::1]:81", ["http://[::1]:81/"], ["http://[::1]/"]),
        ("2001:DB8::/32", ["http://[2001:db8:1::1]/"], ["http://[2001:db9::1]/", "http://192.0.2.1/"]),
        ("fe80::/10", ["http://[fe80::1%25eth0]/"], []),
        ("192.0.2.1", ["http://[::ffff:192.0.2.1]/"], []),
        ("::ffff:192.0.2.1", ["http://192.0.2.1/"], []),
        ("bücher.test", ["http://bücher.test/", "http://www.BÜCHER.test/", "http://xn--bcher-kva.test/"], []),
        ("xn--bcher-kva.test", ["http://bücher.test/"], []),
        ("192.168.*, <local>, \u2488.test, .", [], ["http://192.168.0.1/", "http://local/", "http://host.test/"]),
        ("1", [], ["http://0.0.0.1/", "http://10.0.0.1/"]),
        ("", [], ["http://host.test/"]),
    ],
)
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_what_no_proxy_exempts(variable: str, no_proxy: str, exempt: list[str], proxied: list[str]) -> None:
    """Names with those below them, addresses, ranges, ports; names in any of their forms."""
    proxies = Proxies({"http_proxy": HTTP, variable: no_proxy})
    for _ in range(2):  # remembered the second time
        assert [proxies.proxy_for(URL(url)) for url in exempt] == [""] * len(exempt)
        assert [proxies.proxy_for(URL(url)) for url in proxied] == [HTTP] * len(proxied)


def test_no_proxy_in_lower_case_wins() -> None:
    """Though it is empty."""
    assert found({"http_proxy": HTTP, "no_proxy": "", "NO_PROXY": "*"}, "http://host.test/") == HTTP


@pytest.mark.parametrize(
    "entry",
    ["10.0.0.0/99", "secret/24", "secret:0", "secret:65536", "secret:99999999999", "[secret]", "[::1", "secret:a"],
)
def test_an_impossible_exemption_is_refused(entry: str) -> None:
    """By the variable and its place, with no value shown."""
    with pytest.raises(BadOptions) as caught:
        Proxies({"http_proxy": HTTP, "NO_PROXY": f"host.test,{entry}"})
    assert caught.value.message.startswith("NO_PROXY in the environment: entry 2 ")
    assert "secret" not in caught.value.message
    assert "10.0" not in caught.value.message


def test_proxies_are_read_once() -> None:
    """What changes later does not count."""
    environ = {"http_proxy": HTTP}
    proxies = Proxies(environ)
    environ["no_proxy"] = "*"
    assert proxies.proxy_for(URL("http://host.test/")) == HTTP


def test_what_is_remembered_is_bounded() -> None:
    """However many origins there are."""
    proxies = Proxies({"http_proxy": HTTP, "no_proxy": "host7.test"})
    for i in range(1000):
        assert proxies.proxy_for(URL(f"http://host{i}.test/")) == ("" if i == 7 else HTTP)
    assert len(proxies._known) <= 256


def test_the_repr_shows_no_proxy() -> None:
    """Not its user and password, nor its host."""
    text = repr(Proxies({"http_proxy": "http://user:secret@proxy.test", "no_proxy": "a.test"}))
    assert text == "<Proxies for http, but for 1 exemptions>"
    assert repr(Proxies({})) == "<Proxies for nothing, but for 0 exemptions>"
