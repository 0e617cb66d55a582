"""Domains, accounts and users: types, roles, states, limits. Guide: "Users, Accounts, Administrators, and Domains"."""

from enum import IntEnum, IntFlag, StrEnum

from pileus.server.domain.transitions import Transitions


class AccountType(IntEnum):
    """Wire account types; SYSTEM accounts can never sign in."""

    USER = 0
    ADMIN = 1
    DOMAIN_ADMIN = 2
    RESOURCE_ADMIN = 3


class Role(IntFlag):
    """Who may call a command."""

    ADMIN = 1
    RESOURCE_ADMIN = 2
    DOMAIN_ADMIN = 4
    USER = 8


ROLE_OF = {
    AccountType.USER: Role.USER,
    AccountType.ADMIN: Role.ADMIN,
    AccountType.DOMAIN_ADMIN: Role.DOMAIN_ADMIN,
    AccountType.RESOURCE_ADMIN: Role.RESOURCE_ADMIN,
}

ROOT_DOMAIN = 1
SYSTEM_ACCOUNT = 1
ADMIN_ACCOUNT = 2
SYSTEM_USER = 1
ADMIN_USER = 2


class AccountState(StrEnum):
    """Wire states of accounts and users."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    LOCKED = "locked"
    REMOVED = "removed"


ACCOUNT = Transitions[AccountState](
    {
        AccountState.ENABLED: (AccountState.DISABLED, AccountState.LOCKED, AccountState.REMOVED),
        AccountState.DISABLED: (AccountState.ENABLED, AccountState.REMOVED),
        AccountState.LOCKED: (AccountState.ENABLED, AccountState.DISABLED, AccountState.REMOVED),
        AccountState.REMOVED: (),
    }
)


class Resource(IntEnum):
    """Wire resource types that limits count."""

    INSTANCE = 0
    PUBLIC_IP = 1
    VOLUME = 2
    SNAPSHOT = 3
    TEMPLATE = 4


UNLIMITED = -1
