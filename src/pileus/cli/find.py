"""`pileus id KIND NAME`: the id of a thing by its name, for use in other calls."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from pileus.cli.show import complain
from pileus.cli.talk import talking

ALL = {"listall": "true"}
LISTS: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "zone": ("listZones", "zone", {}),
    "pod": ("listPods", "pod", {}),
    "cluster": ("listClusters", "cluster", {}),
    "host": ("listHosts", "host", {}),
    "pool": ("listStoragePools", "storagepool", {}),
    "offering": ("listServiceOfferings", "serviceoffering", {}),
    "disk-offering": ("listDiskOfferings", "diskoffering", {}),
    "network": ("listNetworks", "network", ALL),
    "template": ("listTemplates", "template", {"templatefilter": "executable"}),
    "vm": ("listVirtualMachines", "virtualmachine", ALL),
    "volume": ("listVolumes", "volume", ALL),
    "account": ("listAccounts", "account", ALL),
    "address": ("listPublicIpAddresses", "publicipaddress", ALL),
}
NAMES = ("name", "displayname", "ipaddress")


def find(
    kind: Annotated[str, typer.Argument(help=f"One of: {', '.join(LISTS)}.")],
    name: Annotated[str, typer.Argument(help="The name (or address) of the thing.")],
    *,
    state: Annotated[Path | None, typer.Option(help="Directory of the cloud on this machine.")] = None,
) -> None:
    """Print the id of a thing, such as `pileus id zone local`. Exit status 1 when no or several things match."""
    if kind not in LISTS:
        near = difflib.get_close_matches(kind, LISTS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise typer.BadParameter(f"kind must be one of {', '.join(LISTS)}{hint}")
    command, entry, filters = LISTS[kind]
    with talking(state) as client:
        things = client.list(command, entry, **filters)
    found = {str(thing["id"]): thing for thing in things if name in [thing.get(field) for field in NAMES]}
    if len(found) == 1:
        typer.echo(next(iter(found)))
        return
    if found:
        complain(f"{len(found)} things of kind {kind} are named {name!r}: {', '.join(sorted(found))}")
    else:
        complain(f"no {kind} is named {name!r}")
        known = sorted({str(thing[field]) for thing in things for field in NAMES if thing.get(field)})
        if known:
            near = difflib.get_close_matches(name, known, n=5) or known[:5]
            complain(f"there is {', '.join(near)}", label="next")
    raise typer.Exit(1)
