"""`pileus fleet`: simulated hosts by the thousand, held by one process, in whatever cloud there is."""

import json
import os
import secrets
import sys
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from pileus.cli.client import Client
from pileus.cli.show import complain
from pileus.cli.state import default_state, find_profile, write_secret
from pileus.wire.orders import BadOrders, read_orders

_PAGE = 500
ORDERS = "orders"
"""Directory beneath a fleet's state in which it looks for what is to go wrong."""

HELP = """Hold simulated hosts in the foreground: from one to 50,000 in one process.

A fleet makes every host of hypervisor Simulator that somebody adds and nobody holds; any user name and password
will do, and a URL such as http://sim1 names the host:

    pileus fleet &

    pileus call addHost hypervisor=Simulator url=http://sim1 username=x password=x \\
        zoneid=ZONE podid=POD clustername=simulated

With --add, it adds hosts itself before it starts. Guests on simulated hosts start, stop and answer as real ones do,
and cost next to nothing; they end with the fleet. Started again with the same --state-dir it is the same fleet and
has the same hosts. Two fleets share the hosts out.
"""


def fleet(
    server: Annotated[
        list[str] | None, typer.Option(help="HOST:PORT where agents connect; several for a farm. [127.0.0.1:8250]")
    ] = None,
    name: Annotated[str, typer.Option(help="The fleet's name, for listFleets.")] = "fleet",
    state_dir: Annotated[Path | None, typer.Option(help="Where its key and certificate lie.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the token given to addFleet; without, the API is asked.")
    ] = None,
    most: Annotated[int, typer.Option(help="Hosts it takes at most.", min=1, max=50_000)] = 50_000,
    add: Annotated[int, typer.Option(help="Add so many hosts first (needs --cluster).", min=0)] = 0,
    cluster: Annotated[str, typer.Option(help="ID of the Simulator cluster to add them to.")] = "",
    prefix: Annotated[str, typer.Option(help="Names of added hosts are PREFIX-1, PREFIX-2 …")] = "sim",
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE for the simulator: seed=7, latency=lognormal:0.05:0.4, die=0.1 …"),
    ] = None,
    faults: Annotated[Path | None, typer.Option(help="A TOML file of what is to go wrong (docs/simulator.md).")] = None,
) -> None:
    """Hold simulated hosts in the foreground."""
    where = state_dir or default_state() / f"fleet-{name}"
    where.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = token_file or where / "token"
    if not token.exists():
        _enrol(name, token)
    if add:
        _add_hosts(add, cluster, prefix)
    desk = where / ORDERS
    desk.mkdir(exist_ok=True, mode=0o700)
    options = [f"most={most}", f"orders={desk}", *(option or [])]
    if faults is not None:
        options.append(f"faults={faults.resolve()}")
    config = where / "agent.toml"
    write_secret(config, _document(server or ["127.0.0.1:8250"], where, token, options))
    os.execv(sys.executable, [sys.executable, "-m", "pileus.agent", "--config", str(config)])  # noqa: S606


MISHAP_HELP = """Let something go wrong in a running fleet, now or in a moment.

    pileus mishap die --hosts 'sim-1*' --share 0.1 --seconds 60

    pileus mishap --set latency=lognormal:0.05:0.4 --set refuse.StartVm=0.02

WHAT is die (the host loses its power), cut (nobody reaches it; guests run on), storage (what needs primary storage is
refused), crash or shutdown (of every guest on it). --set changes how the fleet's hosts behave from now on. All of it is
in docs/simulator.md.
"""


def mishap(
    what: Annotated[str, typer.Argument(help="die, cut, storage, crash or shutdown.")] = "",
    name: Annotated[str, typer.Option(help="The fleet.")] = "fleet",
    hosts: Annotated[str, typer.Option(help="Names of hosts; * and ? stand for others.")] = "*",
    share: Annotated[float, typer.Option(help="How many of these.", min=0, max=1)] = 1.0,
    seconds: Annotated[float, typer.Option(help="For how long.", min=0)] = 60.0,
    after: Annotated[float, typer.Option(help="In so many seconds.", min=0)] = 0.0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE: how hosts behave from now on.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="The fleet's, if it has one of its own.")] = None,
) -> None:
    """Let something go wrong in a running fleet."""
    where = (state_dir or default_state() / f"fleet-{name}") / ORDERS
    lines = []
    if set_:
        lines.append("[behaviour]")
        for each in set_:
            key, separator, text = each.partition("=")
            if not key or not separator:
                complain(f"--set {each}: NAME=VALUE is needed")
                raise typer.Exit(1)
            lines.append(f"{json.dumps(key)} = {json.dumps(text)}")
    if what:
        lines += ["[[mishap]]", f"what = {json.dumps(what)}", f"hosts = {json.dumps(hosts)}"]
        lines += [f"share = {share!r}", f"seconds = {seconds!r}", f"after = {after!r}"]
    if not lines:
        complain("say what is to happen, or --set how hosts behave")
        raise typer.Exit(1)
    document = "\n".join(lines) + "\n"
    try:
        read_orders(document)
    except BadOrders as error:
        complain(str(error))
        raise typer.Exit(1) from error
    if not where.is_dir():
        complain(f"no fleet has its state in {where.parent}: give its --name or --state-dir")
        raise typer.Exit(1)
    write_secret(where / f"{time.time_ns()}.toml", document)


def _client() -> Client:
    profile = find_profile(default_state())
    if profile is None:
        complain("no cloud is known: run `pileus up`, set CLOUDSTACK_ENDPOINT, _KEY and _SECRET, or give --token-file")
        raise typer.Exit(1)
    return Client(profile)


def _enrol(name: str, token: Path) -> None:
    """Tell the cloud of this fleet; the token is kept, because it tells the agent who it is."""
    client = _client()
    there = client.call("listFleets", name=name)
    if there.get("fleet"):
        complain(f"the cloud has a fleet named {name} already: give its --state-dir, another --name, or delete it")
        raise typer.Exit(1)
    secret = secrets.token_urlsafe(32)
    client.call("addFleet", name=name, token=secret)
    write_secret(token, secret + "\n")


def _add_hosts(count: int, cluster: str, prefix: str) -> None:
    client = _client()
    found = client.call("listClusters", id=cluster).get("cluster", []) if cluster else []
    if not found:
        complain("--add needs --cluster with the ID of a cluster of hypervisor Simulator")
        raise typer.Exit(1)
    place: dict[str, Any] = found[0]
    there = _names(client, place["id"])
    for name in (f"{prefix}-{number}" for number in range(1, count + 1)):
        if name in there:
            continue
        client.call(
            "addHost",
            zoneid=place["zoneid"],
            podid=place["podid"],
            clusterid=place["id"],
            hypervisor="Simulator",
            url=f"http://{name}",
            username="simulated",
            password="simulated",  # noqa: S106 (a simulated host takes any)
        )


def _names(client: Client, cluster: str) -> set[str]:
    """Names of the cluster's hosts."""
    names: set[str] = set()
    page = 1
    while hosts := client.call("listHosts", clusterid=cluster, page=page, pagesize=_PAGE).get("host", []):
        names |= {host["name"] for host in hosts}
        page += 1
    return names


def _document(servers: list[str], where: Path, token: Path, options: list[str]) -> str:
    lines = [f"servers = {servers!r}".replace("'", '"'), f'state_dir = "{where}"', "[fleet]", f'token_file = "{token}"']
    lines.append("[fleet.options]")
    for each in options:
        key, separator, text = each.partition("=")
        if not key or not separator:
            complain(f"--option {each}: NAME=VALUE is needed")
            raise typer.Exit(1)
        try:
            tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            text = json.dumps(text)
        lines.append(f"{json.dumps(key)} = {text}")
    return "\n".join(lines) + "\n"
