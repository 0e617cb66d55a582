"""What every list of rules at public addresses takes."""

from pileus.server.api.command import ListParams, param
from pileus.server.domain.ids import Domain, Id
from pileus.server.services.rule import Asked


class RuleListParams(ListParams):
    """Whose rules to list."""

    account: str | None = param("list what this account owns", default=None)
    domain_id: Id[Domain] | None = param("list what accounts of this domain own", default=None)
    list_all: bool | None = param("true lists everything the caller may see", default=None)
    is_recursive: bool | None = param("true includes domains below domainid", default=None)

    def asked(self, rule_id: int | None, public_ip_id: int | None) -> Asked:
        """The bounds of the list."""
        return Asked(
            rule_id=rule_id,
            public_ip_id=public_ip_id,
            account_name=self.account,
            domain_id=self.domain_id,
            list_all=self.list_all,
            is_recursive=self.is_recursive,
        )
