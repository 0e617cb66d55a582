"""From text to a command's parameters, in two steps: plain values first, without a database; then ids, as the caller
may see them. Passwords are hashed between the two, and their plain text goes no further.
"""

import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from pileus.server.api.command import CommandSpec, Instant, MapParameter, ParamInfo, Params, PasswordHash, parameters
from pileus.server.auth import passwords, visibility
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import MalformedParameter, ParameterError, PileusError
from pileus.server.domain.ids import Entity, Id

RESERVED = frozenset({"command", "response", "apikey", "signature", "signatureversion", "expires", "sessionkey", "_"})
"""Parameters of every call that belong to no command."""

ANYTHING = -1
"""The id that stands for "all" in parameters whose service resolves them itself."""

_INT = re.compile(r"-?[0-9]{1,19}\Z")
_MAP_KEY = re.compile(r"([^\[\]]+)\[([0-9]{1,6})\]\.([^\[\]]+)\Z")
_DAY = re.compile(r"\d{4}-\d{1,2}-\d{1,2}\Z")
_MOST_ENTRIES = 1000
_INT64 = 2**63


@dataclass(frozen=True)
class Field:
    """How one parameter is read."""

    name: str
    wire: str
    wire_type: str
    info: ParamInfo
    read: Callable[[str], Any]
    entity: type[Entity] | None = None
    many: bool = False
    is_map: bool = False
    is_password: bool = False


@dataclass(frozen=True)
class Prepared:
    """Plain values of a call: ids still as text, passwords still plain. Nothing of it is ever logged."""

    spec: CommandSpec
    values: Mapping[str, Any]

    @property
    def has_passwords(self) -> bool:
        """Whether a password must be hashed before the call may go on."""
        return any(field.is_password and field.name in self.values for field in table(self.spec.params))

    def __repr__(self) -> str:
        return f"Prepared({self.spec.name})"


_tables: dict[Any, tuple[Field, ...]] = {}


def table(params: type[Params]) -> tuple[Field, ...]:
    """The parameters of a command, with the readers of their types."""
    known = _tables.get(params)
    if known is None:
        known = _tables[params] = _read_table(params)
    return known


def _read_table(params: type[Params]) -> tuple[Field, ...]:
    hints = typing.get_type_hints(params)
    return tuple(
        _field(entry.name, wire, hints[entry.name], info) for wire, (entry, info) in parameters(params).items()
    )


def prepare(spec: CommandSpec, sent: Mapping[str, str]) -> Prepared:
    """Read all plain values. `sent` is keyed by the names as sent. 431 for missing or unusable ones, 430 for maps."""
    plain, maps = _sorted(sent)
    values: dict[str, Any] = {}
    missing: list[str] = []
    for field in table(spec.params):
        if field.is_map:
            if field.wire in plain:
                raise MalformedParameter(f"{field.wire} is a map: write {field.wire}[0].key=…")
            entries = maps.get(field.wire)
            text = None
            if entries:
                values[field.name] = tuple(entries[index] for index in sorted(entries))
        else:
            text = plain.get(field.wire)
        if field.name in values:
            continue
        if text is None or (text == "" and (field.info.required or field.wire_type != "string")):
            if field.info.required:
                missing.append(field.wire)
            continue
        values[field.name] = _value(spec, field, text)
    if missing:
        raise _missing(spec, missing, plain)
    return Prepared(spec, values)


def hash_passwords(prepared: Prepared, *, md5: bool = False) -> Prepared:
    """Replace every password by its hash. Slow on purpose: never inside a transaction. `md5` as in `passwords`."""
    values = dict(prepared.values)
    for field in table(prepared.spec.params):
        if field.is_password and field.name in values:
            values[field.name] = PasswordHash(passwords.hashed(values[field.name], md5=md5))
    return Prepared(prepared.spec, values)


def resolve(prepared: Prepared, tx: Tx, caller: Caller) -> Params:
    """Turn ids into keys of things that exist and that the caller may see, and make the command."""
    values = dict(prepared.values)
    for field in table(prepared.spec.params):
        if field.entity is None or field.name not in values:
            continue
        given = values[field.name]
        try:
            if field.many:
                values[field.name] = [_resolved(tx, caller, field, one) for one in given]
            else:
                values[field.name] = _resolved(tx, caller, field, given)
        except ParameterError as error:
            raise _invalid(prepared.spec, field, given, error) from None
    return prepared.spec.params(**values)


def unknown(spec: CommandSpec, sent: Mapping[str, str]) -> list[str]:
    """Names that no parameter of the command has."""
    known = {field.wire for field in table(spec.params)}
    names = {name.lower().split("[", 1)[0] for name in sent}
    return sorted(names - known - RESERVED)


def instant(text: str, *, end_of_day: bool = False) -> Instant:
    """Milliseconds from any date form of the wire; UTC unless it names an offset. 430 if it is none of them."""
    text = text.strip()
    if _DAY.match(text):
        form, extra = "%Y-%m-%d", 86_399_999 if end_of_day else 0
    elif "T" in text:
        form, extra = ("%Y-%m-%dT%H:%M:%S%z" if re.search(r"(Z|[+-]\d{2}:?\d{2})\Z", text) else "%Y-%m-%dT%H:%M:%S"), 0
    else:
        form, extra = "%Y-%m-%d %H:%M:%S", 0
    try:
        read = datetime.strptime(text, form)
        read = read if read.tzinfo else read.replace(tzinfo=UTC)
        return Instant(int(read.timestamp()) * 1000 + extra)
    except (ValueError, OverflowError):
        raise MalformedParameter(
            f"{text!r} is no date: write yyyy-MM-dd, yyyy-MM-dd HH:mm:ss or yyyy-MM-ddTHH:mm:ss+0000"
        ) from None


def _field(name: str, wire: str, hint: Any, info: ParamInfo) -> Field:
    hint = _without_none(hint)
    if hint == MapParameter:
        return Field(name, wire, "map", info, str, is_map=True)
    if typing.get_origin(hint) in (list, tuple):
        member = typing.get_args(hint)[0]
        if typing.get_origin(member) is Id:
            return Field(name, wire, "list", info, str, entity=typing.get_args(member)[0], many=True)
        return Field(name, wire, "list", info, _integer if member is int else str, many=True)
    if typing.get_origin(hint) is Id:
        return Field(name, wire, "uuid", info, str, entity=typing.get_args(hint)[0])
    if hint is PasswordHash:
        return Field(name, wire, "string", info, str, is_password=True)
    if hint is Instant:
        ends = name.startswith("end")
        return Field(name, wire, "date", info, lambda text: instant(text, end_of_day=ends))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return Field(name, wire, "string", info, lambda text: _member(hint, text))
    wire_type, read = _PLAIN[hint]
    return Field(name, wire, wire_type, info, read)


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (only,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
        return only
    return hint


def _sorted(sent: Mapping[str, str]) -> tuple[dict[str, str], dict[str, dict[int, dict[str, str]]]]:
    """Parameters by lower-cased name, and maps by lower-cased name and index; field names of maps keep their case."""
    plain: dict[str, str] = {}
    maps: dict[str, dict[int, dict[str, str]]] = {}
    entries = 0
    for name, value in sent.items():
        if "[" not in name and "]" not in name:
            plain[name.lower()] = value
            continue
        match = _MAP_KEY.match(name)
        if match is None:
            raise MalformedParameter(f"{name!r} is no map entry: write name[0].field=value")
        entries += 1
        if entries > _MOST_ENTRIES:
            raise ParameterError(f"a call holds at most {_MOST_ENTRIES} map entries", parameter=name)
        maps.setdefault(match[1].lower(), {}).setdefault(int(match[2]), {})[match[3]] = value
    return plain, maps


def _value(spec: CommandSpec, field: Field, text: str) -> Any:
    try:
        if field.many:
            parts = [part.strip() for part in text.split(",")]
            return [field.read(part) for part in parts if part]
        if field.wire_type == "string" and len(text) > field.info.length:
            raise ParameterError(f"it is longer than {field.info.length} characters", parameter=field.wire)
        return field.read(text)
    except ParameterError as error:
        raise _invalid(spec, field, text, error) from None
    except MalformedParameter as error:
        raise MalformedParameter(_invalid(spec, field, text, error).text) from None


def _invalid(spec: CommandSpec, field: Field, given: Any, error: PileusError) -> ParameterError:
    secret = field.is_password or field.info.secret
    shown = "" if secret else f" {given if isinstance(given, str) else ','.join(map(str, given))}"[:100]
    return ParameterError(
        f"Unable to execute API command {spec.name.lower()} due to invalid value{shown} for parameter {field.wire}:"
        f" {error.text}",
        parameter=field.wire,
    )


def _missing(spec: CommandSpec, missing: list[str], plain: Mapping[str, str]) -> ParameterError:
    known = {field.wire for field in table(spec.params)}
    strangers = [name for name in plain if name not in known and name not in RESERVED]
    hints = []
    for name in missing:
        near = difflib.get_close_matches(name, strangers, n=1, cutoff=0.7)
        if near:
            hints.append(f"{near[0]} looks like a misspelt {name}")
    text = f"Unable to execute API command {spec.name.lower()} due to missing parameter {', '.join(missing)}"
    return ParameterError(f"{text} ({'; '.join(hints)})" if hints else text, parameter=missing[0])


def _resolved(tx: Tx, caller: Caller, field: Field, text: str) -> int:
    if not field.info.authorize and text.strip() == str(ANYTHING):
        return ANYTHING
    assert field.entity is not None  # noqa: S101 (only called for ids)
    return visibility.resolve(tx, caller, field.entity, text, field.wire, authorize=field.info.authorize)


def _integer(text: str) -> int:
    if not _INT.match(text.strip()) or not -_INT64 <= int(text) < _INT64:
        raise ParameterError(f"{text!r} is no whole number")
    return int(text)


def _decimal(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ParameterError(f"{text!r} is no number")
    return value


def _boolean(text: str) -> bool:
    return text.strip().lower() == "true"


def _member(choice: type[Enum], text: str) -> Enum:
    for member in choice:
        if str(member.value).lower() == text.strip().lower():
            return member
    raise ParameterError(f"it must be one of {', '.join(str(member.value) for member in choice)}")


_PLAIN: dict[Any, tuple[str, Callable[[str], Any]]] = {
    str: ("string", str),
    int: ("integer", _integer),
    float: ("float", _decimal),
    bool: ("boolean", _boolean),
}
