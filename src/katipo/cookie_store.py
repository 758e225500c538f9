"""The cookies of a client: which a server set, which its caller set, and which a request gets.

By RFC 6265bis (draft-ietf-httpbis-rfc6265bis-22), whose section numbers are named. What it leaves open:
- A client is no browser: SameSite is kept and never keeps a cookie from being sent, nor does HttpOnly.
- Only https is secure; http://localhost is not.
- A cookie without a name whose value has "=" in it is ignored: on the wire it would pass for another cookie.

A cookie that the caller set without a domain goes to whatever host the caller itself addresses, and never where a
redirect to another origin leads (`addressed=False`). It and a server's cookies of the same name are not sent
together: the one that was set last is. A server cannot remove it.

Any number of threads may use a store. What they read is immutable and replaced by one assignment, under the store's
lock; in a forked child the lock is a new one, for it may have been held when the fork came.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final, TypeAlias, TypeVar, cast, overload

from ._pattern import pattern
from ._set_cookie import (
    SetCookie,
    default_path,
    domain_matches,
    domains_of,
    is_address,
    is_public_suffix,
    parse_set_cookie,
    path_matches,
)
from .errors import BadOptions, CookieConflict, InvalidURL
from .url import URL

__all__ = ["CookieTypes", "Cookies", "merged_header"]

_T = TypeVar("_T")

MAX_PER_DOMAIN: Final = 50
MAX_COOKIES: Final = 3000
"""The bounds that section 5.7 suggests, and the least that 6.1 asks for."""

_KEPT_FOR_EVER: Final = float("inf")

# What would end a cookie, or the header (5.6). A name ends at "=" as well.
_BAD_IN_VALUE: Final = pattern(r"[\x00-\x1f\x7f;]")
_BAD_IN_NAME: Final = pattern(r"[\x00-\x1f\x7f;=]|^ | $")
_BAD_IN_DOMAIN: Final = pattern(r"[\x00-\x20/?#@\\\[\]]")

_ticks = itertools.count(1)
"""The order of events: creation, storing, use. A clock that is set back would mix it up."""


def now() -> float:
    """Seconds since 1970. The only clock here; tests replace it."""
    return time.time()


class _Lock:
    """A store's lock; known to the fork hook."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        global _fork_hook
        self.lock = threading.Lock()
        if not _fork_hook:
            # Two threads may both come here: the second hook finds nothing to do.
            os.register_at_fork(after_in_child=_fresh_locks)
            _fork_hook = True
        _locks.add(self)


_locks: weakref.WeakSet[_Lock] = weakref.WeakSet()
_fork_hook = False


def _fresh_locks() -> None:
    for each in _locks:
        each.lock = threading.Lock()


class _Cookie:
    """A stored cookie. Only `used` changes once it is published: a hint for eviction, for which any order will do."""

    __slots__ = (
        "created",
        "domain",
        "expires",
        "given",
        "host_only",
        "http_only",
        "name",
        "path",
        "same_site",
        "secure",
        "stored",
        "used",
        "value",
    )

    def __init__(self, name: str, value: str, domain: str, path: str, host_only: bool, given: bool) -> None:
        self.name = name
        self.value = value
        self.domain = domain  # "": the caller gave none
        self.path = path
        self.host_only = host_only
        self.given = given  # by the caller, not by a server
        self.expires: float | None = None
        self.secure = False
        self.http_only = False
        self.same_site = "Default"
        self.created = self.stored = self.used = next(_ticks)

    def replaces(self, other: _Cookie) -> bool:
        """Whether both are one cookie (5.7, step 23). The domain is the same already.

        A caller cannot say which kind a server's cookie is, so for a caller's both kinds are the same.
        """
        same_kind = self.host_only == other.host_only or self.given or other.given
        return same_kind and self.name == other.name and self.path == other.path

    def facts(self) -> tuple[Any, ...]:
        """What it is, for comparing and pickling; the order of things left out."""
        return (
            self.name,
            self.value,
            self.domain,
            self.path,
            self.host_only,
            self.given,
            self.expires,
            self.secure,
            self.http_only,
            self.same_site,
        )

    @classmethod
    def of(cls, facts: tuple[Any, ...]) -> _Cookie:
        cookie = cls(*facts[:6])
        cookie.expires, cookie.secure, cookie.http_only, cookie.same_site = facts[6:]
        return cookie


_Buckets: TypeAlias = "dict[str, tuple[_Cookie, ...]]"
"""Cookies by domain. No bucket is empty, and none is changed once it is published."""


class _State:
    """What is published at once. Nothing in it expires before `next_expiry`."""

    __slots__ = ("buckets", "next_expiry")

    def __init__(self, buckets: _Buckets, next_expiry: float) -> None:
        self.buckets = buckets
        self.next_expiry = next_expiry

    def cookies(self) -> Iterator[_Cookie]:
        return itertools.chain.from_iterable(self.buckets.values())


_EMPTY: Final = _State({}, _KEPT_FOR_EVER)


class Cookies(MutableMapping[str, str]):
    """A client's cookies: a mapping of names to values, in which several domains and paths may use one name.

    `cookies`: a mapping, pairs, or another Cookies, of which domains and all else are kept.
    The repr shows names and domains, never a value. Pickles and copies. Raises BadOptions for what is no cookie.
    """

    __slots__ = ("__weakref__", "_lock", "_state", "empty")

    empty: bool
    """Whether there is nothing to send to anybody; read it, to spend nothing."""

    def __init__(self, cookies: CookieTypes | None = None) -> None:
        self._lock = _Lock()
        self._state = _EMPTY
        self.empty = True
        if cookies is not None:
            self.update(cookies)

    # ------------------------------------------------------------------------------------- for the clients

    def header_for(self, url: URL, *, addressed: bool = True) -> str | None:
        """The value of the Cookie header for a request to `url`, None where there is none (5.8.3).

        `addressed`: False where a redirect from another origin led here, and not the caller.
        """
        if self.empty:
            return None
        buckets = self._state.buckets
        moment = now()
        secure = url.scheme == "https"
        host, path = _host_and_path(url)
        found: list[_Cookie] = []
        for domain in domains_of(host):
            for cookie in buckets.get(domain, ()):
                if cookie.host_only and domain != host:
                    continue
                if _is_for(cookie, path, secure, moment):
                    found.append(cookie)
        if addressed and "" in buckets:
            found = _with_callers(found, [c for c in buckets[""] if _is_for(c, path, secure, moment)])
        if not found:
            return None
        found.sort(key=_sending_order)
        tick = next(_ticks)
        for cookie in found:
            cookie.used = tick
        return "; ".join([f"{c.name}={c.value}" if c.name else c.value for c in found])

    def extract(self, url: URL, set_cookie: Iterable[bytes | str]) -> None:
        """Store what the Set-Cookie fields of the response from `url` say (5.7). Never fails for what they contain."""
        moment = now()
        received: list[_Cookie] = []
        for line in set_cookie:
            try:
                raw = line.encode() if isinstance(line, str) else line
            except UnicodeEncodeError:
                continue
            parsed = parse_set_cookie(raw, moment)
            if parsed is not None and (cookie := _accepted(parsed, url)) is not None:
                received.append(cookie)
        if not received:
            return
        secure = url.scheme == "https"
        with self._lock.lock:
            buckets = dict(self._state.buckets)
            for cookie in received:
                if not secure and _overlays_secure(cookie, buckets, moment):
                    continue  # 5.7, step 16
                _store(buckets, cookie, moment)
            self._publish(buckets, moment, received)

    # --------------------------------------------------------------------------------------------- changing

    def set(self, name: str, value: str, domain: str = "", path: str = "/") -> None:
        """Set a cookie for the session.

        `domain`: it goes to this host and those below it, an IP address or a single label to itself only; "": to
        whatever host the caller addresses. `path`: it goes to paths below it. Raises BadOptions.
        """
        self._add([_checked(name, value, _checked_domain(domain), path)])

    def delete(self, name: str, domain: str | None = None, path: str | None = None) -> None:
        """Remove the cookies of this name, those of one domain or path where it is given. None there: no error."""
        self._remove(name, domain, path)

    def clear(self, domain: str | None = None, path: str | None = None) -> None:
        """Remove all cookies, those of one domain or path where it is given ("": those set without a domain)."""
        self._remove(None, domain, path)

    def update(self, cookies: CookieTypes | None = None) -> None:  # type: ignore[override]  # as httpx.Cookies has it
        """Set each of `cookies`; those of another Cookies keep domain, path, expiry and all else. Raises BadOptions."""
        if cookies is None:
            return
        if isinstance(cookies, Cookies):
            added = [_Cookie.of(c.facts()) for c in cookies._live()]
        else:
            added = [_checked(name, value, "", "/") for name, value in _pairs(cookies)]
        self._add(added)

    def _add(self, added: list[_Cookie]) -> None:
        with self._lock.lock:
            buckets = dict(self._state.buckets)
            moment = now()
            for cookie in added:
                _store(buckets, cookie, moment)
            self._publish(buckets, moment, added)

    def _remove(self, name: str | None, domain: str | None, path: str | None) -> bool:
        wanted = None if domain is None else _checked_domain(domain)
        removed = False
        with self._lock.lock:
            buckets = dict(self._state.buckets)
            moment = now()
            for key, bucket in list(buckets.items()):
                if wanted is not None and key != wanted:
                    continue
                kept = [
                    c for c in bucket if (name is not None and c.name != name) or (path is not None and c.path != path)
                ]
                removed = removed or any(not _is_over(c, moment) and c not in kept for c in bucket)
                _set_bucket(buckets, key, kept)
            self._publish(buckets, moment)
        return removed

    def _publish(self, buckets: _Buckets, moment: float, added: Iterable[_Cookie] = ()) -> None:
        """Make a draft what everybody reads. Thread: the one that holds the lock."""
        next_expiry = self._state.next_expiry
        if next_expiry <= moment:
            for domain, bucket in list(buckets.items()):
                _set_bucket(buckets, domain, [c for c in bucket if not _is_over(c, moment)])
            added = [c for bucket in buckets.values() for c in bucket]
            next_expiry = _KEPT_FOR_EVER
        next_expiry = min([next_expiry, *(c.expires for c in added if c.expires)])
        _evict(buckets)
        self._state = _State(buckets, next_expiry) if buckets else _EMPTY
        self.empty = not buckets

    # ---------------------------------------------------------------------------------------------- reading

    def _live(self) -> list[_Cookie]:
        moment = now()
        return sorted((c for c in self._state.cookies() if not _is_over(c, moment)), key=_age)

    @overload
    def get(
        self, name: str, default: None = None, domain: str | None = None, path: str | None = None
    ) -> str | None: ...
    @overload
    def get(self, name: str, default: _T, domain: str | None = None, path: str | None = None) -> str | _T: ...
    def get(  # pyright: ignore[reportIncompatibleMethodOverride]  # as httpx.Cookies has it
        self, name: str, default: _T | None = None, domain: str | None = None, path: str | None = None
    ) -> str | _T | None:
        """The value of the cookie of this name, `default` where there is none.

        `domain`, `path`: exactly these; domain "": set without one. Raises CookieConflict if there are several.
        """
        wanted = None if domain is None else _checked_domain(domain)
        found = [
            c
            for c in self._live()
            if c.name == name and (wanted is None or c.domain == wanted) and (path is None or c.path == path)
        ]
        if len(found) > 1:
            places = ", ".join(f"{c.domain or '(any)'} {c.path}" for c in found[:5])
            raise CookieConflict(
                f"there are {len(found)} cookies named {name!r}, of {places}: say which domain and path"
            )
        return found[0].value if found else default

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: str) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        if not self._remove(name, None, None):
            raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(c.name == name for c in self._live())

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(c.name for c in self._live()))

    def __len__(self) -> int:
        return len({c.name for c in self._live()})

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Cookies):
            return {c.facts() for c in self._live()} == {c.facts() for c in other._live()}
        if isinstance(other, Mapping):
            live = self._live()
            named = {c.name: c.value for c in live}
            return len(named) == len(live) and named == dict(cast("Mapping[object, object]", other))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        shown = [f"{c.name or '(no name)'} for {c.domain}{c.path}" if c.domain else c.name for c in self._live()]
        return f"<Cookies [{', '.join(shown)}]>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), [c.facts() for c in sorted(self._state.cookies(), key=_age)])


CookieTypes: TypeAlias = Cookies | Mapping[str, str] | Iterable[tuple[str, str]]


def _restore(cls: type[Cookies], rows: list[tuple[Any, ...]]) -> Cookies:
    cookies = cls()
    cookies._add([_Cookie.of(row) for row in rows])  # pyright: ignore[reportPrivateUsage]
    return cookies


def merged_header(store_header: str | None, own: CookieTypes | None, *, url: URL, addressed: bool = True) -> str | None:
    """The Cookie header of a request that has cookies of its own: they stand before the store's of the same names.

    `store_header`: what `header_for` gave for `url`. `addressed`: as there; False leaves out of `own` what has no
    domain. Raises BadOptions.
    """
    if own is None:
        return store_header
    own_store = own if isinstance(own, Cookies) else Cookies(own)
    own_header = own_store.header_for(url, addressed=addressed)
    if not own_header or not store_header:
        return own_header or store_header
    names = {each.partition("=")[0] for each in own_header.split("; ")}
    kept = [each for each in store_header.split("; ") if each.partition("=")[0] not in names]
    return "; ".join([*kept, own_header])


# ------------------------------------------------------------------------------------------------ the caller's


def _checked(name: object, value: object, domain: str, path: object) -> _Cookie:
    if not isinstance(name, str):
        raise BadOptions(f"cookies: a name must be str, not {type(name).__name__}")
    # Shown up to what is wrong: what follows may be a value that slipped in.
    bad = _BAD_IN_NAME.search(name)
    shown = repr((name[: bad.start()] if bad else name)[:60])
    if bad or not name:
        raise BadOptions(f"cookies: the name that begins {shown} is empty or has a character that may not be in one")
    if not isinstance(value, str):
        raise BadOptions(f"cookies: the value of {shown} must be str, not {type(value).__name__}")
    if _BAD_IN_VALUE.search(value):
        raise BadOptions(f"cookies: the value of {shown} has a semicolon or a control character in it")
    if not isinstance(path, str) or not path.startswith("/") or _BAD_IN_VALUE.search(path):
        raise BadOptions(f"cookies: the path of {shown} must be a str that begins with /")
    try:
        (name + value).encode()
    except UnicodeEncodeError:
        raise BadOptions(f"cookies: {shown} has no UTF-8 form") from None
    host_only = not domain or "." not in domain or is_address(domain)
    return _Cookie(name, value, domain, path, host_only, True)


def _checked_domain(domain: str) -> str:
    """A domain as hosts are compared: ASCII, lower case, no dot before it."""
    if domain == "":
        return ""
    if not isinstance(domain, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadOptions(f"cookies: domain must be str, not {type(domain).__name__}")
    host = domain.removeprefix(".")
    if host.count(":") > 1:
        host = f"[{host.removeprefix('[').removesuffix(']')}]"
    elif not host or ":" in host or _BAD_IN_DOMAIN.search(host):
        raise BadOptions("cookies: domain is not a host name")
    try:
        return URL(f"http://{host}/").raw_host.decode("ascii")
    except InvalidURL:
        raise BadOptions("cookies: domain is not a host name") from None


def _pairs(cookies: object) -> Iterator[tuple[object, object]]:
    if isinstance(cookies, (str, bytes)) or not isinstance(cookies, Iterable):
        raise BadOptions(f"cookies: must be a mapping or pairs, not {type(cookies).__name__}")
    items = cast("Mapping[object, object]", cookies).items() if isinstance(cookies, Mapping) else cast("Any", cookies)
    for item in cast("Iterable[object]", items):
        if not isinstance(item, (tuple, list)) or len(cast("list[object]", item)) != 2:
            raise BadOptions("cookies: every item must be a pair of name and value")
        yield cast("tuple[object, object]", tuple(cast("list[object]", item)))


# ---------------------------------------------------------------------------------------------- the servers'


def _host_and_path(url: URL) -> tuple[str, str]:
    return url.raw_host.decode("ascii"), url.raw_path.partition(b"?")[0].decode("ascii")


def _accepted(received: SetCookie, url: URL) -> _Cookie | None:
    """A cookie as it is to be stored, None where 5.7 says to ignore it. Step 16 needs the store, and is not done."""
    host, path = _host_and_path(url)
    name = received.name
    if not name and "=" in received.value:
        return None
    if received.secure and url.scheme != "https":
        return None  # step 13
    domain = received.domain
    if domain is not None:
        if domain == host:
            if is_address(host) or is_public_suffix(host):
                domain = None  # step 9
        elif not domain_matches(host, domain) or is_public_suffix(domain):
            return None  # steps 9 and 10
    cookie_path = received.path or default_path(path)
    cookie = _Cookie(name, received.value, domain or host, cookie_path, domain is None, False)
    cookie.expires = received.expires
    cookie.secure = received.secure
    cookie.http_only = received.http_only
    cookie.same_site = received.same_site
    if received.same_site == "None" and not received.secure:
        return None  # step 19
    # Without a name, the value is what a server would take for one (step 22).
    prefix = (name or received.value).lower()
    if prefix.startswith("__secure-") and not (received.secure and name):
        return None  # step 20
    if prefix.startswith("__host-") and not (
        received.secure and name and cookie.host_only and received.has_path and cookie.path == "/"
    ):
        return None  # step 21
    return cookie


def _overlays_secure(new: _Cookie, buckets: _Buckets, moment: float) -> bool:
    """Whether a cookie that came over http would stand before one that only https may set (5.7, step 16)."""
    return any(
        old.secure and old.name == new.name and path_matches(new.path, old.path) and not _is_over(old, moment)
        for domain, bucket in buckets.items()
        if domain and (domain_matches(domain, new.domain) or domain_matches(new.domain, domain))
        for old in bucket
    )


# ------------------------------------------------------------------------------------------------- the buckets


def _is_over(cookie: _Cookie, moment: float) -> bool:
    return cookie.expires is not None and cookie.expires <= moment


def _is_for(cookie: _Cookie, path: str, secure: bool, moment: float) -> bool:
    return (secure or not cookie.secure) and not _is_over(cookie, moment) and path_matches(path, cookie.path)


def _age(cookie: _Cookie) -> int:
    return cookie.created


def _sending_order(cookie: _Cookie) -> tuple[int, int]:
    return -len(cookie.path), cookie.created


def _with_callers(servers: list[_Cookie], callers: list[_Cookie]) -> list[_Cookie]:
    """Both, but of one name only those that were set last."""
    latest: dict[str, _Cookie] = {}
    for cookie in (*servers, *callers):
        if cookie.name not in latest or latest[cookie.name].stored < cookie.stored:
            latest[cookie.name] = cookie
    return [c for c in (*servers, *callers) if bool(c.domain) == bool(latest[c.name].domain)]


def _set_bucket(buckets: _Buckets, domain: str, cookies: Iterable[_Cookie]) -> None:
    bucket = tuple(cookies)
    if bucket:
        buckets[domain] = bucket
    else:
        buckets.pop(domain, None)


def _store(buckets: _Buckets, cookie: _Cookie, moment: float) -> None:
    """Put a cookie into a draft, or take away the one that it ends (5.7, steps 23 and 24)."""
    kept: list[_Cookie] = []
    for old in buckets.get(cookie.domain, ()):
        if _is_over(old, moment):
            continue
        if cookie.replaces(old):
            cookie.created = old.created
        else:
            kept.append(old)
    if not _is_over(cookie, moment):
        kept.append(cookie)
    _set_bucket(buckets, cookie.domain, kept)


def _evict(buckets: _Buckets) -> None:
    """Bring a draft without expired cookies within the limits (5.7). The caller's own without a domain do not count."""
    for domain, bucket in list(buckets.items()):
        if domain and len(bucket) > MAX_PER_DOMAIN:
            # Those that http may set go first: a server in the middle cannot push out those of https.
            leaving = sorted(bucket, key=lambda c: (c.secure, c.used))[: len(bucket) - MAX_PER_DOMAIN]
            _set_bucket(buckets, domain, (c for c in bucket if c not in leaving))
    excess = sum(map(len, buckets.values())) - len(buckets.get("", ())) - MAX_COOKIES
    if excess > 0:
        counted = [c for domain, bucket in buckets.items() if domain for c in bucket]
        counted.sort(key=lambda c: c.used)
        for cookie in counted[:excess]:
            _set_bucket(buckets, cookie.domain, (c for c in buckets[cookie.domain] if c is not cookie))
