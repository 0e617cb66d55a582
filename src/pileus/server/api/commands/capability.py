"""listCapabilities."""

from pileus.server.api.command import EVERYONE, Call, Params, Response, View, command, out
from pileus.server.api.render import VERSION
from pileus.server.config import keys, value


class CapabilityResponse(Response, name="capability"):
    """What this cloud can do."""

    security_groups_enabled = out("true if security groups support is enabled", "boolean")
    cloudstack_version = out("version of the cloud's API")
    user_public_template_enabled = out("true if users may make their templates public", "boolean")
    firewall_rule_ui_enabled = out("true if the firewall rule UI is enabled", "boolean", wire="firewallRuleUiEnabled")
    support_elb = out("true if elastic load balancing is supported", wire="supportELB")
    allow_users_create_projects = out("true if users may create projects", "boolean")
    default_page_size = out("the page size when none is asked for", "long")


@command("listCapabilities", roles=EVERYONE, returns=CapabilityResponse)
class ListCapabilities(Params):
    """Lists what this cloud can do."""

    def run(self, call: Call) -> View:
        return {
            "security_groups_enabled": False,
            "cloudstack_version": VERSION,
            "user_public_template_enabled": value(call.tx, keys.allow_public_user_templates),
            "firewall_rule_ui_enabled": False,
            "support_elb": "false",
            "allow_users_create_projects": False,
            "default_page_size": value(call.tx, keys.default_page_size),
        }
