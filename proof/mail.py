"""Messages in a host's mailbox: which alert each one is about, its text and its links."""

import email
import email.policy
import html
import re
from dataclasses import dataclass
from email.message import EmailMessage

from lab import Machine

_MAILBOX = "/var/mail/operator"
_HREF = re.compile(r'href="([^"]+)"')
_LINK = re.compile(r"https?://[^\s<>\"]+")


@dataclass(frozen=True)
class Mail:
    """One message; `status` is `firing` or `resolved`."""

    alert: str
    status: str
    subject: str
    text: str
    html: str

    @property
    def links(self) -> set[str]:
        """Every address in the text and in the HTML."""
        return set(_LINK.findall(self.text)) | {html.unescape(link) for link in _HREF.findall(self.html)}


def read(machine: Machine) -> list[Mail]:
    """Return the messages in the order of their arrival."""
    parts = re.split(r"(?m)^From .*\n", machine.succeed(f"cat {_MAILBOX}"))[1:]
    return [_mail(email.message_from_string(part, policy=email.policy.default)) for part in parts]


def _mail(message: EmailMessage) -> Mail:
    text, rich = (message.get_body((kind,)) for kind in ("plain", "html"))
    return Mail(
        alert=str(message["X-Messwarte-Alert"]),
        status=str(message["X-Messwarte-Status"]),
        subject=str(message["Subject"]),
        text=text.get_content() if text else "",
        html=rich.get_content() if rich else "",
    )
