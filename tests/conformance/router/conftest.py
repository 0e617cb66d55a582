"""Routers for the conformance tests, in namespaces; whatever a test leaves behind fails it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from router_world import Guest, RunningRouter, World

from pileus.sandbox.watchdog import Watchdog


@pytest.fixture
def world(tmp_path: Path, watchdog: Watchdog) -> Iterator[World]:
    made = World(tmp_path)
    for pattern in made.names:
        watchdog.network(pattern)
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
