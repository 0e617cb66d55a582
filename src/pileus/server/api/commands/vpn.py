"""Commands on remote access. Guide: "VPN"."""

from pileus.server.api.command import (
    EVERYONE,
    Call,
    ListParams,
    Page,
    Params,
    Response,
    Started,
    SuccessResponse,
    command,
    out,
    param,
)
from pileus.server.api.commands.rule_list import RuleListParams
from pileus.server.domain.ids import Domain, Id, PublicIp, RemoteAccessVpn, VpnUser
from pileus.server.events import types
from pileus.server.services import remote_access_vpn, vpn_user


class RemoteAccessVpnResponse(Response, name="remoteaccessvpn", kind=RemoteAccessVpn, load=remote_access_vpn.view):
    """A way into a network for the VPN users of its account."""

    id = out("the ID of the VPN")
    public_ip_id = out("the ID of the public address")
    public_ip = out("the public address")
    ip_range = out("the addresses of clients")
    preshared_key = out("the pre-shared key of IPsec")
    account = out("the account of the VPN")
    domain_id = out("the ID of the domain of the VPN")
    domain_name = out("the name of the domain of the VPN")
    state = out("the state of the VPN: Add, Active or Revoke")


class VpnUserResponse(Response, name="vpnuser", kind=VpnUser, load=vpn_user.view):
    """Who may come in by the VPNs of an account."""

    id = out("the ID of the VPN user")
    username = out("the name of the VPN user")
    account = out("the account of the VPN user")
    domain_id = out("the ID of the domain of the VPN user")
    domain_name = out("the name of the domain of the VPN user")
    state = out("the state of the VPN user: Add, Active or Revoke")


@command(
    "createRemoteAccessVpn",
    roles=EVERYONE,
    returns=RemoteAccessVpnResponse,
    job=True,
    emits=types.VPN_REMOTE_ACCESS_CREATE,
)
class CreateRemoteAccessVpn(Params):
    """Lets the VPN users of an account into the network of a public address, by L2TP over IPsec."""

    public_ip_id: Id[PublicIp] = param("the public address clients connect to")
    ip_range: str | None = param(
        "first and last address: the router's own end, then those of clients; remote.access.vpn.client.iprange unless"
        " given",
        default=None,
    )
    account: str | None = param("the account of the address", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)
    open_firewall: bool = param("true opens the firewall for IPsec, as long as there is the VPN", default=True)

    def run(self, call: Call) -> Started:
        return Started(
            *remote_access_vpn.create(
                call.tx,
                call.caller,
                public_ip_id=self.public_ip_id,
                ip_range=self.ip_range,
                account_name=self.account,
                domain_id=self.domain_id,
                open_firewall=self.open_firewall,
            )
        )


@command(
    "deleteRemoteAccessVpn", roles=EVERYONE, returns=SuccessResponse, job=True, emits=types.VPN_REMOTE_ACCESS_DESTROY
)
class DeleteRemoteAccessVpn(Params):
    """Closes the way in at a public address."""

    public_ip_id: Id[PublicIp] = param("the public address of the VPN")

    def run(self, call: Call) -> Started:
        return Started(remote_access_vpn.delete(call.tx, call.caller, self.public_ip_id))


@command("listRemoteAccessVpns", roles=EVERYONE, returns=RemoteAccessVpnResponse)
class ListRemoteAccessVpns(RuleListParams):
    """Lists ways into networks."""

    id: Id[RemoteAccessVpn] | None = param("the ID of the VPN", default=None)
    public_ip_id: Id[PublicIp] | None = param("the public address of the VPN", default=None)

    def run(self, call: Call) -> Page:
        asked = self.asked(self.id, self.public_ip_id)
        return Page(
            *remote_access_vpn.list_page(
                call.tx, call.caller, asked, keyword=self.keyword, page_number=self.page, page_size=self.page_size
            )
        )


@command("addVpnUser", roles=EVERYONE, returns=VpnUserResponse, job=True, emits=types.VPN_USER_ADD)
class AddVpnUser(Params):
    """Lets somebody in by the VPNs of an account."""

    username: str = param("the name: 3 to 64 letters, digits and @ . - _, a letter first", length=64)
    password: str = param("the password: 3 to 32 letters, digits and @ # . - _ = +", secret=True)
    account: str | None = param("the account", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)

    def run(self, call: Call) -> Started:
        return Started(
            *vpn_user.add(
                call.tx,
                call.caller,
                username=self.username,
                password=self.password,
                account_name=self.account,
                domain_id=self.domain_id,
            )
        )


@command("removeVpnUser", roles=EVERYONE, returns=SuccessResponse, job=True, emits=types.VPN_USER_REMOVE)
class RemoveVpnUser(Params):
    """Lets somebody in no more."""

    username: str = param("the name of the VPN user", length=64)
    account: str | None = param("the account", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)

    def run(self, call: Call) -> Started:
        return Started(
            vpn_user.remove(
                call.tx, call.caller, username=self.username, account_name=self.account, domain_id=self.domain_id
            )
        )


@command("listVpnUsers", roles=EVERYONE, returns=VpnUserResponse)
class ListVpnUsers(ListParams):
    """Lists VPN users."""

    id: Id[VpnUser] | None = param("the ID of the VPN user", default=None)
    username: str | None = param("the name of the VPN user", default=None)
    account: str | None = param("the account of the VPN users", default=None)
    domain_id: Id[Domain] | None = param("the domain of the VPN users", default=None)
    list_all: bool | None = param("true lists all VPN users the caller may see", default=None)
    is_recursive: bool | None = param("true includes domains below domainid", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *vpn_user.list_page(
                call.tx,
                call.caller,
                user_id=self.id,
                username=self.username,
                account_name=self.account,
                domain_id=self.domain_id,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                keyword=self.keyword,
                page_number=self.page,
                page_size=self.page_size,
            )
        )
