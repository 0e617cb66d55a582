"""Commands on hosts and secondary storage."""

from pileus.server.api.command import (
    ADMINS,
    ROOT_ONLY,
    SUCCESS,
    Call,
    ListParams,
    Page,
    Params,
    Response,
    Started,
    Success,
    SuccessResponse,
    View,
    command,
    out,
    param,
)
from pileus.server.domain.ids import Cluster, Host, Id, OsCategory, Pod, Vm, Zone
from pileus.server.events import types
from pileus.server.services import host, host_line


class HostResponse(Response, name="host", kind=Host, load=host.view):
    """A host, or a zone's secondary storage."""

    id = out("the ID of the host")
    name = out("the name of the host")
    state = out("the state of the host: Connecting, Up, Disconnected, Down, Alert")
    disconnected = out("when the host was lost", "date")
    type = out("the type of the host: Routing or SecondaryStorage")
    os_category_id = out("the OS category the host prefers")
    os_category_name = out("the name of the OS category the host prefers")
    ip_address = out("the IP address of the host")
    zone_id = out("the ID of the zone of the host")
    zone_name = out("the name of the zone of the host")
    pod_id = out("the ID of the pod of the host")
    pod_name = out("the name of the pod of the host")
    cluster_id = out("the ID of the cluster of the host")
    cluster_name = out("the name of the cluster of the host")
    cluster_type = out("the type of the cluster of the host")
    version = out("the version of the hypervisor")
    hypervisor = out("the hypervisor of the host")
    cpu_number = out("the number of CPUs of the host", "integer")
    cpu_speed = out("the speed of one CPU in MHz", "long")
    cpu_with_overprovisioning = out("CPU of the host in MHz after over-provisioning")
    cpu_allocated = out("the share of CPU that guests have claimed")
    cpu_used = out("the share of CPU in use")
    average_load = out("the CPU average load", "long")
    network_kbs_read = out("incoming traffic in KiB", "long")
    network_kbs_write = out("outgoing traffic in KiB", "long")
    memory_total = out("memory in bytes", "long")
    memory_allocated = out("memory that guests have claimed, in bytes", "long")
    memory_used = out("memory in use, in bytes", "long")
    disk_size_total = out("disk space of the host in bytes", "long")
    disk_size_allocated = out("disk space claimed in bytes", "long")
    capabilities = out("capabilities of the host")
    last_pinged = out("when the host was last heard", "date")
    management_server_id = out("the management server that holds the host's connection")
    is_local_storage_active = out("true if local storage is active", "boolean")
    created = out("when the host was added", "date")
    removed = out("when the host was removed", "date")
    events = out("events that the host's state allows")
    host_tags = out("comma-separated tags of the host")
    has_enough_capacity = out("true if the host has CPU to claim", "boolean", wire="hasEnoughCapacity")
    allocation_state = out("Enabled or Disabled for new guests")
    resource_state = out("Enabled or Disabled for new guests, as later clients name it")


@command("addHost", roles=ADMINS, returns=HostResponse, emits="HOST.CREATE")
class AddHost(Params):
    """Adds a host. Its agent enrols with the password as the one-time secret, and the host comes up by itself.

    A host of hypervisor Simulator is made by a fleet of simulated hosts, and takes any user name and password.
    The query of its URL may say how it behaves, such as http://sim1?latency=lognormal:0.05:0.4&refuse.StartVm=0.01.
    """

    zone_id: Id[Zone] = param("the ID of the zone of the host")
    pod_id: Id[Pod] | None = param("the ID of the pod of the host", default=None)
    cluster_id: Id[Cluster] | None = param("the ID of the cluster of the host", default=None)
    cluster_name: str | None = param("the name of the cluster; made in the pod if it is new", default=None)
    hypervisor: str = param("hypervisor type of the host: KVM, Simulator")
    url: str = param("the host's name as a URL, such as http://host1")
    username: str = param("the user name at the host (kept for older clients, not used)")
    password: str = param(
        "the one-time secret, at least 16 characters, with which the host's agent enrols; anything for Simulator",
        secret=True,
    )
    allocation_state: str | None = param("Enabled or Disabled for new guests", default=None)
    host_tags: list[str] | None = param("tags of the host", default=None)

    def run(self, call: Call) -> View:
        return host.add(
            call.tx,
            call.caller,
            zone_id=self.zone_id,
            pod_id=self.pod_id,
            cluster_id=self.cluster_id,
            cluster_name=self.cluster_name,
            hypervisor=self.hypervisor,
            url=self.url,
            password=self.password,
            allocation_state=self.allocation_state,
            tags=self.host_tags,
        )


@command("addSecondaryStorage", roles=ROOT_ONLY, returns=HostResponse, emits="IMAGE.STORE.CREATE")
class AddSecondaryStorage(Params):
    """Adds the secondary storage of a zone. The agent that serves it enrols with the token."""

    zone_id: Id[Zone] = param("the ID of the zone")
    url: str = param("the URL of the storage, such as nfs://server/export or file:///directory")
    token: str | None = param(
        "the one-time secret, at least 16 characters, of the serving agent", default=None, secret=True
    )

    def run(self, call: Call) -> View:
        return host.add_secondary_storage(call.tx, call.caller, zone_id=self.zone_id, url=self.url, token=self.token)


@command("updateHost", roles=ROOT_ONLY, returns=HostResponse)
class UpdateHost(Params):
    """Updates a host."""

    id: Id[Host] = param("the ID of the host")
    os_category_id: Id[OsCategory] | None = param("the OS category the host prefers", default=None)
    allocation_state: str | None = param("Enabled or Disabled for new guests", default=None)
    host_tags: list[str] | None = param("tags of the host", default=None)

    def run(self, call: Call) -> View:
        return host.update(
            call.tx,
            call.caller,
            self.id,
            os_category_id=self.os_category_id,
            allocation_state=self.allocation_state,
            tags=self.host_tags,
        )


@command("reconnectHost", roles=ROOT_ONLY, returns=HostResponse, job=True, emits=types.HOST_RECONNECT)
class ReconnectHost(Params):
    """Ends a host's connection and waits until its agent has made another. Guests run on."""

    id: Id[Host] = param("the ID of the host")

    def run(self, call: Call) -> Started:
        return Started(host_line.reconnect(call.tx, call.caller, self.id))


@command("updateHostPassword", roles=ROOT_ONLY, returns=SuccessResponse)
class UpdateHostPassword(Params):
    """Gives a host, or each host of a cluster, a new one-time secret with which its agent enrols again within a day.

    What runs and is connected stays so until an agent enrols with it: then the host's earlier certificates end. For a
    cluster, the secret of each host is the hexadecimal HMAC-SHA256 of the host's ID under the password.
    """

    host_id: Id[Host] | None = param("the ID of the host; or give clusterid", default=None)
    cluster_id: Id[Cluster] | None = param("the ID of the cluster; or give hostid", default=None)
    username: str = param("the user name at the host (kept for older clients, not used)")
    password: str = param("the one-time secret, at least 16 characters", secret=True)

    def run(self, call: Call) -> Success:
        host_line.renew_secret(
            call.tx, call.caller, host_id=self.host_id, cluster_id=self.cluster_id, password=self.password
        )
        return SUCCESS


@command("deleteHost", roles=ADMINS, returns=SuccessResponse, emits=("HOST.DELETE", "IMAGE.STORE.DELETE"))
class DeleteHost(Params):
    """Deletes a host on which nothing lives."""

    id: Id[Host] = param("the ID of the host")
    forced: bool = param("not used while guests must be stopped first", default=False)
    force_destroy_local_storage: bool = param("not used without local storage", default=False)

    def run(self, call: Call) -> Success:
        host.delete(call.tx, call.caller, self.id)
        return SUCCESS


@command("listHosts", roles=ADMINS, returns=HostResponse)
class ListHosts(ListParams):
    """Lists hosts."""

    id: Id[Host] | None = param("the ID of the host", default=None)
    name: str | None = param("the name of the host", default=None)
    zone_id: Id[Zone] | None = param("the ID of the zone", default=None)
    pod_id: Id[Pod] | None = param("the ID of the pod", default=None)
    cluster_id: Id[Cluster] | None = param("the ID of the cluster", default=None)
    state: str | None = param("the state of the host", default=None)
    type: str | None = param("the type of the host: Routing or SecondaryStorage", default=None)
    virtual_machine_id: Id[Vm] | None = param("list the host on which this virtual machine lives", default=None)
    allocation_state: str | None = param("Enabled or Disabled", default=None)
    details: int | None = param("kept for older clients: all details are given", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *host.list_page(
                call.tx,
                call.caller,
                host_id=self.id,
                name=self.name,
                zone_id=self.zone_id,
                pod_id=self.pod_id,
                cluster_id=self.cluster_id,
                state=self.state,
                kind=self.type,
                vm_id=self.virtual_machine_id,
                allocation_state=self.allocation_state,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )
