"""What the tests of the cookie store have in common."""

from __future__ import annotations

from katipo import URL, Cookies

HTTPS = "https://www.example.com/dir/page"
HTTP = "http://www.example.com/dir/page"


class Clock:
    """A clock that only tests move."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


def stored(*received: tuple[str, str]) -> Cookies:
    """A store that got these (URL, Set-Cookie)."""
    cookies = Cookies()
    for url, line in received:
        cookies.extract(URL(url), [line])
    return cookies


def sent(cookies: Cookies, url: str, addressed: bool = True) -> str | None:
    """The Cookie header of a request."""
    return cookies.header_for(URL(url), addressed=addressed)
