"""Authentication schemes as values: what they put into requests, what they ask of the pool, what they refuse."""

from __future__ import annotations

import base64
import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import katipo
from katipo.auth import FunctionAuth, as_auth

SECRET = "hunter2"
URL = katipo.URL("https://example.com/")


def token() -> str:
    return SECRET


def credentials() -> tuple[str, str, str | None]:
    return "AK", SECRET, None


def change(request: katipo.Request) -> katipo.Request:
    request.headers["X-Changed"] = "yes"
    return request


VALUES: list[katipo.Auth] = [
    katipo.BasicAuth("ann", SECRET),
    katipo.BearerAuth(SECRET),
    katipo.BearerAuth(token),
    katipo.DigestAuth("ann", SECRET),
    katipo.NTLMAuth("ann", SECRET),
    katipo.NegotiateAuth(),
    katipo.NegotiateAuth("ann", SECRET),
    katipo.AWSSigV4Auth("AK", SECRET, region="us-east-1", service="s3"),
    katipo.AWSSigV4Auth(region="us-east-1", service="s3", credentials=credentials),
    FunctionAuth(change),
]


def sent(auth: katipo.Auth, url: str = "https://example.com/", **parts: Any) -> katipo.Headers:
    """The headers of a request after the flow, which sends it once."""
    request = katipo.Request("GET", url, **parts)
    (only,) = auth.auth_flow(request)
    assert only is request
    return request.headers


# ------------------------------------------------------------------------------------------------ as values


@pytest.mark.parametrize("auth", VALUES, ids=repr)
def test_schemes_are_values(auth: katipo.Auth) -> None:
    """Equal with the same contents, hashable, picklable, not to be changed."""
    for same in (pickle.loads(pickle.dumps(auth)), copy.copy(auth), copy.deepcopy(auth)):
        assert same == auth
        assert hash(same) == hash(auth)
        assert same.pool_options(URL) == auth.pool_options(URL)
    assert [auth == other for other in VALUES].count(True) == 1
    with pytest.raises(AttributeError, match="immutable"):
        auth.username = "bob"  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="immutable"):
        del auth.username  # type: ignore[attr-defined]


@pytest.mark.parametrize("auth", VALUES, ids=repr)
def test_no_secret_shows(auth: katipo.Auth) -> None:
    """Neither as it is nor as Basic would send it."""
    for text in (repr(auth), str(auth)):
        assert SECRET not in text
        assert base64.b64encode(f"ann:{SECRET}".encode()).decode() not in text
        assert text.startswith(type(auth).__name__)


# ------------------------------------------------------------------------------------------------ each scheme


@pytest.mark.parametrize(
    ("user", "password"),
    [("Aladdin", "open sesame"), ("", ""), ("test", "123£"), ("jürgen", "a:b"), (b"\xfc", b"\xff"), ("", "x")],
)
def test_basic(user: str | bytes, password: str | bytes) -> None:
    """User and password as RFC 7617 has it, text as UTF-8, bytes as they are."""
    raw = b":".join(each.encode() if isinstance(each, str) else each for each in (user, password))
    assert sent(katipo.BasicAuth(user, password))["Authorization"] == "Basic " + base64.b64encode(raw).decode()


def test_basic_gives_the_examples_of_the_rfc() -> None:
    """RFC 7617 2 and 2.1."""
    assert sent(katipo.BasicAuth("Aladdin", "open sesame"))["Authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert sent(katipo.BasicAuth("test", "123\u00a3"))["Authorization"] == "Basic dGVzdDoxMjPCow=="


def test_an_authorization_that_is_there_is_replaced() -> None:
    """By one, not added to."""
    headers = sent(katipo.BearerAuth("new"), headers=[("authorization", "a"), ("Authorization", "b")])
    assert headers.get_list("authorization") == ["Bearer new"]


def test_bearer_asks_its_callable_for_each_request() -> None:
    """So that a token can be renewed."""
    tokens = iter(["one", "two"])
    auth = katipo.BearerAuth(lambda: next(tokens))
    assert [sent(auth)["Authorization"] for _ in range(2)] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("returned", [None, b"bytes", "", f"{SECRET}\n"])
def test_a_bad_token_is_refused_when_it_comes(returned: Any) -> None:
    """And not shown."""
    with pytest.raises(katipo.BadOptions, match=r"^auth: token must") as caught:
        sent(katipo.BearerAuth(lambda: returned))
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize(
    ("auth", "scheme"),
    [
        (katipo.DigestAuth("ann", SECRET), "digest"),
        (katipo.NegotiateAuth("ann", SECRET), "negotiate"),
    ],
)
def test_what_libcurl_does_is_asked_of_the_pool(auth: katipo.Auth, scheme: str) -> None:
    """The request itself stays as it is."""
    assert auth.pool_options(URL) == {"http_auth": scheme, "username": "ann", "password": SECRET}
    assert not sent(auth)


def test_ntlm_is_given_what_libcurl_makes_utf16_of() -> None:
    """It widens bytes one by one, so text goes as ISO-8859-1, and what is beyond is refused."""
    auth = katipo.NTLMAuth("DOMAIN\\jürgen", "pässword")
    assert auth.pool_options(URL) == {
        "http_auth": "ntlm",
        "username": b"DOMAIN\\j\xfcrgen",
        "password": b"p\xe4ssword",
    }
    assert katipo.NTLMAuth(b"\xff", "").pool_options(URL)["username"] == b"\xff"
    for user, password, named in (("ann", "hunter2€", "password"), ("€", "hunter2", "username")):
        with pytest.raises(katipo.BadOptions, match=f"^auth: {named} has a character") as caught:
            katipo.NTLMAuth(user, password)
        assert SECRET not in repr(caught.value)


def test_negotiate_needs_no_credentials() -> None:
    """libcurl tries it only if it is given a user, which may be empty."""
    assert katipo.NegotiateAuth().pool_options(URL) == {"http_auth": "negotiate", "username": "", "password": ""}


def test_headers_need_nothing_of_libcurl() -> None:
    """Its options stay out of requests that it has no part in."""
    for auth in (katipo.Auth(), katipo.BasicAuth("a", "b"), katipo.BearerAuth("t")):
        assert not auth.pool_options(URL)


@pytest.mark.parametrize("cls", [katipo.BasicAuth, katipo.DigestAuth, katipo.NTLMAuth, katipo.NegotiateAuth])
@pytest.mark.parametrize(
    ("user", "password", "message"),
    [
        (None, SECRET, "auth: username must be str or bytes, not NoneType"),
        ("ann", None, "auth: password must be str or bytes, not NoneType"),
        (("ann", SECRET), "x", "auth: username must be str or bytes, not tuple"),
        ("ann\n", SECRET, "auth: username must not contain control characters"),
        ("ann", f"{SECRET}\x00", "auth: password must not contain control characters"),
        ("ann", f"{SECRET}\ud800", "auth: password has no UTF-8 form"),
    ],
)
def test_bad_credentials_are_named_and_not_shown(cls: Any, user: Any, password: Any, message: str) -> None:
    """When the scheme is made."""
    with pytest.raises(katipo.BadOptions) as caught:
        cls(user, password)
    assert caught.value.message == message
    assert SECRET not in repr(caught.value)


def test_basic_refuses_a_colon_in_the_user() -> None:
    """The server would take what is after it for the password."""
    with pytest.raises(katipo.BadOptions, match="auth: username must not contain a colon"):
        katipo.BasicAuth("a:b", "c")


@pytest.mark.parametrize("value", ["", f"{SECRET}\r\nX-Injected: 1", b"bytes", None, 1])
def test_bearer_refuses_what_is_no_token(value: Any) -> None:
    """When the scheme is made, without showing it."""
    with pytest.raises(katipo.BadOptions, match=r"^auth: token must") as caught:
        katipo.BearerAuth(value)
    assert SECRET not in repr(caught.value)


# ------------------------------------------------------------------------------------------------ netrc


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home."""
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


ENTRIES = """
machine Example.com login ann password hunter2
machine xn--bcher-kva.example login buch password hunter2
machine 127.0.0.1 login local password hunter2
"""


def basic(user: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:hunter2".encode()).decode()


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("https://example.com/", "ann"),
        ("http://EXAMPLE.com:8080/", "ann"),
        ("https://www.example.com/", None),
        ("https://bücher.example/", "buch"),
        ("http://127.0.0.1:1/", "local"),
    ],
)
def test_netrc_is_looked_up_by_host(home: Path, url: str, user: str | None) -> None:
    """Exactly: a subdomain is another host, a port is not."""
    auth = katipo.NetRCAuth(write(home / "file", ENTRIES))
    assert sent(auth, url).get("Authorization") == (basic(user) if user else None)


def test_a_netrc_entry_without_a_password_is_none(home: Path) -> None:
    """Python 3.10 takes no such file at all."""
    path = write(home / "file", "machine no-password.example login ann\n" + ENTRIES)
    if sys.version_info < (3, 11):
        with pytest.raises(katipo.BadOptions, match="malformed near line"):
            katipo.NetRCAuth(path)
        return
    auth = katipo.NetRCAuth(path)
    assert not sent(auth, "https://no-password.example/")
    assert sent(auth, "https://example.com/")["Authorization"] == basic("ann")


def test_netrc_has_a_default(home: Path) -> None:
    """For hosts without an entry of their own."""
    auth = katipo.NetRCAuth(write(home / "file", ENTRIES + "default login any password hunter2\n"))
    assert sent(auth, "https://other.example/")["Authorization"] == basic("any")
    assert sent(auth, "https://example.com/")["Authorization"] == basic("ann")


def test_netrc_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument counts before NETRC, and that before the home."""
    machine = "machine example.com login {} password hunter2\n"
    write(home / ".netrc", machine.format("home"))
    assert sent(katipo.NetRCAuth())["Authorization"] == basic("home")
    monkeypatch.setenv("NETRC", str(write(home / "other", machine.format("environment"))))
    assert sent(katipo.NetRCAuth())["Authorization"] == basic("environment")
    argument = write(home / "third", machine.format("argument"))
    for file in (argument, str(argument)):
        assert sent(katipo.NetRCAuth(file))["Authorization"] == basic("argument")


def test_netrc_need_not_be_at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is named has to be there."""
    assert not sent(katipo.NetRCAuth())
    monkeypatch.setenv("NETRC", str(home / "missing"))
    with pytest.raises(katipo.BadOptions, match=r"there is no netrc file '.*missing'"):
        katipo.NetRCAuth()
    with pytest.raises(katipo.BadOptions, match="there is no netrc file"):
        katipo.NetRCAuth(home / "gone")


def test_netrc_is_a_value(home: Path) -> None:
    """Its repr shows the path; a pickle holds that and no password."""
    path = write(home / "file", ENTRIES)
    auth = katipo.NetRCAuth(path)
    assert SECRET not in repr(auth)
    assert str(path) in repr(auth)
    pickled = pickle.dumps(auth)
    assert SECRET.encode() not in pickled
    assert basic("ann").encode() not in pickled
    assert pickle.loads(pickled) == auth
    assert hash(pickle.loads(pickled)) == hash(auth)
    write(path, "")
    assert pickle.loads(pickled) != auth


@pytest.mark.parametrize(
    "content",
    [
        "hunter2 is the password",
        "machine example.com hunter2 x",
        "machine a:b login hunter2:x password y",
        b"machine example.com login \xff\xfe password hunter2\xff",
    ],
)
def test_a_bad_netrc_is_refused_without_its_content(home: Path, content: str | bytes) -> None:
    """The message has the path, and the line if there is one."""
    path = write(home / "file", content)
    with pytest.raises(katipo.BadOptions, match="is refused") as caught:
        katipo.NetRCAuth(path)
    assert SECRET not in repr(caught.value)
    assert str(path) in caught.value.message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_netrc_that_cannot_be_read_is_an_error(home: Path) -> None:
    """A directory, and what is no path."""
    with pytest.raises(katipo.BadOptions, match=r"cannot be read: Is a directory"):
        katipo.NetRCAuth(home)
    with pytest.raises(katipo.BadOptions, match="auth: file must be a path, not int"):
        katipo.NetRCAuth(1)  # type: ignore[arg-type]


def test_a_netrc_at_home_is_for_its_owner_alone(home: Path) -> None:
    """As ftp had it, and the standard library has."""
    write(home / ".netrc", ENTRIES, 0o644)
    with pytest.raises(katipo.BadOptions, match="access too permissive"):
        katipo.NetRCAuth()


# ------------------------------------------------------------------------------------------------ as_auth


def test_what_auth_takes() -> None:
    """None, a pair, an Auth, a function."""
    own = katipo.BearerAuth("t")
    assert as_auth(None) is None
    assert as_auth(own) is own
    assert as_auth(("ann", SECRET)) == katipo.BasicAuth("ann", SECRET)
    assert as_auth((b"ann", SECRET)) == katipo.BasicAuth(b"ann", SECRET)
    made = as_auth(change)
    assert made is not None
    assert sent(made)["X-Changed"] == "yes"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (f"ann:{SECRET}", "str"),
        (["ann", SECRET], "list"),
        ({"ann": SECRET}, "dict"),
        (katipo.BasicAuth, "type"),
        (1, "int"),
        ((), "(user, password)"),
        (("ann", SECRET, "x"), "(user, password)"),
    ],
)
def test_anything_else_is_refused_and_not_shown(value: Any, kind: str) -> None:
    """The message says what it takes."""
    with pytest.raises(katipo.BadOptions) as caught:
        as_auth(value)
    assert caught.value.message.startswith("auth: ")
    assert caught.value.message.endswith(kind)
    assert SECRET not in repr(caught.value)


def test_a_function_must_return_a_request() -> None:
    """One that changes the request and forgets to return it would send another."""
    with pytest.raises(katipo.BadOptions, match="auth: the function must return a Request, not NoneType"):
        next(FunctionAuth(lambda request: None).auth_flow(katipo.Request("GET", URL)))  # type: ignore[arg-type, return-value]


def test_a_flow_of_ones_own() -> None:
    """As httpx has it: yield, look at the response, yield again."""

    class Retrying(katipo.Auth):
        requires_response_body = True

        def auth_flow(self, request: katipo.Request) -> Any:
            response = yield request
            if response.status_code == 401:
                request.headers["X-Answer"] = response.text
                yield request

    flow = Retrying().auth_flow(katipo.Request("GET", URL))
    first = next(flow)
    second = flow.send(katipo.Response(401, text="challenge"))
    assert second is first
    assert second.headers["X-Answer"] == "challenge"
    with pytest.raises(StopIteration):
        flow.send(katipo.Response(200))


def test_heavy_modules_are_loaded_when_needed() -> None:
    """Import time is watched: what few programs use costs the others nothing."""
    program = "import sys, katipo.auth; print([n for n in ('netrc', 'hmac', 'katipo._sigv4') if n in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"
