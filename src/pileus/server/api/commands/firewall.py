"""Commands on firewall rules. Guide: "IP Forwarding and Firewalling"."""

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
from pileus.server.domain.ids import FirewallRule, Id, PublicIp
from pileus.server.events import types
from pileus.server.services import firewall


class FirewallRuleResponse(Response, name="firewallrule", kind=FirewallRule, load=firewall.view):
    """Who may open new connections to a public address."""

    id = out("the ID of the rule")
    protocol = out("the protocol: tcp, udp or icmp")
    start_port = out("the first port; absent for icmp")
    end_port = out("the last port; absent for icmp")
    icmp_type = out("the type of ICMP messages; absent for any", "integer")
    icmp_code = out("the code of ICMP messages; absent for any", "integer")
    ip_address_id = out("the ID of the public address")
    ip_address = out("the public address")
    cidr_list = out("the networks that are let in, separated by commas")
    state = out("the state of the rule: Add, Active or Revoke")


@command("createFirewallRule", roles=EVERYONE, returns=FirewallRuleResponse, job=True, emits=types.FIREWALL_OPEN)
class CreateFirewallRule(Params):
    """Lets networks open connections to a public address."""

    ip_address_id: Id[PublicIp] = param("the ID of the public address")
    protocol: str = param("the protocol: tcp, udp or icmp")
    start_port: int | None = param("the first port, for tcp and udp", default=None)
    end_port: int | None = param("the last port; the first unless given", default=None)
    icmp_type: int | None = param("the type of ICMP messages; any unless given", default=None)
    icmp_code: int | None = param("the code of ICMP messages; any unless given", default=None)
    cidr_list: list[str] | None = param("the networks to let in; all unless given", default=None)

    def run(self, call: Call) -> Started:
        return Started(
            *firewall.create(
                call.tx,
                call.caller,
                public_ip_id=self.ip_address_id,
                protocol=self.protocol,
                start_port=self.start_port,
                end_port=self.end_port,
                icmp_type=self.icmp_type,
                icmp_code=self.icmp_code,
                cidrs=self.cidr_list or (),
            )
        )


@command("deleteFirewallRule", roles=EVERYONE, returns=SuccessResponse, job=True, emits=types.FIREWALL_CLOSE)
class DeleteFirewallRule(Params):
    """Closes what a rule opened."""

    id: Id[FirewallRule] = param("the ID of the rule")

    def run(self, call: Call) -> Started:
        return Started(firewall.delete(call.tx, call.caller, self.id))


@command("listFirewallRules", roles=EVERYONE, returns=FirewallRuleResponse)
class ListFirewallRules(RuleListParams):
    """Lists firewall rules, those that came with other rules too."""

    id: Id[FirewallRule] | None = param("the ID of the rule", default=None)
    ip_address_id: Id[PublicIp] | None = param("the public address of the rules", default=None)

    def run(self, call: Call) -> Page:
        asked = self.asked(self.id, self.ip_address_id)
        return Page(
            *firewall.list_page(
                call.tx, call.caller, asked, keyword=self.keyword, page_number=self.page, page_size=self.page_size
            )
        )
