"""What Client and AsyncClient are alike in, seen from outside: how they are made, and what can be asked of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar

from ._arguments import AuthTypes, CertTypes, CookieTypes, EventHooks, TimeoutTypes
from ._face import Face
from ._request_options import CurlOptions, HeaderOptions
from ._session import DEFAULT_LIMITS, DEFAULT_TIMEOUT, Session
from .auth import Auth
from .config import TLS, Limits, Timeout
from .cookie_store import Cookies
from .headers import Headers
from .pool import Pool
from .url import URL, ParamTypes

__all__ = ["ClientBase"]


class ClientBase:
    """The shared part of Client and AsyncClient."""

    __slots__ = ("__weakref__", "_session")
    _face: ClassVar[Face]

    def __init__(
        self,
        *,
        base_url: str | URL = "",
        headers: HeaderOptions | Headers | None = None,
        params: ParamTypes | None = None,
        cookies: CookieTypes | None = None,
        auth: AuthTypes | None = None,
        timeout: TimeoutTypes | None = DEFAULT_TIMEOUT,
        limits: Limits = DEFAULT_LIMITS,
        verify: bool | str | os.PathLike[str] = True,
        cert: CertTypes | None = None,
        tls: TLS | None = None,
        proxy: str | None = None,
        trust_env: bool = True,
        http1: bool = True,
        http2: bool = True,
        http3: bool = False,
        follow_redirects: bool = False,
        max_redirects: int = 20,
        event_hooks: EventHooks | None = None,
        default_encoding: str = "utf-8",
        max_response_bytes: int | None = None,
        workers: int = 1,
        pool: Pool | None = None,
        curl_options: CurlOptions | None = None,
    ) -> None:
        self._session = Session(
            self._face,
            base_url=base_url,
            headers=headers,
            params=params,
            cookies=cookies,
            auth=auth,
            timeout=timeout,
            limits=limits,
            verify=verify,
            cert=cert,
            tls=tls,
            proxy=proxy,
            trust_env=trust_env,
            http1=http1,
            http2=http2,
            http3=http3,
            follow_redirects=follow_redirects,
            max_redirects=max_redirects,
            event_hooks=event_hooks,
            default_encoding=default_encoding,
            max_response_bytes=max_response_bytes,
            workers=workers,
            pool=pool,
            curl_options=curl_options,
        )

    def __repr__(self) -> str:
        session = self._session
        base = "" if session.base_url is None else f" {session.base_url.redacted()}"
        return f"<{type(self).__name__}{base}{' closed' if session.closed else ''}>"

    @property
    def is_closed(self) -> bool:
        """Whether the client has been closed."""
        return self._session.closed

    @property
    def headers(self) -> Headers:
        """Sent with every request; may be changed in place. One that is deleted is not sent, User-Agent and the like too."""
        return self._session.headers

    @headers.setter
    def headers(self, headers: HeaderOptions | Headers | None) -> None:
        self._session.set_headers(headers)

    @property
    def cookies(self) -> Cookies:
        """The client's cookies: given by the caller, and set by responses."""
        return self._session.cookies

    @cookies.setter
    def cookies(self, cookies: CookieTypes | None) -> None:
        self._session.cookies = Cookies(cookies)

    @property
    def base_url(self) -> URL | str:
        """What URLs without a scheme are relative to; "" if nothing is."""
        return self._session.base_url or ""

    @base_url.setter
    def base_url(self, url: str | URL) -> None:
        self._session.set_base_url(url)

    @property
    def params(self) -> list[tuple[str, str]]:
        """Added to the query of every request."""
        return list(self._session.params)

    @params.setter
    def params(self, params: ParamTypes | None) -> None:
        self._session.set_params(params)

    @property
    def auth(self) -> Auth | None:
        """The authentication of requests that have none of their own."""
        return self._session.auth

    @auth.setter
    def auth(self, auth: AuthTypes | None) -> None:
        self._session.set_auth(auth)

    @property
    def timeout(self) -> Timeout:
        """The timeouts of requests that have none of their own."""
        return self._session.timeout

    @timeout.setter
    def timeout(self, timeout: TimeoutTypes | None) -> None:
        self._session.set_timeout(timeout)

    @property
    def event_hooks(self) -> dict[str, list[Callable[..., Any]]]:
        """The functions to call, by event: "request", "response", "informational". May be changed in place."""
        return self._session.all_hooks

    @event_hooks.setter
    def event_hooks(self, hooks: EventHooks | None) -> None:
        self._session.set_hooks(hooks)

    @property
    def follow_redirects(self) -> bool:
        """Whether redirects are followed where a request does not say."""
        return self._session.follow_redirects

    @follow_redirects.setter
    def follow_redirects(self, follow: bool) -> None:
        self._session.set_follow_redirects(follow)

    @property
    def max_redirects(self) -> int:
        """How many redirects are followed for one call."""
        return self._session.max_redirects

    @max_redirects.setter
    def max_redirects(self, count: int) -> None:
        self._session.set_max_redirects(count)

    @property
    def trust_env(self) -> bool:
        """Whether proxies and trust were taken from the environment."""
        return self._session.trust_env
