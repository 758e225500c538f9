"""Fixtures: servers for the session, pools for the test, and the check that nothing is left over. See support/README.md."""

import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

import pytest
import uvloop

import katipo
from katipo import _engine
from tests.support import hostile as hostile_module
from tests.support.caddy import Caddy, start_caddy
from tests.support.certs import Certificates, make_certificates
from tests.support.clients import FACES, ClientMaker
from tests.support.endpoints import VERSIONS, Endpoint
from tests.support.hostile import BlackHole, Script, ScriptedServer
from tests.support.httpbin import Httpbin, start_httpbin
from tests.support.kerberos import Kerberos, start_kerberos
from tests.support.nginx import Nginx, start_nginx
from tests.support.ntlm import NtlmServer, start_ntlm
from tests.support.origin import Origin, start_origin
from tests.support.processes import servers_required
from tests.support.procs import open_descriptors
from tests.support.proxy import HTTPProxy, SocksProxy, Tinyproxy, start_tinyproxy


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a missing server is a failure, so is whatever else keeps a test from running."""
    report = yield
    if report.skipped and servers_required():
        report.outcome, report.longrepr = "failed", f"skipped, where nothing may be: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole file."""
    report = yield
    if report.skipped and servers_required():
        report.outcome, report.longrepr = "failed", f"skipped, where nothing may be: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """At the end of the session the engine has no live object and this process no descriptor that it did not have before."""
    # Made before every other session fixture, so checked after all of them have ended.
    uvloop.new_event_loop().close()  # libuv keeps a pipe for as long as the process lives
    before = open_descriptors()
    yield
    if request.session.testsfailed:
        return  # the failures' tracebacks keep alive what their frames held
    for item in request.session.items:
        (getattr(item, "funcargs", None) or {}).clear()  # pytest keeps those of the last test until after this
    gc.collect()
    alive = {name: count for name, count in _engine.counts().items() if count}
    assert not alive, f"the engine's live objects at the end: {alive}"
    after = open_descriptors()
    new = [what for number, what in after.items() if before.get(number) != what]
    assert len(after) <= len(before), f"descriptors left over: {Counter(new)}"


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of asynchronous tests that do not choose."""
    return "asyncio"


# Servers


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The tests' CA and its certificates."""
    return make_certificates(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory, certs: Certificates) -> Iterator[Origin]:
    """Our application, behind hypercorn and behind strict front ends."""
    server = start_origin(tmp_path_factory.mktemp("origin"), certs)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def httpbin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Httpbin]:
    """httpbin, plain HTTP/1.1."""
    server = start_httpbin(tmp_path_factory.mktemp("httpbin"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory, certs: Certificates, httpbin: Httpbin) -> Iterator[Nginx]:
    """nginx in front of httpbin."""
    server = start_nginx(tmp_path_factory.mktemp("nginx"), certs, httpbin.port)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def caddy(tmp_path_factory: pytest.TempPathFactory, certs: Certificates, httpbin: Httpbin) -> Iterator[Caddy]:
    """Caddy in front of httpbin."""
    server = start_caddy(tmp_path_factory.mktemp("caddy"), certs, httpbin.port)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def tinyproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tinyproxy]:
    """A real forward proxy."""
    server = start_tinyproxy(tmp_path_factory.mktemp("tinyproxy"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def kerberos(origin: Origin) -> Iterator[Kerberos]:
    """A KDC, and Apache in front of the origin, which takes its tickets."""
    server = start_kerberos(origin.strict_http)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def ntlm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NtlmServer]:
    """A server that wants NTLM."""
    server = start_ntlm(tmp_path_factory.mktemp("ntlm"))
    yield server
    server.stop()


# The same test over each version


@pytest.fixture(params=VERSIONS)
def endpoint(request: pytest.FixtureRequest, origin: Origin, certs: Certificates) -> Endpoint:
    """The origin's strict front end over HTTP/1.1, 2 and 3, over TLS."""
    return Endpoint.make(origin.strict_https, request.param, certs.ca)


@pytest.fixture(params=VERSIONS)
def hypercorn(request: pytest.FixtureRequest, origin: Origin, certs: Certificates) -> Endpoint:
    """The origin on hypercorn over HTTP/1.1, 2 and 3, over TLS."""
    return Endpoint.make(origin.https, request.param, certs.ca)


@pytest.fixture(params=VERSIONS)
def web(request: pytest.FixtureRequest, certs: Certificates) -> Endpoint:
    """httpbin behind nginx (1.1 without TLS, 2 with it) and Caddy (3)."""
    if request.param == "3":
        caddy: Caddy = request.getfixturevalue("caddy")
        return Endpoint.make(caddy.https, "3", certs.ca)
    nginx: Nginx = request.getfixturevalue("nginx")
    return Endpoint.make(nginx.http if request.param == "1.1" else nginx.https, request.param, certs.ca)


# Servers of one test


class Hostile(Protocol):
    """The type of the fixture `hostile`."""

    def __call__(self, *scripts: Script, then: Script | None = None, **options: Any) -> ScriptedServer:
        """Start a scripted server; the options are those of `ScriptedServer`."""
        ...

    def black_hole(self) -> BlackHole:
        """An address whose connects never complete."""
        ...

    def refused_port(self) -> int:
        """A port that refuses connections."""
        ...


class _HostileFactory:
    def __init__(self, held: contextlib.ExitStack) -> None:
        self._held = held

    def __call__(self, *scripts: Script, then: Script | None = None, **options: Any) -> ScriptedServer:
        server = ScriptedServer(*scripts, then=then, **options)
        self._held.callback(server.close)
        return server

    def black_hole(self) -> BlackHole:
        return self._held.enter_context(BlackHole())

    def refused_port(self) -> int:
        return self._held.enter_context(hostile_module.refused_port())


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    """Starts scripted servers, which end with the test; what their scripts raised fails it."""
    with contextlib.ExitStack() as held:
        yield _HostileFactory(held)


@pytest.fixture
def http_proxy() -> Iterator[Callable[..., HTTPProxy]]:
    """Starts HTTP proxies, which end with the test; the arguments are those of `HTTPProxy`."""
    with contextlib.ExitStack() as held:
        yield lambda **options: held.enter_context(HTTPProxy(**options))


@pytest.fixture
def socks_proxy() -> Iterator[Callable[..., SocksProxy]]:
    """Starts SOCKS5 proxies, which end with the test; the arguments are those of `SocksProxy`."""
    with contextlib.ExitStack() as held:
        yield lambda **options: held.enter_context(SocksProxy(**options))


# Pools


@pytest.fixture
def make_pool() -> Iterator[Callable[..., katipo.Pool]]:
    """Makes pools, which are closed with the test; the arguments are those of `katipo.Pool`."""
    with contextlib.ExitStack() as held:

        def make(*args: Any, **options: Any) -> katipo.Pool:
            return held.enter_context(katipo.Pool(*args, **options))

        yield make


@pytest.fixture
def pool(make_pool: Callable[..., katipo.Pool]) -> katipo.Pool:
    """A pool with its defaults."""
    return make_pool()


# Clients


@pytest.fixture(params=FACES)
def clients(request: pytest.FixtureRequest) -> Iterator[ClientMaker]:
    """Makes clients, which are closed with the test: `Client` in one run, `AsyncClient` in another."""
    with ClientMaker(request.param) as make:
        yield make
