"""The migration runner without a database: names, directives, splitting, drift; and the ERP's own files."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from messwarte_migrate import MigrationError, indexes
from messwarte_migrate.files import Migration, duration, load
from messwarte_migrate.history import Entry, compare
from messwarte_migrate.objects import left
from messwarte_migrate.statements import split

ERP = Path(__file__).resolve().parents[2] / "sql_migrations" / "erp"


def directory(tmp_path: Path, **files: str) -> Path:
    """Make a directory of migrations; names without their ending."""
    for folder in ("versioned", "repeatable"):
        (tmp_path / folder).mkdir()
    for name, text in files.items():
        (tmp_path / ("repeatable" if name.startswith("R__") else "versioned") / f"{name}.sql").write_text(text)
    return tmp_path


def test_the_erps_files_are_in_order() -> None:
    """Three indices, each built beside the ERP at work, then the views."""
    migrations = load(ERP)
    assert [(one.version, one.transactional) for one in migrations] == [(n, False) for n in (1, 2, 3)] + [
        (None, True)
    ] * 2
    wanted = [indexes.parse(one.statements[0].bare) for one in migrations[:3]]
    assert [(one.name, one.table, one.rest) for one in wanted if one] == [
        ("idx_artikel_kat_name", "artikel", "(kategorie, name)"),
        ("idx_charge_art_date", "charge", "(artikel_id, produktionsdatum)"),
        ("idx_lagerbewegung_charge_datum", "lagerbewegung", "(charge_id, datum)"),
    ]


def test_versioned_files_come_in_order_and_repeatable_ones_last(tmp_path: Path) -> None:
    """Whatever the file system's order."""
    files = dict.fromkeys(("R__b", "V0002__a", "R__a", "V0001__z"), "SELECT 1;")
    assert [one.file for one in load(directory(tmp_path, **files))] == [
        "V0001__z.sql", "V0002__a.sql", "R__a.sql", "R__b.sql",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"V0001__a": "SELECT 1", "V0003__c": "SELECT 1"}, ["V0002 is missing"]),
        ({"V0001__a": "SELECT 1", "V0001__b": "SELECT 1"}, ["V0001__a.sql", "V0001__b.sql", "same version"]),
        ({"V0000__a": "SELECT 1", "V0001__b": "SELECT 1"}, ["begin with V0001"]),
        ({"V1__a": "SELECT 1"}, ["V1__a.sql", "of the form V0001__name.sql"]),
        ({"V0001_a": "SELECT 1"}, ["V0001_a.sql", "of the form V0001__name.sql"]),
        ({"R__Ä": "SELECT 1"}, ["R__Ä.sql", "of the form R__name.sql"]),
        ({"V0001__a": "-- nothing\n"}, ["V0001__a.sql", "holds no statement"]),
        ({"V0001__a": "-- transction: none\nSELECT 1"}, ["unknown directive transction", "did you mean transaction?"]),
        ({"V0001__a": "-- transaction: off\nSELECT 1"}, ["'off' is unknown", "only none"]),
        ({"V0001__a": "-- lock_timeout: 5\nSELECT 1"}, ["'5' is no duration such as 500ms"]),
        ({"V0001__a": "-- lock_timeout: 5s\n-- lock_timeout: 6s\nSELECT 1"}, ["set twice"]),
        ({"V0001__a": "SELECT 1;\n\nBEGIN;\nSELECT 2;"}, ["line 3", "the runner begins and ends transactions"]),
        ({"V0001__a": "\\set x 1\nSELECT 1"}, ["line 1", "psql's own commands"]),
        (
            {"V0001__a": "-- c\nSELECT 1;\n/* c */ create unique index\n concurrently x on t (a)"},
            ["line 3", "begin the file with -- transaction: none"],
        ),
        ({"V0001__a": "VACUUM t"}, ["cannot run inside a transaction"]),
        ({"V0001__a": "ALTER TABLE t DETACH PARTITION p CONCURRENTLY"}, ["cannot run inside a transaction"]),
    ],
)
def test_a_wrong_directory_is_refused_before_anything_happens(
    tmp_path: Path, files: dict[str, str], said: list[str]
) -> None:
    """The error names the file and what would be right."""
    with pytest.raises(MigrationError) as caught:
        load(directory(tmp_path, **files))
    assert [part for part in said if part not in str(caught.value)] == []


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """One run is enough to mend a directory."""
    files = {"V0001__a": "COMMIT", "V0003__b": "-- transaction: no\nSELECT 1", "Vx": "SELECT 1", "V0004__c": "SELECT 1"}
    with pytest.raises(MigrationError) as caught:
        load(directory(tmp_path, **files))
    assert len(str(caught.value).splitlines()) >= 4


def test_directives_are_read_from_the_header_only(tmp_path: Path) -> None:
    """Ordinary comments are fine, before and after."""
    text = (
        "-- Why: to be found.\n--lock_timeout: 250ms\n\n-- statement_timeout:  2h \nSELECT 1;\n-- transaction: none\n"
    )
    (one,) = load(directory(tmp_path, V0001__a=text))
    assert (one.transactional, one.lock_timeout, one.statement_timeout) == (True, 0.25, 7200)


def test_checksums_do_not_depend_on_line_ends(tmp_path: Path) -> None:
    """A checkout on another system is no drift; a changed byte is."""
    path = directory(tmp_path, V0001__a="") / "versioned" / "V0001__a.sql"
    sums = []
    for content in (b"SELECT 1;\n", b"\xef\xbb\xbfSELECT 1;\r\n", b"SELECT 2;\n"):
        path.write_bytes(content)
        sums.append(load(tmp_path)[0].checksum)
    assert sums[0] == sums[1] == hashlib.sha256(b"SELECT 1;\n").hexdigest()
    assert sums[2] != sums[0]


def test_a_directory_without_migrations_is_an_error(tmp_path: Path) -> None:
    """A mistyped path must not look like a current database."""
    with pytest.raises(MigrationError, match="neither versioned/ nor repeatable/"):
        load(tmp_path / "missing")


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("5s", 5), ("2m", 120), ("2min", 120), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    """PostgreSQL's units."""
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("SELECT 1; SELECT 2", [("SELECT 1", 1), ("SELECT 2", 1)]),
        ("-- a;\n/* b; /* c; */ ; */\nSELECT 1 -- d;\n;\n\n\nSELECT 2;;", [("SELECT 1 -- d;", 3), ("SELECT 2", 7)]),
        ("SELECT ';', E'\\';', \";\", ''';';", [("SELECT ';', E'\\';', \";\", ''';'", 1)]),
        ("DO $$ BEGIN x; END $$;\nDO $a$ $$;$$ $a$;", [("DO $$ BEGIN x; END $$", 1), ("DO $a$ $$;$$ $a$", 2)]),
        ("SELECT $1; SELECT a$b$c", [("SELECT $1", 1), ("SELECT a$b$c", 1)]),
        (
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);",
            [("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", 1)],
        ),
        ("  -- only a comment\n", []),
    ],
)
def test_splitting(text: str, statements: list[tuple[str, int]]) -> None:
    """Semicolons end statements only where psql says so; each knows its line."""
    assert [(one.text, one.line) for one in split(text)] == statements


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("CREATE INDEX CONCURRENTLY i ON t (a,  b)", ("i", "t", False, "(a, b)")),
        ("create unique index concurrently if not exists I on only s.T using btree ( a )", ("i", "s.T", True, "(a)")),
        ('CREATE INDEX CONCURRENTLY "I x" ON "T"(lower(a)) WHERE b', ("I x", '"T"', False, "(lower(a)) where b")),
    ],
)
def test_concurrent_indices_are_recognised(statement: str, wanted: tuple[str, str, bool, str]) -> None:
    """By name and table, as the server folds them."""
    found = indexes.parse(statement)
    assert found is not None
    assert (found.name, found.table, found.unique, found.rest) == wanted


def test_an_index_without_a_name_is_refused() -> None:
    """Its leftover could not be told from another."""
    with pytest.raises(MigrationError, match="needs a name"):
        indexes.parse("CREATE INDEX CONCURRENTLY ON t (a)")
    assert indexes.parse("CREATE INDEX i ON t (a)") is None


def entry(file: str, version: int | None, checksum: str, *, applied: bool = True, error: str | None = None) -> Entry:
    """Return a row of the history."""
    return Entry(file, version, checksum, datetime(2026, 11, 1, tzinfo=UTC) if applied else None, 1.0, error)


def test_states_and_problems() -> None:
    """Each file against its newest row; what is not in order is named."""
    files = [
        Migration(name, version, "SELECT 1", "new")
        for name, version in [(f"V{n:04d}__x.sql", n) for n in range(1, 6)] + [("R__a.sql", None), ("R__b.sql", None)]
    ]
    entries = [
        entry("V0001__x.sql", 1, "new"),
        entry("V0002__x.sql", 2, "old"),
        entry("V0003__x.sql", 3, "new", applied=False),
        entry("V0004__x.sql", 4, "old", applied=False, error="why"),
        entry("V0009__gone.sql", 9, "old"),
        entry("R__a.sql", None, "old"),
        entry("R__gone.sql", None, "old"),
    ]
    statuses = compare(files, entries)
    assert {one.file: one.state for one in statuses} == {
        "V0001__x.sql": "applied", "V0002__x.sql": "changed", "V0003__x.sql": "interrupted", "V0004__x.sql": "failed",
        "V0005__x.sql": "pending", "V0009__gone.sql": "missing", "R__a.sql": "pending", "R__b.sql": "pending",
        "R__gone.sql": "missing",
    }  # fmt: skip
    problems = [problem for one in statuses if (problem := one.problem)]
    assert problems == [
        "V0002__x.sql was changed after it was applied on 2026-11-01: restore it, and write a new migration",
        "V0009__gone.sql was applied on 2026-11-01 and is no longer in the directory: restore it",
    ]


def test_an_applied_file_whose_object_is_lost_is_to_be_run_again() -> None:
    """Only an applied one: what was never applied is pending anyway, and a changed one stays a problem."""
    files = [Migration(f"V000{n}__x.sql", n, "SELECT 1", "same") for n in (1, 2, 3)]
    entries = [entry("V0001__x.sql", 1, "same"), entry("V0002__x.sql", 2, "other")]
    statuses = compare(files, entries, {one.file: ["i is missing"] for one in files})
    assert [(one.state, one.to_do, list(one.lost)) for one in statuses] == [
        ("lost", True, ["i is missing"]), ("changed", False, []), ("pending", True, []),
    ]  # fmt: skip


def test_what_migrations_leave_is_followed_through_renames_and_drops() -> None:
    """What only a file with more in it could bring back is left out."""
    alone = "CREATE INDEX CONCURRENTLY {0} ON t (c)"
    view = "DROP VIEW IF EXISTS w; CREATE MATERIALIZED VIEW w AS SELECT 1 AS x; CREATE UNIQUE INDEX w_i ON w (x);"
    renames = "ALTER MATERIALIZED VIEW w RENAME TO v; ALTER INDEX w_i RENAME TO v_i"
    files = [
        Migration("V0001__a.sql", 1, f"{alone.format('a')}; {alone.format('b')}", "", transactional=False),
        Migration("V0002__c.sql", 2, "CREATE INDEX c ON t (c); UPDATE t SET c = 1", ""),
        Migration("V0003__d.sql", 3, "-- gone\nDROP INDEX CONCURRENTLY IF EXISTS a", "", transactional=False),
        Migration("R__v.sql", None, f"{view} {renames}", ""),
    ]
    assert left(files) == {"b": "V0001__a.sql", "v": "R__v.sql", "v_i": "R__v.sql"}


def test_a_renamed_applied_file_is_reported_under_its_old_name() -> None:
    """The number decides which migration it is."""
    (status,) = compare([Migration("V0001__new.sql", 1, "SELECT 1", "same")], [entry("V0001__old.sql", 1, "same")])
    assert (status.file, status.state) == ("V0001__old.sql", "missing")
