"""What a Set-Cookie field says, and what cookies are compared by: dates, domains, paths, public suffixes.

Section numbers are those of RFC 6265bis (draft-ietf-httpbis-rfc6265bis-22). Everything here takes what any server may
send: nothing raises, what is malformed is None.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ._frozen import dataclass
from ._pattern import pattern

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

MAX_PAIR_BYTES: Final = 4096
"""Name and value together (5.6)."""
MAX_ATTRIBUTE_BYTES: Final = 1024
"""One attribute's value (5.6)."""
MAX_AGE: Final = 34_560_000
"""400 days in seconds, the longest that a cookie is kept (5.5)."""
MAX_HOST: Final = 253
"""The longest host name in the DNS (RFC 1035 2.3.4). A longer one has no parents that could share a cookie."""

PAST: Final = 0.0
"""The expiry of a cookie that is to go."""

# 5.6: control characters but the tab.
_CONTROL: Final = pattern(rb"[\x00-\x08\x0a-\x1f\x7f]")
_MAX_AGE: Final = pattern(rb"-?[0-9]+")
_WSP: Final = b" \t"
_SAME_SITE: Final = {b"strict": "Strict", b"lax": "Lax", b"none": "None"}

# 5.1.1, over bytes read as ISO-8859-1
_DATE_TOKEN: Final = pattern(r"[^\t\x20-\x2f\x3b-\x40\x5b-\x60\x7b-\x7e]+")
_TIME: Final = pattern(r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?:[^0-9].*)?", re.DOTALL)
_DAY: Final = pattern(r"([0-9]{1,2})(?:[^0-9].*)?", re.DOTALL)
_YEAR: Final = pattern(r"([0-9]{2,4})(?:[^0-9].*)?", re.DOTALL)
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FIRST_YEAR: Final = 1601

_IPV4: Final = pattern(r"[0-9.]+")


@dataclass(frozen=True, slots=True)
class SetCookie:
    """A Set-Cookie field, read. What it leaves to the request's URL is None."""

    name: str
    value: str
    expires: float | None
    """Seconds since 1970, PAST for "at once"; None: with the session."""
    domain: str | None
    """Without a leading dot, in lower case; None: this host only."""
    path: str | None
    """None: the default path."""
    has_path: bool
    """Whether there was a Path attribute, usable or not."""
    secure: bool
    http_only: bool
    same_site: str
    """ "Strict", "Lax", "None", or "Default" where nothing usable was said."""


def parse_set_cookie(line: bytes, now: float) -> SetCookie | None:
    """A field's value read by 5.6, or None where the field is to be ignored. `now`: seconds since 1970.

    A name or value that is no UTF-8 is ignored too: it could not be sent back as it came.
    """
    if _CONTROL.search(line):
        return None
    pair, _, attributes = line.partition(b";")
    raw_name, equals, raw_value = pair.partition(b"=")
    if not equals:
        raw_name, raw_value = b"", pair
    raw_name, raw_value = raw_name.strip(_WSP), raw_value.strip(_WSP)
    if len(raw_name) + len(raw_value) > MAX_PAIR_BYTES or not (raw_name or raw_value):
        return None
    try:
        name, value = raw_name.decode(), raw_value.decode()
    except UnicodeDecodeError:
        return None
    return _with_attributes(name, value, attributes, now)


def _with_attributes(name: str, value: str, attributes: bytes, now: float) -> SetCookie | None:
    max_age: float | None = None
    expires: float | None = None
    domain = b""
    path: str | None = None
    has_path = secure = http_only = False
    same_site = "Default"
    # Of an attribute that comes several times, the last that can be read counts (5.7).
    for attribute in attributes.split(b";"):
        key, _, text = attribute.partition(b"=")
        key, text = key.strip(_WSP).lower(), text.strip(_WSP)
        if len(text) > MAX_ATTRIBUTE_BYTES:
            continue
        if key == b"max-age":
            if _MAX_AGE.fullmatch(text):
                seconds = min(int(text), MAX_AGE)
                max_age = now + seconds if seconds > 0 else PAST
        elif key == b"expires":
            date = parse_date(text)
            expires = expires if date is None else min(date, now + MAX_AGE)
        elif key == b"domain":
            domain = text.removeprefix(b".").lower()
        elif key == b"path":
            has_path = True
            path = text.decode("utf-8", "replace") if text.startswith(b"/") else None
        elif key == b"secure":
            secure = True
        elif key == b"httponly":
            http_only = True
        elif key == b"samesite":
            same_site = _SAME_SITE.get(text.lower(), "Default")
    if not domain.isascii():
        return None  # 5.7, step 8
    return SetCookie(
        name,
        value,
        expires if max_age is None else max_age,
        domain.decode("ascii") or None,
        path,
        has_path,
        secure,
        http_only,
        same_site,
    )


def parse_date(text: bytes) -> float | None:
    """A cookie date in seconds since 1970 (5.1.1); None where it cannot be read."""
    clock: tuple[int, int, int] | None = None
    day = month = year = None
    for token in _DATE_TOKEN.findall(text.decode("iso-8859-1")):
        if clock is None and (match := _TIME.fullmatch(token)):
            clock = (int(match[1]), int(match[2]), int(match[3]))
        elif day is None and (match := _DAY.fullmatch(token)):
            day = int(match[1])
        elif month is None and token[:3].lower() in _MONTHS:
            month = _MONTHS.index(token[:3].lower()) + 1
        elif year is None and (match := _YEAR.fullmatch(token)):
            year = int(match[1])
    if clock is None or day is None or month is None or year is None:
        return None
    if 70 <= year <= 99:
        year += 1900
    elif year <= 69:
        year += 2000
    if year < _FIRST_YEAR:
        return None
    from datetime import datetime, timezone

    try:
        return datetime(year, month, day, *clock, tzinfo=timezone.utc).timestamp()
    except ValueError:
        return None


# ------------------------------------------------------------------------------------------- domains and paths


def is_address(host: str) -> bool:
    """Whether a host, as URL.raw_host has it, is an IP address."""
    return ":" in host or _IPV4.fullmatch(host) is not None


def domain_matches(host: str, domain: str) -> bool:
    """5.1.3; both in lower case and ASCII."""
    if host == domain:
        return True
    return host.endswith(domain) and host[-len(domain) - 1] == "." and not is_address(host)


def domains_of(host: str) -> list[str]:
    """All that a host domain-matches: itself and, where it is a name, every parent, the nearest first."""
    domains = [host]
    if len(host) <= MAX_HOST and not is_address(host):
        dot = host.find(".")
        while dot != -1:
            domains.append(host[dot + 1 :])
            dot = host.find(".", dot + 1)
    return domains


def default_path(path: str) -> str:
    """5.1.4, of a request's path without its query."""
    return path[: path.rfind("/")] or "/" if path.startswith("/") else "/"


def path_matches(path: str, cookie_path: str) -> bool:
    """5.1.4; `path`: the request's, without its query."""
    if not path.startswith(cookie_path):
        return False
    return len(path) == len(cookie_path) or cookie_path.endswith("/") or path[len(cookie_path)] == "/"


@lru_cache(maxsize=1)
def _public_suffixes() -> PublicSuffixList:
    # Loading takes 40 to 60 ms, so only for who needs it. Two threads may both do it, and one result is kept: a lock
    # would be one more for a fork to care about.
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


def is_public_suffix(domain: str) -> bool:
    """Whether anybody can register names below a domain, so that it must not share cookies: "co.uk", "github.io".

    `domain`: in lower case, ASCII (xn--). A name of one label is one, known or not; what is no name at all too.
    """
    name = domain.removesuffix(".")
    if "." not in name or "" in name.split("."):
        return True
    return _public_suffixes().is_public(name)
