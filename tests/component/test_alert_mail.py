"""Alerts by e-mail: a real SMTP server on loopback takes them, over TLS, with a password, or not at all."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as Server
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session
from sqlalchemy import select, update
from structlog.testing import capture_logs

from pileus.server.alerts.mail import MailFailed, line, mail_settings
from pileus.server.alerts.standing import AlertType, clear, raise_alert
from pileus.server.config import change
from pileus.server.config.key import every
from pileus.server.db.tables.event import alert_mail
from pileus.testing import World
from pileus.testing.client import Client

PASSWORD = "canary-mail-password"
LOGIN = {"alert.smtp.useAuth": "true", "alert.smtp.username": "cloud", "alert.smtp.password": PASSWORD}


@dataclass
class Sink:
    """Takes mail and keeps it; refuses what its `verdict` says."""

    mails: list[Message] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    was_secret: list[bool] = field(default_factory=list)
    was_signed_in: list[bool] = field(default_factory=list)
    verdict: str = "250 OK"

    async def handle_DATA(self, server: Server, session: Session, envelope: Envelope) -> str:
        if not self.verdict.startswith("250"):
            return self.verdict
        self.mails.append(message_from_bytes(bytes(envelope.content or b"")))
        self.recipients.append(list(envelope.rcpt_tos))
        self.was_secret.append(server.transport.get_extra_info("ssl_object") is not None)
        self.was_signed_in.append(bool(session.authenticated))
        return self.verdict

    @property
    def subjects(self) -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def login(_server: Server, _session: Session, _envelope: Envelope, _mechanism: str, given: object) -> AuthResult:
    good = isinstance(given, LoginPassword) and (given.login, given.password) == (b"cloud", PASSWORD.encode())
    return AuthResult(success=good)


@contextmanager
def serving(sink: Sink, *, port: int = 0, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None,
            auth: bool = False) -> Iterator[int]:  # fmt: skip
    """The sink on a port of loopback, a free one unless given."""
    port = port or free_port()
    controller = Controller(
        sink,
        hostname="127.0.0.1",
        port=port,
        ssl_context=tls,
        tls_context=starttls,
        auth_required=auth,
        auth_require_tls=tls is None and starttls is not None,
        authenticator=login,
    )
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@dataclass(frozen=True)
class Trust:
    """An authority, and a server's TLS context with a certificate of it."""

    file: str
    server: Callable[[], ssl.SSLContext]


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(file)

    def server() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context

    return Trust(str(file), server)


def settings(world: World, port: int, **more: str) -> None:
    values = {
        "alert.smtp.host": "127.0.0.1",
        "alert.smtp.port": str(port),
        "alert.email.addresses": "ops@example.org, night@example.org",
        "alert.email.sender": "cloud@example.org",
        "alert.smtp.timeout": "5",
        **more,
    }
    with world.db.write() as tx:
        for name, text in values.items():
            change(tx, every[name], text, user_id=2)


def trouble(world: World, subject: str = "job:1", text: str = "Job 1 cannot undo what it began") -> None:
    with world.db.write() as tx:
        raise_alert(tx, AlertType.JOB, subject, text)


def waiting(world: World) -> list[tuple[int, str | None]]:
    with world.reading() as tx:
        rows = tx.all(select(alert_mail).where(alert_mail.c.due == 1).order_by(alert_mail.c.id))
    return [(row["attempts"], row["failure"]) for row in rows]


def deliver(world: World) -> None:
    world.reconcile("alert-mail")


def test_one_mail_comes_when_it_stands_and_one_when_it_is_over(world: World) -> None:
    sink = Sink()
    with serving(sink) as port:
        settings(world, port)
        trouble(world)
        trouble(world)
        deliver(world)
        deliver(world)
        assert sink.subjects == ["Alert: Job 1 cannot undo what it began"]
        with world.db.write() as tx:
            clear(tx, AlertType.JOB, "job:1")
            clear(tx, AlertType.JOB, "job:1")
        deliver(world)
    assert sink.subjects == ["Alert: Job 1 cannot undo what it began", "Over: Job 1 cannot undo what it began"]
    assert sink.recipients[0] == ["ops@example.org", "night@example.org"]
    (first, second) = sink.mails
    assert first["From"] == "cloud@example.org"
    assert first["Message-ID"] != second["Message-ID"]
    assert waiting(world) == []


def test_without_a_server_or_recipients_nothing_is_written(world: World) -> None:
    trouble(world)
    settings(world, 25, **{"alert.email.addresses": ""})
    trouble(world, "job:2")
    assert waiting(world) == []
    with world.reading() as tx:
        assert mail_settings(tx) is None


def test_names_with_line_breaks_add_no_head_to_a_mail(world: World) -> None:
    sink = Sink()
    with serving(sink) as port:
        settings(world, port)
        trouble(world, text="Host a\r\nBcc: thief@example.org is lost")
        deliver(world)
    (mail,) = sink.mails
    assert mail["Bcc"] is None
    assert mail["Subject"] == "Alert: Host a Bcc: thief@example.org is lost"


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("security", ["tls", "starttls", "auto"])
def test_a_password_is_said_over_tls(world: World, trust: Trust, security: str) -> None:
    sink = Sink()
    tls = {"tls": trust.server()} if security == "tls" else {"starttls": trust.server()}
    with serving(sink, auth=True, **tls) as port:
        more = {"alert.smtp.security": security, "alert.smtp.truststore": trust.file}
        settings(world, port, **LOGIN, **more)
        trouble(world)
        deliver(world)
    assert (sink.was_secret, sink.was_signed_in) == ([True], [True])
    assert waiting(world) == []


def test_a_password_is_never_said_in_the_clear_unless_a_setting_wants_it(world: World) -> None:
    sink = Sink()
    with serving(sink) as port:
        settings(world, port, **LOGIN)
        trouble(world)
        deliver(world)
        assert sink.mails == []
        ((attempts, failure),) = waiting(world)
        assert (attempts, "no TLS" in str(failure)) == (1, True)


def test_a_server_that_nobody_vouches_for_gets_neither_mail_nor_password(world: World, trust: Trust) -> None:
    sink = Sink()
    with serving(sink, auth=True, starttls=trust.server()) as port:
        settings(world, port, **LOGIN, **{"alert.smtp.security": "starttls"})
        trouble(world)
        deliver(world)
    assert sink.mails == []
    assert "CERTIFICATE_VERIFY_FAILED" in str(waiting(world)[0][1])


def test_a_wrong_password_puts_mail_off_and_stands_in_no_log_row_or_list(world: World, trust: Trust) -> None:
    sink = Sink()
    with serving(sink, auth=True, starttls=trust.server()) as port, capture_logs() as logs:
        more = {"alert.smtp.truststore": trust.file, "alert.smtp.password": PASSWORD + "-wrong"}
        settings(world, port, **{**LOGIN, **more})
        trouble(world)
        deliver(world)
    assert sink.mails == []
    assert len(waiting(world)) == 1
    listed = Client(world.db).call("listConfigurations", keyword="alert.smtp.password")
    assert PASSWORD not in str((logs, waiting(world), listed))
    with world.reading() as tx:
        assert PASSWORD not in repr(mail_settings(tx))


def test_mail_waits_for_a_server_that_is_down_and_leaves_once_when_it_is_back(world: World) -> None:
    sink = Sink()
    with serving(sink) as port:
        settings(world, port)
    trouble(world, "job:1", "one")
    trouble(world, "job:2", "two")
    deliver(world)
    assert [attempts for attempts, _ in waiting(world)] == [1, 1]
    deliver(world)
    assert [attempts for attempts, _ in waiting(world)] == [1, 1]
    world.clock.advance(61.0)
    deliver(world)
    assert [attempts for attempts, _ in waiting(world)] == [2, 2]
    with serving(sink, port=port):
        world.clock.advance(61.0)
        deliver(world)
        assert sink.subjects == []
        world.clock.advance(61.0)
        deliver(world)
        deliver(world)
    assert sink.subjects == ["Alert: one", "Alert: two"]
    assert waiting(world) == []


def test_mail_that_a_server_will_not_take_is_tried_again(world: World) -> None:
    sink = Sink(verdict="451 not now")
    with serving(sink) as port:
        settings(world, port)
        trouble(world)
        deliver(world)
        assert "not now" in str(waiting(world)[0][1])
        sink.verdict = "250 OK"
        world.clock.advance(61.0)
        deliver(world)
    assert len(sink.mails) == 1


def test_a_mail_sent_by_a_server_that_died_is_sent_again_as_the_same(world: World) -> None:
    sink = Sink()
    with serving(sink) as port:
        settings(world, port)
        trouble(world)
        deliver(world)
        with world.db.write() as tx:
            tx.execute(update(alert_mail).values(due=1, sent_at=None))
        deliver(world)
    assert len(sink.mails) == 2
    assert sink.mails[0]["Message-ID"] == sink.mails[1]["Message-ID"]


def test_mail_nobody_took_for_a_week_is_given_up_with_a_line_in_the_log(world: World) -> None:
    with serving(Sink()) as port:
        settings(world, port)
    trouble(world)
    world.clock.advance(7 * 86400.0)
    with capture_logs() as logs:
        deliver(world)
    assert waiting(world) == []
    assert "a mail was given up" in {each["event"] for each in logs}


def test_a_server_that_cannot_be_reached_is_an_error_of_ours(world: World) -> None:
    with serving(Sink()) as port:
        settings(world, port)
    with world.reading() as tx:
        found = mail_settings(tx)
    assert found is not None
    with pytest.raises(MailFailed, match=str(port)), line(found):
        pass
