"""A certificate authority of our own, made on first start, and the server's certificate."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAYS = 825


class Certificates:
    """:param directory: keys and certificates lie here; :param hostnames: what clients call us;
    :param bundle: where what clients are to trust is written.
    """

    def __init__(self, directory: Path, hostnames: list[str], bundle: Path | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.authority = directory / "authority.pem"
        self.certificate = directory / "server.pem"
        self.key = directory / "server.key"
        self.bundle = bundle or directory / "bundle.pem"
        self._authority_key = directory / "authority.key"
        if not self.authority.exists():
            self._make_authority()
        self._issue(hostnames)
        self._write_bundle()

    def _make_authority(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "snowml-local authority")])
        certificate = (
            _builder(name, name, key.public_key(), 3650)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_cert_sign=True, crl_sign=True,
                    content_commitment=False, key_encipherment=False, data_encipherment=False,
                    key_agreement=False, encipher_only=False, decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(key, hashes.SHA256())
        )  # fmt: skip
        _write_key(self._authority_key, key)
        self.authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _issue(self, hostnames: list[str]) -> None:
        authority = x509.load_pem_x509_certificate(self.authority.read_bytes())
        loaded = serialization.load_pem_private_key(self._authority_key.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_general_name(h) for h in dict.fromkeys(["localhost", "127.0.0.1", "::1", *hostnames])]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "snowml-local")])
        certificate = (
            _builder(subject, authority.subject, key.public_key(), _DAYS)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(loaded.public_key()), False)
            .sign(loaded, hashes.SHA256())
        )
        _write_key(self.key, key)
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _write_bundle(self) -> None:
        """What the process trusts now, and our authority: REQUESTS_CA_BUNDLE replaces all trust."""
        trusted = Path(os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where())
        if trusted == self.bundle or not trusted.is_file():
            trusted = Path(certifi.where())
        self.bundle.write_bytes(trusted.read_bytes() + b"\n" + self.authority.read_bytes())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(pem)
