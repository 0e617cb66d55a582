"""Unmodified clients sign in over a real socket."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest
import typer
import uvicorn
from api_client import Api, Person
from cs import CloudStack, CloudStackApiException
from libcloud.compute.providers import get_driver
from libcloud.compute.types import Provider

from pileus.cli import complete
from pileus.cli.main import app
from pileus.server.db.clock import SystemClock
from pileus.testing.world import World


@pytest.fixture
def port(api: Api) -> Iterator[int]:
    """The API on a port of loopback. Clients say when their calls expire, so the clock is the machine's."""
    api.database.clock = SystemClock()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(api.app, log_config=None, access_log=False))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("method", ["get", "post"])
def test_cs_lists_and_learns_of_errors(world: World, api: Api, admin: Person, port: int, method: str) -> None:
    world.zone("one [zone] ~ * + ü")
    client = CloudStack(
        endpoint=f"http://127.0.0.1:{port}/client/api", key=admin.api_key, secret=admin.secret_key, method=method
    )
    assert [zone["name"] for zone in client.listZones(fetch_list=True)] == ["one [zone] ~ * + ü"]
    assert client.listDomains(name="a~b [c] *+ü") == {}
    made = client.createDomain(name="a~b [c] *+ü")["domain"]
    (found,) = client.listDomains(name="a~b [c] *+ü", fetch_list=True)
    assert found["id"] == made["id"]
    with pytest.raises(CloudStackApiException) as caught:
        client.listDomains(id="nowhere")
    assert caught.value.error["errorcode"] == 431


def test_libcloud_lists_and_learns_of_errors(world: World, api: Api, admin: Person, port: int) -> None:
    world.zone("one")
    driver = get_driver(Provider.CLOUDSTACK)(
        key=admin.api_key, secret=admin.secret_key, host="127.0.0.1", port=port, path="/client/api", secure=False
    )
    assert [location.name for location in driver.list_locations()] == ["one"]
    assert driver.list_nodes() == []
    wrong = get_driver(Provider.CLOUDSTACK)(
        key=admin.api_key, secret="wrong", host="127.0.0.1", port=port, path="/client/api", secure=False
    )
    with pytest.raises(Exception, match="credentials"):
        wrong.list_locations()


def test_a_shell_is_offered_commands_and_parameters_that_the_server_tells(
    api: Api, admin: Person, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDSTACK_ENDPOINT", f"http://127.0.0.1:{port}/client/api")
    monkeypatch.setenv("CLOUDSTACK_KEY", admin.api_key)
    monkeypatch.setenv("CLOUDSTACK_SECRET", admin.secret_key)
    offered = dict(complete.commands("listz"))
    assert set(offered) == {"listZones"}
    assert offered["listZones"]
    context = typer.Context(typer.main.get_command(app), info_name="call")
    context.params = {"command": "listZones", "parameters": ["page=1"]}
    assert [name for name, _ in complete.parameters(context, "page")] == ["pagesize="]
    monkeypatch.setenv("CLOUDSTACK_SECRET", "wrong")
    assert complete.commands("list") == []
    monkeypatch.setenv("CLOUDSTACK_ENDPOINT", "http://127.0.0.1:1/client/api")
    assert complete.commands("list") == []
