"""Every refusal of the contract: raised by the call itself, naming the offenders, with nothing sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.hostile import response, serve

if TYPE_CHECKING:
    from tests.conftest import Hostile
    from tests.support.origin import Origin

FORMS = ("request", "async_request", "get", "async_get")


def call(pool: katipo.Pool, form: str, url: str, options: dict[str, Any]) -> Any:
    """One of the ways to send a GET."""
    if "request" in form:
        return getattr(pool, form)("GET", url, **options)
    return getattr(pool, form)(url, **options)


def refused(pool: katipo.Pool, origin: Origin, options: dict[str, Any], *, forms: tuple[str, ...] = FORMS) -> str:
    """The message with which every form of the call, and check_options, refuse these options; nothing is sent."""
    name = origin.fresh_id()
    url = f"{origin.strict_http}/count?id={name}"
    messages: set[str] = set()
    for form in forms:
        with pytest.raises(katipo.BadOptions) as caught:
            call(pool, form, url, options)
        assert isinstance(caught.value, ValueError)
        messages.add(caught.value.message)
    if "async_request" in forms:
        with pytest.raises(katipo.BadOptions) as caught:
            pool.check_options(**options)
        messages.add(caught.value.message)
    assert len(messages) == 1, "every form says the same"
    assert (pool.statistics().in_flight, pool.statistics().failed) == (0, 0), "no message follows"
    assert origin.journal(name).count == 0, "nothing was sent"
    return messages.pop()


WRONG_VALUES: list[tuple[str, Any]] = [
    ("timeout_ms", -1),
    ("timeout_ms", 1.5),
    ("timeout_ms", "1000"),
    ("timeout_ms", True),
    ("timeout_ms", None),
    ("timeout_ms", 10**15),
    ("connecttimeout_ms", -5),
    ("read_timeout_ms", -1),
    ("write_timeout_ms", -1),
    ("pool_timeout_ms", -1),
    ("dns_cache_timeout", -2),
    ("followlocation", 1),
    ("followlocation", "yes"),
    ("maxredirs", -2),
    ("ssl_verifyhost", 2),
    ("ssl_verifypeer", None),
    ("cacert", 5),
    ("cacert", ""),
    ("cacert", "a\0b"),
    ("capath", b""),
    ("ca_cache_timeout", -2),
    ("sslversion", "1.4"),
    ("sslversion", 3),
    ("sslcert", 1),
    ("sslkey", object()),
    ("sslkey_blob", "text"),
    ("sslkey_blob", b""),
    ("keypasswd", 1234),
    ("http_version", "4"),
    ("http_version", 2),
    ("http_auth", "any"),
    ("username", 5),
    ("userpwd", ("u", "p")),
    ("proxy", "ftp://proxy"),
    ("proxy", 8080),
    ("proxy", "http://"),
    ("proxy", "http://host:99999"),
    ("interface", ""),
    ("interface", "a\nb"),
    ("unix_socket_path", ""),
    ("doh_url", "http://plain.example/dns-query"),
    ("doh_url", "dns.example"),
    ("tcp_fastopen", 1),
    ("pipewait", None),
    ("verbose", "on"),
    ("decode", 0),
    ("max_response_bytes", -1),
    ("max_response_bytes", 1.0),
    ("headers", "X: 1"),
    ("headers", 5),
    ("headers", [("only-one",)]),
    ("headers", {"X": 1}),
    ("headers", {5: "x"}),
    ("headers", {"": "x"}),
    ("headers", {"X Y": "1"}),
    ("headers", {":path": "/"}),
    ("body", 5),
    ("body", [1, 2]),
    ("body", {"a": object()}),
    ("body", "\ud800"),
    ("curl_options", [("A", 1)]),
    ("curl_options", {5: 1}),
    ("cookiejar", {"a": "1"}),
]


@pytest.mark.parametrize(("name", "value"), WRONG_VALUES, ids=lambda value: repr(value)[:40])
def test_a_bad_value_is_refused_by_name(pool: katipo.Pool, origin: Origin, name: str, value: Any) -> None:
    """A value of the wrong kind or out of range is refused at the call, and the message names the option."""
    assert refused(pool, origin, {name: value}).startswith(f"{name}:")


WRONG_ASYNC_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"stream": 1}, "stream:"),
    ({"stream": True, "stream_window": -1}, "stream_window:"),
    ({"stream": True, "stream_window": 1.0}, "stream_window:"),
    ({"stream": True, "flow_control": "none"}, "flow_control:"),
    ({"stream_body": "yes"}, "stream_body:"),
    ({"stream_body": True, "upload_window": 0}, "upload_window:"),
    ({"stream_body": True, "upload_window": None}, "upload_window:"),
    ({"stream_body": True, "on_abandon": "ignore"}, "on_abandon:"),
    ({"reply_to": object()}, "reply_to:"),
    ({"reply_to": "mailbox"}, "reply_to:"),
    ({"reply_to": katipo.Mailbox}, "reply_to:"),
    ({"ref": []}, "ref:"),
    # combinations
    ({"body": b"x", "stream_body": True}, "body excludes stream_body"),
    ({"stream_window": 5}, "stream_window requires stream"),
    ({"flow_control": "manual"}, "flow_control requires stream"),
    ({"informational": True}, "informational requires stream"),
    ({"upload_window": 5}, "upload_window requires stream_body"),
    ({"on_abandon": "finish"}, "on_abandon requires stream_body"),
    ({"stream": True, "flow_control": "manual", "stream_window": None}, "requires a bounded stream_window"),
    ({"stream_body": True, "http_version": "1.0"}, "HTTP/1.0"),
    ({"stream_body": True, "headers": {"Content-Length": "-1"}}, "Content-Length"),
    ({"stream_body": True, "headers": {"Content-Length": "5", "Transfer-Encoding": "chunked"}}, "Transfer-Encoding"),
]


@pytest.mark.parametrize(("options", "expected"), WRONG_ASYNC_VALUES, ids=lambda value: str(value)[:50])
def test_what_only_async_takes_is_checked_too(
    pool: katipo.Pool, origin: Origin, options: dict[str, Any], expected: str
) -> None:
    """The options of the two bodies are checked, each and together."""
    assert expected in refused(pool, origin, options, forms=("async_request", "async_get"))


WRONG_TOGETHER: list[tuple[dict[str, Any], str]] = [
    ({"userpwd": "a:b", "username": "a"}, "userpwd excludes username"),
    ({"userpwd": "a:b", "password": "b"}, "userpwd excludes password"),
    ({"password": "b"}, "password requires username"),
    ({"sslkey": "k", "sslkey_blob": b"k"}, "sslkey excludes sslkey_blob"),
    ({"http_auth": "basic"}, "requires username or userpwd"),
    ({"http_auth": "digest"}, "requires username or userpwd"),
    ({"body": b"12345", "headers": {"Content-Length": "4"}}, "Content-Length"),
    ({"body": b"12345", "headers": {"Content-Length": "five"}}, "Content-Length"),
    ({"body": b"12345", "headers": {"Content-Length": None}}, "Content-Length"),
    ({"body": b"12345", "headers": [("Content-Length", "5"), ("content-length", "5")]}, "more than once"),
    ({"headers": {"Transfer-Encoding": "chunked"}, "body": b"1"}, "Transfer-Encoding"),
    ({"headers": {"Transfer-Encoding": "gzip"}}, "Transfer-Encoding"),
    ({"headers": [("Host", "a"), ("Host", "b")]}, "Host"),
    ({"headers": {"Connection": "upgrade"}}, "Connection"),
]


@pytest.mark.parametrize(("options", "expected"), WRONG_TOGETHER, ids=lambda value: str(value)[:50])
def test_combinations_that_make_no_sense(
    pool: katipo.Pool, origin: Origin, options: dict[str, Any], expected: str
) -> None:
    """Options that contradict each other, or lack what they need, are refused."""
    assert expected in refused(pool, origin, options)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("timeout", "timeout_ms"),
        ("timeoutms", "timeout_ms"),
        ("conecttimeout_ms", "connecttimeout_ms"),
        ("follow_redirects", "followlocation"),
        ("verify", "ssl_verifypeer"),
        ("json", "body"),
        ("ssl_verify_peer", "ssl_verifypeer"),
        ("maxredir", "maxredirs"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(pool: katipo.Pool, origin: Origin, name: str, meant: str) -> None:
    """A slip of the pen is told from what was meant."""
    assert refused(pool, origin, {name: 1}) == f"{name}: did you mean {meant}?"


def test_a_name_near_to_nothing(pool: katipo.Pool, origin: Origin) -> None:
    """A name like no other is refused without a guess."""
    assert refused(pool, origin, {"zzzzqqq": 1}) == "zzzzqqq: there is no such option"


def test_every_offender_is_named_at_once(pool: katipo.Pool, origin: Origin) -> None:
    """One call, one error, all that is wrong."""
    message = refused(
        pool,
        origin,
        {
            "timeout": 5,
            "connecttimeout_ms": -1,
            "maxredirs": "many",
            "headers": {"bad name": "x", "X-Bad": "a\r\nb"},
            "curl_options": {"URL": "x", "LOW_SPEED_TIME": "y"},
            "password": "p",
        },
    )
    for part in ("timeout:", "connecttimeout_ms:", "maxredirs:", "'bad'", "'X-Bad'", "'URL'", "'LOW_SPEED_TIME'",
                 "password requires"):  # fmt: skip
        assert part in message, part


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("stream", True),
        ("stream_window", 1),
        ("flow_control", "manual"),
        ("informational", True),
        ("stream_body", True),
        ("upload_window", 1),
        ("on_abandon", "finish"),
        ("reply_to", katipo.Mailbox),
        ("ref", "mine"),
    ],
)
def test_a_blocking_call_refuses_what_only_async_takes(
    pool: katipo.Pool, origin: Origin, option: str, value: Any
) -> None:
    """Blocking calls have no use for streams, mailboxes and references."""
    value = value() if value is katipo.Mailbox else value
    assert f"{option} requires async_request" in refused(pool, origin, {option: value}, forms=("request", "get"))


def test_an_option_at_its_default_counts_as_not_given(pool: katipo.Pool, origin: Origin) -> None:
    """Defaults may be spelled out anywhere, also by a blocking call and in combinations."""
    defaults: dict[str, Any] = {
        "stream": False, "stream_window": 1048576, "flow_control": "auto", "stream_body": False,
        "upload_window": 1048576, "on_abandon": "abort", "reply_to": None, "ref": None, "body": None, "headers": None,
        "timeout_ms": 30000, "connecttimeout_ms": 30000, "decode": True, "proxy": "", "userpwd": None, "username": "me",
        "http_version": "none", "curl_options": {}, "cookiejar": None, "max_response_bytes": None,
    }  # fmt: skip
    assert pool.get(origin.strict_http + "/count", **defaults).status_code == 200


def test_a_closed_mailbox_is_refused(pool: katipo.Pool, origin: Origin) -> None:
    """A mailbox that is closed takes no more requests."""
    box = katipo.Mailbox()
    box.close()
    assert "closed" in refused(pool, origin, {"reply_to": box}, forms=("async_request", "async_get"))


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("", katipo.UnsupportedProtocol),
        ("localhost/path", katipo.UnsupportedProtocol),
        ("//localhost/", katipo.UnsupportedProtocol),
        ("ftp://localhost/", katipo.UnsupportedProtocol),
        ("file:///etc/passwd", katipo.UnsupportedProtocol),
        ("gopher://localhost/", katipo.UnsupportedProtocol),
        ("ws://localhost/", katipo.UnsupportedProtocol),
        ("dict://localhost/d", katipo.UnsupportedProtocol),
        ("javascript:alert(1)", katipo.UnsupportedProtocol),
        ("http://", katipo.InvalidURL),
        ("http:///path", katipo.InvalidURL),
        ("http://local host/", katipo.InvalidURL),
        ("http://localhost:0/", katipo.InvalidURL),
        ("http://localhost:65536/", katipo.InvalidURL),
        ("http://localhost:http/", katipo.InvalidURL),
        ("http://[::1/", katipo.InvalidURL),
        ("http://[v1.x]/", katipo.InvalidURL),
        ("http://1.2.3.4.5/", katipo.InvalidURL),
        ("http://localhost\\@example.com/", katipo.InvalidURL),
        ("http://xn--a\x80.example/", katipo.InvalidURL),
        ("http://localhost/\r\nX: 1", katipo.InvalidURL),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_urls_that_are_not_sent(pool: katipo.Pool, form: str, url: str, error: type[katipo.Error]) -> None:
    """A malformed URL, or one that is neither http nor https, is refused at the call."""
    with pytest.raises(error) as caught:
        call(pool, form, url, {})
    assert caught.value.code == ("url_malformat" if error is katipo.InvalidURL else "unsupported_protocol")
    assert pool.statistics().failed == 0


@pytest.mark.parametrize("url", [None, 5, b"http://localhost/", object()])
def test_a_url_is_text(pool: katipo.Pool, url: Any) -> None:
    """Anything but a str or a URL is a mistake in the program."""
    with pytest.raises(TypeError):
        pool.get(url)


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\n", "G\0T", "GÉT", "CONNECT", "a/b", None, 5, b"GET"])
def test_methods_that_are_not_sent(pool: katipo.Pool, origin: Origin, method: Any) -> None:
    """A method that is no token, or CONNECT, is refused at the call."""
    for form in (pool.request, pool.async_request):
        with pytest.raises(katipo.BadOptions, match="method"):
            form(method, origin.strict_http + "/count")


OWN = (
    "URL WRITEFUNCTION WRITEDATA HEADERFUNCTION PRIVATE HTTPHEADER CUSTOMREQUEST NOBODY POSTFIELDS UPLOAD READDATA "
    "PROTOCOLS PROTOCOLS_STR REDIR_PROTOCOLS_STR NETRC NETRC_FILE COOKIEFILE COOKIEJAR COOKIELIST TIMEOUT_MS NOSIGNAL "
    "SHARE STDERR ERRORBUFFER DEBUGFUNCTION OPENSOCKETFUNCTION SSL_CTX_FUNCTION HEADER HTTP09_ALLOWED CONNECT_ONLY "
    "FAILONERROR ACCEPT_ENCODING MAXFILESIZE_LARGE PROXY CAINFO HTTP_VERSION VERBOSE PORT CURLU MIMEPOST USERPWD "
    "XFERINFOFUNCTION INTERFACE"
)


@pytest.mark.parametrize(
    "name",
    OWN.split(),
)
def test_curl_options_that_are_katipo_s_own(pool: katipo.Pool, origin: Origin, name: str) -> None:
    """Options that katipo sets, callbacks, their data, protocols, netrc and cookie files are refused in any spelling."""
    for spelling in (name, name.lower(), f"CURLOPT_{name}"):
        message = refused(pool, origin, {"curl_options": {spelling: 1}}, forms=("get", "async_get"))
        assert message.startswith(f"curl_options[{spelling!r}]: refused")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOW_SPEED_TIME", "ten"),
        ("LOW_SPEED_TIME", 1.5),
        ("LOW_SPEED_TIME", None),
        ("REFERER", 5),
        ("RESOLVE", "host:80:127.0.0.1"),
        ("RESOLVE", [5]),
        ("CAINFO_BLOB", "text"),
        ("MAX_RECV_SPEED_LARGE", 2**63),
    ],
)
def test_curl_options_are_checked_by_kind(pool: katipo.Pool, origin: Origin, name: str, value: Any) -> None:
    """A number, a text, a list or bytes: what libcurl's own table says of the option."""
    message = refused(pool, origin, {"curl_options": {name: value}}, forms=("get", "async_get"))
    assert message.startswith(f"curl_options[{name!r}]:")


def test_a_curl_option_that_does_not_exist(pool: katipo.Pool, origin: Origin) -> None:
    """A slip names the real one; a name like no other is what this libcurl lacks."""
    options: dict[str, Any] = {"curl_options": {"LOW_SPED_TIME": 1}}
    assert "LOW_SPEED_TIME" in refused(pool, origin, options)
    with pytest.raises(katipo.BadOptions) as caught:
        pool.get(origin.strict_http, curl_options={"QQQQ": 1})
    assert caught.value.code == "not_built_in"


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"workers": -1},
        {"workers": 1.5},
        {"workers": "2"},
        {"workers": True},
        {"workers": 100_000},
        {"multiplexing": 1},
        {"max_total_connections": -1},
        {"max_host_connections": -1},
        {"max_host_connections": None},
        {"max_idle_connections": -1},
        {"max_concurrent_streams": 0},
        {"max_in_flight": 0},
        {"max_in_flight": "many"},
        {"name": 5},
        {"name": "a\0b"},
    ],
    ids=str,
)
def test_a_pool_checks_its_own_options(options: dict[str, Any]) -> None:
    """A bad value raises BadOptions that names it, and no pool is made."""
    with pytest.raises(katipo.BadOptions, match=next(iter(options))):
        katipo.Pool(**options)


def test_a_pool_names_all_that_is_wrong() -> None:
    """Several bad values are one error."""
    with pytest.raises(katipo.BadOptions) as caught:
        katipo.Pool(0, max_in_flight=-1, multiplexing="x")  # type: ignore[arg-type]
    assert all(name in caught.value.message for name in ("workers", "max_in_flight", "multiplexing"))


@pytest.mark.parametrize("drain", [-1, -0.5, "1", None, True, float("nan")])
async def test_drain_is_a_number_of_seconds(make_pool: Any, drain: Any) -> None:
    """A bad `drain` is refused and closes nothing."""
    pool: katipo.Pool = make_pool()
    with pytest.raises(katipo.BadOptions, match="drain"):
        pool.close(drain=drain)
    with pytest.raises(katipo.BadOptions, match="drain"):
        await pool.aclose(drain=drain)


def test_a_refused_call_leaves_the_pool_as_it_was(pool: katipo.Pool, hostile: Hostile) -> None:
    """After refusals of every kind the same pool serves."""
    server = hostile(serve(response(b"fine")))
    with pytest.raises(katipo.BadOptions):
        pool.get(server.url, timeout=1)  # type: ignore[call-arg]
    with pytest.raises(katipo.InvalidURL):
        pool.get("http://")
    assert pool.get(server.url).content == b"fine"
    assert server.accepted == 1
