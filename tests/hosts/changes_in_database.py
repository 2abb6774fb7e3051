"""Changes by hand in the database of a deployed host: roles, rights, settings, objects of the versioned SQL."""

from tests.hosts.row import Row

_PSQL = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1"
_ERP = f"{_PSQL} -d erp"
_CONF_D = "/etc/postgresql/17/main/conf.d"
_ETC = "/etc/messwarte/{}/current"

DATABASE = {
    "roles and rights": Row(
        f"{_ERP} -c 'CREATE ROLE stranger LOGIN SUPERUSER' -c 'GRANT erp_owner TO stranger' "
        "-c 'GRANT SELECT ON artikel TO stranger' -c 'GRANT UPDATE (name) ON artikel TO PUBLIC' "
        "-c 'GRANT CONNECT ON DATABASE erp TO stranger' "
        "-c 'CREATE ROLE \"Odd Role\"' -c 'GRANT erp_owner TO \"Odd Role\"' "
        "-c 'ALTER DEFAULT PRIVILEGES FOR ROLE erp_owner GRANT EXECUTE ON FUNCTIONS TO stranger' "
        "-c \"ALTER ROLE erp_app NOINHERIT CONNECTION LIMIT 7 VALID UNTIL '2020-01-01'\" "
        "-c 'ALTER DEFAULT PRIVILEGES FOR ROLE erp_owner IN SCHEMA public GRANT SELECT ON TABLES TO stranger'",
        {
            "database": [
                "roles and database: now role erp_app NOINHERIT CONNECTION LIMIT 7 VALID UNTIL 2020-* PASSWORD *",
                "roles and database: now role stranger SUPERUSER",
                "roles and database: now stranger is a member of erp_owner",
                'roles and database: now "Odd Role" is a member of erp_owner',
                "roles and database: now EXECUTE for stranger on FUNCTIONS",
                "roles and database: now EXECUTE for erp_owner on FUNCTIONS",
                "roles and database: now CONNECT for stranger on DATABASE erp",
                "roles and database: now SELECT for stranger on TABLE artikel",
                "roles and database: now SELECT for stranger on TABLES",
                "roles and database: now UPDATE for PUBLIC on TABLE artikel",
                "roles and database: no longer role erp_app PASSWORD *",
            ]
        },
        f"{_ERP} -c \"SELECT rolsuper OR pg_has_role('stranger', 'erp_owner', 'member') "
        "OR has_any_column_privilege('stranger', 'artikel', 'SELECT, UPDATE') "
        "OR has_database_privilege('stranger', 'erp', 'CONNECT') FROM pg_roles WHERE rolname = 'stranger'\" "
        "| grep -qx f",
    ),
    "rights of the stack's own roles": Row(
        f"{_ERP} -c 'REVOKE SELECT, INSERT ON artikel FROM erp_app' -c 'GRANT TRUNCATE ON charge TO erp_app' "
        "-c 'GRANT SELECT, DELETE, UPDATE (status) ON charge TO messwarte_monitor' "
        "-c 'REVOKE INSERT ON auftrag FROM erp_owner' -c 'GRANT UPDATE ON SEQUENCE artikel_id_seq TO erp_app' "
        "-c 'CREATE ROLE later' -c 'GRANT SELECT ON lager TO erp_app WITH GRANT OPTION' -c 'SET ROLE erp_app' "
        "-c 'GRANT SELECT ON lager TO later' -c 'RESET ROLE' "
        "-c 'GRANT SELECT ON pg_authid TO erp_app' -c 'GRANT EXECUTE ON FUNCTION pg_read_file(text) TO erp_app' "
        "-c 'GRANT SET ON PARAMETER log_statement TO erp_app'",
        {
            "database": [
                "roles and database: now no INSERT for erp_owner on TABLE auftrag",
                "roles and database: now UPDATE for erp_app on SEQUENCE artikel_id_seq",
                "roles and database: now SELECT for erp_app WITH GRANT OPTION on TABLE lager",
                "roles and database: now SELECT for later on TABLE lager",
                "roles and database: now SELECT for erp_app on TABLE pg_authid",
                "roles and database: now EXECUTE for erp_app on ROUTINE pg_read_file(text)",
                "roles and database: now SET for erp_app on PARAMETER log_statement",
                "roles and database: now no INSERT for erp_app on TABLE artikel",
                "roles and database: now no SELECT for erp_app on TABLE artikel",
                "roles and database: now TRUNCATE for erp_app on TABLE charge",
                "roles and database: now DELETE for messwarte_monitor on TABLE charge",
                "roles and database: now UPDATE for messwarte_monitor on TABLE charge",
            ]
        },
        # Reading data is what `pgstat_exporter grants --data` gives, where an operator wants it.
        f"{_ERP} -c \"SELECT has_table_privilege('erp_app', 'artikel', 'SELECT'), "
        "has_table_privilege('erp_app', 'artikel', 'INSERT'), has_table_privilege('erp_app', 'charge', 'TRUNCATE'), "
        "has_table_privilege('messwarte_monitor', 'charge', 'SELECT'), "
        "has_table_privilege('messwarte_monitor', 'charge', 'DELETE'), "
        "has_any_column_privilege('messwarte_monitor', 'charge', 'UPDATE')\" | grep -qFx 't|t|f|t|f|f'",
    ),
    "rights of the stack's own roles elsewhere": Row(
        f"{_ERP} -c 'GRANT CREATE ON SCHEMA public TO erp_app' -c 'GRANT TEMPORARY ON DATABASE erp TO erp_app' "
        "-c 'ALTER DEFAULT PRIVILEGES FOR ROLE erp_owner IN SCHEMA public GRANT DELETE ON TABLES TO messwarte_monitor' "
        "-c 'GRANT pg_monitor TO messwarte_monitor WITH ADMIN OPTION' -c 'GRANT pg_read_all_data TO pg_monitor'",
        {
            "database": [
                "roles and database: now CREATE for erp_app on SCHEMA public",
                "roles and database: now TEMPORARY for erp_app on DATABASE erp",
                "roles and database: now DELETE for messwarte_monitor on TABLES",
                "roles and database: now messwarte_monitor is a member of pg_monitor WITH ADMIN OPTION",
                "roles and database: no longer messwarte_monitor is a member of pg_monitor",
                "roles and database: now pg_monitor is a member of pg_read_all_data",
            ]
        },
        f"{_ERP} -c \"SELECT has_schema_privilege('erp_app', 'public', 'CREATE'), "
        "has_database_privilege('erp_app', 'erp', 'TEMPORARY'), has_table_privilege('erp_app', 'pg_authid', 'SELECT'), "
        "has_function_privilege('erp_app', 'pg_read_file(text)', 'EXECUTE'), "
        "has_table_privilege('later', 'lager', 'SELECT'), "
        "pg_has_role('messwarte_monitor', 'pg_read_all_data', 'member'), "
        "pg_has_role('messwarte_monitor', 'pg_monitor', 'usage')\" | grep -qFx 'f|f|f|f|f|f|t'",
    ),
    "database and extension": Row(
        f"{_PSQL} -c 'ALTER DATABASE erp CONNECTION LIMIT 50'; "
        f"{_ERP} -c 'CREATE SCHEMA elsewhere' -c 'ALTER EXTENSION pg_stat_statements SET SCHEMA elsewhere'",
        {
            "database": [
                "roles and database: no longer database erp of erp_owner",
                "roles and database: now database erp of erp_owner CONNECTION LIMIT 50",
                "roles and database: no longer extension pg_stat_statements * in public",
                "roles and database: now extension pg_stat_statements * in elsewhere",
            ]
        },
        f"{_ERP} -c 'SELECT count(*) FROM public.pg_stat_statements'",
    ),
    "settings and access of PostgreSQL": Row(
        f"{_PSQL} -c 'ALTER SYSTEM SET work_mem = 1111' -c \"ALTER ROLE erp_app SET work_mem = '2222kB'\" "
        "-c 'ALTER DATABASE erp SET track_io_timing = off' -c 'ALTER ROLE ALL SET compute_query_id = off' "
        "-c \"ALTER ROLE erp_app SET search_path = 'public'\"; "
        f"echo 'host all all all trust' >> {_ETC.format('postgresql')}/pg_hba.conf; "
        f"echo 'messwarte root erp_owner' >> {_ETC.format('postgresql')}/pg_ident.conf; "
        "echo manual > /etc/postgresql/17/main/start.conf; "
        f"printf 'random_page_cost = 3\\nvacuum_mem = 1111kB\\n' > {_CONF_D}/zz.conf; "
        f"echo 'Track_IO_Timing = off' > \"{_CONF_D}/z 'y.conf\"; echo 'log_lock_waits = off' > {_CONF_D}/aa.conf; "
        "systemctl disable --quiet postgresql.service; systemctl daemon-reload",
        {
            "postgresql": [
                "/etc/messwarte/postgresql/*/pg_hba.conf (content)",
                "/etc/messwarte/postgresql/*/pg_ident.conf (content)",
                "/etc/messwarte/postgresql/*/start.conf (content)",
                "postgresql@17-main.service is active/disabled",
                "postgresql.service is */disabled",
                "settings: now compute_query_id=off for role ALL in database ALL",
                f"settings: now vacuum_mem = 1111kB in {_CONF_D}/zz.conf",
                f"settings: no longer maintenance_work_mem = * in {_CONF_D}/messwarte.conf",
                f"settings: now Track_IO_Timing = off in {_CONF_D}/z 'y.conf",
                f"settings: no longer track_io_timing = on in {_CONF_D}/messwarte.conf",
                f"settings: no longer work_mem = * in {_CONF_D}/messwarte.conf",
                "settings: now track_io_timing=off for role ALL in database erp",
                "settings: now work_mem = 1111 in /var/lib/postgresql/17/main/postgresql.auto.conf",
                "settings: now work_mem=2222kB for role erp_app in database ALL",
            ]
        },
        # What is no setting of ours is the operator's.
        f"{_PSQL} -c \"SELECT string_agg(conf, ' ') FROM pg_db_role_setting, unnest(setconfig) AS conf\" "
        f'| grep -qx search_path=public && {_PSQL} -c "SELECT count(*) FROM pg_hba_file_rules '
        "WHERE auth_method = 'trust'\" "
        f"| grep -qx 0 && test -e {_CONF_D}/zz.conf.by-hand && "
        "systemctl is-enabled postgresql && systemctl is-enabled postgresql@17-main",
    ),
    "objects of the versioned SQL": Row(
        f"{_ERP} -c 'DROP INDEX idx_charge_art_date' -c 'DROP MATERIALIZED VIEW mv_chargen_pro_kategorie' "
        "-c \"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_artikel_kat_name'::regclass\"",
        {
            "migrations": [
                "versioned SQL: now idx_artikel_kat_name is invalid",
                "versioned SQL: now idx_charge_art_date is missing",
                "versioned SQL: now mv_chargen_pro_kategorie is missing",
                "versioned SQL: now mv_chargen_pro_kategorie_kategorie_key is missing",
            ]
        },
        "messwarte-migrate status | grep -q 'erp: current' && "
        f'{_ERP} -c "SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid::regclass::text IN '
        "('idx_charge_art_date', 'idx_artikel_kat_name', 'mv_chargen_pro_kategorie_kategorie_key')\" | grep -qx 3",
    ),
    "rights of everybody over the system": Row(
        f"{_ERP} -c 'GRANT SELECT ON pg_authid TO PUBLIC' -c 'GRANT EXECUTE ON FUNCTION pg_read_file(text) TO PUBLIC' "
        "-c 'GRANT SET ON PARAMETER log_statement TO PUBLIC'",
        {
            "database": [
                "roles and database: now SELECT for PUBLIC on TABLE pg_authid",
                "roles and database: now EXECUTE for PUBLIC on ROUTINE pg_read_file(text)",
                "roles and database: now SET for PUBLIC on PARAMETER log_statement",
            ]
        },
        f"{_ERP} -c \"SELECT has_table_privilege('erp_app', 'pg_authid', 'SELECT') "
        "OR has_function_privilege('erp_app', 'pg_read_file(text)', 'EXECUTE') "
        "OR has_parameter_privilege('erp_app', 'log_statement', 'SET')\" | grep -qx f",
    ),
}
