"""Request and pool options: one table of what there is, and the compilation of one call's options.

`compile_options` checks a call's options against the table, collects every offence into one BadOptions, and says what
libcurl and the engine are to be told. It assumes nothing of the libcurl in use but what the `Library` it is given
answers. Callers must not change what a `Compiled` holds: parts of it are shared between calls.

Where api.md leaves it open: numbers are ints (no floats, no bools, no None). Text goes out as UTF-8. White space around
a header's value is dropped. Files are not looked for: a missing one is the request's error (58 or 77). `cacert`
replaces the default CAs; `capath` is searched beside them, as libcurl has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from ._curl_options import (
    Assembly,
    Library,
    Problems,
    Refused,
    Setting,
    add_curl_options,
)
from ._option_table import (
    AUTHS,
    HTTP_VERSIONS,
    OPTIONS,
    TABLE,
    TLS_VERSIONS,
    WINDOW,
    unknown_name,
)
from ._pool_options import check_pool_options
from ._proxy import add_proxy
from ._request_headers import Body, Framing, Header, checked_headers, frame, with_lines
from ._request_options import AsyncRequestOptions, RequestOptions
from ._version import __version__
from .cookies import cookie_lines

if TYPE_CHECKING:
    pass

__all__ = [
    "OFFER",
    "AsyncRequestOptions",
    "Compiled",
    "Library",
    "RequestOptions",
    "Settings",
    "check_pool_options",
    "compile_options",
    "compile_request",
    "compile_settings",
    "with_headers",
]

# ------------------------------------------------------------------------------------------------ the parts of a call


class Settings:
    """The part of a call's options that makes a configuration, but for its headers."""

    __slots__ = (
        "connect_timeout_ms",
        "curl",
        "flags",
        "http10",
        "identity",
        "max_bytes",
        "plain",
        "pool_timeout_ms",
        "read_timeout_ms",
        "timeout_ms",
        "write_timeout_ms",
    )

    def __init__(self, assembly: Assembly, given: Mapping[str, Any]) -> None:
        self.curl = assembly.curl
        self.identity = assembly.identity()
        self.flags = frozenset(assembly.flags)
        self.connect_timeout_ms: int = given.get("connecttimeout_ms", 30000)
        self.timeout_ms: int = given.get("timeout_ms", 30000)
        self.read_timeout_ms: int = given.get("read_timeout_ms", 0)
        self.write_timeout_ms: int = given.get("write_timeout_ms", 0)
        self.pool_timeout_ms: int = given.get("pool_timeout_ms", 0)
        self.max_bytes: int = given.get("max_response_bytes", -1)
        self.http10: bool = given.get("http_version") == "1.0"
        self.plain: dict[tuple[bool, bool], list[Setting]] = {}
        """By (stream, decode): all of it, where the caller gave no headers and no form."""

    def with_limits(self, clocks: Mapping[str, int], max_bytes: int) -> Settings:
        """The same for libcurl, with other clocks (options of those names, milliseconds) and bound (-1: none)."""
        new = Settings.__new__(Settings)
        for name in Settings.__slots__:
            setattr(new, name, getattr(self, name))
        new.connect_timeout_ms = clocks["connecttimeout_ms"]
        new.timeout_ms = clocks["timeout_ms"]
        new.read_timeout_ms = clocks["read_timeout_ms"]
        new.write_timeout_ms = clocks["write_timeout_ms"]
        new.pool_timeout_ms = clocks["pool_timeout_ms"]
        new.max_bytes = max_bytes
        return new


class Compiled:
    """One call's options, checked: what makes its configuration, and what goes with the request itself."""

    __slots__ = (
        "body",
        "body_length",
        "config_key",
        "connect_timeout_ms",
        "curl",
        "declared_length",
        "decode",
        "finish_on_abandon",
        "flags",
        "headers",
        "identity",
        "informational",
        "manual",
        "max_bytes",
        "pool_timeout_ms",
        "read_timeout_ms",
        "ref",
        "reply_to",
        "stream",
        "stream_body",
        "timeout_ms",
        "upload_window",
        "window",
        "write_timeout_ms",
    )

    config_key: Hashable | None
    """Equal keys (of one library) make equal configurations. None: this one is not worth keeping, or holds secrets."""
    curl: list[Setting]
    """(number, value) for libcurl, in the order to be set."""
    identity: bytes
    flags: frozenset[str]
    """Of "follow", "may_retry_auth", "negotiate", "proxied", "has_cookies", "verbose", "own_accept"."""
    connect_timeout_ms: int
    timeout_ms: int
    read_timeout_ms: int
    write_timeout_ms: int
    pool_timeout_ms: int
    max_bytes: int
    """Of what is delivered; -1: no limit."""

    body: bytes | None
    """b"" where "Content-Length: 0" is to be sent; None: there is none, or it is streamed."""
    body_length: int
    """Of the buffered body, or as declared for a streamed one; -1: not known. 0 without a body."""
    declared_length: int
    """What a Content-Length header says of a streamed body; else -1."""
    headers: list[tuple[bytes, bytes]]
    """As the caller gave them, without those that are not to be sent; a form's Content-Type is among them."""
    decode: bool
    stream: bool
    window: int
    """-1: unbounded, as for a buffered response."""
    manual: bool
    informational: bool
    stream_body: bool
    upload_window: int
    finish_on_abandon: bool
    reply_to: Any
    ref: Hashable
    """None: the pool is to choose one."""

    def __repr__(self) -> str:
        return f"<Compiled {len(self.curl)} libcurl options, {'plain' if not self.identity else 'own'} identity>"


# ------------------------------------------------------------------------------------------------ compiling

OFFER: Final = b"gzip, deflate, br"
"""What `decoding` can undo in streams. Buffered responses are decoded by libcurl, which may be built with less."""

_USER_AGENT: Final = b"katipo/" + __version__.encode()
_TICKETS: Final = ("KRB5CCNAME", "KRB5_CLIENT_KTNAME")
"""Where MIT's Kerberos looks for a user's tickets, and for keys to get them with."""
_KEPT: Final = 256
"""Shareable settings kept per library. Arbitrary: a program uses a handful."""


class _Plan:
    """What is worked out once per library."""

    __slots__ = ("accept_encoding", "decoded", "httpheader", "library", "settings", "useragent")

    def __init__(self, library: Library) -> None:
        self.library = library
        self.httpheader = _number(library, "HTTPHEADER")
        self.useragent = _number(library, "USERAGENT")
        self.accept_encoding = _number(library, "ACCEPT_ENCODING")
        have = library.features
        codings = ([b"gzip", b"deflate"] if "libz" in have else []) + ([b"br"] if "brotli" in have else [])
        self.decoded = b", ".join(codings)
        self.settings: dict[Hashable, Settings] = {}


def _number(library: Library, name: str) -> int:
    found = library.option(name)
    if found is None:
        raise ImportError(f"this libcurl has no {name}: it was built without HTTP")
    return found[0]


_plans: dict[int, _Plan] = {}  # by id of the library, which the plan keeps alive


def _plan_of(library: Library) -> _Plan:
    plan = _plans.get(id(library))
    if plan is None:
        plan = _plans[id(library)] = _Plan(library)
    return plan


_WITHOUT_BODY: Final = frozenset({b"HEAD", b"TRACE"})


def compile_options(
    options: Mapping[str, object],
    *,
    blocking: bool,
    method: bytes,
    library: Library,
    check_reply_to: Callable[[object], str | None] | None = None,
) -> Compiled:
    """Check one call's options and say what they come to.

    `blocking`: refuse what only `async_` calls take. `method` decides whether an absent body is sent as an empty one.
    `check_reply_to`: given a `reply_to`, answers why it cannot be used, or None; left out, none can.

    Raises BadOptions naming every offender and no value: code "not_built_in" where this libcurl lacks all that was
    refused, else "bad_opts".
    """
    plan = _plan_of(library)
    problems = Problems()
    key = _settings_key(options)
    settings = None if key is None else plan.settings.get(key)
    given, wrong = _given(options, blocking, settings is not None, check_reply_to, problems)
    _check_combinations(given, wrong, problems)
    if settings is None:
        settings = _settle(plan, given, problems)
        if key is not None and not problems:
            if len(plan.settings) >= _KEPT:
                plan.settings.clear()
            plan.settings[key] = settings
    if settings.http10 and "stream_body" in given:
        problems.add("stream_body: HTTP/1.0 has no way to send it")
    compiled = _compiled(plan, settings, key, given, method, problems)
    problems.raise_if_any()
    return compiled


def _settings_key(options: Mapping[str, object]) -> Hashable | None:
    """A key for the settings of these options; None where they are not worth keeping."""
    key: list[tuple[str, type, object]] = []
    for name, value in options.items():
        option = TABLE.get(name)
        if option is None or option.per_request or value is option.default:
            continue
        kind = type(value)
        if not option.shareable or (kind is not int and kind is not bool and kind is not str):
            return None
        key.append((name, kind, value))  # the type, for 1 and True are equal
    return tuple(key)


def _given(
    options: Mapping[str, object],
    blocking: bool,
    settled: bool,
    check_reply_to: Callable[[object], str | None] | None,
    problems: Problems,
) -> tuple[dict[str, Any], set[str]]:
    """The options given and not equal to their default, in normal form; and the names of those refused."""
    given: dict[str, Any] = {}
    wrong: set[str] = set()
    for name, value in options.items():
        option = TABLE.get(name)
        if option is None:
            problems.add(unknown_name(name))
            continue
        default = option.default
        if value is default or (settled and not option.per_request):
            continue
        problem: Refused | None = None
        normal: Any = None
        try:
            if name == "reply_to" and check_reply_to is not None:
                if (text := check_reply_to(value)) is not None:
                    problem = Refused(text)
                normal = value
            else:
                normal = option.check(value)
                if normal is default or (default is not None and normal == default):
                    continue
        except Refused as refused:
            problem = refused
        except Exception:
            # A caller's object raised while it was looked at; what it said may hold the value.
            problem = Refused("could not be read")
        if option.only_async and blocking:
            problems.add(f"{name} requires async_request")
        elif problem is not None:
            problems.refuse(name, problem)
            wrong.add(name)
        else:
            given[name] = normal
    return given, wrong


_REQUIRES: Final = (
    ("stream_window", "stream"),
    ("flow_control", "stream"),
    ("informational", "stream"),
    ("upload_window", "stream_body"),
    ("on_abandon", "stream_body"),
)
_EXCLUDES: Final = (
    ("body", "stream_body"),
    ("userpwd", "username"),
    ("userpwd", "password"),
    ("sslkey", "sslkey_blob"),
)


def _check_combinations(given: Mapping[str, Any], wrong: set[str], problems: Problems) -> None:
    for name, required in _REQUIRES:
        if name in given and required not in given and required not in wrong:
            problems.add(f"{name} requires {required}")
    for name, other in _EXCLUDES:
        if name in given and other in given:
            problems.add(f"{name} excludes {other}")
    if given.get("flow_control") == "manual":
        if given.get("stream_window") == -1:
            problems.add('flow_control: "manual" requires a bounded stream_window')
    elif given.get("stream_window") == 0 and "flow_control" not in wrong:
        problems.add('stream_window: 0 requires flow_control "manual"')
    named = "username" in given or "username" in wrong
    known = named or "userpwd" in given or "userpwd" in wrong
    if "password" in given and not known:
        problems.add("password requires username")
    auth = given.get("http_auth")
    if auth is not None and auth != "negotiate" and not known:
        problems.add(f'http_auth: "{auth}" requires username or userpwd')


def compile_settings(options: Mapping[str, object], *, library: Library) -> Settings:
    """What many requests of a client have in common: every option but `headers`, `body`, and how bodies travel.

    libcurl's own cookies stay off: the client keeps cookies. Raises BadOptions as compile_options does.
    """
    problems = Problems()
    given, wrong = _given(options, False, False, None, problems)
    _check_combinations(given, wrong, problems)
    settings = _settle(_plan_of(library), given, problems, own_cookies=False)
    problems.raise_if_any()
    return settings


def compile_request(
    settings: Settings,
    *,
    method: bytes,
    library: Library,
    headers: Iterable[tuple[bytes, bytes | None]],
    body: bytes | None = None,
    stream: bool = False,
    decode: bool = True,
    informational: bool = False,
    stream_body: bool = False,
) -> Compiled:
    """One request of a client: `settings`, and what differs. Raises BadOptions as compile_options does."""
    problems = Problems()
    given: dict[str, Any] = {}
    try:
        checked = checked_headers(headers)
    except Refused as refused:
        problems.refuse("headers", refused)
        checked = None
    if checked is not None:
        given["headers"] = checked
    if body is not None:
        given["body"] = Body(body, False)
    if stream:
        given["stream"] = True
    if informational:
        given["informational"] = True
    if not decode:
        given["decode"] = False
    if stream_body:
        given["stream_body"] = True
    compiled = _compiled(_plan_of(library), settings, None, given, method, problems)
    problems.raise_if_any()
    return compiled


def with_headers(compiled: Compiled, added: Iterable[Header], *, library: Library) -> list[Setting]:
    """`compiled.curl` with further headers, of `addable_headers`: those that the request does not have."""
    httpheader = _plan_of(library).httpheader
    return [
        (number, with_lines(cast("list[bytes]", value), added) if number == httpheader else value)
        for number, value in compiled.curl
    ]


def _settle(plan: _Plan, given: Mapping[str, Any], problems: Problems, *, own_cookies: bool = True) -> Settings:
    """All that makes a configuration, but for the headers."""
    library = plan.library
    assembly = Assembly(library, problems)
    assembly.set("NOSIGNAL", 1)
    # The strings came with 7.85, the bit masks go at some time: CURLPROTO_HTTP | CURLPROTO_HTTPS.
    for name in ("PROTOCOLS", "REDIR_PROTOCOLS"):
        if not assembly.set(name + "_STR", b"http,https"):
            assembly.set(name, 3)
    assembly.set("SUPPRESS_CONNECT_HEADERS", 1)
    assembly.set("DNS_CACHE_TIMEOUT", given.get("dns_cache_timeout", 60))
    assembly.set("PIPEWAIT", int(given.get("pipewait", True)))
    _settle_redirects(assembly, given)
    _settle_http_version(assembly, given.get("http_version", "none"))
    _settle_trust(assembly, given)
    for option in OPTIONS:
        if option.curl and option.name in given:
            value = given[option.name]
            assembly.set(
                option.curl,
                int(value) if isinstance(value, bool) else value,
                asked_as=option.name,
                identity=option.identity,
            )
    _settle_auth(assembly, given)
    if own_cookies:
        assembly.set("COOKIEFILE", b"")  # reads no file: it turns libcurl's cookies on, for the response's cookiejar
    if "cookiejar" in given:
        lines = cookie_lines(given["cookiejar"])
        for line in lines:
            assembly.set("COOKIELIST", line)
        if lines:
            assembly.flags.add("has_cookies")
    if given.get("verbose"):
        assembly.flags.add("verbose")
    curl_options: Mapping[str, object] = given.get("curl_options", {})
    add_proxy(assembly, given.get("proxy"), curl_options)
    add_curl_options(assembly, curl_options)
    if "negotiate" in assembly.flags:
        # Kerberos takes no user from libcurl: the ticket cache says who it is.
        for name in _TICKETS:
            assembly.identify(name, os.fsencode(os.environ.get(name, "")))
    return Settings(assembly, given)


def _settle_redirects(assembly: Assembly, given: Mapping[str, Any]) -> None:
    if given.get("followlocation"):
        assembly.flags.add("follow")
        # CURLFOLLOW_OBEYCODE: with 1, a custom method survives a 303.
        assembly.set("FOLLOWLOCATION", 2 if assembly.library.version_num >= 0x080D00 else 1)
        assembly.set("MAXREDIRS", given.get("maxredirs", 9))


def _settle_http_version(assembly: Assembly, version: str) -> None:
    number, feature = HTTP_VERSIONS[version]
    if feature is not None and feature not in assembly.library.features:
        assembly.problems.add(
            f'http_version: this libcurl has no HTTP/{feature[-1]}, which "{version}" requires', missing=True
        )
    elif version == "none" and "http2" not in assembly.library.features:
        number = 2
    assembly.set("HTTP_VERSION", number)


def _settle_trust(assembly: Assembly, given: Mapping[str, Any]) -> None:
    """Which certificates are believed. Anything but the default is part of the identity."""
    library = assembly.library
    if not given.get("ssl_verifyhost", True):
        assembly.set("SSL_VERIFYHOST", 0, identity=True)
    if not given.get("ssl_verifypeer", True):
        assembly.set("SSL_VERIFYPEER", 0, identity=True)
    version = given.get("sslversion", "default")
    # 1.2 is libcurl's own minimum from 8.16 on. Left out, it sets nobody apart: libcurl compares what was asked for.
    if version != "default" and (version != "1.2" or library.version_num < 0x081000):
        assembly.set("SSLVERSION", TLS_VERSIONS[version], asked_as="sslversion", identity=True)
    cacert, capath = given.get("cacert"), given.get("capath")
    if cacert is not None:
        assembly.set("CAINFO", cacert, asked_as="cacert", identity=True)
    elif library.default_cainfo:
        # Beside a capath too: libcurl cannot be told to use none, and where its own default is missing it fails with
        # 77.
        assembly.set("CAINFO", os.fsencode(library.default_cainfo))
    if capath is not None:
        assembly.set("CAPATH", capath, asked_as="capath", identity=True)
    elif cacert is not None and _cuts_off_capath(library):
        # Neither the default directory nor the one that libcurl was built with may be trusted beside a caller's own
        # CAs. libcurl's cannot be unset, and "" is an error to OpenSSL; a directory that holds nothing does it.
        assembly.set("CAPATH", b"/dev/null")
    elif cacert is None and library.default_capath:
        assembly.set("CAPATH", os.fsencode(library.default_capath))
    lifetime = given.get("ca_cache_timeout")
    assembly.set(
        "CA_CACHE_TIMEOUT",
        86400 if lifetime is None else lifetime,
        asked_as="" if lifetime is None else "ca_cache_timeout",
    )


def _cuts_off_capath(library: Library) -> bool:
    """Whether a directory that holds nothing is fine with the TLS library: OpenSSL and its kin look into it late."""
    return (library.ssl_version or "").startswith(("OpenSSL", "LibreSSL", "BoringSSL", "AWS-LC", "quictls", "(OpenSSL"))


def _settle_auth(assembly: Assembly, given: Mapping[str, Any]) -> None:
    username, password = given.get("username"), given.get("password")
    if "userpwd" in given:
        username, colon, rest = given["userpwd"].partition(b":")
        password = rest if colon else None
    auth = given.get("http_auth")
    if auth is not None:
        bit, feature = AUTHS[auth]
        if feature is not None and feature not in assembly.library.features:
            assembly.problems.add(f'http_auth: this libcurl has no "{auth}"', missing=True)
        assembly.set("HTTPAUTH", bit)
        if auth != "basic":
            assembly.flags.add("may_retry_auth")
        if auth == "negotiate":
            assembly.flags.add("negotiate")
        if feature is not None:
            # These authenticate the connection: whoever uses it next is taken for this user.
            assembly.identify("http_auth", auth)
            assembly.identify("username", username or b"")
            assembly.identify("password", password or b"")
    if username is not None:
        assembly.set("USERNAME", username)
    if password is not None:
        assembly.set("PASSWORD", password)


def _curl(plan: _Plan, settings: Settings, framing: Framing, stream: bool, decode: bool) -> list[Setting]:
    """The settings with the headers put on top."""
    curl = settings.curl.copy()
    lines = framing.lines
    if not framing.own_agent:
        curl.append((plan.useragent, _USER_AGENT))
    if decode and not stream and plan.decoded:
        curl.append((plan.accept_encoding, plan.decoded))  # a caller's own header wins on the wire; this decodes
    elif decode and stream and not framing.own_accept:
        lines = [*lines, b"Accept-Encoding: " + OFFER]
    curl.append((plan.httpheader, lines))
    return curl


def _compiled(  # the parts of one call, meeting once
    plan: _Plan, settings: Settings, key: Hashable | None, given: Mapping[str, Any], method: bytes, problems: Problems
) -> Compiled:
    headers, body = given.get("headers"), cast("Body | None", given.get("body"))
    stream, decode, stream_body = "stream" in given, "decode" not in given, "stream_body" in given
    if method in _WITHOUT_BODY and (body or stream_body):
        # libcurl would drop a HEAD's without a word; RFC 9110 9.3.8 forbids a TRACE's.
        problems.add(f"{'stream_body' if stream_body else 'body'}: {method.decode()} cannot have one")
    framing = frame(headers, body, stream_body=stream_body, method=method, problems=problems)
    own = headers is not None or (body is not None and body.is_form)
    curl = None if own else settings.plain.get((stream, decode))
    if curl is None:
        curl = _curl(plan, settings, framing, stream, decode)
        if not own:
            settings.plain[stream, decode] = curl

    compiled = Compiled()
    compiled.config_key = None if own or key is None else (key, stream, decode)
    compiled.curl = curl
    compiled.identity = settings.identity
    compiled.flags = settings.flags | {"own_accept"} if framing.own_accept else settings.flags
    compiled.connect_timeout_ms = settings.connect_timeout_ms
    compiled.timeout_ms = settings.timeout_ms
    compiled.read_timeout_ms = settings.read_timeout_ms
    compiled.write_timeout_ms = settings.write_timeout_ms
    compiled.pool_timeout_ms = settings.pool_timeout_ms
    compiled.max_bytes = settings.max_bytes
    compiled.body = framing.body
    compiled.declared_length = framing.declared_length
    if framing.body is not None:
        compiled.body_length = len(framing.body)
    else:
        compiled.body_length = framing.declared_length if stream_body else 0
    compiled.headers = framing.headers
    compiled.decode = decode
    compiled.stream = stream
    compiled.window = given.get("stream_window", WINDOW) if stream else -1
    compiled.manual = given.get("flow_control") == "manual"
    compiled.informational = "informational" in given
    compiled.stream_body = stream_body
    compiled.upload_window = given.get("upload_window", WINDOW)
    compiled.finish_on_abandon = given.get("on_abandon") == "finish"
    compiled.reply_to = given.get("reply_to")
    compiled.ref = given.get("ref")
    return compiled
