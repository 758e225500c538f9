"""What a caller's data, a server's answer and a look at the logs must not be able to do."""

from __future__ import annotations

import base64
import logging
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.hostile import Peer, response, serve, serve_forever
from tests.support.procs import run_python

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Hostile
    from tests.support.certs import Certificates
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin
    from tests.support.proxy import HTTPProxy

SECRET = "hunter2-correct-horse"
BAD = {
    "CR": "\r",
    "LF": "\n",
    "CRLF": "\r\n",
    "NUL": "\0",
    "smuggled": "\r\nX-Smuggled: 1",
    "split": "\r\n\r\nGET /evil",
}
bad = pytest.mark.parametrize("text", BAD.values(), ids=BAD)


# ------------------------------------------------------------------------------------------------ injection


def injections(text: str) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Everywhere that a caller's text ends up in a request: method, path and options with `text` in them."""
    value = f"a{text}b"
    return {
        "method": (f"GET{text}", "/", {}),
        "method start": (f"{text}GET", "/", {}),
        "path": ("GET", f"/{value}", {}),
        "query": ("GET", f"/?q={value}", {}),
        "fragment": ("GET", f"/#{value}", {}),
        "header value": ("GET", "/", {"headers": {"X-Value": value}}),
        "header bytes": ("GET", "/", {"headers": {b"X-Value": value.encode()}}),
        "header name": ("GET", "/", {"headers": {f"X{text}Y": "1"}}),
        "header end": ("GET", "/", {"headers": [("X-Value", f"a{text}")]}),
        "host": ("GET", "/", {"headers": {"Host": value}}),
        "user agent": ("GET", "/", {"headers": {"User-Agent": value}}),
        "cookie": ("GET", "/", {"headers": {"Cookie": f"a={value}"}}),
        "content type": ("POST", "/", {"headers": {"Content-Type": value}, "body": b"x"}),
        "authorization": ("GET", "/", {"headers": {"Authorization": f"Bearer {value}"}}),
        "username": ("GET", "/", {"username": value, "password": "x"}),
        "password": ("GET", "/", {"username": "x", "password": value}),
        "userpwd": ("GET", "/", {"userpwd": f"x:{value}"}),
        "proxy": ("GET", "/", {"proxy": f"http://{value}:3128"}),
        "proxy userinfo": ("GET", "/", {"proxy": f"http://u:{value}@127.0.0.1:3128"}),
        "interface": ("GET", "/", {"interface": value}),
        "unix socket": ("GET", "/", {"unix_socket_path": f"/tmp/{value}"}),
        "cacert": ("GET", "/", {"cacert": f"/tmp/{value}"}),
        "sslcert": ("GET", "/", {"sslcert": f"/tmp/{value}"}),
        "keypasswd": ("GET", "/", {"sslcert": "x", "keypasswd": value}),
        "doh url": ("GET", "/", {"doh_url": f"https://dns.example/{value}"}),
        "referer": ("GET", "/", {"curl_options": {"REFERER": value}}),
        "curl cookie": ("GET", "/", {"curl_options": {"COOKIE": f"a={value}"}}),
        "range": ("GET", "/", {"curl_options": {"RANGE": f"0-{text}"}}),
        "request target": ("GET", "/", {"curl_options": {"REQUEST_TARGET": f"/{value}"}}),
        "list": ("GET", "/", {"curl_options": {"PROXYHEADER": [f"X: {value}"]}}),
        "resolve": ("GET", "/", {"curl_options": {"RESOLVE": [f"h:80:127.0.0.1{text}"]}}),
    }


@pytest.mark.parametrize("place", injections("\n"))
@bad
def test_line_ends_and_nul_are_refused_everywhere(pool: katipo.Pool, origin: Origin, place: str, text: str) -> None:
    """CR, LF and NUL in anything that goes into a request are refused at the call, blocking or not; nothing is sent."""
    method, path, options = injections(text)[place]
    name = origin.fresh_id()
    url = f"{origin.strict_http}{path}{'&' if '?' in path else '?'}id={name}"
    for call in (pool.request, pool.async_request):
        with pytest.raises((katipo.BadOptions, katipo.InvalidURL)):
            call(method, url, **options)
    assert pool.statistics().failed == 0
    assert origin.journal(name).count == 0


@bad
def test_percent_encoded_line_ends_stay_encoded(pool: katipo.Pool, endpoint: Endpoint, text: str) -> None:
    """Escapes for CR, LF and NUL in a URL are sent as escapes."""
    escaped = "".join(f"%{ord(letter):02X}" for letter in text)
    seen = pool.get(endpoint("/headers") + f"?q={escaped}", **endpoint.options).json()
    assert seen["query"] == f"q={escaped}"
    assert "x-smuggled" not in {name.lower() for name, _ in seen["headers"]}


def test_escapes_in_userinfo_do_not_become_headers(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Escaped line ends in user and password go no further than Base64, or are refused."""
    base = endpoint.base.replace("https://", "https://u%0D%0AX-Smuggled%3A1:p%0D%0A@")
    try:
        seen = pool.get(base + "/headers", **endpoint.options).json()
    except katipo.Error:
        return
    assert "x-smuggled" not in {name.lower() for name, _ in seen["headers"]}


@bad
def test_form_fields_are_escaped(pool: katipo.Pool, endpoint: Endpoint, text: str) -> None:
    """What is not allowed in a header is harmless in a form."""
    answer = pool.post(endpoint("/echo"), body={f"k{text}": f"v{text}"}, **endpoint.options)
    escaped = "".join("+" if c == " " else c if c.isalnum() or c in "-/" else f"%{ord(c):02X}" for c in text)
    assert answer.content.decode().lower() == f"k{escaped}=v{escaped}".lower().replace("/", "%2f")


@pytest.mark.parametrize("name", [":method", ":path", ":authority", "X Y", "X:Y", "X\tY", "(x)", "ü", ""])
def test_pseudo_headers_and_other_names_that_are_none(pool: katipo.Pool, endpoint: Endpoint, name: str) -> None:
    """A header's name is a token: a pseudo-header of HTTP/2 cannot be given as one."""
    with pytest.raises(katipo.BadOptions, match="headers"):
        pool.get(endpoint("/headers"), headers={name: "x"}, **endpoint.options)


def test_framing_is_not_the_caller_s(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """No header makes two lengths of one body: what contradicts the body is refused."""
    wrong: list[Any] = [
        {"Content-Length": "3", "Transfer-Encoding": "chunked"},
        {"Transfer-Encoding": "chunked"},
        {"Transfer-Encoding": "identity"},
        {"Content-Length": "0"},
        {"Content-Length": "5, 5"},
        {"Content-Length": "+5"},
        [("Content-Length", "5"), ("CONTENT-LENGTH", "6")],
    ]
    for headers in wrong:
        with pytest.raises(katipo.BadOptions, match="headers"):
            pool.post(endpoint("/upload"), body=b"12345", headers=headers, **endpoint.options)


# ------------------------------------------------------------------------------------------------ protocols


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://localhost/",
        "ftps://localhost/",
        "gopher://localhost:70/_x",
        "dict://localhost/d:x",
        "ldap://localhost/",
        "smb://localhost/x",
        "telnet://localhost/",
        "tftp://localhost/x",
        "imap://localhost/",
        "pop3://localhost/",
        "smtp://localhost/",
        "rtsp://localhost/",
        "mqtt://localhost/",
        "ws://localhost/",
        "wss://localhost/",
        "scp://localhost/x",
        "javascript:1",
        "data:,x",
    ],
)
def test_a_redirect_to_another_protocol_is_not_followed(pool: katipo.Pool, hostile: Hostile, location: str) -> None:
    """A server cannot send us to a file or to a port of another protocol."""
    server = hostile(then=serve_forever(response(b"stay", status=302, headers=[("Location", location)])))
    with pytest.raises(katipo.RequestError) as caught:
        pool.get(server.url, followlocation=True, timeout_ms=10000)
    assert not isinstance(caught.value, katipo.TimeoutException)
    assert server.peer(0).received.count(b"GET ") in (1, 10), "at most it was taken for a path of this server"
    assert pool.get(server.url).status_code == 302


def test_the_error_of_a_redirect_to_another_protocol(pool: katipo.Pool, hostile: Hostile) -> None:
    """It is UnsupportedProtocol, of a request that has been sent."""
    server = hostile(serve(response(status=302, headers=[("Location", "ftp://localhost/")])))
    with pytest.raises(katipo.UnsupportedProtocol) as caught:
        pool.get(server.url, followlocation=True)
    assert (caught.value.code, caught.value.request_sent) == ("unsupported_protocol", True)


def test_alt_svc_and_hsts_headers_change_nothing(pool: katipo.Pool, hostile: Hostile, origin: Origin) -> None:
    """What a server says of other places and schemes is not remembered for later requests."""
    headers = [("Alt-Svc", 'h2=":1"; ma=3600'), ("Strict-Transport-Security", "max-age=3600")]
    server = hostile(then=serve_forever(response(b"plain", headers=headers)))
    for _ in range(3):
        answer = pool.get(server.url)
        assert (answer.content, str(answer.url)[:7]) == (b"plain", "http://")


@pytest.mark.parametrize(
    "block",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 banana\r\n\r\n",
        b"just some text\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"",
    ],
    ids=["two lengths", "negative", "no number", "no end", "status", "word", "HTTP/0.9", "TLS", "nothing"],
)
def test_what_is_no_http_is_the_server_s_error(pool: katipo.Pool, hostile: Hostile, block: bytes) -> None:
    """A malformed response fails the request, is never half of one, and the connection is not used again."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(block)
        peer.half_close()
        peer.wait_closed()

    server = hostile(script, serve(response(b"fine")))
    # libcurl calls a chunk that it cannot read a failure to receive (56).
    with pytest.raises((katipo.RemoteProtocolError, katipo.ReadError)) as caught:
        pool.get(server.url, timeout_ms=10000)
    assert caught.value.request_sent is True
    assert pool.get(server.url).content == b"fine"
    assert server.accepted == 2


# ------------------------------------------------------------------------------------------------ secrets


def everything_shown(error: BaseException, *others: object) -> str:
    """All that a log of this error may contain."""
    parts = [str(error), repr(error), *traceback.format_exception_only(error)]
    request = getattr(error, "request", None)
    if request is not None:
        parts += [repr(request), repr(request.headers), repr(request.url)]
    parts += [repr(each) for each in others]
    parts += [repr(pickle.loads(pickle.dumps(error)))]
    return "\n".join(parts)


def with_secrets(**more: Any) -> dict[str, Any]:
    """Options that hold a secret each."""
    options: dict[str, Any] = {
        "username": "user",
        "password": SECRET,
        "headers": {
            "X-Api-Key": SECRET,
            "Proxy-Authorization": f"Basic {SECRET}",
            "Cookie": f"session={SECRET}",
            "X-Auth-Token": SECRET,
        },
        "keypasswd": SECRET,
    }
    return {**options, **more}


@pytest.mark.parametrize(
    "more",
    [
        {"timeout_ms": -1},
        {"timeout": SECRET},
        {"headers": {"Authorization": f"Bearer {SECRET}\n"}},
        {"headers": {f"Authorization: {SECRET}": "x"}},
        {"headers": [("Cookie", SECRET, "x")]},
        {"password": f"{SECRET}\0"},
        {"userpwd": f"me:{SECRET}"},
        {"keypasswd": [SECRET]},
        {"username": {SECRET: 1}},
        {"proxy": f"http://me:{SECRET}@:99"},
        {"proxy": f"http://me:{SECRET}/@host"},
        {"proxy": f"ftp://me:{SECRET}@host"},
        {"curl_options": {"USERPWD": SECRET}},
        {"curl_options": {SECRET: 1}},
        {"curl_options": {"XOAUTH2_BEARER": f"{SECRET}\r"}},
        {"cookiejar": {"session": SECRET}},
        {"sslkey_blob": SECRET},
        {"body": SECRET + "\ud800"},
        {"http_version": SECRET},
        {"sslversion": SECRET},
    ],
    ids=str,
)
def test_a_refusal_shows_no_value(pool: katipo.Pool, more: dict[str, Any]) -> None:
    """BadOptions names what is wrong and not what it held."""
    with pytest.raises(katipo.BadOptions) as caught:
        pool.get(f"http://me:{SECRET}@localhost/", **with_secrets(**more))
    shown = everything_shown(caught.value)
    if SECRET in next(iter(more.get("curl_options", {"": ""}))):
        shown = shown.replace(f"curl_options[{SECRET[:7]!r}]", "")  # up to what cannot be a name's
    assert SECRET not in shown
    assert caught.value.__context__ is None or SECRET not in repr(caught.value.__context__)


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{SECRET}@host:99999/",
        f"http://me:{SECRET}@/",
        f"http://me:{SECRET}@ho st/",
        f"ftp://me:{SECRET}@host/",
        f"me:{SECRET}@host/",
        f"http://me:{SECRET}@host\\x/",
        f"http://host/?token={SECRET}\n",
        f"//me:{SECRET}@host/",
        f"http//me:{SECRET}@host/",
    ],
)
def test_a_bad_url_shows_no_userinfo(pool: katipo.Pool, url: str) -> None:
    """InvalidURL and UnsupportedProtocol do not repeat what may be a password."""
    with pytest.raises((katipo.InvalidURL, katipo.UnsupportedProtocol)) as caught:
        pool.get(url)
    assert SECRET not in everything_shown(caught.value)
    assert caught.value.__context__ is None or SECRET not in repr(caught.value.__context__)


def test_a_failed_request_shows_no_secret(
    pool: katipo.Pool,
    hostile: Hostile,
    origin: Origin,
    http_proxy: Callable[..., HTTPProxy],
    certs: Certificates,
) -> None:
    """Whatever fails, and wherever, nothing that is shown of it has a secret."""
    closing = hostile(then=lambda peer: peer.close())
    port = hostile.refused_port()
    proxy = http_proxy(refuse=403).url.replace("://", f"://me:{SECRET}@")
    tries: list[tuple[str, dict[str, Any]]] = [
        (f"http://me:{SECRET}@127.0.0.1:{port}/?token={SECRET}", {}),
        (f"http://127.0.0.1:{port}/", with_secrets()),
        (f"http://me:{SECRET}@no-such-host.invalid/", {"timeout_ms": 20000}),
        (f"{closing.url}/?api_key={SECRET}", with_secrets()),
        (f"{origin.strict_https}/?password={SECRET}", with_secrets()),
        (f"{origin.strict_https}/", with_secrets(proxy=proxy, cacert=certs.ca)),
        (f"{origin.strict_http}/hang", with_secrets(timeout_ms=200)),
        (f"{origin.strict_http}/redirect/302?to=ftp://me:{SECRET}@h/", with_secrets(followlocation=True)),
        (f"{origin.strict_http}/redirect/302?to=http://me:{SECRET}@127.0.0.1:{port}/", {"followlocation": True}),
    ]
    for url, options in tries:
        handle = pool.async_get(url, **options)
        with pytest.raises(katipo.RequestError) as caught:
            handle.result(60)
        assert SECRET not in everything_shown(caught.value, handle, pool), url.replace(SECRET, "...")


def test_what_is_shown_of_a_good_response(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Responses, their parts, messages and handles show no cookie, credential or body."""
    url = endpoint("/set-headers").replace("https://", f"https://me:{SECRET}@")
    url += f"?set-cookie=session%3D{SECRET}&x-api-key={SECRET}&authorization={SECRET}"
    options: dict[str, Any] = {**with_secrets(), **endpoint.options}
    del options["username"], options["password"], options["keypasswd"]
    box = katipo.Mailbox()
    handle = pool.async_get(url, **options)
    answer = handle.result(30)
    mailed = pool.async_get(url, reply_to=box, **options)
    responded = box.receive(30)
    streamed = pool.async_get(url, stream=True, **options)
    messages = list(streamed)
    shown: list[object] = [
        handle,
        mailed,
        streamed,
        responded,
        *messages,
        answer,
        answer.request,
        answer.headers,
        answer.url,
    ]
    shown += [answer.cookies, answer.cookiejar, answer.request.headers, box, pool, answer.metrics]
    for each in shown:
        assert SECRET not in repr(each), type(each)
    assert answer.cookies["session"] == SECRET, "it is there for who asks"


def test_a_body_is_not_shown(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """What is sent and what comes back may be secrets as well."""
    handle = pool.async_post(endpoint("/echo"), body=SECRET, stream=True, **endpoint.options)
    messages = list(handle)
    assert b"".join(each.data for each in messages if isinstance(each, katipo.Chunk)) == SECRET.encode()
    assert SECRET not in repr(messages) + repr(handle)
    answer = pool.post(endpoint("/echo"), body=SECRET, **endpoint.options)
    assert SECRET not in repr(answer) + repr(answer.request)


@pytest.mark.parametrize("scheme", ["basic", "digest"])
def test_the_verbose_log_shows_the_exchange_and_no_secret(
    pool: katipo.Pool, endpoint: Endpoint, caplog: pytest.LogCaptureFixture, scheme: Any
) -> None:
    """Headers and connection are in the log, credentials, cookies and their like are not, in any version."""
    encoded = base64.b64encode(f"user:{SECRET}".encode()).decode()
    jar = pool.get(endpoint("/cookies/set", session=SECRET), **endpoint.options).cookiejar
    with caplog.at_level(logging.DEBUG, logger="katipo.curl"):
        answer = pool.get(
            endpoint(f"/{scheme}").replace("https://", f"https://other:{SECRET}@")
            + f"?password={SECRET}&access_token={SECRET}",
            verbose=True,
            http_auth=scheme,
            username="user",
            password=SECRET,
            cookiejar=jar,
            headers={"X-Api-Key": SECRET, "X-Visible": "seen"},
            **endpoint.options,
        )
        assert answer.status_code == 200
        pool.get(
            endpoint("/set-headers") + f"?set-cookie=s%3D{SECRET}&x-auth-token={SECRET}&x-shown=too",
            verbose=True,
            headers={"Authorization": f"Bearer {SECRET}"},
            **endpoint.options,
        )
    text = "\n".join(record.getMessage() for record in caplog.records if record.name == "katipo.curl")
    assert "seen" in text
    assert "too" in text
    assert "left intact" in text
    assert all(record.levelno == logging.DEBUG for record in caplog.records if record.name == "katipo.curl")
    assert SECRET not in text
    assert encoded not in text
    if scheme == "digest":
        assert "cnonce" not in text


def test_the_verbose_log_of_a_proxy_and_a_redirect(
    pool: katipo.Pool,
    endpoint: Endpoint,
    hostile: Hostile,
    http_proxy: Callable[..., HTTPProxy],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The proxy's credentials and the userinfo of a Location are hidden too."""
    proxy = http_proxy(auth=("me", SECRET)).url.replace("://", f"://me:{SECRET}@")
    encoded = base64.b64encode(f"me:{SECRET}".encode()).decode()
    options: Any = {**endpoint.options, "proxy": proxy if endpoint.version != "3" else None}
    target = endpoint("/count").replace("https://", f"https://me:{SECRET}@")
    first = hostile(serve(response(status=302, headers=[("Location", target)])))
    with caplog.at_level(logging.DEBUG, logger="katipo.curl"):
        answer = pool.get(
            first.url if endpoint.version != "3" else target, verbose=True, followlocation=True, **options
        )
    assert (answer.status_code, answer.http_version) == (200, endpoint.http_version)
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "/count" in text
    assert SECRET not in text
    assert encoded not in text


def test_nothing_is_logged_unless_asked(
    pool: katipo.Pool, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """Without `verbose` there is not a line."""
    with caplog.at_level(logging.DEBUG):
        pool.get(endpoint("/count"), **endpoint.options)
    assert [record for record in caplog.records if record.name.startswith("katipo")] == []


# ------------------------------------------------------------------------------------------------ bombs

BOMB = """
import sys
import katipo
from tests.support.procs import resident_bytes

url, how, version, cacert = sys.argv[1:]
LIMIT = 4 << 20
pool = katipo.Pool()
options = {"http_version": version, "cacert": cacert}
pool.get(url.partition("/coded")[0] + "/count", **options)
before = most = resident_bytes()
got = 0
try:
    if how == "buffered":
        pool.get(url, max_response_bytes=LIMIT, **options)
    else:
        for message in pool.async_get(url, stream=True, max_response_bytes=LIMIT, **options):
            got += len(getattr(message, "data", b""))
            most = max(most, resident_bytes())
except katipo.ResponseTooLarge as error:
    print(error.code)
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
print(got <= LIMIT, (max(most, peak) - before) >> 20)
pool.close()
"""


@pytest.mark.parametrize("how", ["buffered", "streamed"])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_bomb_stops_at_the_limit(endpoint: Endpoint, origin: Origin, coding: str, how: str) -> None:
    """A gigabyte of zeros in a few bytes ends at `max_response_bytes`, and is never held in memory."""
    name = origin.fresh_id()
    url = endpoint("/coded", coding=coding, size=1 << 30, fill="zero", id=name)
    ended = run_python(BOMB, args=[url, how, endpoint.option, endpoint.cacert], timeout=120)
    assert (ended.status, ended.stderr) == (0, "")
    code, rest = ended.stdout.splitlines()
    assert code == "filesize_exceeded"
    within, mebibytes = rest.split()
    assert within == "True"
    # The limit itself, a window, and what libcurl and the allocator hold; the bomb has 1024.
    assert int(mebibytes) < 48
    origin.journal(name, until="over", timeout=60)


def test_a_bomb_of_bombs(pool: katipo.Pool, hostile: Hostile) -> None:
    """Codings on top of each other multiply, and end at the same limit; more than five are refused."""
    import gzip

    once = gzip.compress(bytes(64 << 20), 9)
    twice = gzip.compress(once, 9)
    block = response(twice, headers=[("Content-Encoding", "gzip, gzip")])
    server = hostile(then=serve(block))
    with pytest.raises(katipo.ResponseTooLarge):
        pool.get(server.url, max_response_bytes=1 << 20)
    with pytest.raises(katipo.ResponseTooLarge):
        list(pool.async_get(server.url, stream=True, max_response_bytes=1 << 20))
    many = hostile(then=serve(response(b"x" * 100, headers=[("Content-Encoding", ", ".join(["gzip"] * 6))])))
    for stream in (False, True):
        handle = pool.async_get(many.url, stream=stream)
        with pytest.raises(katipo.DecodingError):
            list(handle) if stream else handle.result(30)


@pytest.mark.parametrize("endless", ["body", "headers", "interim", "chunk extension"])
def test_a_server_that_never_ends_is_ended(pool: katipo.Pool, hostile: Hostile, endless: str) -> None:
    """A body, headers, informational responses or chunk extensions without end run into a limit."""
    start, more = {
        "body": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"),
        "headers": (b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"h" * 4000 + b"\r\n"),
        "interim": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: <" + b"l" * 4000 + b">\r\n\r\n"),
        "chunk extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"e" * 4096),
    }[endless]

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(start)
        while True:
            peer.send(more)

    server = hostile(script)
    server.ignore_errors()
    with pytest.raises(katipo.RequestError) as caught:
        pool.get(server.url, max_response_bytes=1 << 20, timeout_ms=2000 if endless == "chunk extension" else 20000)
    if endless == "chunk extension":
        return  # libcurl reads over them, at no cost in memory, until the time runs out
    assert not isinstance(caught.value, katipo.TimeoutException)
