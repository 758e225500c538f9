"""TLS: which certificates are believed, client certificates, versions, and that trust is not shared."""

from __future__ import annotations

import base64
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

import katipo
from katipo._library import find_trust

if TYPE_CHECKING:
    from tests.support.certs import Certificates
    from tests.support.endpoints import Endpoint
    from tests.support.nginx import Nginx

SERVERS = {  # whether it is accepted with (peer and host, peer alone, host alone, nothing) checked
    "https": (True, True, True, True),
    "wrong_host": (False, True, False, True),
    "self_signed": (False, False, True, True),
    "expired": (False, False, True, True),
}
CHECKS = [(True, True), (True, False), (False, True), (False, False)]


@pytest.mark.parametrize("check", range(4), ids=["peer and host", "peer", "host", "nothing"])
@pytest.mark.parametrize("server", SERVERS)
def test_what_is_believed(pool: katipo.Pool, nginx: Nginx, certs: Certificates, server: str, check: int) -> None:
    """Verification of the peer and of the host name, on and off, against right and wrong certificates."""
    peer, host = CHECKS[check]
    url = getattr(nginx, server) + "/return/200"
    if SERVERS[server][check]:
        assert pool.get(url, cacert=certs.ca, ssl_verifypeer=peer, ssl_verifyhost=host).status_code == 200
        return
    with pytest.raises(katipo.TLSError) as caught:
        pool.get(url, cacert=certs.ca, ssl_verifypeer=peer, ssl_verifyhost=host)
    assert caught.value.code == "peer_failed_verification"
    assert caught.value.request_sent is False
    assert isinstance(caught.value, katipo.ConnectError)


@pytest.mark.parametrize("server", SERVERS)
def test_an_unknown_authority_is_not_believed(pool: katipo.Pool, nginx: Nginx, server: str) -> None:
    """The tests' authority is none of the system's: by default nothing it signed is accepted."""
    with pytest.raises(katipo.TLSError) as caught:
        pool.get(getattr(nginx, server) + "/return/200")
    assert caught.value.code == "peer_failed_verification"


def test_verification_holds_in_every_version(pool: katipo.Pool, endpoint: Endpoint, certs: Certificates) -> None:
    """HTTP/1.1, 2 and 3 refuse what they do not know, take what they do, and do not care when told so."""
    url = endpoint("/count")
    version = endpoint.option
    with pytest.raises(katipo.TLSError) as caught:
        pool.get(url, http_version=version)
    assert (caught.value.code, caught.value.request_sent) == ("peer_failed_verification", False)
    with pytest.raises(katipo.TLSError):
        pool.get(url, http_version=version, cacert=certs.self_signed.cert)
    assert pool.get(url, http_version=version, cacert=certs.ca).status_code == 200
    answer = pool.get(url, http_version=version, ssl_verifypeer=False, ssl_verifyhost=False)
    assert (answer.status_code, answer.http_version) == (200, endpoint.http_version)


def test_a_wrong_host_is_refused_in_every_version(pool: katipo.Pool, endpoint: Endpoint, certs: Certificates) -> None:
    """A name that the certificate does not have is refused, unless the check is off."""
    port = endpoint.base.rpartition(":")[2]
    options: Any = {
        "http_version": endpoint.option,
        "cacert": certs.ca,
        "curl_options": {"RESOLVE": [f"other.test:{port}:127.0.0.1"]},
    }
    with pytest.raises(katipo.TLSError) as caught:
        pool.get(f"https://other.test:{port}/count", **options)
    assert caught.value.code == "peer_failed_verification"
    assert pool.get(f"https://other.test:{port}/count", ssl_verifyhost=False, **options).status_code == 200


def test_trust_is_not_shared_between_requests(pool: katipo.Pool, endpoint: Endpoint, certs: Certificates) -> None:
    """A connection made without verification is never used for a request that asks for it."""
    url, version = endpoint("/count"), endpoint.option
    for _ in range(2):
        assert pool.get(url, http_version=version, ssl_verifypeer=False, ssl_verifyhost=False).status_code == 200
        assert pool.get(url, http_version=version, cacert=certs.ca).status_code == 200
        with pytest.raises(katipo.TLSError):
            pool.get(url, http_version=version)


def test_a_directory_of_authorities(pool: katipo.Pool, nginx: Nginx, certs: Certificates, tmp_path: Path) -> None:
    """`capath` is searched by OpenSSL's hashes."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("the hash of a certificate's name takes openssl")
    command = [program, "x509", "-noout", "-subject_hash", "-in", str(certs.ca)]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / f"{name}.0").write_bytes(certs.ca.read_bytes())
    assert pool.get(nginx.https + "/return/200", capath=tmp_path).status_code == 200
    with pytest.raises(katipo.TLSError):
        pool.get(nginx.self_signed + "/return/200", capath=tmp_path)


def test_an_authority_in_memory(pool: katipo.Pool, nginx: Nginx, certs: Certificates) -> None:
    """CAs can be given as bytes through `curl_options`, in place of the default ones."""
    options: Any = {"curl_options": {"CAINFO_BLOB": certs.ca.read_bytes()}}
    assert pool.get(nginx.https + "/return/200", **options).status_code == 200
    with pytest.raises(katipo.TLSError):
        pool.get(nginx.self_signed + "/return/200", **options)


def test_a_missing_file_of_authorities(pool: katipo.Pool, nginx: Nginx, tmp_path: Path) -> None:
    """A `cacert` that is not there fails the request before anything is sent."""
    with pytest.raises(katipo.TLSError) as caught:
        pool.get(nginx.https + "/return/200", cacert=tmp_path / "nothing.pem")
    assert (caught.value.code, caught.value.request_sent) == ("ssl_cacert_badfile", False)


def subject(pool: katipo.Pool, nginx: Nginx, certs: Certificates, **options: Any) -> str:
    """What nginx says of the client's certificate."""
    return pool.get(nginx.mutual + "/client-cert", cacert=certs.ca, **options).text


def test_a_client_certificate(pool: katipo.Pool, nginx: Nginx, certs: Certificates) -> None:
    """Certificate and key in two files, in one, as bytes, and with a password: the server sees the client's name."""
    client = certs.client
    ways: list[dict[str, Any]] = [
        {"sslcert": client.cert, "sslkey": client.key},
        {"sslcert": str(client.both)},
        {"sslcert": client.cert, "sslkey_blob": client.key.read_bytes()},
        {"sslcert": client.cert, "sslkey": certs.client_encrypted_key, "keypasswd": certs.key_password},
    ]
    for way in ways:
        text = subject(pool, nginx, certs, **way)
        assert text.startswith("SUCCESS"), way.keys()
        assert "katipo test client" in text, way.keys()


def test_a_client_certificate_over_http2(pool: katipo.Pool, nginx: Nginx, certs: Certificates) -> None:
    """The same where HTTP/2 is agreed on."""
    answer = pool.get(nginx.mutual + "/client-cert", cacert=certs.ca, http_version="2", sslcert=certs.client.both)
    assert (answer.http_version, answer.text.split()[0]) == ("HTTP/2", "SUCCESS")


def test_a_client_certificate_is_for_its_requests_only(pool: katipo.Pool, nginx: Nginx, certs: Certificates) -> None:
    """A connection made with a certificate is not used by a request without it, nor the other way round."""
    url = nginx.https + "/client-cert"
    for _ in range(2):
        assert pool.get(url, cacert=certs.ca, sslcert=certs.client.both).text.startswith("SUCCESS")
        assert pool.get(url, cacert=certs.ca).text.split()[0] == "NONE"


def test_without_a_certificate_the_server_says_no(pool: katipo.Pool, nginx: Nginx, certs: Certificates) -> None:
    """nginx answers 400 where a client certificate is required and there is none."""
    assert pool.get(nginx.mutual + "/client-cert", cacert=certs.ca).status_code == 400


@pytest.mark.parametrize("wrong", ["password", "no password", "key", "missing"])
def test_a_key_that_cannot_be_used(
    pool: katipo.Pool, nginx: Nginx, certs: Certificates, tmp_path: Path, wrong: str
) -> None:
    """A wrong password, another certificate's key or a missing file fail the request, and show no password."""
    options: dict[str, Any] = {"sslcert": certs.client.cert, "sslkey": certs.client_encrypted_key}
    if wrong == "password":
        options["keypasswd"] = "hunter2"
    elif wrong == "no password":
        options["keypasswd"] = ""
    elif wrong == "key":
        options["sslkey"] = certs.localhost.key
    else:
        options["sslkey"] = tmp_path / "nothing.key"
    with pytest.raises(katipo.TransportError, match="key") as caught:
        subject(pool, nginx, certs, **options)
    # libcurl 8.23 calls a private key that it cannot use a bad argument (43), others a certificate's problem (58).
    assert caught.value.code in ("ssl_certproblem", "bad_function_argument")
    assert caught.value.request_sent is False
    assert "hunter2" not in f"{caught.value!r} {caught.value}"


def test_a_certificate_that_cannot_be_read(
    pool: katipo.Pool, nginx: Nginx, certs: Certificates, tmp_path: Path
) -> None:
    """A client certificate that is not there fails the request before anything is sent."""
    with pytest.raises(katipo.TLSError) as caught:
        subject(pool, nginx, certs, sslcert=tmp_path / "nothing.pem")
    assert (caught.value.code, caught.value.request_sent) == ("ssl_certproblem", False)


@pytest.mark.parametrize(("minimum", "agreed"), [("default", True), ("1.2", True), ("1.3", False)])
def test_the_oldest_version_of_tls(
    pool: katipo.Pool, nginx: Nginx, certs: Certificates, minimum: Any, agreed: bool
) -> None:
    """`sslversion` is a minimum: a server that has TLS 1.2 alone is refused from 1.3 on."""
    if agreed:
        assert pool.get(nginx.tls12 + "/return/200", cacert=certs.ca, sslversion=minimum).status_code == 200
        return
    with pytest.raises(katipo.TLSError) as caught:
        pool.get(nginx.tls12 + "/return/200", cacert=certs.ca, sslversion=minimum)
    assert caught.value.code == "ssl_connect_error"
    assert pool.get(nginx.https + "/return/200", cacert=certs.ca, sslversion=minimum).status_code == 200


def test_a_pinned_key(pool: katipo.Pool, nginx: Nginx, certs: Certificates) -> None:
    """PINNEDPUBLICKEY of `curl_options` refuses another key, though its certificate verifies."""
    certificate = x509.load_pem_x509_certificate(certs.localhost.cert.read_bytes())
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    digest = hashes.Hash(hashes.SHA256())
    digest.update(certificate.public_key().public_bytes(encoding, form))
    right = "sha256//" + base64.b64encode(digest.finalize()).decode()
    wrong = "sha256//" + base64.b64encode(bytes(32)).decode()
    url = nginx.https + "/return/200"
    assert pool.get(url, cacert=certs.ca, curl_options={"PINNEDPUBLICKEY": right}).status_code == 200
    with pytest.raises(katipo.TLSError) as caught:
        pool.get(url, cacert=certs.ca, curl_options={"PINNEDPUBLICKEY": wrong})
    assert caught.value.code == "ssl_pinnedpubkeynotmatch"


def test_tls_to_a_plain_port(pool: katipo.Pool, nginx: Nginx) -> None:
    """A server that does not speak TLS gives a TLS error, with nothing sent."""
    with pytest.raises(katipo.TLSError) as caught:
        pool.get(nginx.http.replace("http:", "https:") + "/return/200")
    assert (caught.value.code, caught.value.request_sent) == ("ssl_connect_error", False)


def test_the_system_s_authorities_are_the_default() -> None:
    """Without `cacert` there is a bundle to verify against, and it holds certificates."""
    file, folder = find_trust(None)
    assert file is not None or folder is not None
    if file is not None:
        context = ssl.create_default_context(cafile=file)
        assert context.cert_store_stats()["x509_ca"] > 10
