"""`pileus up`, `down` and `status`: a whole cloud on this machine."""

import os
import shutil
import subprocess
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated

import typer

from pileus.cli.local_cloud import Choices, LocalCloud, LocalCloudError, choices_of
from pileus.cli.local_setup import Layout, signed_in
from pileus.cli.show import err, out, step, told
from pileus.cli.state import State, default_state
from pileus.cli.vitals import health
from pileus.sandbox import check, free_subnet
from pileus.sandbox.switch import DEFAULT_SUBNET

SMALLEST_SUBNET = 24

StateOption = Annotated[
    Path | None, typer.Option("--state", help="Directory of the cloud's files ($PILEUS_STATE, /var/lib/pileus/local).")
]


def up(
    *,
    state: StateOption = None,
    port: Annotated[int, typer.Option(help="Port of the API on 127.0.0.1.", min=1, max=65535)] = 8080,
    agent_port: Annotated[int, typer.Option(help="Port for agents, on the sandbox's switch.", min=1, max=65535)] = 8250,
    prefix: Annotated[str, typer.Option(help="Prefix of namespaces and devices.")] = "pileus",
    subnet: Annotated[
        str, typer.Option(help="Network of the host and of public addresses; a free one unless given.")
    ] = "",
) -> None:
    """Bring up a cloud on this machine: server, one KVM host in namespaces, storage, a template. Fine to run again."""
    given = _network(subnet) if subnet else None
    if os.geteuid() != 0:
        raise LocalCloudError("namespaces and guests need root: run it with sudo")
    check()
    began = time.monotonic()
    files = State((state or default_state()).resolve())
    files.ensure()
    wanted = Choices(prefix=prefix, api_port=port, agent_port=agent_port, subnet=given or free_subnet())
    cloud = LocalCloud(files, choices_of(files, wanted))
    (files.root / "prefix").write_text(cloud.choices.prefix)
    _image(files)
    with step("host powered on"):
        cloud.start_host()
    with step("management server"):
        cloud.start_server()
    client = signed_in(cloud)
    layout = Layout(client, cloud)
    with step("zone, pod, cluster, public addresses"):
        zone = layout.ensure_zone()
        pod = layout.ensure_pod(zone)
        cluster = layout.ensure_cluster(zone, pod)
        layout.ensure_public_range(zone)
        offering = layout.ensure_offering()
    with step("host and secondary storage enrolled"):
        cloud.start_agent(layout.expect_host(zone, pod, cluster))
        layout.await_hosts(zone)
    with step("primary storage"):
        layout.ensure_storage(zone, pod, cluster)
    with step("default template") as bar:
        template = layout.ensure_template(zone, files.template, lambda text: told(bar, f"default template: {text}"))
    client.close()
    deploy = f"pileus call deployVirtualMachine zoneid={zone} serviceofferingid={offering} templateid={template}"
    _farewell(cloud, f"{deploy} name=hello", time.monotonic() - began)


def down(
    *,
    state: StateOption = None,
    purge: Annotated[bool, typer.Option(help="Forget the cloud's data too: guests, volumes, accounts.")] = False,
) -> None:
    """Stop the cloud on this machine. Data stay, and `pileus up` continues with them, unless --purge."""
    files = State((state or default_state()).resolve())
    if not files.root.exists():
        err.print("there is no cloud here")
        return
    cloud = LocalCloud(files, choices_of(files, _remembered(files)))
    with step("everything stopped"):
        cloud.stop()
    left = cloud.what_is_left()
    if left:
        raise LocalCloudError("these are still there: " + ", ".join(left))
    if purge:
        shutil.rmtree(files.root)
        err.print(f"forgot {files.root}")


def status(*, state: StateOption = None) -> None:
    """Show what of the cloud on this machine runs. Exit status 3 when not all of it does, or something in it is ill."""
    files = State((state or default_state()).resolve())
    cloud = LocalCloud(files, choices_of(files, _remembered(files)))
    parts = {
        "management server": cloud.server.running(),
        "host": cloud.host.running,
        "agent": cloud.agent.running(),
    }
    for name, runs in parts.items():
        out.print(f"{name:20} {'running' if runs else 'stopped'}", highlight=False)
    if all(parts.values()):
        out.print(f"{'API':20} {cloud.endpoint}", highlight=False)
    ill = [finding.what for finding in health(cloud.endpoint) if finding.mend] if parts["management server"] else []
    for what in ill:
        out.print(f"{'ill':20} {what} (pileus doctor tells the fix)", highlight=False, markup=False)
    if ill or not all(parts.values()):
        raise typer.Exit(3)


def _network(text: str) -> IPv4Network:
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise typer.BadParameter(f"--subnet is a network such as {DEFAULT_SUBNET}: {error}") from None
    if network.prefixlen > SMALLEST_SUBNET:
        raise typer.BadParameter(f"--subnet needs room for 256 addresses: /{SMALLEST_SUBNET} or larger")
    return network


def _remembered(files: State) -> Choices:
    try:
        return Choices(prefix=(files.root / "prefix").read_text().strip())
    except OSError:
        return Choices()


def _image(files: State) -> None:
    if files.template.exists():
        return
    with step("default template built from distribution packages"):
        half = files.template.with_suffix(".new")
        done = subprocess.run(
            [sys.executable, "-m", "pileus.appliance.image.guest", str(half)], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise LocalCloudError(f"the default template could not be built: {done.stderr.strip()}")
        half.replace(files.template)


def _farewell(cloud: LocalCloud, deploy: str, seconds: float) -> None:
    first = cloud.state.password
    password = first.read_text().strip() if first.exists() else "the one you set"
    out.print(
        f"""
[green]The cloud is up[/green] after {seconds:.1f} s.

  API        {cloud.endpoint}
  user       admin
  password   {password}
  keys       {cloud.state.profile}

Paste this for a virtual machine of your own:

  {deploy}
""",
        highlight=False,
        soft_wrap=True,
    )
