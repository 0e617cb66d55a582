"""Which backends the suite runs on. To add one: write an `open_bench`, and enter it in `BENCHES` where it can run."""

from collections.abc import AsyncIterator

import pytest
from conformance_bench import Bench, OpenBench, open_simulator
from kvm_bench import can_run, kvm_land, open_kvm

__all__ = ["kvm_land"]

BENCHES: dict[str, tuple[OpenBench, tuple[pytest.MarkDecorator, ...]]] = {"simulator": (open_simulator, ())}
if can_run():
    BENCHES["kvm"] = (open_kvm, (pytest.mark.kvm,))
"""Name to opener and marks. A backend that cannot run on this machine is not entered."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that takes a bench on every backend."""
    if "bench" in metafunc.fixturenames:
        cases = [pytest.param(name, marks=marks, id=name) for name, (_, marks) in BENCHES.items()]
        metafunc.parametrize("bench", cases, indirect=True)


@pytest.fixture
async def bench(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Bench]:
    """A backend on a clean host."""
    opener, _ = BENCHES[request.param]
    async with opener(request) as opened:
        yield opened
