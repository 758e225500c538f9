"""The module-level functions, and several clients on one pool."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from katipo import _api
from tests.support.hostile import response, serve_forever
from tests.support.procs import run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Hostile
    from tests.support.certs import Certificates
    from tests.support.clients import ClientMaker
    from tests.support.endpoints import Endpoint
    from tests.support.nginx import Nginx
    from tests.support.origin import Origin
    from tests.support.proxy import HTTPProxy

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module-level functions with a process-wide pool of the test's, and no proxies in the environment."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(_api, "_shared", {})
    yield katipo
    pool = _api._shared.get("pool")
    if pool is not None:
        import atexit

        atexit.unregister(pool.close)
        pool.close()


# The functions


@pytest.mark.core
@pytest.mark.parametrize("method", ["get", "head", "options", "post", "put", "patch", "delete"])
def test_each_function_sends_its_method(api: Any, endpoint: Endpoint, method: str) -> None:
    """With the arguments of a request and those of the client that is made for it."""
    options = {**endpoint.client_options, "params": {"a": "1"}, "headers": {"X-A": "b"}, "timeout": 10}
    answer = getattr(api, method)(endpoint("/headers"), **options)
    assert (answer.status_code, answer.http_version) == (200, endpoint.http_version)
    assert answer.request.method == method.upper()
    if method != "head":
        seen = answer.json()
        assert (seen["method"], seen["query"]) == (method.upper(), "a=1")
        assert [value for name, value in seen["headers"] if name.lower() == "x-a"] == ["b"]
    assert api.request(method, endpoint("/headers"), **endpoint.client_options).status_code == 200


def test_they_take_what_a_client_takes(api: Any, origin: Origin) -> None:
    """Redirects, auth, cookies, bodies, encodings."""
    base = origin.strict_http
    answer = api.get(f"{base}/redirect/302?to=/headers", follow_redirects=True, auth=("u", "p"), cookies={"a": "1"})
    seen = {name.lower(): value for name, value in answer.json()["headers"]}
    assert (seen["authorization"], seen["cookie"]) == ("Basic dTpw", "a=1")
    assert len(answer.history) == 1
    with pytest.raises(katipo.TooManyRedirects):
        api.get(f"{base}/redirect/302?to=/headers", follow_redirects=True, max_redirects=0)
    assert api.post(f"{base}/echo", json=[1]).json() == [1]
    assert api.post(f"{base}/echo", content=[b"a", b"b"]).content == b"ab"
    assert api.post(f"{base}/echo", content="ä".encode("latin-1"), default_encoding="latin-1").text == "ä"
    with pytest.raises(katipo.ResponseTooLarge):
        api.get(f"{base}/big?size=100", max_response_bytes=99)


def test_stream(api: Any, endpoint: Endpoint) -> None:
    """A context manager, as the client's; leaving it early cancels the rest."""
    with api.stream("GET", endpoint("/big", size=100_000), **endpoint.client_options) as streamed:
        assert sum(map(len, streamed.iter_bytes())) == 100_000
    with api.stream("GET", endpoint("/hang", stage="body"), **endpoint.client_options) as streamed:
        assert streamed.status_code == 200
    assert streamed.is_closed


def test_one_pool_keeps_connections(api: Any, endpoint: Endpoint) -> None:
    """Calls share connections, where they may."""
    ports = {api.get(endpoint("/count"), **endpoint.client_options).metrics.local_port for _ in range(3)}
    assert len(ports) == 1
    assert _api._shared["pool"].statistics().connections == 1


def test_no_cookie_outlives_a_call(api: Any, origin: Origin) -> None:
    """Not even one of the same host; within a call, redirects have them."""
    base = origin.strict_http
    assert dict(api.get(f"{base}/cookies/set?a=1").cookies) == {"a": "1"}
    assert api.get(f"{base}/cookies", cookies={"b": "2"}).json()["cookies"] == {"b": "2"}
    assert api.get(f"{base}/cookies").json()["cookies"] == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "http://x/"}, "base_url"),
        ({"allow_redirects": True}, "did you mean follow_redirects"),
        ({"no_such": 1}, "no_such"),
        ({"http1": False, "http2": False}, "http1"),
        ({"verify": "/no/such"}, "verify"),
        ({"timeout": "x"}, "timeout"),
    ],
)
def test_wrong_arguments_are_named(api: Any, options: dict[str, Any], message: str) -> None:
    """Before anything is sent."""
    with pytest.raises(katipo.BadOptions, match=message):
        api.get("http://localhost/", **options)
    with pytest.raises(katipo.BadOptions, match=message), api.stream("GET", "http://localhost/", **options):
        pass


def test_the_environment_is_read_by_each_call(
    api: Any, hostile: Hostile, http_proxy: Callable[..., HTTPProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies come and go; NO_PROXY, "" and trust_env=False go around them."""
    proxy = http_proxy()
    server = hostile(then=serve_forever(response(b"ok", headers=[("Connection", "close")])))
    url = server.url
    assert api.get(url).content == b"ok"
    assert len(proxy.requests) == 0
    monkeypatch.setenv("http_proxy", proxy.url)
    assert api.get(url).content == b"ok"
    assert len(proxy.requests) == 1
    assert api.get(url, proxy="").content == b"ok"
    assert api.get(url, trust_env=False).content == b"ok"
    monkeypatch.setenv("no_proxy", "localhost")
    assert api.get(url).content == b"ok"
    assert len(proxy.requests) == 1
    monkeypatch.delenv("no_proxy")
    assert api.get(url).content == b"ok"
    assert len(proxy.requests) == 2
    monkeypatch.delenv("http_proxy")
    assert api.get(url).content == b"ok"
    assert len(proxy.requests) == 2


def test_verification_is_each_calls_own(api: Any, nginx: Nginx, certs: Certificates) -> None:
    """A call that does not verify opens no door for one that does."""
    url = f"{nginx.self_signed}/return/204"
    assert api.get(url, verify=False).status_code == 204
    with pytest.raises(katipo.TLSError):
        api.get(url, verify=str(certs.ca))
    assert api.get(url, verify=False).status_code == 204


@pytest.mark.core
def test_a_program_of_functions(origin: Origin) -> None:
    """The first call comes from sixteen threads at once: there is one pool, which is closed at exit, and no warning."""
    program = """
import sys, threading
import katipo
from katipo import _api
url = sys.argv[1]
assert not _api._shared
barrier = threading.Barrier(16)
answers = []
def work():
    barrier.wait()
    answers.append(katipo.get(url + "/count").status_code)
threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert answers == [200] * 16, answers
pool = _api._shared["pool"]
assert pool.statistics().completed == 16
assert katipo.post(url + "/echo", content=iter([b"x"])).content == b"x"
with katipo.stream("GET", url + "/big?size=5000000") as streamed:
    next(streamed.iter_bytes())
left = katipo.stream("GET", url + "/hang?stage=body")
print(left.__enter__().status_code)
import atexit
atexit.register(lambda: print("last", katipo.get(url + "/count").status_code))
"""
    ended = run_python(
        program,
        env=dict.fromkeys((*PROXIES, *map(str.upper, PROXIES)), ""),
        args=[origin.strict_http],
        options=["-X", "dev", "-W", "error"],
    )
    assert (ended.status, ended.stdout, ended.stderr) == (0, "200\nlast 200\n", "")


# Several clients on one pool


def test_a_given_pool_stays_open(clients: ClientMaker, endpoint: Endpoint) -> None:
    """Closing a client closes the client; what others have in flight goes on."""
    with katipo.Pool() as pool:
        first, second = (clients(pool=pool, **endpoint.client_options) for _ in range(2))
        assert first.get(endpoint("/count")).status_code == 200
        with second.stream("GET", endpoint("/big", size=1_000_000)) as streamed:
            first.close()
            assert len(streamed.read()) == 1_000_000
        with pytest.raises(katipo.PoolClosed):
            first.get(endpoint("/count"))
        assert second.get(endpoint("/count")).status_code == 200
        second.close()
        assert pool.get(endpoint("/count"), **endpoint.options).status_code == 200


@pytest.mark.parametrize(
    ("options", "named"),
    [({"workers": 2}, "workers"), ({"limits": katipo.Limits(max_connections=5)}, "limits"), ({"pool": 1}, "pool")],
)
def test_a_given_pool_has_its_own_limits(clients: ClientMaker, options: dict[str, Any], named: str) -> None:
    """Those of the client beside it are refused, for they would do nothing."""
    with katipo.Pool() as pool, pytest.raises(katipo.BadOptions, match=named):
        clients(**{"pool": pool, **options})


def test_a_closed_pool_closes_its_clients(clients: ClientMaker, origin: Origin) -> None:
    """PoolClosed from each call."""
    pool = katipo.Pool()
    client = clients(pool=pool)
    pool.close()
    with pytest.raises(katipo.PoolClosed):
        client.get(f"{origin.strict_http}/count")
    with pytest.raises(katipo.PoolClosed):
        client.get(f"{origin.strict_http}/count", params={"a": "1"})


def test_settings_of_clients_stay_apart(clients: ClientMaker, endpoint: Endpoint) -> None:
    """Headers, auth, base URLs, params, encodings, redirects: two clients on one connection."""
    with katipo.Pool() as pool:
        common: dict[str, Any] = {"pool": pool, "base_url": endpoint(""), **endpoint.client_options}
        first = clients(headers={"X-A": "1"}, auth=("u", "p"), params={"a": "1"}, follow_redirects=True, **common)
        second = clients(headers={"User-Agent": None}, **common)
        for _ in range(2):
            one, two = first.get("/headers"), second.get("/headers")
            assert one.metrics.local_port == two.metrics.local_port
            a, b = ({name.lower(): value for name, value in each.json()["headers"]} for each in (one, two))
            assert (a["x-a"], a["authorization"], one.json()["query"]) == ("1", "Basic dTpw", "a=1")
            assert not b.keys() & {"x-a", "authorization", "user-agent"}
            assert two.json()["query"] == ""
            assert first.get("/redirect/302?to=/count").status_code == 200
            assert second.get("/redirect/302?to=/count").status_code == 302
        first.close()
        second.close()


def test_trust_of_clients_stays_apart(clients: ClientMaker, nginx: Nginx, certs: Certificates) -> None:
    """A connection that one client did not verify, or that has its certificate, is not another's."""
    with katipo.Pool() as pool:
        blind = clients(pool=pool, verify=False)
        strict = clients(pool=pool, verify=str(certs.ca))
        known = clients(pool=pool, verify=str(certs.ca), cert=(str(certs.client.cert), str(certs.client.key)))
        for _ in range(2):
            assert blind.get(f"{nginx.self_signed}/return/204").status_code == 204
            with pytest.raises(katipo.TLSError):
                strict.get(f"{nginx.self_signed}/return/204")
            assert known.get(f"{nginx.https}/client-cert").text.startswith("SUCCESS")
            assert strict.get(f"{nginx.https}/client-cert").text.strip() == "NONE"
        for client in (blind, strict, known):
            client.close()


def test_both_faces_on_one_pool(origin: Origin) -> None:
    """A blocking client in a thread and an asynchronous one in a loop share connections."""
    import asyncio

    with katipo.Pool() as pool:
        url = f"{origin.strict_http}/count"
        statuses: list[int] = []

        def blocking() -> None:
            with katipo.Client(pool=pool, trust_env=False) as client:
                statuses.extend(client.get(url).status_code for _ in range(20))

        async def looping() -> None:
            async with katipo.AsyncClient(pool=pool, trust_env=False) as client:
                answers = await asyncio.gather(*(client.get(url) for _ in range(20)))
                statuses.extend(answer.status_code for answer in answers)

        thread = threading.Thread(target=blocking)
        thread.start()
        asyncio.run(looping())
        thread.join(30)
        assert statuses == [200] * 40
        assert pool.statistics().completed == 40
