"""Changes by hand to a deployed host: its files, programs, users, units, and Grafana."""

from tests.hosts.row import Row

_CURL = "curl -fsS -o /dev/null -u admin:$(cat /etc/messwarte/grafana/current/credentials/admin_password)"
_JSON = "-H 'Content-Type: application/json'"
_USERS = "sqlite3.connect('/var/lib/grafana/grafana.db').execute(\\\"SELECT id FROM user WHERE login = 'viewer'\\\")"
_VIEWER = f'$(python3 -c "import sqlite3; print({_USERS}.fetchone()[0])")'
_REDIS = (
    "REDISCLI_AUTH=$(cat /etc/messwarte/redis/current/monitor_password) "
    "redis-cli --user messwarte_monitor --no-auth-warning"
)
_OPT, _ETC = "/opt/messwarte/{}/current", "/etc/messwarte/{}/current"
# Lets in the user nobody: owner, a user, group, mask and others, each with rights and number.
_ACL = (
    'python3 -c "import os, struct, sys; entries = ((1, 6, -1), (2, 4, 65534), (4, 4, -1), (16, 4, -1), (32, 0, -1)); '
    "acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHi', *entry) for entry in entries); "
    'os.setxattr(sys.argv[1], sys.argv[2], acl)"'
)


ROWS = {
    # Before another row changes who may send a signal to whom.
    "configuration that a daemon has reloaded, and nobody sees": Row(
        f"f={_ETC.format('prometheus')}/prometheus.yml; cp $f /root/kept; "
        "sed -i 's/^  scrape_interval: .*/  scrape_interval: 59s/' $f; systemctl reload prometheus; sleep 2; "
        "cat /root/kept > $f; curl -fsS http://127.0.0.1:9090/api/v1/status/config | grep 'scrape_interval: 59s'",
        {"prometheus": ["/etc/messwarte/prometheus/*/prometheus.yml was touched after prometheus.service had read it"]},
        "! curl -fsS http://127.0.0.1:9090/api/v1/status/config | grep 'scrape_interval: 59s'",
    ),
    "configuration that a daemon has started with, and nobody sees": Row(
        f"f={_ETC.format('redis')}/redis.conf; cp $f /root/kept; sed -i 's/^maxmemory .*/maxmemory 60mb/' $f; "
        f"systemctl restart redis-server; cat /root/kept > $f; {_REDIS} INFO memory | grep '^maxmemory:62914560'",
        {"redis": ["/etc/messwarte/redis/*/redis.conf was touched after redis-server.service had read it"]},
        f"! {_REDIS} INFO memory | grep '^maxmemory:62914560'",
        "redis-server",
    ),
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
    "drop-in where systemd attaches units": Row(
        "d=/run/systemd/system.attached/prometheus.service.d; mkdir -p $d; "
        "printf '[Service]\\nUser=root\\n' > $d/zz.conf; systemctl daemon-reload",
        {
            "prometheus": [
                "prometheus.service has /run/systemd/system.attached/prometheus.service.d/zz.conf",
            ]
        },
        "! systemctl show -p User prometheus | grep -qx User=root",
        "prometheus",
    ),
    "unit file of a package": Row(
        "echo '# by hand' >> /usr/lib/systemd/system/prometheus-alertmanager.service; systemctl daemon-reload",
        {
            "alertmanager": [
                "prometheus-alertmanager.service has /usr/lib/systemd/system/prometheus-alertmanager.service, "
                "which is not as its package brought it",
            ]
        },
        "! grep -q 'by hand' /usr/lib/systemd/system/prometheus-alertmanager.service",
        "prometheus-alertmanager",
    ),
    "unit that another target starts": Row(
        "cd /etc/systemd/system; mkdir -p rescue.target.wants; "
        "mv multi-user.target.wants/redis-server.service rescue.target.wants",
        {"redis": ["redis-server.service is enabled by rescue.target.wants instead of multi-user.target.wants"]},
        "cd /etc/systemd/system && test -L multi-user.target.wants/redis-server.service "
        "&& ! test -L rescue.target.wants/redis-server.service",
    ),
    "folder of our drop-ins": Row(
        "chmod 777 /etc/systemd/system/redis-server.service.d",
        {"redis": ["/etc/systemd/system/redis-server.service.d is 777 root:root instead of 755 root:root"]},
        "test $(stat -c %a /etc/systemd/system/redis-server.service.d) = 755",
    ),
    "access control list": Row(
        f"{_ACL} {_ETC.format('gate')}/tls/host.key system.posix_acl_access",
        {"gate": ["/etc/messwarte/gate/*/tls/host.key (mode 640+ instead of 640)"]},
        f"python3 -c \"import os; assert not os.listxattr('{_ETC.format('gate')}/tls/host.key')\"",
        "messwarte-gate",
    ),
    "file whose name is no text": Row(
        f"touch \"$(printf '{_ETC.format('prometheus')}/rules/\\374.yml')\"",
        {"prometheus": ["/etc/messwarte/prometheus/*/rules/\\udcfc.yml is not ours"]},
        f"! ls {_ETC.format('prometheus')}/rules | grep -av '^[a-z_]*.yml$'",
        "prometheus",
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
        "chmod 775 /etc/messwarte; chown redis /var/lib/messwarte; "
        "chmod 777 /var/lib/redis /etc/messwarte/erp /var/lib/prometheus /var/lib/postgresql",
        {
            "erp": ["/etc/messwarte/erp is 777 root:root instead of 755 root:root"],
            "journal": [
                "/etc/messwarte is 775 root:root instead of 755 root:root",
                "/var/lib/messwarte is 700 redis:root instead of 700 root:root",
            ],
            "redis": ["/var/lib/redis is 777 redis:redis instead of 750 redis:redis"],
            "prometheus": ["/var/lib/prometheus is 777 prometheus:prometheus instead of 755 prometheus:prometheus"],
            "postgresql": ["/var/lib/postgresql is 777 postgres:postgres instead of 755 postgres:postgres"],
        },
        'test "$(stat -c %a%U /etc/messwarte /var/lib/redis /var/lib/messwarte /etc/messwarte/erp '
        '/var/lib/prometheus /var/lib/postgresql | xargs)" '
        "= '755root 750redis 700root 755root 755prometheus 755postgres'",
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
