"""`pileus id KIND NAME`: the id of a thing by its name, for use in other calls."""

from pathlib import Path
from typing import Annotated

import typer

from pileus.cli.client import ApiError, Client
from pileus.cli.show import complain
from pileus.cli.state import default_state, find_profile

LISTS = {
    "zone": ("listZones", "zone", {}),
    "pod": ("listPods", "pod", {}),
    "cluster": ("listClusters", "cluster", {}),
    "host": ("listHosts", "host", {}),
    "pool": ("listStoragePools", "storagepool", {}),
    "offering": ("listServiceOfferings", "serviceoffering", {}),
    "disk-offering": ("listDiskOfferings", "diskoffering", {}),
    "network": ("listNetworks", "network", {}),
    "template": ("listTemplates", "template", {"templatefilter": "executable"}),
    "vm": ("listVirtualMachines", "virtualmachine", {}),
    "volume": ("listVolumes", "volume", {}),
    "account": ("listAccounts", "account", {}),
    "address": ("listPublicIpAddresses", "publicipaddress", {}),
}
NAMES = ("name", "displayname", "ipaddress")


def find(
    kind: Annotated[str, typer.Argument(help=f"One of: {', '.join(LISTS)}.")],
    name: Annotated[str, typer.Argument(help="The name (or address) of the thing.")],
    *,
    state: Annotated[Path | None, typer.Option(help="Directory of the cloud on this machine.")] = None,
) -> None:
    """Print the id of a thing, such as `pileus id zone local`. Exit status 1 when no or several things match."""
    profile = find_profile(state or default_state())
    if kind not in LISTS:
        raise typer.BadParameter(f"kind must be one of {', '.join(LISTS)}")
    if profile is None:
        complain("no keys to sign with: start a cloud with `pileus up`")
        raise typer.Exit(1)
    command, entry, filters = LISTS[kind]
    client = Client(profile)
    try:
        things = client.list(command, entry, **filters)
    except ApiError as error:
        complain(error.text)
        raise typer.Exit(1) from None
    finally:
        client.close()
    found = sorted({str(thing["id"]) for thing in things if name in [thing.get(field) for field in NAMES]})
    if len(found) != 1:
        complain(f"{len(found)} things of kind {kind} are named {name!r}")
        raise typer.Exit(1)
    typer.echo(found[0])
