"""Commands on load balancer rules. Guide: "Load Balancing"."""

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
from pileus.server.api.commands.vm import VmResponse
from pileus.server.domain.ids import Domain, Id, LoadBalancerRule, PublicIp, Vm, Zone
from pileus.server.events import types
from pileus.server.services import load_balancer


class LoadBalancerRuleResponse(Response, name="loadbalancer", kind=LoadBalancerRule, load=load_balancer.view):
    """Connections to a port of a public address, shared out among virtual machines."""

    id = out("the ID of the rule")
    name = out("the name of the rule")
    description = out("the description of the rule")
    public_ip_id = out("the ID of the public address")
    public_ip = out("the public address")
    public_port = out("the public port")
    private_port = out("the port of the virtual machines")
    algorithm = out("how a virtual machine is chosen: roundrobin, leastconn or source")
    account = out("the account of the rule")
    domain_id = out("the ID of the domain of the rule")
    domain = out("the name of the domain of the rule")
    state = out("the state of the rule: Add, Active or Revoke")
    zone_id = out("the ID of the zone of the rule")
    cidr_list = out("the networks the rule opened the firewall for; absent if it opened nothing")


class ListedLoadBalancerRuleResponse(LoadBalancerRuleResponse, name="loadbalancerrule"):
    """A load balancer rule in a list, where the wire has another name for it."""


class MemberResponse(VmResponse, name="loadbalancerruleinstance"):
    """A virtual machine that takes part in a rule, or could."""


@command("createLoadBalancerRule", roles=EVERYONE, returns=LoadBalancerRuleResponse, job=True, emits=types.LB_CREATE)
class CreateLoadBalancerRule(Params):
    """Shares out connections to a port of a public address among virtual machines, which are assigned afterwards."""

    algorithm: str = param("how a virtual machine is chosen: roundrobin, leastconn or source")
    name: str = param("the name of the rule", length=255)
    private_port: int = param("the port of the virtual machines")
    public_port: int = param("the public port")
    description: str | None = param("the description of the rule", default=None, length=4096)
    public_ip_id: Id[PublicIp] | None = param(
        "the public address; the source NAT address of the account's network in the zone unless given", default=None
    )
    zone_id: Id[Zone] | None = param("the zone, where no public address is given", default=None)
    account: str | None = param("the account, where no public address is given", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)
    cidr_list: list[str] | None = param("the networks to open the firewall for; all unless given", default=None)
    open_firewall: bool = param("true opens the firewall for the port, as long as there is the rule", default=True)

    def run(self, call: Call) -> Started:
        return Started(
            *load_balancer.create(
                call.tx,
                call.caller,
                name=self.name,
                description=self.description,
                public_ip_id=self.public_ip_id,
                zone_id=self.zone_id,
                account_name=self.account,
                domain_id=self.domain_id,
                algorithm=self.algorithm,
                public_port=self.public_port,
                private_port=self.private_port,
                cidrs=self.cidr_list or (),
                open_firewall=self.open_firewall,
            )
        )


@command("updateLoadBalancerRule", roles=EVERYONE, returns=LoadBalancerRuleResponse, job=True, emits=types.LB_UPDATE)
class UpdateLoadBalancerRule(Params):
    """Changes name, description or algorithm of a rule."""

    id: Id[LoadBalancerRule] = param("the ID of the rule")
    name: str | None = param("the new name", default=None, length=255)
    description: str | None = param("the new description", default=None, length=4096)
    algorithm: str | None = param("the new algorithm: roundrobin, leastconn or source", default=None)

    def run(self, call: Call) -> Started:
        return Started(
            load_balancer.change(
                call.tx,
                call.caller,
                self.id,
                name=self.name,
                description=self.description,
                algorithm=self.algorithm,
            )
        )


@command("deleteLoadBalancerRule", roles=EVERYONE, returns=SuccessResponse, job=True, emits=types.LB_DELETE)
class DeleteLoadBalancerRule(Params):
    """Deletes a rule."""

    id: Id[LoadBalancerRule] = param("the ID of the rule")

    def run(self, call: Call) -> Started:
        return Started(load_balancer.delete(call.tx, call.caller, self.id))


@command("assignToLoadBalancerRule", roles=EVERYONE, returns=SuccessResponse, job=True, emits=types.LB_ASSIGN_TO_RULE)
class AssignToLoadBalancerRule(Params):
    """Lets virtual machines take part in a rule."""

    id: Id[LoadBalancerRule] = param("the ID of the rule")
    virtual_machine_ids: list[Id[Vm]] = param("the virtual machines")

    def run(self, call: Call) -> Started:
        return Started(load_balancer.assign(call.tx, call.caller, self.id, self.virtual_machine_ids))


@command(
    "removeFromLoadBalancerRule", roles=EVERYONE, returns=SuccessResponse, job=True, emits=types.LB_REMOVE_FROM_RULE
)
class RemoveFromLoadBalancerRule(Params):
    """Lets virtual machines take part in a rule no more."""

    id: Id[LoadBalancerRule] = param("the ID of the rule")
    virtual_machine_ids: list[Id[Vm]] = param("the virtual machines")

    def run(self, call: Call) -> Started:
        return Started(load_balancer.remove(call.tx, call.caller, self.id, self.virtual_machine_ids))


@command("listLoadBalancerRules", roles=EVERYONE, returns=ListedLoadBalancerRuleResponse)
class ListLoadBalancerRules(RuleListParams):
    """Lists load balancer rules."""

    id: Id[LoadBalancerRule] | None = param("the ID of the rule", default=None)
    name: str | None = param("the name of the rules", default=None)
    public_ip_id: Id[PublicIp] | None = param("the public address of the rules", default=None)
    virtual_machine_id: Id[Vm] | None = param("a virtual machine that takes part in the rules", default=None)
    zone_id: Id[Zone] | None = param("the zone of the rules", default=None)

    def run(self, call: Call) -> Page:
        asked = self.asked(self.id, self.public_ip_id)
        return Page(
            *load_balancer.list_page(
                call.tx,
                call.caller,
                asked,
                name=self.name,
                vm_id=self.virtual_machine_id,
                zone_id=self.zone_id,
                keyword=self.keyword,
                page_number=self.page,
                page_size=self.page_size,
            )
        )


@command("listLoadBalancerRuleInstances", roles=EVERYONE, returns=MemberResponse)
class ListLoadBalancerRuleInstances(ListParams):
    """Lists the virtual machines that take part in a rule, or those that could."""

    id: Id[LoadBalancerRule] = param("the ID of the rule")
    applied: bool = param("false lists those of the network that take no part", default=True)

    def run(self, call: Call) -> Page:
        return Page(
            *load_balancer.instances_page(
                call.tx,
                call.caller,
                self.id,
                applied=self.applied,
                keyword=self.keyword,
                page_number=self.page,
                page_size=self.page_size,
            )
        )
