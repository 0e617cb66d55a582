"""`pileus doctor`: what is broken on this machine and in the cloud on it, and how to mend it."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pileus.cli.client import ApiError, Client
from pileus.cli.local_cloud import Choices, LocalCloud, choices_of
from pileus.cli.show import out
from pileus.cli.state import BadProfile, State, default_state, find_profile
from pileus.cli.talk import UNAUTHORIZED
from pileus.cli.vitals import Finding, vitals
from pileus.sandbox import missing

LEAST_DISK_BYTES = 2 * 1024**3
LEAST_MEMORY_KIB = 1024 * 1024


def doctor(*, state: Annotated[Path | None, typer.Option(help="Directory of the cloud's files.")] = None) -> None:
    """Look at this machine and the cloud on it; name what is broken and the fix. Exit status 1 if anything is."""
    files = State((state or default_state()).resolve())
    ill = 0
    for finding in [*_machine(files), *_cloud(files)]:
        if finding.mend:
            ill += 1
            out.print(
                f"[red]✗[/red] {escape(finding.what)}\n    [bold]fix:[/bold] {escape(finding.mend)}", soft_wrap=True
            )
        else:
            out.print(f"[green]✓[/green] {escape(finding.what)}", soft_wrap=True)
    if ill:
        out.print(f"{ill} to mend")
        raise typer.Exit(1)


def _machine(files: State) -> Iterator[Finding]:
    yield Finding(f"Python {sys.version.split()[0]}")
    root = os.geteuid() == 0
    yield Finding("running as root" if root else "not running as root", "" if root else "run it with sudo")
    packages = missing()
    yield Finding(
        f"{len(packages)} programs are missing" if packages else "all programs of a host are there",
        f"apt-get install {' '.join(packages)}" if packages else "",
    )
    accelerated = _accelerated()
    yield Finding(
        "guests use hardware virtualization"
        if accelerated
        else "guests are emulated (no vmx or svm in this CPU): slower"
    )
    place = next(place for place in (files.root, *files.root.parents) if place.exists())
    free = shutil.disk_usage(place).free
    yield Finding(
        f"{free / 1024**3:.1f} GiB free at {place}",
        "" if free > LEAST_DISK_BYTES else "free some space, or choose another directory with --state",
    )
    available = _memory_kib()
    yield Finding(
        f"{available // 1024} MiB of memory available",
        "" if available > LEAST_MEMORY_KIB else "stop other programs: a guest and its router need about 400 MiB",
    )


def _cloud(files: State) -> Iterator[Finding]:
    if files.server_config.exists():
        yield from _programs(files)
    else:
        yield Finding("no cloud was started here yet (pileus up)")
    try:
        profile = find_profile(files.root)
    except BadProfile as error:
        yield Finding("there are keys that cannot be used", str(error))
        return
    if profile is None:
        if files.server_config.exists():
            yield Finding("no keys are stored", "pileus up registers keys and stores them")
        return
    for endpoint in profile.endpoint.split(","):
        yield from vitals(endpoint.strip())
    client = Client(profile, timeout_seconds=10)
    try:
        yield from _answers(client)
    except ApiError as error:
        yield _unanswered(client, error)
    finally:
        client.close()


def _unanswered(client: Client, error: ApiError) -> Finding:
    if error.unreached:
        return Finding(error.text, "pileus up starts the server on this machine; elsewhere, check CLOUDSTACK_ENDPOINT")
    if error.code == UNAUTHORIZED:
        return Finding(f"{client.profile.endpoint} does not take the keys", "pileus up makes new keys")
    return Finding(f"the API refuses {error.command}: {error.text}", "look into the server's log")


def _programs(files: State) -> Iterator[Finding]:
    cloud = LocalCloud(files, choices_of(files, Choices()))
    for name, runs, log in (
        ("host", cloud.host.running, cloud.state.root / "hosts"),
        ("management server", cloud.server.running(), cloud.server.log),
        ("agent", cloud.agent.running(), cloud.agent.log),
    ):
        yield Finding(f"the {name} {'runs' if runs else 'is stopped'}", "" if runs else f"pileus up; its log: {log}")


def _answers(client: Client) -> Iterator[Finding]:
    began = time.monotonic()
    zones = client.list("listZones", "zone")
    yield Finding(f"the API answers in {(time.monotonic() - began) * 1000:.0f} ms and has {len(zones)} zones")
    try:
        hosts = client.list("listHosts", "host")
    except ApiError as error:
        if error.code != UNAUTHORIZED:
            raise
        yield Finding("the keys are a user's: hosts and storage are for administrators to see")
        return
    for host in hosts:
        well = host["state"] == "Up"
        yield Finding(
            f"host {host['name']} is {host['state']}",
            "" if well else "start its agent (pileus up), and look into its log if it does not connect",
        )
    for pool in client.list("listStoragePools", "storagepool"):
        well = pool["state"] == "Up"
        yield Finding(
            f"storage pool {pool['name']} is {pool['state']}",
            "" if well else "no host has attached it yet: check its path on the hosts",
        )
    for template in client.list("listTemplates", "template", templatefilter="self"):
        well = bool(template["isready"])
        yield Finding(
            f"template {template['name']}: {template.get('status', 'ready')}",
            "" if well else "deleteTemplate and registerTemplate again once the reason is mended",
        )
    for network in client.list("listNetworks", "network", listall="true"):
        if network.get("failure"):
            yield Finding(f"network {network['name']}: {network['failure']}", f"restartNetwork id={network['id']}")


def _accelerated() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return Path("/dev/kvm").exists() and (" vmx" in flags or " svm" in flags)


def _memory_kib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1])
    return 0
