"""What is behind a client, whichever way it waits: its configuration, and what a call becomes under it.

State that requests read is replaced, not changed: any number of threads and loops may use one client. The cookie store
has a lock of its own; nothing else needs one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from ._arguments import EventHooks
from ._ask import Ask, without_credentials
from ._compat import Unpack
from ._content import build_content
from ._curl_options import Refused
from ._face import Face
from ._option_table import OPTIONS
from ._pattern import pattern
from ._request_headers import checked_headers
from ._request_options import HeaderOptions
from ._version import __version__
from .auth import BasicAuth, as_auth
from .config import Limits, Timeout, as_timeout, tls_options
from .cookie_store import Cookies
from .errors import BadOptions, PoolClosed
from .handle import Handle
from .headers import Headers, is_unchanged, snapshot
from .options import OFFER, Settings, compile_request, compile_settings
from .pool import Pool, Prepared, loaded_library, prepare_request, start_plain
from .request import check_method
from .response import Response, adopt_response, known_text_encoding, sets_cookies
from .url import URL, ParamTypes

if TYPE_CHECKING:
    from ._arguments import ClientArguments
    from ._environment import Proxies

__all__ = ["DEFAULT_LIMITS", "DEFAULT_TIMEOUT", "Session"]

DEFAULT_TIMEOUT: Final = Timeout()
DEFAULT_LIMITS: Final = Limits()
_HOOKS: Final = ("request", "response", "informational")
_SETTINGS_KEPT: Final = 64
"""As many proxies and logins as a client keeps compiled settings for. Arbitrary."""
_PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_ABSOLUTE: Final = pattern(r"[A-Za-z][A-Za-z0-9+.-]*:")
_OF_THE_POOL: Final = {option.curl: option.name for option in OPTIONS if option.curl}
"""libcurl's options that are the pool's under another name: a client takes them in `curl_options`."""
_SENT_BY_ITSELF: Final = (b"accept", b"user-agent", b"accept-encoding")
"""Headers that libcurl, or the pool, sends where none is given."""


def _proxies() -> Proxies | None:
    """The environment's proxies; None: it names none."""
    if not any(name in os.environ for name in _PROXY_VARIABLES):
        return None
    from ._environment import Proxies

    return Proxies(os.environ)


def _default_headers() -> Headers:
    return Headers({"Accept": "*/*", "Accept-Encoding": OFFER.decode(), "User-Agent": f"katipo/{__version__}"})


def _http_version(http1: bool, http2: bool, http3: bool) -> str:
    for name, value in (("http1", http1), ("http2", http2), ("http3", http3)):
        if not isinstance(value, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BadOptions(f"{name}: must be True or False, not {type(value).__name__}")
    versions = {
        (True, True, False): "none",
        (True, False, False): "1.1",
        (False, True, False): "2-prior-knowledge",
        (True, True, True): "3",
        (False, False, True): "3-only",
    }
    chosen = versions.get((http1, http2, http3))
    if chosen is None:
        if not (http1 or http2 or http3):
            raise BadOptions("http1, http2, http3: one of them must be True")
        raise BadOptions("http3: it races against HTTP/1.1 and 2 together, or is alone")
    return chosen


def checked_hooks(hooks: EventHooks | None) -> dict[str, list[Callable[..., Any]]]:
    """Event hooks by their event; every event has a list."""
    checked: dict[str, list[Callable[..., Any]]] = {event: [] for event in _HOOKS}
    for event, functions in (hooks or {}).items():
        if event not in checked:
            raise BadOptions(f"event_hooks: {str(event)[:40]!r} is none of {', '.join(_HOOKS)}")
        if callable(functions) or not isinstance(functions, (list, tuple)) or not all(map(callable, functions)):
            raise BadOptions(f"event_hooks: {event!r} must be a list of functions")
        checked[event] = list(functions)
    return checked


def _pool_options(arguments: ClientArguments, limits: Limits, trust_env: bool) -> dict[str, Any]:
    """The pool's options that all requests have in common."""
    options: dict[str, Any] = dict(
        tls_options(
            verify=arguments["verify"],
            cert=arguments["cert"],
            tls=arguments["tls"],
            environ=os.environ if trust_env else None,
        )
    )
    options["http_version"] = _http_version(arguments["http1"], arguments["http2"], arguments["http3"])
    own = arguments["curl_options"]
    if own is not None and not isinstance(own, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadOptions(f"curl_options: must be a mapping, not {type(own).__name__}")
    further = _without_pools_names(options, own or {})
    options["curl_options"] = {**limits.curl_options(), **(options.get("curl_options") or {}), **further}
    return options


def _own_or_given_pool(arguments: ClientArguments, limits: Limits) -> tuple[Pool, bool]:
    """The pool, and whether it is the client's own."""
    pool, workers = arguments["pool"], arguments["workers"]
    if pool is None:
        return Pool(workers, **limits.for_pool()), True
    if not isinstance(pool, Pool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadOptions(f"pool: must be a Pool, not {type(pool).__name__}")
    wrong = [name for name, given in (("workers", workers != 1), ("limits", limits is not DEFAULT_LIMITS)) if given]
    if wrong:
        raise BadOptions("; ".join(f"{name}: the pool that was given has its own" for name in wrong))
    return pool, False


def _checked_base(url: str | URL) -> URL | None:
    """The base of relative URLs, its path with a slash at the end; None for "": there is none."""
    if not url:
        return None
    base = URL(url)
    path, mark, _ = base.raw_path.partition(b"?")
    if mark:
        raise BadOptions("base_url: must not have a query; use params")
    return base.copy_with(raw_path=path if path.endswith(b"/") else path + b"/", fragment="")


def _pairs(params: ParamTypes | None) -> list[tuple[str, str]]:
    return [] if params is None else _with_params(URL("http://x/"), params).params


def _with_params(url: URL, params: object) -> URL:
    """The URL with these added to its query."""
    if not isinstance(params, (str, Mapping)):
        params = _listed(params)
    try:
        return URL(url, params=cast("ParamTypes", params))
    except UnicodeEncodeError:
        raise BadOptions("params: has text in it that is not encodable as UTF-8") from None


def _listed(params: object) -> list[tuple[str, Any]]:
    """Pairs, from what may be read only once."""
    pairs: list[Any] = list(cast("Any", params)) if isinstance(params, Iterable) else [params]
    if not all(isinstance(pair, (tuple, list)) and len(cast("tuple[Any, ...]", pair)) == 2 for pair in pairs):
        raise BadOptions("params: must be a mapping, pairs or str")
    return pairs


def _checked_count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadOptions(f"{name}: must be an int, 0 or more")
    return value


def checked_flag(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise BadOptions(f"{name}: must be True or False, not {type(value).__name__}")


def checked_bound(name: str, value: object) -> int:
    """A number of bytes; None: -1, no bound."""
    if value is None:
        return -1
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadOptions(f"{name}: must be a number of bytes, 0 or more, or None")
    return value


def _without_pools_names(options: dict[str, object], curl_options: Mapping[str, Any]) -> dict[str, Any]:
    """Move those of `curl_options` that are the pool's options to `options`; the rest is returned."""
    rest: dict[str, Any] = {}
    for name, value in curl_options.items():
        own = _OF_THE_POOL.get(name.upper().removeprefix("CURLOPT_")) if isinstance(name, str) else None  # pyright: ignore[reportUnnecessaryIsInstance]
        if own is None:
            rest[name] = value
        else:
            options[own] = bool(value) if own == "tcp_fastopen" else value
    return rest


class Session:
    """A client's state, and its requests before they wait for anything."""

    def __init__(self, face: Face, **arguments: Unpack[ClientArguments]) -> None:
        self.face = face
        trust_env = checked_flag("trust_env", arguments["trust_env"])
        proxy = arguments["proxy"]
        self.trust_env = trust_env
        # "" is direct: the environment has no say either.
        self._proxies = _proxies() if trust_env and proxy is None else None
        self._proxy = proxy
        self.default_encoding = _checked_encoding(arguments["default_encoding"])
        self._max_bytes = checked_bound("max_response_bytes", arguments["max_response_bytes"])
        self.max_redirects = _checked_count("max_redirects", arguments["max_redirects"])
        self.follow_redirects = checked_flag("follow_redirects", arguments["follow_redirects"])
        limits = arguments["limits"]
        if not isinstance(limits, Limits):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BadOptions(f"limits: must be Limits, not {type(limits).__name__}")
        self._options = _pool_options(arguments, limits, trust_env)
        self._settings: dict[Hashable, Settings] = {}
        self.closed = False
        self.timeout = as_timeout(arguments["timeout"])
        self.auth = as_auth(arguments["auth"])
        self.all_hooks = checked_hooks(arguments["event_hooks"])
        self.params = _pairs(arguments["params"])
        self.base_url = _checked_base(arguments["base_url"])
        self.cookies = Cookies(arguments["cookies"])
        self.headers, self._unsent = merged_headers(_default_headers(), arguments["headers"] or {})
        # Everything that can be wrong is, before the pool is made.
        self.settings(proxy or "", keeps_credentials=True, auth={}, curl_options=None)
        self.pool, self.owns_pool = _own_or_given_pool(arguments, limits)
        self._plan: tuple[list[Any], dict[str, Prepared]] = ([], {})
        """For these headers, by method: what is sent the quick way. Replaced as a whole."""
        self._is_plain = False
        self.replan()

    # ------------------------------------------------------------------------------------------------ configuration

    def set_headers(self, headers: HeaderOptions | Headers | None) -> None:
        """Replace the client's headers: those given, and the defaults that they do not name."""
        self.headers, self._unsent = merged_headers(_default_headers(), headers or {})
        self.replan()

    def set_base_url(self, url: str | URL) -> None:
        self.base_url = _checked_base(url)

    def set_params(self, params: ParamTypes | None) -> None:
        self.params = _pairs(params)
        self.replan()

    def set_auth(self, auth: Any) -> None:
        self.auth = as_auth(auth)
        self.replan()

    def set_timeout(self, timeout: Any) -> None:
        self.timeout = as_timeout(timeout)
        self.replan()

    def set_follow_redirects(self, follow: object) -> None:
        self.follow_redirects = checked_flag("follow_redirects", follow)
        self.replan()

    def set_max_redirects(self, count: object) -> None:
        self.max_redirects = _checked_count("max_redirects", count)

    def set_hooks(self, hooks: EventHooks | None) -> None:
        self.all_hooks = checked_hooks(hooks)

    def hooks(self, event: str) -> list[Callable[..., Any]]:
        """The functions to call for an event."""
        return self.all_hooks[event]

    # ------------------------------------------------------------------------------------------------ the quick way

    def replan(self) -> None:
        """What the client's configuration comes to has changed."""
        self._plan = (snapshot(self.headers), {})
        self._is_plain = (
            self.auth is None
            and not self._proxies
            and not self.params
            and not (self.follow_redirects and self.timeout.total is not None)  # which goes on in the next hop
        )

    def quickly(self, method: str, url: str | URL) -> Handle | None:
        """A request to which nothing applies but what is the same for all of this client's; None: it is not one.

        It is compiled once. This is where programs that do much HTTP spend their time.
        """
        if (
            not self._is_plain
            or not self.cookies.empty
            or type(url) is not str
            or self.closed
            or type(method) is not str
        ):
            return None
        hooks = self.all_hooks
        if hooks["request"] or hooks["response"] or hooks["informational"]:
            return None
        plan = self._plan
        if not is_unchanged(self.headers, plan[0]):
            plan = self._plan = (snapshot(self.headers), {})
        prepared = plan[1].get(method)
        if prepared is None:
            settings = self.settings(self._proxy or "", keeps_credentials=True, auth={}, curl_options=None)
            plan[1][method] = prepared = self.prepared(
                settings.with_limits(self.timeout.pool_options(), self._max_bytes),
                check_method(method).decode("ascii"),
                Headers([(name, value) for name, _, value in plan[0]]),
                self._unsent,
                None,
            )
        return start_plain(self.pool, prepared, url)

    def is_final(self, response: Response) -> bool:
        """Whether a quick request's response is its caller's as it is."""
        if sets_cookies(response) or (self.follow_redirects and 300 <= response.status_code <= 399):
            return False
        adopt_response(response, default_encoding=self.default_encoding)
        return True

    # ------------------------------------------------------------------------------------------------ a call

    def ask(self, method: str, url: str | URL, options: Mapping[str, Any], *, stream: bool = False) -> Ask:
        """What a call of these arguments asks for. Nothing has been sent; raises for what is wrong."""
        if self.closed:
            raise PoolClosed("the client is closed")
        get = options.get
        ask = Ask()
        body = build_content(content=get("content"), data=get("data"), files=get("files"), json=get("json"))
        if body is not None and body.is_async and not self.face.is_async:
            raise BadOptions("content: an async iterable requires AsyncClient")
        ask.body = body
        ask.method = check_method(method, has_body=body is not None).decode("ascii")
        full = self._full_url(url, get("params"))
        auth = as_auth(options["auth"]) if "auth" in options else self.auth
        if full.userinfo:
            if auth is None:
                auth = BasicAuth(full.username, full.password)
            full = full.copy_with(userinfo="")
        ask.url, ask.auth = full, auth
        ask.headers, ask.unsent = merged_headers(self.headers, get("headers") or {}, self._unsent)
        if body is not None and body.content_type is not None:
            given = ask.headers.get("content-type")
            # A multipart type of the caller's cannot name the boundary that was chosen here.
            if given is None or (get("files") and given.lower().startswith("multipart/form-data")):
                ask.headers["Content-Type"] = body.content_type
        own = get("cookies")
        ask.cookies = None if own is None else Cookies(own)
        ask.cookie_header = None
        ask.proxy = get("proxy")
        if ask.proxy is not None and not isinstance(ask.proxy, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BadOptions(f"proxy: must be str or None, not {type(ask.proxy).__name__}")
        follow = options.get("follow_redirects", self.follow_redirects)
        ask.follow = False if follow is None else checked_flag("follow_redirects", follow)
        ask.timeout = as_timeout(options["timeout"]) if "timeout" in options else self.timeout
        ask.deadline = None if ask.timeout.total is None else monotonic() + ask.timeout.total
        decode = options.get("decode", True)
        ask.decode = False if decode is None else checked_flag("decode", decode)
        if "max_response_bytes" in options:
            ask.max_bytes = checked_bound("max_response_bytes", options["max_response_bytes"])
        else:
            ask.max_bytes = self._max_bytes
        curl_options = get("curl_options")
        if curl_options is not None and not isinstance(curl_options, Mapping):
            raise BadOptions(f"curl_options: must be a mapping, not {type(curl_options).__name__}")
        ask.curl_options = curl_options
        ask.stream = stream
        ask.informational = bool(self.all_hooks["informational"])
        ask.addressed = ask.keeps_credentials = True
        ask.on_start = None
        return ask

    def _full_url(self, url: str | URL, params: ParamTypes | None) -> URL:
        base = self.base_url
        if base is None or isinstance(url, URL) or _ABSOLUTE.match(url):
            full = URL(url)
        else:
            # "//host/path" too stays below: what a program makes of "/" and somebody's text must not choose the host.
            full = URL(str(base) + url.lstrip("/"))
        if self.params:
            if params is None or isinstance(params, str):
                full = _with_params(full, self.params)
            else:
                params = params if isinstance(params, Mapping) else _listed(params)
                names = {name for name, _ in _pairs(params)}
                full = _with_params(full, [pair for pair in self.params if pair[0] not in names])
        return full if params is None else _with_params(full, params)

    # ------------------------------------------------------------------------------------------------ compiling

    def proxy_for(self, ask: Ask, url: URL) -> str:
        """The proxy for a hop's request to `url`; "": direct."""
        if ask.proxy is not None:
            return ask.proxy
        if self._proxy is not None:
            return self._proxy
        return self._proxies.proxy_for(url) if self._proxies else ""

    def settings(
        self, proxy: str, *, keeps_credentials: bool, auth: Mapping[str, object], curl_options: Mapping[str, Any] | None
    ) -> Settings:
        """What libcurl is told but for headers and body. Kept, if the request has no libcurl options of its own."""
        key = (proxy, keeps_credentials, tuple(sorted(auth.items())))
        settings = self._settings.get(key) if curl_options is None else None
        if settings is None:
            options = dict(self._options)
            if not keeps_credentials:
                for name in ("sslcert", "sslkey", "sslkey_blob", "keypasswd"):
                    options.pop(name, None)
                options["curl_options"] = without_credentials(cast("dict[str, Any]", options["curl_options"]))
            if curl_options is not None:
                more = _without_pools_names(options, curl_options)
                options["curl_options"] = {**cast("dict[str, Any]", options["curl_options"]), **more}
            settings = compile_settings({**options, **auth, "proxy": proxy}, library=loaded_library())
            # Whose tickets there are, which is part of Negotiate's settings, is asked anew each time.
            if curl_options is None and "negotiate" not in settings.flags:
                if len(self._settings) >= _SETTINGS_KEPT:
                    self._settings.clear()
                self._settings[key] = settings
        return settings

    def prepared(
        self,
        settings: Settings,
        method: str,
        headers: Headers,
        unsent: frozenset[bytes],
        body: bytes | None,
        *,
        stream: bool = False,
        decode: bool = True,
        stream_body: bool = False,
        informational: bool = False,
    ) -> Prepared:
        """A request, compiled for this client's pool. A stream is decoded by the client: here it is as it was sent."""
        lines = _lines(headers, unsent, decode=decode, by_pool=not stream)
        raw_method = method.encode("ascii")
        compiled = compile_request(
            settings,
            method=raw_method,
            library=loaded_library(),
            headers=lines,
            body=body,
            stream=stream,
            decode=decode and not stream,
            stream_body=stream_body,
            informational=informational,
        )
        return prepare_request(self.pool, raw_method, compiled)


def _lines(
    headers: Headers, unsent: frozenset[bytes], *, decode: bool, by_pool: bool
) -> list[tuple[bytes, bytes | None]]:
    """Headers as the pool takes them: None for what is not to be sent."""
    lines: list[tuple[bytes, bytes | None]] = []
    names: set[bytes] = set()
    for name, value in headers.raw:
        lower = name.lower()
        names.add(lower)
        if lower == b"accept-encoding" and value == OFFER and (by_pool or not decode):
            continue  # the pool's own offer, or none: bytes are wanted as they are
        lines.append((name, value))
    lines += [(name.title(), None) for name in _SENT_BY_ITSELF if name not in names and name not in unsent]
    lines += [(name, None) for name in sorted(unsent - names)]
    return lines


def merged_headers(
    headers: Headers, given: HeaderOptions | Headers, unsent: frozenset[bytes] = frozenset()
) -> tuple[Headers, frozenset[bytes]]:
    """`headers` with those given in their place; and the names of those that are not to be sent (given as None)."""
    merged = headers.copy()
    if not given:
        return merged, unsent
    try:
        checked = checked_headers(given) or []
    except Refused as refused:
        raise BadOptions(f"headers: {refused.text}") from None
    for _, lower, value in checked:
        if value is None:
            merged.pop(lower.decode("ascii"), None)
    merged.update([(name, value) for name, _, value in checked if value is not None])
    absent = {lower for _, lower, value in checked if value is None}
    return merged, (unsent | absent) - {lower for _, lower, value in checked if value is not None}


def _checked_encoding(name: object) -> str:
    if isinstance(name, str) and known_text_encoding(name):
        return name
    raise BadOptions("default_encoding: Python knows no text encoding of that name")
