"""Negotiate with real tickets: MIT's KDC, and Apache with mod_auth_gssapi.

Each client is a program of its own: Kerberos takes configuration and tickets from the environment.
"""

from __future__ import annotations

import hashlib
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.libcurl import system_libcurl
from tests.support.pattern import pattern
from tests.support.procs import Finished, run_python

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.kerberos import Kerberos
    from tests.support.origin import Origin

PRELUDE = """
import json, os, sys
import katipo
from tests.support.libcurl import system_libcurl
from tests.support.pattern import pattern
settings = json.loads(sys.argv[1])
url = settings["url"]
auth = katipo.NegotiateAuth()
def ask(path, auth=auth, **options):
    return pool.get(url + path, **auth.pool_options(katipo.URL(url)), **options)
def seen(response):
    headers = {name.lower(): value for name, value in response.json()["headers"]}
    return response.status_code, headers["x-remote-user"], headers["x-client-port"]
"""


def run(
    kerberos: Kerberos,
    user: str | None,
    program: str,
    *,
    config: Path | None = None,
    libcurl: str | None = None,
    **settings: Any,
) -> Finished:
    """Run a program as `user`, which has to end well."""
    text = PRELUDE + "with katipo.Pool() as pool:\n" + "\n".join("    " + line for line in program.splitlines())
    env = kerberos.env(user, config) | ({"KATIPO_LIBCURL": libcurl} if libcurl else {})
    done = run_python(text, env=env, args=[json.dumps({"url": kerberos.url, **settings})], timeout=60)
    assert done.status == 0, done.stderr
    return done


@pytest.mark.parametrize("path", ["/each/headers", "/bound/headers"])
def test_a_ticket_is_accepted(kerberos: Kerberos, path: str) -> None:
    """The server sees the user whose ticket it is, with every request."""
    done = run(kerberos, "alice", "for _ in range(3): print(*seen(ask(settings['path'])))", path=path)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines] == [["200", "alice@KATIPO.TEST"]] * 3


def test_older_libcurls_take_it_too(kerberos: Kerberos) -> None:
    """The system's, which does nothing for a request without a user: NegotiateAuth gives an empty one."""
    done = run(kerberos, "bob", "print(*seen(ask('/each/headers')))", libcurl=system_libcurl())
    assert done.stdout.split()[:2] == ["200", "bob@KATIPO.TEST"]


def test_no_ticket_gets_a_401(kerberos: Kerberos) -> None:
    """The server's answer is the response, as with a wrong password: no error and no loop."""
    done = run(
        kerberos,
        None,
        "r = ask('/each/headers?id=noticket')\nprint(r.status_code, r.headers['www-authenticate'])",
    )
    assert done.stdout.split() == ["401", "Negotiate"]
    assert len(kerberos.wait_executed("id=noticket", 1)) == 1


def test_a_ticket_goes_only_where_it_is_asked_to(kerberos: Kerberos) -> None:
    """Without the scheme nothing is sent, on a connection that another request has authenticated too."""
    done = run(
        kerberos,
        "alice",
        "for path in ('/each/headers', '/bound/headers'):\n"
        "    print(ask(path).status_code, pool.get(url + path).status_code)",
    )
    assert done.stdout.split() == ["200", "401"] * 2


def test_a_body_goes_once(kerberos: Kerberos) -> None:
    """Buffered and streamed, it arrives whole, after one request."""
    program = """
options = auth.pool_options(katipo.URL(url))
body = pattern(0, 300_000)
print(pool.post(url + "/each/upload?id=whole", body=body, **options).json()["sha256"])
handle = pool.async_post(url + "/each/upload?id=pieces", stream_body=True, **options)
for i in range(0, len(body), 50_000):
    handle.send_body(body[i:i + 50_000])
handle.finish_body()
print(handle.result().json()["sha256"])
"""
    done = run(kerberos, "alice", program)
    assert done.stdout.split() == [hashlib.sha256(pattern(0, 300_000)).hexdigest()] * 2
    for name in ("whole", "pieces"):
        (line,) = kerberos.wait_executed(f"id={name}", 1)
        assert " 200 " in line


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("path", ["/each/headers", "/bound/headers"])
def test_two_users_never_share_a_connection(kerberos: Kerberos, path: str, named: bool) -> None:
    """In one program with the caches of both, with and without their names as options."""
    program = """
for user in ("alice", "bob") * 3:
    os.environ["KRB5CCNAME"] = settings["caches"][user]
    auth = katipo.NegotiateAuth(user) if settings["named"] else katipo.NegotiateAuth()
    print(*seen(ask(settings["path"], auth)))
"""
    caches = {user: kerberos.cache(user) for user in ("alice", "bob")}
    done = run(kerberos, "alice", program, caches=caches, path=path, named=named)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines] == [["200", f"{user}@KATIPO.TEST"] for user in ("alice", "bob") * 3]
    ports = {user: {line[2] for line in lines if line[1].startswith(user)} for user in ("alice", "bob")}
    assert not ports["alice"] & ports["bob"]
    assert [len(each) for each in ports.values()] == [1, 1], "each user's own connection is used again"


@pytest.mark.slow
def test_a_kdc_that_is_silent_wedges_nobody_else(kerberos: Kerberos, origin: Origin) -> None:
    """Who waits for a ticket is failed when its time is over; others, of the same pool and server, go on meanwhile."""
    program = """
options = auth.pool_options(katipo.URL(url))
stuck = pool.async_get(url + "/each/headers", timeout_ms=1000, **options)
others = [pool.get(settings["other"] + "/headers").status_code for _ in range(20)]
print(stuck.done(), *set(others))
try:
    stuck.result()
except katipo.WorkerDied:  # nobody can call it back from where it is
    print("given-up")
print(pool.get(url + "/each/headers").status_code)
"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        config = kerberos.with_kdc(silent.getsockname()[1])
        done = run(kerberos, "alice", program, config=config, other=origin.strict_http)
        silent.setblocking(False)
        assert silent.recv(65536), "the client has asked the KDC"
    assert done.stdout.split() == ["False", "200", "given-up", "401"]
