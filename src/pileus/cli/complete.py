"""What a shell offers while a call is typed: commands and parameters, as the server tells them. Never an error."""

from typing import Any

import typer

from pileus.cli.client import ApiError, Client
from pileus.cli.state import BadProfile, default_state, find_profile

TIMEOUT_SECONDS = 3.0


def commands(incomplete: str) -> list[tuple[str, str]]:
    """Commands that begin so, each with its description; of any case."""
    return [(api["name"], api["description"]) for api in _apis() if api["name"].lower().startswith(incomplete.lower())]


def parameters(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Parameters of the command that is typed already, as `name=`; those that were given are left out."""
    given = {pair.partition("=")[0] for pair in context.params.get("parameters") or []}
    return [
        (f"{told['name']}=", told["description"])
        for api in _apis(name=context.params.get("command"))
        for told in api["params"]
        if told["name"].startswith(incomplete) and told["name"] not in given
    ]


def _apis(**wanted: object) -> list[dict[str, Any]]:
    try:
        profile = find_profile(default_state())
        if profile is None:
            return []
        client = Client(profile, timeout_seconds=TIMEOUT_SECONDS)
        try:
            return list(client.call("listApis", **wanted).get("api", []))
        finally:
            client.close()
    except (ApiError, BadProfile):
        return []
