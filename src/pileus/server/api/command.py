"""The declarative command registry: one class per command, its fields are its parameters.

From it come the parser, listApis, OpenAPI, the reference, the command line, the permission matrix and the fuzz tests.
A command without roles cannot be registered. Wire name = field name without underscores.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NewType, TypeVar, dataclass_transform

from pileus.server.db.transaction import Tx
from pileus.server.domain.account import Role
from pileus.server.domain.caller import Caller
from pileus.server.domain.ids import Entity
from pileus.server.services.columns import Columns

EVERYONE = Role.ADMIN | Role.RESOURCE_ADMIN | Role.DOMAIN_ADMIN | Role.USER
ADMINS = Role.ADMIN | Role.RESOURCE_ADMIN
DOMAIN_ADMINS = ADMINS | Role.DOMAIN_ADMIN
ROOT_ONLY = Role.ADMIN

Instant = NewType("Instant", int)
"""Parameter type of dates: milliseconds since the epoch, from any of the date forms of the wire."""

PasswordHash = NewType("PasswordHash", str)
"""Parameter type of passwords: hashed by the parser, before any transaction begins; the plain text goes no further."""

MapParameter = tuple[Mapping[str, str], ...]
"""Parameter type of maps: `name[0].key=…` becomes one mapping per index, in order of the index."""

View = Mapping[str, Any]
"""What a service tells of one thing, keyed by the response's field names; ids are UUIDs, None means absent."""


@dataclass(frozen=True)
class Page:
    """One page of a list. `count` is the number of all matches."""

    views: Sequence[View] | Columns
    count: int


@dataclass(frozen=True)
class Started:
    """An accepted job: its UUID, and the UUID of what it creates when that is known already."""

    job: str
    id: str | None = None


@dataclass(frozen=True)
class Success:
    """The answer of commands that only succeed or fail."""

    text: str = ""


SUCCESS = Success()


@dataclass(frozen=True)
class Call:
    """One call of a command, inside its unit of work."""

    tx: Tx
    caller: Caller
    command: str
    client: str
    """Address of the client, for logs and login limits."""


_REQUIRED: Any = object()


@dataclass(frozen=True)
class ParamInfo:
    """What `param` says of a parameter."""

    description: str
    required: bool
    length: int
    authorize: bool
    wire: str | None
    secret: bool = False


def param(
    description: str,
    *,
    default: Any = _REQUIRED,
    length: int = 255,
    authorize: bool = True,
    wire: str | None = None,
    secret: bool = False,
) -> Any:
    """Declare a parameter. `length` bounds strings; `authorize=False` skips the visibility check of an id
    (only for commands whose service checks it in another way); `wire` gives a name that underscores cannot;
    a `secret` is never repeated in an error."""
    info = ParamInfo(description, default is _REQUIRED, length, authorize, wire, secret)
    if default is _REQUIRED:
        return field(metadata={"param": info})
    return field(default=default, metadata={"param": info})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(param, field))
class Params:
    """Base of all commands: a frozen record of parsed parameters with a `run`."""

    spec: ClassVar["CommandSpec"]
    _defaults: ClassVar[Mapping[str, Any]]

    def __init_subclass__(cls) -> None:
        # What `dataclass` would write for each of hundreds of classes is a fifth of the server's start: it only reads
        # the fields. There is no repr either, on purpose: parameters may be secret.
        dataclass(init=False, repr=False, eq=False, match_args=False, kw_only=True)(cls)
        cls._defaults = {
            each.name: each.default
            for each in dataclasses.fields(cls)  # type: ignore[arg-type]
        }

    def __init__(self, **given: Any) -> None:
        values = {**self._defaults, **given}
        missing = [name for name, value in values.items() if value is dataclasses.MISSING]
        if missing or len(values) != len(self._defaults):
            strangers = sorted(given.keys() - self._defaults.keys())
            raise TypeError(f"{type(self).__name__}: missing {missing}, unknown {strangers}")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to {name}")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete {name}")

    def run(self, call: Call) -> Page | View | Started | Success:
        """Carry out the command inside `call.tx`."""
        raise UnboundCommand(type(self).__name__)


class UnboundCommand(Exception):
    """A command class without `run`."""


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(param, field))
class ListParams(Params):
    """Base of list commands: paging and keyword."""

    keyword: str | None = param("List by keyword", default=None)
    page: int | None = param("the page number, from 1", default=None)
    page_size: int | None = param("the number of entries per page", default=None)


@dataclass(frozen=True)
class ResponseField:
    """One field of a response. `nested` is the response of list members."""

    name: str
    wire: str
    wire_type: str
    description: str
    nested: "type[Response] | None" = None


@dataclass(frozen=True)
class FieldInfo:
    """What `out` says of a response field."""

    description: str
    wire_type: str
    nested: "type[Response] | None"
    wire: str | None


def out(
    description: str, wire_type: str = "string", *, nested: "type[Response] | None" = None, wire: str | None = None
) -> FieldInfo:
    """Declare a response field; its type is one of the wire's (string, boolean, integer, long, date, list, map …).

    Dates are given as milliseconds since the epoch and rendered by the API.
    """
    return FieldInfo(description, wire_type, nested, wire)


Loader = Callable[[Tx, Caller, int], View]


class Response:
    """Base of all responses: a table of fields. `object_name` is the object's name on the wire (`name=` of the class).

    `kind` and `load` let queryAsyncJobResult render the result of a job on such a thing.
    """

    object_name: ClassVar[str]
    kind: ClassVar[type[Entity] | None] = None
    load: ClassVar[Loader | None] = None
    fields: ClassVar[tuple[ResponseField, ...]]

    def __init_subclass__(cls, *, name: str, kind: type[Entity] | None = None, load: Loader | None = None) -> None:
        cls.object_name = name
        # A response that extends another tells of the same kind of thing.
        if kind is not None:
            cls.kind = kind
        if load is not None:
            cls.load = staticmethod(load)
        cls.fields = tuple(
            ResponseField(
                attribute, info.wire or attribute.replace("_", ""), info.wire_type, info.description, nested=info.nested
            )
            for attribute, info in _inherited(cls).items()
            if isinstance(info, FieldInfo)
        )


def _inherited(cls: type) -> dict[str, Any]:
    """Attributes of a class and of those it extends, the furthest first."""
    return {name: entry for each in reversed(cls.__mro__) for name, entry in vars(each).items()}


class SuccessResponse(Response, name="success"):
    """Success or not, and why."""

    success = out("true if operation is executed successfully", "boolean")
    display_text = out("any text associated with the success or failure")


@dataclass(frozen=True)
class CommandSpec:
    """A registered command."""

    name: str
    roles: Role
    returns: type[Response]
    params: type[Params]
    job: bool
    is_list: bool
    reads: bool
    emits: tuple[str, ...]
    envelope: str
    description: str
    since: str
    public: bool


registry: dict[str, CommandSpec] = {}
"""Every command by its exact name."""

P = TypeVar("P", bound=Params)


def command(
    name: str,
    *,
    roles: Role,
    returns: type[Response],
    job: bool = False,
    reads: bool | None = None,
    emits: tuple[str, ...] | str = (),
    envelope: str | None = None,
    since: str = "2.2",
    public: bool = False,
) -> Callable[[type[P]], type[P]]:
    """Register a command. Names that begin with `list`, `get` or `query` only read unless `reads` says otherwise.

    `envelope` is for the commands whose envelope breaks the rule; `public` for those that need no caller (login).
    """
    if not roles and not public:
        raise ValueError(f"command {name} declares no roles")

    def register(params: type[P]) -> type[P]:
        if name in registry:
            raise ValueError(f"command {name} is registered twice")
        if not (params.__doc__ or "").strip():
            raise ValueError(f"command {name} has no description")
        if params.run is Params.run and not public:
            raise UnboundCommand(name)
        is_list = name.startswith("list") and issubclass(params, ListParams)
        params.spec = CommandSpec(
            name=name,
            roles=roles,
            returns=returns,
            params=params,
            job=job,
            is_list=is_list,
            reads=name.startswith(("list", "get", "query")) if reads is None else reads,
            emits=(emits,) if isinstance(emits, str) else emits,
            envelope=envelope or f"{name.lower()}response",
            description=(params.__doc__ or "").strip(),
            since=since,
            public=public,
        )
        registry[name] = params.spec
        return params

    return register


def parameters(params: type[Params]) -> dict[str, tuple[dataclasses.Field[Any], ParamInfo]]:
    """The parameters of a command by wire name."""
    found: dict[str, tuple[dataclasses.Field[Any], ParamInfo]] = {}
    for entry in dataclasses.fields(params):  # type: ignore[arg-type]
        info: ParamInfo = entry.metadata["param"]
        found[info.wire or entry.name.replace("_", "")] = (entry, info)
    return found
