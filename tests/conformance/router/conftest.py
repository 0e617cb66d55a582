"""Routers for the conformance tests, in namespaces; whatever a test leaves behind fails it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from router_world import Guest, World, config

from pileus.agent.backends.kvm.router_namespace import NamespaceRouters
from pileus.wire.operations import RouterFacts
from pileus.wire.router import RouterConfig


class RunningRouter:
    """The launcher under test, and the one router of the world, spoken to without asyncio."""

    def __init__(self, world: World, state: Path, runner: asyncio.Runner) -> None:
        self.world = world
        self.state = state
        self.runner = runner
        self.launcher = NamespaceRouters(state)

    def start(self, wanted: RouterConfig | None = None, epoch: int = 1) -> RouterFacts:
        spec = self.world.spec(epoch)
        return self.runner.run(self.launcher.start(spec, wanted or config(), self.world.bridges))

    def configure(self, wanted: RouterConfig) -> RouterFacts:
        return self.runner.run(self.launcher.configure(self.world.router_name, wanted))

    def remove(self) -> None:
        self.runner.run(self.launcher.remove(self.world.router_name))

    def forget(self) -> None:
        """As if the agent had been restarted: a new launcher on the same state."""
        self.launcher = NamespaceRouters(self.state)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        made.make()
        yield made
    finally:
        made.unmake()


@pytest.fixture
def router(world: World, tmp_path: Path) -> Iterator[RunningRouter]:
    # A path longer than an address of AF_UNIX has room for must do.
    state = tmp_path / ("routers-" + "x" * 100)
    with asyncio.Runner() as runner:
        made = RunningRouter(world, state, runner)
        try:
            yield made
        finally:
            made.remove()
    assert world.traces() == []
    assert list(state.iterdir()) == [] if state.exists() else True


@pytest.fixture
def web(world: World) -> Guest:
    return world.guest("02:00:00:00:00:05")


@pytest.fixture
def db(world: World) -> Guest:
    return world.guest("02:00:00:00:00:06")
