"""queryAsyncJobResult and listAsyncJobs."""

from api_client import Api, Person
from sqlalchemy import update

from pileus.server.api.command import registry
from pileus.server.db.tables.job import job
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.template import template
from pileus.server.domain.caller import Owner
from pileus.server.domain.ids import IpForwardingRule, PublicIp
from pileus.server.events import job_failed, job_started, record, types
from pileus.server.jobs.context import Nap, StepContext
from pileus.server.jobs.plan import Plan, step
from pileus.server.jobs.submit import submit
from pileus.server.main import _hooks
from pileus.server.registered import register_all
from pileus.server.services.job import INSTANCE_KINDS
from pileus.server.workflows.account_close import disable_account
from pileus.testing.world import World


@step("test_job_api:waits")
def waits(ctx: StepContext) -> None:
    raise Nap(60)


def test_a_job_is_pending_then_has_the_result_a_synchronous_call_would_have(
    world: World, api: Api, admin: Person
) -> None:
    someone = api.person("someone")
    started = api.ok(admin, "disableUser", id=someone.user_id)
    assert set(started) == {"jobid"}
    pending = api.ok(admin, "queryAsyncJobResult", jobid=started["jobid"])
    assert (pending["jobstatus"], pending["jobresultcode"], pending["cmd"]) == (0, 0, "disableUser")
    assert "jobresult" not in pending
    assert pending["jobinstanceid"] == someone.user_id
    (listed,) = api.ok(admin, "listAsyncJobs")["asyncjobs"]
    assert listed["jobid"] == started["jobid"]
    (shown,) = api.ok(admin, "listUsers", id=someone.user_id)["user"]
    assert (shown["jobid"], shown["jobstatus"]) == (started["jobid"], 0)
    world.settle()
    done = api.ok(admin, "queryAsyncJobResult", jobid=started["jobid"])
    assert (done["jobstatus"], done["jobresultcode"], done["jobresulttype"]) == (1, 0, "object")
    assert done["jobresult"]["user"]["state"] == "disabled"
    assert done["completed"].endswith("+0000")
    assert api.ok(admin, "listAsyncJobs") == {}
    (shown,) = api.ok(admin, "listUsers", id=someone.user_id)["user"]
    assert "jobid" not in shown


def test_what_a_job_tells_in_confidence_reaches_only_whom_it_ran_for(world: World, api: Api, admin: Person) -> None:
    domain = api.ok(admin, "createDomain", name="d")["domain"]["id"]
    chief = api.person("chief", domain=domain, kind=2)
    someone = api.person("someone", domain=domain)
    started = api.ok(chief, "disableUser", id=someone.user_id)["jobid"]
    world.settle()
    with api.database.write() as tx:
        tx.execute(update(job).where(job.c.uuid == started).values(result='{"email": "shown once"}'))
    assert api.ok(chief, "queryAsyncJobResult", jobid=started)["jobresult"]["user"]["email"] == "shown once"
    assert api.ok(admin, "queryAsyncJobResult", jobid=started)["jobresult"]["user"]["email"] != "shown once"


def test_a_failed_job_tells_code_and_text_and_leaves_an_error_event(world: World, api: Api, admin: Person) -> None:
    world.hooks.on_failed.append(job_failed)
    someone = api.person("someone")
    cloud = world.cloud(hosts=1, memory=64 << 20)
    started = api.ok(
        someone,
        "deployVirtualMachine",
        zoneid=world.uuid(zone, cloud.zone),
        serviceofferingid=world.uuid(service_offering, cloud.offering),
        templateid=world.uuid(template, cloud.template),
    )["jobid"]
    world.settle()
    failed = api.ok(admin, "queryAsyncJobResult", jobid=started)
    assert (failed["jobstatus"], failed["jobresultcode"]) == (2, 533)
    assert failed["jobresult"]["errorcode"] == 533
    assert "not enough memory" in failed["jobresult"]["errortext"]
    (error,) = api.ok(someone, "listEvents", level="ERROR")["event"]
    (began,) = [e for e in api.ok(someone, "listEvents", type="VM.CREATE")["event"] if e["state"] == "Scheduled"]
    assert (error["type"], error["parentid"]) == ("VM.CREATE", began["id"])


def test_every_announced_job_tells_once_that_it_began(world: World, api: Api, admin: Person) -> None:
    hooks = _hooks()
    world.hooks.on_start += hooks.on_start
    world.hooks.on_end += hooks.on_end
    someone = api.person("someone")
    cloud = world.cloud(hosts=1)
    ids = {
        "zoneid": world.uuid(zone, cloud.zone),
        "serviceofferingid": world.uuid(service_offering, cloud.offering),
        "templateid": world.uuid(template, cloud.template),
    }
    api.ok(someone, "deployVirtualMachine", **ids)
    world.settle()
    api.ok(admin, "disableAccount", id=someone.account_id, lock=False)
    world.settle()

    def told(type: str) -> list[dict[str, str]]:
        return list(reversed(api.ok(admin, "listEvents", listall=True, type=type)["event"]))

    for type in ("VM.CREATE", "ACCOUNT.DISABLE"):
        scheduled, started, completed = told(type)
        assert [one["state"] for one in (scheduled, started, completed)] == ["Scheduled", "Started", "Completed"]
        assert started["parentid"] == completed["parentid"] == scheduled["id"]
        assert started["level"] == "INFO"
    assert told("ACCOUNT.DISABLE")[1]["description"] == "Began: disabling account someone"


def test_a_job_that_waits_at_its_first_step_has_begun(world: World, api: Api, admin: Person) -> None:
    world.hooks.on_start.append(lambda tx, workflow, start_event_id: job_started(tx, start_event_id))
    with api.database.write() as tx:
        announced = record(
            tx, type=types.VM_STOP, description="x", account_id=2, domain_id=1, user_id=2, state="Scheduled"
        )
        submit(tx, Plan("waits", (waits(),)), Owner(2, 1, 2), command="x", start_event_id=announced)
    assert [one["state"] for one in api.ok(admin, "listEvents", type="VM.STOP")["event"]] == ["Scheduled"]
    for _ in range(2):
        assert world.engine.run_one()
        assert [one["state"] for one in api.ok(admin, "listEvents", type="VM.STOP")["event"]] == [
            "Started",
            "Scheduled",
        ]
        world.clock.advance(61)


def test_jobs_of_others_are_not_told(world: World, api: Api, admin: Person) -> None:
    someone = api.person("someone")
    started = api.ok(admin, "disableUser", id=api.person("other").user_id)["jobid"]
    assert api.error(someone, "queryAsyncJobResult", jobid=started)[0] == 531
    assert api.error(someone, "queryAsyncJobResult", jobid="no-such-job")[0] == 431
    assert api.ok(someone, "listAsyncJobs") == {}


def test_a_list_tells_of_a_job_only_those_who_may_ask_about_it(world: World, api: Api, admin: Person) -> None:
    domain = api.ok(admin, "createDomain", name="d")["domain"]["id"]
    chief = api.person("chief", domain=domain, kind=2)
    someone = api.person("someone", domain=domain)
    job_id = api.ok(admin, "disableAccount", id=someone.account_id, lock=False)["jobid"]
    (shown,) = api.ok(admin, "listAccounts", id=someone.account_id)["account"]
    assert (shown["jobid"], shown["jobstatus"]) == (job_id, 0)
    assert api.error(chief, "queryAsyncJobResult", jobid=job_id)[0] == 531
    (shown,) = api.ok(chief, "listAccounts", id=someone.account_id)["account"]
    assert "jobid" not in shown


def test_every_list_of_what_jobs_work_on_can_tell_of_them() -> None:
    register_all()
    worked_on = {spec.returns.kind for spec in registry.values() if spec.job} - {None}
    assert worked_on <= set(INSTANCE_KINDS)
    lists = {spec.returns.object_name: spec.returns.kind for spec in registry.values() if spec.is_list}
    assert lists["publicipaddress"] is PublicIp
    assert lists["ipforwardingrule"] is IpForwardingRule
    assert set(INSTANCE_KINDS) <= set(lists.values())


def test_open_jobs_are_listed_since_a_date_and_without_children(world: World, api: Api, admin: Person) -> None:
    with api.database.write() as tx:
        parent = submit(tx, disable_account(account=999, stop=True), Owner(2, 1, 2), command="disableAccount")
        submit(tx, disable_account(account=999, stop=True), Owner(2, 1, 2), command="inner", parent_id=parent.id)
    assert [one["cmd"] for one in api.ok(admin, "listAsyncJobs")["asyncjobs"]] == ["disableAccount"]
    assert api.ok(admin, "listAsyncJobs", startdate="2999-01-01") == {}
    assert api.error(admin, "listAsyncJobs", startdate="soon")[0] == 430


def test_a_job_in_xml_nests_its_result(world: World, api: Api, admin: Person) -> None:
    someone = api.person("someone")
    started = api.ok(admin, "disableUser", id=someone.user_id)["jobid"]
    world.settle()
    answer = api.send("GET", {"command": "queryAsyncJobResult", "jobid": started}, integration=True)
    assert "<jobresult><user><id>" in answer.text
