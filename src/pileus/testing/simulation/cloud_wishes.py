"""What is asked of people, places and the cloud itself."""

from sqlalchemy import select

from pileus.server.db.tables.account import domain, users
from pileus.server.db.tables.host import host, storage_pool
from pileus.server.db.tables.network import network, public_ip, vlan_ip_range
from pileus.server.db.tables.offering import network_offering, service_offering
from pileus.server.db.tables.place import cluster, pod, zone
from pileus.server.db.tables.vm import vm, vm_incarnation
from pileus.server.db.tables.volume import volume
from pileus.server.domain import ids
from pileus.server.domain.account import AccountType
from pileus.server.domain.host import HostState
from pileus.server.domain.network import GuestIpType, IpState
from pileus.server.domain.vm import VmState
from pileus.server.services.offering import SystemVmType
from pileus.testing.simulation.credentials import authority
from pileus.testing.simulation.wishes import GUEST_NETWORK, Parameters, Person, Wishes, wish
from pileus.wire.messages import HostKind

SETTINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("expunge.delay", ("60", "600", "86400")),
    ("expunge.interval", ("60", "600")),
    ("expunge.workers", ("1", "3")),
    ("network.gc.wait", ("60", "600")),
    ("network.gc.interval", ("60", "600")),
    ("vm.allocation.algorithm", ("random", "firstfit", "userdispersing")),
    ("storage.cleanup.interval", ("60", "86400")),
    ("max.account.user.vms", ("2", "20")),
    ("cpu.overprovisioning.factor", ("1", "2")),
)


def _about(name: str) -> Parameters:
    told = {"firstname": name, "lastname": name, "email": f"{name}@example.org"}
    return {**told, "username": name, "password": "correct horse"}


@wish("createAccount")
def _account(now: Wishes, _person: Person) -> Parameters | None:
    home = now.any_where(domain, live=1)
    type_ = now.dice.choice((AccountType.USER, AccountType.USER, AccountType.DOMAIN_ADMIN))
    return {**_about(now.name("user")), "accounttype": int(type_), "domainid": home["uuid"] if home else None}


@wish("createUser")
def _user(now: Wishes, _person: Person) -> Parameters | None:
    row = now.customer()
    return None if row is None else {**_about(now.name("user")), **now.named(row)}


@wish("updateUser")
def _update_user(now: Wishes, person: Person) -> Parameters | None:
    return {"id": _somebody(now, person), "firstname": now.name("first"), "email": "new@example.org"}


@wish("deleteUser", "disableUser", "lockUser", "enableUser", "registerUserKeys")
def _of_user(now: Wishes, person: Person) -> Parameters | None:
    return {"id": _somebody(now, person)}


def _somebody(now: Wishes, person: Person) -> str | None:
    """A user that was made on the way: without those who are there from the start, a run would soon be silent."""
    made = users.c.username.like("user%")
    row = now.any(select(users).where(users.c.live == 1, made).order_by(users.c.id))
    del person
    return None if row is None else str(row["uuid"])


@wish("disableAccount", "enableAccount", "lockAccount", "updateAccount", "updateResourceLimit", "deleteAccount")
def _of_account(now: Wishes, _person: Person) -> Parameters | None:
    row = now.customer()
    if row is None:
        return None
    resource, maximum = now.dice.choice((0, 1, 2, 4)), now.dice.choice((-1, 1, 2, 5))
    more = {"lock": now.once(0.3, True) or False, "resourcetype": resource, "max": maximum, "id": row["uuid"]}
    return {**more, **now.named(row), "networkdomain": "customers.example"}


@wish("updateResourceCount")
def _recount(now: Wishes, _person: Person) -> Parameters | None:
    row = now.customer()
    return None if row is None else {**now.named(row), "account": now.once(0.5, row["name"])}


@wish("createDomain", "updateDomain")
def _domain(now: Wishes, person: Person) -> Parameters | None:
    made = domain.c.name.like("domain%")
    parent = now.once(0.4, now.uuid_of(ids.Domain, person, made))
    return {"name": now.name("domain"), "parentdomainid": parent, "id": now.uuid_of(ids.Domain, person, made)}


@wish("deleteDomain")
def _delete_domain(now: Wishes, person: Person) -> Parameters | None:
    made = [domain.c.name.like("domain%")] if now.dice.random() < 0.9 else [domain.c.level > 0]
    return {"id": now.uuid_of(ids.Domain, person, *made), "cleanup": now.once(0.6, True)}


# ---- places


@wish("createZone")
def _zone(now: Wishes, _person: Person) -> Parameters | None:
    return {"vlan": "2000-2003", "guestcidraddress": "10.3.0.0/24", "name": now.name("zone")}


@wish("updateZone")
def _of_zone(now: Wishes, person: Person) -> Parameters | None:
    # Usually open again soon, or nothing more would happen in a run.
    state = now.dice.choice(("Enabled", "Enabled", "Disabled"))
    found = now.uuid_of(ids.Zone, person)
    changes = {"dns2": now.once(0.5, "192.0.2.99"), "name": now.once(0.2, now.name("zone"))}
    return {"id": found, **changes, "allocationstate": now.once(0.5, state)}


@wish("createPod", "updatePod")
def _pod(now: Wishes, person: Person) -> Parameters | None:
    name = now.name("pod")
    third = 20 + now.made % 200
    begin = {"gateway": f"192.168.{third}.1", "netmask": "255.255.255.0", "startip": f"192.168.{third}.10"}
    range_ = {**begin, "endip": f"192.168.{third}.60"} if now.dice.random() < 0.8 else {}
    return {"id": now.uuid_of(ids.Pod, person), "name": name, "zoneid": now.zone(), **range_}


@wish("addCluster")
def _cluster(now: Wishes, _person: Person) -> Parameters | None:
    place = now.any_where(pod, live=1)
    if place is None:
        return None
    home = now.world.uuid(zone, place["zone_id"])
    return {"zoneid": home, "podid": place["uuid"], "clustername": now.name("cluster"), "clustertype": "CloudManaged"}


@wish("updateCluster")
def _update_cluster(now: Wishes, person: Person) -> Parameters | None:
    state = now.dice.choice(("Enabled", "Enabled", "Disabled"))
    return {"id": now.uuid_of(ids.Cluster, person), "allocationstate": state}


@wish("addHost")
def _host(now: Wishes, _person: Person) -> Parameters | None:
    group = now.any_where(cluster, live=1)
    if group is None or len(now.world.lines) > 5:
        return None
    name = now.name("added")
    return {
        "zoneid": now.world.uuid(zone, group["zone_id"]),
        "clusterid": group["uuid"],
        "hypervisor": "Simulator",
        "url": f"http://{name}",
        "username": "root",
        "password": f"one-time-secret-{now.made:04}",
    }


@wish("updateHost")
def _update_host(now: Wishes, person: Person) -> Parameters | None:
    state = now.dice.choice(("Enabled", "Disabled"))
    return {"id": now.uuid_of(ids.Host, person, host.c.kind == str(HostKind.ROUTING)), "allocationstate": state}


@wish("reconnectHost")
def _reconnect_host(now: Wishes, person: Person) -> Parameters | None:
    return {"id": now.uuid_of(ids.Host, person, likely=host.c.state == str(HostState.UP))}


@wish("updateHostPassword")
def _host_password(now: Wishes, person: Person) -> Parameters | None:
    of_host = {"hostid": now.uuid_of(ids.Host, person)}
    of_cluster = {"clusterid": now.uuid_of(ids.Cluster, person)}
    where = of_host if now.dice.random() < 0.7 else of_cluster
    name = now.name("secret")
    return {**where, "username": "root", "password": f"one-time-secret-{name}"}


@wish("deleteHost")
def _delete_host(now: Wishes, person: Person) -> Parameters | None:
    used = select(vm_incarnation.c.host_id).where(vm_incarnation.c.current == 1)
    known = host.c.state != str(HostState.CONNECTING)
    found = now.uuid_of(ids.Host, person, host.c.kind == str(HostKind.ROUTING), known, likely=host.c.id.not_in(used))
    return {"id": now.once(0.5, found)}


@wish("deleteZone")
def _delete_zone(now: Wishes, person: Person) -> Parameters | None:
    used = select(pod.c.zone_id).where(pod.c.live == 1).union(select(host.c.zone_id).where(host.c.live == 1))
    return {"id": now.uuid_of(ids.Zone, person, likely=zone.c.id.not_in(used))}


@wish("deleteCluster")
def _delete_cluster(now: Wishes, person: Person) -> Parameters | None:
    hosts = select(host.c.cluster_id).where(host.c.live == 1, host.c.cluster_id.is_not(None))
    used = hosts.union(select(storage_pool.c.cluster_id).where(storage_pool.c.live == 1))
    return {"id": now.uuid_of(ids.Cluster, person, likely=cluster.c.id.not_in(used))}


@wish("deletePod")
def _delete_pod(now: Wishes, person: Person) -> Parameters | None:
    used = select(cluster.c.pod_id).where(cluster.c.live == 1)
    return {"id": now.uuid_of(ids.Pod, person, likely=pod.c.id.not_in(used))}


@wish("addSecondaryStorage")
def _secondary_storage(now: Wishes, person: Person) -> Parameters | None:
    row = now.thing(ids.Zone, person, *([_WITHOUT_STORAGE] if now.dice.random() < 0.9 else []))
    url = f"nfs://192.0.2.9/export/{now.name('secondary')}"
    return None if row is None else {"zoneid": row["uuid"], "url": url, "token": f"one-time-secret-{now.made:04}"}


_WITHOUT_STORAGE = zone.c.id.not_in(
    select(host.c.zone_id).where(host.c.live == 1, host.c.kind == str(HostKind.SECONDARY_STORAGE))
)


@wish("createStoragePool")
def _pool(now: Wishes, _person: Person) -> Parameters | None:
    group = now.any_where(cluster, live=1)
    if group is None:
        return None
    name = now.name("pool")
    home = {"zoneid": now.world.uuid(zone, group["zone_id"]), "clusterid": group["uuid"]}
    return {**home, "name": name, "url": f"SharedMountPoint:///primary/{name}"}


@wish("deleteStoragePool")
def _delete_pool(now: Wishes, person: Person) -> Parameters | None:
    used = select(volume.c.pool_id).where(volume.c.live == 1, volume.c.pool_id.is_not(None))
    return {"id": now.uuid_of(ids.StoragePool, person, likely=storage_pool.c.id.not_in(used))}


@wish("deleteVlanIpRange")
def _delete_range(now: Wishes, person: Person) -> Parameters | None:
    used = select(public_ip.c.range_id).where(public_ip.c.live == 1, public_ip.c.state != str(IpState.FREE))
    return {"id": now.uuid_of(ids.VlanIpRange, person, likely=vlan_ip_range.c.id.not_in(used))}


@wish("createVlanIpRange")
def _range(now: Wishes, person: Person) -> Parameters | None:
    name = now.name("range")
    direct = now.thing(ids.Network, person, network.c.guest_ip_type == str(GuestIpType.DIRECT), *GUEST_NETWORK)
    if direct is not None and now.dice.random() < 0.5:
        first = f"{str(direct['gateway']).rsplit('.', 1)[0]}.{100 + now.made % 100}"
        return {"networkid": direct["uuid"], "startip": first, "forvirtualnetwork": False}
    del name
    home = now.world.uuid(zone, now.cloud.zone)
    where = {"zoneid": home, "gateway": "198.51.100.1", "netmask": "255.255.255.0"}
    return {**where, "startip": f"198.51.100.{20 + now.made % 200}"}


@wish("createServiceOffering")
def _offering(now: Wishes, _person: Person) -> Parameters | None:
    name = now.name("offering")
    small = {"cpunumber": 1, "cpuspeed": 500, "memory": now.dice.choice((256, 512))}
    return {"name": name, "displaytext": name, **small, "offerha": now.once(0.3, True)}


@wish("createDiskOffering")
def _disk_offering(now: Wishes, _person: Person) -> Parameters | None:
    name = now.name("disk")
    size = {"customized": True} if now.dice.random() < 0.3 else {"disksize": now.dice.randrange(1, 5)}
    return {"name": name, "displaytext": name, **size}


@wish("deleteServiceOffering", "updateServiceOffering")
def _of_offering(now: Wishes, person: Person) -> Parameters | None:
    found = now.uuid_of(ids.ServiceOffering, person, service_offering.c.is_system == 0)
    return {"id": found, "displaytext": now.name("offering"), "name": now.once(0.5, now.name("offering"))}


@wish("createNetworkOffering")
def _network_offering(now: Wishes, _person: Person) -> Parameters | None:
    name = now.name("nets")
    kind = now.dice.choice(tuple(GuestIpType))
    return {"name": name, "displaytext": name, "traffictype": "Guest", "guestiptype": kind, "networkrate": 100}


@wish("updateNetworkOffering", "deleteNetworkOffering")
def _of_network_offering(now: Wishes, person: Person) -> Parameters | None:
    made = network_offering.c.name.like("nets%")
    return {"id": now.uuid_of(ids.NetworkOffering, person, made), "displaytext": now.name("offering")}


# ---- the cloud itself


@wish("updateConfiguration")
def _setting(now: Wishes, _person: Person) -> Parameters | None:
    name, values = now.dice.choice(SETTINGS)
    return {"name": name, "value": now.dice.choice(values)}


@wish("ldapConfig")
def _directory(_now: Wishes, _person: Person) -> Parameters | None:
    return {"hostname": "ldap.example", "searchbase": "ou=people,dc=example,dc=org", "queryfilter": "(uid=%u)"}


@wish("uploadCustomCertificate")
def _certificate(now: Wishes, _person: Person) -> Parameters | None:
    return {"certificate": authority(), "domainsuffix": "cloud.example", "name": now.name("authority"), "id": 1}


@wish("startRouter", "destroyRouter")
def _router(now: Wishes, person: Person) -> Parameters | None:
    return {"id": now.uuid_of(ids.Router, person, likely=_HALTED)}


@wish("changeServiceForRouter")
def _other_size(now: Wishes, person: Person) -> Parameters | None:
    size = now.uuid_of(ids.ServiceOffering, person, _FOR_ROUTERS)
    return {"id": now.uuid_of(ids.Router, person, likely=_HALTED), "serviceofferingid": size}


_HALTED = vm.c.state == str(VmState.STOPPED)
_FOR_ROUTERS = service_offering.c.system_vm_type == str(SystemVmType.ROUTER)


@wish("stopRouter", "rebootRouter")
def _running_router(now: Wishes, person: Person) -> Parameters | None:
    return {"id": now.uuid_of(ids.Router, person, likely=vm.c.state == str(VmState.RUNNING))}
