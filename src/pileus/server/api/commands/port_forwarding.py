"""Commands on port forwarding rules. Guide: "IP Forwarding and Firewalling"."""

from pileus.server.api.command import (
    EVERYONE,
    Call,
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
from pileus.server.domain.ids import Id, PortForwardingRule, PublicIp, Vm
from pileus.server.events import types
from pileus.server.services import port_forwarding


class PortForwardingRuleResponse(
    Response, name="portforwardingrule", kind=PortForwardingRule, load=port_forwarding.view
):
    """A port forwarding rule."""

    id = out("the ID of the rule")
    private_port = out("the first port of the virtual machine")
    private_end_port = out("the last port of the virtual machine")
    protocol = out("the protocol of the rule")
    public_port = out("the first public port")
    public_end_port = out("the last public port")
    virtual_machine_id = out("the ID of the virtual machine")
    virtual_machine_name = out("the name of the virtual machine")
    virtual_machine_display_name = out("the display name of the virtual machine")
    vm_guest_ip = out("the address of the virtual machine", wire="vmguestip")
    ip_address_id = out("the ID of the public address")
    ip_address = out("the public address")
    state = out("the state of the rule: Add, Active or Revoke")
    cidr_list = out("the networks the rule opened the firewall for; absent if it opened nothing")


@command(
    "createPortForwardingRule",
    roles=EVERYONE,
    returns=PortForwardingRuleResponse,
    job=True,
    emits=types.NET_RULEADD,
)
class CreatePortForwardingRule(Params):
    """Forwards ports of a public address to a virtual machine."""

    ip_address_id: Id[PublicIp] = param("the ID of the public address")
    virtual_machine_id: Id[Vm] = param("the ID of the virtual machine")
    protocol: str = param("the protocol: tcp or udp")
    public_port: int = param("the first public port")
    public_end_port: int | None = param("the last public port; the first unless given", default=None)
    private_port: int = param("the first port of the virtual machine")
    private_end_port: int | None = param("the last port of the virtual machine; the first unless given", default=None)
    cidr_list: list[str] | None = param("the networks to open the firewall for; all unless given", default=None)
    open_firewall: bool = param("true opens the firewall for the ports, as long as there is the rule", default=True)

    def run(self, call: Call) -> Started:
        return Started(
            *port_forwarding.create(
                call.tx,
                call.caller,
                public_ip_id=self.ip_address_id,
                vm_id=self.virtual_machine_id,
                protocol=self.protocol,
                public_port=self.public_port,
                public_end_port=self.public_end_port,
                private_port=self.private_port,
                private_end_port=self.private_end_port,
                cidrs=self.cidr_list or (),
                open_firewall=self.open_firewall,
            )
        )


@command(
    "updatePortForwardingRule",
    roles=EVERYONE,
    returns=PortForwardingRuleResponse,
    job=True,
    emits=types.NET_RULEMODIFY,
)
class UpdatePortForwardingRule(Params):
    """Leads the rule that begins at a public port to another port or virtual machine."""

    ip_address_id: Id[PublicIp] = param("the ID of the public address")
    protocol: str = param("the protocol of the rule: tcp or udp")
    public_port: int = param("the first public port of the rule")
    private_port: int = param("the first port of the virtual machine from now on")
    private_ip: str | None = param("the address of the virtual machine to lead to from now on", default=None)
    virtual_machine_id: Id[Vm] | None = param("the virtual machine to lead to from now on", default=None)

    def run(self, call: Call) -> Started:
        return Started(
            port_forwarding.change(
                call.tx,
                call.caller,
                public_ip_id=self.ip_address_id,
                protocol=self.protocol,
                public_port=self.public_port,
                private_port=self.private_port,
                private_ip=self.private_ip,
                vm_id=self.virtual_machine_id,
            )
        )


@command("deletePortForwardingRule", roles=EVERYONE, returns=SuccessResponse, job=True, emits=types.NET_RULEDELETE)
class DeletePortForwardingRule(Params):
    """Deletes a port forwarding rule."""

    id: Id[PortForwardingRule] = param("the ID of the rule")

    def run(self, call: Call) -> Started:
        return Started(port_forwarding.delete(call.tx, call.caller, self.id))


@command("listPortForwardingRules", roles=EVERYONE, returns=PortForwardingRuleResponse)
class ListPortForwardingRules(RuleListParams):
    """Lists port forwarding rules."""

    id: Id[PortForwardingRule] | None = param("the ID of the rule", default=None)
    ip_address_id: Id[PublicIp] | None = param("the public address of the rules", default=None)

    def run(self, call: Call) -> Page:
        asked = self.asked(self.id, self.ip_address_id)
        return Page(
            *port_forwarding.list_page(
                call.tx, call.caller, asked, keyword=self.keyword, page_number=self.page, page_size=self.page_size
            )
        )
