"""The journal's size on every host; all that our services log goes there, PostgreSQL's log included."""

from deploy.component import Component, File, render
from deploy.plan import Plan
from settings.values import size_bytes

_T = "journal/templates"
_LINK = "/etc/systemd/journald.conf.d/messwarte.conf"
# What all components of a host have in common; this one is on every host.
_SHARED = {"/etc/messwarte": "755 root:root", "/opt/messwarte": "755 root:root", "/var/lib/messwarte": "700 root:root"}


def component(plan: Plan) -> Component:
    """Return the journal's limit for a host."""
    size = plan.settings.journal.max_size
    return Component(
        "journal",
        files=(
            File("journald.conf", render(f"{_T}/journald.conf.j2", max_bytes=size_bytes(size))),
            File("limits", render(f"{_T}/limits.j2", ours=_LINK), 0o755),
        ),
        links={_LINK: "journald.conf"},
        folders=_SHARED,
        # Another file that has the last word is its author's; it goes under a name that journald does not read.
        swapped=("./limits --set-aside",),
        # No unit of ours: stopped and started, instead of restarted, it would lose every service's output.
        after=("systemctl restart systemd-journald",),
        probes={"limits": "/etc/messwarte/journal/current/limits"},
        detail=f"at most {size}",
    )
