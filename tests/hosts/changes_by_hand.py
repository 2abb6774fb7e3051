"""Changes by hand to a deployed host, what `deploy --check` has to say of each, and how to see that it is healed."""

from dataclasses import dataclass

_PSQL = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1"
_ERP = f"{_PSQL} -d erp"
_CURL = "curl -fsS -o /dev/null -u admin:$(cat /etc/messwarte/grafana/current/credentials/admin_password)"
_JSON = "-H 'Content-Type: application/json'"
_USERS = "sqlite3.connect('/var/lib/grafana/grafana.db').execute(\\\"SELECT id FROM user WHERE login = 'viewer'\\\")"
_VIEWER = f'$(python3 -c "import sqlite3; print({_USERS}.fetchone()[0])")'
_CONF_D = "/etc/postgresql/17/main/conf.d"
_OPT, _ETC = "/opt/messwarte/{}/current", "/etc/messwarte/{}/current"


@dataclass(frozen=True)
class Row:
    """A change by hand, what the check has to say of it (shell patterns, by component), and when it is healed.

    `restarts` are the units that a deploy may start anew to heal it.
    """

    change: str
    said: dict[str, list[str]]
    healed: str
    restarts: str = ""


ROWS = {
    "files of a program": Row(
        f"cd -P {_OPT.format('tasks')}/erp_tasks; echo >> __init__.py; rm api.py; touch zz.py; chmod 666 __main__.py",
        {
            "tasks": [
                "/opt/messwarte/tasks/*/erp_tasks/__init__.py was changed",
                "/opt/messwarte/tasks/*/erp_tasks/__main__.py was changed",
                "/opt/messwarte/tasks/*/erp_tasks/api.py is missing",
                "1 more below /opt/messwarte/tasks/*",
            ]
        },
        f"cd {_OPT.format('tasks')}/erp_tasks && test -s api.py && ! test -e zz.py "
        "&& test $(stat -c %a __main__.py) = 644",
        "messwarte-tasks-worker messwarte-tasks-api",
    ),
    "file of a program with the same size and moment": Row(
        f"cd -P {_OPT.format('erp')}/erp; touch -r __init__.py /root/then; sed -i s/food/Food/ __init__.py; "
        "touch -r /root/then __init__.py",
        {name: ["/opt/messwarte/erp/*/erp/__init__.py was changed"] for name in ("demo_data", "erp", "erp_load")},
        f"grep -q food {_OPT.format('erp')}/erp/__init__.py",
        "messwarte-erp messwarte-erp-load",
    ),
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
    "drop-ins of strangers": Row(
        "systemctl set-property prometheus-node-exporter CPUWeight=50; "
        "d=/etc/systemd/system/prometheus-node-exporter.service.d; l=/usr/local/lib/systemd/system/${d##*/}; "
        "mkdir -p $l; touch $d/zz.conf.by-hand; "
        "printf '[Service]\\nProtectSystem=false\\n' | tee $d/zz.conf \"$d/z y.conf\" > $l/zx.conf; "
        "systemctl daemon-reload",
        {
            "node_exporter": [
                "prometheus-node-exporter.service has /usr/local/lib/systemd/system/*.d/zx.conf",
                "prometheus-node-exporter.service has /etc/systemd/system/prometheus-node-exporter.service.d/z y.conf",
                "prometheus-node-exporter.service has /etc/systemd/system.control/*/*.conf",
                "prometheus-node-exporter.service has /etc/systemd/system/prometheus-node-exporter.service.d/zz.conf",
            ]
        },
        "systemctl show -p ProtectSystem prometheus-node-exporter | grep -qx ProtectSystem=strict && "
        "test -s /etc/systemd/system/prometheus-node-exporter.service.d/zz.conf.by-hand.2",
        "prometheus-node-exporter",
    ),
    "drop-in of a stranger for units of several components": Row(
        "d=/etc/systemd/system/prometheus-.service.d; mkdir $d; "
        "printf '[Service]\\nEnvironment=BY_HAND=1\\n' > $d/zw.conf; "
        "systemctl daemon-reload; systemctl restart prometheus-node-exporter prometheus-alertmanager",
        {
            component: [f"{unit}.service has /etc/systemd/system/prometheus-.service.d/zw.conf"]
            for component, unit in (
                ("node_exporter", "prometheus-node-exporter"),
                ("alertmanager", "prometheus-alertmanager"),
            )
        },
        "for unit in prometheus-node-exporter prometheus-alertmanager; do "
        "! grep -q BY_HAND /proc/$(systemctl show --value -p MainPID $unit)/environ || exit 1; done",
        "prometheus-node-exporter prometheus-alertmanager",
    ),
    "unit that is kept from running": Row(
        "systemctl unmask --quiet nginx; systemctl start nginx",
        {"gate": ["nginx.service is active/* instead of masked"]},
        "! systemctl is-active nginx && systemctl is-enabled nginx | grep -qx masked",
    ),
    "unit replaced": Row(
        "cp /usr/lib/systemd/system/prometheus-alertmanager.service /etc/systemd/system/; systemctl daemon-reload",
        {
            "alertmanager": [
                "prometheus-alertmanager.service has /etc/systemd/system/prometheus-alertmanager.service",
                "prometheus-alertmanager.service lacks /usr/lib/systemd/system/prometheus-alertmanager.service",
            ]
        },
        "systemctl show -p FragmentPath prometheus-alertmanager | grep -q =/usr/lib/",
        "prometheus-alertmanager",
    ),
    "unit masked": Row(
        "systemctl mask --quiet --now prometheus-redis-exporter",
        {
            "redis_exporter": [
                "prometheus-redis-exporter.service *",
                "prometheus-redis-exporter.service is inactive/masked",
            ]
        },
        "systemctl is-active prometheus-redis-exporter && systemctl is-enabled prometheus-redis-exporter",
        "prometheus-redis-exporter",
    ),
    "unit stopped": Row(
        "systemctl stop messwarte-refresh.timer",
        {"migrations": ["messwarte-refresh.timer is inactive/enabled"]},
        "systemctl is-active messwarte-refresh.timer",
    ),
    "unit disabled": Row(
        "systemctl disable --quiet postfix",
        {"mailbox": ["postfix.service is active/disabled"]},
        "systemctl is-enabled postfix",
    ),
    "user of a service": Row(
        "usermod --shell /bin/bash --gid postgres --append --groups adm --password '$6$x$y' messwarte-exporter",
        {
            "pgstat_exporter": [
                "user messwarte-exporter has shell /bin/bash, groups * first adm, a password "
                "instead of shell /usr/sbin/nologin, groups -, no password"
            ]
        },
        "getent passwd messwarte-exporter | grep -q nologin && test $(id -Gn messwarte-exporter) = messwarte-exporter",
    ),
    "group of a service": Row(
        "usermod --append --groups messwarte-tasks redis; useradd --no-create-home --gid messwarte-tasks mallory",
        {"tasks": ["user messwarte-tasks has *, its group shared with mallory redis instead of *"]},
        "test $(id -Gn redis) = redis && test $(id -Gn mallory) = nogroup",
    ),
    "folder of a program": Row(
        f"chmod 777 /opt/messwarte/pgstat_exporter $(readlink -f {_OPT.format('pgstat_exporter')})",
        {
            "pgstat_exporter": [
                "/opt/messwarte/pgstat_exporter is 777 root:root instead of 755 root:root",
                "/opt/messwarte/pgstat_exporter/*/. was changed",
            ]
        },
        "! find /opt/messwarte/pgstat_exporter -maxdepth 1 -perm 777 -type d | grep .",
        "messwarte-pgstat-exporter",
    ),
    "strangers beside programs": Row(
        "ln -s /srv /opt/messwarte/own; mkdir /opt/messwarte/mine; touch /opt/messwarte/mine/kept /srv/.kept",
        {},
        "test -e /opt/messwarte/mine/kept && test -e /opt/messwarte/own/.kept",
    ),
    "folders": Row(
        "chmod 775 /etc/messwarte; chmod 777 /var/lib/redis /etc/messwarte/erp; chown redis /var/lib/messwarte",
        {
            "erp": ["/etc/messwarte/erp is 777 root:root instead of 755 root:root"],
            "journal": [
                "/etc/messwarte is 775 root:root instead of 755 root:root",
                "/var/lib/messwarte is 700 redis:root instead of 700 root:root",
            ],
            "redis": ["/var/lib/redis is 777 redis:redis instead of 750 redis:redis"],
        },
        'test "$(stat -c %a%U /etc/messwarte /var/lib/redis /var/lib/messwarte /etc/messwarte/erp | xargs)" '
        "= '755root 750redis 700root 755root'",
    ),
    "limits of the journal": Row(
        "cd /etc/systemd/journald.conf.d; touch /root/precious; "
        "printf '# /root/precious\\n[Journal]\\n\\tSystemMaxUse = 9G\\n' | tee aa.conf 'zz in x.conf' > zzz.conf",
        {
            "journal": [
                "limits: no longer SystemMaxUse=* in /etc/systemd/journald.conf.d/messwarte.conf",
                "limits: now SystemMaxUse=9G in /etc/systemd/journald.conf.d/zzz.conf",
            ]
        },
        "cd /etc/systemd/journald.conf.d && test -e /root/precious && "
        "test \"$(ls | xargs)\" = 'aa.conf messwarte.conf zz in x.conf.by-hand zzz.conf.by-hand'",
    ),
    "mode of a credential": Row(
        f"chmod 644 {_ETC.format('redis')}/monitor_password",
        {"redis": ["/etc/messwarte/redis/*/monitor_password (mode 644 instead of 600)"]},
        f"test $(stat -L -c %a {_ETC.format('redis')}/monitor_password) = 600",
        "redis-server",
    ),
    "deleted rules": Row(
        f"rm {_ETC.format('prometheus')}/rules/thresholds.yml",
        {
            "prometheus": [
                "/etc/messwarte/prometheus/*/rules (content)",
                "/etc/messwarte/prometheus/*/rules/thresholds.yml is missing",
            ]
        },
        f"test -s {_ETC.format('prometheus')}/rules/thresholds.yml",
    ),
}
GRAFANA = {
    "accounts of Grafana": Row(
        f"""b=http://127.0.0.1:3000/api; {_CURL} {_JSON} -X PUT -d '{{"isGrafanaAdmin": true}}' """
        f"""$b/admin/users/{_VIEWER}/permissions; {_CURL} {_JSON} -X PATCH -d '{{"role": "Editor"}}' """
        f"""$b/orgs/1/users/{_VIEWER}; {_CURL} {_JSON} """
        f"""-d '{{"login": "own", "password": "long-enough-1"}}' $b/admin/users; """
        f"cd -P {_OPT.format('grafana')}/*/conf; echo '# by hand' >> defaults.ini",
        {
            "grafana": [
                "/opt/messwarte/grafana/*/conf/defaults.ini was changed",
                "accounts: no longer viewer: Viewer of organisation 1, password *",
                "accounts: now viewer: server admin, Editor of organisation 1, password *",
            ]
        },
        # Users that are not ours are the operator's.
        "python3 -I /etc/messwarte/grafana/current/probe.py | grep -q '^viewer: Viewer of' && "
        'python3 -c "import sqlite3; '
        "print(*sqlite3.connect('/var/lib/grafana/grafana.db').execute('SELECT login FROM user'))\" "
        f"| grep -q own && ! grep -q 'by hand' {_OPT.format('grafana')}/*/conf/defaults.ini",
        "grafana-server",
    )
}
