"""Proxies from the environment: which, for which URL, and when not."""

from collections.abc import Mapping

import pytest

from katipo import URL, BadOptions
from katipo._environment import Proxies

P = "http://proxy.example:3128"
Q = "socks5h://other.example:1080"


def proxy_for(url: str, environ: Mapping[str, str]) -> str:
    return Proxies(environ).proxy_for(URL(url))


@pytest.mark.parametrize(
    ("environ", "url", "expected"),
    [
        ({}, "http://a.example", ""),
        ({"http_proxy": P}, "http://a.example", P),
        ({"http_proxy": P}, "https://a.example", ""),
        ({"https_proxy": P}, "https://a.example", P),
        ({"HTTPS_PROXY": P}, "https://a.example", P),
        ({"HTTP_PROXY": P}, "http://a.example", P),
        ({"HTTP_PROXY": P, "REQUEST_METHOD": "GET"}, "http://a.example", ""),
        ({"http_proxy": P, "REQUEST_METHOD": "GET"}, "http://a.example", P),
        ({"http_proxy": P, "HTTP_PROXY": Q}, "http://a.example", P),
        ({"http_proxy": "", "HTTP_PROXY": Q}, "http://a.example", ""),
        ({"all_proxy": Q}, "http://a.example", Q),
        ({"ALL_PROXY": Q}, "https://a.example", Q),
        ({"all_proxy": Q, "https_proxy": P}, "https://a.example", P),
        ({"all_proxy": Q, "https_proxy": P}, "http://a.example", Q),
        ({"http_proxy": " proxy.example:3128 "}, "http://a.example", "proxy.example:3128"),
    ],
)
def test_which_proxy(environ: dict[str, str], url: str, expected: str) -> None:
    """Lower case first; HTTP_PROXY never under CGI, where it is a header of the client's."""
    assert proxy_for(url, environ) == expected
    assert bool(Proxies(environ)) == bool(
        {name for name, value in environ.items() if "proxy" in name.lower() and value}
        - ({"HTTP_PROXY"} if "REQUEST_METHOD" in environ or environ.get("http_proxy") == "" else set())
    )


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("a.example", "http://a.example", True),
        ("a.example", "http://A.EXAMPLE", True),
        ("a.example", "http://sub.a.example", True),
        (".a.example", "http://sub.a.example", True),
        (".a.example", "http://a.example", True),
        ("*.a.example", "http://sub.a.example", True),
        ("a.example", "http://nota.example", False),
        ("a.example", "http://a.example.org", False),
        ("a.example.", "http://a.example", True),
        ("a.example", "http://a.example./", True),
        ("a.example:8080", "http://a.example:8080", True),
        ("a.example:8080", "http://a.example", False),
        ("a.example:80", "http://a.example", True),
        ("a.example:443", "https://a.example", True),
        ("b.example, a.example ,", "http://a.example", True),
        ("*", "http://a.example", True),
        ("b.example,*", "http://a.example", True),
        ("localhost", "http://localhost:8000", True),
        ("127.0.0.1", "http://127.0.0.1:8000", True),
        ("127.0.0.1", "http://127.0.0.2", False),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", True),
        ("127.0.0.1:8000", "http://127.0.0.1:8001", False),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.0.0.0/8", "http://10.example", False),
        ("::1", "http://[::1]:8000", True),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("[::1]:8000", "http://[::1]:8001", False),
        ("fd00::/8", "http://[fd12::1]", True),
        ("bücher.example", "http://xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "http://bücher.example", True),
        ("1", "http://127.0.0.1", False),
        ("", "http://a.example", False),
        (",", "http://a.example", False),
    ],
)
def test_no_proxy(no_proxy: str, url: str, direct: bool) -> None:
    """Names with their subdomains, addresses, networks, ports."""
    assert proxy_for(url, {"http_proxy": P, "https_proxy": P, "no_proxy": no_proxy}) == ("" if direct else P)


def test_no_proxy_in_lower_case_comes_first() -> None:
    """As the others."""
    environ = {"http_proxy": P, "no_proxy": "a.example", "NO_PROXY": "b.example"}
    assert proxy_for("http://a.example", environ) == ""
    assert proxy_for("http://b.example", environ) == P


def test_a_client_for_which_nothing_is_proxied_need_not_ask() -> None:
    """The quick way."""
    assert not Proxies({"no_proxy": "a.example"})
    assert not Proxies({"http_proxy": P, "no_proxy": "*"})
    assert Proxies({"http_proxy": P, "no_proxy": "a.example"})


@pytest.mark.parametrize(
    "value", ["ftp://user:hush@proxy.example", "http://user:hush@", "http://pro xy", "http://h:99999"]
)
@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
def test_what_is_no_proxy_is_refused_by_the_variables_name(name: str, value: str) -> None:
    """And shows nothing of the value."""
    with pytest.raises(BadOptions, match=name) as caught:
        Proxies({name: value})
    assert "hush" not in str(caught.value)


def test_no_secret_in_the_repr() -> None:
    """A proxy's password is one."""
    assert "hush" not in repr(Proxies({"http_proxy": "http://user:hush@proxy.example"}))


def test_more_origins_than_are_remembered() -> None:
    """The memory is bounded, the answers are not."""
    proxies = Proxies({"http_proxy": P, "no_proxy": "h1.example"})
    for _ in range(2):
        answers = [proxies.proxy_for(URL(f"http://h{n}.example")) for n in range(600)]
        assert answers == [P, "", *[P] * 598]
