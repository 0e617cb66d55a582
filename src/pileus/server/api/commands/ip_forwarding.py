"""Commands on static NAT: addresses that belong to one virtual machine whole, and their open ports."""

from pileus.server.api.command import (
    EVERYONE,
    SUCCESS,
    Call,
    Page,
    Params,
    Response,
    Started,
    Success,
    SuccessResponse,
    command,
    out,
    param,
)
from pileus.server.api.commands.rule_list import RuleListParams
from pileus.server.domain.ids import Id, IpForwardingRule, PublicIp, Vm
from pileus.server.events import types
from pileus.server.services import ip_forwarding


class IpForwardingRuleResponse(Response, name="ipforwardingrule", kind=IpForwardingRule, load=ip_forwarding.view):
    """Open ports of an address that belongs to one virtual machine whole."""

    id = out("the ID of the rule")
    protocol = out("the protocol of the rule")
    public_port = out("the first port")
    public_end_port = out("the last port")
    private_port = out("the first port of the virtual machine: the same")
    private_end_port = out("the last port of the virtual machine: the same")
    virtual_machine_id = out("the ID of the virtual machine")
    virtual_machine_name = out("the name of the virtual machine")
    virtual_machine_display_name = out("the display name of the virtual machine")
    ip_address_id = out("the ID of the public address")
    ip_address = out("the public address")
    state = out("the state of the rule: Add, Active or Revoke")
    cidr_list = out("the networks the rule opened the firewall for; absent if it opened nothing")


@command("enableStaticNat", roles=EVERYONE, returns=SuccessResponse, emits=types.STATICNAT_ENABLE)
class EnableStaticNat(Params):
    """Maps a public address to one virtual machine whole, both ways."""

    ip_address_id: Id[PublicIp] = param("the ID of the public address")
    virtual_machine_id: Id[Vm] = param("the ID of the virtual machine")

    def run(self, call: Call) -> Success:
        ip_forwarding.enable(call.tx, call.caller, public_ip_id=self.ip_address_id, vm_id=self.virtual_machine_id)
        return SUCCESS


@command("disableStaticNat", roles=EVERYONE, returns=SuccessResponse, job=True, emits=types.STATICNAT_DISABLE)
class DisableStaticNat(Params):
    """Ends the mapping of a public address, and its rules."""

    ip_address_id: Id[PublicIp] = param("the ID of the public address")

    def run(self, call: Call) -> Started:
        return Started(ip_forwarding.disable(call.tx, call.caller, self.ip_address_id))


@command("createIpForwardingRule", roles=EVERYONE, returns=IpForwardingRuleResponse, job=True, emits=types.NET_RULEADD)
class CreateIpForwardingRule(Params):
    """Opens ports of an address that has static NAT."""

    ip_address_id: Id[PublicIp] = param("the ID of the public address")
    protocol: str = param("the protocol: tcp or udp")
    start_port: int = param("the first port")
    end_port: int | None = param("the last port; the first unless given", default=None)
    cidr_list: list[str] | None = param("the networks to open the firewall for; all unless given", default=None)
    open_firewall: bool = param("true opens the firewall for the ports, as long as there is the rule", default=True)

    def run(self, call: Call) -> Started:
        return Started(
            *ip_forwarding.create(
                call.tx,
                call.caller,
                public_ip_id=self.ip_address_id,
                protocol=self.protocol,
                start_port=self.start_port,
                end_port=self.end_port,
                cidrs=self.cidr_list or (),
                open_firewall=self.open_firewall,
            )
        )


@command("deleteIpForwardingRule", roles=EVERYONE, returns=SuccessResponse, job=True, emits=types.NET_RULEDELETE)
class DeleteIpForwardingRule(Params):
    """Closes ports of an address that has static NAT."""

    id: Id[IpForwardingRule] = param("the ID of the rule")

    def run(self, call: Call) -> Started:
        return Started(ip_forwarding.delete(call.tx, call.caller, self.id))


@command("listIpForwardingRules", roles=EVERYONE, returns=IpForwardingRuleResponse)
class ListIpForwardingRules(RuleListParams):
    """Lists open ports of addresses that have static NAT."""

    id: Id[IpForwardingRule] | None = param("the ID of the rule", default=None)
    ip_address_id: Id[PublicIp] | None = param("the public address of the rules", default=None)
    virtual_machine_id: Id[Vm] | None = param("the virtual machine of the rules", default=None)

    def run(self, call: Call) -> Page:
        asked = self.asked(self.id, self.ip_address_id)
        return Page(
            *ip_forwarding.list_page(
                call.tx,
                call.caller,
                asked,
                vm_id=self.virtual_machine_id,
                keyword=self.keyword,
                page_number=self.page,
                page_size=self.page_size,
            )
        )
