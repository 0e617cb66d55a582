"""Mail by SMTP: one connection, several messages, never inside a transaction. RFC 5321, RFC 3207, RFC 8314.

The password is said only over TLS, unless the setting says that there is none; it stands in no error.
"""

import smtplib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime, localtime

from pileus.server.config import keys, value
from pileus.server.db.transaction import Tx

TLS_PORT = 465
_NAME = "pileus"


class MailFailed(Exception):
    """The mail server could not be reached, or said no. The text holds no password."""


@dataclass(frozen=True)
class MailSettings:
    """Where mail goes, from the settings `alert.*`."""

    host: str
    port: int
    security: str
    truststore: str
    timeout_seconds: int
    username: str | None
    password: str = field(repr=False)
    sender: str
    recipients: tuple[str, ...]


@dataclass(frozen=True)
class Mail:
    """One message. `uuid` makes its Message-ID: sent twice, it is known as the same."""

    uuid: str
    subject: str
    body: str


def mail_settings(tx: Tx) -> MailSettings | None:
    """The settings in force; None while there is no mail server or nobody to write to."""
    recipients = tuple(each.strip() for each in value(tx, keys.alert_email_addresses).split(",") if each.strip())
    host = value(tx, keys.alert_smtp_host).strip()
    if not host or not recipients:
        return None
    return MailSettings(
        host=host,
        port=value(tx, keys.alert_smtp_port),
        security=value(tx, keys.alert_smtp_security),
        truststore=value(tx, keys.alert_smtp_truststore),
        timeout_seconds=value(tx, keys.alert_smtp_timeout),
        username=value(tx, keys.alert_smtp_username) if value(tx, keys.alert_smtp_useAuth) else None,
        password=value(tx, keys.alert_smtp_password),
        sender=value(tx, keys.alert_email_sender).strip() or recipients[0],
        recipients=recipients,
    )


@contextmanager
def line(settings: MailSettings) -> Iterator["Line"]:
    """A connection to the mail server, signed in if need be. Raises `MailFailed`."""
    try:
        server = _connected(settings)
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise MailFailed(_said(settings, error)) from None
    try:
        yield Line(server, settings)
    finally:
        try:
            server.quit()
        except (OSError, smtplib.SMTPException):
            server.close()


@dataclass(frozen=True)
class Line:
    """An open connection."""

    server: smtplib.SMTP
    settings: MailSettings

    def send(self, mail: Mail) -> Sequence[str]:
        """Have the server take a message; returns the recipients it refused, if it took it for others."""
        message = EmailMessage()
        message["From"] = self.settings.sender
        message["To"] = ", ".join(self.settings.recipients)
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(localtime())
        message["Message-ID"] = f"<{mail.uuid}@{_NAME}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.body)
        try:
            refused = self.server.send_message(message, self.settings.sender, list(self.settings.recipients))
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise MailFailed(_said(self.settings, error)) from None
        return sorted(refused)


def _connected(settings: MailSettings) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=settings.truststore or None)
    place = (settings.host, settings.port)
    whole = settings.security == "tls" or (settings.security == "auto" and settings.port == TLS_PORT)
    if whole:
        server: smtplib.SMTP = smtplib.SMTP_SSL(*place, timeout=settings.timeout_seconds, context=context)
    else:
        server = smtplib.SMTP(*place, timeout=settings.timeout_seconds)
    try:
        secret = whole or _secured(server, settings, context)
        if settings.username is not None:
            if not secret and settings.security != "none":
                raise MailFailed(f"{settings.host} offers no TLS: the password is not sent")
            server.login(settings.username, settings.password)
    except BaseException:
        server.close()
        raise
    return server


def _secured(server: smtplib.SMTP, settings: MailSettings, context: ssl.SSLContext) -> bool:
    server.ehlo()
    if settings.security == "none" or (settings.security == "auto" and not server.has_extn("starttls")):
        return False
    server.starttls(context=context)
    server.ehlo()
    return True


def _said(settings: MailSettings, error: Exception) -> str:
    text = f"{settings.host}:{settings.port}: {type(error).__name__}: {error}"
    # A server may repeat what it was told.
    return text.replace(settings.password, "…") if settings.password else text
