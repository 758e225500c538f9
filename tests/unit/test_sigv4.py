"""AWS Signature Version 4 against the signatures that AWS has published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from katipo import _sigv4, auth
from katipo.request import client_request

if TYPE_CHECKING:
    from katipo.auth import Credentials

CASES: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "aws_sigv4" / "cases.json").read_text(encoding="utf-8")
)
ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SCOPE = _sigv4.Scope("20150830T123600Z", "us-east-1", "service")
NOON = 1440938160.0
"""20150830T123600Z"""

SENT_OTHERWISE = {
    # Their request lines have characters that no request line may have (RFC 9112 3.2): katipo sends them encoded, and an
    # AWS server would then sign what was sent. The calculation itself is checked with them.
    "get-utf8",
    "normalize-path/get-space",
    # The token is added when the signature is made, as some services had it once. AWSSigV4Auth signs it.
    "post-sts-token/post-sts-header-after",
}


def parsed(request: str) -> tuple[str, bytes, katipo.Headers, bytes]:
    """Method, target, headers and body of a case's request."""
    head, _, body = request.partition("\n\n")
    line, _, fields = head.partition("\n")
    method, _, target = line.removesuffix(" HTTP/1.1").partition(" ")
    return method, target.encode(), katipo.Headers.from_block(fields.encode()), body.encode()


def token_of(case: dict[str, str]) -> str | None:
    """The session token, which only the canonical request of a case shows."""
    lines = [line for line in case["creq"].split("\n") if line.startswith("x-amz-security-token:")]
    return lines[0].partition(":")[2] if lines else None


def test_the_suite_is_whole() -> None:
    """All of its cases are there, and those that are set apart are among them."""
    assert len(CASES) == 34
    assert CASES.keys() > SENT_OTHERWISE


@pytest.mark.parametrize("name", CASES)
def test_each_step_gives_what_is_published(name: str) -> None:
    """Canonical request, string to sign, and header, from the request as it would be on the wire."""
    case = CASES[name]
    method, target, headers, body = parsed(case["req"])
    if token := token_of(case):
        headers["X-Amz-Security-Token"] = token
    hashed = _sigv4.payload_hash(body)
    canonical = _sigv4.canonical_request(method, target, headers.raw, hashed, SCOPE.service)
    assert canonical.decode() == case["creq"]
    assert _sigv4.string_to_sign(canonical, SCOPE) == case["sts"]
    made = _sigv4.authorization(
        ACCESS_KEY, SECRET_KEY, SCOPE, method=method, target=target, headers=headers.raw, hashed=hashed
    )
    assert made == case["authz"]


@pytest.mark.parametrize("name", CASES.keys() - SENT_OTHERWISE)
def test_requests_are_signed_as_published(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way, from a Request to its Authorization header."""
    monkeypatch.setattr(auth, "_clock", lambda: NOON)
    case = CASES[name]
    method, target, headers, body = parsed(case["req"])
    token = token_of(case)
    scheme = katipo.AWSSigV4Auth(
        ACCESS_KEY, SECRET_KEY, region=SCOPE.region, service=SCOPE.service, session_token=token
    )
    # The host comes from the URL, the date from the clock.
    host = headers.pop("host")
    headers.pop("x-amz-date")
    request = katipo.Request(method, f"https://{host}{target.decode()}", headers=headers, content=body or None)
    (signed,) = scheme.auth_flow(request)
    assert signed is request
    assert request.headers["Authorization"] == case["authz"]
    assert request.headers["X-Amz-Date"] == SCOPE.timestamp
    assert request.headers.get("X-Amz-Security-Token") == token


# From "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)" of the S3 API reference.
S3_KEYS = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
S3_CASES: dict[str, tuple[str, str, dict[str, str], str | None, str, str]] = {
    "GET object": (
        "GET",
        "/test.txt",
        {"Range": "bytes=0-9"},
        None,
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "PUT object": (
        "PUT",
        "/test$file.text",
        {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
        "Welcome to Amazon S3.",
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    "GET bucket lifecycle": (
        "GET",
        "/?lifecycle",
        {},
        None,
        "host;x-amz-content-sha256;x-amz-date",
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    "GET bucket": (
        "GET",
        "/?max-keys=2&prefix=J",
        {},
        None,
        "host;x-amz-content-sha256;x-amz-date",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}


@pytest.mark.parametrize("name", S3_CASES)
def test_s3_is_signed_as_documented(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of S3's own documentation."""
    monkeypatch.setattr(auth, "_clock", lambda: 1369353600.0)  # 20130524T000000Z
    method, target, headers, content, names, signature = S3_CASES[name]
    scheme = katipo.AWSSigV4Auth(*S3_KEYS, region="us-east-1", service="s3")
    url = f"https://examplebucket.s3.amazonaws.com{target}"
    request = katipo.Request(method, url, headers=headers, content=content)
    list(scheme.auth_flow(request))
    assert request.headers["Authorization"] == (
        f"AWS4-HMAC-SHA256 Credential={S3_KEYS[0]}/20130524/us-east-1/s3/aws4_request,"
        f" SignedHeaders={names}, Signature={signature}"
    )
    assert request.headers["X-Amz-Content-SHA256"] == _sigv4.payload_hash((content or "").encode())


@pytest.mark.parametrize(
    ("sent", "s3", "others"),
    [
        ("/a%20b", "/a%20b", "/a%2520b"),
        ("/a+b", "/a%2Bb", "/a%2Bb"),
        ("/a//b", "/a//b", "/a/b"),
        ("/a%2Fb", "/a/b", "/a%252Fb"),
        ("/~x-y_z.", "/~x-y_z.", "/~x-y_z."),
        ("/a/./b/../c/", "/a/./b/../c/", "/a/c/"),
        ("/a/..", "/a/..", "/"),
        ("/..", "/..", "/"),
        ("//", "//", "/"),
        ("", "/", "/"),
    ],
)
def test_paths_are_encoded_as_the_service_reads_them(sent: str, s3: str, others: str) -> None:
    """Once for S3, whose keys keep dots and slashes; normalised and twice for all others."""
    assert _sigv4.canonical_path(sent.encode(), "s3") == s3
    assert _sigv4.canonical_path(sent.encode(), "execute-api") == others


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ("", ""),
        ("b=2&a=1", "a=1&b=2"),
        ("a=2&a=1&a", "a=&a=1&a=2"),
        ("a=x+y", "a=x%20y"),
        ("a=x%2By", "a=x%2By"),
        ("a=%7e%2d!*'()", "a=~-%21%2A%27%28%29"),
        ("a=b=c", "a=b%3Dc"),
        ("&&a=1&", "a=1"),
        # By code point after encoding: "%" comes before letters, and "=" is no part of what is compared.
        ("a-b=1&a=2&%C3%A9=3", "%C3%A9=3&a=2&a-b=1"),
    ],
)
def test_queries_are_encoded_strictly_and_sorted(sent: str, canonical: str) -> None:
    """Whatever form they have on the wire."""
    assert _sigv4.canonical_query(sent.encode()) == canonical


def sign(scheme: katipo.Auth, method: str = "GET", url: str = "https://example.com/", **parts: Any) -> katipo.Headers:
    """The headers of a request after the flow."""
    request = katipo.Request(method, url, **parts)
    list(scheme.auth_flow(request))
    return request.headers


def signed_names(headers: katipo.Headers) -> list[str]:
    return headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")


def test_the_host_is_signed_as_it_is_sent() -> None:
    """With a port that is not the scheme's own, without one that is, and as the caller gave it."""
    scheme = katipo.AWSSigV4Auth("AK", "SK", region="r", service="s")

    def signature(url: str, host: str | None = None) -> str:
        headers = {"Host": host} if host else None
        return sign(scheme, url=url, headers=headers)["Authorization"].rpartition("=")[2]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth, "_clock", lambda: NOON)
        plain = signature("https://example.com/")
        assert signature("https://example.com:443/") == plain
        assert signature("https://other.example/", "example.com") == plain
        assert signature("https://example.com:8443/") != plain
        assert signature("https://example.com:8443/") == signature("https://other.example/", "example.com:8443")


def test_what_changes_on_the_way_is_not_signed() -> None:
    """Everything else that the caller set is."""
    scheme = katipo.AWSSigV4Auth("AK", "SK", region="r", service="s")
    given = {
        "User-Agent": "x",
        "Connection": "close",
        "Expect": "",
        "Authorization": "old",
        "X-Mine": "1",
        "Cookie": "a=b",
    }
    headers = sign(scheme, headers=given)
    assert signed_names(headers) == ["cookie", "host", "x-amz-date", "x-mine"]
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 ")


def test_signing_again_signs_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers copied from an earlier hop are replaced, not added to, and a stale hash is not believed."""
    scheme = katipo.AWSSigV4Auth("AK", "SK", region="r", service="s3")
    monkeypatch.setattr(auth, "_clock", lambda: NOON)
    first = sign(scheme, "PUT", content=b"body")
    fresh = sign(scheme)
    monkeypatch.setattr(auth, "_clock", lambda: NOON + 60)
    later = sign(scheme, headers=first)
    assert later["X-Amz-Date"] == "20150830T123700Z"
    assert len(later) == len(fresh) == 3
    assert later["X-Amz-Content-SHA256"] == fresh["X-Amz-Content-SHA256"] == _sigv4.payload_hash(b"")


def test_credentials_can_be_refreshed() -> None:
    """A callable is asked for each request."""
    answers: list[Credentials] = [("AK1", "SK"), ("AK2", "SK", "TOKEN"), ("AK3", "SK", None)]
    given = iter(answers)
    scheme = katipo.AWSSigV4Auth(region="r", service="s", credentials=lambda: next(given))
    seen = [sign(scheme) for _ in range(3)]
    assert [each["Authorization"].partition("=")[2].partition("/")[0] for each in seen] == ["AK1", "AK2", "AK3"]
    assert [each.get("X-Amz-Security-Token") for each in seen] == [None, "TOKEN", None]
    assert "x-amz-security-token" in signed_names(seen[1])


def sign_streamed(service: str, url: str, **parts: Any) -> str | None:
    headers = katipo.Headers(parts.get("headers"))
    request = client_request("PUT", katipo.URL(url), headers, None, True)
    assert request.is_streamed
    list(katipo.AWSSigV4Auth("AK", "SK", region="r", service=service).auth_flow(request))
    return request.headers.get("X-Amz-Content-SHA256")


def test_a_streamed_body_goes_unsigned_to_s3_over_https_only() -> None:
    """Without TLS anybody could replace it; other services want its hash."""
    assert sign_streamed("s3", "https://b.s3.amazonaws.com/k") == "UNSIGNED-PAYLOAD"
    for service, url in (("s3", "http://b.s3.amazonaws.com/k"), ("es", "https://example.com/")):
        with pytest.raises(katipo.BadOptions, match="X-Amz-Content-SHA256"):
            sign_streamed(service, url)


def test_a_streamed_body_is_signed_with_the_hash_that_is_given() -> None:
    """For any service."""
    hashed = _sigv4.payload_hash(b"what will be streamed")
    for service in ("s3", "es"):
        assert sign_streamed(service, "http://example.com/", headers={"X-Amz-Content-SHA256": hashed}) == hashed


def test_unsigned_payload_can_be_asked_for() -> None:
    """For the services that take it."""
    scheme = katipo.AWSSigV4Auth("AK", "SK", region="r", service="vpc-lattice-svcs")
    headers = sign(scheme, "POST", content=b"x", headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    assert headers["X-Amz-Content-SHA256"] == "UNSIGNED-PAYLOAD"
    assert "x-amz-content-sha256" in signed_names(headers)


SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"access_key": "AK", "secret_key": None}, "secret_key"),
        ({"access_key": "AK", "secret_key": ""}, "secret_key"),
        ({"access_key": "AK", "secret_key": SECRET + "\n"}, "secret_key"),
        ({"access_key": "A/" + SECRET, "secret_key": "x"}, "access_key"),
        ({"access_key": b"AK", "secret_key": SECRET}, "access_key"),
        ({"access_key": None, "secret_key": SECRET}, "access_key"),
        ({"access_key": "AK", "secret_key": "x", "session_token": SECRET + "\r"}, "session_token"),
        ({"access_key": "AK", "secret_key": SECRET, "region": ""}, "region"),
        ({"access_key": "AK", "secret_key": SECRET, "service": "s3/" + SECRET}, "service"),
        ({"access_key": "AK", "secret_key": SECRET, "credentials": lambda: ("A", "B", None)}, "credentials"),
        ({"credentials": SECRET}, "credentials"),
    ],
)
def test_bad_arguments_are_named_and_not_shown(arguments: dict[str, Any], named: str) -> None:
    """At once, with nothing signed."""
    with pytest.raises(katipo.BadOptions, match=rf"^auth: {named} ") as caught:
        katipo.AWSSigV4Auth(**{"region": "us-east-1", "service": "s3", **arguments})
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("returned", [None, SECRET, (SECRET,), ("AK", SECRET, None, None), ["AK", SECRET], ("AK", 1)])
def test_bad_credentials_are_refused_when_they_come(returned: Any) -> None:
    """And not shown."""
    scheme = katipo.AWSSigV4Auth(region="r", service="s", credentials=lambda: returned)
    with pytest.raises(katipo.BadOptions, match=r"^auth: (credentials|secret_key) must") as caught:
        sign(scheme)
    assert SECRET not in repr(caught.value)
