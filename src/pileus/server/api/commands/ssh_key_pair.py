"""Commands on SSH key pairs."""

from pileus.server.api.command import (
    EVERYONE,
    SUCCESS,
    Call,
    ListParams,
    Page,
    Params,
    Response,
    Success,
    SuccessResponse,
    View,
    command,
    out,
    param,
)
from pileus.server.domain.ids import Domain, Id, SshKeyPair
from pileus.server.domain.ssh_key import LONGEST
from pileus.server.events import types
from pileus.server.services import ssh_key


class SshKeyPairResponse(Response, name="keypair"):
    """The public half of an SSH key pair."""

    id = out("the ID of the SSH key pair")
    name = out("the name of the SSH key pair")
    fingerprint = out("the MD5 fingerprint of the public key")
    account = out("the account that owns it")
    domain_id = out("the ID of the domain of the account")
    domain = out("the name of the domain of the account")


class NewSshKeyPairResponse(SshKeyPairResponse, name="keypair"):
    """An SSH key pair with its private key, which is told once."""

    private_key = out("the private key as PEM; it is stored nowhere")


@command("createSSHKeyPair", roles=EVERYONE, returns=NewSshKeyPairResponse, emits=types.SSH_KEYPAIR_CREATE)
class CreateSshKeyPair(Params):
    """Creates an SSH key pair and tells its private key, once."""

    name: str = param("the name of the SSH key pair, unique in the account")
    account: str | None = param("an account to create it for; needs domainid", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)

    def run(self, call: Call) -> View:
        return ssh_key.create(call.tx, call.caller, name=self.name, account_name=self.account, domain_id=self.domain_id)


@command("registerSSHKeyPair", roles=EVERYONE, returns=SshKeyPairResponse, emits=types.SSH_KEYPAIR_REGISTER)
class RegisterSshKeyPair(Params):
    """Registers the public key of an SSH key pair made elsewhere."""

    name: str = param("the name of the SSH key pair, unique in the account")
    public_key: str = param("the public key, one line as OpenSSH writes it", length=LONGEST)
    account: str | None = param("an account to register it for; needs domainid", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)

    def run(self, call: Call) -> View:
        return ssh_key.register(
            call.tx,
            call.caller,
            name=self.name,
            public_key=self.public_key,
            account_name=self.account,
            domain_id=self.domain_id,
        )


@command("deleteSSHKeyPair", roles=EVERYONE, returns=SuccessResponse, emits=types.SSH_KEYPAIR_DELETE)
class DeleteSshKeyPair(Params):
    """Deletes an SSH key pair; virtual machines deployed with it keep the public key."""

    name: str = param("the name of the SSH key pair")
    account: str | None = param("the account that owns it; needs domainid", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)

    def run(self, call: Call) -> Success:
        ssh_key.delete(call.tx, call.caller, name=self.name, account_name=self.account, domain_id=self.domain_id)
        return SUCCESS


@command("listSSHKeyPairs", roles=EVERYONE, returns=SshKeyPairResponse)
class ListSshKeyPairs(ListParams):
    """Lists SSH key pairs, without any private key."""

    id: Id[SshKeyPair] | None = param("the ID of the SSH key pair", default=None)
    name: str | None = param("the name of the SSH key pair", default=None)
    fingerprint: str | None = param("list the one with this fingerprint", default=None)
    account: str | None = param("list those of an account; needs domainid", default=None)
    domain_id: Id[Domain] | None = param("list those of a domain", default=None)
    is_recursive: bool = param("true to include the domains below domainid", default=False)
    list_all: bool = param("true to list everything the caller may see", default=False)

    def run(self, call: Call) -> Page:
        return Page(
            *ssh_key.list_page(
                call.tx,
                call.caller,
                pair_id=self.id,
                name=self.name,
                fingerprint=self.fingerprint,
                account_name=self.account,
                domain_id=self.domain_id,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )
