"""What runs out: transaction ids, multixacts and the numbers of sequences; burnt and counted by hand."""

import psycopg
import pytest

from tests.integration.pgstat_subject import Subject

BURNT = 3000
# Each turn of the loop is a transaction of its own that takes an id.
BURN = f"DO 'BEGIN FOR i IN 1..{BURNT} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END'"
OLDEST = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8 - {}::text::int8 FROM {}"


def test_ages_of_databases_and_tables(subject: Subject) -> None:
    """The next transaction's number less the stored one, before and after; a frozen table is young again."""
    subject.do(
        "CREATE TABLE alt (id int)",
        "CREATE TABLE bald (id int) WITH (autovacuum_freeze_max_age = 100000)",
        "CREATE TABLE frisch (id int)",
        BURN,
        "VACUUM FREEZE frisch",
    )
    questions = {
        "database": OLDEST.format("datfrozenxid", f"pg_database WHERE datname = '{subject.name}'"),
        **{
            name: OLDEST.format("relfrozenxid", f"pg_class WHERE oid = '{name}'::regclass")
            for name in ("alt", "bald", "pg_catalog.pg_class")
        },
    }
    before = {name: subject.value(question) for name, question in questions.items()}
    answer = subject.ask("xid_age", "table_xid_age", top=1000)
    after = {name: subject.value(question) for name, question in questions.items()}
    tables = subject.shown(answer, "pg_table_frozen_age_xids", "relname")
    shown = {"database": answer.value("pg_database_frozen_age_xids", datname=subject.name)}
    shown |= {"alt": tables["alt"], "bald": tables["bald"], "pg_catalog.pg_class": tables["pg_class"]}
    assert shown["alt"] is not None
    assert shown["alt"] >= BURNT
    for name, age in shown.items():
        assert age is not None
        assert before[name] <= age <= after[name], name
    assert tables["frisch"] < BURNT
    ratios = subject.shown(answer, "pg_table_freeze_ratio", "relname")
    assert ratios["bald"] == pytest.approx(tables["bald"] / 100_000)
    assert ratios["alt"] == pytest.approx(tables["alt"] / 200_000_000)
    assert answer.value("pg_database_freeze_ratio", datname=subject.name) == pytest.approx(
        (shown["database"] or 0) / 200_000_000
    )
    assert answer.value("pg_database_wraparound_ratio", datname=subject.name) == pytest.approx(
        (shown["database"] or 0) / (2**31 - 1 - 3_000_000)
    )
    assert answer.value("pg_database_frozen_age_xids", datname="template0") is not None


def test_the_oldest_tables_come_first(subject: Subject) -> None:
    """A lower limit of its own brings a table to the top."""
    subject.do(
        "CREATE TABLE bald (id int) WITH (autovacuum_freeze_max_age = 100000)", "CREATE TABLE alt (id int)", BURN
    )
    answer = subject.ask("table_xid_age", top=1)
    assert set(subject.shown(answer, "pg_table_freeze_ratio", "relname")) == {"bald"}


def test_ages_in_multixacts(subject: Subject) -> None:
    """Rows locked by two transactions at a time take multixacts; the checkpoint notes the next one's number."""
    subject.do("CREATE TABLE posten (id int)", "INSERT INTO posten VALUES (1)")
    with subject.session() as one, subject.session() as other:
        for _ in range(25):
            for session in (one, other):
                session.execute("BEGIN")
                session.execute("SELECT FROM posten FOR SHARE")
            one.execute("COMMIT")
            other.execute("COMMIT")
    subject.do("CHECKPOINT")
    following = "SELECT next_multixact_id::text::int8 - {}::text::int8 FROM pg_control_checkpoint(), {}"
    database = subject.value(following.format("datminmxid", f"pg_database WHERE datname = '{subject.name}'"))
    table = subject.value(following.format("relminmxid", "pg_class WHERE oid = 'posten'::regclass"))
    answer = subject.ask("xid_age", "table_xid_age", top=1000)
    assert table >= 25
    assert subject.shown(answer, "pg_table_frozen_age_multixacts", "relname")["posten"] == table
    assert answer.value("pg_database_frozen_age_multixacts", datname=subject.name) == database


def test_sequences(subject: Subject) -> None:
    """Shares worked out by hand; under a half none is shown, a cycle never ends."""
    subject.do(
        "CREATE SEQUENCE voll MAXVALUE 10",
        "SELECT setval('voll', 10)",
        "CREATE TABLE klein (id smallint GENERATED ALWAYS AS IDENTITY)",
        "SELECT setval('klein_id_seq', 30000)",
        # The sequence counts further than the column holds, as one that it owns, and as a mere default.
        "CREATE TABLE eng (id serial, nummer int)",
        "ALTER SEQUENCE eng_id_seq AS bigint",
        "SELECT setval('eng_id_seq', 2000000000)",
        "CREATE SEQUENCE nummern",
        "ALTER TABLE eng ALTER nummer SET DEFAULT nextval('nummern')",
        "SELECT setval('nummern', 1500000000)",
        "CREATE SEQUENCE hinab INCREMENT -1 MINVALUE -100 MAXVALUE -1 START -1",
        "SELECT setval('hinab', -75)",
        "CREATE SEQUENCE versetzt MINVALUE 1001 MAXVALUE 1100",
        "SELECT setval('versetzt', 1060)",
        "CREATE SEQUENCE runde MAXVALUE 10 CYCLE",
        "SELECT setval('runde', 10)",
        "CREATE SEQUENCE wenig MAXVALUE 100",
        "SELECT setval('wenig', 49)",
        "CREATE SEQUENCE unbenutzt MAXVALUE 2",
        "CREATE TABLE gross (id bigint GENERATED ALWAYS AS IDENTITY)",
        "SELECT setval('gross_id_seq', 3000000000)",
    )
    answer = subject.ask("sequences")
    assert subject.shown(answer, "pg_sequence_used_ratio", "relname") == pytest.approx(
        {
            "voll": 1,
            "klein_id_seq": 30000 / 32767,
            "eng_id_seq": 2000000000 / 2147483647,
            "nummern": 1500000000 / 2147483647,
            "hinab": 0.75,
            "versetzt": 0.6,
        }
    )
    assert answer.value("pg_sequences_highest_used_ratio", datname=subject.name) == 1
    assert answer.value("pg_sequences_read", datname=subject.name) == 9


def test_sequences_whose_next_number_does_not_fit(subject: Subject) -> None:
    """The share is 1 exactly where the next number cannot be had or stored, whatever was used so far."""
    full = {
        "ueber_int": ("int", "MINVALUE 2147483648", 2147483648),
        "weit_ueber": ("int", "MINVALUE 3000000000", 3000000000),
        "nie_benutzt": ("int", "MINVALUE 3000000000", None),
        "unter_smallint": ("smallint", "INCREMENT -1 MINVALUE -50000 MAXVALUE -40000", -40001),
        "vor_dem_ersten": ("smallint", "MINVALUE -50000 START -50000", -40000),
        "am_boden": ("smallint", "INCREMENT -1 MINVALUE -40000", -32768),
        "einzige": ("smallint", "MINVALUE 32767", 32767),
        "in_schritten": ("bigint", "INCREMENT 10 MAXVALUE 100", 91),
    }
    free = {
        "halb_hinab": ("smallint", "INCREMENT -1 MINVALUE -40000", -16384),
        "noch_einzige": ("smallint", "MINVALUE 32767", None),
        "passt_gerade": ("smallint", "MINVALUE -50000", 32766),
    }
    for name, (column, options, last) in (full | free).items():
        subject.do(
            f"CREATE TABLE zu_{name} (id {column})",
            f"CREATE SEQUENCE {name} {options} OWNED BY zu_{name}.id",
            *([] if last is None else [f"SELECT setval('{name}', {last})"]),
        )
    answer = subject.ask("sequences")
    ratios = dict.fromkeys(full, 1.0) | {"halb_hinab": 16384 / 32768, "passt_gerade": 65535 / 65536}
    assert subject.shown(answer, "pg_sequence_used_ratio", "relname") == pytest.approx(ratios)
    draw = "INSERT INTO zu_{0} VALUES (nextval('{0}'))"
    for name in free:
        subject.do(draw.format(name))
    for name in full:
        with pytest.raises(psycopg.DataError):
            subject.do(draw.format(name))


def test_many_sequences_leave_the_table_of_locks_its_room(subject: Subject) -> None:
    """Of more sequences than an eighth of all locks, those with the fewest numbers are read, and it is said."""
    settings = dict(subject.rows("SELECT name, setting::int FROM pg_settings"
        " WHERE name IN ('max_locks_per_transaction', 'max_connections')"))  # fmt: skip
    room = settings["max_locks_per_transaction"] * settings["max_connections"] // 8
    subject.do(
        f"DO 'BEGIN FOR i IN 1..{room} LOOP EXECUTE ''CREATE SEQUENCE s'' || i; END LOOP; END'",
        "CREATE SEQUENCE knapp MAXVALUE 10",
        "SELECT setval('knapp', 8)",
    )
    answer = subject.ask("sequences")
    assert answer.value("pg_sequences_read", datname=subject.name) == room
    assert subject.shown(answer, "pg_sequence_used_ratio", "relname") == {"knapp": 0.8}
