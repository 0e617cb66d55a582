"""A client with a list of servers: which one it calls, and what it never calls twice."""

from collections.abc import Callable

import httpx
import pytest

from pileus.cli.client import ApiError, Client, Profile

Answer = Callable[[httpx.Request], httpx.Response]


class Servers:
    """One and two, and how each answers."""

    def __init__(self, one: Answer, two: Answer) -> None:
        self.called: list[str] = []
        self._answers = {"one": one, "two": two}
        self.client = Client(Profile("http://one/client/api, http://two/client/api", "key", "secret"))
        self.client._http = httpx.Client(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.called.append(request.url.host)
        return self._answers[request.url.host](request)


def well(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"answer": {"count": 0}})


def leaving(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"answer": {"count": 0}}, headers={"connection": "close"})


def down(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def silent(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("reset", request=request)


def test_a_server_that_answers_is_kept() -> None:
    servers = Servers(well, well)
    for _ in range(3):
        servers.client.call("deployVirtualMachine")
    assert servers.called == ["one"] * 3


def test_a_call_that_reached_nobody_is_made_at_the_next_server_and_so_are_those_after_it() -> None:
    servers = Servers(down, well)
    servers.client.call("deployVirtualMachine")
    servers.client.call("deployVirtualMachine")
    assert servers.called == ["one", "two", "two"]


def test_a_call_that_may_have_been_carried_out_is_not_made_again_unless_it_only_reads() -> None:
    servers = Servers(silent, well)
    servers.client.call("listZones")
    assert servers.called == ["one", "two"]
    servers = Servers(silent, well)
    with pytest.raises(ApiError) as refused:
        servers.client.call("deployVirtualMachine")
    assert refused.value.unreached
    assert servers.called == ["one"]
    # The next call goes where somebody may be.
    servers.client.call("deployVirtualMachine")
    assert servers.called == ["one", "two"]


def test_a_server_that_is_about_to_stop_is_left_before_it_does() -> None:
    servers = Servers(leaving, well)
    servers.client.call("listZones")
    servers.client.call("listZones")
    assert servers.called == ["one", "two"]


def test_when_all_are_away_each_was_asked_once() -> None:
    servers = Servers(down, down)
    with pytest.raises(ApiError) as refused:
        servers.client.call("listZones")
    assert refused.value.unreached
    assert servers.called == ["one", "two"]
