"""What the loaded libcurl can do, asked from Python and from the command line."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import katipo
from tests.support.procs import run_python

if TYPE_CHECKING:
    from tests.support.endpoints import Endpoint


def test_features_are_those_of_the_loaded_libcurl() -> None:
    """Version, path and protocols are what the library itself says."""
    features = katipo.features()
    assert tuple(map(int, features.libcurl.split("-")[0].split("."))) >= (7, 87)
    assert os.path.exists(features.path)
    assert {"http", "https"} <= features.protocols
    assert features.ssl
    assert set(features.http_versions) >= {"HTTP/1.0", "HTTP/1.1"}
    assert set(features.codings) <= {"gzip", "deflate", "br", "zstd"}
    assert {"basic", "bearer", "digest"} <= set(features.auth_schemes)
    with pytest.raises(dataclasses.FrozenInstanceError):
        features.libcurl = "0"  # type: ignore[misc]


def test_what_is_there_is_not_missing() -> None:
    """A version, coding or scheme is either offered or named as missing."""
    features = katipo.features()
    text = " ".join(features.missing)
    for name, word in (("HTTP/2", "HTTP/2"), ("HTTP/3", "HTTP/3")):
        assert (name in features.http_versions) != (word in text)
    for name, word in (("ntlm", "NTLM"), ("negotiate", "Negotiate")):
        assert (name in features.auth_schemes) != (word in text)
    assert ("br" in features.codings) != ("brotli" in text)


def test_a_version_that_is_offered_is_spoken(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """What features() names works against a server."""
    assert endpoint.http_version in katipo.features().http_versions
    assert pool.get(endpoint("/count"), **endpoint.options).http_version == endpoint.http_version


def test_asking_starts_nothing() -> None:
    """features() needs no thread, no pool and no pycurl."""
    ended = run_python(
        "import katipo, sys, threading\n"
        "katipo.features()\n"
        "print(threading.active_count(), katipo._engine.counts()['workers'], 'pycurl' in sys.modules)\n"
    )
    assert (ended.status, ended.stdout.strip()) == (0, "1 0 False"), ended.stderr


def test_info_on_the_command_line() -> None:
    """`python -m katipo info` prints the versions, the features, and what is missing, and ends with status 0."""
    command = [sys.executable, "-m", "katipo", "info"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    features = katipo.features()
    for text in (katipo.__version__, features.libcurl, features.path, *features.http_versions, *features.codings):
        assert text in ended.stdout
    for text in features.missing or ("nothing",):
        assert text in ended.stdout


def test_info_where_there_is_no_libcurl() -> None:
    """A libcurl that cannot be loaded is said in one line, with status 1 and no traceback."""
    command = [sys.executable, "-m", "katipo", "info"]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "KATIPO_LIBCURL": "/nowhere/libcurl.so"},
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("katipo: ")
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["info", "--no-such-option"]])
def test_a_wrong_command_line(arguments: list[str]) -> None:
    """What cannot be understood ends with status 2 and says how it is used."""
    command = [sys.executable, "-m", "katipo", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "usage: katipo" in ended.stderr


def test_the_version_on_the_command_line() -> None:
    """`--version` prints katipo's version."""
    command = [sys.executable, "-m", "katipo", "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, f"katipo {katipo.__version__}")
