"""listEvents and listEventTypes."""

from api_client import Api, Person

from pileus.server import events
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
    write(db, events.types.VM_CREATE, start_id=long)
    assert api.ok(admin, "listEvents", entrytime=60, duration=60) == {}


def test_every_type_is_listed_once(api: Api, admin: Person) -> None:
    told = api.ok(admin, "listEventTypes")
    names = [one["name"] for one in told["eventtype"]]
    assert told["count"] == len(names) == len(set(names))
    assert {"VM.CREATE", "USER.LOGIN", "CONFIGURATION.VALUE.EDIT"} <= set(names)
