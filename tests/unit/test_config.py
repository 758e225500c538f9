"""Timeout, Limits, TLS, and what verify, cert and tls come to."""

from __future__ import annotations

import copy
import math
import os
import pickle
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from katipo import _library, config
from katipo._frozen import Frozen
from katipo.config import TLS, UNSET, Limits, Timeout, as_timeout, tls_options
from katipo.errors import BadOptions

PIN = "sha256//" + "A" * 43 + "="


def parts(timeout: Timeout) -> tuple[float | None, ...]:
    return timeout.connect, timeout.read, timeout.write, timeout.pool, timeout.total


def message(call: Callable[[], object]) -> str:
    with pytest.raises(BadOptions) as caught:
        call()
    assert caught.value.code == "bad_opts"
    return caught.value.message


# ------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("value", [Timeout(1, total=9), Limits(max_connections=3), TLS(ciphers="A:B")])
def test_values_are_values(value: Frozen) -> None:
    """Equal by their parts, hashable, immutable; they pickle and copy."""
    same = pickle.loads(pickle.dumps(value))
    assert same == value
    assert same is not value
    assert hash(same) == hash(value)
    assert copy.deepcopy(value) == value
    assert value != type(value)()
    assert value != object()
    name = type(value).__slots__[0]
    with pytest.raises(AttributeError, match="immutable"):
        setattr(value, name, 1)
    with pytest.raises(AttributeError, match="immutable"):
        delattr(value, name)
    with pytest.raises(AttributeError):
        value.other = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_reprs_show_every_part() -> None:
    """In the order of the arguments."""
    assert repr(Timeout(2)) == "Timeout(connect=2.0, read=2.0, write=2.0, pool=None, total=None)"
    assert repr(Limits()) == (
        "Limits(max_connections=100, max_keepalive_connections=None, keepalive_expiry=5.0, max_connections_per_host=None)"
    )
    assert repr(TLS()) == "TLS(min_version='1.2', ciphers=None, pinned_public_keys=())"
    assert repr(UNSET) == "<left out>"


# ------------------------------------------------------------------------------------------------ Timeout


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        (Timeout(), (5, 5, 5, None, None)),
        (Timeout(3), (3, 3, 3, None, None)),
        (Timeout(None), (None, None, None, None, None)),
        (Timeout(3, read=None, total=60), (3, None, 3, None, 60)),
        (Timeout(connect=1, pool=2), (1, 5, 5, 2, None)),
        (Timeout(Timeout(3, total=60)), (3, 3, 3, None, 60)),
        (Timeout(Timeout(3, total=60), total=None, write=4), (3, 3, 4, None, None)),
        (Timeout((1, 2)), (1, 2, None, None, None)),
        (Timeout((1, 2, 3)), (1, 2, 3, None, None)),
        (Timeout((1, None, 3, 4)), (1, None, 3, 4, None)),
        (Timeout((1, 2), write=3, total=4), (1, 2, 3, None, 4)),
        (Timeout(math.inf, total=math.inf), (None, None, None, None, None)),
        (Timeout(1e9), (1e9, 1e9, 1e9, None, None)),
    ],
)
def test_what_a_timeout_comes_to(timeout: Timeout, expected: tuple[float | None, ...]) -> None:
    """A number for three clocks, a tuple as httpx takes it, another Timeout; names win; infinity is no limit."""
    assert parts(timeout) == expected


def test_as_timeout_takes_what_timeout_takes() -> None:
    """And leaves a Timeout as it is."""
    timeout = Timeout(7)
    assert as_timeout(timeout) is timeout
    assert as_timeout(7) == timeout
    assert as_timeout(None) == Timeout(None)
    assert as_timeout((1, 2, 3, 4)) == Timeout(connect=1, read=2, write=3, pool=4)


@pytest.mark.parametrize("value", [0, 0.0, -1, -math.inf, math.nan, True, "5", b"5", [5], {}, 1e10, 10**400])
def test_what_is_no_time_is_refused_by_name(value: Any) -> None:
    """On each clock; the message shows no value."""
    for name in ("connect", "read", "write", "pool", "total"):
        text = message(lambda name=name: Timeout(**{name: value}))  # type: ignore[misc]
        assert text.startswith(f"{name}: must be ")
        assert repr(value) not in text
    assert message(lambda: Timeout(value)).startswith("timeout: must be ")
    assert message(lambda: as_timeout(value)).startswith("timeout: must be ")
    assert message(lambda: Timeout((1, value))).startswith("read: must be ")


def test_every_bad_time_is_named_at_once() -> None:
    """One error for all of them."""
    text = message(lambda: Timeout("x", read=0, total=True))  # type: ignore[arg-type]
    assert [part.partition(":")[0] for part in text.split("; ")] == ["timeout", "read", "total"]


@pytest.mark.parametrize("value", [(), (1,), (1, 2, 3, 4, 5)])
def test_tuples_of_other_sizes_are_refused(value: Any) -> None:
    """Two to four."""
    assert message(lambda: Timeout(value)).startswith("timeout: a tuple must be")


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [(1, 1000), (0.25, 250), (0.0001, 1), (1e-12, 1), (1.0001, 1001), (2.003, 2003), (0.29, 290), (1e9, 10**12)],
)
def test_fractions_of_a_millisecond_round_up(seconds: float, milliseconds: int) -> None:
    """Never to 0, which would be no limit; and what is a whole number stays one."""
    assert set(Timeout(seconds, pool=seconds, total=seconds).pool_options().values()) == {milliseconds}


def test_each_clock_has_its_option() -> None:
    """0 where there is no limit."""
    assert Timeout(connect=1, read=2, write=3, pool=4, total=5).pool_options() == {
        "connecttimeout_ms": 1000,
        "read_timeout_ms": 2000,
        "write_timeout_ms": 3000,
        "pool_timeout_ms": 4000,
        "timeout_ms": 5000,
    }
    assert set(Timeout(None).pool_options().values()) == {0}
    assert Timeout().pool_options()["timeout_ms"] == 0


# ------------------------------------------------------------------------------------------------ Limits


def test_limits_for_the_pool() -> None:
    """No limit is 0 there, but for idle connections, of which there may be none."""
    assert Limits().for_pool() == {
        "max_total_connections": 100,
        "max_host_connections": 0,
        "max_idle_connections": None,
    }
    assert Limits(
        max_connections=None, max_keepalive_connections=0, max_connections_per_host=7, keepalive_expiry=None
    ).for_pool() == {"max_total_connections": 0, "max_host_connections": 7, "max_idle_connections": 0}


@pytest.mark.parametrize(
    ("expiry", "expected"),
    [
        (5.0, {"MAXAGE_CONN": 5}),
        (0.2, {"MAXAGE_CONN": 1}),
        (1.5, {"MAXAGE_CONN": 2}),
        (0, {"FORBID_REUSE": 1}),
        (None, {"MAXAGE_CONN": 31536000}),
        (math.inf, {"MAXAGE_CONN": 31536000}),
        (10**400, {"MAXAGE_CONN": 31536000}),
    ],
)
def test_the_expiry_as_libcurl_takes_it(expiry: float | None, expected: dict[str, int]) -> None:
    """Whole seconds, rounded up."""
    assert Limits(keepalive_expiry=expiry).curl_options() == expected


def test_every_bad_limit_is_named_at_once() -> None:
    """With no value shown."""
    bad: Any = {
        "max_connections": 0,
        "max_keepalive_connections": -1,
        "keepalive_expiry": math.nan,
        "max_connections_per_host": 1.5,
    }
    text = message(lambda: Limits(**bad))
    assert [part.partition(":")[0] for part in text.split("; ")] == list(bad)


@pytest.mark.parametrize("value", [-1, True, "5", -math.inf])
def test_what_is_no_expiry_is_refused(value: Any) -> None:
    """A number of seconds, 0 or more."""
    assert message(lambda: Limits(keepalive_expiry=value)).startswith("keepalive_expiry: must be ")


# ------------------------------------------------------------------------------------------------ TLS


def test_ciphers_go_where_their_version_is() -> None:
    """OpenSSL has two lists; the RFC's names of TLS 1.2 suites begin like those of 1.3."""
    names = ["TLS_AES_128_GCM_SHA256", "ECDHE+AESGCM", "!aNULL", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "@SECLEVEL=1"]
    expected = {
        "TLS13_CIPHERS": "TLS_AES_128_GCM_SHA256",
        "SSL_CIPHER_LIST": "ECDHE+AESGCM:!aNULL:TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:@SECLEVEL=1",
    }
    assert TLS(ciphers=names).curl_options() == expected
    assert TLS(ciphers=":".join(names)) == TLS(ciphers=tuple(names))
    assert TLS().curl_options() == {}


def test_pinned_keys() -> None:
    """Several in one option."""
    other = "sha256//" + "B" * 43 + "="
    assert TLS(pinned_public_keys=[PIN, other]).curl_options() == {"PINNEDPUBLICKEY": f"{PIN};{other}"}
    assert TLS(pinned_public_keys=f"{PIN};{other}") == TLS(pinned_public_keys=(PIN, other))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"min_version": "1.4"}, "min_version: must be one of"),
        ({"min_version": 1.2}, "min_version: must be one of"),
        ({"ciphers": ""}, "ciphers: must not be empty"),
        ({"ciphers": []}, "ciphers: must not be empty"),
        ({"ciphers": ["HIGH", "A B"]}, "ciphers: number 2 is no name"),
        ({"ciphers": ["HIGH", 5]}, "ciphers: number 2 must be str"),
        ({"ciphers": b"HIGH"}, "ciphers: must be a str or a sequence of str, not bytes"),
        ({"pinned_public_keys": ["/etc/key.pem"]}, "pinned_public_keys: number 1 is not"),
        ({"pinned_public_keys": [PIN + ";" + PIN]}, "pinned_public_keys: number 1 is not"),
        ({"pinned_public_keys": PIN[:-1]}, "pinned_public_keys: number 1 is not"),
        ({"pinned_public_keys": None}, "pinned_public_keys: must be a str"),
    ],
)
def test_bad_tls_settings_are_refused(arguments: Any, expected: str) -> None:
    """Each by its name, and its place where there are several."""
    text = message(lambda: TLS(**arguments))
    assert expected in text
    assert "key.pem" not in text


# ------------------------------------------------------------------------------------------------ verify, cert, tls


@pytest.fixture
def default_trust(monkeypatch: pytest.MonkeyPatch) -> tuple[str | None, str | None]:
    """libcurl has been loaded with an environment that says nothing of certificates."""
    default = _library.find_trust({})
    monkeypatch.setattr(config, "trust_at_load", lambda: default)
    return default


def options(**arguments: Any) -> dict[str, object]:
    given: dict[str, Any] = {"verify": True, "cert": None, "tls": None, "environ": {}, **arguments}
    return tls_options(**given)


PLAIN: dict[str, object] = {"sslversion": "1.2", "curl_options": {}}


@pytest.mark.usefixtures("default_trust")
def test_the_default_says_nothing_that_libcurl_is_told_anyway() -> None:
    """So that a client's connections are those of everybody."""
    assert options() == PLAIN
    assert options(environ=None) == PLAIN
    assert options(environ={"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}) == PLAIN
    assert options(tls=TLS("1.3", pinned_public_keys=[PIN])) == {
        "sslversion": "1.3",
        "curl_options": {"PINNEDPUBLICKEY": PIN},
    }


@pytest.mark.usefixtures("default_trust")
def test_the_environment_of_the_client_s_creation_counts() -> None:
    """Not that of libcurl's loading; for an HTTPS proxy as well."""
    assert options(environ={"SSL_CERT_FILE": "/a.pem"}) == {
        "cacert": "/a.pem",
        "sslversion": "1.2",
        "curl_options": {"PROXY_CAINFO": "/a.pem"},
    }
    both = options(environ={"SSL_CERT_FILE": "/a.pem", "SSL_CERT_DIR": "/certs"})
    assert (both["cacert"], both["capath"]) == ("/a.pem", "/certs")
    assert both["curl_options"] == {"PROXY_CAINFO": "/a.pem", "PROXY_CAPATH": "/certs"}


def test_the_environment_does_not_count_where_it_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though libcurl was loaded with it."""
    monkeypatch.setattr(config, "trust_at_load", lambda: ("/environment.pem", None))
    file, _ = _library.find_trust({})
    assert file not in (None, "/environment.pem")
    assert options(environ=None)["cacert"] == file
    assert options(environ=None)["curl_options"] == {"PROXY_CAINFO": file}
    assert options(environ={"SSL_CERT_FILE": "/environment.pem"}) == PLAIN


@pytest.mark.usefixtures("default_trust")
def test_a_folder_of_the_environment_is_trusted_alone(tmp_path: Path) -> None:
    """libcurl wants a file too, which is one of the folder; where it has none, nothing is trusted."""
    assert options(environ={"SSL_CERT_DIR": str(tmp_path)})["cacert"] == str(tmp_path)
    (tmp_path / "cert.pem").touch()
    (tmp_path / "0123abcg.0").touch()
    (tmp_path / "0123abcd.0").symlink_to(tmp_path / "gone")
    assert options(environ={"SSL_CERT_DIR": str(tmp_path)})["cacert"] == str(tmp_path)
    (tmp_path / "0123abcd.1").touch()
    folders = f"/nowhere{os.pathsep}{tmp_path}"
    found = options(environ={"SSL_CERT_DIR": folders})
    assert (found["cacert"], found["capath"]) == (str(tmp_path / "0123abcd.1"), folders)


@pytest.mark.usefixtures("default_trust")
def test_verify(tmp_path: Path) -> None:
    """A file; a folder; nothing. The environment does not count beside them, but for a proxy."""
    file = tmp_path / "ca.pem"
    file.touch()
    for path in (file, str(file), os.fsencode(file)):
        assert options(verify=path) == {"cacert": os.fsencode(file), **PLAIN}
    assert options(verify=file, environ={"SSL_CERT_FILE": "/a.pem"})["cacert"] == os.fsencode(file)
    (tmp_path / "0123abcd.0").touch()
    assert options(verify=tmp_path) == {
        "cacert": str(tmp_path / "0123abcd.0"),
        "capath": os.fsencode(tmp_path),
        **PLAIN,
    }
    assert options(verify=False) == {"ssl_verifypeer": False, "ssl_verifyhost": False, **PLAIN}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/no/such/secret-file", "verify: there is no such file or folder"),
        (None, "verify: must be True, False or the path of CAs, not None"),
        (1, "verify: must be True, False or the path of CAs, not int"),
        ("", "verify: must not be empty"),
        ("a\0b", "verify: must not contain"),
    ],
)
def test_bad_verify(value: object, expected: str) -> None:
    """At the call, with no value shown."""
    text = message(lambda: options(verify=value))
    assert text.startswith(expected)
    assert "secret" not in text


def test_a_folder_without_certificates_is_refused(tmp_path: Path) -> None:
    """It would refuse every server."""
    assert "openssl rehash" in message(lambda: options(verify=tmp_path))


class Context(ssl.SSLContext):
    """As truststore has one."""


@pytest.mark.parametrize("kind", [ssl.SSLContext, Context])
def test_a_context_is_refused(kind: type[ssl.SSLContext]) -> None:
    """With what to use instead."""
    text = message(lambda: options(verify=kind(ssl.PROTOCOL_TLS_CLIENT)))
    assert text.startswith("verify: an ssl.SSLContext cannot be honoured")
    assert "tls=katipo.TLS" in text


@pytest.mark.usefixtures("default_trust")
def test_cert() -> None:
    """One file for both, two, and a password; never a question at the terminal."""
    assert options(cert="/c.pem") == {"sslcert": b"/c.pem", "keypasswd": b"", **PLAIN}
    assert options(cert=("/c.pem", Path("/k.pem"))) == {
        "sslcert": b"/c.pem",
        "sslkey": b"/k.pem",
        "keypasswd": b"",
        **PLAIN,
    }
    for password in ("secret", b"secret"):
        assert options(cert=("/c.pem", "/k.pem", password))["keypasswd"] == b"secret"
    assert options(cert=("/c.pem", None, "secret")) == {"sslcert": b"/c.pem", "keypasswd": b"secret", **PLAIN}


class Unreadable(os.PathLike[str]):
    def __fspath__(self) -> str:
        raise RuntimeError("secret")


@pytest.mark.parametrize(
    "value", [5, ["/c.pem", "/k.pem"], (), ("/c",), ("/c", "/k", "secret", 1), ("/c", 5), ("/c", "/k", 5), Unreadable()]
)
def test_bad_cert(value: object) -> None:
    """By name, with no value shown."""
    text = message(lambda: options(cert=value))
    assert text.startswith("cert: ")
    assert "secret" not in text


def test_everything_wrong_is_named_at_once() -> None:
    """verify, cert and tls."""
    text = message(lambda: options(verify=5, cert=5, tls={"min_version": "1.2"}))
    assert [part.partition(":")[0] for part in text.split("; ")] == ["verify", "cert", "tls"]
