"""What one call of a client asks for, with the client's own values filled in; and what a redirect makes of it.

An Ask is for one hop. Following a redirect makes another one, in which what belongs to the first origin only is gone:
see `redirected`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ._content import Body, BytesBody
from .auth import Auth
from .config import Timeout, ceil
from .cookie_store import Cookies
from .errors import InvalidURL, RemoteProtocolError, StreamConsumed, TotalTimeout, UnsupportedProtocol, is_secret_name
from .headers import Headers
from .request import Request, client_request
from .response import Response
from .url import URL

if TYPE_CHECKING:
    from .handle import Handle

__all__ = ["Ask", "redirected"]

_OF_CONTENT: Final = frozenset(
    (
        "content-encoding",
        "content-language",
        "content-length",
        "content-location",
        "content-type",
        "digest",
        "last-modified",
        "transfer-encoding",
    )
)
"""Headers that go with a body: RFC 9110 15.4, fetch's request-body-header names, and the framing."""

_NO_SECRET: Final = frozenset(("idempotency-key",))
"""Named like a secret, and none."""

_CREDENTIAL_OPTIONS: Final = (
    "AWS_SIGV4",
    "COOKIE",
    "LOGIN_OPTIONS",
    "SASL_AUTHZID",
    "SSLCERT",
    "SSLKEY",
    "TLSAUTH",
    "XOAUTH2_BEARER",
)
"""Beginnings of the names of libcurl options that hold a credential of the caller's for the server."""


class Ask:
    """One hop of a call."""

    __slots__ = (
        "addressed",
        "auth",
        "body",
        "cookie_header",
        "cookies",
        "curl_options",
        "deadline",
        "decode",
        "follow",
        "headers",
        "informational",
        "keeps_credentials",
        "max_bytes",
        "method",
        "on_start",
        "proxy",
        "stream",
        "timeout",
        "unsent",
        "url",
    )

    method: str
    url: URL
    """Without userinfo, which is in `auth`."""
    headers: Headers
    unsent: frozenset[bytes]
    """Names, in lower case, that the caller gave as None: not even what libcurl would send by itself."""
    body: Body | None
    auth: Auth | None
    cookies: Cookies | None
    """The request's own, sent once."""
    cookie_header: str | None
    """What was sent of them and of the client's, for a flow that sends the same request again; None: nothing yet."""
    proxy: str | None
    """"": direct; None: the client's, or the environment's."""
    follow: bool
    timeout: Timeout
    deadline: float | None
    """When `total` is over, on monotonic()'s clock, redirects included."""
    decode: bool
    max_bytes: int
    curl_options: Mapping[str, Any] | None
    """The request's own."""
    stream: bool
    informational: bool
    """Whether somebody wants to see 1xx responses."""
    addressed: bool
    """The caller named this origin; False: a redirect led here from another."""
    on_start: Callable[[Handle], None] | None
    """Told of each request that is made, by the thread that waits for it; None: nobody wants to know."""
    keeps_credentials: bool
    """Whether the client's certificate and the like go along; False: as `addressed`."""

    def clocks(self) -> dict[str, int]:
        """The pool's options for the timeouts, with what is left of `total`."""
        clocks = self.timeout.pool_options()
        if self.deadline is not None:
            left = self.deadline - monotonic()
            if left <= 0:
                raise TotalTimeout("the total timeout ran out", request=self.request())
            clocks["timeout_ms"] = ceil(left * 1000)  # rounded down, it would fire before its time
        return clocks

    def request(self, *, duplex: bool = False) -> Request:
        """The request as hooks, auth flows, responses and errors see it. `duplex`: its body is not known yet."""
        content = self.body.data if isinstance(self.body, BytesBody) else None
        return client_request(self.method, self.url, self.headers, content, duplex or self.body is not None)


def method_after(status: int, method: str) -> str:
    """The method of the request that follows a redirect (RFC 9110 15.4, fetch 4.4)."""
    if (status == 303 and method not in ("GET", "HEAD")) or (status in (301, 302) and method == "POST"):
        return "GET"
    return method


def _target(ask: Ask, response: Response, request: Request) -> URL:
    location = response.headers.get_list("location")[0]
    try:
        # HTTP/1 header bytes that are no ASCII are UTF-8 in practice; URL percent-encodes them.
        target = request.url.join(location)
    except UnsupportedProtocol:
        raise UnsupportedProtocol(
            "the server redirects to a URL that is neither http nor https", request=request, request_sent=True
        ) from None
    except InvalidURL:
        raise RemoteProtocolError("the server redirects to a URL that is not valid", request=request) from None
    # A server cannot choose the user that its clients log in as elsewhere.
    target = target.copy_with(userinfo="")
    if not target.fragment and ask.url.fragment:  # RFC 9110 10.2.2
        target = target.copy_with(fragment=ask.url.fragment)
    return target


def redirected(ask: Ask, response: Response) -> Ask:
    """What follows a redirect.

    To another origin (scheme, host and port) no credential that the caller set goes along: auth, cookies of the request's
    own and of the client without a domain, a client certificate, Authorization, Cookie, Proxy-Authorization, and every
    other header that is named like a secret. They do not come back when a later redirect leads home again, as in fetch.

    Raises RemoteProtocolError or UnsupportedProtocol for a Location that cannot be followed, StreamConsumed where the
    body is to be sent again and cannot be.
    """
    from copy import copy

    request = response.request
    following = copy(ask)
    following.cookie_header = None
    following.url = _target(ask, response, request)
    following.method = method_after(response.status_code, ask.method)
    headers = ask.headers.copy()
    if following.method != ask.method:
        following.body = None
        for name in _OF_CONTENT:
            headers.pop(name, None)
    elif ask.body is not None and not ask.body.can_replay:
        raise StreamConsumed(
            f"the server answered {response.status_code}: the body is to be sent again, and came from an iterable that "
            "can be read once"
        )
    if following.url.origin != ask.url.origin:
        following.addressed = following.keeps_credentials = False
        following.auth = None
        following.cookies = None
        headers.pop("host", None)  # one of the caller's own names the first origin
        for name in list(headers.keys()):
            if is_secret_name(name) and name not in _NO_SECRET:
                del headers[name]
        if ask.curl_options:
            following.curl_options = without_credentials(ask.curl_options)
    following.headers = headers
    return following


def without_credentials(curl_options: Mapping[str, Any]) -> dict[str, Any]:
    """libcurl options without those that hold a credential for the server."""
    return {
        name: value
        for name, value in curl_options.items()
        if not name.upper().removeprefix("CURLOPT_").startswith(_CREDENTIAL_OPTIONS)
    }
