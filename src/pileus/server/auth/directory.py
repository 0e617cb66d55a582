"""The LDAP authenticator: find the one entry of a user, then bind as it with the password.

An empty password is refused before any bind: RFC 4513 calls such a bind anonymous, and it succeeds. What a user name
holds never becomes part of the filter's syntax. Every wait has an end.
"""

from dataclasses import dataclass, field

import ldap
import ldap.filter
from ldap.ldapobject import SimpleLDAPObject

from pileus.server.auth.authenticators import Check, Credentials, Unavailable
from pileus.server.config import keys, value
from pileus.server.db.transaction import Tx


@dataclass(frozen=True)
class Directory:
    """Where users are looked up. `certificates` is a PEM file of authorities, empty for those of the system."""

    url: str
    starts_tls: bool
    certificates: str
    search_base: str
    query_filter: str
    subtree: bool
    bind_dn: str
    timeout_seconds: int
    bind_password: str = field(repr=False)

    def confirms(self, credentials: Credentials) -> bool:
        """Whether the directory knows exactly one such user, and lets it bind. Raises `Unavailable`."""
        if not credentials.password:
            return False
        try:
            found = self._entry(credentials)
            return found is not None and self._binds(found, credentials.password)
        except ldap.LDAPError as error:
            raise Unavailable(f"{self.url}: {type(error).__name__}: {_reason(error)}") from None
        except ValueError:
            # All that is said of a file of certificates that is missing or broken.
            where = self.certificates or "the system's own"
            raise Unavailable(f"{self.url}: certificates of authorities cannot be used: {where}") from None

    def _entry(self, credentials: Credentials) -> str | None:
        """The distinguished name of the user's entry; None unless there is exactly one."""
        connection = self._connected()
        try:
            if self.bind_dn:
                connection.simple_bind_s(self.bind_dn, self.bind_password)
            scope = ldap.SCOPE_SUBTREE if self.subtree else ldap.SCOPE_ONELEVEL
            wanted = filled(self.query_filter, credentials)
            found = connection.search_ext_s(
                self.search_base, scope, wanted, ["1.1"], timeout=self.timeout_seconds, sizelimit=2
            )
        except (ldap.SIZELIMIT_EXCEEDED, ldap.NO_SUCH_OBJECT):
            return None
        finally:
            connection.unbind_s()
        # Referrals to other servers come without a name, and are not followed.
        entries = [name for name, _ in found if name]
        return str(entries[0]) if len(entries) == 1 else None

    def _binds(self, name: str, password: str) -> bool:
        connection = self._connected()
        try:
            connection.simple_bind_s(name, password)
        except (ldap.INVALID_CREDENTIALS, ldap.INAPPROPRIATE_AUTH, ldap.UNWILLING_TO_PERFORM):
            return False
        finally:
            connection.unbind_s()
        return True

    def _connected(self) -> SimpleLDAPObject:
        connection = ldap.initialize(self.url)
        connection.set_option(ldap.OPT_REFERRALS, 0)
        connection.set_option(ldap.OPT_NETWORK_TIMEOUT, self.timeout_seconds)
        connection.set_option(ldap.OPT_TIMEOUT, self.timeout_seconds)
        connection.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND)
        if self.certificates:
            connection.set_option(ldap.OPT_X_TLS_CACERTFILE, self.certificates)
        # Options of TLS count from the next context on; this must come last.
        connection.set_option(ldap.OPT_X_TLS_NEWCTX, 0)
        if self.starts_tls:
            connection.start_tls_s()
        return connection


def prepare(tx: Tx) -> Check | None:
    """The directory of the settings; None without a host name."""
    host = value(tx, keys.ldap_hostname).strip()
    if not host:
        return None
    scheme = "ldaps" if value(tx, keys.ldap_usessl) else "ldap"
    return Directory(
        url=f"{scheme}://{f'[{host}]' if ':' in host else host}:{value(tx, keys.ldap_port)}",
        starts_tls=scheme == "ldap" and value(tx, keys.ldap_starttls),
        certificates=value(tx, keys.ldap_truststore),
        search_base=value(tx, keys.ldap_searchbase),
        query_filter=value(tx, keys.ldap_queryfilter),
        subtree=value(tx, keys.ldap_search_subtree),
        bind_dn=value(tx, keys.ldap_dn),
        timeout_seconds=value(tx, keys.ldap_timeout),
        bind_password=value(tx, keys.ldap_passwd),
    ).confirms


def filled(query_filter: str, credentials: Credentials) -> str:
    """The filter for one user: %u is its name, %e its address, %n its first and last name, each as plain text."""
    parts = {"%u": credentials.username, "%e": credentials.email, "%n": credentials.full_name}
    filled_in = []
    rest = query_filter
    while rest:
        pair = rest[:2]
        if pair in parts:
            filled_in.append(ldap.filter.escape_filter_chars(parts[pair], escape_mode=1))
            rest = rest[2:]
        else:
            filled_in.append(rest[0])
            rest = rest[1:]
    return "".join(filled_in)


def _reason(error: Exception) -> str:
    told = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return ", ".join(str(told[name]) for name in ("desc", "info") if told.get(name))
