"""What a client's configuration does to requests: expiry of idle connections, trust, client certificates, TLS."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

import katipo
from katipo.config import TLS, Limits, tls_options

if TYPE_CHECKING:
    from tests.support.certs import Certificates
    from tests.support.endpoints import Endpoint
    from tests.support.nginx import Nginx


def port_of(response: katipo.Response) -> int:
    return response.metrics.local_port


@pytest.mark.parametrize(
    ("expiry", "seconds", "again"),
    [(1, 0.0, True), (1, 2.1, False), (None, 2.1, True), (0, 0.0, False), (60, 2.1, True)],
)
def test_idle_connections_expire(
    make_pool: Callable[..., katipo.Pool], endpoint: Endpoint, expiry: float | None, seconds: float, again: bool
) -> None:
    """One that has been idle for longer is not used again; a younger one is. In every version of HTTP."""
    limits = Limits(keepalive_expiry=expiry)
    pool = make_pool(**limits.for_pool())
    options: Any = {**endpoint.options, "curl_options": limits.curl_options()}
    first = pool.get(endpoint("/count"), **options)
    time.sleep(seconds)  # the age is what is tested; older versions of libcurl count whole seconds
    second = pool.get(endpoint("/count"), **options)
    assert (second.metrics.connections_opened == 0) is again
    assert (port_of(first) == port_of(second)) is again


def options(**arguments: Any) -> Any:
    given: dict[str, Any] = {"verify": True, "cert": None, "tls": None, "environ": {}, **arguments}
    return tls_options(**given)


def test_trust_by_file_and_folder_and_environment(
    pool: katipo.Pool, nginx: Nginx, certs: Certificates, tmp_path: Path
) -> None:
    """Each believes the tests' authority; without one of them nothing does."""
    url = nginx.https + "/return/200"
    hashed = hashed_folder(tmp_path, certs)
    for believing in (
        options(verify=certs.ca),
        options(verify=hashed),
        options(verify=False),
        options(environ={"SSL_CERT_FILE": str(certs.ca)}),
        options(environ={"SSL_CERT_DIR": str(hashed)}),
        options(environ={"SSL_CERT_FILE": str(certs.self_signed.cert), "SSL_CERT_DIR": str(hashed)}),
    ):
        assert pool.get(url, **believing).status_code == 200
    for refusing in (
        options(),
        options(environ=None),
        options(verify=certs.self_signed.cert, environ={"SSL_CERT_FILE": str(certs.ca)}),
    ):
        with pytest.raises(katipo.TLSError) as caught:
            pool.get(url, **refusing)
        assert caught.value.code == "peer_failed_verification"


def test_a_folder_is_trusted_alone(pool: katipo.Pool, nginx: Nginx, certs: Certificates, tmp_path: Path) -> None:
    """Not the system's authorities beside it: here they are one file that would believe the server."""
    (tmp_path / "other").mkdir()
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("the hash of a certificate's name takes openssl")
    other = hashed_folder(tmp_path / "other", certs, certs.self_signed.cert)
    for believed in (
        options(verify=other, environ={"SSL_CERT_FILE": str(certs.ca)}),
        options(environ={"SSL_CERT_DIR": str(other)}),
    ):
        with pytest.raises(katipo.TLSError) as caught:
            pool.get(nginx.https + "/return/200", **believed)
        assert caught.value.code == "peer_failed_verification"
        without_host: Any = {**believed, "ssl_verifyhost": False}
        assert pool.get(nginx.self_signed + "/return/200", **without_host).status_code == 200


def hashed_folder(folder: Path, certs: Certificates, certificate: Path | None = None) -> Path:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("the hash of a certificate's name takes openssl")
    source = certificate or certs.ca
    command = [program, "x509", "-noout", "-subject_hash", "-in", str(source)]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    (folder / f"{name}.0").write_bytes(source.read_bytes())
    return folder


def test_files_of_the_environment_that_are_not_there(pool: katipo.Pool, nginx: Nginx, tmp_path: Path) -> None:
    """They are the request's error: nothing else is trusted in their place."""
    missing = str(tmp_path / "missing")
    for environ in ({"SSL_CERT_FILE": missing}, {"SSL_CERT_DIR": missing}, {"SSL_CERT_DIR": str(tmp_path)}):
        with pytest.raises(katipo.TLSError) as caught:
            pool.get(nginx.https + "/return/200", **options(environ=environ))
        assert caught.value.code == "ssl_cacert_badfile"
        assert pool.get(nginx.http + "/return/200", **options(environ=environ)).status_code == 200


def test_a_client_s_certificate(pool: katipo.Pool, nginx: Nginx, certs: Certificates) -> None:
    """In one file, in two, with a password; a wrong or missing password fails the request and asks nobody."""
    url = nginx.mutual + "/client-cert"
    client = certs.client
    encrypted = certs.client_encrypted_key
    for cert in (
        client.both,
        (client.cert, client.key),
        (str(client.cert), str(client.key), None),
        (client.cert, encrypted, certs.key_password),
    ):
        assert pool.get(url, **options(verify=certs.ca, cert=cert)).text.startswith("SUCCESS")
    refused: list[Any] = [(client.cert, encrypted), (client.cert, encrypted, "wrong"), "/no/such/file"]
    for cert in refused:
        with pytest.raises(katipo.TransportError) as caught:
            pool.get(url, **options(verify=certs.ca, cert=cert))
        # The second is what libcurl makes of a key that it cannot decrypt, from 8.23 on.
        assert caught.value.code in ("ssl_certproblem", "bad_function_argument")
        assert caught.value.request_sent is False


def test_versions_and_ciphers(pool: katipo.Pool, nginx: Nginx, certs: Certificates) -> None:
    """A server of TLS 1.2 alone: a higher minimum and ciphers that it does not have are refused."""
    url = nginx.tls12 + "/return/200"
    cipher = "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384"
    for accepted in (TLS(), TLS("1.0"), TLS(ciphers=cipher), TLS(ciphers=f"TLS_AES_256_GCM_SHA384:{cipher}")):
        assert pool.get(url, **options(verify=certs.ca, tls=accepted)).status_code == 200
    for refused in (TLS("1.3"), TLS(ciphers="PSK-AES128-GCM-SHA256"), TLS(ciphers="NO-SUCH-CIPHER")):
        with pytest.raises(katipo.TLSError):
            pool.get(url, **options(verify=certs.ca, tls=refused))
    suites = TLS("1.3", ciphers="TLS_CHACHA20_POLY1305_SHA256")
    assert pool.get(nginx.https + "/return/200", **options(verify=certs.ca, tls=suites)).status_code == 200


def test_pinned_keys(pool: katipo.Pool, nginx: Nginx, certs: Certificates) -> None:
    """One of several is enough; none of them fails the request, whatever `verify` says."""
    certificate = x509.load_pem_x509_certificate(certs.localhost.cert.read_bytes())
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    digest = hashes.Hash(hashes.SHA256())
    digest.update(certificate.public_key().public_bytes(encoding, form))
    right = "sha256//" + base64.b64encode(digest.finalize()).decode()
    wrong = "sha256//" + base64.b64encode(bytes(32)).decode()
    url = nginx.https + "/return/200"
    for pins in (right, [right], [wrong, right]):
        assert pool.get(url, **options(verify=certs.ca, tls=TLS(pinned_public_keys=pins))).status_code == 200
    for verify in (certs.ca, False):
        with pytest.raises(katipo.TLSError) as caught:
            pool.get(url, **options(verify=verify, tls=TLS(pinned_public_keys=wrong)))
        assert caught.value.code == "ssl_pinnedpubkeynotmatch"


def test_the_default_minimum_sets_no_client_apart(make_pool: Callable[..., katipo.Pool], endpoint: Endpoint) -> None:
    """A request of a client with default TLS uses a connection that one without it made, where 1.2 is libcurl's minimum."""
    if tuple(int(part) for part in katipo.features().libcurl.split(".")[:2]) < (8, 16):
        pytest.skip("libcurl's own minimum is lower")
    pool = make_pool()
    plain: Any = {"http_version": endpoint.option, "ssl_verifypeer": False, "ssl_verifyhost": False}
    first = pool.get(endpoint("/count"), **plain)
    clients: Any = {"http_version": endpoint.option, **options(verify=False, environ=os.environ)}
    second = pool.get(endpoint("/count"), **clients)
    assert port_of(first) == port_of(second)
