"""listEvents and listEventTypes."""

from datetime import UTC, datetime

import pytest
from api_client import Api, Person
from sqlalchemy import update

from pileus.server import events
from pileus.server.db.tables.event import event
from pileus.server.db.transaction import Database
from pileus.testing.clock import FakeClock


def write(db: Database, type: str, **values: object) -> int:
    with db.write() as tx:
        return events.record(
            tx,
            type=type,
            description=f"about {type}",
            account_id=2,
            domain_id=1,
            user_id=2,
            **values,  # type: ignore[arg-type]
        )


def test_events_are_filtered_by_type_level_keyword_and_date(api: Api, admin: Person, clock: FakeClock) -> None:
    db = api.database
    write(db, events.types.VM_CREATE)
    clock.advance(86400)
    write(db, events.types.VM_START, level="ERROR")

    def types(**params: object) -> list[str]:
        return [one["type"] for one in api.ok(admin, "listEvents", **params).get("event", [])]

    assert types() == ["VM.START", "VM.CREATE"]
    assert types(type="VM.CREATE") == ["VM.CREATE"]
    assert types(level="error") == ["VM.START"]
    assert types(keyword="ABOUT vm.c") == ["VM.CREATE"]
    (first,) = api.ok(admin, "listEvents", type="VM.CREATE")["event"]
    assert types(enddate=first["created"]) == ["VM.CREATE"]
    assert types(startdate="2999-01-01") == []
    assert api.error(admin, "listEvents", level="LOUD")[0] == 431
    assert (first["username"], first["account"], first["domain"], first["state"]) == (
        "admin",
        "admin",
        "ROOT",
        "Completed",
    )


def test_jobs_that_run_long_are_found_by_their_first_event(api: Api, admin: Person, clock: FakeClock) -> None:
    db = api.database
    long = write(db, events.types.VM_CREATE, state="Scheduled")
    over = write(db, events.types.VM_STOP, state="Scheduled")
    write(db, events.types.VM_STOP, start_id=over)
    clock.advance(100)
    write(db, events.types.VM_START, state="Scheduled")
    found = api.ok(admin, "listEvents", duration=60)["event"]
    assert [one["type"] for one in found] == ["VM.CREATE"]
    found = api.ok(admin, "listEvents", entrytime=60)["event"]
    assert [one["type"] for one in found] == ["VM.START"]
    assert api.ok(admin, "listEvents", entrytime=100, duration=60)["count"] == 1
    assert api.ok(admin, "listEvents", entrytime=99, duration=60) == {}
    assert api.ok(admin, "listEvents", entrytime=100)["count"] == 2
    write(db, events.types.VM_CREATE, start_id=long)
    assert api.ok(admin, "listEvents", entrytime=100, duration=60) == {}


@pytest.mark.parametrize("form", ["2026-01-02", "2026-01-02 00:00:00", "2026-01-02T00:00:00+0000"])
def test_dates_may_have_any_form_of_the_wire(api: Api, admin: Person, form: str) -> None:
    made = {}
    for day in (1, 2, 3):
        key = write(api.database, events.types.VM_CREATE)
        made[day] = datetime(2026, 1, day, 0, 0, 0, tzinfo=UTC)
        with api.database.write() as tx:
            instant = int(made[day].timestamp() * 1000)
            tx.execute(update(event).where(event.c.id == key).values(created_at=instant, description=f"day {day}"))

    def days(**params: str) -> list[str]:
        return [one["description"] for one in api.ok(admin, "listEvents", type="VM.CREATE", **params)["event"]]

    assert days(startdate=form) == ["day 3", "day 2"]
    assert days(enddate=form) == ["day 2", "day 1"]
    assert days(startdate=form, enddate=form) == ["day 2"]


@pytest.mark.parametrize(
    ("params", "code", "named"),
    [
        ({"type": "VM.DANCE"}, 431, "listEventTypes"),
        ({"level": "LOUD"}, 431, "INFO, WARN, ERROR"),
        ({"duration": "-1"}, 431, "duration"),
        ({"entrytime": "-1"}, 431, "entrytime"),
        ({"duration": "9223372036854775807"}, 431, "duration"),
        ({"startdate": "yesterday"}, 430, "startdate"),
        ({"startdate": "2026-01-02", "enddate": "2026-01-01"}, 431, "startdate"),
    ],
)
def test_what_is_wrong_with_a_filter_is_named(
    api: Api, admin: Person, params: dict[str, str], code: int, named: str
) -> None:
    told, text = api.error(admin, "listEvents", **params)
    assert (told, named in text) == (code, True)


def test_every_type_is_listed_once(api: Api, admin: Person) -> None:
    told = api.ok(admin, "listEventTypes")
    names = [one["name"] for one in told["eventtype"]]
    assert told["count"] == len(names) == len(set(names))
    assert {"VM.CREATE", "USER.LOGIN", "CONFIGURATION.VALUE.EDIT"} <= set(names)


def test_an_operation_that_came_to_nothing_is_an_error_event_and_a_slip_is_none(api: Api, admin: Person) -> None:
    domain = api.ok(admin, "createDomain", name="d")["domain"]["id"]
    api.person("someone", domain=domain)
    code, text = api.error(admin, "deleteDomain", id=domain)
    assert code == 536
    (told,) = api.ok(admin, "listEvents", type="DOMAIN.DELETE")["event"]
    assert (told["level"], told["state"], told["username"], told["account"]) == ("ERROR", "Completed", "admin", "admin")
    assert told["description"] == f"Failed: deleteDomain: {text}"
    assert "parentid" not in told
    assert api.error(admin, "deleteDomain", id=1)[0] == 431
    assert api.error(admin, "createDomain", name="a/b")[0] == 431
    assert api.ok(admin, "listEvents", level="ERROR")["count"] == 1
