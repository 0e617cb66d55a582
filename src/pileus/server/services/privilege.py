"""Who may act on whose account: within one's domains, and never on a role above one's own."""

from sqlalchemy import RowMapping

from pileus.server.auth import visibility
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import ROOT_DOMAIN, AccountType
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, PermissionDenied

_RANK = {AccountType.USER: 0, AccountType.DOMAIN_ADMIN: 1, AccountType.RESOURCE_ADMIN: 2, AccountType.ADMIN: 3}


def require_over(tx: Tx, caller: Caller, account: RowMapping) -> None:
    """531 unless the caller may act on this account: on its users, passwords, keys and state."""
    if account["system"]:
        raise PermissionDenied("the cloud's own accounts cannot be changed")
    visibility.require(tx, caller, account["id"], account["domain_id"], f"account {account['name']}")
    if _RANK[AccountType(account["type"])] > _RANK[caller.type]:
        raise PermissionDenied(f"account {account['name']} has more privileges than yours")


def account_type(number: int) -> AccountType:
    """The account type of this number."""
    try:
        return AccountType(number)
    except ValueError:
        raise ParameterError(
            "accounttype is 0 (user), 1 (root administrator), 2 (domain administrator) or 3 (resource administrator)",
            parameter="accounttype",
        ) from None


def granted(caller: Caller, number: int, domain_id: int) -> AccountType:
    """An account type, if the caller may grant it: no more than their own, root administrators only in ROOT."""
    wanted = account_type(number)
    if _RANK[wanted] > _RANK[caller.type]:
        raise PermissionDenied("you cannot grant more privileges than your own")
    if wanted is AccountType.ADMIN and domain_id != ROOT_DOMAIN:
        raise ParameterError("root administrators belong to the ROOT domain", parameter="accounttype")
    return wanted
