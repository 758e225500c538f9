"""Basic and Digest, right and wrong, and the schemes that this libcurl may lack."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.hostile import response, serve
from tests.support.pattern import pattern

if TYPE_CHECKING:
    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint
    from tests.support.httpbin import Httpbin
    from tests.support.origin import Origin

BODY = pattern(0, 30_000)


@pytest.mark.parametrize("scheme", ["basic", "digest"])
@pytest.mark.parametrize("options", [{"username": "user", "password": "secret"}, {"userpwd": "user:secret"}])
def test_right_credentials_are_let_in(
    pool: katipo.Pool, endpoint: Endpoint, scheme: Any, options: dict[str, str]
) -> None:
    """With the right user and password the server answers 200, a body included."""
    answer = pool.post(endpoint(f"/{scheme}"), http_auth=scheme, body=BODY, **endpoint.options, **options)  # type: ignore[arg-type]
    assert (answer.status_code, answer.content) == (200, BODY)


@pytest.mark.parametrize("scheme", ["basic", "digest"])
@pytest.mark.parametrize("userpwd", ["user:wrong", "other:secret", "user:", "user"])
def test_wrong_credentials_get_a_401(pool: katipo.Pool, endpoint: Endpoint, scheme: Any, userpwd: str) -> None:
    """With a wrong user or password the server's 401 is the response, not an error, and not a loop."""
    answer = pool.get(endpoint(f"/{scheme}"), http_auth=scheme, userpwd=userpwd, **endpoint.options)
    assert (answer.status_code, answer.content) == (401, b"not you")
    assert answer.headers["www-authenticate"].lower().startswith(scheme)


@pytest.mark.parametrize("scheme", ["basic", "digest"])
def test_no_credentials_get_a_401(pool: katipo.Pool, endpoint: Endpoint, scheme: str) -> None:
    """Without credentials nothing is tried."""
    assert pool.get(endpoint(f"/{scheme}"), **endpoint.options).status_code == 401


def test_digest_without_qop(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The old form of Digest, of RFC 2069, is spoken too."""
    url = endpoint("/digest", qop="none")
    assert pool.get(url, http_auth="digest", userpwd="user:secret", **endpoint.options).status_code == 200
    assert pool.get(url, http_auth="digest", userpwd="user:wrong", **endpoint.options).status_code == 401


def digest_options(endpoint: Endpoint, password: str = "secret") -> Any:
    return {**endpoint.options, **katipo.DigestAuth("user", password).pool_options(katipo.URL(endpoint.base))}


@pytest.mark.parametrize("algorithm", ["MD5", "MD5-sess", "SHA-256", "SHA-256-sess"])
def test_digest_has_the_algorithms_that_are_in_use(pool: katipo.Pool, endpoint: Endpoint, algorithm: str) -> None:
    """Those of RFC 7616, but for SHA-512/256, right and wrong."""
    url = endpoint("/digest", algorithm=algorithm)
    assert pool.get(url, **digest_options(endpoint)).status_code == 200
    assert pool.get(url, **digest_options(endpoint, "wrong")).status_code == 401


@pytest.mark.parametrize("qop", ["auth", "none"])
def test_digest_sends_a_streamed_body_once(pool: katipo.Pool, endpoint: Endpoint, origin: Origin, qop: str) -> None:
    """The first round is empty: what is streamed is still there when the challenge has been answered."""
    name = origin.fresh_id()
    handle = pool.async_post(endpoint("/digest", id=name, qop=qop), stream_body=True, **digest_options(endpoint))
    for offset in range(0, len(BODY), 10_000):
        handle.send_body(BODY[offset : offset + 10_000])
    handle.finish_body()
    answer = handle.result()
    assert (answer.status_code, answer.content) == (200, BODY)
    entry = origin.journal(name)
    assert (entry.count, entry.received) == (2, len(BODY))


def test_digest_has_sha_256_with_httpbin(pool: katipo.Pool, httpbin: Httpbin) -> None:
    """A second opinion."""
    url = f"{httpbin.url}/digest-auth/auth/me/word/SHA-256"
    for password, code in (("word", 200), ("worse", 401)):
        options: Any = katipo.DigestAuth("me", password).pool_options(katipo.URL(url))
        assert pool.get(url, **options).status_code == code


def test_real_servers_agree(pool: katipo.Pool, web: Endpoint) -> None:
    """httpbin's Basic and Digest take the right credentials and refuse the wrong ones."""
    for scheme, path in (("basic", "/basic-auth/me/word"), ("digest", "/digest-auth/auth/me/word")):
        for password, code in (("word", 200), ("worse", 401)):
            options: Any = {"http_auth": scheme, "username": "me", "password": password, **web.options}
            # httpbin's Digest wants its cookies back, which libcurl sees to between the rounds.
            assert pool.get(web(path), **options).status_code == code, (scheme, password)


def test_credentials_without_a_scheme_are_basic(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """User and password alone go out as Basic, at once."""
    name = f"auth-{endpoint.version}-plain"
    url = endpoint("/basic", id=name)
    assert pool.get(url, username="user", password="secret", **endpoint.options).status_code == 200
    counted = pool.get(endpoint("/count", id=name), **endpoint.options).json()
    assert counted["count"] == 2, "one request without a challenge before it, and this"


def test_userinfo_of_the_url_is_used(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """User and password in the URL are those of the request, percent-decoded."""
    base = endpoint.base.replace("https://", "https://us%40er:se%3Acret@")
    answer = pool.get(base + "/basic?user=us%40er&password=se:cret", **endpoint.options)
    assert answer.status_code == 200


def test_credentials_beyond_ascii_are_utf8(pool: katipo.Pool, hostile: Hostile) -> None:
    """Text goes into Basic as UTF-8, and bytes as they are."""
    server = hostile(serve(response(), response()))
    pool.get(server.url, http_auth="basic", username="jürgen", password="pässwörd:€")
    pool.get(server.url, http_auth="basic", username=b"\xfc", password=b"\xff")
    for text in ("jürgen:pässwörd:€".encode(), b"\xfc:\xff"):
        assert base64.b64encode(text) in server.peer(0).received


def test_a_challenge_in_the_middle_does_not_show(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A stream whose credentials take two rounds shows the last answer only."""
    handle = pool.async_get(
        endpoint("/digest"), http_auth="digest", userpwd="user:secret", stream=True, **endpoint.options
    )
    messages = list(handle)
    assert [type(message) for message in messages if not isinstance(message, katipo.Chunk)] == [
        katipo.Started,
        katipo.Done,
    ]
    assert isinstance(messages[0], katipo.Started)
    assert messages[0].status_code == 200


def test_credentials_are_those_of_their_request_alone(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The next request on the same connection has none."""
    assert pool.get(endpoint("/basic"), userpwd="user:secret", **endpoint.options).status_code == 200
    following = pool.get(endpoint("/basic"), **endpoint.options)
    assert (following.status_code, following.metrics.connections_opened) == (401, 0)


def test_a_digest_user_never_answers_for_another(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Two users in turn over one pool are two users to the server."""
    for user in ("ann", "bob") * 3:
        url = endpoint("/digest", user=user, password=f"{user}'s")
        assert pool.get(url, http_auth="digest", userpwd=f"{user}:{user}'s", **endpoint.options).status_code == 200
        wrong = pool.get(url, http_auth="digest", userpwd=f"{user}:x", **endpoint.options)
        assert wrong.status_code == 401


def test_a_scheme_that_libcurl_lacks_is_refused(pool: katipo.Pool, origin: Origin) -> None:
    """NTLM and Negotiate are refused at the call, with a code of their own, where libcurl has none."""
    have = katipo.features().auth_schemes
    for scheme in ("ntlm", "negotiate"):
        options: Any = {"http_auth": scheme, "username": "u", "password": "hunter2"}
        if scheme in have:
            pool.check_options(**options)
            continue
        with pytest.raises(katipo.BadOptions, match=scheme) as caught:
            pool.get(origin.strict_http + "/count", **options)
        assert caught.value.code == "not_built_in"
        assert "hunter2" not in str(caught.value)
