"""Uploads over HTTP/3 that end with a part of their body on its way, beside other requests to the same origin.

In libcurl such an upload takes its connection with it, and with other streams on it perhaps the process: programs of their
own look at how they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.procs import run_python

if TYPE_CHECKING:
    from tests.support.certs import Certificates
    from tests.support.origin import Origin

STORM = """
import random, sys
import katipo
base, cacert, how, seed = sys.argv[1:5]
random.seed(seed)
print("seed", seed)
options = dict(http_version="3-only", cacert=cacert)
path = "/early/413?how=stop&read=1000" if how == "early" else "/upload"
with katipo.Pool() as pool:
    pool.get(base + "/count", **options)
    opened = 0
    for round in range(20):
        before = [pool.async_get(base + "/drip?n=3&size=100", **options) for _ in range(5)]
        uploads = [
            pool.async_post(
                base + path,
                body=bytes(random.choice((1000, 15000, 200000))),
                timeout_ms=random.choice((2, 10, 30, 60)) if how == "timeout" else 60_000,
                **options,
            )
            for _ in range(3)
        ]
        after = [pool.async_get(base + "/drip?n=3&size=100", **options) for _ in range(5)]
        if how == "cancel":
            random.choice(before).result(20)
            for upload in uploads:
                upload.cancel()
        for get in before + after:
            response = get.result(20)
            assert response.status_code == 200 and len(response.content) == 300
            opened += response.metrics.connections_opened
        for upload in uploads:
            try:
                assert upload.result(20).status_code in (200, 413)
            except katipo.Error as error:
                expected = {"cancel": katipo.Cancelled, "timeout": katipo.TotalTimeout}.get(how)
                assert type(error) is expected, repr(error)
    assert opened == 0, f"{opened} of the connections that the GETs use were lost"
    if how == "close":
        for _ in range(5):
            pool.async_post(base + path + "?gate=" + seed + "&every=100000", body=bytes(400000), **options)
            pool.async_get(base + "/hang", **options)
"""


@pytest.mark.parametrize("how", ["cancel", "timeout", "early", "close"])
def test_uploads_that_are_broken_off_harm_no_other_request(origin: Origin, certs: Certificates, how: str) -> None:
    """Cancelled, out of time, answered early or left to the pool's close: every GET beside them succeeds, on the one
    connection that there was before, and the process goes on."""
    arguments = [origin.strict_https, str(certs.ca), how, origin.fresh_id()]
    finished = run_python(STORM, timeout=60, args=arguments)
    assert (finished.status, finished.stderr) == (0, "")
