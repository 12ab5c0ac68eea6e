"""`Kind(..., on_parked=function)`: a function of this process, a coroutine function or a plain one, which runs in a
thread."""

from __future__ import annotations

import asyncio
import inspect

from truba.kinds import OnParked
from truba.ports.parked import ParkedSession


class FunctionHook:
    """See the module. What it raises goes to the loop's exception handler too: an embedded pipe has no log."""

    def __init__(self, function: OnParked) -> None:
        self._function = function

    def __repr__(self) -> str:
        return f"function {getattr(self._function, '__qualname__', repr(self._function))}"

    async def __call__(self, parked: ParkedSession) -> None:
        function = self._function
        call = function if inspect.isroutine(function) else type(function).__call__
        try:
            if inspect.iscoroutinefunction(call):
                await function(parked)
            else:
                await asyncio.to_thread(function, parked)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"on_parked of kind {parked.name} failed for session {parked.id}", "exception": error}
            )
            raise
