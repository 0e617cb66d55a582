"""An asyncio object that lives inside a host and is called from outside: how tests reach what must run on the host.

The object is made by a factory named `module:function`. Arguments and results travel by pickle through the pipes of a
process we started ourselves, never over a network. Functions among the arguments are called back outside.
"""

import asyncio
import importlib
import os
import pickle
import struct
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from pileus.sandbox.host import SandboxHost

_LENGTH = struct.Struct(">I")


class RemoteObject:
    """`await remote.name(…)` calls the method `name` of the object inside; calls may overlap.

    Use as an asynchronous context manager. Exceptions come back as they were raised; ConnectionError when the process
    or the host has ended.
    """

    def __init__(self, host: SandboxHost, factory: str, *arguments: Any) -> None:
        self._host = host
        self._factory = factory
        self._arguments = arguments
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._functions: dict[int, Callable[..., Any]] = {}
        self._numbers = iter(range(1, sys.maxsize))

    async def __aenter__(self) -> Self:
        argv = self._host.argv([sys.executable, "-I", "-m", "pileus.sandbox.remote"])
        self._process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise ConnectionError("the process has no pipes")
        self._to, self._from = self._process.stdin, self._process.stdout
        self._listener = asyncio.create_task(self._listen())
        try:
            await self._ask("new", (self._factory, self._arguments))
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._to.close()
        await self._process.wait()
        await self._listener

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)

        async def call(*arguments: Any) -> Any:
            return await self._ask(name, tuple(self._outward(argument) for argument in arguments))

        return call

    def _outward(self, argument: Any) -> Any:
        if not callable(argument) or isinstance(argument, type):
            return argument
        number = next(self._numbers)
        self._functions[number] = argument
        return _Function(number)

    async def _ask(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if self._listener.done():
            raise ConnectionError(f"the process in {self._host.name} has ended")
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._to.write(_framed((number, method, arguments)))
        await self._to.drain()
        return await self._waiting[number]

    async def _listen(self) -> None:
        while (message := await _read(self._from)) is not None:
            kind, number, content = message
            if kind == "function":
                self._functions[number](*content)
                continue
            future = self._waiting.pop(number)
            if future.done():
                continue
            if kind == "result":
                future.set_result(content)
            else:
                future.set_exception(_rebuilt(*content))
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError(f"the process in {self._host.name} has ended"))


class _Function:
    """Stands inside for a function outside; its calls return nothing."""

    say: Callable[[Any], None]

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, *arguments: Any) -> None:
        _Function.say(("function", self.number, arguments))


def _rebuilt(kind: type[BaseException], arguments: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """An exception as it was, whatever its constructor wants."""
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(state)
    return error


def _framed(message: Any) -> bytes:
    content = pickle.dumps(message)
    return _LENGTH.pack(len(content)) + content


async def _read(stream: asyncio.StreamReader) -> Any:
    try:
        (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
        return pickle.loads(await stream.readexactly(length))  # noqa: S301 from the process at our own pipe
    except asyncio.IncompleteReadError:
        return None


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    # What the object prints must not end up among the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, answers)

    def say(message: Any) -> None:
        transport.write(_framed(message))

    _Function.say = say
    served: list[Any] = []
    calls: set[asyncio.Task[None]] = set()

    async def answer(number: int, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            if method == "new":
                module, _, name = arguments[0].partition(":")
                served.append(getattr(importlib.import_module(module), name)(*arguments[1]))
                result = None
            else:
                result = await getattr(served[0], method)(*arguments)
            say(("result", number, result))
        except Exception as error:
            say(("error", number, (type(error), error.args, error.__dict__)))

    while (message := await _read(reader)) is not None:
        task = asyncio.create_task(answer(*message))
        calls.add(task)
        task.add_done_callback(calls.discard)
    for task in calls:
        task.cancel()


if __name__ == "__main__":
    # Pickle finds `_Function` by its module's name, which must not be `__main__` here.
    importlib.import_module("pileus.sandbox.remote")
    asyncio.run(sys.modules["pileus.sandbox.remote"]._serve())
