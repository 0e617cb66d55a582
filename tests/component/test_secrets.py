"""Canaries: secrets sent in every way, wrong ways included, are in no log, no event, no error."""

import json

import pytest
import structlog
from api_client import Api, Person

from pileus.server.redaction import redact
from pileus.server.services import user

CANARY = "c4n4ry-s3cret"


class Lines:
    """A log that keeps what would have been written."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, *_args: object, **_kwargs: object) -> "Lines":
        return self

    def msg(self, line: str) -> None:
        self.lines.append(line)

    debug = info = warning = error = exception = msg


@pytest.fixture
def log() -> Lines:
    made = Lines()
    structlog.configure(
        processors=[
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(default=repr),
        ],
        logger_factory=made,
        cache_logger_on_first_use=False,
    )
    yield made  # type: ignore[misc]
    structlog.reset_defaults()


def test_secrets_are_nowhere_but_in_the_answer_that_tells_them(
    api: Api, admin: Person, log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = {"username": "u", "firstname": "f", "lastname": "l", "email": "e"}
    answers = [
        api.login("admin", CANARY),
        api.send("GET", {"command": "login", "username": "admin", "password": CANARY}),
        api.send("GET", url=f"/client/api?command=createUser&password={CANARY}&password=x{CANARY}"),
        api.send("GET", {"command": "createUser", "apikey": CANARY, "signature": CANARY, "password": CANARY}),
        api.send("GET", {"command": "listUsers", "sessionkey": CANARY}, headers={"Cookie": f"JSESSIONID={CANARY}"}),
        api.send("GET", {"command": "no" + "Such", "password": CANARY}),
        api.call(admin, "createUser", account="admin", password=CANARY * 30, **new),
        api.call(admin, "createUser", account="nobody", password=CANARY, **new),
        api.call(admin, "createUser", passwort=CANARY, account="admin", **new),
        api.call(admin, "createAccount", accounttype=0, password=CANARY, **new),
        api.call(admin, "updateUser", id=2, userapikey=CANARY, usersecretkey=CANARY * 3),
        api.call(admin, "updateUser", id=2, password=CANARY),
        api.call(admin, "updateConfiguration", name="alert.smtp.password", value=CANARY),
        api.call(admin, "listEvents", listall=True, pagesize=-1),
        api.call(admin, "listConfigurations", pagesize=-1),
        api.call(admin, "listUsers", listall=True),
    ]

    def broken(*_args: object, **kwargs: object) -> None:
        raise RuntimeError("it broke")

    monkeypatch.setattr(user, "create", broken)
    answers.append(api.call(admin, "createUser", account="admin", password=CANARY, **new))
    assert answers[-1].status_code == 530
    assert log.lines
    for line in log.lines:
        assert CANARY not in line
        json.loads(line)
    for answer in answers:
        assert CANARY not in answer.text
        assert CANARY not in str(answer.headers)


def test_a_database_error_tells_no_values(api: Api, admin: Person, log: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    someone = api.person("someone")
    monkeypatch.setattr(user.secrets, "token_urlsafe", lambda _bytes: admin.api_key)
    code, text = api.error(admin, "registerUserKeys", id=someone.user_id)
    assert code == 530
    assert "IntegrityError" not in text
    (failure,) = [line for line in log.lines if "reference" in line]
    assert "IntegrityError" in failure
    assert "[SQL parameters hidden" in failure
