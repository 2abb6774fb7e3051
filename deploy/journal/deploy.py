"""The journal's size on every host; all that our services log goes there, PostgreSQL's log included."""

from deploy.component import Component, File, render
from deploy.plan import Plan
from settings.values import size_bytes

_LINK = "/etc/systemd/journald.conf.d/messwarte.conf"


def component(plan: Plan) -> Component:
    """Return the journal's limit for a host."""
    size = plan.settings.journal.max_size
    return Component(
        "journal",
        files=(File("journald.conf", render("journal/templates/journald.conf.j2", max_bytes=size_bytes(size))),),
        links={_LINK: "journald.conf"},
        # No unit of ours: stopped and started, instead of restarted, it would lose every service's output.
        after=("systemctl restart systemd-journald",),
        detail=f"at most {size}",
    )
