"""What `open`, `connect` and `serve_handlers` return: `async with` it, or `await` it and close the result yourself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar


class Closable(Protocol):
    async def close(self) -> None: ...


T = TypeVar("T", bound=Closable)


class Opening(Generic[T]):
    """Nothing happens before it is awaited or entered, and then it happens once."""

    def __init__(self, begin: Callable[[], Awaitable[T]]) -> None:
        self._begin = begin
        self._begun = False
        self._opened: T | None = None

    async def _open(self) -> T:
        if self._begun:
            raise RuntimeError("this was opened already; call the function again for another one")
        self._begun = True
        try:
            self._opened = await self._begin()
        except BaseException:
            self._begun = False  # nothing is open: it may be tried again
            raise
        return self._opened

    def __await__(self) -> Generator[Any, None, T]:
        return self._open().__await__()

    async def __aenter__(self) -> T:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._opened is not None  # entered
        await self._opened.close()
