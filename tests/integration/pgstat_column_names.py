"""Which column of which statistics view each metric is, written down apart from the collectors' SQL."""

from collections.abc import Iterator

from tests.integration.test_pgstat_collectors_tables import BLOCKS, COUNTERS, SINCE_16, SINCE_18, TIMES

Rows = tuple[str, str, dict[str, str], dict[str, str]]
# What is no column of a view: worked out, or from a catalog.
OTHERS = {
    "pg_database_connection_limit", "pg_stat_archiver_waiting_files", "pg_stat_archiver_longest_wait_seconds",
    "pg_wal_position_bytes", "pg_checkpoint_last_timestamp_seconds", "pg_checkpoint_wal_since_bytes",
    "pg_replication_slot_active", "pg_replication_slot_invalidated", "pg_replication_slot_synced",
    "pg_stat_replication_replicas", "pg_stat_replication_streaming_replicas",
    "pg_stat_replication_synchronous_replicas", "pg_subscription_enabled", "pg_stat_subscription_workers",
    "pg_subscription_tables", "pg_subscription_tables_copying", "pg_progress_running",
    "pg_progress_oldest_start_timestamp_seconds", "pg_relations", "pg_relations_bytes", "pg_tables_autovacuum_off",
    "pg_table_vacuum_due_ratio", "pg_table_analyze_due_ratio", "pg_table_heap_bytes", "pg_table_indexes_bytes",
    "pg_table_toast_bytes", "pg_index_bytes",
}  # fmt: skip
SLRU = (
    "blocks_zeroed=blks_zeroed blocks_hit=blks_hit blocks_read=blks_read blocks_written=blks_written flushes truncates"
)
DATABASE = """commits=xact_commit rollbacks=xact_rollback blocks_hit=blks_hit blocks_read=blks_read
    block_read_seconds=blk_read_time/1000 block_write_seconds=blk_write_time/1000 rows_returned=tup_returned
    rows_fetched=tup_fetched rows_inserted=tup_inserted rows_updated=tup_updated rows_deleted=tup_deleted conflicts
    deadlocks temp_files temp_bytes checksum_failures sessions sessions_abandoned sessions_fatal sessions_killed
    session_seconds=session_time/1000 active_seconds=active_time/1000
    idle_in_transaction_seconds=idle_in_transaction_time/1000"""
IO = """reads writes extends hits evictions reuses fsyncs read_seconds=read_time/1000 write_seconds=write_time/1000
    extend_seconds=extend_time/1000 fsync_seconds=fsync_time/1000"""
STATEMENTS = """calls seconds=total_exec_time/1000 rows plans plan_seconds=total_plan_time/1000
    blocks_hit=shared_blks_hit blocks_read=shared_blks_read blocks_dirtied=shared_blks_dirtied
    blocks_written=shared_blks_written temp_blocks_read=temp_blks_read temp_blocks_written=temp_blks_written wal_bytes
    jit_seconds=(jit_generation_time+jit_inlining_time+jit_optimization_time+jit_emission_time)/1000"""
SLOT_COUNTERS = """spill_transactions=spill_txns spills=spill_count spill_bytes stream_transactions=stream_txns
    stream_bytes transactions=total_txns bytes=total_bytes"""
SLOT = """unconfirmed_bytes=pg_current_wal_lsn()-confirmed_flush_lsn retained_bytes=pg_current_wal_lsn()-restart_lsn
    safe_wal_bytes=safe_wal_size xmin_age_xids=age(xmin) catalog_xmin_age_xids=age(catalog_xmin)"""
REPLICATION = " ".join(
    f"{name}_lag_bytes=pg_current_wal_lsn()-{name}_lsn" for name in ("sent", "write", "flush", "replay")
)
CONFLICTS = "insert_exists update_origin_differs update_exists update_missing delete_origin_differs delete_missing"


def total(prefix: str, names: str) -> dict[str, str]:
    """Return counters by `metric=column`, or a name that is the same for both."""
    return {f"{name}_total": column for name, column in gauges(prefix, names).items()}


def gauges(prefix: str, names: str) -> dict[str, str]:
    """Return gauges likewise."""
    pairs = [name.partition("=") for name in names.split()]
    return {f"{prefix}_{name}": column or name for name, _, column in pairs}


def times(prefix: str, names: str) -> dict[str, str]:
    """Return moments likewise."""
    columns = gauges(prefix, names).items()
    return {f"{name}_timestamp_seconds": f"extract(epoch FROM {column})" for name, column in columns}


def on_primary(major: int) -> Iterator[Rows]:
    """Return collectors with the row that is looked at, its labels, and metrics with what they are."""
    yield "slru", "pg_stat_slru WHERE name = 'other'", {"slru": "name"}, total("pg_stat_slru", SLRU)
    names = DATABASE
    if major >= 18:
        names += " parallel_workers_planned=parallel_workers_to_launch parallel_workers_launched"
    figures = total("pg_stat_database", names)
    figures |= times("pg_stat_database", "stats_reset checksum_last_failure")
    yield "database", "pg_stat_database WHERE datname = 'postgres'", {"datname": "datname"}, figures
    figures = total("pg_stat_archiver", "archived=archived_count failed=failed_count")
    moments = "last_archived=last_archived_time last_failed=last_failed_time stats_reset"
    yield "archiver", "pg_stat_archiver", {}, figures | times("pg_stat_archiver", moments)
    yield "wal", "pg_stat_wal", {}, wal(major)
    yield from checkpointer(major)
    if major >= 16:
        size = "read_bytes={0} write_bytes={1} extend_bytes={2}"
        bytes_of = ("read_bytes", "write_bytes", "extend_bytes") if major >= 18 else (
            "reads*op_bytes", "writes*op_bytes", "extends*op_bytes")  # fmt: skip
        rows = "backend_type = 'client backend' AND object = 'relation' AND context = 'normal'"
        labels = {name: name for name in ("backend_type", "object", "context")}
        yield "io", f"pg_stat_io WHERE {rows}", labels, total("pg_stat_io", f"{IO} {size.format(*bytes_of)}")
    slot = {"slot_name": "slot_name", "slot_type": "'logical'"}
    figures = gauges("pg_replication_slot", SLOT)
    figures |= times("pg_replication_slot", "inactive_since") if major >= 17 else {}
    yield "slots", "pg_replication_slots WHERE slot_name = 'seen'", slot, figures
    figures = total("pg_stat_replication_slots", SLOT_COUNTERS)
    yield "slots", "pg_stat_replication_slots WHERE slot_name = 'seen'", slot, figures
    lags = {f"pg_stat_replication_{name}_lag_seconds": f"extract(epoch FROM {name}_lag)" for name in
            ("write", "flush", "replay")}  # fmt: skip
    figures = gauges("pg_stat_replication", REPLICATION) | lags | times("pg_stat_replication", "reply=reply_time")
    yield "replication", "pg_stat_replication", {"application_name": "''", "slot_name": "''"}, figures
    timed = "shared_blk" if major >= 17 else "blk"
    names = f"{STATEMENTS} block_read_seconds={timed}_read_time/1000 block_write_seconds={timed}_write_time/1000"
    labels = {"queryid": "queryid::text", "datname": "'postgres'"}
    yield "statements", "pg_stat_statements", labels, total("pg_stat_statements", names)
    figures = total("pg_stat_statements", "deallocations=dealloc") | times("pg_stat_statements", "stats_reset")
    yield "statements", "pg_stat_statements_info", {}, figures
    yield from subscriptions(major)
    yield from progress(major)
    yield from relations(major)


def wal(major: int) -> dict[str, str]:
    """Return the figures of WAL, which are pg_stat_io's from 18 on."""
    names = "records=wal_records full_page_images=wal_fpi bytes=wal_bytes buffers_full=wal_buffers_full"
    columns = {"writes": "wal_write", "syncs": "wal_sync", "write_seconds": "wal_write_time/1000",
               "sync_seconds": "wal_sync_time/1000"}  # fmt: skip
    if major >= 18:
        rows = "FROM pg_stat_io WHERE object = 'wal' AND context = 'normal' AND backend_type <> 'walreceiver'"
        own = {
            "writes": "writes",
            "syncs": "fsyncs",
            "write_seconds": "write_time/1000",
            "sync_seconds": "fsync_time/1000",
        }
        columns = {name: f"(SELECT sum({column}) {rows})" for name, column in own.items()}
    figures = total("pg_stat_wal", names) | {f"pg_stat_wal_{name}_total": column for name, column in columns.items()}
    return figures | times("pg_stat_wal", "stats_reset")


def checkpointer(major: int) -> Iterator[Rows]:
    """Return the figures of checkpoints and of the background writer, which were one view until 16."""
    writer = total("pg_stat_bgwriter", "buffers_clean maxwritten_clean buffers_alloc")
    own = total("pg_stat_bgwriter", "buffers_backend buffers_backend_fsync")
    if major >= 16:
        pages = "(write_bytes+extend_bytes)/8192" if major >= 18 else "writes+extends"
        rows = "FROM pg_stat_io WHERE object = 'relation' AND backend_type NOT IN ('checkpointer', 'background writer')"
        columns = (f"(SELECT sum({column}) {rows})" for column in (pages, "fsyncs"))
        own = dict(zip(own, columns, strict=True))
    yield "checkpointer", "pg_stat_bgwriter", {}, writer | own
    names = """timed=checkpoints_timed requested=checkpoints_req write_seconds=checkpoint_write_time/1000
        sync_seconds=checkpoint_sync_time/1000 buffers_written=buffers_checkpoint"""
    if major >= 17:
        names = """timed=num_timed requested=num_requested write_seconds=write_time/1000 sync_seconds=sync_time/1000
            buffers_written restartpoints_timed restartpoints_requested=restartpoints_req restartpoints_done"""
    if major >= 18:
        names += " done=num_done slru_written"
    figures = total("pg_stat_checkpointer", names) | times("pg_stat_checkpointer", "stats_reset")
    yield "checkpointer", "pg_stat_checkpointer" if major >= 17 else "pg_stat_bgwriter", {}, figures


def subscriptions(major: int) -> Iterator[Rows]:
    """Return the figures of the subscriber's side."""
    labels = {"datname": "'postgres'", "subname": "subname"}
    figures = times("pg_stat_subscription", "last_message=last_msg_receipt_time last_report=latest_end_time")
    figures |= {"pg_stat_subscription_unreported_bytes": "received_lsn - latest_end_lsn"}
    yield "subscriptions", "pg_stat_subscription", labels, figures
    figures = total("pg_stat_subscription", "apply_errors=apply_error_count sync_errors=sync_error_count")
    view = "pg_stat_subscription_stats"
    yield "subscriptions", view, labels, figures | times("pg_stat_subscription", "stats_reset")
    for kind in f"{CONFLICTS} multiple_unique_conflicts".split() if major >= 18 else ():
        yield (
            "subscriptions",
            view,
            labels | {"conflict": f"'{kind}'"},
            total("pg_stat_subscription", f"conflicts=confl_{kind}"),
        )


def progress(major: int) -> Iterator[Rows]:
    """Return how far commands are, in bytes and rows."""
    block = "8192*"
    for command, view, names in (
        ("vacuum", "vacuum", f"done_bytes={block}heap_blks_scanned total_bytes={block}heap_blks_total"),
        ("analyze", "analyze", f"done_bytes={block}sample_blks_scanned total_bytes={block}sample_blks_total"),
        ("create index", "create_index", f"done_bytes={block}blocks_done total_bytes={block}blocks_total "
            "done_rows=tuples_done awaited_lockers=lockers_total-lockers_done"),
        ("cluster", "cluster", f"done_bytes={block}heap_blks_scanned total_bytes={block}heap_blks_total "
            "done_rows=heap_tuples_written"),
        ("copy", "copy", "done_bytes=bytes_processed total_bytes=bytes_total done_rows=tuples_processed"),
        ("base backup", "basebackup", "done_bytes=backup_streamed total_bytes=backup_total"),
    ):  # fmt: skip
        phase, relation = ("command" if view == "copy" else "phase"), ("" if view == "basebackup" else "public.dusty")
        labels = {"command": command, "datname": "postgres", "phase": phase, "relation": relation}
        labels = {name: f"'{value}'" for name, value in labels.items()}
        yield "progress", f"pg_stat_progress_{view}", labels, gauges("pg_progress", names)
    dead = "num_dead_tuples::float8/max_dead_tuples"
    names = "index_passes=index_vacuum_count"
    if major >= 17:
        dead = "dead_tuple_bytes::float8/max_dead_tuple_bytes"
        names += " indexes_processed"
    if major >= 18:
        names += " delay_seconds=delay_time/1000"
    labels = {"datname": "'postgres'", "relation": "'public.dusty'"}
    figures = gauges("pg_progress_vacuum", f"{names} dead_items_ratio={dead}")
    yield "progress", "pg_stat_progress_vacuum", labels, figures


def relations(major: int) -> Iterator[Rows]:
    """Return the figures of tables and indexes."""
    labels = {"datname": "'postgres'", "schemaname": "schemaname", "relname": "relname"}
    columns = COUNTERS | {name: f"extract(epoch FROM {column})" for name, column in TIMES.items()}
    columns |= (SINCE_16 if major >= 16 else {}) | (SINCE_18 if major >= 18 else {})
    figures = {f"pg_stat_user_tables_{name}": column for name, column in columns.items()}
    yield "tables", "pg_stat_user_tables", labels, figures
    figures = {f"pg_statio_user_tables_{name}": column for name, column in BLOCKS.items()}
    yield "tables", "pg_statio_user_tables", labels, figures
    figures = gauges("pg_large_table", "rows=n_live_tup") | total(
        "pg_large_table", "seq_scans=seq_scan seq_rows_read=seq_tup_read"
    )
    yield "large_tables", "pg_stat_user_tables", labels, figures
    for place in ("dusty_pkey", "dusty_name_idx"):
        where = f"WHERE indexrelname = '{place}'"
        index = labels | {"indexrelname": "indexrelname"}
        figures = total("pg_stat_user_indexes", "scans=idx_scan entries_read=idx_tup_read rows_fetched=idx_tup_fetch")
        figures |= times("pg_stat_user_indexes", "last_scan=last_idx_scan") if major >= 16 else {}
        yield "indexes", f"pg_stat_user_indexes {where}", index, figures
        figures = total("pg_statio_user_indexes", "blocks_hit=idx_blks_hit blocks_read=idx_blks_read")
        yield "indexes", f"pg_statio_user_indexes {where}", index, figures


def on_standby(major: int) -> Iterator[Rows]:
    """Return likewise what only a standby has."""
    figures = total(
        "pg_stat_recovery_prefetch", "blocks=prefetch hits=hit skipped=skip_init+skip_new+skip_fpw+skip_rep"
    )
    yield "recovery", "pg_stat_recovery_prefetch", {}, figures
    figures = times("pg_stat_wal_receiver", "last_message=last_msg_receipt_time latest_end=latest_end_time")
    yield "recovery", "pg_stat_wal_receiver", {}, figures
    causes = {"tablespace": "tablespace", "lock": "lock", "snapshot": "snapshot", "bufferpin": "bufferpin", "deadlock":
              "deadlock"} | ({"logical_slot": "active_logicalslot"} if major >= 16 else {})  # fmt: skip
    for cause, column in causes.items():
        labels = {"datname": "datname", "cause": f"'{cause}'"}
        figures = {"pg_stat_database_conflicts_by_cause_total": f"confl_{column}"}
        yield "database", "pg_stat_database_conflicts WHERE datname = 'postgres'", labels, figures
