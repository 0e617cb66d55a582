"""Commands on accounts."""

from pileus.server.api.command import (
    ADMINS,
    DOMAIN_ADMINS,
    EVERYONE,
    Call,
    ListParams,
    Page,
    Params,
    PasswordHash,
    Response,
    Started,
    SuccessResponse,
    View,
    command,
    out,
    param,
)
from pileus.server.api.commands.user import UserResponse
from pileus.server.domain.ids import Account, Domain, Id
from pileus.server.events import types
from pileus.server.services import account


class AccountResponse(Response, name="account", kind=Account, load=account.view):
    """An account with its users, limits and counts."""

    id = out("the ID of the account")
    name = out("the name of the account")
    account_type = out("the type: 0 user, 1 root administrator, 2 domain administrator, 3 resource admin", "short")
    domain_id = out("the ID of the domain of the account")
    domain = out("the name of the domain of the account")
    vm_limit = out("how many virtual machines the account may own")
    vm_total = out("how many virtual machines it owns", "long")
    vm_available = out("how many more virtual machines it may own")
    ip_limit = out("how many public IP addresses the account may own")
    ip_total = out("how many public IP addresses it owns", "long")
    ip_available = out("how many more public IP addresses it may own")
    volume_limit = out("how many volumes the account may own")
    volume_total = out("how many volumes it owns", "long")
    volume_available = out("how many more volumes it may own")
    snapshot_limit = out("how many snapshots the account may own")
    snapshot_total = out("how many snapshots it owns", "long")
    snapshot_available = out("how many more snapshots it may own")
    template_limit = out("how many templates the account may own")
    template_total = out("how many templates it owns", "long")
    template_available = out("how many more templates it may own")
    vm_stopped = out("how many of its virtual machines are stopped", "integer")
    vm_running = out("how many of its virtual machines run", "integer")
    state = out("the state of the account")
    is_cleanup_required = out("true while the account is being cleaned up", "boolean", wire="iscleanuprequired")
    is_default = out("true for the built-in administrator", "boolean")
    network_domain = out("the network domain")
    created = out("when the account was created", "date")
    user = out("the users of the account", "list", nested=UserResponse)


@command("createAccount", roles=ADMINS, returns=AccountResponse, emits=(types.ACCOUNT_CREATE, types.USER_CREATE))
class CreateAccount(Params):
    """Creates an account with its first user."""

    account: str | None = param("the name of the account; the user name unless given", default=None)
    account_type: int = param("0 user, 1 root administrator, 2 domain administrator, 3 resource administrator")
    domain_id: Id[Domain] | None = param("the domain of the account; your own unless given", default=None)
    email: str = param("email address of the user")
    firstname: str = param("first name of the user")
    lastname: str = param("last name of the user")
    password: PasswordHash = param("the password, as the user will type it")
    timezone: str | None = param("a time zone identifier, such as Europe/Berlin", default=None)
    username: str = param("the user name, unique in the domain")
    network_domain: str | None = param("network domain for the networks of the account", default=None)

    def run(self, call: Call) -> View:
        return account.create(
            call.tx,
            call.caller,
            name=self.account,
            account_type=self.account_type,
            domain_id=self.domain_id,
            network_domain=self.network_domain,
            username=self.username,
            password_hash=self.password,
            firstname=self.firstname,
            lastname=self.lastname,
            email=self.email,
            timezone=self.timezone,
        )


@command("updateAccount", roles=ADMINS, returns=AccountResponse, emits=types.ACCOUNT_UPDATE)
class UpdateAccount(Params):
    """Updates an account."""

    id: Id[Account] | None = param("the ID of the account; or give account and domainid", default=None)
    account: str | None = param("the name of the account", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account; your own unless given", default=None)
    new_name: str | None = param("a new name, unique in the domain", default=None)
    network_domain: str | None = param("network domain for networks to come", default=None)

    def run(self, call: Call) -> View:
        return account.update(
            call.tx,
            call.caller,
            account_id=self.id,
            name=self.account,
            domain_id=self.domain_id,
            new_name=self.new_name,
            network_domain=self.network_domain,
        )


@command("deleteAccount", roles=ADMINS, returns=SuccessResponse, job=True, emits=types.ACCOUNT_DELETE)
class DeleteAccount(Params):
    """Deletes an account with its users and everything it owns."""

    id: Id[Account] = param("the ID of the account")

    def run(self, call: Call) -> Started:
        return Started(account.delete(call.tx, call.caller, self.id))


@command("disableAccount", roles=DOMAIN_ADMINS, returns=AccountResponse, job=True, emits=types.ACCOUNT_DISABLE)
class DisableAccount(Params):
    """Disables an account: nobody of it gets in, and its virtual machines are stopped."""

    id: Id[Account] | None = param("the ID of the account; or give account and domainid", default=None)
    account: str | None = param("the name of the account", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account; your own unless given", default=None)
    lock: bool = param("true to lock the account only: its virtual machines run on")

    def run(self, call: Call) -> Started:
        return Started(
            account.disable(
                call.tx,
                call.caller,
                account_id=self.id,
                name=self.account,
                domain_id=self.domain_id,
                only_lock=self.lock,
            )
        )


@command("enableAccount", roles=DOMAIN_ADMINS, returns=AccountResponse, emits=types.ACCOUNT_ENABLE)
class EnableAccount(Params):
    """Enables an account."""

    id: Id[Account] | None = param("the ID of the account; or give account and domainid", default=None)
    account: str | None = param("the name of the account", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account; your own unless given", default=None)

    def run(self, call: Call) -> View:
        return account.enable(call.tx, call.caller, account_id=self.id, name=self.account, domain_id=self.domain_id)


@command("lockAccount", roles=DOMAIN_ADMINS, returns=AccountResponse, emits=types.ACCOUNT_LOCK)
class LockAccount(Params):
    """Locks an account: nobody of it gets in, its virtual machines run on."""

    id: Id[Account] | None = param("the ID of the account; or give account and domainid", default=None)
    account: str | None = param("the name of the account", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account; your own unless given", default=None)

    def run(self, call: Call) -> View:
        return account.lock(call.tx, call.caller, account_id=self.id, name=self.account, domain_id=self.domain_id)


@command("listAccounts", roles=EVERYONE, returns=AccountResponse)
class ListAccounts(ListParams):
    """Lists accounts."""

    id: Id[Account] | None = param("the ID of the account", default=None)
    account_type: int | None = param("list accounts of this type", default=None)
    domain_id: Id[Domain] | None = param("list accounts of this domain", default=None)
    is_recursive: bool | None = param("with domainid, also of the domains below it", default=None)
    list_all: bool | None = param("list all accounts that you may see", default=None)
    is_cleanup_required: bool | None = param("list accounts that are being cleaned up, or not", default=None)
    name: str | None = param("list accounts of this name", default=None)
    state: str | None = param("list accounts in this state", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *account.list_page(
                call.tx,
                call.caller,
                account_id=self.id,
                account_type=self.account_type,
                domain_id=self.domain_id,
                is_cleanup_required=self.is_cleanup_required,
                name=self.name,
                state=self.state,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )
