"""Who is calling: the identity that every service and every visibility check receives."""

from dataclasses import dataclass

from pileus.server.domain.account import ADMIN_ACCOUNT, ADMIN_USER, ROOT_DOMAIN, AccountType, Role
from pileus.server.domain.ids import Account, Domain, Id, User


@dataclass(frozen=True)
class Caller:
    """An authenticated user. `sees_all` marks the integration port and the system, which need no `listall`."""

    user_id: Id[User]
    account_id: Id[Account]
    account_name: str
    domain_id: Id[Domain]
    domain_path: str
    type: AccountType
    role: Role
    sees_all: bool = False

    @property
    def is_admin(self) -> bool:
        """Root administrators may do everything everywhere."""
        return self.role == Role.ADMIN


@dataclass(frozen=True)
class Owner:
    """On whose behalf something is made or a job runs."""

    account_id: int
    domain_id: int
    user_id: int


def root_caller(*, sees_all: bool = True) -> Caller:
    """The built-in administrator, for the integration port and for work the cloud does on its own behalf."""
    return Caller(
        user_id=Id(ADMIN_USER),
        account_id=Id(ADMIN_ACCOUNT),
        account_name="admin",
        domain_id=Id(ROOT_DOMAIN),
        domain_path="/",
        type=AccountType.ADMIN,
        role=Role.ADMIN,
        sees_all=sees_all,
    )
