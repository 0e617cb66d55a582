"""`pileus call COMMAND key=value …`: any command of the API, signed, its job waited for."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pileus.cli import complete
from pileus.cli.client import Client, starts_job
from pileus.cli.show import as_json, as_table, step, told
from pileus.cli.talk import talking

RESERVED = ("command", "response", "apikey", "signature")


class Output(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    JSON = "json"


def call(
    command: Annotated[
        str,
        typer.Argument(
            help="A command of the API, such as listVirtualMachines. listApis lists all.",
            autocompletion=complete.commands,
        ),
    ],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(
            help="Parameters as key=value, such as zoneid=… or details[0].cpuNumber=2",
            autocompletion=complete.parameters,
        ),
    ] = None,
    *,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print the answer.")] = Output.TABLE,
    wait: Annotated[bool, typer.Option(help="Wait for the job that the command starts.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a job.")] = 600.0,
    state: Annotated[Path | None, typer.Option(help="Directory of the cloud on this machine.")] = None,
) -> None:
    """Call the API with your keys.

    Keys come from CLOUDSTACK_ENDPOINT, CLOUDSTACK_KEY and CLOUDSTACK_SECRET, or from the cloud on this machine.

    Examples: `pileus call listZones`; `pileus call stopVirtualMachine id=…`; `pileus call listEvents -o json`.
    """
    given = _parsed(parameters or [])
    with talking(state) as client:
        body = client.call(command, **given)
        if wait and starts_job(body):
            body = _waited(client, command, str(body["jobid"]), timeout)
    if output is Output.JSON:
        as_json(body)
    else:
        as_table(body)


def _parsed(pairs: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair!r} is not of the form key=value, such as zoneid=1")
        if name.lower() in RESERVED:
            raise typer.BadParameter(f"{name} is added by `pileus call` itself")
        if name in found:
            raise typer.BadParameter(f"{name} is given twice")
        found[name] = value
    return found


def _waited(client: Client, command: str, job: str, timeout: float) -> dict[str, Any]:
    with step(f"{command} (job {job})") as bar:

        def tick(answer: dict[str, Any]) -> None:
            note = answer.get("jobstep")
            if note:
                told(bar, f"{command}: {note}")

        return client.wait(job, seconds=timeout, tick=tick)
