"""Postfix with the local mailbox `operator`: where a stack that is tried out sends its alerts."""

from deploy.component import Component, File, Unit, render
from deploy.plan import Plan


def component(plan: Plan) -> Component | None:
    """Return the mailbox for the monitoring host."""
    if not plan.settings.mailbox or not plan.here("monitoring"):
        return None
    return Component(
        "mailbox",
        packages=("postfix",),
        users=('u operator - "Receives alerts" /var/mail',),
        before=("echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections",),
        files=(
            File("main.cf", render("mailbox/templates/main.cf.j2")),
            File("master.cf", render("mailbox/templates/master.cf.j2")),
            File("drop-in.conf", render("mailbox/templates/drop-in.conf.j2")),
        ),
        links={
            "/etc/postfix/main.cf": "main.cf",
            "/etc/postfix/master.cf": "master.cf",
            "/etc/systemd/system/postfix.service.d/messwarte.conf": "drop-in.conf",
        },
        units=(Unit("postfix.service"),),
        after=(
            "install -o operator -g mail -m 0660 -T /dev/null /var/mail/operator.new",
            "mv -n /var/mail/operator.new /var/mail/operator; rm -f /var/mail/operator.new",
        ),
        ready=("timeout 2 bash -c 'read -r line </dev/tcp/127.0.0.1/25 && [[ $line == 220* ]]'",),
        ports=(25,),
        detail="mail to operator@localhost lies in /var/mail/operator",
    )
