"""Commands on IP forwarding rules: those of addresses that belong to one guest whole (static NAT)."""

from pileus.server.api.command import EVERYONE, Call, ListParams, Page, command, param
from pileus.server.api.commands.port_forwarding import PortForwardingRuleResponse
from pileus.server.domain.ids import Domain, Id, PortForwardingRule, PublicIp, Vm
from pileus.server.services import port_forwarding


class IpForwardingRuleResponse(PortForwardingRuleResponse, name="ipforwardingrule"):
    """A rule of an address that belongs to one guest whole."""


@command("listIpForwardingRules", roles=EVERYONE, returns=IpForwardingRuleResponse)
class ListIpForwardingRules(ListParams):
    """Lists the rules of addresses that have static NAT."""

    id: Id[PortForwardingRule] | None = param("the ID of the rule", default=None)
    ip_address_id: Id[PublicIp] | None = param("the public address of the rules", default=None)
    virtual_machine_id: Id[Vm] | None = param("the virtual machine of the rules", default=None)
    account: str | None = param("the account of the rules", default=None)
    domain_id: Id[Domain] | None = param("the domain of the rules", default=None)
    list_all: bool | None = param("true lists all rules the caller may see", default=None)
    is_recursive: bool | None = param("true includes domains below domainid", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *port_forwarding.list_page(
                call.tx,
                call.caller,
                rule_id=self.id,
                public_ip_id=self.ip_address_id,
                account_name=self.account,
                domain_id=self.domain_id,
                keyword=self.keyword,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                page_number=self.page,
                page_size=self.page_size,
                vm_id=self.virtual_machine_id,
                static_nat=True,
            )
        )
