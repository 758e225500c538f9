"""A throw-away certificate authority and the certificates the suites need, right and wrong, as PEM files.

Made once per session with trustme (self-signed one: with cryptography, which trustme stands on).
"""

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Certificate:
    """Paths of one certificate: `cert` (with its chain), `key` (unencrypted), and both in one file."""

    cert: Path
    key: Path
    both: Path


@dataclass(frozen=True)
class Certificates:
    """What `make_certificates` made."""

    ca: Path
    localhost: Certificate
    wrong_host: Certificate
    self_signed: Certificate
    expired: Certificate
    client: Certificate
    client_encrypted_key: Path
    key_password: str


def make_certificates(folder: Path) -> Certificates:
    """Write a CA and its certificates into `folder`, which must exist."""
    authority = trustme.CA(organization_name="katipo tests")
    ca_path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_path))
    now = datetime.datetime.now(datetime.timezone.utc)
    client = authority.issue_cert("client@katipo.test", common_name="katipo test client")
    password = "open sesame"
    encrypted = folder / "client_encrypted.key"
    encrypted.write_bytes(_encrypted(client.private_key_pem.bytes(), password))
    return Certificates(
        ca=ca_path,
        localhost=_issued(folder, "localhost", authority.issue_cert(*HOSTS)),
        wrong_host=_issued(folder, "wrong_host", authority.issue_cert("wrong.katipo.test")),
        self_signed=_self_signed(folder, now),
        expired=_issued(
            folder,
            "expired",
            authority.issue_cert(
                *HOSTS,
                not_before=now - datetime.timedelta(days=30),
                not_after=now - datetime.timedelta(days=1),
            ),
        ),
        client=_issued(folder, "client", client),
        client_encrypted_key=encrypted,
        key_password=password,
    )


def _issued(folder: Path, name: str, leaf: trustme.LeafCert) -> Certificate:
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    return _written(folder, name, chain, leaf.private_key_pem.bytes())


def _written(folder: Path, name: str, cert: bytes, key: bytes) -> Certificate:
    paths = Certificate(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}_both.pem")
    paths.cert.write_bytes(cert)
    paths.key.write_bytes(key)
    paths.both.write_bytes(key + cert)
    return paths


def _self_signed(folder: Path, now: datetime.datetime) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _written(
        folder,
        "self_signed",
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _encrypted(key: bytes, password: str) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    )
