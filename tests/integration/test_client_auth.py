"""Authentication through the clients: of a client, of a request, over redirects, with streams; both faces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import pytest

import katipo
from katipo import AsyncClient, Client
from tests.support.libcurl import system_libcurl
from tests.support.ntlm import DOMAIN, USERS
from tests.support.pattern import pattern
from tests.support.procs import run_python

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.endpoints import Endpoint
    from tests.support.kerberos import Kerberos
    from tests.support.ntlm import NtlmServer
    from tests.support.origin import Origin

BODY = pattern(0, 100_000)

Call: TypeAlias = "tuple[str, str, dict[str, Any]]"
Talk: TypeAlias = "Callable[..., list[katipo.Response]]"


def talk_blocking(*calls: Call, **options: Any) -> list[katipo.Response]:
    with Client(**options) as client:
        return [client.request(method, url, **more) for method, url, more in calls]


def talk_async(*calls: Call, **options: Any) -> list[katipo.Response]:
    async def main() -> list[katipo.Response]:
        async with AsyncClient(**options) as client:
            return [await client.request(method, url, **more) for method, url, more in calls]

    return anyio.run(main)


@pytest.fixture(params=[talk_blocking, talk_async], ids=["blocking", "async"])
def talk(request: pytest.FixtureRequest) -> Talk:
    """Sends requests in turn with one client of either face."""
    chosen: Talk = request.param
    return chosen


def get(url: str, **options: Any) -> Call:
    return "GET", url, options


def sent(response: katipo.Response) -> dict[str, str]:
    """The headers that the origin's /headers has seen."""
    return {name.lower(): value for name, value in response.json()["headers"]}


RIGHT: dict[str, tuple[str, Any]] = {
    "pair": ("/basic", ("user", "secret")),
    "basic": ("/basic", katipo.BasicAuth("user", "secret")),
    "digest": ("/digest", katipo.DigestAuth("user", "secret")),
}
WRONG: dict[str, tuple[str, Any]] = {
    "pair": ("/basic", ("user", "wrong")),
    "basic": ("/basic", katipo.BasicAuth("other", "secret")),
    "digest": ("/digest", katipo.DigestAuth("user", "wrong")),
}


@pytest.mark.parametrize("scheme", RIGHT)
def test_right_and_wrong_of_a_client_and_of_a_request(talk: Talk, origin: Origin, scheme: str) -> None:
    """A request's own counts before the client's, None switches it off, and a 401 is an answer."""
    path, right = RIGHT[scheme]
    wrong = WRONG[scheme][1]
    url = origin.strict_http + path
    calls = [get(url), get(url, auth=wrong), get(url, auth=None), get(url)]
    assert [each.status_code for each in talk(*calls, auth=right)] == [200, 401, 401, 200]
    calls = [get(url), get(url, auth=right), get(url)]
    assert [each.status_code for each in talk(*calls, auth=wrong)] == [401, 200, 401]


@pytest.mark.parametrize("scheme", RIGHT)
def test_over_every_version(endpoint: Endpoint, scheme: str) -> None:
    """HTTP/1.1, 2 and 3."""
    path, auth = RIGHT[scheme]
    version = {"1.1": {"http2": False}, "2": {"http1": False}, "3": {"http1": False, "http2": False, "http3": True}}
    options: dict[str, Any] = version[endpoint.version]
    with Client(verify=str(endpoint.options["cacert"]), **options) as client:
        answer = client.post(endpoint(path), auth=auth, content=BODY)
    assert (answer.status_code, answer.content) == (200, BODY)
    assert answer.http_version == endpoint.http_version


def test_headers_of_each_scheme(talk: Talk, origin: Origin, tmp_path: Path) -> None:
    """As the server sees them."""
    url = origin.strict_http + "/headers"
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login ann password word\n")
    tokens = iter(["one", "two"])
    renewed = katipo.BearerAuth(lambda: next(tokens))
    calls = [get(url, auth=auth) for auth in (katipo.BearerAuth("t"), renewed, renewed, katipo.NetRCAuth(netrc))]
    seen = [sent(each)["authorization"] for each in talk(*calls)]
    assert seen == ["Bearer t", "Bearer one", "Bearer two", "Basic YW5uOndvcmQ="]


def test_netrc_is_not_read_unless_it_is_asked_for(
    talk: Talk, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither Python nor libcurl looks at it by itself."""
    (tmp_path / ".netrc").write_text("machine localhost login ann password word\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    url = origin.strict_http + "/headers"
    plain, asked = talk(get(url), get(url, auth=katipo.NetRCAuth()))
    assert "authorization" not in sent(plain)
    assert "authorization" in sent(asked)


def test_a_function_changes_each_request(talk: Talk, origin: Origin) -> None:
    """A callable is an auth."""

    def sign(request: katipo.Request) -> katipo.Request:
        request.headers["X-Signature"] = request.url.path
        return request

    (answer,) = talk(get(origin.strict_http + "/headers", auth=sign))
    assert sent(answer)["x-signature"] == "/headers"


def test_a_flow_of_ones_own_may_send_again(talk: Talk, origin: Origin) -> None:
    """It gets each response, its body too if it says so; what came before the last is history."""

    class Second(katipo.Auth):
        requires_response_body = True

        def auth_flow(self, request: katipo.Request) -> Any:
            response = yield request
            assert response.content == b"not you"
            yield from katipo.BasicAuth("user", "secret").auth_flow(request)

    (answer,) = talk(("POST", origin.strict_http + "/basic", {"auth": Second(), "content": BODY}))
    assert (answer.status_code, answer.content) == (200, BODY)
    assert [each.status_code for each in answer.history] == [401]


def test_a_flow_may_ask_for_a_token_first(talk: Talk, origin: Origin) -> None:
    """A request that the flow makes has its own body, and none of the call's; the call's goes up once, after it."""

    class Token(katipo.Auth):
        requires_response_body = True

        def auth_flow(self, request: katipo.Request) -> Any:
            url = origin.strict_http + "/upload"
            response = yield katipo.Request("POST", url, headers={"Content-Type": "text/x"}, content=b"grant")
            seen = response.json()
            assert seen["length"] == 5
            assert "cookie" not in {name.lower() for name, _ in seen["headers"]}
            request.headers["X-Token"] = seen["sha256"]
            yield request

    url = origin.http + "/upload"
    bodies: tuple[Any, ...] = (BODY, [BODY], iter([BODY]), None)
    options: dict[str, Any] = {"auth": Token(), "cookies": {"call": "own"}}
    answers = talk(*(("PUT", url, {**options, "content": body}) for body in bodies), cookies={"any": "where"})
    assert [each.json()["length"] for each in answers] == [len(BODY)] * 3 + [0]
    assert all("x-token" in sent(each) and "call=own" in sent(each)["cookie"] for each in answers)


def test_a_function_may_send_another_request(talk: Talk, origin: Origin) -> None:
    """With its body, method and URL."""

    def another(_: katipo.Request) -> katipo.Request:
        return katipo.Request("POST", origin.strict_http + "/upload", content=b"another")

    (answer,) = talk(get(origin.strict_http + "/headers", auth=another))
    assert answer.json()["length"] == 7
    assert answer.request.method == "POST"


def test_a_flow_may_send_a_cookie(talk: Talk, origin: Origin) -> None:
    """As a header of the caller's own, it is all that is sent."""

    def with_session(request: katipo.Request) -> katipo.Request:
        request.headers["Cookie"] = "session=own"
        return request

    (answer,) = talk(get(origin.strict_http + "/headers", auth=with_session), cookies={"a": "b"})
    assert sent(answer)["cookie"] == "session=own"


class _NoFlow(katipo.Auth):
    def auth_flow(self, request: katipo.Request) -> Any:
        yield from ()


class _NoRequest(katipo.Auth):
    def auth_flow(self, request: katipo.Request) -> Any:
        yield None


@pytest.mark.parametrize("auth", [_NoFlow(), _NoRequest()], ids=["nothing", "None"])
def test_a_flow_that_yields_no_request_is_refused(talk: Talk, origin: Origin, auth: katipo.Auth) -> None:
    """Before anything is sent."""
    with pytest.raises(katipo.BadOptions, match=r"^auth: the flow "):
        talk(get(origin.strict_http + "/headers", auth=auth))


def test_the_signature_is_of_what_is_sent(talk: Talk, origin: Origin) -> None:
    """Made again from what the origin has received: path, query, headers, and the hash of the body."""
    from katipo import _sigv4

    auth = katipo.AWSSigV4Auth("AK", "SK", region="eu-central-1", service="es")
    url = origin.strict_http + "/headers/a%20b?x=1&y=a+b&x=%C3%A9"
    (answer,) = talk(
        ("POST", url, {"auth": auth, "content": BODY, "headers": {"X-Mine": "  1 "}, "cookies": {"a": "b"}})
    )
    received = answer.json()
    headers = [(name.lower().encode(), value.encode()) for name, value in received["headers"]]
    given = sent(answer)["authorization"]
    names = given.partition("SignedHeaders=")[2].partition(",")[0].encode().split(b";")
    assert {b"host", b"x-amz-date", b"x-mine"} <= set(names)
    made = _sigv4.authorization(
        "AK",
        "SK",
        _sigv4.Scope(sent(answer)["x-amz-date"], "eu-central-1", "es"),
        method="POST",
        target=f"{received['path']}?{received['query']}".encode(),
        headers=[(name, value) for name, value in headers if name in names],
        hashed=hashlib.sha256(BODY).hexdigest(),
    )
    assert made == given


def test_a_stream_cannot_be_signed_unless_its_hash_is_given(talk: Talk, origin: Origin) -> None:
    """Refused before anything is sent."""
    auth = katipo.AWSSigV4Auth("AK", "SK", region="r", service="s3")
    name = origin.fresh_id()
    url = f"{origin.strict_http}/upload?id={name}"
    with pytest.raises(katipo.BadOptions, match="X-Amz-Content-SHA256"):
        talk(("PUT", url, {"auth": auth, "content": iter([BODY])}))
    headers = {"X-Amz-Content-SHA256": hashlib.sha256(BODY).hexdigest()}
    (answer,) = talk(("PUT", url, {"auth": auth, "content": iter([BODY]), "headers": headers}))
    assert answer.json()["sha256"] == headers["X-Amz-Content-SHA256"]
    assert origin.journal(name).count == 1


def test_an_exchange_is_authenticated_with_its_first_request(origin: Origin) -> None:
    """Its body is not known then, so a signature takes its hash from the caller too."""
    auth = katipo.AWSSigV4Auth("AK", "SK", region="r", service="es")
    with Client() as client:
        with client.exchange("POST", origin.strict_http + "/basic", auth=("user", "secret")) as exchange:
            exchange.send(BODY)
            exchange.finish()
            assert exchange.response().status_code == 200
        with client.exchange(
            "POST", origin.strict_http + "/digest", auth=katipo.DigestAuth("user", "secret")
        ) as exchange:
            exchange.send(BODY)
            exchange.finish()
            assert exchange.response().status_code == 200
        with (
            pytest.raises(katipo.BadOptions, match="X-Amz-Content-SHA256"),
            client.exchange("POST", origin.strict_http + "/echo", auth=auth),
        ):
            pass


def test_digest_sends_an_iterator_once(talk: Talk, origin: Origin) -> None:
    """libcurl asks for the challenge with an empty body: what can be read once only is enough."""

    def pieces() -> Iterator[bytes]:
        for offset in range(0, len(BODY), 10_000):
            yield BODY[offset : offset + 10_000]

    name = origin.fresh_id()
    url = f"{origin.strict_http}/digest?id={name}"
    (answer,) = talk(("POST", url, {"auth": katipo.DigestAuth("user", "secret"), "content": pieces()}))
    assert (answer.status_code, answer.content) == (200, BODY)
    assert origin.journal(name).received == len(BODY)


@pytest.mark.parametrize(
    "auth",
    [("ann", "word"), katipo.BearerAuth("t"), katipo.DigestAuth("user", "secret")],
    ids=["basic", "bearer", "digest"],
)
def test_a_redirect_to_another_origin_drops_it(talk: Talk, origin: Origin, auth: Any) -> None:
    """Whether the client's or the request's own; in one origin it stays. Another port is another origin."""
    here, there = origin.strict_http, origin.http
    path = "/digest" if isinstance(auth, katipo.DigestAuth) else "/headers"

    def redirected(target: str) -> str:
        return f"{here}/redirect/307?to={target}{path}"

    def let_in(response: katipo.Response) -> bool:
        return response.status_code == 200 and (path == "/digest" or "authorization" in sent(response))

    for of_client, of_request in (({"auth": auth}, {}), ({}, {"auth": auth})):
        calls = [get(redirected(target), **of_request) for target in ("", here, there)]
        answers = talk(*calls, follow_redirects=True, **of_client)
        assert [let_in(each) for each in answers] == [True, True, False]
        assert [len(each.history) for each in answers] == [1, 1, 1]


def test_userinfo_is_basic_where_there_is_no_auth(talk: Talk, origin: Origin) -> None:
    """An auth that is given counts before it."""
    url = (origin.strict_http + "/basic").replace("//", "//user:secret@")
    answers = talk(get(url), get(url, auth=("user", "wrong")))
    assert [each.status_code for each in answers] == [200, 401]


@pytest.mark.parametrize("value", ["user:hunter2", ["user", "hunter2"], ("user", "hunter2", "x"), 1, katipo.BasicAuth])
def test_what_is_no_auth_is_refused(talk: Talk, origin: Origin, value: Any) -> None:
    """For a client and for a request, without showing it."""
    url = origin.strict_http + "/headers"
    for of_client, of_request in (({"auth": value}, {}), ({}, {"auth": value})):
        with pytest.raises(katipo.BadOptions, match=r"^auth: ") as caught:
            talk(get(url, **of_request), **of_client)
        assert "hunter2" not in repr(caught.value)


# ------------------------------------------------------------------------------------------------ of a connection

PROGRAM = """
import anyio, json, os, sys
import katipo
from katipo import AsyncClient, Client
settings = json.loads(sys.argv[1])
url = settings["url"]
"""

KERBEROS = """
def seen(response):
    headers = {name.lower(): value for name, value in response.json()["headers"]}
    print(headers["x-remote-user"], headers["x-client-port"])
async def main():
    async with AsyncClient(auth=katipo.NegotiateAuth()) as client:
        seen(await client.get(url))
        print((await client.get(url, auth=None)).status_code, 0)
with Client(auth=katipo.NegotiateAuth()) as client:
    for user in ("alice", "bob") * 2:
        os.environ["KRB5CCNAME"] = settings["caches"][user]
        seen(client.get(url))
    print(client.get(url, auth=None).status_code, 0)
anyio.run(main)
"""


@pytest.mark.parametrize("path", ["/each/headers", "/bound/headers"])
def test_negotiate_through_the_clients(kerberos: Kerberos, path: str) -> None:
    """Each ticket cache has its connection, and no ticket goes where it is switched off."""
    settings = {"url": kerberos.url + path, "caches": {user: kerberos.cache(user) for user in ("alice", "bob")}}
    done = run_python(PROGRAM + KERBEROS, env=kerberos.env("alice"), args=[json.dumps(settings)], timeout=60)
    assert done.status == 0, done.stderr
    users, ports = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    alice, bob = "alice@KATIPO.TEST", "bob@KATIPO.TEST"
    assert users == (alice, bob, alice, bob, "401", bob, "401")
    assert ports[0] == ports[2] != ports[1] == ports[3]


NTLM = """
ann, bob = (katipo.NTLMAuth(settings["domain"] + "\\\\" + user, settings["users"][user]) for user in ("ann", "bob"))
def tell(response):
    print(json.dumps([response.status_code, response.json()["user"]]))
async def main():
    async with AsyncClient(auth=ann) as client:
        for more in ({}, {"auth": bob}, {"auth": None}, {"auth": katipo.NTLMAuth("x", "y")}, {}):
            tell(await client.post(url, content=iter([b"x" * 100_000]), **more))
with Client(auth=ann) as client:
    for more in ({}, {"auth": bob}, {"auth": None}, {"auth": katipo.NTLMAuth("x", "y")}, {}):
        tell(client.post(url, content=iter([b"x" * 100_000]), **more))
anyio.run(main)
"""


def test_ntlm_through_the_clients(ntlm: NtlmServer) -> None:
    """Two users, nobody, and a wrong password, each on connections of its own, with a body that can be read once."""
    settings = {"url": ntlm.url, "domain": DOMAIN, "users": USERS}
    env = {"KATIPO_LIBCURL": system_libcurl()}
    done = run_python(PROGRAM + NTLM, env=env, args=[json.dumps(settings)], timeout=60)
    assert done.status == 0, done.stderr
    ann, bob = [200, f"{DOMAIN}\\ann"], [200, f"{DOMAIN}\\bob"]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [ann, bob, [401, None], [401, None], ann] * 2
