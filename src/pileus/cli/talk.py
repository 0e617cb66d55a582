"""A client for the length of a command, and what is told when the API says no: what is wrong, and what next."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from pileus.cli.client import ApiError, Client
from pileus.cli.show import complain
from pileus.cli.state import BadProfile, default_state, find_profile

NO_KEYS = (
    "no keys to sign with. Start a cloud here with `pileus up`, or set CLOUDSTACK_ENDPOINT, CLOUDSTACK_KEY and "
    "CLOUDSTACK_SECRET"
)
UNAUTHORIZED, UNSUPPORTED = 401, 432


@contextmanager
def talking(state: Path | None, *, timeout_seconds: float = 60.0) -> Iterator[Client]:
    """A client with the caller's keys. Errors that a person can mend become one text and exit status 1."""
    try:
        profile = find_profile(state or default_state())
    except BadProfile as error:
        complain(str(error))
        raise typer.Exit(1) from None
    if profile is None:
        complain(NO_KEYS)
        raise typer.Exit(1)
    client = Client(profile, timeout_seconds=timeout_seconds)
    try:
        yield client
    except ApiError as error:
        complain(f"{error.text} (code {error.code})" if error.code else error.text)
        hint = _hint(client, error)
        if hint:
            complain(hint, label="next")
        raise typer.Exit(1) from None
    finally:
        client.close()


def _hint(client: Client, error: ApiError) -> str:
    if error.code == 0:
        return "`pileus doctor` looks for what is wrong" if error.unreached else ""
    if error.code not in (UNAUTHORIZED, UNSUPPORTED):
        return ""
    try:
        known = [str(api["name"]) for api in client.list("listApis", "api")]
    except ApiError:
        return f"{client.profile.endpoint} does not take these keys: `pileus up` makes new ones for the cloud here"
    near = difflib.get_close_matches(error.command, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "`pileus call listApis` lists what you may call"
