"""Certificates of the stack's own authority, and those that an operator gives; OpenSSL's own program judges them."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from settings import Secrets, SecretsError, certificates
from settings.certificates import HostCertificate

NAMES = {"10.0.0.1", "db", "127.0.0.1"}


@pytest.fixture
def secrets(tmp_path: Path, need_program: Callable[[str, str], str]) -> Secrets:
    """A secrets file that is not there yet."""
    need_program("openssl", "openssl")
    return Secrets(tmp_path / "secrets.yml")


def _verify(folder: Path, made: HostCertificate, *options: str) -> subprocess.CompletedProcess[str]:
    for name, text in (("host.pem", made.chain), ("ca.pem", made.authority)):
        (folder / name).write_text(text)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.pem", *options, "host.pem"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_host_is_who_its_certificate_says_and_nobody_else(secrets: Secrets, tmp_path: Path) -> None:
    made = certificates.own(secrets, "db", NAMES)
    for good in (("-verify_ip", "10.0.0.1"), ("-verify_hostname", "db"), ("-verify_ip", "127.0.0.1")):
        assert _verify(tmp_path, made, *good).returncode == 0
    assert _verify(tmp_path, made, "-verify_ip", "10.0.0.2").returncode != 0
    other = certificates.own(Secrets(tmp_path / "others.yml"), "db", NAMES)
    assert _verify(tmp_path, HostCertificate(made.chain, made.key, other.authority)).returncode != 0
    (tmp_path / "key.pem").write_text(made.key)
    public = [
        subprocess.check_output(["openssl", *what], cwd=tmp_path)
        for what in (["x509", "-in", "host.pem", "-noout", "-pubkey"], ["pkey", "-in", "key.pem", "-pubout"])
    ]
    assert public[0] == public[1]


def test_it_stays_the_same_until_it_has_to_be_renewed(
    secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next run in the last month, with another address, or with another authority."""
    first = certificates.own(secrets, "db", NAMES)
    assert certificates.own(Secrets(tmp_path / "secrets.yml"), "db", NAMES) == first
    moved = certificates.own(secrets, "db", NAMES | {"10.0.0.9"})
    assert _verify(tmp_path, moved, "-verify_ip", "10.0.0.9").returncode == 0
    assert moved.authority == first.authority
    secrets.renew(["tls_authority"])
    again = certificates.own(secrets, "db", NAMES | {"10.0.0.9"})
    assert again.authority != first.authority
    assert _verify(tmp_path, again).returncode == 0
    monkeypatch.setattr(certificates, "_HOST_DAYS", 29)
    short = certificates.own(secrets, "app", NAMES)
    monkeypatch.undo()
    assert certificates.ends(certificates.own(secrets, "app", NAMES).chain) > certificates.ends(short.chain)


def _give(folder: Path, made: HostCertificate) -> Path:
    for name, text in (("db.pem", made.chain), ("db.key", made.key), ("ca.pem", made.authority)):
        (folder / name).write_text(text)
    (folder / "db.key").chmod(0o600)
    return folder


def test_given_certificates_are_taken_as_they_are(secrets: Secrets, tmp_path: Path) -> None:
    made = certificates.own(secrets, "db", NAMES)
    assert certificates.given(_give(tmp_path, made), "db", {"10.0.0.1"}) == made


def test_what_is_wrong_with_a_given_certificate_is_said(
    secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with the file that it is about."""
    made = certificates.own(secrets, "db", NAMES)
    other = certificates.own(Secrets(tmp_path / "others.yml"), "db", NAMES)
    monkeypatch.setattr(certificates, "_HOST_DAYS", 0)
    monkeypatch.setattr(certificates, "_BACKDATED", certificates._BACKDATED * 2)
    ended = certificates.own(Secrets(tmp_path / "ended.yml"), "db", NAMES)
    cases = [
        (HostCertificate(made.chain, other.key, made.authority), "db.key is not the key of db.pem"),
        (HostCertificate(made.chain, made.key, other.authority), "db.pem was not issued by ca.pem"),
        (HostCertificate("nonsense", made.key, made.authority), "must be PEM without a passphrase"),
        (ended, "db.pem ended on "),
    ]
    for number, (given, words) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(SecretsError, match=words):
            certificates.given(_give(folder, given), "db", {"10.0.0.1"})
    good = _give(tmp_path, made)
    with pytest.raises(SecretsError, match=r"db\.pem does not name 10\.0\.0\.2, erp\.example\.com"):
        certificates.given(good, "db", {"10.0.0.1", "10.0.0.2", "erp.example.com"})
    (good / "db.key").chmod(0o644)
    with pytest.raises(SecretsError, match=r"db\.key can be read by others; run: chmod 600"):
        certificates.given(good, "db", {"10.0.0.1"})
    shutil.move(good / "ca.pem", good / "away.pem")
    with pytest.raises(SecretsError, match=r"ca\.pem: a given certificate cannot be read"):
        certificates.given(good, "db", {"10.0.0.1"})
