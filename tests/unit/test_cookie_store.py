"""The store: what is kept of a Set-Cookie, who gets it back, how long, and under threads and forks."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from katipo import URL, Cookies, cookie_store
from katipo.cookie_store import MAX_COOKIES, MAX_PER_DOMAIN
from tests.unit.cookie_tools import HTTP, HTTPS, Clock, sent, stored


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In place of the store's."""
    made = Clock()
    monkeypatch.setattr(cookie_store, "now", made)
    return made


# ------------------------------------------------------------------------------------------------ storing, sending


@pytest.mark.parametrize(
    ("origin", "line", "target", "header"),
    [
        # host-only, and with a Domain
        (HTTPS, "a=1", "https://www.example.com/dir/x", "a=1"),
        (HTTPS, "a=1", "https://example.com/dir/x", None),
        (HTTPS, "a=1", "https://x.www.example.com/dir/x", None),
        (HTTPS, "a=1; Domain=www.example.com", "https://x.www.example.com/dir/", "a=1"),
        (HTTPS, "a=1; Domain=example.com", "https://example.com/dir/", "a=1"),
        (HTTPS, "a=1; Domain=.Example.COM", "https://other.example.com/dir/", "a=1"),
        (HTTPS, "a=1; Domain=example.com", "https://badexample.com/dir/", None),
        (HTTPS, "a=1; Domain=x.www.example.com", "https://x.www.example.com/dir/", None),
        (HTTPS, "a=1; Domain=example.org", "https://example.org/dir/", None),
        (HTTPS, "a=1; Domain=ample.com", "https://ample.com/dir/", None),
        (HTTPS, "a=1; Domain=", "https://www.example.com/dir/", "a=1"),
        (HTTPS, "a=1; Domain=", "https://x.www.example.com/dir/", None),
        (HTTPS, "a=1; Domain=www.example.com.", "https://www.example.com/dir/", None),
        (HTTPS, "a=1; Domain=www.example.com:443", "https://www.example.com/dir/", None),
        (HTTPS, "a=1", "https://www.example.com:8443/dir/", "a=1"),
        # public suffixes
        (HTTPS, "a=1; Domain=com", "https://www.example.com/dir/", None),
        ("https://x.co.uk/", "a=1; Domain=co.uk", "https://x.co.uk/", None),
        ("https://x.co.uk./", "a=1; Domain=co.uk.", "https://y.co.uk./", None),
        ("https://co.uk/", "a=1; Domain=co.uk", "https://co.uk/", "a=1"),
        ("https://co.uk/", "a=1; Domain=co.uk", "https://x.co.uk/", None),
        ("https://x.github.io/", "a=1; Domain=github.io", "https://x.github.io/", None),
        ("https://x.github.io/", "a=1; Domain=x.github.io", "https://y.x.github.io/", "a=1"),
        # addresses and single labels
        ("http://127.0.0.1/", "a=1; Domain=127.0.0.1", "http://127.0.0.1/", "a=1"),
        ("http://127.0.0.1/", "a=1; Domain=0.0.1", "http://127.0.0.1/", None),
        ("http://127.0.0.1/", "a=1", "http://127.0.0.1:81/", "a=1"),
        ("http://[::1]/", "a=1", "http://[::1]/", "a=1"),
        ("http://[::1]/", "a=1; Domain=::1", "http://[::1]/", "a=1"),
        ("http://localhost/", "a=1; Domain=localhost", "http://localhost/", "a=1"),
        ("http://localhost/", "a=1; Domain=localhost", "http://x.localhost/", None),
        ("http://x.localhost/", "a=1; Domain=localhost", "http://x.localhost/", None),
        # international names
        ("https://www.münchen.example/", "a=1; Domain=xn--mnchen-3ya.example", "https://münchen.example/", "a=1"),
        ("https://www.münchen.example/", "a=1; Domain=münchen.example", "https://www.münchen.example/", None),
        ("https://bücher.example/", "a=1", "https://xn--bcher-kva.example/", "a=1"),
        # paths
        (HTTPS, "a=1", "https://www.example.com/dir", "a=1"),
        (HTTPS, "a=1", "https://www.example.com/", None),
        (HTTPS, "a=1", "https://www.example.com/dirx", None),
        (HTTPS, "a=1; Path=/", "https://www.example.com/", "a=1"),
        (HTTPS, "a=1; Path=/other", "https://www.example.com/other/x?q", "a=1"),
        (HTTPS, "a=1; Path=/other/", "https://www.example.com/other", None),
        (HTTPS, "a=1; Path=other", "https://www.example.com/dir/", "a=1"),
        (HTTPS, "a=1; Path=/other", "https://www.example.com/x?/other", None),
        ("https://www.example.com", "a=1", "https://www.example.com/any", "a=1"),
        ("https://www.example.com/p?x=/y/z", "a=1", "https://www.example.com/", "a=1"),
        # Secure
        (HTTPS, "a=1; Secure; Path=/", "https://www.example.com/", "a=1"),
        (HTTPS, "a=1; Secure; Path=/", "http://www.example.com/", None),
        (HTTP, "a=1; Secure; Path=/", "https://www.example.com/", None),
        (HTTPS, "a=1; Path=/", "http://www.example.com/", "a=1"),
        ("http://localhost/", "a=1; Secure", "https://localhost/", None),
        # HttpOnly and SameSite
        (HTTPS, "a=1; HttpOnly", HTTPS, "a=1"),
        (HTTPS, "a=1; SameSite=Strict", HTTPS, "a=1"),
        (HTTPS, "a=1; SameSite=Lax", HTTPS, "a=1"),
        (HTTPS, "a=1; SameSite=None; Secure", HTTPS, "a=1"),
        (HTTPS, "a=1; SameSite=None", HTTPS, None),
        (HTTPS, "a=1; SameSite=Other", HTTPS, "a=1"),
        # prefixes, the draft's own examples among them
        (HTTPS, "__Secure-a=1; Secure", HTTPS, "__Secure-a=1"),
        (HTTPS, "__Secure-a=1; Secure; Domain=example.com", HTTPS, "__Secure-a=1"),
        (HTTPS, "__Secure-a=1; Domain=example.com", HTTPS, None),
        (HTTPS, "__SECURE-a=1", HTTPS, None),
        (HTTPS, "__Secure=1", HTTPS, "__Secure=1"),
        (HTTPS, "__Host-a=1; Secure; Path=/", HTTPS, "__Host-a=1"),
        (HTTPS, "__HOST-a=1; Secure; Path=/", HTTPS, "__HOST-a=1"),
        (HTTPS, "__Host-a=1", HTTPS, None),
        (HTTPS, "__host-a=1; Secure", HTTPS, None),
        ("https://www.example.com/", "__Host-a=1; Secure", "https://www.example.com/", None),
        (HTTPS, "__Host-a=1; Secure; Path=/dir", HTTPS, None),
        (HTTPS, "__Host-a=1; Path=/", HTTPS, None),
        (HTTPS, "__hOsT-a=1; Secure; Domain=www.example.com; Path=/", HTTPS, None),
        ("https://co.uk/", "__Host-a=1; Secure; Domain=co.uk; Path=/", "https://co.uk/", "__Host-a=1"),
        # without a name
        (HTTPS, "=1", HTTPS, "1"),
        (HTTPS, "1", HTTPS, "1"),
        (HTTPS, "a=", HTTPS, "a="),
        (HTTPS, "=a=1", HTTPS, None),
        (HTTPS, "==1", HTTPS, None),
        (HTTPS, "=__Host-a; Secure; Path=/", HTTPS, None),
        (HTTPS, "__secure-a; Secure; Path=/", HTTPS, None),
        # as it came
        (HTTPS, 'a="x, y" z', HTTPS, 'a="x, y" z'),
        (HTTPS, "ä=ö", HTTPS, "ä=ö"),
    ],
)
def test_who_gets_it_back(origin: str, line: str, target: str, header: str | None) -> None:
    """One Set-Cookie, one later request."""
    cookies = stored((origin, line))
    assert sent(cookies, target) == header
    # Where the request came from makes no difference to what servers set.
    assert sent(cookies, target, addressed=False) == header


def test_fields_may_be_bytes_or_text_and_bad_ones_harm_nobody() -> None:
    """Each field stands alone."""
    cookies = Cookies()
    cookies.extract(URL(HTTPS), [b"a=1", "b=2", b"\xff=3", "c=\x00", "", "d=\ud800", b"e=5; Max-Age=9"])
    assert sent(cookies, HTTPS) == "a=1; b=2; e=5"


def test_longer_paths_come_first_then_older_cookies(clock: Clock) -> None:
    """An overwritten cookie keeps its place."""
    cookies = stored(
        (HTTPS, "old=1; Path=/"),
        (HTTPS, "deep=1; Path=/dir/sub"),
        (HTTPS, "mid=1; Path=/dir"),
        (HTTPS, "new=1; Path=/"),
        (HTTPS, "wide=1; Path=/; Domain=example.com"),
        (HTTPS, "old=2; Path=/"),
    )
    assert sent(cookies, "https://www.example.com/dir/sub/x") == "deep=1; mid=1; old=2; new=1; wide=1"


def test_one_name_may_be_sent_several_times() -> None:
    """With other paths, or as a host's and as a domain's."""
    cookies = stored((HTTPS, "a=1; Path=/"), (HTTPS, "a=2; Path=/dir"), (HTTPS, "a=3; Path=/; Domain=www.example.com"))
    assert sent(cookies, HTTPS) == "a=2; a=1; a=3"


@pytest.mark.parametrize(
    ("first", "second", "url", "second_is_stored"),
    [
        ("a=1; Secure; Path=/dir", "a=2; Path=/dir", HTTP, False),
        ("a=1; Secure; Path=/dir", "a=2; Path=/dir/x", HTTP, False),
        ("a=1; Secure; Path=/dir", "a=2; Path=/", HTTP, True),
        ("a=1; Secure; Path=/dir", "a=2; Path=/dirx", HTTP, True),
        ("a=1; Secure; Path=/dir", "b=2; Path=/dir", HTTP, True),
        ("a=1; Secure; Path=/dir", "a=; Max-Age=0; Path=/dir", HTTP, False),
        ("a=1; Secure; Path=/; Domain=example.com", "a=2", HTTP, False),
        ("a=1; Secure; Path=/", "a=2; Domain=example.com", HTTP, False),
        ("a=1; Secure; Path=/", "a=2; Domain=example.com", "http://other.example.com/", False),
        ("a=1; Secure; Path=/", "a=2", "http://other.example.com/", True),
        ("a=1; Secure; Path=/dir", "a=2; Path=/dir", HTTPS, True),
        ("a=1; Path=/dir", "a=2; Path=/dir", HTTP, True),
        ("a=1; Secure; Max-Age=10; Path=/dir", "a=2; Path=/dir", HTTP, False),
    ],
)
def test_http_leaves_secure_cookies_alone(first: str, second: str, url: str, second_is_stored: bool) -> None:
    """5.7, step 16: neither replaced, nor removed, nor hidden behind one that is sent before it."""
    cookies = stored((HTTPS, first))
    before = copy.copy(cookies)
    cookies.extract(URL(url), [second])
    assert (cookies != before) is second_is_stored


def test_a_secure_cookie_that_is_over_protects_nothing(clock: Clock) -> None:
    """It is as good as gone."""
    cookies = stored((HTTPS, "a=1; Secure; Max-Age=10; Path=/"))
    clock.time += 10
    cookies.extract(URL(HTTP), ["a=2; Path=/"])
    assert sent(cookies, HTTP) == "a=2"


# ---------------------------------------------------------------------------------------------------- expiry, limits


def test_a_cookie_ends_when_its_time_comes(clock: Clock) -> None:
    """For sending and for reading."""
    cookies = stored((HTTPS, "a=1; Max-Age=10"), (HTTPS, "b=2"))
    clock.time += 9.9
    assert sent(cookies, HTTPS) == "a=1; b=2"
    clock.time += 0.1
    assert sent(cookies, HTTPS) == "b=2"
    assert list(cookies) == ["b"]
    assert "a" not in cookies
    assert cookies.get("a") is None
    assert len(cookies) == 1
    assert dict(pickle.loads(pickle.dumps(cookies))) == {"b": "2"}


def test_400_days_are_the_most(clock: Clock) -> None:
    """Whatever the server says."""
    cookies = stored((HTTPS, "a=1; Max-Age=99999999999"), (HTTPS, "b=1; Expires=Fri, 31 Dec 9999 23:59:59 GMT"))
    clock.time += 400 * 86400 - 1
    assert sent(cookies, HTTPS) == "a=1; b=1"
    clock.time += 1
    assert sent(cookies, HTTPS) is None


@pytest.mark.parametrize("ending", ["Max-Age=0", "Max-Age=-1", "Expires=Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_server_removes_its_cookie_and_no_other(ending: str) -> None:
    """Name, domain, kind and path must be the same."""
    cookies = stored((HTTPS, "a=1"))
    for line in ("a=; Path=/; ", "a=; Domain=www.example.com; ", "b=; "):
        cookies.extract(URL(HTTPS), [line + ending])
    assert sent(cookies, HTTPS) == "a=1"
    cookies.extract(URL(HTTPS), ["a=; " + ending])
    assert sent(cookies, HTTPS) is None
    assert cookies.empty


def test_what_is_over_is_thrown_away_at_the_next_change(clock: Clock) -> None:
    """A store does not grow by cookies that nobody gets."""
    cookies = stored(*((f"https://h{i}.example.com/", "a=1; Max-Age=10") for i in range(20)))
    clock.time += 10
    assert not cookies.empty, "nothing has looked yet"
    cookies.extract(URL(HTTPS), ["a=; Max-Age=0"])
    assert cookies.empty
    assert cookies._state.buckets == {}


def test_what_ends_later_is_not_thrown_away_with_what_ends_now(clock: Clock) -> None:
    """Nor forgotten when its own time comes."""
    cookies = stored((HTTPS, "a=1; Max-Age=10"), (HTTPS, "b=1; Max-Age=20"), (HTTPS, "c=1"))
    for left, header in ((["b", "c"], "b=1; c=1; x=1"), (["c"], "c=1; x=1")):
        clock.time += 10
        cookies.extract(URL(HTTPS), ["x=1"])
        assert [c.name for c in cookies._state.buckets["www.example.com"]] == [*left, "x"]
        assert sent(cookies, HTTPS) == header


def test_a_domain_keeps_its_most_recently_used(clock: Clock) -> None:
    """5.7: the earliest use goes first."""
    cookies = stored(*((HTTPS, f"c{i}=1; Path=/p{i}") for i in range(MAX_PER_DOMAIN)))
    assert sent(cookies, "https://www.example.com/p0") == "c0=1", "used now"
    cookies.extract(URL(HTTPS), ["new=1"])
    assert "c0" in cookies
    assert "c1" not in cookies
    assert "new" in cookies
    assert len(cookies) == MAX_PER_DOMAIN


def test_http_cannot_push_out_secure_cookies() -> None:
    """Those that are not secure go first, the newcomer too."""
    cookies = stored(*((HTTPS, f"s{i}=1; Secure") for i in range(MAX_PER_DOMAIN - 1)))
    for i in range(5):
        cookies.extract(URL(HTTP), [f"n{i}=1"])
    assert {f"s{i}" for i in range(MAX_PER_DOMAIN - 1)} | {"n4"} == set(cookies)
    cookies.extract(URL(HTTPS), ["t=1; Secure"])
    cookies.extract(URL(HTTP), ["n9=1"])
    assert "n9" not in cookies
    assert len(cookies) == MAX_PER_DOMAIN


def test_one_domain_s_flood_leaves_others_alone() -> None:
    """A response with a thousand cookies."""
    cookies = stored(("https://other.example/", "a=1"))
    cookies.set("own", "1")
    cookies.extract(URL(HTTPS), [f"c{i}=1" for i in range(1000)])
    assert len(cookies) == MAX_PER_DOMAIN + 2
    assert sent(cookies, "https://other.example/") == "a=1; own=1"


def test_all_domains_together_keep_the_most_recently_used() -> None:
    """Beyond the whole store's bound; the caller's own without a domain do not count."""
    cookies = Cookies({"own": "1"})
    per, hosts = 30, MAX_COOKIES // 30
    for i in range(hosts):
        cookies.extract(URL(f"https://h{i}.example/"), [f"c{i}-{n}=1" for n in range(per)])
    assert len(cookies) == MAX_COOKIES + 1
    assert sent(cookies, "https://h0.example/") is not None
    cookies.extract(URL("https://new.example/"), ["n=1", "m=1"])
    assert len(cookies) == MAX_COOKIES + 1
    assert {"c0-0", "n", "m", "own"} <= set(cookies)
    assert not {"c1-0", "c1-1"} & set(cookies)
    assert "c1-2" in cookies


# -------------------------------------------------------------------------------------------- any input, any thread

_HOSTS = [
    "example.com",
    "www.example.com",
    "a.www.example.com",
    "example.org",
    "co.uk",
    "x.co.uk",
    "127.0.0.1",
    "localhost",
]
_LINES = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["a=1", "b=2", "=c", "d", "__Host-e=1", "__Secure-f=1"]),
    st.sampled_from(["", "; Secure"]),
    st.sampled_from(["", "; Path=/", "; Path=/x", "; Path=y"]),
    st.sampled_from(["", *(f"; Domain={host}" for host in _HOSTS), "; Domain=com"]),
    st.sampled_from(["", "; Max-Age=0", "; Max-Age=100", "; SameSite=None"]),
)
_URLS = st.builds(
    "{}://{}{}".format, st.sampled_from(["http", "https"]), st.sampled_from(_HOSTS), st.sampled_from(["/", "/x/y"])
)


@settings(max_examples=200)
@given(st.lists(st.tuples(_URLS, _LINES), max_size=25), _URLS)
def test_rules_that_hold_for_any_history(history: list[tuple[str, str]], target: str) -> None:
    """One cookie of a kind, nothing secure or prefixed on http, no domain that is a suffix, a header that can be sent."""
    cookies = stored(*history)
    everything = list(cookies._state.cookies())
    assert len({(c.name, c.domain, c.path, c.host_only) for c in everything}) == len(everything)
    for cookie in everything:
        assert cookie.domain not in ("com",)
        assert cookie.host_only or cookie.domain not in ("co.uk", "localhost", "127.0.0.1")
        assert cookie.secure or not cookie.name.startswith("__")
        assert not cookie.name.startswith("__Host-") or (cookie.host_only and cookie.path == "/")
    assert cookies.empty is (not everything)
    header = sent(cookies, target)
    if header is not None:
        assert header.isprintable()
        if target.startswith("http:"):
            assert "__" not in header
    assert pickle.loads(pickle.dumps(cookies)) == cookies


def test_threads_lose_nothing_and_see_whole_states() -> None:
    """Writers write each their own, readers always see both cookies of a pair or none."""
    cookies = Cookies()
    start = threading.Barrier(8)
    stop = threading.Event()
    problems: list[object] = []

    def write(n: int) -> None:
        start.wait()
        for i in range(300):
            cookies.extract(URL(f"https://h{n}.example/"), [f"a={i}", f"b={i}"])
            cookies[f"t{n}"] = str(i)
            if i % 50 == 0:
                cookies.delete("nothing")

    def read() -> None:
        start.wait()
        while not stop.is_set():
            for n in range(4):
                header = cookies.header_for(URL(f"https://h{n}.example/"), addressed=False)
                if header is not None:
                    a, _, b = header.partition("; ")
                    if a.partition("=")[2] != b.partition("=")[2]:
                        problems.append(header)
            repr(cookies)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    readers = [threading.Thread(target=read) for _ in range(4)]
    for thread in (*writers, *readers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert not problems
    for n in range(4):
        assert cookies.get(f"t{n}") == "299"
        assert cookies.header_for(URL(f"https://h{n}.example/"), addressed=False) == "a=299; b=299"


@pytest.fixture
def held() -> Iterator[Cookies]:
    """A store whose lock another thread holds until the test is over."""
    cookies = Cookies({"a": "1"})
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with cookies._lock.lock:
            holding.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait()
    yield cookies
    done.set()
    thread.join()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 and later, of threads and forks
def test_a_forked_child_uses_a_store_whose_lock_was_held(held: Cookies) -> None:
    """The thread that held it is not there; what had been published is."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            held["b"] = "2"
            held.extract(URL(HTTPS), ["c=3; Path=/"])
            status = 0 if sent(held, HTTPS) == "a=1; b=2; c=3" else 2
        finally:
            os._exit(status)
    # A child that hangs would be found by the alarm below, not by waiting for ever.
    timer = threading.Timer(30, os.kill, (child, 9))
    timer.start()
    assert os.waitpid(child, 0)[1] == 0
    timer.cancel()
    timer.join()
    assert dict(held) == {"a": "1"}, "the parent's is its own"


def test_stores_are_not_kept_alive_by_the_fork_hook() -> None:
    """It knows them weakly."""
    gc.collect()
    before = len(cookie_store._locks)
    many = [Cookies() for _ in range(10)]
    assert len(cookie_store._locks) == before + 10
    del many
    gc.collect()
    assert len(cookie_store._locks) == before
