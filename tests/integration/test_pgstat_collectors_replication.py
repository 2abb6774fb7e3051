"""Replicas, slots and recovery: positions worked out from the servers' own LSNs, on both sides."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.pgstat_collectors import caught_up, lsn, major_of, reading, sample, shows, tells, write
from tests.integration.postgres_versions import MAJORS, Versions, replica_of

REPLICA = '{application_name="walreceiver",slot_name="standby"}'
ON_STANDBY = "hot_standby = on\nmax_standby_streaming_delay = 0\nwal_receiver_status_interval = 1s\n"


@pytest.fixture(scope="module", params=MAJORS)
def primary(versions: Versions, request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server on which nothing else writes WAL."""
    with versions.server(request.param, "autovacuum = off\n") as server:
        server.execute("CREATE TABLE written (n int, filler text)")
        yield server


@pytest.fixture(scope="module")
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """Its replica."""
    with replica_of(primary, ON_STANDBY) as replica:
        yield replica


def test_a_replica_that_follows(primary: PostgresServer, standby: PostgresServer, tmp_path: Path) -> None:
    """It has everything, so that every lag is 0 and not absent."""
    write(primary)
    caught_up(primary, standby)
    with reading(primary, tmp_path, "replication", "slots") as exporter:
        before = time.time()
        answer = shows(exporter, {f"pg_stat_replication_{name}{REPLICA}": value for name, value in {
            "replicas": 1, "streaming_replicas": 1, "synchronous_replicas": 0, "sent_lag_bytes": 0,
            "write_lag_bytes": 0, "flush_lag_bytes": 0, "replay_lag_bytes": 0,
        }.items()})  # fmt: skip
        assert sample(answer, f"pg_stat_replication_replay_lag_seconds{REPLICA}") is not None
        replied = sample(answer, f"pg_stat_replication_reply_timestamp_seconds{REPLICA}")
        assert replied is not None
        assert before - 60 <= replied <= time.time()
        slot = '{slot_name="standby",slot_type="physical"}'
        shows(exporter, {
            f"pg_replication_slot_active{slot}": 1, f"pg_replication_slot_invalidated{slot}": 0,
            f"pg_replication_slot_inactive_since_timestamp_seconds{slot}": None,
            f"pg_replication_slot_synced{slot}": 0 if major_of(primary) >= 17 else None,
        })  # fmt: skip
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        try:
            primary.execute("SELECT pg_reload_conf()")
            shows(exporter, {f"pg_stat_replication_synchronous_replicas{REPLICA}": 1})
        finally:
            primary.execute("ALTER SYSTEM RESET synchronous_standby_names")
            primary.execute("SELECT pg_reload_conf()")


def test_a_replica_whose_replay_stands_still(primary: PostgresServer, standby: PostgresServer, tmp_path: Path) -> None:
    """What it has received and not replayed is the same figure on both sides, and the last commit keeps its time."""
    with contextlib.ExitStack() as stack:
        ahead = stack.enter_context(reading(primary, tmp_path, "replication"))
        behind = stack.enter_context(reading(standby, tmp_path, "recovery", "server"))
        ((xid,),) = primary.execute("INSERT INTO written VALUES (0, '') RETURNING xmin::text")
        caught_up(primary, standby)
        shows(behind, {
            "pg_in_recovery": 1, "pg_recovery_paused": 0, "pg_recovery_replay_lag_bytes": 0,
            "pg_recovery_replay_lag_seconds": 0, "pg_stat_wal_receiver_streaming": 1,
        })  # fmt: skip
        standby.execute("SELECT pg_wal_replay_pause()")
        try:
            write(primary)
            caught_up(primary, standby, "pg_last_wal_receive_lsn")
            shows(ahead, {f"pg_stat_replication_flush_lag_bytes{REPLICA}": 0})
            replayed = lsn(standby, "pg_last_wal_replay_lsn")
            assert lsn(primary) - replayed > 100_000
            tells(ahead, f"pg_stat_replication_replay_lag_bytes{REPLICA}", primary, replayed)
            tells(behind, "pg_recovery_replay_lag_bytes", primary, replayed)
            ((committed,),) = primary.execute(
                f"SELECT extract(epoch FROM pg_xact_commit_timestamp('{xid}'))::float8"  # noqa: S608
            )
            answer = shows(behind, {"pg_recovery_paused": 1})
            wait_until(lambda: (behind.scrape().value("pg_recovery_upstream_lag_bytes") or 0) > 100_000, "it is told")
            last = answer.value("pg_recovery_last_replayed_timestamp_seconds")
            assert last == pytest.approx(committed, abs=1e-5)
            shown = answer.value("pg_recovery_replay_lag_seconds")
            assert shown is not None
            assert 0 < shown <= time.time() - committed
        finally:
            standby.execute("SELECT pg_wal_replay_resume()")
        shows(behind, {"pg_recovery_paused": 0, "pg_recovery_replay_lag_bytes": 0})
        message = behind.scrape().value("pg_stat_wal_receiver_last_message_timestamp_seconds")
        assert message is not None
        assert committed <= message <= time.time()


def test_replication_and_recovery_with_the_least_role(
    primary: PostgresServer, standby: PostgresServer, tmp_path: Path
) -> None:
    """pg_read_all_stats and nothing else shows positions that the server hides from others."""
    primary.execute("CREATE ROLE test_least LOGIN; GRANT pg_read_all_stats TO test_least")
    try:
        caught_up(primary, standby)
        with reading(primary, tmp_path, "replication", user="test_least") as exporter:
            shows(exporter, {f"pg_stat_replication_replay_lag_bytes{REPLICA}": 0})
        with reading(standby, tmp_path, "recovery", user="test_least") as exporter:
            shows(exporter, {"pg_stat_wal_receiver_streaming": 1, "pg_recovery_replay_lag_bytes": 0})
    finally:
        primary.execute("DROP ROLE test_least")


def test_a_primary_has_no_recovery(primary: PostgresServer, tmp_path: Path) -> None:
    """Absent, not 0."""
    with reading(primary, tmp_path, "recovery", "server") as exporter:
        answer = exporter.scrape()
    assert answer.success() == {"recovery": 1, "server": 1}
    assert "pg_recovery_" not in answer.body
    assert "pg_stat_wal_receiver_" not in answer.body
    assert answer.value("pg_in_recovery") == 0


def test_conflicts_by_cause(primary: PostgresServer, standby: PostgresServer, tmp_path: Path) -> None:
    """A query on the standby holds a table that the primary drops."""
    primary.execute("CREATE TABLE dropped (n int)")
    caught_up(primary, standby)
    with reading(standby, tmp_path, "database") as exporter:
        with psycopg.connect(standby.dsn()) as session:
            session.execute("SELECT FROM dropped")
            primary.execute("DROP TABLE dropped")
            caught_up(primary, standby)
            session.close()
        causes = ["tablespace", "snapshot", "bufferpin", "deadlock"]
        causes += ["logical_slot"] if major_of(primary) >= 16 else []
        name = 'pg_stat_database_conflicts_by_cause_total{{datname="postgres",cause="{}"}}'
        answer = shows(exporter, {name.format("lock"): 1} | {name.format(cause): 0 for cause in causes})
    shown = [key for key in answer if key[0].endswith("by_cause_total") and ("datname", "postgres") in key[1]]
    assert len(shown) == len(causes) + 1
    assert sample(answer, 'pg_stat_database_conflicts_total{datname="postgres"}') == 1


def test_standbys_hold_the_horizon(primary: PostgresServer, standby: PostgresServer, tmp_path: Path) -> None:
    """A snapshot on the standby, told by its feedback: through its slot, and without one by the connection."""
    with contextlib.ExitStack() as stack:
        exporter = stack.enter_context(reading(primary, tmp_path, "horizon", "slots"))
        standby.execute("ALTER SYSTEM SET hot_standby_feedback = on")
        standby.execute("SELECT pg_reload_conf()")
        try:
            caught_up(primary, standby)
            reader = stack.enter_context(psycopg.connect(standby.dsn()))
            reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            row = reader.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchone()
            assert row
            for _ in range(20):
                primary.execute("SELECT pg_current_xact_id()")
            ((last,),) = primary.execute("SELECT pg_current_xact_id()::text")
            age = int(last) + 1 - int(row[0])
            assert age >= 21
            shows(exporter, {
                'pg_xmin_horizon_age_xids{holder="replication_slot"}': age,
                'pg_xmin_horizon_age_xids{holder="standby"}': 0,
                'pg_replication_slot_xmin_age_xids{slot_name="standby",slot_type="physical"}': age,
            })  # fmt: skip
            standby.execute("ALTER SYSTEM SET primary_slot_name = ''")
            standby.execute("SELECT pg_reload_conf()")
            shows(exporter, {'pg_xmin_horizon_age_xids{holder="standby"}': age})
        finally:
            for name in ("primary_slot_name", "hot_standby_feedback"):
                standby.execute(f"ALTER SYSTEM RESET {name}")
            standby.execute("ALTER SYSTEM SET primary_slot_name = 'standby'")
            standby.execute("SELECT pg_reload_conf()")


def test_prefetching_and_the_end_of_a_stream(primary: PostgresServer, standby: PostgresServer, tmp_path: Path) -> None:
    """Blocks that replay looked at ahead grow with WAL; a receiver without a primary streams no longer."""
    with reading(standby, tmp_path, "recovery") as exporter:

        def looked_at() -> float:
            names = ("blocks", "hits", "skipped")
            answer = exporter.scrape()
            return sum(answer.value(f"pg_stat_recovery_prefetch_{name}_total") or 0 for name in names)

        before = looked_at()
        write(primary, 5000)
        caught_up(primary, standby)
        # A row is a record that names one block.
        wait_until(lambda: looked_at() - before >= 5000, "replay looks ahead")
        conninfo = standby.execute("SHOW primary_conninfo")[0][0]
        try:
            standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
            standby.execute("SELECT pg_reload_conf()")
            shows(exporter, {"pg_stat_wal_receiver_streaming": 0, "pg_recovery_upstream_lag_bytes": None})
        finally:
            standby.execute(f"ALTER SYSTEM SET primary_conninfo = '{conninfo}'")
            standby.execute("SELECT pg_reload_conf()")
        shows(exporter, {"pg_stat_wal_receiver_streaming": 1})
