"""Virtual routers as administrators see and handle them. Guide: "Virtual Router"."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, select

from pileus.server.auth.visibility import require, scope
from pileus.server.db.queries import offering as offerings
from pileus.server.db.queries import router as routers
from pileus.server.db.queries.page import grouped, like, page, related
from pileus.server.db.queries.router import Router
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.host import host
from pileus.server.db.tables.network import network, nic
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.place import pod, zone
from pileus.server.db.tables.template import template
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.vm import VmKind, VmState
from pileus.server.events import record, types
from pileus.server.events.write import SCHEDULED
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.submit import submit
from pileus.server.services.choice import one_of
from pileus.server.services.offering import SystemVmType
from pileus.server.services.paging import bounds
from pileus.server.workflows.router_start import KIND
from pileus.server.workflows.router_stop import router_destroy, router_reboot, router_start, router_stop
from pileus.wire.places import Traffic


def start(tx: Tx, caller: Caller, router_id: int) -> str:
    """Start a stopped router; the job's UUID."""
    router = _router(tx, caller, router_id)
    if router.state is not VmState.STOPPED:
        raise ParameterError(f"router {router.name} is {router.state}, not Stopped", parameter="id")
    plan = router_start(network=router.network_id, router=router_id)
    return _job(tx, caller, router, plan, "startRouter", types.ROUTER_START, "Starting")


def stop(tx: Tx, caller: Caller, router_id: int, *, forced: bool) -> str:
    """Stop a running router; with `forced` a host that is away is not waited for. The job's UUID."""
    router = _router(tx, caller, router_id)
    if router.state not in (VmState.RUNNING, VmState.UNKNOWN):
        raise ParameterError(f"router {router.name} is {router.state}, not Running", parameter="id")
    plan = router_stop(network=router.network_id, router=router_id, forced=forced)
    return _job(tx, caller, router, plan, "stopRouter", types.ROUTER_STOP, "Stopping")


def reboot(tx: Tx, caller: Caller, router_id: int) -> str:
    """Stop a running router and start it with its whole config; the job's UUID."""
    router = _router(tx, caller, router_id)
    if router.state is not VmState.RUNNING:
        raise ParameterError(f"router {router.name} is {router.state}, not Running", parameter="id")
    plan = router_reboot(network=router.network_id, router=router_id)
    return _job(tx, caller, router, plan, "rebootRouter", types.ROUTER_REBOOT, "Rebooting")


def destroy(tx: Tx, caller: Caller, router_id: int) -> str:
    """Remove a router; its network gets another when a guest that starts needs it. The job's UUID."""
    router = _router(tx, caller, router_id)
    plan = router_destroy(network=router.network_id, router=router_id)
    return _job(tx, caller, router, plan, "destroyRouter", types.ROUTER_DESTROY, "Destroying")


def change_offering(tx: Tx, caller: Caller, router_id: int, offering_id: int) -> dict[str, Any]:
    """Give a stopped router another size, in force at its next start. Errors: 431 for one that is not stopped or an
    offering that is not for routers, 531 for another's router.
    """
    router = _router(tx, caller, router_id)
    if router.state is not VmState.STOPPED:
        raise ParameterError(f"router {router.name} is {router.state}, not Stopped", parameter="id")
    offering = offerings.by_id(tx, offerings.SERVICE, offering_id)
    if not offering["is_system"] or offering["system_vm_type"] != SystemVmType.ROUTER:
        raise ParameterError(f"service offering {offering['name']} is not for routers", parameter="serviceofferingid")
    routers.change(tx, router_id, service_offering_id=offering_id)
    record(
        tx,
        type=types.ROUTER_UPGRADE,
        description=f"Router {router.name} has service offering {offering['name']} from its next start",
        account_id=router.account_id,
        domain_id=router.domain_id,
        user_id=caller.user_id,
        resource_kind=KIND,
        resource_id=router.id,
        zone_id=router.zone_id,
    )
    return view(tx, caller, router_id)


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    router_id: int | None,
    name: str | None,
    state: str | None,
    zone_id: int | None,
    pod_id: int | None,
    host_id: int | None,
    network_id: int | None,
    account_name: str | None,
    domain_id: int | None,
    keyword: str | None,
    list_all: bool | None,
    is_recursive: bool | None,
    page_number: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Routers within the bounds of the call."""
    offset, limit = bounds(tx, page_number, page_size)
    within = scope(
        caller,
        account=account_name,
        domain_id=domain_id,
        list_all=list_all,
        is_recursive=is_recursive,
        by_id=router_id is not None,
        tx=tx,
    )
    where: list[ColumnElement[bool]] = [vm.c.live == 1, vm.c.kind == str(VmKind.ROUTER)]
    where += within.where(vm.c.account_id, vm.c.domain_id)
    for column, wanted in (
        (vm.c.id, router_id),
        (vm.c.name, name),
        (vm.c.zone_id, zone_id),
        (vm.c.pod_id, pod_id),
        (vm.c.host_id, host_id),
    ):
        if wanted is not None:
            where.append(column == wanted)
    if state is not None:
        where.append(vm.c.state == str(one_of(VmState, state, "state")))
    if network_id is not None:
        where.append(vm.c.id.in_(select(nic.c.vm_id).where(nic.c.network_id == network_id, nic.c.live == 1)))
    if keyword:
        where.append(like(vm.c.name, keyword))
    rows, count = page(tx, vm, where, offset=offset, limit=limit)
    return _views(tx, caller, rows), count


def view(tx: Tx, caller: Caller, router_id: int) -> dict[str, Any]:
    """One router, as lists show it; also one that was destroyed."""
    return _views(tx, caller, tx.all(select(vm).where(vm.c.id == router_id)))[0]


def _router(tx: Tx, caller: Caller, router_id: int) -> Router:
    router = routers.by_id(tx, router_id)
    if router is None:
        raise ParameterError("the router serves no network any more", parameter="id")
    require(tx, caller, router.account_id, router.domain_id, f"router {router.name}")
    return router


def _job(tx: Tx, caller: Caller, router: Router, plan: Plan, command: str, event: str, verb: str) -> str:
    owner = Owner(router.account_id, router.domain_id, caller.user_id)
    started = record(
        tx,
        type=event,
        description=f"{verb} router {router.name}",
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        user_id=owner.user_id,
        state=SCHEDULED,
        resource_kind=KIND,
        resource_id=router.id,
        zone_id=router.zone_id,
    )
    job = submit(
        tx,
        plan,
        owner,
        command=command,
        instance_kind=KIND,
        instance_id=router.id,
        resource_key=f"network:{router.network_id}",
        start_event_id=started,
    )
    return job.uuid


def _views(tx: Tx, caller: Caller, rows: Sequence[RowMapping]) -> list[dict[str, Any]]:
    accounts = related(tx, account, (row["account_id"] for row in rows))
    domains = related(tx, domain, (row["domain_id"] for row in rows))
    zones = related(tx, zone, (row["zone_id"] for row in rows))
    pods = related(tx, pod, (row["pod_id"] for row in rows))
    hosts = related(tx, host, (row["host_id"] for row in rows))
    sizes = related(tx, service_offering, (row["service_offering_id"] for row in rows))
    images = related(tx, template, (row["template_id"] for row in rows))
    cards = grouped(tx, nic, (row["id"] for row in rows), nic.c.vm_id)
    nets = related(tx, network, (card["network_id"] for of_router in cards.values() for card in of_router))
    found = []
    for row in rows:
        there, within = hosts.get(row["host_id"]), zones[row["zone_id"]]
        offering = sizes[row["service_offering_id"]]
        found.append(
            {
                "id": row["uuid"],
                "name": row["name"],
                "zone_id": within["uuid"],
                "zone_name": within["name"],
                "dns1": within["dns1"],
                "dns2": within["dns2"],
                "pod_id": pods[row["pod_id"]]["uuid"] if row["pod_id"] in pods else None,
                "host_id": there["uuid"] if there and caller.is_admin else None,
                "host_name": there["name"] if there and caller.is_admin else None,
                "created": row["created_at"],
                "state": row["state"],
                "account": accounts[row["account_id"]]["name"],
                "domain_id": domains[row["domain_id"]]["uuid"],
                "domain": domains[row["domain_id"]]["name"],
                "template_id": images[row["template_id"]]["uuid"] if row["template_id"] in images else None,
                "service_offering_id": offering["uuid"],
                "service_offering_name": offering["name"],
                "is_redundant_router": False,
                "redundant_state": "UNKNOWN",
                "hypervisor": row["hypervisor"],
                "role": "VIRTUAL_ROUTER",
                **_sides(row, cards[row["id"]], nets),
            }
        )
    return found


def _sides(row: RowMapping, cards: list[RowMapping], nets: dict[int, RowMapping]) -> dict[str, Any]:
    """Guest and public side. A destroyed router shows the cards it had."""
    shown: dict[str, Any] = {}
    for card in sorted(cards, key=lambda each: each["device_id"]):
        if row["live"] and not card["live"]:
            continue
        net = nets[card["network_id"]]
        if card["traffic_type"] == Traffic.PUBLIC:
            shown |= {
                "public_ip": card["ip"],
                "public_mac_address": card["mac"],
                "public_netmask": card["netmask"],
                "public_network_id": net["uuid"],
                "gateway": card["gateway"],
            }
        else:
            shown |= {
                "guest_ip_address": card["ip"],
                "guest_mac_address": card["mac"],
                "guest_netmask": card["netmask"],
                "guest_network_id": net["uuid"],
                "guest_network_name": net["name"],
                "network_domain": net["network_domain"],
            }
            if net["guest_ip_type"] == "Direct":
                shown["gateway"] = card["gateway"]
    return shown
