"""What every command gives to every kind of caller, foreign ids in every id parameter: the role matrix.

One line per command, computed by calling the real API on a `Tenancy` whose units of work are never kept.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pileus.server.api.command import CommandSpec, registry
from pileus.server.api.dispatch import Dispatcher
from pileus.server.api.parse import Field, table
from pileus.server.api.request import Request
from pileus.server.api.signing import sign
from pileus.server.auth.kinds import KINDS, Rule
from pileus.server.domain import ids
from pileus.server.domain.caller import Caller
from pileus.server.domain.ids import Entity
from pileus.testing import plausible
from pileus.testing.builders import root
from pileus.testing.client import Client
from pileus.testing.rehearsal import Rehearsal
from pileus.testing.tenancy import CANARY, Tenancy, Things

FOREIGN = ("user", "neighbour", "domain-admin", "resource-admin")
"""Those to whom the things of the other tenant are not to be shown. A neighbour is another account of their domain."""

ENTITLED = ("owner", "owner-admin", "root")

MAY, NOTHING, REFUSED, UNREACHED, NO_ROLE = "may", "nothing", "no", "unreached", "-"
"""An id in the matrix: used; a list that shows nothing; refused; refused as even one's own is; no call."""

IDS_IN_MAPS: Mapping[tuple[str, str], type[Entity]] = {
    ("deployVirtualMachine", "iptonetworklist[0].networkid"): ids.Network,
}
"""Ids that stand in maps, where no type tells of them."""

NO_IDS = frozenset({("listResourceLimits", "id"), ("login", "domainid")})
"""Texts that are called ids and name nothing that is anybody's: a kind of limit; where a login looks for a name."""

_HEAD = (
    "# Who may call what, and what ids of another tenant get them. Written by tools/role_matrix.py --write.\n"
    f"# command | who may call it | id parameter: {', '.join(FOREIGN)}\n"
)


@dataclass(frozen=True)
class Row:
    """One command. `foreign`: by id parameter, what each of `FOREIGN` gets for a thing of the other tenant."""

    command: str
    callers: tuple[str, ...]
    foreign: Mapping[str, tuple[str, ...]]

    def line(self) -> str:
        """The row as it is committed."""
        parameters = "; ".join(f"{name}: {', '.join(got)}" for name, got in self.foreign.items())
        return f"{self.command} | {', '.join(self.callers)} | {parameters}".rstrip()


@dataclass(frozen=True)
class IdParameter:
    """A parameter that names a thing: how it is written, what it names, the field it belongs to."""

    written: str
    kind: type[Entity]
    field: Field


class Callers:
    """Everybody who calls, on a database that keeps nothing."""

    def __init__(self, tenancy: Tenancy) -> None:
        self.tenancy = tenancy
        people: Mapping[str, Caller] = {
            "user": tenancy.ours.user,
            "neighbour": tenancy.neighbour,
            "domain-admin": tenancy.ours.admin,
            "resource-admin": tenancy.ours.resource_admin,
            "owner": tenancy.theirs.user,
            "owner-admin": tenancy.theirs.admin,
            "root": root(),
        }
        database = tenancy.world.db
        self._keys = {name: Client(database, caller).keys for name, caller in people.items()}
        self.roles = {name: caller.role for name, caller in people.items()}
        self._dispatcher = Dispatcher(Rehearsal(database))

    def send(self, who: str, spec: CommandSpec, sent: Mapping[str, str]) -> tuple[int, str]:
        """Status and body of a call; `who` "anonymous" signs nothing."""
        call = {**sent, "command": spec.name, "response": "json"}
        if who in self._keys:
            call["apikey"], secret = self._keys[who]
            call["signature"] = sign(call, secret)
        answer = self._dispatcher.answer(Request("GET", "http", "192.0.2.1", {}, call))
        return answer.status, answer.body.decode()

    def own(self, who: str) -> Things:
        """Things the caller may use."""
        things = self.tenancy.beside if who == "neighbour" else self.tenancy.ours.things
        # A zone of one's own may be empty; the public one can do all that is asked.
        return {**(things if who in FOREIGN else self.tenancy.theirs.things), ids.Zone: self.tenancy.zone}

    def account(self, who: str) -> str:
        """The name of the account whose things `own` tells."""
        if who == "neighbour":
            return self.tenancy.neighbour.account_name
        return (self.tenancy.ours if who in FOREIGN else self.tenancy.theirs).user.account_name

    def leaked(self, sent: Iterable[str], body: str) -> set[str]:
        """What of the other tenant stands in an answer without having been sent."""
        given = " ".join(sent).lower()
        return {secret for secret in (CANARY, *self.tenancy.secrets) if secret in body and secret not in given}


def specs() -> list[CommandSpec]:
    """Commands that need a caller, by name."""
    return sorted((spec for spec in registry.values() if not spec.public), key=lambda spec: spec.name)


def id_parameters(spec: CommandSpec) -> list[IdParameter]:
    """All of a command's parameters that name things. `LookupError` for a text called an id that nobody explained."""
    found = []
    for field in table(spec.params):
        if field.entity is not None:
            found.append(IdParameter(plausible.name(field), field.entity, field))
        elif field.is_map:
            found += [
                IdParameter(written, kind, field)
                for (command, written), kind in IDS_IN_MAPS.items()
                if command == spec.name and written.startswith(f"{field.wire}[")
            ]
        elif _called_an_id(field) and (spec.name, field.wire) not in NO_IDS:
            raise LookupError(f"{spec.name} {field.wire}: type it Id[...], or say in roles.NO_IDS what it is")
    return found


def row(callers: Callers, spec: CommandSpec) -> Row:
    """Try one command."""
    may = [who for who in (*FOREIGN, *ENTITLED) if _admitted(callers, who, spec)]
    foreign = {
        each.written: tuple(_foreign(callers, who, spec, each) if who in may else NO_ROLE for who in FOREIGN)
        for each in id_parameters(spec)
        if KINDS[each.kind].rule is not Rule.EVERYONE
    }
    status, _ = callers.send("anonymous", spec, _wanted(spec, callers.own("user")))
    return Row(spec.name, tuple(may if status == 401 else ["anonymous", *may]), foreign)


def matrix(callers: Callers) -> list[Row]:
    """Every command of the registry."""
    return [row(callers, spec) for spec in specs()]


def written(rows: Iterable[Row]) -> str:
    """The matrix as it is committed."""
    return _HEAD + "".join(f"{each.line()}\n" for each in rows)


def leaks(rows: Iterable[Row]) -> list[str]:
    """Ids of another tenant that somebody could use, and those that no call reached."""
    found = []
    for each in rows:
        spec = registry[each.command]
        kinds = {parameter.written: parameter.kind for parameter in id_parameters(spec)}
        for name, got in each.foreign.items():
            allowed = _may_use(KINDS[kinds[name]].rule)
            found += [
                f"{each.command} {name} as {who}: {outcome}"
                for who, outcome in zip(FOREIGN, got, strict=True)
                if outcome == UNREACHED or (outcome == MAY and who not in allowed)
            ]
    return found


def missing(text: str) -> list[str]:
    """How a committed matrix differs from the registry, without calling anything."""
    known = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            command, _, foreign = (part.strip() for part in line.split("|"))
            known[command] = {part.partition(":")[0].strip() for part in foreign.split(";") if part.strip()}
    found = []
    for spec in specs():
        wanted = {each.written for each in id_parameters(spec) if KINDS[each.kind].rule is not Rule.EVERYONE}
        if spec.name not in known:
            found.append(f"{spec.name}: no row in the role matrix")
        elif known.pop(spec.name) != wanted:
            found.append(f"{spec.name}: its row in the role matrix has other id parameters")
    registered = {spec.name for spec in specs()}
    return found + [f"{name}: in the role matrix, but no command" for name in known if name not in registered]


def _may_use(rule: Rule) -> tuple[str, ...]:
    """Who of `FOREIGN` may use a thing of the other tenant: what its domain is offered, and what admins share."""
    if rule in (Rule.OFFERED, Rule.DOMAIN):
        return ("neighbour",)
    return ("resource-admin",) if rule is Rule.ADMINS else ()


def _admitted(callers: Callers, who: str, spec: CommandSpec) -> bool:
    status, _ = callers.send(who, spec, _wanted(spec, callers.own(who)))
    return status != 401


def _wanted(spec: CommandSpec, things: Things) -> dict[str, str]:
    """Required parameters with values of the caller's own."""
    return {
        plausible.name(field): plausible.value(spec.name, field, things)
        for field in table(spec.params)
        if field.info.required
    }


def _foreign(callers: Callers, who: str, spec: CommandSpec, each: IdParameter) -> str:
    """What a caller gets for a thing of the other tenant, everything else being their own."""
    theirs = callers.tenancy.theirs
    outcome, told = _outcome(callers, who, spec, each, theirs.things[each.kind], theirs.user.account_name)
    rule = KINDS[each.kind].rule
    if who in _may_use(rule):
        return MAY if outcome == UNREACHED else outcome
    if outcome != REFUSED or rule is Rule.ADMINS:
        return outcome
    # If their own is refused in the same words, something else is wrong with the call and nothing was shown.
    own = _outcome(callers, who, spec, each, callers.own(who)[each.kind], callers.account(who))
    return UNREACHED if own == (outcome, told) else REFUSED


def _outcome(
    callers: Callers, who: str, spec: CommandSpec, each: IdParameter, given: str, account: str
) -> tuple[str, str]:
    """The outcome of a call with one id, and the error's words without that id."""
    sent = {**_wanted(spec, callers.own(who)), each.written: given}
    if each.written == "domainid" and any(field.wire == "account" for field in table(spec.params)):
        sent["account"] = account
    status, body = callers.send(who, spec, sent)
    told = body.replace(given, "").replace(account, "")
    if callers.leaked(sent.values(), body):
        return MAY, told
    if status == 531:
        return REFUSED, told
    if status == 431:
        return (REFUSED if _names(body, each.field.wire) else UNREACHED), told
    if status == 200 and spec.is_list and '"count"' not in body:
        return NOTHING, told
    return MAY, told


def _called_an_id(field: Field) -> bool:
    return field.wire_type in ("string", "list") and re.search(r"ids?\Z", field.wire) is not None


def _names(body: str, wire: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(wire)}(?!\w)", body.partition('"errortext"')[2].lower()) is not None
