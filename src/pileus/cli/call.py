"""`pileus call COMMAND key=value …`: any command of the API, signed, its job waited for."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pileus.cli.client import ApiError, Client
from pileus.cli.show import as_json, as_table, complain, step, told
from pileus.cli.state import default_state, find_profile


class Output(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    JSON = "json"


def call(
    command: Annotated[
        str, typer.Argument(help="A command of the API, such as listVirtualMachines. listApis lists all.")
    ],
    parameters: Annotated[
        list[str] | None, typer.Argument(help="Parameters as key=value, such as zoneid=… or details[0].cpuNumber=2")
    ] = None,
    *,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print the answer.")] = Output.TABLE,
    wait: Annotated[bool, typer.Option(help="Wait for the job that the command starts.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a job.")] = 600.0,
    state: Annotated[Path | None, typer.Option(help="Directory of the cloud on this machine.")] = None,
) -> None:
    """Call the API with your keys.

    Keys come from CLOUDSTACK_ENDPOINT, CLOUDSTACK_KEY and CLOUDSTACK_SECRET, or from the cloud on this machine.
    """
    profile = find_profile(state or default_state())
    if profile is None:
        complain(
            "no keys to sign with. Start a cloud here with `pileus up`, or set CLOUDSTACK_ENDPOINT, CLOUDSTACK_KEY and "
            "CLOUDSTACK_SECRET"
        )
        raise typer.Exit(1)
    client = Client(profile)
    try:
        body = client.call(command, **_parsed(parameters or []))
        if wait and "jobid" in body:
            body = _waited(client, command, str(body["jobid"]), timeout)
    except ApiError as error:
        complain(f"{error.text} (code {error.code})" if error.code else error.text)
        raise typer.Exit(1) from None
    finally:
        client.close()
    if output is Output.JSON:
        as_json(body)
    else:
        as_table(body)


def _parsed(pairs: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair!r} is not of the form key=value")
        found[name] = value
    return found


def _waited(client: Client, command: str, job: str, timeout: float) -> dict[str, Any]:
    with step(f"{command} (job {job})") as bar:

        def tick(answer: dict[str, Any]) -> None:
            note = answer.get("jobstep")
            if note:
                told(bar, f"{command}: {note}")

        return client.wait(job, seconds=timeout, tick=tick)
