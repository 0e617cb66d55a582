"""What soundness tests of templates share."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select

from pileus.server.db.queries import template as templates
from pileus.server.db.tables.job import job
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.ids import Id, Template
from pileus.server.jobs.submit import JobRef
from pileus.server.services import template as template_service
from pileus.server.services.template import Registration
from pileus.testing import World
from pileus.testing.builders import Cloud


@dataclass
class Case:
    """A cloud, an account, and the template that the workflow is about."""

    cloud: Cloud
    caller: Caller
    template: Id[Template]


def registration(tx: Tx, zone_id: int, **wishes: object) -> Registration:
    """A template for simulated hosts."""
    values = {
        "name": "web",
        "display_text": "Web server",
        "url": "http://images.example/web.qcow2",
        "format": "QCOW2",
        "hypervisor": "Simulator",
        "zone_id": zone_id,
        "os_type_id": Id(1),
    }
    return Registration(**{**values, **wishes})  # type: ignore[arg-type]


def registered(world: World, case: Case) -> JobRef:
    """Register a template; the job is its download."""
    with world.db.write() as tx:
        views = template_service.register(tx, case.caller, registration(tx, case.cloud.zone))
        case.template = Id(templates.id_of(tx, views[0]["id"]))
    return newest_job(world, "template.download")


def newest_job(world: World, workflow: str) -> JobRef:
    """The last job of a workflow."""
    with world.db.read() as tx:
        row = tx.all(select(job.c.id, job.c.uuid).where(job.c.workflow == workflow).order_by(job.c.id.desc()))[0]
    return JobRef(row["id"], row["uuid"])


def within(world: World, workflow: str, work: Callable[[Tx], object]) -> JobRef:
    """Do something in a transaction; the job it submitted."""
    with world.db.write() as tx:
        work(tx)
    return newest_job(world, workflow)
