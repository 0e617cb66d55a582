"""What guests, networks and templates are asked for."""

from sqlalchemy import select

from pileus.server.db.tables.network import network, nic, public_ip
from pileus.server.db.tables.offering import network_offering, service_offering
from pileus.server.db.tables.ssh_key import ssh_key_pair
from pileus.server.db.tables.template import template
from pileus.server.db.tables.vm import vm
from pileus.server.domain import ids
from pileus.server.domain.account import ADMIN_ACCOUNT
from pileus.server.domain.network import GuestIpType, NetworkState
from pileus.server.domain.vm import VmState
from pileus.testing.simulation.credentials import PUBLIC_KEY
from pileus.testing.simulation.wishes import GUEST_NETWORK, Parameters, Person, Wishes, wish


@wish("deployVirtualMachine")
def _deploy(now: Wishes, person: Person) -> Parameters | None:
    image, offering = now.any_where(template, live=1), now.any_where(service_offering, live=1, is_system=0)
    if image is None or offering is None:
        return None
    pair = now.any_where(ssh_key_pair, account_id=person.account_id) if now.dice.random() < 0.1 else None
    return {
        "zoneid": now.zone(),
        "serviceofferingid": offering["uuid"],
        "templateid": image["uuid"],
        "name": now.name("vm"),
        "networkids": now.once(0.3, now.uuid_of(ids.Network, person, *GUEST_NETWORK)),
        "diskofferingid": now.once(0.2, now.uuid_of(ids.DiskOffering, person)),
        "group": now.once(0.1, "crowd"),
        "keypair": None if pair is None else pair["name"],
        "startvm": now.once(0.15, False),
        "userdata": now.once(0.1, "aGVsbG8="),
    }


_STOPPED = vm.c.state == str(VmState.STOPPED)
_RUNNING = vm.c.state == str(VmState.RUNNING)
_DESTROYED = vm.c.state == str(VmState.DESTROYED)
_WITH_PASSWORD = _STOPPED & (vm.c.password_enabled == 1)


@wish("startVirtualMachine")
def _start(now: Wishes, person: Person) -> Parameters | None:
    return {"id": now.uuid_of(ids.Vm, person, likely=_STOPPED)}


@wish("rebootVirtualMachine")
def _reboot(now: Wishes, person: Person) -> Parameters | None:
    return {"id": now.uuid_of(ids.Vm, person, likely=_RUNNING)}


@wish("resetPasswordForVirtualMachine")
def _reset_password(now: Wishes, person: Person) -> Parameters | None:
    return {"id": now.uuid_of(ids.Vm, person, likely=_WITH_PASSWORD)}


@wish("stopVirtualMachine")
def _stop(now: Wishes, person: Person) -> Parameters | None:
    return {"id": now.uuid_of(ids.Vm, person, likely=_RUNNING), "forced": now.once(0.25, True)}


@wish("destroyVirtualMachine")
def _destroy(now: Wishes, person: Person) -> Parameters | None:
    return {"id": now.uuid_of(ids.Vm, person), "expunge": now.once(0.3, True) if person.account_id is None else None}


@wish("recoverVirtualMachine")
def _recover(now: Wishes, person: Person) -> Parameters | None:
    return {"id": now.uuid_of(ids.Vm, person, likely=_DESTROYED)}


@wish("changeServiceForVirtualMachine")
def _change_offering(now: Wishes, person: Person) -> Parameters | None:
    return {
        "id": now.uuid_of(ids.Vm, person, likely=_STOPPED),
        "serviceofferingid": now.uuid_of(ids.ServiceOffering, person, service_offering.c.is_system == 0),
    }


@wish("updateVirtualMachine")
def _update_vm(now: Wishes, person: Person) -> Parameters | None:
    return {
        "id": now.uuid_of(ids.Vm, person),
        "userdata": now.once(0.6, "aGVsbG8="),
        "displayname": now.once(0.3, now.name("shown")),
        "group": now.once(0.3, now.dice.choice(("crowd", "others"))),
    }


@wish("createSSHKeyPair")
def _key_pair(now: Wishes, _person: Person) -> Parameters | None:
    return {"name": now.name("pair")}


@wish("registerSSHKeyPair")
def _own_key_pair(now: Wishes, _person: Person) -> Parameters | None:
    return {"name": now.name("pair"), "publickey": PUBLIC_KEY}


@wish("deleteSSHKeyPair")
def _drop_key_pair(now: Wishes, person: Person) -> Parameters | None:
    found = now.any_where(ssh_key_pair, account_id=person.account_id or ADMIN_ACCOUNT, live=1)
    return None if found is None else {"name": found["name"]}


# ---- networks


@wish("createNetwork")
def _network(now: Wishes, person: Person) -> Parameters | None:
    kind = GuestIpType.DIRECT if person.account_id is None else GuestIpType.VIRTUAL
    offering = now.any_where(network_offering, guest_ip_type=str(kind), live=1)
    if offering is None:
        return None
    name = now.name("net")
    made: Parameters = {"name": name, "displaytext": name, "networkofferingid": offering["uuid"], "zoneid": now.zone()}
    if kind is GuestIpType.VIRTUAL:
        return made
    third = now.made % 200
    return {
        **made,
        "vlan": 300 + third,
        "gateway": f"10.20.{third}.1",
        "netmask": "255.255.255.0",
        "startip": f"10.20.{third}.10",
        "endip": f"10.20.{third}.14",
        "isshared": True,
    }


@wish("updateNetwork")
def _update_network(now: Wishes, person: Person) -> Parameters | None:
    return {
        "id": now.uuid_of(ids.Network, person, *GUEST_NETWORK),
        "displaytext": now.name("net"),
        "networkdomain": now.once(0.5, f"d{now.made}.example"),
    }


@wish("deleteNetwork")
def _delete_network(now: Wishes, person: Person) -> Parameters | None:
    return {"id": now.uuid_of(ids.Network, person, *GUEST_NETWORK, likely=_WITHOUT_CARDS)}


_WITHOUT_CARDS = network.c.id.not_in(select(nic.c.network_id).where(nic.c.live == 1))


@wish("restartNetwork")
def _restart_network(now: Wishes, person: Person) -> Parameters | None:
    found = now.uuid_of(ids.Network, person, *GUEST_NETWORK, likely=_IMPLEMENTED)
    return {"id": found, "cleanup": now.once(0.5, True)}


_IMPLEMENTED = network.c.state == str(NetworkState.IMPLEMENTED)


@wish("associateIpAddress")
def _associate(now: Wishes, person: Person) -> Parameters | None:
    chosen = now.once(0.5, now.uuid_of(ids.Network, person, *GUEST_NETWORK))
    return {"zoneid": now.zone(), "networkid": chosen}


@wish("disassociateIpAddress")
def _disassociate(now: Wishes, person: Person) -> Parameters | None:
    return {"id": now.uuid_of(ids.PublicIp, person, _OWNED, likely=_EXTRA)}


_OWNED, _EXTRA = public_ip.c.account_id.is_not(None), public_ip.c.is_source_nat == 0


# ---- templates


@wish("registerTemplate")
def _register_template(now: Wishes, _person: Person) -> Parameters | None:
    name = now.name("image")
    return {
        "name": name,
        "displaytext": name,
        "url": f"http://images.example/{name}.qcow2",
        "format": "QCOW2",
        "hypervisor": "Simulator",
        "zoneid": now.zone(),
        "passwordenabled": now.dice.random() < 0.5,
    }


@wish("deleteTemplate", "updateTemplate", "updateTemplatePermissions")
def _template(now: Wishes, person: Person) -> Parameters | None:
    mine = template.c.account_id == person.account_id if person.account_id else template.c.account_id != ADMIN_ACCOUNT
    return {
        "id": now.uuid_of(ids.Template, person, likely=mine),
        "displaytext": now.name("image"),
        "ispublic": now.dice.random() < 0.5,
    }
