"""The LDAP directory that users may sign in by: set and removed as a whole."""

from typing import Any

from pileus.server import events
from pileus.server.auth.authenticators import names
from pileus.server.config import Key, change, keys, text_of, value
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError

_NAME = "ldap"
_KEYS: dict[str, Key[Any]] = {
    "hostname": keys.ldap_hostname,
    "port": keys.ldap_port,
    "use_ssl": keys.ldap_usessl,
    "start_tls": keys.ldap_starttls,
    "search_base": keys.ldap_searchbase,
    "query_filter": keys.ldap_queryfilter,
    "bind_dn": keys.ldap_dn,
    "bind_password": keys.ldap_passwd,
    "trust_store": keys.ldap_truststore,
}


def configure(
    tx: Tx,
    caller: Caller,
    *,
    hostname: str,
    search_base: str,
    query_filter: str,
    port: int | None,
    use_ssl: bool,
    start_tls: bool,
    bind_dn: str | None,
    bind_password: str | None,
    trust_store: str | None,
) -> dict[str, Any]:
    """Let users sign in by this directory from now on, after the authenticators that are in use already."""
    if "%u" not in query_filter and "%e" not in query_filter and "%n" not in query_filter:
        raise ParameterError(
            "queryfilter must hold %u (user name), %e (address) or %n (first and last name)", parameter="queryfilter"
        )
    if (bind_dn is None) != (bind_password is None):
        raise ParameterError("binddn and bindpass are given together", parameter="bindpass")
    given: dict[str, str | None] = {
        "hostname": hostname,
        "port": str((636 if use_ssl else 389) if port is None else port),
        "use_ssl": "true" if use_ssl else "false",
        "start_tls": "true" if start_tls and not use_ssl else "false",
        "search_base": search_base,
        "query_filter": query_filter,
        "bind_dn": bind_dn,
        "bind_password": bind_password,
        "trust_store": trust_store,
    }
    for name, text in given.items():
        change(tx, _KEYS[name], text, user_id=caller.user_id)
    order = names(value(tx, keys.user_authenticators_order))
    if _NAME not in order:
        change(tx, keys.user_authenticators_order, ",".join([*order, _NAME]), user_id=caller.user_id)
    _event(tx, caller, f"LDAP directory set to {hostname}")
    return {
        "hostname": hostname,
        "port": text_of(tx, keys.ldap_port),
        "ssl": text_of(tx, keys.ldap_usessl),
        "search_base": search_base,
        "query_filter": query_filter,
        "bind_dn": bind_dn,
    }


def remove(tx: Tx, caller: Caller) -> None:
    """Forget the directory, its password included; nobody signs in by it from now on."""
    for key in _KEYS.values():
        change(tx, key, None, user_id=caller.user_id)
    order = [name for name in names(value(tx, keys.user_authenticators_order)) if name != _NAME]
    change(tx, keys.user_authenticators_order, ",".join(order) or None, user_id=caller.user_id)
    _event(tx, caller, "LDAP directory removed")


def _event(tx: Tx, caller: Caller, text: str) -> None:
    events.record_by(tx, caller, events.types.CONFIGURATION_VALUE_EDIT, text)
