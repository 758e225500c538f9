"""The store as its owner uses it: setting, reading, removing, copying, and a request's own cookies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from katipo import URL, BadOptions, CookieConflict, Cookies, cookie_store
from katipo.cookie_store import merged_header
from katipo.cookies import ResponseCookies
from tests.unit.cookie_tools import HTTP, HTTPS, Clock, sent, stored


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In place of the store's."""
    made = Clock()
    monkeypatch.setattr(cookie_store, "now", made)
    return made


def test_a_cookie_without_a_domain_goes_where_the_caller_goes() -> None:
    """And not where a redirect leads."""
    cookies = Cookies({"a": "1"})
    assert sent(cookies, "http://one.example/") == "a=1"
    assert sent(cookies, "https://two.example/x") == "a=1"
    assert sent(cookies, "https://two.example/x", addressed=False) is None


def test_a_cookie_with_a_domain_goes_to_that_domain() -> None:
    """Redirected or not."""
    cookies = Cookies()
    cookies.set("a", "1", domain=".Example.com", path="/x")
    for addressed in (True, False):
        assert sent(cookies, "https://example.com/x/y", addressed) == "a=1"
        assert sent(cookies, "https://www.example.com/x", addressed) == "a=1"
        assert sent(cookies, "https://example.com/", addressed) is None
        assert sent(cookies, "https://example.org/x", addressed) is None


@pytest.mark.parametrize(
    ("domain", "url", "other"),
    [
        ("localhost", "http://localhost/", "http://x.localhost/"),
        ("127.0.0.1", "http://127.0.0.1:8000/", "http://127.0.0.2/"),
        ("::1", "http://[::1]/", "http://[::2]/"),
        ("[::1]", "http://[::1]/", "http://[::2]/"),
        ("bücher.example", "http://www.xn--bcher-kva.example/", "http://bucher.example/"),
    ],
)
def test_domains_that_a_caller_gives(domain: str, url: str, other: str) -> None:
    """Addresses and single labels are themselves only; international names are compared as they are sent."""
    cookies = Cookies()
    cookies.set("a", "1", domain=domain)
    assert sent(cookies, url) == "a=1"
    assert sent(cookies, other) is None
    assert cookies.get("a", domain=domain) == "1"
    cookies.delete("a", domain=domain)
    assert cookies.empty


def test_of_a_caller_s_and_a_server_s_cookie_the_later_is_sent() -> None:
    """A session that the server renews is not sent twice, and the caller has the last word."""
    cookies = Cookies({"sid": "mine", "x": "1"})
    cookies.extract(URL(HTTPS), ["sid=server"])
    assert sent(cookies, HTTPS) == "sid=server; x=1"
    assert sent(cookies, "https://other.example/") == "sid=mine; x=1"
    cookies["sid"] = "again"
    assert sent(cookies, HTTPS) == "sid=again; x=1"
    assert sent(cookies, HTTPS, addressed=False) == "sid=server"


@pytest.mark.parametrize("line", ["sid=server; Path=/", "sid=server; Path=/; Domain=www.example.com"])
def test_a_server_renews_a_cookie_that_the_caller_set_for_its_domain(line: str) -> None:
    """Whichever kind it is."""
    cookies = Cookies()
    cookies.set("sid", "mine", domain="www.example.com")
    cookies.extract(URL(HTTPS), [line])
    assert sent(cookies, HTTPS) == "sid=server"
    assert cookies["sid"] == "server"
    cookies.extract(URL(HTTPS), [line + "; Max-Age=0"])
    assert cookies.empty


def test_a_server_cannot_remove_what_the_caller_set_for_everybody() -> None:
    """It may be meant for another."""
    cookies = Cookies({"a": "1"})
    cookies.extract(URL(HTTPS), ["a=; Max-Age=0; Path=/"])
    assert sent(cookies, HTTPS) == "a=1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a;b", "hunter2"), "'a'"),
        (("a=b", "hunter2"), "'a'"),
        (("", "hunter2"), "empty"),
        ((" a", "hunter2"), "begins ''"),
        (("a\n", "hunter2"), "'a'"),
        ((b"a", "hunter2"), "name must be str, not bytes"),
        (("a", "hunter2;x"), "value of 'a'"),
        (("a", "hunter2\r\nX: y"), "value of 'a'"),
        (("a", "hunter2\0"), "value of 'a'"),
        (("a", "hunter2\ud800"), "'a'"),
        (("a", b"hunter2"), "value of 'a' must be str, not bytes"),
        (("a", None), "not NoneType"),
        (("a", "hunter2", "exa mple.com"), "domain"),
        (("a", "hunter2", "example.com/x"), "domain"),
        (("a", "hunter2", "u@example.com"), "domain"),
        (("a", "hunter2", "example.com:80"), "domain"),
        (("a", "hunter2", "."), "domain"),
        (("a", "hunter2", ":::1"), "domain"),
        (("a", "hunter2", None), "domain must be str"),
        (("a", "hunter2", "", "x"), "path of 'a'"),
        (("a", "hunter2", "", "/x;y"), "path of 'a'"),
        (("a", "hunter2", "", None), "path of 'a'"),
    ],
)
def test_what_is_no_cookie_is_refused(arguments: tuple[Any, ...], words: str) -> None:
    """With what was wrong, and never the value."""
    cookies = Cookies()
    if arguments[2:3] == (None,):
        arguments = ("a", "hunter2", 1)
    with pytest.raises(BadOptions, match=r"^cookies: ") as caught:
        cookies.set(*arguments)
    assert words in str(caught.value)
    assert "hunter2" not in repr(caught.value)
    assert cookies.empty


@pytest.mark.parametrize(
    "wrong", ["a=1", b"a=1", 1, ["a=1"], [("a",)], [("a", "1", "2")], {"a": 1}, {1: "a"}, object()]
)
def test_what_are_no_cookies_is_refused(wrong: Any) -> None:
    """When a store is made, updated, and merged."""
    for use in (Cookies, Cookies().update, lambda own: merged_header(None, own, url=URL(HTTPS))):
        with pytest.raises(BadOptions, match=r"^cookies: "):
            use(wrong)


# ------------------------------------------------------------------------------------------------------- the mapping


@pytest.mark.parametrize(
    "given_",
    [{"a": "1", "b": "2"}, [("a", "1"), ("b", "2")], iter([("a", "1"), ["b", "2"]]), ResponseCookies(a="1", b="2")],
)
def test_made_of_what_pairs_names_and_values(given_: Any) -> None:
    """In order."""
    cookies = Cookies(given_)
    assert dict(cookies) == {"a": "1", "b": "2"}
    assert list(cookies.items()) == [("a", "1"), ("b", "2")]
    assert cookies == {"a": "1", "b": "2"}
    assert cookies != {"a": "1"}
    assert cookies != {"a": "1", "b": "3"}
    assert cookies != [("a", "1")]


def test_it_is_a_mutable_mapping() -> None:
    """Every method that comes with it."""
    cookies = Cookies()
    assert not cookies
    cookies["a"] = "1"
    cookies["a"] = "2"
    assert (len(cookies), cookies["a"], "a" in cookies, "b" in cookies, object() in cookies) == (
        1,
        "2",
        True,
        False,
        False,
    )
    assert cookies.setdefault("b", "3") == "3"
    assert cookies.pop("b") == "3"
    assert cookies.pop("b", "none") == "none"
    assert cookies.get("b", 5) == 5
    with pytest.raises(KeyError, match="b"):
        cookies["b"]
    with pytest.raises(KeyError, match="b"):
        del cookies["b"]
    del cookies["a"]
    assert cookies.empty
    cookies.update({"x": "1"})
    cookies.update(None)
    assert cookies.popitem() == ("x", "1")
    with pytest.raises(TypeError):
        hash(cookies)


def several() -> Cookies:
    cookies = stored((HTTPS, "a=1; Path=/"), (HTTPS, "a=2; Path=/dir"), ("https://b.example/", "a=3; Path=/"))
    cookies["a"] = "4"
    return cookies


def test_a_name_that_several_cookies_have_must_be_told_apart() -> None:
    """By domain, path, or both; the error says between what, and shows no value."""
    cookies = several()
    with pytest.raises(CookieConflict) as caught:
        cookies["a"]
    assert "www.example.com /dir" in str(caught.value)
    assert "b.example /" in str(caught.value)
    with pytest.raises(CookieConflict):
        cookies.get("a", "default", domain="www.example.com")
    assert cookies.get("a", domain="b.example") == "3"
    assert cookies.get("a", domain="B.example") == "3"
    assert cookies.get("a", path="/dir") == "2"
    assert cookies.get("a", domain="www.example.com", path="/") == "1"
    assert cookies.get("a", domain="") == "4"
    assert cookies.get("a", "none", domain="c.example") == "none"
    assert list(cookies) == ["a"]
    assert len(cookies) == 1
    assert cookies != {"a": "4"}


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda c: c.delete("a"), 0),
        (lambda c: c.delete("a", domain="www.example.com"), 2),
        (lambda c: c.delete("a", domain="www.example.com", path="/"), 3),
        (lambda c: c.delete("a", path="/"), 1),
        (lambda c: c.delete("a", domain=""), 3),
        (lambda c: c.delete("b"), 4),
        (lambda c: c.delete("a", domain="example.com"), 4),
        (lambda c: c.clear(), 0),
        (lambda c: c.clear(domain="www.example.com"), 2),
        (lambda c: c.clear("www.example.com", "/dir"), 3),
        (lambda c: c.clear(path="/"), 1),
        (lambda c: c.clear(domain=""), 3),
        (lambda c: c.__delitem__("a"), 0),
    ],
)
def test_removing(change: Callable[[Cookies], None], left: int) -> None:
    """By name, domain and path, as exactly these."""
    cookies = several()
    change(cookies)
    assert sum(map(len, cookies._state.buckets.values())) == left
    assert cookies.empty is (left == 0)


def test_a_cookie_that_is_over_cannot_be_deleted(clock: Clock) -> None:
    """It is not there."""
    cookies = stored((HTTPS, "a=1; Max-Age=1"))
    clock.time += 1
    with pytest.raises(KeyError):
        del cookies["a"]


def test_the_repr_shows_names_and_domains_and_no_value() -> None:
    """Of all cookies."""
    cookies = stored((HTTPS, "sid=hunter2"), (HTTPS, "hunter3; Path=/"))
    cookies["theme"] = "hunter4"
    assert repr(cookies) == "<Cookies [sid for www.example.com/dir, (no name) for www.example.com/, theme]>"
    assert repr(Cookies()) == "<Cookies []>"


def test_another_store_s_cookies_keep_all_they_have(clock: Clock) -> None:
    """And the two are independent from then on."""
    first = stored(
        (HTTPS, "b=1; Max-Age=10; Secure; HttpOnly; SameSite=Lax"), (HTTPS, "a=1; Domain=example.com; Path=/")
    )
    first["own"] = "1"
    for second in (Cookies(first), copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert type(second) is Cookies
        assert second == first
        assert sent(second, HTTPS) == "b=1; a=1; own=1"
        assert sent(second, HTTP, addressed=False) == "a=1"
        second["more"] = "1"
        second.delete("a")
        assert "more" not in first
        assert "a" in first
        assert second != first
    clock.time += 10
    first.update(first)
    assert sent(first, HTTPS) == "a=1; own=1"


def test_what_is_over_in_another_store_ends_nothing_here(clock: Clock) -> None:
    """Updating is no Set-Cookie."""
    cookies, other = stored((HTTPS, "a=1; Max-Age=99")), stored((HTTPS, "a=2; Max-Age=5"))
    clock.time += 5
    cookies.update(other)
    assert sent(cookies, HTTPS) == "a=1"


def test_a_subclass_copies_as_itself() -> None:
    """Pickled too."""
    own = Mine({"a": "1"})
    for again in (copy.copy(own), pickle.loads(pickle.dumps(own))):
        assert type(again) is Mine
        assert again == own


class Mine(Cookies):
    """Somebody's own."""


# ------------------------------------------------------------------------------------------------ a request's own


@pytest.mark.parametrize(
    ("store", "own", "merged"),
    [
        (None, None, None),
        ("a=1", None, "a=1"),
        ("a=1", {}, "a=1"),
        (None, {"b": "2"}, "b=2"),
        ("a=1; c=3", {"b": "2"}, "a=1; c=3; b=2"),
        ("a=1; c=3", {"a": "2"}, "c=3; a=2"),
        ("a=1; a=3", [("a", "2")], "a=2"),
        ("a=1", [("a", "2"), ("a", "3")], "a=3"),
        ("lonely; a=1", {"a": "2"}, "lonely; a=2"),
        ("A=1", {"a": "2"}, "A=1; a=2"),
    ],
)
def test_a_request_s_own_cookies_stand_before_the_store_s(store: str | None, own: Any, merged: str | None) -> None:
    """By name."""
    assert merged_header(store, own, url=URL(HTTPS)) == merged


def test_a_request_s_own_store_keeps_its_domains() -> None:
    """Only what has no domain stays behind at a redirect to another origin."""
    own = Cookies({"free": "1"})
    own.set("bound", "1", domain="example.com")
    own.set("elsewhere", "1", domain="example.org")
    assert merged_header("a=1", own, url=URL(HTTPS)) == "a=1; free=1; bound=1"
    assert merged_header("a=1", own, url=URL(HTTPS), addressed=False) == "a=1; bound=1"
    assert merged_header("a=1", {"b": "2"}, url=URL(HTTPS), addressed=False) == "a=1"
