"""What a deploy costs in statements and commits, end to end: a bound, so that it cannot creep up unseen."""

from vm_setup import steady_cloud

from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.template import template
from pileus.server.events import job_ended, job_failed
from pileus.testing import World
from pileus.testing.client import Client, counted_statements

CALL, WHOLE, COMMITS = 32, 234, 15
"""The API call alone; with the jobs, answers and the push of the router's config; transactions that wrote."""


def test_a_deploy_on_a_network_that_runs_costs_a_known_number_of_statements(world: World) -> None:
    cloud = steady_cloud(world)
    world.hooks.on_end.append(job_ended)
    world.hooks.on_failed.append(job_failed)
    client = Client(world.db, world.account("alice"))
    wanted = {
        "zoneid": world.uuid(zone, cloud.zone),
        "serviceofferingid": world.uuid(service_offering, cloud.offering),
        "templateid": world.uuid(template, cloud.template),
    }
    for _ in range(2):
        client.call("deployVirtualMachine", **wanted)
        world.settle()
    with counted_statements(world.db) as seen:
        client.call("deployVirtualMachine", **wanted)
        call = len(seen)
        world.settle()
    assert call <= CALL
    assert len(seen) <= WHOLE
    assert sum(statement.startswith("BEGIN IMMEDIATE") for statement in seen) <= COMMITS
