"""Commands on the LDAP directory."""

from pileus.server.api.command import (
    ROOT_ONLY,
    SUCCESS,
    Call,
    Params,
    Response,
    Success,
    SuccessResponse,
    View,
    command,
    out,
    param,
)
from pileus.server.events.types import CONFIGURATION_VALUE_EDIT
from pileus.server.services import directory


class LdapConfigResponse(Response, name="ldapconfig"):
    """The directory in use. Its password is never told."""

    hostname = out("host name or address of the LDAP server")
    port = out("port of the LDAP server")
    ssl = out("whether the connection begins with TLS")
    search_base = out("where the search for users begins")
    query_filter = out("the filter by which a user is found")
    bind_dn = out("the name to search as")


@command("ldapConfig", roles=ROOT_ONLY, returns=LdapConfigResponse, emits=CONFIGURATION_VALUE_EDIT, since="3.0.0")
class LdapConfig(Params):
    """Lets users sign in with their password in an LDAP directory. They must have a user here all the same."""

    hostname: str = param("host name or address of the LDAP server; its certificate must name it")
    search_base: str = param("where the search for users begins, such as ou=people,dc=example,dc=org")
    query_filter: str = param("how a user is found: %u is the user name, %e the e-mail address, %n first and last name")
    port: int | None = param("port of the LDAP server; 389, or 636 with SSL, unless given", default=None)
    use_ssl: bool = param("begin with TLS (ldaps)", default=False)
    start_tls: bool = param("change to TLS before anything is said (StartTLS); true unless given", default=True)
    bind_dn: str | None = param("the name to search as; anonymous unless given", default=None)
    bind_pass: str | None = param("the password to search with", default=None, secret=True)
    trust_store: str | None = param(
        "PEM file of authorities on the management server; the system's own unless given", default=None
    )

    def run(self, call: Call) -> View:
        return directory.configure(
            call.tx,
            call.caller,
            hostname=self.hostname,
            search_base=self.search_base,
            query_filter=self.query_filter,
            port=self.port,
            use_ssl=self.use_ssl,
            start_tls=self.start_tls,
            bind_dn=self.bind_dn,
            bind_password=self.bind_pass,
            trust_store=self.trust_store,
        )

    def __repr__(self) -> str:
        return "LdapConfig()"


@command("ldapRemove", roles=ROOT_ONLY, returns=SuccessResponse, emits=CONFIGURATION_VALUE_EDIT, since="3.0.1")
class LdapRemove(Params):
    """Forgets the LDAP directory."""

    def run(self, call: Call) -> Success:
        directory.remove(call.tx, call.caller)
        return SUCCESS
