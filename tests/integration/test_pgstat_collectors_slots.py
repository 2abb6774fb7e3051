"""Replication slots: what they hold back, by positions worked out from LSNs, and what decoding spills."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.integration.conftest import PostgresServer, wait_until
from tests.integration.pgstat_collectors import lsn, major_of, position, reading, sample, shows, tells, write
from tests.integration.postgres_versions import MAJORS, Versions

MEGABYTE = 1024**2


@pytest.fixture(scope="module", params=MAJORS)
def primary(versions: Versions, request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server on which nothing else writes WAL."""
    with versions.server(request.param, "autovacuum = off\n") as server:
        server.execute("CREATE TABLE written (n int, filler text)")
        yield server


def test_a_slot_that_nobody_reads(primary: PostgresServer, tmp_path: Path) -> None:
    """WAL piles up for it from the position that its creation returned, until the limit takes it away."""
    slot = '{slot_name="idle",slot_type="physical"}'
    before = time.time()
    ((start,),) = primary.execute("SELECT lsn::text FROM pg_create_physical_replication_slot('idle', true)")
    with reading(primary, tmp_path, "slots") as exporter:
        try:
            write(primary)
            answer = shows(exporter, {
                f"pg_replication_slot_active{slot}": 0, f"pg_replication_slot_invalidated{slot}": 0,
                f"pg_replication_slot_safe_wal_bytes{slot}": None,
                f"pg_replication_slot_unconfirmed_bytes{slot}": None,
            })  # fmt: skip
            tells(exporter, f"pg_replication_slot_retained_bytes{slot}", primary, position(start))
            since = sample(answer, f"pg_replication_slot_inactive_since_timestamp_seconds{slot}")
            assert (since is not None) == (major_of(primary) >= 17)
            assert since is None or before - 1 <= since <= time.time()
            primary.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'")
            primary.execute("SELECT pg_reload_conf()")
            wait_until(
                lambda: sample(exporter.scrape(), f"pg_replication_slot_safe_wal_bytes{slot}") is not None, "safe"
            )
            safe = sample(exporter.scrape(), f"pg_replication_slot_safe_wal_bytes{slot}")
            # The limit counts from the slot's position, in whole segments of 16 MB.
            assert safe is not None
            assert 0 <= safe - (32 * MEGABYTE - (lsn(primary) - position(start))) <= 32 * MEGABYTE
            for _ in range(5):
                primary.execute("SELECT pg_logical_emit_message(true, '', ''), pg_switch_wal()")
            primary.execute("CHECKPOINT")
            shows(exporter, {
                f"pg_replication_slot_invalidated{slot}": 1, f"pg_replication_slot_retained_bytes{slot}": None,
                f"pg_replication_slot_active{slot}": 0,
            })  # fmt: skip
        finally:
            primary.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            primary.execute("SELECT pg_reload_conf(), pg_drop_replication_slot('idle')")
        assert 'pg_replication_slot_active{slot_name="idle"' not in exporter.scrape().body


def overtaken(server: PostgresServer) -> None:
    """Write more WAL than slots may keep."""
    set_for_a_checkpoint(server, "max_slot_wal_keep_size", "1MB", 3)


def left_alone(server: PostgresServer) -> None:
    """Wait longer than slots may be idle."""
    time.sleep(1.1)
    set_for_a_checkpoint(server, "idle_replication_slot_timeout", "1s", 0)


def set_for_a_checkpoint(server: PostgresServer, name: str, value: str, segments: int) -> None:
    """Change a setting, fill so many segments of WAL, and make a checkpoint."""
    server.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    try:
        server.execute("SELECT pg_reload_conf()")
        wait_until(lambda: server.execute(f"SHOW {name}") == [(value,)], "it is set")
        for _ in range(segments):
            server.execute("SELECT pg_logical_emit_message(true, '', ''), pg_switch_wal()")
        server.execute("CHECKPOINT")
    finally:
        server.execute(f"ALTER SYSTEM RESET {name}")
        server.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("lose", [overtaken, left_alone])
def test_a_slot_that_is_lost_holds_nothing_back(
    primary: PostgresServer, tmp_path: Path, lose: Callable[[PostgresServer], None]
) -> None:
    """Its columns go on saying so; one that was never used is not lost."""
    if lose is left_alone and major_of(primary) < 18:
        pytest.skip("slots may be idle for ever before version 18")
    slot = '{slot_name="lost",slot_type="logical"}'
    horizon = 'pg_xmin_horizon_age_xids{holder="replication_slot_catalog"}'
    unused = 'pg_replication_slot_invalidated{slot_name="unused",slot_type="physical"}'
    primary.execute("SELECT pg_create_logical_replication_slot('lost', 'pgoutput')")
    primary.execute("SELECT pg_create_physical_replication_slot('unused')")
    try:
        with reading(primary, tmp_path, "slots", "horizon") as exporter:
            primary.execute("SELECT pg_current_xact_id()")
            ((age,),) = primary.execute("SELECT age(catalog_xmin) FROM pg_replication_slots WHERE slot_name = 'lost'")
            assert age > 0
            shows(exporter, {horizon: age, f"pg_replication_slot_catalog_xmin_age_xids{slot}": age})
            lose(primary)
            shows(exporter, {f"pg_replication_slot_invalidated{slot}": 1, horizon: 0, unused: 0} | {
                f"pg_replication_slot_{name}{slot}": None
                for name in ("retained_bytes", "xmin_age_xids", "catalog_xmin_age_xids")
            })  # fmt: skip
        left = "SELECT catalog_xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'lost'"
        assert primary.execute(left) == [(True,)]
    finally:
        primary.execute("SELECT pg_drop_replication_slot('lost'), pg_drop_replication_slot('unused')")


def test_logical_decoding_that_spills(primary: PostgresServer, tmp_path: Path) -> None:
    """One transaction too large for the memory, one that fits: two sent, one on disk; no slot that is temporary."""
    slot = '{slot_name="decoded",slot_type="logical"}'
    primary.execute("CREATE TABLE published (n int PRIMARY KEY); CREATE PUBLICATION all_of_it FOR TABLE published")
    ((start,),) = primary.execute("SELECT lsn::text FROM pg_create_logical_replication_slot('decoded', 'pgoutput')")
    try:
        with reading(primary, tmp_path, "slots") as exporter, psycopg.connect(primary.dsn()) as session:
            session.execute("SELECT pg_create_physical_replication_slot('for_a_moment', true, true)")
            session.commit()
            primary.execute("INSERT INTO published SELECT generate_series(1, 20000)")
            primary.execute("INSERT INTO published VALUES (0)")
            answer = shows(exporter, {f"pg_stat_replication_slots_transactions_total{slot}": 0})
            tells(exporter, f"pg_replication_slot_unconfirmed_bytes{slot}", primary, position(start))
            assert "for_a_moment" not in answer.body
            session.execute("SET logical_decoding_work_mem = '64kB'")
            session.execute(
                "SELECT count(*) FROM pg_logical_slot_get_binary_changes("
                "'decoded', NULL, NULL, 'proto_version', '1', 'publication_names', 'all_of_it')"
            )
            session.commit()
            ((confirmed,),) = primary.execute(
                "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'decoded'"
            )
            ((spilled, total),) = primary.execute(
                "SELECT spill_bytes, total_bytes FROM pg_stat_get_replication_slot('decoded')"
            )
            assert total >= spilled >= 20000 * 64
            shows(exporter, {f"pg_{name}{slot}": value for name, value in {
                "stat_replication_slots_transactions_total": 2, "stat_replication_slots_spill_transactions_total": 1,
                "stat_replication_slots_spill_bytes_total": spilled, "stat_replication_slots_bytes_total": total,
                "stat_replication_slots_stream_transactions_total": 0,
            }.items()})  # fmt: skip
            tells(exporter, f"pg_replication_slot_unconfirmed_bytes{slot}", primary, position(confirmed))
    finally:
        primary.execute("SELECT pg_drop_replication_slot('decoded')")
