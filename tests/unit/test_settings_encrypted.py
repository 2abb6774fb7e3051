"""Secrets in SOPS and age files: through the real programs, which are installed or built where they are missing."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from settings import Secrets, SecretsError

_TOOLS = Path("/var/cache/messwarte/tools")
_SOPS = "github.com/getsops/sops/v3/cmd/sops@v3.13.3"
_LEAK = "hunter2-of-the-mail-team"


@pytest.fixture(scope="session")
def sops(request: pytest.FixtureRequest) -> Path:
    """SOPS: from PATH or the cache; built from its source, two minutes, in a long run where Go is."""
    found = shutil.which("sops") or shutil.which("sops", path=str(_TOOLS))
    if not found and not request.config.getoption("--long"):
        pytest.skip("there is no sops; with --long it is built by Go (two minutes)")
    if not found and not shutil.which("go"):
        pytest.skip("there is neither sops nor Go to build it")
    if not found:
        environment = os.environ | {"GOBIN": str(_TOOLS)}
        subprocess.run(["go", "install", _SOPS], env=environment, check=True, timeout=600)
    return Path(found or _TOOLS / "sops")


@pytest.fixture
def identity(tmp_path: Path, need_program: Callable[[str, str], str]) -> Path:
    """An age key of this test's own."""
    need_program("age", "age")
    return _key(tmp_path / "keys/one")


@pytest.fixture
def argv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """The arguments of every call of age and sops, written down by a script that then becomes the real program."""
    programs = {"age": shutil.which("age")}
    if "sops" in request.fixturenames:
        programs["sops"] = request.getfixturevalue("sops")
    folder, log = tmp_path / "bin", tmp_path / "argv"
    folder.mkdir()
    for name, real in programs.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\nexec {real} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return log


def _key(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    subprocess.run(["age-keygen", "-o", str(path)], capture_output=True, check=True)
    return path


def _recipient(identity: Path) -> str:
    return subprocess.run(
        ["age-keygen", "-y", str(identity)], capture_output=True, text=True, check=True
    ).stdout.strip()


def _age(*arguments: str, text: str = "") -> str:
    return subprocess.run(["age", *arguments], input=text.encode(), capture_output=True, check=True).stdout.decode()


def _sops_file(sops: Path, path: Path, text: str, *recipients: str) -> None:
    command = [str(sops), "encrypt", "--age", ",".join(recipients), "--filename-override", str(path)]
    path.write_bytes(subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout)


def _opened(sops: Path, path: Path, identity: Path) -> str:
    environment = os.environ | {"SOPS_AGE_KEY_FILE": str(identity)}
    done = subprocess.run([str(sops), "decrypt", str(path)], env=environment, capture_output=True, check=True)
    return done.stdout.decode()


def _nowhere(folder: Path, *values: str) -> None:
    """No file below a folder holds a value: not the secrets', no copy, no note of an argument."""
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [value for value in values if value.encode() in content], path


def test_sops_file_is_read_and_added_to(tmp_path: Path, sops: Path, identity: Path, argv: Path) -> None:
    """Encrypted for two: both can open what was made, comments and mode stay, and nothing lies open anywhere."""
    path, other = tmp_path / "production.sops.yml", _key(tmp_path / "keys/two")
    _sops_file(sops, path, f"# the mail team's\nsmtp_password: {_LEAK}\n", _recipient(identity), _recipient(other))
    path.chmod(0o644)
    made = Secrets(path, identity=str(identity)).get("grafana_admin")
    key = Secrets(path, identity=str(identity)).keep("tls_key", lambda: "BEGIN\nlines\nEND\n")
    for one in (identity, other):
        again = Secrets(path, identity=str(one))
        assert again.get("grafana_admin") == made
        assert again.get("tls_key") == key == "BEGIN\nlines\nEND\n"
        assert again.require("smtp_password") == {"smtp_password": _LEAK}
        assert "# the mail team's" in _opened(sops, path, one)
    assert path.stat().st_mode & 0o777 == 0o644
    assert "sops set" in argv.read_text()
    _nowhere(tmp_path, made, _LEAK, "lines\nEND")


def test_a_look_leaves_a_sops_file_as_it_is(tmp_path: Path, sops: Path, identity: Path, argv: Path) -> None:
    """To the byte; an empty one is a file without secrets yet."""
    path = tmp_path / "secrets.yml"
    _sops_file(sops, path, "{}\n", _recipient(identity))
    before = path.read_bytes()
    assert Secrets(path, keep=False, identity=str(identity)).get("one")
    assert path.read_bytes() == before
    made = Secrets(path, identity=str(identity)).get("one")
    assert Secrets(path, identity=str(identity)).get("one") == made
    assert "sops set" in argv.read_text()


def test_age_file_is_made_and_added_to(tmp_path: Path, identity: Path, argv: Path) -> None:
    """For the identity alone at first; then for a colleague too, who is named beside it."""
    path = tmp_path / "production.secrets.age"
    made = Secrets(path, identity=str(identity)).get("grafana_admin")
    assert f"grafana_admin: {made}\n" in _age("--decrypt", "--identity", str(identity), str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    other = _key(tmp_path / "keys/two")
    Path(f"{path}.recipients").write_text(f"# a colleague\n{_recipient(other)}\n")
    Secrets(path, identity=str(identity)).renew(["grafana_admin"])
    fresh = Secrets(path, identity=str(other)).get("grafana_admin")
    assert fresh == Secrets(path, identity=str(identity)).get("grafana_admin") != made
    Secrets(path, identity=str(identity)).give("smtp_password", _LEAK)
    assert "age --encrypt" in argv.read_text()
    _nowhere(tmp_path, made, fresh, _LEAK)


def test_age_file_of_others_is_not_closed_to_them(tmp_path: Path, identity: Path) -> None:
    """Who else can open it is not in the file: it stays as it is until they are named. Armor stays armor."""
    path, other = tmp_path / "secrets.age", _key(tmp_path / "keys/two")
    who = [part for one in (identity, other) for part in ("--recipient", _recipient(one))]
    for armor in ([], ["--armor"]):
        path.unlink(missing_ok=True)
        _age("--encrypt", *who, *armor, "--output", str(path), text=f"smtp_password: {_LEAK}\n")
        before = path.read_bytes()
        with pytest.raises(SecretsError, match=r"encrypted for others too.*secrets\.age\.recipients"):
            Secrets(path, identity=str(identity)).get("grafana_admin")
        assert path.read_bytes() == before
        assert Secrets(path, identity=str(identity)).require("smtp_password") == {"smtp_password": _LEAK}
    Path(f"{path}.recipients").write_text(f"{_recipient(other)}\n")
    made = Secrets(path, identity=str(identity)).get("grafana_admin")
    assert path.read_bytes().startswith(b"-----BEGIN AGE ENCRYPTED FILE-----")
    assert f"grafana_admin: {made}\n" in _age("--decrypt", "--identity", str(other), str(path))


def test_wrong_identity_and_damage_are_told(
    tmp_path: Path, sops: Path, identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the file, the program's own words, and none of the secrets."""
    other = _key(tmp_path / "keys/two")
    age, sopsed = tmp_path / "secrets.age", tmp_path / "secrets.yml"
    monkeypatch.setenv("PATH", str(sops.parent), prepend=os.pathsep)
    _age("--encrypt", "--recipient", _recipient(identity), "--output", str(age), text=f"smtp_password: {_LEAK}\n")
    _sops_file(sops, sopsed, f"smtp_password: {_LEAK}\n", _recipient(identity))

    def told(path: Path, key: Path | None) -> str:
        with pytest.raises(SecretsError) as caught:
            Secrets(path, identity=str(key) if key else None)
        assert str(path) in str(caught.value)
        assert _LEAK not in str(caught.value)
        return str(caught.value)

    assert "no identity matched any of the recipients" in told(age, other)
    assert "no master key was able to decrypt the file" in told(sopsed, other)
    assert "MESSWARTE_AGE_IDENTITY" in told(age, None)
    assert "age-keygen" in told(age, tmp_path / "nowhere")
    whole = age.read_bytes()
    age.write_bytes(whole[:-3] + b"xyz")
    assert "failed to decrypt" in told(age, identity)
    age.write_bytes(whole[:30])
    assert "failed to read header" in told(age, identity)
    sopsed.write_text(sopsed.read_text().replace("data:", "data:AA", 1))
    assert "Could not decrypt value" in told(sopsed, identity)


def test_missing_program_is_told_with_what_installs_it(
    tmp_path: Path, identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name of Debian's package, or, as SOPS has none, where it comes from."""
    plain = tmp_path / "secrets.yml"
    plain.write_text("a: ENC[x]\nsops:\n    version: 3.13.3\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SecretsError, match=r"needs the program `sops`, which is not here; Debian has no package of it"):
        Secrets(plain)
    with pytest.raises(SecretsError, match=r"needs the program `age`, which is not here; install it with: apt install"):
        Secrets(tmp_path / "secrets.age", identity=str(identity)).get("one")


def test_file_that_is_to_be_encrypted_and_is_not_is_refused(tmp_path: Path) -> None:
    """Its name promises SOPS: no password is ever written openly there."""
    path = tmp_path / "production.sops.yml"
    for text in (None, "smtp_password: x\n"):
        if text:
            path.touch(mode=0o600)
            path.write_text(text)
        with pytest.raises(
            SecretsError, match=r"is to be a SOPS file, and is not encrypted or not there; make it with"
        ):
            Secrets(path)
