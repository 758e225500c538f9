"""Options: what a call's options come to, and everything that is refused."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from katipo._curl_options import REFUSED
from katipo._option_table import TABLE
from katipo._version import __version__
from katipo.cookies import CookieJar
from katipo.errors import BadOptions
from katipo.headers import Headers
from katipo.options import (
    AsyncRequestOptions,
    Compiled,
    RequestOptions,
    check_pool_options,
    compile_options,
)

KINDS = {
    0: """
        NOSIGNAL PROTOCOLS REDIR_PROTOCOLS SUPPRESS_CONNECT_HEADERS DNS_CACHE_TIMEOUT PIPEWAIT CA_CACHE_TIMEOUT
        MAXREDIRS FOLLOWLOCATION SSL_VERIFYHOST SSL_VERIFYPEER TCP_FASTOPEN LOW_SPEED_TIME LOW_SPEED_LIMIT
        LOCALPORT NOBODY HEADER TIMEOUT_MS HTTPPROXYTUNNEL TCP_KEEPALIVE DOH_SSL_VERIFYPEER
    """,
    1: "HTTP_VERSION HTTPAUTH SSLVERSION PROXYAUTH SSL_OPTIONS IPRESOLVE NETRC",
    2: "MAX_RECV_SPEED_LARGE MAXFILESIZE_LARGE",
    3: "POSTFIELDS SHARE CURLU STDERR PRIVATE",
    4: """
        PROTOCOLS_STR REDIR_PROTOCOLS_STR PROXY NOPROXY PROXYUSERNAME PROXYPASSWORD CAINFO CAPATH SSLCERT SSLKEY
        KEYPASSWD USERNAME PASSWORD INTERFACE UNIX_SOCKET_PATH DOH_URL USERAGENT ACCEPT_ENCODING COOKIEFILE
        COOKIELIST RANGE PROXY_CAINFO PROXY_CAPATH PINNEDPUBLICKEY SSL_CIPHER_LIST PRE_PROXY COOKIEJAR URL
        CUSTOMREQUEST REQUEST_TARGET
    """,
    5: "HTTPHEADER RESOLVE CONNECT_TO PROXYHEADER",
    6: "WRITEDATA XFERINFODATA",
    7: "SSLKEY_BLOB SSLCERT_BLOB CAINFO_BLOB",
    8: "WRITEFUNCTION SSL_CTX_FUNCTION",
}
OPTIONS = {name: (kind * 1000 + i, kind) for kind, names in KINDS.items() for i, name in enumerate(names.split())}
NAMES = {number: name for name, (number, _) in OPTIONS.items()}
EVERYTHING = frozenset(("http2", "http3", "brotli", "libz", "ntlm", "spnego", "ssl", "https-proxy"))


class FakeLibrary:
    """A libcurl by its answers."""

    def __init__(
        self,
        *,
        version: int = 0x081700,
        features: frozenset[str] = EVERYTHING,
        without: str = "",
        cainfo: str | None = "/trust/bundle.pem",
        capath: str | None = None,
        ssl: str = "OpenSSL/3.6.0",
    ) -> None:
        self.version_num = version
        self.features = features
        self.protocols = frozenset(("http", "https"))
        self.ssl_version: str | None = ssl
        self.default_cainfo = cainfo
        self.default_capath = capath
        self._without = frozenset(without.split())

    def option(self, name: str, /) -> tuple[int, int] | None:
        return None if name in self._without else OPTIONS.get(name)


LIBRARY = FakeLibrary()
OLD = FakeLibrary(version=0x075801, features=frozenset(("http2", "libz")), without="CA_CACHE_TIMEOUT PROTOCOLS_STR")


class Box:
    """Stands for a mailbox."""


def reply_check(value: object) -> str | None:
    return None if isinstance(value, Box) else "must be an open Mailbox"


def compiled(
    options: Mapping[str, object] | None = None,
    /,
    *,
    library: FakeLibrary = LIBRARY,
    blocking: bool = False,
    method: bytes = b"GET",
    **more: object,
) -> Compiled:
    return compile_options(
        {**(options or {}), **more}, blocking=blocking, method=method, library=library, check_reply_to=reply_check
    )


def curl(**options: Any) -> dict[str, Any]:
    return {NAMES[number]: value for number, value in compiled(**options).curl}


def lines(**options: Any) -> list[bytes]:
    found: list[bytes] = curl(**options)["HTTPHEADER"]
    return found


def identity(**options: Any) -> bytes:
    return compiled(**options).identity


def refusal(options: Mapping[str, object] | None = None, /, *, code: str = "bad_opts", **more: Any) -> str:
    with pytest.raises(BadOptions) as caught:
        compiled(options, **more)
    assert caught.value.code == code
    return str(caught.value)


# ---------------------------------------------------------------------------------------------- the table


def test_table_and_typed_dicts_name_the_same_options() -> None:
    """What a type checker accepts is what the table has."""
    assert set(TABLE) == set(AsyncRequestOptions.__annotations__) | set(RequestOptions.__annotations__)
    only_async = {name for name, option in TABLE.items() if option.only_async}
    assert not only_async & set(RequestOptions.__annotations__)


def test_defaults_are_those_of_the_contract() -> None:
    """Every default that the interface states."""
    stated = {
        "connecttimeout_ms": 30000,
        "timeout_ms": 30000,
        "read_timeout_ms": 0,
        "write_timeout_ms": 0,
        "pool_timeout_ms": 0,
        "dns_cache_timeout": 60,
        "followlocation": False,
        "maxredirs": 9,
        "ssl_verifyhost": True,
        "ssl_verifypeer": True,
        "ca_cache_timeout": 86400,
        "sslversion": "default",
        "http_version": "none",
        "tcp_fastopen": False,
        "pipewait": True,
        "verbose": False,
        "decode": True,
        "stream": False,
        "stream_window": 1048576,
        "flow_control": "auto",
        "informational": False,
        "stream_body": False,
        "upload_window": 1048576,
        "on_abandon": "abort",
    }
    assert {name: option.default for name, option in TABLE.items() if option.default is not None} == stated


def test_every_default_given_is_nothing_given() -> None:
    """All defaults at once compile to the plain configuration, for a blocking call too."""
    plain = compiled()
    for blocking in (False, True):
        same = compiled({name: option.default for name, option in TABLE.items()}, blocking=blocking)
        assert same.curl == plain.curl
        assert same.identity == b""
        assert same.config_key == plain.config_key


def test_version_is_the_builds() -> None:
    """The version sent as User-Agent is the one that is built."""
    build = Path(__file__).parents[2] / "meson.build"
    if not build.exists():
        pytest.skip("not in the source tree")
    found = re.search(r"version: '([^']+)'", build.read_text())
    assert found is not None
    assert found[1] == __version__


# ---------------------------------------------------------------------------------------------- what libcurl is told


def test_plain_request_sets_what_must_always_be_set() -> None:
    """Without options libcurl is kept from the environment, from other protocols, and from headers of its own."""
    assert curl() == {
        "NOSIGNAL": 1,
        "PROTOCOLS_STR": b"http,https",
        "REDIR_PROTOCOLS_STR": b"http,https",
        "SUPPRESS_CONNECT_HEADERS": 1,
        "DNS_CACHE_TIMEOUT": 60,
        "PIPEWAIT": 1,
        "HTTP_VERSION": 4,
        "CAINFO": b"/trust/bundle.pem",
        "CA_CACHE_TIMEOUT": 86400,
        "COOKIEFILE": b"",
        "NOPROXY": b"",
        "PROXY": b"",
        "USERAGENT": b"katipo/" + __version__.encode(),
        "ACCEPT_ENCODING": b"gzip, deflate, br",
        "HTTPHEADER": [b"Expect:", b"Content-Type:"],
    }


def test_old_libcurl_gets_what_it_has() -> None:
    """Protocols as bits, no CA cache, no brotli, where libcurl is too old or built with less."""
    told = curl(library=OLD)
    assert told["PROTOCOLS"] == 3
    assert told["REDIR_PROTOCOLS_STR"] == b"http,https"
    assert "CA_CACHE_TIMEOUT" not in told
    assert told["ACCEPT_ENCODING"] == b"gzip, deflate"
    assert curl(library=OLD, followlocation=True)["FOLLOWLOCATION"] == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dns_cache_timeout": -1}, {"DNS_CACHE_TIMEOUT": -1}),
        ({"ca_cache_timeout": 0}, {"CA_CACHE_TIMEOUT": 0}),
        ({"followlocation": True}, {"FOLLOWLOCATION": 2, "MAXREDIRS": 9}),
        ({"followlocation": True, "maxredirs": -1}, {"FOLLOWLOCATION": 2, "MAXREDIRS": -1}),
        ({"ssl_verifyhost": False}, {"SSL_VERIFYHOST": 0}),
        ({"ssl_verifypeer": False}, {"SSL_VERIFYPEER": 0}),
        ({"cacert": Path("/own/ca.pem")}, {"CAINFO": b"/own/ca.pem"}),
        ({"capath": "/own/certs"}, {"CAPATH": b"/own/certs", "CAINFO": b"/trust/bundle.pem"}),
        ({"sslversion": "1.1"}, {"SSLVERSION": 5}),
        ({"sslversion": "1.3"}, {"SSLVERSION": 7}),
        ({"sslcert": b"/c.pem", "sslkey": "/k.pem", "keypasswd": "pw"}, {"SSLCERT": b"/c.pem", "SSLKEY": b"/k.pem"}),
        ({"keypasswd": "pw"}, {"KEYPASSWD": b"pw"}),
        ({"sslkey_blob": bytearray(b"key")}, {"SSLKEY_BLOB": b"key"}),
        ({"http_version": "1.0"}, {"HTTP_VERSION": 1}),
        ({"http_version": "1.1"}, {"HTTP_VERSION": 2}),
        ({"http_version": "2"}, {"HTTP_VERSION": 3}),
        ({"http_version": "2tls"}, {"HTTP_VERSION": 4}),
        ({"http_version": "2-prior-knowledge"}, {"HTTP_VERSION": 5}),
        ({"http_version": "3"}, {"HTTP_VERSION": 30}),
        ({"http_version": "3-only"}, {"HTTP_VERSION": 31}),
        ({"http_auth": "basic", "username": "u", "password": "p"}, {"HTTPAUTH": 1, "USERNAME": b"u", "PASSWORD": b"p"}),
        ({"http_auth": "digest", "userpwd": "u:p:q"}, {"HTTPAUTH": 2, "USERNAME": b"u", "PASSWORD": b"p:q"}),
        ({"http_auth": "negotiate"}, {"HTTPAUTH": 4}),
        ({"http_auth": "ntlm", "username": b"u"}, {"HTTPAUTH": 8, "USERNAME": b"u"}),
        ({"interface": "lo"}, {"INTERFACE": b"lo"}),
        ({"unix_socket_path": Path("/s")}, {"UNIX_SOCKET_PATH": b"/s"}),
        ({"doh_url": "https://dns.example/q"}, {"DOH_URL": b"https://dns.example/q"}),
        ({"tcp_fastopen": True}, {"TCP_FASTOPEN": 1}),
        ({"pipewait": False}, {"PIPEWAIT": 0}),
    ],
)
def test_option_reaches_libcurl(options: dict[str, Any], told: dict[str, Any]) -> None:
    """Each option as libcurl is told of it."""
    assert told.items() <= curl(**options).items()


def test_what_is_libcurls_own_minimum_is_not_asked_for() -> None:
    """libcurl shares connections between requests that asked for the same; 1.2 is its minimum from 8.16 on."""
    assert "SSLVERSION" not in curl(library=FakeLibrary(version=0x081000), sslversion="1.2")
    assert curl(library=FakeLibrary(version=0x080F00), sslversion="1.2")["SSLVERSION"] == 6


def test_http_version_none_without_http2_is_1_1() -> None:
    """Where libcurl has no HTTP/2, the default does not ask for it."""
    assert curl(library=FakeLibrary(features=frozenset()))["HTTP_VERSION"] == 2


def test_no_ca_directory_is_trusted_beside_a_cacert() -> None:
    """cacert replaces what is trusted by default, the directory that libcurl was built with included."""
    both = FakeLibrary(capath="/trust/certs")
    assert curl(library=both)["CAPATH"] == b"/trust/certs"
    assert curl(library=both, cacert="/own.pem")["CAPATH"] == b"/dev/null"
    assert curl(cacert="/own.pem")["CAPATH"] == b"/dev/null"
    assert curl(cacert="/own.pem", capath="/own")["CAPATH"] == b"/own"
    assert "CAPATH" not in curl(library=FakeLibrary(ssl="GnuTLS/3.7.9"), cacert="/own.pem")  # it would refuse


def test_limits_go_to_the_engine() -> None:
    """Timeouts and the size limit are the engine's; libcurl is told of none."""
    result = compiled(
        connecttimeout_ms=1,
        timeout_ms=2,
        read_timeout_ms=3,
        write_timeout_ms=4,
        pool_timeout_ms=5,
        max_response_bytes=6,
    )
    assert result.connect_timeout_ms == 1
    assert result.timeout_ms == 2
    assert result.read_timeout_ms == 3
    assert result.write_timeout_ms == 4
    assert result.pool_timeout_ms == 5
    assert result.max_bytes == 6
    assert result.curl == compiled().curl
    assert compiled().max_bytes == -1
    assert compiled(timeout_ms=0).timeout_ms == 0


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, set()),
        ({"followlocation": True}, {"follow"}),
        ({"http_auth": "basic", "userpwd": "u:p"}, set()),
        ({"http_auth": "digest", "userpwd": "u:p"}, {"may_retry_auth"}),
        ({"http_auth": "negotiate"}, {"may_retry_auth", "negotiate"}),
        ({"proxy": "h:1"}, {"proxied"}),
        ({"proxy": "h:1", "curl_options": {"PROXYAUTH": 4}}, {"proxied", "may_retry_auth", "negotiate"}),
        ({"curl_options": {"PRE_PROXY": "socks5://h"}}, {"proxied"}),
        ({"verbose": True}, {"verbose"}),
        ({"headers": {"Accept-Encoding": "br"}}, {"own_accept"}),
        ({"cookiejar": CookieJar([b"h\tFALSE\t/\tFALSE\t0\ta\tb"])}, {"has_cookies"}),
        ({"cookiejar": CookieJar()}, set()),
    ],
)
def test_flags(options: dict[str, Any], flags: set[str]) -> None:
    """What the engine must know of a configuration."""
    assert compiled(**options).flags == flags


def test_cookiejar_becomes_one_entry_per_cookie() -> None:
    """Cookies go to libcurl line by line, after its cookies were turned on."""
    jar = CookieJar([b"h\tFALSE\t/\tFALSE\t0\ta\tb", b"h\tFALSE\t/\tFALSE\t0\tc\td"])
    told = [(NAMES[number], value) for number, value in compiled(cookiejar=jar).curl]
    cookies = [entry for entry in told if entry[0].startswith("COOKIE")]
    assert [name for name, _ in cookies] == ["COOKIEFILE", "COOKIELIST", "COOKIELIST"]
    assert cookies[1][1] == b"h\tFALSE\t/\tFALSE\t0\ta\tb"


# ---------------------------------------------------------------------------------------------- headers


def test_headers_from_mappings_and_pairs() -> None:
    """All shapes of headers, in order, repeated ones kept, white space around values dropped."""
    plain = [b"Expect:", b"Content-Type:"]
    assert lines(headers={"A": "1", "b": b" 2 "}) == [b"A: 1", b"b: 2", *plain]
    assert lines(headers=[("A", "1"), (b"A", b"2")]) == [b"A: 1", b"A: 2", *plain]
    assert lines(headers=(pair for pair in [("A", "é")])) == [b"A: \xc3\xa9", *plain]
    assert lines(headers=Headers([("A", "1"), ("A", "2")])) == [b"A: 1", b"A: 2", *plain]


def test_header_none_is_removed_and_empty_is_sent() -> None:
    """None takes libcurl's own header away; an empty value is sent."""
    assert lines(headers={"Accept": None, "X-Empty": ""})[:2] == [b"Accept:", b"X-Empty;"]


def test_callers_expect_and_content_type_are_kept() -> None:
    """What the caller says of them replaces what katipo adds."""
    own = {"expect": "100-continue", "content-type": "text/plain"}
    assert lines(headers=own, body=b"x") == [b"expect: 100-continue", b"content-type: text/plain"]
    assert lines(headers=own, body={"a": 1}) == [b"expect: 100-continue", b"content-type: text/plain"]


def test_callers_user_agent_replaces_katipos() -> None:
    """Given or taken away, katipo's own is gone, towards a proxy too."""
    for value in ("x", None, ""):
        assert "USERAGENT" not in curl(headers={"User-Agent": value})


def test_accept_encoding_of_buffered_and_streamed_responses() -> None:
    """libcurl decodes buffered responses, katipo streamed ones; a caller's own header replaces the offer only."""
    offer = b"Accept-Encoding: gzip, deflate, br"
    assert offer in lines(stream=True)
    assert "ACCEPT_ENCODING" not in curl(stream=True)
    assert "ACCEPT_ENCODING" not in curl(decode=False)
    assert offer not in lines(stream=True, decode=False)
    own = {"Accept-Encoding": "br"}
    assert curl(headers=own)["ACCEPT_ENCODING"] == b"gzip, deflate, br"
    assert lines(headers=own)[0] == b"Accept-Encoding: br"
    assert offer not in lines(headers=own, stream=True)
    assert compiled(stream=True).decode
    assert not compiled(decode=False).decode


def test_headers_for_the_request_leave_out_what_is_not_sent() -> None:
    """The list for the Request: as given, without None, with a form's type."""
    assert compiled(headers={"A": "1", "B": None}).headers == [(b"A", b"1")]
    assert compiled(body={"a": "b"}).headers == [(b"Content-Type", b"application/x-www-form-urlencoded")]


@pytest.mark.parametrize(
    "headers",
    [
        {"A": "x\r\ny: z"},
        {"A": "x\ny"},
        {"A": b"x\0y"},
        {"A\r\nB": "x"},
        {"A B": "x"},
        {"": "x"},
        {"é": "x"},
        {":authority": "x"},
        {"A:": "x"},
        {"A": 1},
        {1: "x"},
        [("A",)],
        [("A", "b", "c")],
        ["Ab"],
        "A: b",
        b"A: b",
        7,
        {"A": "\ud800"},
        [("Host", "a"), ("host", "b")],
        {"Connection": "upgrade"},
        {"Connection": "close, X-Secret"},
        {"Transfer-Encoding": "gzip"},
        {"Transfer-Encoding": ""},
        {"Transfer-Encoding": "chunked"},
        {"Content-Length": "5"},
        {"Content-Length": "-1"},
        {"Content-Length": "+0"},
        {"Content-Length": ""},
        {"Content-Length": "0, 0"},
        {"Content-Length": "9" * 19},
        [("Content-Length", "0"), ("content-length", "0")],
    ],
)
def test_headers_refused(headers: object) -> None:
    """Headers that would break the message, or that are none."""
    assert refusal(headers=headers).startswith("headers: ")


def test_every_bad_header_is_named_and_no_value() -> None:
    """All at once; what slipped into a name after its first bad character is not shown."""
    text = refusal(headers=[("Authorization: Bearer s3cret", "x"), ("X-One", "s3cret\n"), ("X-Two", 5)])
    for name in ("Authorization", "X-One", "X-Two"):
        assert name in text
    assert "s3cret" not in text


@pytest.mark.parametrize("value", ["close", "keep-alive", "Keep-Alive, TE", "TE", None, ""])
def test_connection_header_allowed(value: str | None) -> None:
    """What a caller may ask of the connection."""
    assert lines(headers={"Connection": value})[0].startswith(b"Connection")


# ---------------------------------------------------------------------------------------------- bodies and framing


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"abc", b"abc"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcdef")[::2], b"ace"),
        ("é", b"\xc3\xa9"),
        (b"", b""),
        ({"a": "b c", "é": "&"}, b"a=b+c&%C3%A9=%26"),
        ({"a": [1, 2.5, True, False, None, b"\xff"]}, b"a=1&a=2.5&a=true&a=false&a=&a=%FF"),
        ([("a", "1"), ("a", "2")], b"a=1&a=2"),
        ((pair for pair in [("a", "1")]), b"a=1"),
        ({}, b""),
    ],
)
def test_body(body: Any, data: bytes) -> None:
    """Every shape of a body, and the type that forms get and others do not."""
    form = not isinstance(body, (bytes, bytearray, memoryview, str))
    result = compiled(body=body, method=b"POST")
    assert result.body == data
    assert result.body_length == len(data)
    told: dict[str, Any] = {NAMES[number]: value for number, value in result.curl}
    kind = b"Content-Type: application/x-www-form-urlencoded" if form else b"Content-Type:"
    assert kind in told["HTTPHEADER"]


@pytest.mark.parametrize(
    "body", [5, 1.5, object(), [1], ["ab"], {"a": {"b": 1}}, {"a": object()}, [("a", 1, 2)], "\ud800", {"a": "\ud800"}]
)
def test_body_refused(body: object) -> None:
    """What is no body."""
    assert refusal(body=body).startswith("body: ")


@pytest.mark.parametrize(
    ("method", "body"), [(b"POST", b""), (b"PUT", b""), (b"PATCH", b""), (b"GET", None), (b"DELETE", None)]
)
def test_absent_body(method: bytes, body: bytes | None) -> None:
    """Methods that mean to send something say that it is empty; a streamed body comes later."""
    assert compiled(method=method).body == body
    assert compiled(method=method, headers={"A": "b"}).body == body
    assert compiled(method=method).body_length == 0
    assert compiled(method=method, stream_body=True).body is None
    assert compiled(method=method, stream_body=True).body_length == -1


def test_content_length_of_a_buffered_body_is_checked_and_dropped() -> None:
    """It may say what is so; libcurl says it again itself."""
    assert b"Content-Length: 3" not in lines(headers={"Content-Length": "3"}, body=b"abc")
    assert "length" in refusal(headers={"Content-Length": "4"}, body=b"abc")
    assert compiled(headers={"Content-Length": "0"}).body == b""
    assert compiled(headers={"Content-Length": None}).body is None
    assert "taken away" in refusal(headers={"Content-Length": None}, body=b"abc")


def test_content_length_of_a_streamed_body_is_its_declared_length() -> None:
    """The engine counts; the line itself is dropped."""
    result = compiled(headers={"Content-Length": " 12 "}, stream_body=True)
    assert (result.declared_length, result.body_length, result.body) == (12, 12, None)
    assert result.headers == [(b"Content-Length", b"12")]
    assert b"Content-Length: 12" not in lines(headers={"Content-Length": "12"}, stream_body=True)
    assert compiled(stream_body=True).declared_length == -1


def test_transfer_encoding_only_chunked_and_only_streamed() -> None:
    """libcurl chunks by itself; the caller's word for it is dropped."""
    assert lines(headers={"Transfer-Encoding": "Chunked"}, stream_body=True) == [b"Expect:", b"Content-Type:"]
    assert "Content-Length" in refusal(
        headers={"Transfer-Encoding": "chunked", "Content-Length": "1"}, stream_body=True
    )
    assert "taken away" in refusal(headers={"Transfer-Encoding": None}, stream_body=True)
    assert lines(headers={"Transfer-Encoding": None}) == [b"Expect:", b"Content-Type:"]


# ---------------------------------------------------------------------------------------------- streams


def test_stream_options_reach_the_request() -> None:
    """How bodies travel is the request's own, and leaves the configuration alone."""
    box = Box()
    result = compiled(
        stream=True,
        stream_window=5,
        flow_control="manual",
        stream_body=True,
        upload_window=6,
        on_abandon="finish",
        reply_to=box,
        ref=("any", 1),
    )
    assert (result.stream, result.window, result.manual) == (True, 5, True)
    assert (result.stream_body, result.upload_window, result.finish_on_abandon) == (True, 6, True)
    assert result.reply_to is box
    assert result.ref == ("any", 1)


def test_windows_by_default() -> None:
    """Buffered responses have no window, streams 1 MiB, None is unbounded."""
    assert compiled().window == -1
    assert compiled(stream=True).window == 1048576
    assert compiled(stream=True, stream_window=None).window == -1
    assert compiled(stream=True, flow_control="manual", stream_window=0).window == 0
    assert compiled(stream_body=True).upload_window == 1048576
    assert compiled(ref=0).ref == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stream", True),
        ("stream_window", 5),
        ("stream_window", None),
        ("flow_control", "manual"),
        ("informational", True),
        ("stream_body", True),
        ("upload_window", 5),
        ("on_abandon", "finish"),
        ("reply_to", Box()),
        ("reply_to", 5),
        ("ref", 1),
        ("stream", "yes"),
    ],
)
def test_blocking_call_refuses_async_option(name: str, value: object) -> None:
    """In these very words."""
    assert refusal({name: value}, blocking=True) == f"{name} requires async_request"


# ---------------------------------------------------------------------------------------------- refusals


def test_unknown_option_names_the_nearest() -> None:
    """In these very words."""
    assert refusal(timeout=3) == "timeout: did you mean timeout_ms?"


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("follow_redirects", "followlocation"),
        ("allow_redirects", "followlocation"),
        ("max_redirects", "maxredirs"),
        ("verify", "ssl_verifypeer"),
        ("data", "body"),
        ("json", "body"),
        ("content", "body"),
        ("cert", "sslcert"),
        ("proxies", "proxy"),
        ("auth", "http_auth"),
        ("cookies", "cookiejar"),
        ("header", "headers"),
        ("conecttimeout_ms", "connecttimeout_ms"),
        ("steam", "stream"),
        ("Headers", "headers"),
        ("ssl_verify_peer", "ssl_verifypeer"),
        ("curl_option", "curl_options"),
    ],
)
def test_slip_of_a_name(slip: str, meant: str) -> None:
    """Names from other clients, and misspelt ones."""
    assert refusal({slip: 1}) == f"{slip}: did you mean {meant}?"


def test_unknown_option_without_a_near_one() -> None:
    """Nothing is guessed where nothing is near."""
    assert refusal(zzzz=1) == "zzzz: there is no such option"


def test_every_offender_is_named_at_once() -> None:
    """One exception for all of a call."""
    text = refusal(timeout=3, read_timeout_ms=-1, verbose=1, stream=True, blocking=True, curl_options={"URL": "x"})
    for name in ("timeout: ", "read_timeout_ms: ", "verbose: ", "stream requires", "URL"):
        assert name in text


BAD_VALUES: dict[str, list[Any]] = {
    "headers": [5, "a: b"],
    "cookiejar": [{"a": "b"}, "a=b", []],
    "body": [5],
    **dict.fromkeys(
        ["connecttimeout_ms", "timeout_ms", "read_timeout_ms", "write_timeout_ms", "pool_timeout_ms"],
        [True, False, -1, 1.0, 1.5, math.nan, math.inf, "5", None, 2**63, 10**30, b"1", [1]],
    ),
    "dns_cache_timeout": [True, -2, 1.0, 2**31, None],
    "ca_cache_timeout": [True, -2, 1.0, 2**31, None],
    "maxredirs": [True, -2, 2.0, 2**31, None],
    **dict.fromkeys(
        [
            "followlocation",
            "ssl_verifyhost",
            "ssl_verifypeer",
            "tcp_fastopen",
            "pipewait",
            "verbose",
            "decode",
            "stream",
            "stream_body",
        ],
        [0, 1, None, "yes", 2.0],
    ),
    **dict.fromkeys(
        ["cacert", "capath", "sslcert", "sslkey", "unix_socket_path"], [5, "", b"", "a\0b", "a\nb", True, ["x"]]
    ),
    "sslkey_blob": ["key", 5, b""],
    **dict.fromkeys(["keypasswd", "username", "userpwd"], [5, "a\0", "a\r", b"\n", True, "\ud800", "x" * 8_000_001]),
    "password": [5, "a\0"],
    "sslversion": ["1.4", 1.2, None, b"1.2", ""],
    "http_version": ["4", 2, 1.1, None, ""],
    "http_auth": ["bearer", "", ("u", "p"), 1],
    "proxy": [
        5,
        b"http://h",
        "ftp://h",
        "http://",
        "http://h:0",
        "http://h:99999",
        "http://h:x",
        "http://h h",
        "http://h\r\n",
        "http://h/path",
        "http://h?q",
        "http://[::1",
        "http://é",
        "http://u:p/w@h",
        "http://u%0d:p@h",
        "socks5://h/path",
    ],
    "interface": [5, "", "a\0b"],
    "doh_url": ["http://dns.example", "https://", 5, "https://a b", "https://a\n"],
    "max_response_bytes": [True, -1, 1.0, 2**63, "5"],
    "curl_options": [5, "RANGE", [("RANGE", "x")], {1: 2}],
    "flow_control": ["off", None, 1],
    "informational": [1, None, "yes"],
    "stream_window": [True, -1, 1.0, 2**63],
    "upload_window": [True, 0, -1, None, 2**63],
    "on_abandon": ["drop", None],
    "reply_to": [5, "box"],
    "ref": [[], {}],
}


def test_bad_values_cover_the_table() -> None:
    """No option without a refused value."""
    assert set(BAD_VALUES) == set(TABLE)


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, vs in BAD_VALUES.items() for v in vs], ids=lambda v: str(v)[:20]
)
def test_bad_value(name: str, value: object) -> None:
    """Refused by name, and only it."""
    needs = {name: {"stream": True} for name in ("stream_window", "flow_control", "informational")}
    needs |= dict.fromkeys(["upload_window", "on_abandon"], {"stream_body": True})
    text = (
        refusal({name: value, **needs.get(name, {})}) if name != "password" else refusal(username="u", password=value)
    )
    assert text.startswith(f"{name}: ")
    assert "; " not in text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"body": b"x", "stream_body": True}, "body excludes stream_body"),
        ({"stream_window": 5}, "stream_window requires stream"),
        ({"stream_window": None}, "stream_window requires stream"),
        ({"flow_control": "manual"}, "flow_control requires stream"),
        ({"informational": True}, "informational requires stream"),
        ({"upload_window": 5}, "upload_window requires stream_body"),
        ({"on_abandon": "finish"}, "on_abandon requires stream_body"),
        (
            {"stream": True, "flow_control": "manual", "stream_window": None},
            'flow_control: "manual" requires a bounded stream_window',
        ),
        ({"stream": True, "stream_window": 0}, 'stream_window: 0 requires flow_control "manual"'),
        ({"userpwd": "u:p", "username": "u"}, "userpwd excludes username"),
        ({"userpwd": "u:p", "password": "p"}, "userpwd excludes password"),
        ({"password": "p"}, "password requires username"),
        ({"sslkey": "/k", "sslkey_blob": b"k"}, "sslkey excludes sslkey_blob"),
        ({"http_auth": "basic"}, 'http_auth: "basic" requires username or userpwd'),
        ({"http_auth": "digest"}, 'http_auth: "digest" requires username or userpwd'),
        ({"http_auth": "ntlm"}, 'http_auth: "ntlm" requires username or userpwd'),
        ({"stream_body": True, "http_version": "1.0"}, "stream_body: HTTP/1.0 has no way to send it"),
    ],
)
def test_combination_refused(options: dict[str, Any], text: str) -> None:
    """Combinations that make no sense, twice: what was kept from the first time does not hide them."""
    assert refusal(**options) == text
    assert refusal(**options) == text


@pytest.mark.parametrize(
    "options",
    [
        {"stream_window": 1048576, "flow_control": "auto", "upload_window": 1048576, "on_abandon": "abort"},
        {"body": None, "stream_body": True},
        {"body": b"x", "stream_body": False},
        {"userpwd": "u:p", "username": None, "password": None},
        {"sslkey": None, "sslkey_blob": b"k"},
        {"http_auth": "negotiate"},
        {"proxy": ""},
        {"headers": {}, "curl_options": {}},
    ],
)
def test_default_in_a_combination_is_not_given(options: dict[str, Any]) -> None:
    """An option given its default takes part in no refusal."""
    compiled(**options)


def test_bool_is_not_taken_for_the_int_that_was_kept() -> None:
    """A kept configuration for 1 is not found by True, nor the other way round."""
    compiled(timeout_ms=1, verbose=True)
    assert refusal(timeout_ms=True).startswith("timeout_ms: ")
    assert refusal(timeout_ms=1, verbose=1).startswith("verbose: ")


@pytest.mark.parametrize(
    ("options", "library"),
    [
        ({"http_version": "3"}, FakeLibrary(features=frozenset(("http2",)))),
        ({"http_version": "3-only"}, FakeLibrary(features=frozenset())),
        ({"http_version": "2"}, FakeLibrary(features=frozenset())),
        ({"http_version": "2-prior-knowledge"}, FakeLibrary(features=frozenset())),
        ({"http_auth": "ntlm", "userpwd": "u:p"}, FakeLibrary(features=frozenset())),
        ({"http_auth": "negotiate"}, FakeLibrary(features=frozenset())),
        ({"tcp_fastopen": True}, FakeLibrary(without="TCP_FASTOPEN")),
        ({"doh_url": "https://d"}, FakeLibrary(without="DOH_URL")),
        ({"ca_cache_timeout": 5}, OLD),
        ({"proxy": "https://h"}, FakeLibrary(features=frozenset())),
        ({"sslkey_blob": b"k"}, FakeLibrary(without="SSLKEY_BLOB")),
        ({"curl_options": {"NO_SUCH_THING": 1}}, LIBRARY),
    ],
)
def test_not_built_in(options: dict[str, Any], library: FakeLibrary) -> None:
    """What this libcurl lacks has a code of its own, unless something else is wrong too."""
    refusal(options, library=library, code="not_built_in")
    refusal({**options, "timeout": 5}, library=library, code="bad_opts")


def test_no_message_shows_a_secret() -> None:
    """Neither values nor userinfo get into what is raised."""
    secret = "s3cr3t"
    bad: dict[str, object] = {
        "headers": {"Authorization": f"Bearer {secret}\n", f"X: {secret}": "v"},
        "body": {"a": {secret: secret}},
        "username": f"{secret}\0",
        "password": f"{secret}\0",
        "userpwd": f"{secret}:{secret}\r",
        "keypasswd": f"{secret}\n",
        "proxy": f"http://u:{secret}/@h",
        "http_auth": secret,
        "doh_url": f"http://u:{secret}@h",
        "cookiejar": f"a={secret}",
        "sslkey_blob": secret,
        "curl_options": {"RANGE": f"{secret}\n", "PROXYHEADER": [f"A: {secret}\r"], f"X={secret}": 1},
        "timeout_ms": secret,
        "http_version": secret,
    }
    with pytest.raises(BadOptions) as caught:
        compiled(bad)
    for text in (str(caught.value), repr(caught.value)):
        assert secret not in text
    for name in bad:
        assert name in str(caught.value)


# ---------------------------------------------------------------------------------------------- proxies


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ("h", {"PROXY": b"http://h"}),
        ("h:8080", {"PROXY": b"http://h:8080"}),
        ("HTTP://h:8080/", {"PROXY": b"http://h:8080"}),
        ("http://[::1]:8080", {"PROXY": b"http://[::1]:8080"}),
        (
            "http://us%40er:p%3Aw:x@h:1",
            {"PROXY": b"http://h:1", "PROXYUSERNAME": b"us@er", "PROXYPASSWORD": b"p:w:x"},
        ),
        ("http://u@h", {"PROXY": b"http://h", "PROXYUSERNAME": b"u"}),
        ("socks4a://h:1", {"PROXY": b"socks4a://h:1"}),
        ("socks5h://localhost/run/s.sock", {"PROXY": b"socks5h://localhost/run/s.sock"}),
        ("https://h:1", {"PROXY": b"https://h:1", "PROXY_CAINFO": b"/trust/bundle.pem"}),
    ],
)
def test_proxy(proxy: str, told: dict[str, bytes]) -> None:
    """The proxy without its userinfo, which goes beside it; NOPROXY stays empty."""
    assert told.items() <= curl(proxy=proxy).items()
    assert curl(proxy=proxy)["NOPROXY"] == b""


def test_proxy_with_its_own_trust_keeps_it() -> None:
    """A proxy's CAs given as libcurl options are not joined by the default ones."""
    told = curl(proxy="https://h", curl_options={"proxy_cainfo": "/p.pem"})
    assert told["PROXY_CAINFO"] == b"/p.pem"


# ---------------------------------------------------------------------------------------------- identity

IDENTITIES: list[dict[str, Any]] = [
    {"sslcert": "/c"},
    {"sslcert": "/d"},
    {"sslkey": "/c"},
    {"sslkey_blob": b"k"},
    {"keypasswd": "k"},
    {"ssl_verifyhost": False},
    {"ssl_verifypeer": False},
    {"cacert": "/c"},
    {"capath": "/c"},
    {"sslversion": "1.3"},
    {"proxy": "h:1"},
    {"proxy": "u@h:1"},
    {"proxy": "u:p@h:1"},
    {"proxy": "u:q@h:1"},
    {"http_auth": "ntlm", "userpwd": "u:p"},
    {"http_auth": "ntlm", "userpwd": "u:q"},
    {"http_auth": "negotiate"},
    {"http_auth": "negotiate", "username": "u"},
    {"interface": "lo"},
    {"unix_socket_path": "/s"},
    {"doh_url": "https://d"},
    *(
        {"curl_options": options}
        for options in (
            {"RESOLVE": ["a:1:b"]},
            {"RESOLVE": ["a:1:", "b"]},
            {"CONNECT_TO": ["a:1:b"]},
            {"PINNEDPUBLICKEY": "k"},
            {"SSL_CIPHER_LIST": "k"},
            {"DOH_SSL_VERIFYPEER": 0},
            {"PROXYHEADER": ["A: b"]},
            {"PROXY_CAINFO": "/c"},
            {"LOCALPORT": 5},
            {"SSLCERT_BLOB": b"k"},
            {"CAINFO_BLOB": b"k"},
            {"SSL_OPTIONS": 1},
            {"HTTPPROXYTUNNEL": 1},
            {"IPRESOLVE": 1},
        )
    ),
]


def test_identities_differ_and_show_nothing() -> None:
    """Everything a connection keeps makes an identity of its own, as a digest."""
    keys = [identity(**options) for options in IDENTITIES]
    assert b"" not in keys
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {16}
    assert keys == [identity(**options) for options in IDENTITIES]


def test_identity_is_independent_of_order() -> None:
    """The same options in another order, or spelt otherwise, are the same identity."""
    one = identity(curl_options={"RESOLVE": ["a:1:b"], "LOCALPORT": 5})
    assert one == identity(curl_options={"localport": 5, "CURLOPT_RESOLVE": ["a:1:b"]})


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"A": "b"}},
        {"body": b"x"},
        {"timeout_ms": 1},
        {"followlocation": True},
        {"http_version": "1.1"},
        {"http_auth": "basic", "userpwd": "u:p"},
        {"http_auth": "digest", "userpwd": "u:p"},
        {"username": "u"},
        {"cookiejar": CookieJar([b"h\tFALSE\t/\tFALSE\t0\ta\tb"])},
        {"curl_options": {"LOW_SPEED_TIME": 10}},
        {"stream": True},
        {"verbose": True},
        {"proxy": None},
    ],
)
def test_plain_identity(options: dict[str, Any]) -> None:
    """What no connection keeps leaves the identity plain."""
    assert identity(**options) == b""


# ---------------------------------------------------------------------------------------------- curl_options


def test_curl_options_by_kind() -> None:
    """Each kind as the engine takes it; names in either case, with or without CURLOPT_."""
    told = curl(
        curl_options={
            "LOW_SPEED_TIME": 10,
            "tcp_keepalive": True,
            "MAX_RECV_SPEED_LARGE": 2**40,
            "CURLOPT_RANGE": "0-5",
            "RESOLVE": ["a:1:b", b"c:1:d"],
            "CONNECT_TO": ("a:1:b:2",),
            "SSLCERT_BLOB": bytearray(b"pem"),
            "SSL_OPTIONS": 16,
            "PROXY_CAINFO": Path("/p"),
        }
    )
    assert {
        "LOW_SPEED_TIME": 10,
        "TCP_KEEPALIVE": 1,
        "MAX_RECV_SPEED_LARGE": 2**40,
        "RANGE": b"0-5",
        "RESOLVE": [b"a:1:b", b"c:1:d"],
        "CONNECT_TO": [b"a:1:b:2"],
        "SSLCERT_BLOB": b"pem",
        "SSL_OPTIONS": 16,
        "PROXY_CAINFO": b"/p",
    }.items() <= told.items()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOW_SPEED_TIME", "10"),
        ("LOW_SPEED_TIME", 1.0),
        ("LOW_SPEED_TIME", None),
        ("LOW_SPEED_TIME", 2**63),
        ("MAX_RECV_SPEED_LARGE", -(2**63) - 1),
        ("RANGE", 5),
        ("RANGE", "a\r\nb"),
        ("RANGE", b"a\0"),
        ("RANGE", None),
        ("RESOLVE", "a:1:b"),
        ("RESOLVE", {"a": 1}),
        ("RESOLVE", [5]),
        ("RESOLVE", ["a\nb"]),
        ("RESOLVE", 5),
        ("SSLCERT_BLOB", "pem"),
        ("SSLCERT_BLOB", b""),
        ("SSLCERT_BLOB", 5),
        ("REQUEST_TARGET", "/ HTTP/1.0"),
        ("REQUEST_TARGET", ""),
        ("WRITEDATA", 1),
        ("XFERINFODATA", 1),
        ("SOME_FUTURE_DATA", 1),
        ("WRITEFUNCTION", print),
        ("SSL_CTX_FUNCTION", print),
        ("POSTFIELDS", b"x"),
        ("CURLU", 1),
        ("LOW_SPEED_TIMES", 1),
    ],
)
def test_curl_option_refused(name: str, value: object) -> None:
    """By kind and value, under the name the caller used."""
    assert refusal(curl_options={name: value}).startswith(f"curl_options['{name}']: ")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_curl_option_that_is_katipos(name: str) -> None:
    """Every one of them, in lower case and with the prefix too."""
    for spelt in (name, name.lower(), "CURLOPT_" + name):
        assert "refused: " in refusal(curl_options={spelt: 1})


@pytest.mark.parametrize(
    "name",
    """
    URL HTTPHEADER USERAGENT TIMEOUT TIMEOUT_MS CONNECTTIMEOUT CONNECTTIMEOUT_MS NOSIGNAL PROXY NOPROXY
    FOLLOWLOCATION PROTOCOLS PROTOCOLS_STR REDIR_PROTOCOLS REDIR_PROTOCOLS_STR NETRC NETRC_FILE COOKIEFILE
    COOKIEJAR COOKIELIST WRITEFUNCTION HEADERFUNCTION READFUNCTION WRITEDATA READDATA HEADERDATA PRIVATE SHARE
    ERRORBUFFER STDERR CURLU POST UPLOAD NOBODY CUSTOMREQUEST HTTPGET POSTFIELDS COPYPOSTFIELDS MIMEPOST
    CONNECT_ONLY HEADER STREAM_DEPENDS STREAM_DEPENDS_E ACCEPT_ENCODING SSL_VERIFYPEER SSL_VERIFYHOST CAINFO
    CAPATH VERBOSE FILE INFILE WRITEHEADER ENCODING RTSPHEADER PROGRESSDATA HTTP09_ALLOWED
    """.split(),
)
def test_curl_option_of_the_contract_is_refused(name: str) -> None:
    """What katipo sets, callbacks, their data, protocols, netrc, cookie files, and every alias of them."""
    real = {"FILE": (1, 6), "INFILE": (2, 6), "WRITEHEADER": (3, 6), "PROGRESSDATA": (4, 6)}

    class Whole(FakeLibrary):
        def option(self, name: str, /) -> tuple[int, int] | None:
            return real.get(name) or super().option(name)

    assert "refused: " in refusal(curl_options={name: 1}, library=Whole())


def test_curl_option_given_twice() -> None:
    """Two spellings of one option contradict each other."""
    assert "given twice" in refusal(curl_options={"range": "1-2", "RANGE": "2-3"})


def test_misspelt_curl_option_names_the_nearest() -> None:
    """As for katipo's own options."""
    assert "did you mean LOW_SPEED_TIME?" in refusal(curl_options={"LOWSPEED_TIME": 1})


# ---------------------------------------------------------------------------------------------- keeping configurations


def test_config_key_tells_when_configurations_are_equal() -> None:
    """The request's own options leave it alone; others change it; headers, secrets and identities have none."""
    plain = compiled().config_key
    assert plain is not None
    assert compiled(ref=1, reply_to=Box(), body=b"x", stream_body=False).config_key == plain
    assert compiled(stream=True).config_key not in (None, plain)
    assert compiled(stream=True, stream_window=5, ref=3).config_key == compiled(stream=True).config_key
    assert compiled(timeout_ms=5).config_key not in (None, plain)
    assert compiled(timeout_ms=5).config_key == compiled(timeout_ms=5, ref=1).config_key
    assert compiled(decode=False).config_key not in (None, plain)
    own: list[dict[str, Any]] = [
        {"headers": {"A": "b"}},
        {"body": {"a": 1}},
        {"userpwd": "u:p"},
        {"cacert": "/c"},
        {"proxy": "h"},
    ]
    for options in own:
        assert compiled(**options).config_key is None


def test_equal_keys_are_equal_configurations() -> None:
    """What a pool keeps under a key is what each call would have built."""
    seen: dict[Any, Any] = {}
    calls: list[dict[str, Any]] = [
        {},
        {"ref": 1},
        {"stream": True},
        {"stream": True, "ref": 2},
        {"verbose": True},
        {"decode": False},
    ]
    for options in calls:
        result = compiled(**options)
        content = (result.curl, result.identity, result.flags, result.timeout_ms, result.max_bytes)
        assert seen.setdefault(result.config_key, content) == content


# ---------------------------------------------------------------------------------------------- anything at all


class Mischief:
    """Raises when it is used."""

    def __iter__(self) -> Any:
        raise RuntimeError("hostile")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("hostile")

    def __hash__(self) -> int:
        raise RuntimeError("hostile")

    def __index__(self) -> int:
        raise RuntimeError("hostile")

    def __fspath__(self) -> str:
        raise RuntimeError("hostile")

    def __len__(self) -> int:
        raise RuntimeError("hostile")


class Hostile(Mischief):
    """Raises when it is looked at, too."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("hostile")

    def __hash__(self) -> int:
        raise RuntimeError("hostile")


@pytest.mark.parametrize("name", sorted(TABLE))
def test_hostile_object(name: str) -> None:
    """A value that raises when looked at is a bad option, not the caller's crash."""
    for value in (Hostile(), [Hostile()], {"A": Hostile()}, [(Hostile(), Hostile())]):
        with pytest.raises(BadOptions, match=name):
            compiled({name: value})


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.sampled_from([2**63, -(2**63) - 1, "a\r\nb", b"\0", "http://u:p@h", object(), Box(), os]),
)
JUNK = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=8) | st.binary(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
GOOD = {
    "stream": True,
    "stream_body": True,
    "http_version": "1.0",
    "userpwd": "u:p",
    "headers": {"Content-Length": "3"},
}


@settings(max_examples=300, deadline=None)
@given(
    options=st.dictionaries(st.sampled_from(sorted(TABLE)) | st.text(max_size=10), JUNK, max_size=4),
    good=st.sets(st.sampled_from(sorted(GOOD))),
    curl_options=st.dictionaries(st.sampled_from(sorted(OPTIONS)) | st.text(max_size=10), JUNK, max_size=3),
    blocking=st.booleans(),
    method=st.sampled_from([b"GET", b"POST", b"HEAD"]),
)
def test_junk_raises_nothing_but_bad_options(
    options: dict[str, object], good: set[str], curl_options: dict[str, object], blocking: bool, method: bytes
) -> None:
    """Whatever is passed: a compiled call of the promised types, or BadOptions."""
    every = {**options, **{name: GOOD[name] for name in good}, "curl_options": curl_options}
    try:
        result = compiled(every, blocking=blocking, method=method)
    except BadOptions as error:
        assert error.code in ("bad_opts", "not_built_in")  # noqa: PT017 - most examples raise nothing
        return
    for number, value in result.curl:
        assert type(number) is int
        assert type(value) in (int, bytes, list)
    told: dict[str, Any] = {NAMES[number]: value for number, value in result.curl}
    for line in told["HTTPHEADER"]:
        assert type(line) is bytes
        assert not re.search(rb"[\r\n\0]", line)


# ---------------------------------------------------------------------------------------------- pools


def test_pool_defaults() -> None:
    """The interface's defaults, as the engine takes them."""
    assert check_pool_options() == {
        "workers": 1,
        "multiplexing": True,
        "max_total_connections": 0,
        "max_host_connections": 0,
        "max_idle_connections": -1,
        "max_concurrent_streams": 100,
        "max_in_flight": 0,
        "name": b"",
    }
    names = inspect.signature(check_pool_options).parameters
    assert [name for name, p in names.items() if p.kind is p.POSITIONAL_OR_KEYWORD] == ["workers"]


def test_pool_options_given() -> None:
    """Numbers as they are, the name as bytes."""
    options = check_pool_options(4, max_idle_connections=0, max_in_flight=7, name="é", multiplexing=False)
    assert (options["workers"], options["max_idle_connections"], options["max_in_flight"]) == (4, 0, 7)
    assert options["name"] == b"\xc3\xa9"
    assert options["multiplexing"] is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 0),
        ("workers", True),
        ("workers", 1.0),
        ("workers", None),
        ("workers", 10**6),
        ("multiplexing", 1),
        ("max_total_connections", -1),
        ("max_total_connections", 2**31),
        ("max_host_connections", "5"),
        ("max_host_connections", None),
        ("max_idle_connections", -1),
        ("max_concurrent_streams", 0),
        ("max_in_flight", 0),
        ("max_in_flight", True),
        ("name", 5),
        ("name", "a\0b"),
    ],
)
def test_pool_option_refused(name: str, value: object) -> None:
    """By name; other offenders with it."""
    with pytest.raises(BadOptions, match=f"^{name}: "):
        check_pool_options(**{name: value})
    with pytest.raises(BadOptions) as caught:
        check_pool_options(**{"workers": 0, "name": 5, name: value})
    assert {"workers", "name", name} <= set(re.findall(r"(\w+): ", str(caught.value)))
