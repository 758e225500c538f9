"""NTLM, on the system's libcurl, against an acceptor that has nothing of libcurl in it.

Each client is a program of its own, for a process loads one libcurl.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.libcurl import system_libcurl
from tests.support.ntlm import DOMAIN, USERS
from tests.support.pattern import pattern
from tests.support.procs import run_python

if TYPE_CHECKING:
    from tests.support.ntlm import NtlmServer

BODY = pattern(0, 200_000)

PRELUDE = """
import json, sys
import katipo
from tests.support.pattern import pattern
settings = json.loads(sys.argv[1])
url, users, body = settings["url"], settings["users"], pattern(0, 200_000)
def options(user, password=None):
    name = settings["domain"] + "\\\\" + user
    auth = katipo.NTLMAuth(name, users[user] if password is None else password)
    return auth.pool_options(katipo.URL(url))
def tell(response):
    print(json.dumps([response.status_code, response.json()]))
"""


def run(ntlm: NtlmServer, program: str) -> list[tuple[int, dict[str, Any]]]:
    """Run a program on the system's libcurl; what it told: a status and the server's answer for each line."""
    text = PRELUDE + "with katipo.Pool() as pool:\n" + "\n".join("    " + line for line in program.splitlines())
    settings = {"url": ntlm.url, "users": USERS, "domain": DOMAIN}
    done = run_python(text, env={"KATIPO_LIBCURL": system_libcurl()}, args=[json.dumps(settings)], timeout=60)
    assert done.status == 0, done.stderr
    return [(status, answer) for status, answer in map(json.loads, done.stdout.splitlines())]


@pytest.mark.parametrize("user", USERS)
def test_the_right_password_is_let_in(ntlm: NtlmServer, user: str) -> None:
    """In the domain, with letters beyond ASCII in the password; and the connection stays the user's."""
    answers = run(ntlm, f"for _ in range(3): tell(pool.get(url, **options({user!r})))")
    assert [(status, answer["user"]) for status, answer in answers] == [(200, f"{DOMAIN}\\{user}")] * 3
    assert len({answer["port"] for _, answer in answers}) == 1
    assert [answer["requests"] for _, answer in answers] == [2, 3, 4], "two rounds, once"


@pytest.mark.parametrize(("user", "password"), [("ann", "wrong"), ("ann", ""), ("ann", USERS["bob"])])
def test_a_wrong_password_gets_a_401(ntlm: NtlmServer, user: str, password: str) -> None:
    """The server's answer is the response: no error and no loop."""
    ((status, answer),) = run(ntlm, f"tell(pool.get(url, **options({user!r}, {password!r})))")
    assert (status, answer["user"], answer["requests"]) == (401, None, 2)


def test_a_body_goes_once_and_whole(ntlm: NtlmServer) -> None:
    """Buffered and streamed: the first round is empty, and the body follows with the answer to the challenge."""
    program = """
tell(pool.post(url, body=body, **options("ann")))
handle = pool.async_post(url, stream_body=True, **options("bob"))
for i in range(0, len(body), 50_000):
    handle.send_body(body[i:i + 50_000])
handle.finish_body()
tell(handle.result())
"""
    for status, answer in run(ntlm, program):
        assert (status, answer["sha256"]) == (200, hashlib.sha256(BODY).hexdigest())
        assert answer["bodies"] == [0, len(BODY)]


def test_a_connection_is_its_users_alone(ntlm: NtlmServer) -> None:
    """Two users, a wrong password, and nobody, in turn: each has connections of its own."""
    program = """
for _ in range(2):
    tell(pool.get(url, **options("ann")))
    tell(pool.get(url, **options("bob")))
    tell(pool.get(url, **options("ann", "wrong")))
    tell(pool.get(url))
"""
    answers = run(ntlm, program)
    wanted = [f"{DOMAIN}\\ann", f"{DOMAIN}\\bob", None, None] * 2
    assert [answer["user"] for _, answer in answers] == wanted
    ports = [{answers[i][1]["port"], answers[i + 4][1]["port"]} for i in range(4)]
    assert not any(ports[i] & ports[j] for i in range(4) for j in range(i)), "no connection served two of them"
    assert [len(each) for each in ports[:2]] == [1, 1], "each user's own is used again"


def test_a_libcurl_without_it_says_so(pool: katipo.Pool, ntlm: NtlmServer) -> None:
    """At the call, with a code of its own; nothing is sent."""
    if "ntlm" in katipo.features().auth_schemes:
        answer = pool.get(ntlm.url, **_options(katipo.NTLMAuth(f"{DOMAIN}\\ann", USERS["ann"]), ntlm))
        assert answer.status_code == 200
        return
    with pytest.raises(katipo.BadOptions, match="ntlm") as caught:
        pool.get(ntlm.url, **_options(katipo.NTLMAuth("ann", "hunter2"), ntlm))
    assert caught.value.code == "not_built_in"
    assert "hunter2" not in repr(caught.value)


def _options(auth: katipo.Auth, ntlm: NtlmServer) -> dict[str, Any]:
    return dict(auth.pool_options(katipo.URL(ntlm.url)))
