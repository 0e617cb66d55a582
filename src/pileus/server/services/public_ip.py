"""Public addresses: acquired for a network, released, listed. Guide: "IP Forwarding and Firewalling"."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, or_, select, update

from pileus.server.auth.visibility import owner as owner_of
from pileus.server.auth.visibility import require, scope
from pileus.server.db.queries import count
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.queries.network import Net
from pileus.server.db.queries.page import like, page, related
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.network import network, public_ip, vlan_ip_range
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.account import Resource
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import ParameterError, ResourceInUse
from pileus.server.domain.network import IP, IpState
from pileus.server.elements import virtual_router
from pileus.server.events import record, types
from pileus.server.events.write import SCHEDULED
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.submit import JobRef, submit
from pileus.server.services import network as network_service
from pileus.server.services.paging import bounds
from pileus.server.workflows.public_ip import public_ip_associate, public_ip_disassociate

KIND = "IpAddress"
DEADLINE_SECONDS = 900.0


def associate(
    tx: Tx,
    caller: Caller,
    *,
    zone_id: int,
    network_id: int | None,
    account_name: str | None,
    domain_id: int | None,
) -> tuple[str, str]:
    """Acquire an address for a virtual network: the one given, or the account's own of the zone.

    Returns job and address (UUIDs). Errors: no address left (533), the account's limit (535).
    """
    owner = owner_of(tx, caller, account_name, domain_id)
    net = network_for(tx, caller, owner, zone_id, network_id)
    source = public_ips.source_nat_of(tx, net.id)
    held = public_ips.claim_public(
        tx,
        zone_id=net.zone_id,
        account_id=net.account_id,
        domain_id=net.domain_id,
        network_id=net.id,
        source_nat=source is None,
        # The router has one card on the public side, and so all its addresses lie on one VLAN.
        vlan=None if source is None else source.vlan,
    )
    count.claim(tx, net.account_id, Resource.PUBLIC_IP)
    generation = virtual_router.changed(tx, net.id)
    plan = public_ip_associate(network=net.id, address=held.id, generation=generation)
    job = _job(tx, caller, net, held.id, plan, "associateIpAddress", types.NET_IPASSIGN, f"Assigning {held.ip}")
    tx.execute(update(public_ip).where(public_ip.c.id == held.id).values(job_id=job.id))
    return job.uuid, held.uuid


def disassociate(tx: Tx, caller: Caller, public_ip_id: int) -> str:
    """Release an address with its rules; the job's UUID. A network keeps its source NAT address (431)."""
    held = public_ips.by_id(tx, public_ip_id)
    if held is None or held.network_id is None or held.account_id is None:
        raise ParameterError("the address is not associated", parameter="id")
    require(tx, caller, held.account_id, held.domain_id, f"address {held.ip}")
    net = networks.by_id(tx, held.network_id)
    if not net.is_virtual:
        raise ParameterError("an address of a Direct network goes with its guest", parameter="id")
    if held.is_source_nat:
        raise ParameterError("a source NAT address is released with its network", parameter="id")
    if not transition(tx, public_ip, held.id, IP, IpState.RELEASING, frm=IpState.ALLOCATED):
        raise ResourceInUse(f"address {held.ip} is {held.state}")
    generation = virtual_router.changed(tx, net.id)
    plan = public_ip_disassociate(network=net.id, address=held.id, generation=generation)
    return _job(
        tx, caller, net, held.id, plan, "disassociateIpAddress", types.NET_IPRELEASE, f"Releasing {held.ip}"
    ).uuid


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    public_ip_id: int | None,
    ip_address: str | None,
    zone_id: int | None,
    range_id: int | None,
    network_id: int | None,
    account_name: str | None,
    domain_id: int | None,
    allocated_only: bool,
    for_virtual_network: bool,
    is_source_nat: bool | None,
    keyword: str | None,
    list_all: bool | None,
    is_recursive: bool | None,
    page_number: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Addresses within the bounds of the call. Free ones belong to nobody: only root administrators see them."""
    offset, limit = bounds(tx, page_number, page_size)
    within = scope(
        caller,
        account=account_name,
        domain_id=domain_id,
        list_all=list_all or (caller.is_admin and not allocated_only),
        is_recursive=is_recursive,
        by_id=public_ip_id is not None,
        tx=tx,
    )
    of_kind = select(vlan_ip_range.c.id).where(vlan_ip_range.c.for_virtual_network == int(for_virtual_network))
    where: list[ColumnElement[bool]] = [public_ip.c.live == 1, public_ip.c.range_id.in_(of_kind)]
    where += within.where(public_ip.c.account_id, public_ip.c.domain_id)
    if allocated_only or not caller.is_admin:
        where.append(public_ip.c.state != str(IpState.FREE))
    for column, wanted in (
        (public_ip.c.id, public_ip_id),
        (public_ip.c.address, ip_address),
        (public_ip.c.zone_id, zone_id),
        (public_ip.c.range_id, range_id),
        (public_ip.c.network_id, network_id),
        (public_ip.c.is_source_nat, None if is_source_nat is None else int(is_source_nat)),
    ):
        if wanted is not None:
            where.append(column == wanted)
    if keyword:
        where.append(like(public_ip.c.address, keyword))
    order = (public_ip.c.address_number, public_ip.c.id)
    rows, found = page(tx, public_ip, where, offset=offset, limit=limit, order_by=order)
    return _views(tx, caller, rows), found


def view(tx: Tx, caller: Caller, public_ip_id: int) -> dict[str, Any]:
    """One address, as lists show it."""
    return _views(tx, caller, tx.all(select(public_ip).where(public_ip.c.id == public_ip_id)))[0]


def network_for(tx: Tx, caller: Caller, owner: Owner, zone_id: int, network_id: int | None) -> Net:
    """The virtual network that addresses are for: the one given, or the owner's own of the zone; held from now on."""
    if network_id is None:
        network_id = network_service.own_virtual(tx, owner, zone_id)
    net = networks.by_id(tx, network_id)
    require(tx, caller, net.account_id, net.domain_id, f"network {net.name!r}")
    if net.zone_id != zone_id:
        raise ParameterError(f"network {net.name} is in another zone", parameter="networkid")
    if not net.is_virtual:
        raise ParameterError("only virtual networks take public addresses", parameter="networkid")
    if not networks.use(tx, net.id):
        raise ParameterError(f"network {net.name} is being removed", parameter="networkid")
    return net


def _job(
    tx: Tx, caller: Caller, net: Net, public_ip_id: int, plan: Plan, command: str, event: str, text: str
) -> JobRef:
    owner = Owner(net.account_id, net.domain_id, caller.user_id)
    started = record(
        tx,
        type=event,
        description=text,
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        user_id=owner.user_id,
        state=SCHEDULED,
        resource_kind=KIND,
        resource_id=public_ip_id,
        zone_id=net.zone_id,
    )
    return submit(
        tx,
        plan,
        owner,
        command=command,
        instance_kind=KIND,
        instance_id=public_ip_id,
        resource_key=f"ip:{public_ip_id}",
        deadline_seconds=DEADLINE_SECONDS,
        start_event_id=started,
    )


def _views(tx: Tx, caller: Caller, rows: Sequence[RowMapping]) -> list[dict[str, Any]]:
    accounts = related(tx, account, (row["account_id"] for row in rows))
    domains = related(tx, domain, (row["domain_id"] for row in rows))
    zones = related(tx, zone, (row["zone_id"] for row in rows))
    ranges = related(tx, vlan_ip_range, (row["range_id"] for row in rows))
    nets = related(tx, network, (row["network_id"] for row in rows))
    guests = related(tx, vm, (row["vm_id"] for row in rows))
    public = _public_networks(tx, {row["zone_id"] for row in rows})
    found = []
    for row in rows:
        owner, of_domain = accounts.get(row["account_id"]), domains.get(row["domain_id"])
        net, guest, within = nets.get(row["network_id"]), guests.get(row["vm_id"]), ranges[row["range_id"]]
        virtual = bool(within["for_virtual_network"])
        found.append(
            {
                "id": row["uuid"],
                "ip_address": row["address"],
                "allocated": row["allocated_at"],
                "zone_id": zones[row["zone_id"]]["uuid"],
                "zone_name": zones[row["zone_id"]]["name"],
                "is_source_nat": bool(row["is_source_nat"]),
                "account": owner["name"] if owner else None,
                "domain_id": of_domain["uuid"] if of_domain else None,
                "domain": of_domain["name"] if of_domain else None,
                "for_virtual_network": virtual,
                "vlan_id": within["uuid"] if caller.is_admin else None,
                "vlan_name": within["vlan"] if caller.is_admin else None,
                "is_static_nat": bool(row["is_static_nat"]),
                "virtual_machine_id": guest["uuid"] if guest else None,
                "virtual_machine_name": guest["name"] if guest else None,
                "virtual_machine_display_name": guest["display_name"] if guest else None,
                "associated_network_id": net["uuid"] if net and virtual else None,
                "associated_network_name": net["name"] if net and virtual else None,
                "network_id": public.get(row["zone_id"]) if virtual else (net["uuid"] if net else None),
                "state": row["state"],
                "is_system": False,
            }
        )
    return found


def _public_networks(tx: Tx, zone_ids: set[int]) -> dict[int, str]:
    if not zone_ids:
        return {}
    wanted = or_(*(network.c.on_demand_key == networks.public_key(zone_id) for zone_id in sorted(zone_ids)))
    return {row["zone_id"]: row["uuid"] for row in tx.all(select(network.c.zone_id, network.c.uuid).where(wanted))}
