"""The `pileus` command: start a cloud, look at it, call its API."""

import sys

import httpx
import typer

from pileus import __version__
from pileus.cli import call, doctor, find, fleet, local, programs
from pileus.cli.client import ApiError
from pileus.cli.local_cloud import LocalCloudError
from pileus.cli.show import complain
from pileus.cli.state import BadProfile
from pileus.sandbox import SandboxError

app = typer.Typer(
    name="pileus",
    help="Pileus, an Infrastructure-as-a-Service cloud. Start with `pileus up`, then `pileus call listZones`.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.command("up")(local.up)
app.command("down")(local.down)
app.command("status")(local.status)
app.command("call")(call.call)
app.command("id")(find.find)
app.command("doctor")(doctor.doctor)
app.command("server")(programs.server)
app.command("agent")(programs.agent)
app.command("fleet", help=fleet.HELP)(fleet.fleet)
app.command("mishap", help=fleet.MISHAP_HELP)(fleet.mishap)
app.command("token")(programs.token)


@app.callback(invoke_without_command=True)
def version(
    *,
    show: bool = typer.Option(False, "--version", help="Print the version and stop."),
) -> None:
    """Pileus, an Infrastructure-as-a-Service cloud."""
    if show:
        typer.echo(f"pileus {__version__}")
        raise typer.Exit


def run() -> None:
    """Entry point. Errors that a person can mend end with one clear text and status 1, never with a stack trace."""
    try:
        app()
    except (ApiError, BadProfile, LocalCloudError, SandboxError, httpx.HTTPError, OSError) as error:
        complain(str(error) or type(error).__name__)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    run()
