"""The stack's own small certificate authority, and certificates that an operator gives instead (X.509, PEM)."""

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from settings.secrets import CERTIFICATE, Secrets
from settings.stores import SecretsError

_AUTHORITY = "tls_authority"
_AUTHORITY_DAYS, _HOST_DAYS = 3650, 397
# A run within this time before the end makes a new one: a year's certificate is renewed by any of a month's runs.
_RENEW_DAYS = 30
# A host whose clock is behind must not refuse what was made a moment ago.
_BACKDATED = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class HostCertificate:
    """What a host proves itself with: its chain, its private key, and the authority to check it by (all PEM)."""

    chain: str
    key: str
    authority: str


def own(secrets: Secrets, host: str, names: Iterable[str]) -> HostCertificate:
    """Return a host's certificate for its names and addresses, of our own authority; made anew where it must be."""
    authority = secrets.keep(_AUTHORITY, _make_authority, _lasts)
    wanted = sorted(set(names))
    pem = secrets.keep(
        f"{host}{CERTIFICATE}", lambda: _issue(authority, host, wanted), lambda found: _is_of(found, authority, wanted)
    )
    return HostCertificate(_certificates(pem), _key(pem), _certificates(authority))


def authority(secrets: Secrets) -> str:
    """Return our authority's certificate: what browsers and other clients have to trust."""
    return _certificates(secrets.keep(_AUTHORITY, _make_authority, _lasts))


def given(folder: Path, host: str, names: Iterable[str]) -> HostCertificate:
    """Return the certificate that an operator gives: `HOST.pem` (chain), `HOST.key` and `ca.pem` of a folder.

    Raises SecretsError, naming the file, when it is missing, others can read the key, it does not belong to the
    host, has ended or is not of that authority.
    """
    chain, key, roots = (_read(folder / name) for name in (f"{host}.pem", f"{host}.key", "ca.pem"))
    if (folder / f"{host}.key").stat().st_mode & 0o077:
        raise SecretsError(f"{folder / host}.key can be read by others; run: chmod 600 {folder / host}.key")
    try:
        certificate, *between = x509.load_pem_x509_certificates(chain.encode())
        trusted = x509.load_pem_x509_certificates(roots.encode())
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise SecretsError(f"{folder}: {host}.pem, {host}.key and ca.pem must be PEM without a passphrase") from error
    if private.public_key() != certificate.public_key():
        raise SecretsError(f"{folder / host}.key is not the key of {host}.pem")
    if certificate.not_valid_after_utc < _now():
        raise SecretsError(f"{folder / host}.pem ended on {certificate.not_valid_after_utc:%Y-%m-%d}")
    if absent := sorted(set(names) - _names(certificate)):
        raise SecretsError(f"{folder / host}.pem does not name {', '.join(absent)} (subject alternative names)")
    if not _leads_to(certificate, [*between, *trusted], trusted):
        raise SecretsError(f"{folder / host}.pem was not issued by ca.pem, nor by an authority in its own chain")
    return HostCertificate(chain, key, roots)


def ends(chain: str) -> datetime.datetime:
    """Return when a chain's first certificate ends (UTC)."""
    return x509.load_pem_x509_certificate(chain.encode()).not_valid_after_utc


def _make_authority() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Messwarte")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(name, name, key, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _pem(builder.sign(key, hashes.SHA256()), key)


def _issue(authority: str, host: str, names: list[str]) -> str:
    issuer = x509.load_pem_x509_certificate(authority.encode())
    issuer_key = _private(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    builder = (
        _builder(subject, issuer.subject, key, _HOST_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
    )
    return _pem(builder.sign(issuer_key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=_now() - _BACKDATED,
        not_valid_after=_now() + datetime.timedelta(days=days),
    )


def _lasts(pem: str) -> bool:
    """Say whether a certificate is there and need not be renewed yet."""
    try:
        end = x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
    except ValueError:
        return False
    return end - _now() > datetime.timedelta(days=_RENEW_DAYS)


def _is_of(pem: str, authority: str, names: list[str]) -> bool:
    if not _lasts(pem):
        return False
    issuer, found = (x509.load_pem_x509_certificate(one.encode()) for one in (authority, pem))
    return _names(found) == set(names) and _leads_to(found, [issuer], [issuer])


def _leads_to(certificate: x509.Certificate, issuers: list[x509.Certificate], roots: list[x509.Certificate]) -> bool:
    """Say whether a chain of signatures leads from a certificate to one of the roots."""
    if certificate in roots:
        return True
    others = [one for one in issuers if one != certificate]
    return any(_leads_to(one, others, roots) for one in others if _signed_by(certificate, one))


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(one.value) for one in found}


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private(pem: str) -> CertificateIssuerPrivateKeyTypes:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101  we made it
    return key


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> str:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode() + private.decode()


def _certificates(pem: str) -> str:
    found = x509.load_pem_x509_certificates(pem.encode())
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in found)


def _key(pem: str) -> str:
    return pem[pem.index("-----BEGIN PRIVATE KEY-----") :]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SecretsError(f"{path}: a given certificate cannot be read: {error}") from error


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
