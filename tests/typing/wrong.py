"""User code that type checkers must refuse, at the marked lines and nowhere else. Read by test_typing.py, never run."""

from __future__ import annotations

import katipo
from katipo import RequestOptions

pool = katipo.Pool()
url = "https://example.com/"

pool.get(url, timeout=5)  # E
pool.get(url, follow_redirects=True)  # E
pool.get(url, data={"a": "b"})  # E
pool.get(url, verify=False)  # E
pool.get(url, stream=True)  # E
pool.get(url, stream_body=True)  # E
pool.get(url, reply_to=None)  # E
pool.get(url, ref=1)  # E
pool.get(url, timeout_ms="5000")  # E
pool.get(url, timeout_ms=1.5)  # E
pool.get(url, timeout_ms=None)  # E
pool.get(url, followlocation="yes")  # E
pool.get(url, http_version="4")  # E
pool.get(url, http_version=2)  # E
pool.get(url, http_auth="bearer")  # E
pool.get(url, headers={"A": 1})  # E
pool.get(url, headers="A: b")  # E
pool.get(url, cookiejar={"a": "b"})  # E
pool.get(url, cacert=5)  # E
pool.get(url, proxy=b"http://h")  # E
pool.get(url, curl_options={"LOW_SPEED_TIME": 1.5})  # E
pool.post(url, body=5)  # E
pool.get(5)  # E
pool.async_get(url, flow_control="off")  # E
pool.async_get(url, on_abandon="drop")  # E
pool.async_get(url, reply_to="box")  # E
pool.async_get(url, ref=[])  # E
pool.async_get(url, steam=True)  # E
pool.check_options(timeout=5)  # E
options: RequestOptions = {"timeout": 5}  # E
more: RequestOptions = {"stream": True}  # E
katipo.Pool(1, True)  # E
katipo.Pool(max_connections=5)  # E
