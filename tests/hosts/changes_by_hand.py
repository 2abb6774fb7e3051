"""Changes by hand to a deployed host, what `deploy --check` has to say of each, and how to see that it is healed."""

from dataclasses import dataclass

_PSQL = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1"
_ERP = f"{_PSQL} -d erp"
_CURL = "curl -fsS -o /dev/null -u admin:$(cat /etc/messwarte/grafana/current/credentials/admin_password)"
_JSON = "-H 'Content-Type: application/json'"
_USERS = "sqlite3.connect('/var/lib/grafana/grafana.db').execute(\\\"SELECT id FROM user WHERE login = 'viewer'\\\")"
_VIEWER = f'$(python3 -c "import sqlite3; print({_USERS}.fetchone()[0])")'
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
        "-c \"ALTER ROLE erp_app NOINHERIT CONNECTION LIMIT 7 VALID UNTIL '2020-01-01'\" "
        "-c 'ALTER DEFAULT PRIVILEGES FOR ROLE erp_owner IN SCHEMA public GRANT SELECT ON TABLES TO stranger'",
        {
            "database": [
                "roles and database: now role erp_app NOINHERIT CONNECTION LIMIT 7 VALID UNTIL 2020-* PASSWORD *",
                "roles and database: now role stranger SUPERUSER",
                "roles and database: now stranger is a member of erp_owner",
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
        "-c 'GRANT SELECT, DELETE, UPDATE (status) ON charge TO messwarte_monitor'",
        {
            "database": [
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
        "printf 'random_page_cost = 3\\nmaintenance_work_mem = 1111kB\\n' > /etc/postgresql/17/main/conf.d/zz.conf; "
        "systemctl disable --quiet postgresql.service; systemctl daemon-reload",
        {
            "postgresql": [
                "/etc/messwarte/postgresql/*/pg_hba.conf (content)",
                "/etc/messwarte/postgresql/*/pg_ident.conf (content)",
                "/etc/messwarte/postgresql/*/start.conf (content)",
                "postgresql@17-main.service is active/disabled",
                "postgresql.service is */disabled",
                "settings: now compute_query_id=off for role ALL in database ALL",
                "settings: now maintenance_work_mem = 1111kB in /etc/postgresql/17/main/conf.d/zz.conf",
                "settings: now track_io_timing=off for role ALL in database erp",
                "settings: now work_mem = 1111 in /var/lib/postgresql/17/main/postgresql.auto.conf",
                "settings: now work_mem=2222kB for role erp_app in database ALL",
            ]
        },
        # What is no setting of ours is the operator's.
        f"{_PSQL} -c \"SELECT string_agg(conf, ' ') FROM pg_db_role_setting, unnest(setconfig) AS conf\" "
        f'| grep -qx search_path=public && {_PSQL} -c "SELECT count(*) FROM pg_hba_file_rules '
        "WHERE auth_method = 'trust'\" "
        "| grep -qx 0 && test -e /etc/postgresql/17/main/conf.d/zz.conf.by-hand && "
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
        "d=/etc/systemd/system/prometheus-node-exporter.service.d; "
        "printf '[Service]\\nProtectSystem=false\\n' > $d/zz.conf; systemctl daemon-reload",
        {
            "node_exporter": [
                "prometheus-node-exporter.service has /etc/systemd/system.control/*/*.conf",
                "prometheus-node-exporter.service has /etc/systemd/system/prometheus-node-exporter.service.d/zz.conf",
            ]
        },
        "systemctl show -p ProtectSystem prometheus-node-exporter | grep -qx ProtectSystem=strict && "
        "test -e /etc/systemd/system/prometheus-node-exporter.service.d/zz.conf.by-hand",
        "prometheus-node-exporter",
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
        "usermod --shell /bin/bash --append --groups adm --password '$6$x$y' messwarte-exporter",
        {
            "pgstat_exporter": [
                "user messwarte-exporter has shell /bin/bash, groups adm, a password "
                "instead of shell /usr/sbin/nologin, groups -, no password"
            ]
        },
        "getent passwd messwarte-exporter | grep -q nologin && test $(id -Gn messwarte-exporter) = messwarte-exporter",
    ),
    "group of a service": Row(
        "usermod --append --groups messwarte-tasks redis",
        {"tasks": ["user messwarte-tasks has *, its group shared with redis instead of *"]},
        "test $(id -Gn redis) = redis",
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
        "cd /etc/systemd/journald.conf.d; printf '[Journal]\\nSystemMaxUse = 9G\\n' | tee aa.conf zz.conf > zzz.conf",
        {
            "journal": [
                "limits: no longer SystemMaxUse=* in /etc/systemd/journald.conf.d/messwarte.conf",
                "limits: now SystemMaxUse=9G in /etc/systemd/journald.conf.d/zzz.conf",
            ]
        },
        "cd /etc/systemd/journald.conf.d && "
        "test \"$(ls | xargs)\" = 'aa.conf messwarte.conf zz.conf.by-hand zzz.conf.by-hand'",
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
