"""Proxies from the environment, with real proxies: what `Proxies` answers is what the pool takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import katipo
from katipo._environment import Proxies

if TYPE_CHECKING:
    from tests.support.origin import Origin
    from tests.support.proxy import HTTPProxy, SocksProxy


def test_requests_go_through_the_environment_s_proxy(
    pool: katipo.Pool, origin: Origin, http_proxy: Callable[..., HTTPProxy]
) -> None:
    """With its credentials, with or without a scheme; those that NO_PROXY exempts do not."""
    proxy = http_proxy(auth=("user", "p@ss"))
    address = proxy.url.rpartition("@")[2].removeprefix("http://").rstrip("/")
    url = origin.http + "/count"
    for i, variable in enumerate((f"http://user:p%40ss@{address}/", f"user:p%40ss@{address}"), 1):
        proxies = Proxies({"http_proxy": variable})
        assert pool.get(url, proxy=proxies.proxy_for(katipo.URL(url))).status_code == 200
        assert len(proxy.requests) == i
    exempt = Proxies({"http_proxy": proxy.url, "no_proxy": katipo.URL(url).host})
    assert pool.get(url, proxy=exempt.proxy_for(katipo.URL(url))).status_code == 200
    assert len(proxy.requests) == 2


def test_a_socks_proxy_for_all(pool: katipo.Pool, origin: Origin, socks_proxy: Callable[..., SocksProxy]) -> None:
    """As ALL_PROXY usually names one."""
    proxy = socks_proxy()
    proxies = Proxies({"ALL_PROXY": proxy.url})
    url = origin.http + "/count"
    assert pool.get(url, proxy=proxies.proxy_for(katipo.URL(url))).status_code == 200
    assert len(proxy.requests) == 1
