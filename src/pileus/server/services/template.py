"""Templates: registering, changing, sharing, deleting. Guide: "Working with Templates"."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import select

from pileus.server.auth.visibility import owner as owner_of
from pileus.server.auth.visibility import require, resolve
from pileus.server.config import keys, value
from pileus.server.db.queries import count
from pileus.server.db.queries import template as templates
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.place import zone
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import Resource
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, PermissionDenied, ResourceInUse
from pileus.server.domain.host import AllocationState, Hypervisor
from pileus.server.domain.ids import Id, OsType, Template, Zone
from pileus.server.domain.storage import SYSTEM_TEMPLATE
from pileus.server.events import record, types
from pileus.server.events.write import SCHEDULED
from pileus.server.jobs.submit import submit
from pileus.server.services.choice import one_of
from pileus.server.services.template_list import view, views_of
from pileus.server.workflows.template_delete import delete_template, require_unused
from pileus.server.workflows.template_download import KIND, WAITING, begin
from pileus.wire.operations import ImageFormat

EVERY_ZONE = -1

_ACCEPTED = {
    Hypervisor.KVM: (ImageFormat.QCOW2, ImageFormat.RAW),
    Hypervisor.SIMULATOR: (ImageFormat.QCOW2, ImageFormat.RAW),
}
_CHECKSUM = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{64}")
_LONGEST_URL = 2048
_LONGEST_DETAILS = 4096


@dataclass(frozen=True)
class Registration:
    """What the caller of registerTemplate wants. `zone_id` -1 means every zone."""

    name: str
    display_text: str
    url: str
    format: str
    hypervisor: str
    zone_id: int
    os_type_id: Id[OsType]
    account: str | None = None
    domain_id: int | None = None
    bits: int = 64
    checksum: str | None = None
    is_public: bool = False
    is_featured: bool = False
    is_extractable: bool = False
    password_enabled: bool = False
    requires_hvm: bool = True
    tag: str | None = None
    details: Sequence[Mapping[str, str]] = ()


def register(tx: Tx, caller: Caller, wanted: Registration) -> list[dict[str, Any]]:
    """A new template, on its way into the zone's secondary storage. One view per zone.

    Errors: 431 for what does not fit together, 531 for what only administrators may say, 535 beyond the limit.
    """
    owner = owner_of(tx, caller, wanted.account, wanted.domain_id)
    hypervisor = one_of(Hypervisor, wanted.hypervisor, "hypervisor")
    image_format = one_of(ImageFormat, wanted.format, "format")
    _check_format(hypervisor, image_format)
    _check_url(wanted.url)
    _check_rights(tx, caller, wanted)
    if wanted.bits not in (32, 64):
        raise ParameterError(f"bits must be 32 or 64, not {wanted.bits}", parameter="bits")
    if wanted.checksum and not _CHECKSUM.fullmatch(wanted.checksum):
        raise ParameterError("checksum must be an MD5 or SHA-256 digest in hexadecimal", parameter="checksum")
    zones = _zones(tx, caller, wanted.zone_id)
    count.claim(tx, owner.account_id, Resource.TEMPLATE)
    template_id = templates.add(
        tx,
        name=_name(wanted.name),
        display_text=wanted.display_text,
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        format=str(image_format),
        hypervisor=str(hypervisor),
        os_type_id=wanted.os_type_id,
        url=wanted.url,
        checksum=wanted.checksum.lower() if wanted.checksum else None,
        bits=wanted.bits,
        is_public=int(wanted.is_public),
        is_featured=int(wanted.is_featured),
        is_extractable=int(wanted.is_extractable),
        password_enabled=int(wanted.password_enabled),
        requires_hvm=int(wanted.requires_hvm),
        cross_zones=int(wanted.zone_id == EVERY_ZONE and caller.is_admin),
        tag=wanted.tag,
        details=_details(wanted.details),
    )
    record(
        tx,
        type=types.TEMPLATE_CREATE,
        description=f"Registered template {wanted.name}",
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        user_id=caller.user_id,
        resource_kind=KIND,
        resource_id=template_id,
        zone_id=None if wanted.zone_id == EVERY_ZONE else wanted.zone_id,
        facts={"template_id": template_id, "zones": zones},
    )
    name = templates.file_name(tx, template_id)
    for zone_id in zones:
        begin(tx, templates.copy_there(tx, template_id, zone_id, name=name, status=WAITING))
    return views_of(tx, caller, template_id)


def update(
    tx: Tx,
    caller: Caller,
    template_id: Id[Template],
    *,
    name: str | None,
    display_text: str | None,
    os_type_id: Id[OsType] | None,
    image_format: str | None,
    bootable: bool | None,
    password_enabled: bool | None,
    requires_hvm: bool | None,
) -> dict[str, Any]:
    """Change how a template is described. What its image is cannot change."""
    row = templates.row(tx, template_id)
    require(tx, caller, row["account_id"], row["domain_id"], f"template {row['name']}")
    if image_format is not None and one_of(ImageFormat, image_format, "format") != row["format"]:
        raise ParameterError(
            f"the image is {row['format']} and stays so: register it again as another template", parameter="format"
        )
    changes = {
        "name": None if name is None else _name(name),
        "display_text": display_text,
        "os_type_id": os_type_id,
        "is_bootable": None if bootable is None else int(bootable),
        "password_enabled": None if password_enabled is None else int(password_enabled),
        "requires_hvm": None if requires_hvm is None else int(requires_hvm),
    }
    given = {column: new for column, new in changes.items() if new is not None}
    if given:
        templates.change(tx, template_id, **given)
        _happened(tx, caller, template_id, types.TEMPLATE_UPDATE, f"Changed template {row['name']}")
    return view(tx, caller, template_id)


def delete(tx: Tx, caller: Caller, template_id: Id[Template], zone_id: int | None) -> str:
    """Submit the deletion, in one zone or everywhere, and return the job's UUID.

    Errors: 531 for another's template, 431 for a zone it is not in, 536 while volumes are being made from it.
    """
    row = templates.row(tx, template_id)
    require(tx, caller, row["account_id"], row["domain_id"], f"template {row['name']}")
    if row["type"] == SYSTEM_TEMPLATE:
        raise ResourceInUse(f"template {row['name']} is {keys.router_template_id.name}: routers may boot from it")
    if zone_id is not None and templates.copy_of(tx, template_id, zone_id) is None:
        raise ParameterError(f"template {row['name']} is not in that zone", parameter="zoneid")
    require_unused(tx, template_id, zone_id)
    start = record(
        tx,
        type=types.TEMPLATE_DELETE,
        description=f"Scheduled the deletion of template {row['name']}",
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        user_id=caller.user_id,
        state=SCHEDULED,
        resource_kind=KIND,
        resource_id=template_id,
        zone_id=zone_id,
    )
    job = submit(
        tx,
        delete_template(template=int(template_id), zone=None if zone_id is None else int(zone_id)),
        owner_of(tx, caller, None, None),
        command="deleteTemplate",
        instance_kind=KIND,
        instance_id=template_id,
        resource_key=f"template:{template_id}",
        start_event_id=start,
    )
    return job.uuid


def change_permissions(
    tx: Tx,
    caller: Caller,
    template_id: Id[Template],
    *,
    accounts: Sequence[str] | None,
    operation: str | None,
    is_public: bool | None,
    is_featured: bool | None,
    is_extractable: bool | None,
) -> None:
    """Say who may use a template. `operation` is add, remove or reset (nobody but its owner).

    Account names are those of the template owner's domain.
    """
    row = templates.row(tx, template_id)
    require(tx, caller, row["account_id"], row["domain_id"], f"template {row['name']}")
    if is_public and not caller.is_admin and not value(tx, keys.allow_public_user_templates):
        raise PermissionDenied("users may not make their templates public (allow.public.user.templates)")
    if (is_featured is not None or is_extractable is not None) and not caller.is_admin:
        raise PermissionDenied("only root administrators may say which templates are featured or extractable")
    flags = {"is_public": is_public, "is_featured": is_featured, "is_extractable": is_extractable}
    given = {column: int(new) for column, new in flags.items() if new is not None}
    if given:
        templates.change(tx, template_id, **given)
    _share(tx, template_id, row["domain_id"], accounts, operation)
    _happened(tx, caller, template_id, types.TEMPLATE_UPDATE, f"Changed who may use template {row['name']}")


def permissions(
    tx: Tx, caller: Caller, template_id: Id[Template], *, account_name: str | None, domain_id: int | None
) -> dict[str, Any]:
    """Who may use a template; for its owner and administrators only.

    With `account_name` only whether this account may, with `domain_id` only accounts of that domain; a name that is
    not among them is no error, for it would tell the owner which accounts there are.
    """
    row = templates.row(tx, template_id)
    require(tx, caller, row["account_id"], row["domain_id"], f"template {row['name']}")
    names = select(account.c.name).where(account.c.id.in_(templates.permitted(tx, template_id)), account.c.live == 1)
    if account_name is not None:
        names = names.where(account.c.name == account_name)
    if domain_id is not None:
        names = names.where(account.c.domain_id == domain_id)
    return {
        "id": row["uuid"],
        "is_public": bool(row["is_public"]),
        "domain_id": tx.scalar(select(domain.c.uuid).where(domain.c.id == row["domain_id"])),
        "account": sorted(str(name) for name in tx.execute(names).scalars()),
    }


def _check_format(hypervisor: Hypervisor, image_format: ImageFormat) -> None:
    accepted = _ACCEPTED.get(hypervisor)
    if accepted is None:
        known = ", ".join(_ACCEPTED)
        raise ParameterError(f"templates for {hypervisor} are not supported, only for {known}", parameter="hypervisor")
    if image_format not in accepted:
        raise ParameterError(
            f"templates for {hypervisor} must have the format {' or '.join(accepted)}, not {image_format}",
            parameter="format",
        )


def _check_url(url: str) -> None:
    """What can be said without asking a name server; addresses are checked where the image is fetched."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise ParameterError("url cannot be read", parameter="url") from error
    if parts.scheme not in ("http", "https"):
        raise ParameterError("url must begin with http:// or https://", parameter="url")
    if not usable or len(url) > _LONGEST_URL:
        raise ParameterError("url must name a server and be at most 2048 characters long", parameter="url")
    if parts.username is not None or parts.password is not None:
        raise ParameterError(
            "url must not hold a user name or password: whoever sees it would learn it", parameter="url"
        )
    if any(ord(character) <= 32 or ord(character) > 126 for character in url):
        raise ParameterError("url must hold printable ASCII only: write other characters as %XX", parameter="url")


def _check_rights(tx: Tx, caller: Caller, wanted: Registration) -> None:
    if caller.is_admin:
        return
    if wanted.is_public and not value(tx, keys.allow_public_user_templates):
        raise PermissionDenied("users may not make their templates public (allow.public.user.templates)")
    if wanted.is_featured:
        raise PermissionDenied("only root administrators may feature templates")
    if wanted.tag is not None:
        raise PermissionDenied("only root administrators may tag templates")


def _zones(tx: Tx, caller: Caller, zone_id: int) -> list[int]:
    """Zones that the template goes to: one, or every one this caller can see."""
    if zone_id != EVERY_ZONE:
        resolve(tx, caller, Zone, str(zone_id), "zoneid")
        row = tx.one(select(zone).where(zone.c.id == zone_id))
        if row is not None and row["allocation_state"] != AllocationState.ENABLED and not caller.is_admin:
            raise PermissionDenied(f"zone {row['name']} is disabled")
        return [int(zone_id)]
    where = [zone.c.live == 1]
    if not caller.is_admin:
        above = select(domain.c.id).where(domain.c.path.in_(_prefixes(caller.domain_path)))
        where += [
            zone.c.allocation_state == AllocationState.ENABLED,
            zone.c.domain_id.is_(None) | zone.c.domain_id.in_(above),
        ]
    zones = [int(found) for found in tx.execute(select(zone.c.id).where(*where).order_by(zone.c.id)).scalars()]
    if not zones:
        raise ParameterError("there is no zone yet", parameter="zoneid")
    return zones


def _prefixes(path: str) -> list[str]:
    """The paths of a domain and of those above it: "/a/b/" gives "/", "/a/" and "/a/b/"."""
    names = [name for name in path.split("/") if name]
    return ["/" + "".join(f"{name}/" for name in names[:depth]) for depth in range(len(names) + 1)]


def _share(tx: Tx, template_id: int, domain_id: int, names: Sequence[str] | None, operation: str | None) -> None:
    match (operation or "").lower():
        case "":
            if names:
                raise ParameterError("op is needed to say what to do with the accounts", parameter="op")
        case "add":
            templates.permit(tx, template_id, _account_ids(tx, domain_id, names))
        case "remove":
            templates.forbid(tx, template_id, _account_ids(tx, domain_id, names))
        case "reset":
            templates.forbid(tx, template_id)
            templates.change(tx, template_id, is_public=0, is_featured=0)
        case _:
            raise ParameterError(f"op must be add, remove or reset; got {operation!r}", parameter="op")


def _account_ids(tx: Tx, domain_id: int, names: Sequence[str] | None) -> list[int]:
    if not names:
        raise ParameterError("accounts is needed with this op", parameter="accounts")
    found = {
        str(row["name"]): int(row["id"])
        for row in tx.all(
            select(account.c.id, account.c.name).where(
                account.c.live == 1, account.c.domain_id == domain_id, account.c.name.in_(list(names))
            )
        )
    }
    unknown = [name for name in names if name not in found]
    if unknown:
        raise ParameterError(f"could not find account {unknown[0]} in the template's domain", parameter="accounts")
    return list(found.values())


def _name(name: str) -> str:
    if not name.strip():
        raise ParameterError("name must not be empty", parameter="name")
    return name


def _details(entries: Sequence[Mapping[str, str]]) -> str | None:
    """Details as JSON. They are kept and shown, and reach no hypervisor."""
    told: dict[str, str] = {}
    for entry in entries:
        if set(entry) == {"key", "value"}:
            told[entry["key"]] = entry["value"]
        else:
            told |= entry
    text = msgspec.json.encode(told).decode()
    if len(text) > _LONGEST_DETAILS:
        raise ParameterError(f"details are longer than {_LONGEST_DETAILS} characters", parameter="details")
    return text if told else None


def _happened(tx: Tx, caller: Caller, template_id: int, kind: str, text: str) -> None:
    row = templates.row(tx, template_id)
    record(
        tx,
        type=kind,
        description=text,
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        user_id=caller.user_id,
        resource_kind=KIND,
        resource_id=template_id,
    )
