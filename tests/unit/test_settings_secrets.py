"""Secrets: made once, kept closed, and verifiers that PostgreSQL understands."""

import base64
import hashlib
import hmac
import multiprocessing
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from settings import Secrets, SecretsError, scram_verifier
from settings.known import KNOWN
from settings.stores import edited


def test_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """The next run, and the same one, find the same value; 24 random bytes make 32 characters."""
    path = tmp_path / "deep/secrets.yml"
    one = Secrets(path)
    made = one.get("grafana_admin")
    assert len(base64.urlsafe_b64decode(made)) == 24
    assert one.get("grafana_admin") == Secrets(path).get("grafana_admin") == made
    assert one.get("grafana_viewer") != made
    assert path.stat().st_mode & 0o777 == 0o600
    assert set(yaml.safe_load(path.read_text())) == {"grafana_admin", "grafana_viewer", "made"}


def test_ssh_key_is_one_that_openssh_understands(tmp_path: Path) -> None:
    """ssh-keygen finds the same public key in the private one, which stays the same; anything else is refused."""
    private, public = Secrets(tmp_path / "secrets.yml").ssh_key("backup_key")
    assert Secrets(tmp_path / "secrets.yml").ssh_key("backup_key") == (private, public)
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text(private)
    shown = subprocess.run(["ssh-keygen", "-y", "-f", str(key)], capture_output=True, text=True, check=True).stdout
    assert shown.split()[:2] == public.split()
    Secrets(tmp_path / "secrets.yml").give("other", "not a key")
    with pytest.raises(SecretsError, match="the secret `other` is no private SSH key without passphrase"):
        Secrets(tmp_path / "secrets.yml").ssh_key("other")
    Secrets(tmp_path / "secrets.yml").renew(["backup_key"])
    assert Secrets(tmp_path / "secrets.yml").ssh_key("backup_key")[1] not in {public, ""}


def test_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """With the command that helps."""
    path = tmp_path / "secrets.yml"
    path.write_text("a: b\n")
    for mode in (0o644, 0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(SecretsError, match=f"{path} can be read by others; run: chmod 600 {path}"):
            Secrets(path)
    path.chmod(0o400)
    assert Secrets(path).get("a") == "b"


@pytest.mark.parametrize("text", ["a: 5", "- a", "a:", "a: ''", "a: {b: c}"])
def test_file_of_anything_but_texts_is_refused(tmp_path: Path, text: str) -> None:
    """An empty secret would be a password that everyone knows."""
    path = tmp_path / "secrets.yml"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(SecretsError, match="must hold lines `name: value`, each value a text that is not empty"):
        Secrets(path)


def test_broken_file_is_told_without_its_secrets(tmp_path: Path) -> None:
    """YAML's own message would quote the line."""
    path = tmp_path / "secrets.yml"
    path.touch(mode=0o600)
    path.write_text("one: fine\ntwo: 'half-a-secret\n")
    with pytest.raises(SecretsError, match=r"secrets\.yml: line \d: not valid YAML") as caught:
        Secrets(path)
    assert "half-a-secret" not in str(caught.value)


def test_secret_that_only_the_operator_can_give(tmp_path: Path) -> None:
    """It is not made up; the message says what each that is missing is for and what to write."""
    path = tmp_path / "secrets.yml"
    with pytest.raises(
        SecretsError, match=r"the secret `smtp_password` is missing \(SMTP login of alertmanager.email\); add a line"
    ) as caught:
        Secrets(path).require("smtp_password", "slack_api_url")
    assert "the secret `slack_api_url` is missing (the Slack" in str(caught.value)
    assert not path.exists()
    path.touch(mode=0o600)
    path.write_text("smtp_password: hunter2\n")
    assert Secrets(path).require("smtp_password") == {"smtp_password": "hunter2"}


def _make(path: Path, start: str, numbers: range) -> dict[str, str]:
    secrets = Secrets(path)
    while not Path(start).exists():
        pass
    return {name: secrets.get(name) for name in (f"secret{number}" for number in numbers)}


def test_runs_at_the_same_time_agree(tmp_path: Path) -> None:
    """Four processes that want the same secrets at once end with the same values, and none is lost."""
    path, start = tmp_path / "secrets.yml", tmp_path / "start"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        waiting = [pool.apply_async(_make, (path, str(start), range(10))) for _ in range(4)]
        start.touch()
        results = [one.get(30) for one in waiting]
    kept = yaml.safe_load(path.read_text())
    assert len(kept.pop("made").splitlines()) == 10
    assert results == [kept] * 4
    assert len(kept) == 10


def test_verifier_is_that_of_the_standard() -> None:
    """The exchange printed in RFC 7677, section 3, verifies: both of its proofs follow from our verifier's keys."""
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    verifier = scram_verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    scheme, parameters, keys = verifier.split("$")
    assert (scheme, parameters) == ("SCRAM-SHA-256", "4096:W22ZaJ0SNY7soEsUEjb6gQ==")
    stored_key, server_key = (base64.b64decode(key) for key in keys.split(":"))
    signature = hmac.digest(server_key, message, "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client_key = bytes(a ^ b for a, b in zip(proof, hmac.digest(stored_key, message, "sha256"), strict=True))
    assert hashlib.sha256(client_key).digest() == stored_key


def test_verifier_stays_and_follows_its_password(tmp_path: Path) -> None:
    """Salted once, so that a second run is quiet; when the operator changes the password, a new one is made."""
    path = tmp_path / "secrets.yml"
    first = Secrets(path).scram("postgres_erp_app")
    assert Secrets(path).scram("postgres_erp_app") == first
    kept = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(kept | {"postgres_erp_app": "changed"}))
    second = Secrets(path).scram("postgres_erp_app")
    assert second != first
    assert second == Secrets(path).scram("postgres_erp_app")
    salt = base64.b64decode(second.split("$")[1].split(":")[1])
    assert second == scram_verifier("changed", salt)
    assert Secrets(path).get("postgres_erp_app") == "changed"


def test_password_that_scram_would_change_is_refused(tmp_path: Path) -> None:
    """Beyond ASCII, RFC 4013 prepares passwords before they are hashed."""
    path = tmp_path / "secrets.yml"
    path.touch(mode=0o600)
    path.write_text("postgres_erp_app: größe\n")
    with pytest.raises(SecretsError, match="`postgres_erp_app` must hold ASCII characters only"):
        Secrets(path).scram("postgres_erp_app")


def test_a_look_at_what_would_change_makes_no_file(tmp_path: Path) -> None:
    """Values are made up for it, and stay the same within it."""
    path = tmp_path / "secrets.yml"
    secrets = Secrets(path, keep=False)
    assert secrets.get("one") == secrets.get("one")
    assert secrets.scram("one").startswith("SCRAM-SHA-256$")
    assert not path.exists()


def test_what_is_kept_is_made_anew_when_it_no_longer_fits(tmp_path: Path) -> None:
    """A text of several lines, such as a certificate, made once while it fits; all else in the file stays as it was."""
    path = tmp_path / "secrets.yml"
    path.touch(mode=0o600)
    path.write_text(
        "# by hand\nsmtp_password: hunter2 # the mail team's\ncertificate: |\n  old\n  text\n\n# below\nlast: one"
    )
    made: list[str] = []

    def make() -> str:
        made.append(f"BEGIN\n  {len(made)}: #x\nEND\n")
        return made[-1]

    def fits(value: str) -> bool:
        return value in made

    first = Secrets(path).keep("certificate", make, fits)
    assert Secrets(path).keep("certificate", make, fits) == first == made[0]
    whole, _, marks = path.read_text().partition("\nmade: |\n")
    assert marks.startswith("  certificate ")
    assert whole == (
        "# by hand\nsmtp_password: hunter2 # the mail team's\n"
        "certificate: |\n  BEGIN\n    0: #x\n  END\n# below\nlast: one"
    )
    second = Secrets(path).keep("certificate", make, lambda value: value != first)
    assert Secrets(path).get("certificate") == second == made[1]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "new: '5'\n"),
        ("{a: b}", "a: b\nnew: '5'\n"),
        ("---\na: b\n...\n", "a: b\nnew: '5'\n"),
        ("a: b # c", "a: b # c\nnew: '5'\n"),
        ("new: |-\n  old\n  er\n# c\n", "new: '5'\n# c\n"),
        ("new: x # c\na: b\n", "new: '5' # c\na: b\n"),
        ("'new': \"x\"   # c\na: größe\n", "new: '5'   # c\na: größe\n"),
    ],
)
def test_entries_are_set_where_they_stand(text: str, wanted: str) -> None:
    """Comments stay wherever YAML's form lets them."""
    assert edited(text, {"new": "5"}) == wanted


def test_age_is_told_of_what_was_made_here_only(tmp_path: Path) -> None:
    """A value that the operator put in the place of ours is given; renewing tells a new moment and keeps all others."""
    path = tmp_path / "secrets.yml"
    before = datetime.now(UTC).replace(microsecond=0)
    one, two = Secrets(path).get("redis_monitor"), Secrets(path).get("grafana_admin")
    verifier = Secrets(path).scram("postgres_erp_app")
    made = Secrets(path).made()
    assert made.keys() == {"redis_monitor", "grafana_admin", "postgres_erp_app"}
    assert all(moment is not None and before <= moment <= datetime.now(UTC) for moment in made.values())
    path.write_text(path.read_text().replace(one, "hunter2"))
    assert Secrets(path).made()["redis_monitor"] is None
    Secrets(path).give("smtp_password", "from: outside #1")
    Secrets(path).renew(["redis_monitor", "postgres_erp_app"])
    last = Secrets(path)
    assert {name for name, moment in last.made().items() if moment is None} == {"smtp_password"}
    assert last.require("smtp_password") == {"smtp_password": "from: outside #1"}
    assert last.get("redis_monitor") not in {one, "hunter2"}
    assert last.get("grafana_admin") == two
    assert last.scram("postgres_erp_app") != verifier


def test_every_secret_that_is_deployed_is_known() -> None:
    """What the components ask for by name has a line in `secrets list`, and nothing else has."""
    root = Path(__file__).resolve().parent.parent.parent
    deploy = "".join(path.read_text() for path in (root / "deploy").rglob("*.py"))
    assert set(re.findall(r'secrets\.(?:get|scram|bcrypt|ssh_key|require)\(\s*"(\w+)"', deploy)) <= KNOWN.keys()
    # The authority signs what hosts are asked for, and is asked for by no name of a component.
    assert [name for name in KNOWN if f'"{name}"' not in deploy] == ["tls_authority"]
