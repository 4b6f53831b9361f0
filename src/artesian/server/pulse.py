"""How long the event loop keeps its callers waiting: what every request waits at least, whatever it asks for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

_EVERY_S = 0.05


@asynccontextmanager
async def pulse(observe: Callable[[float], object]) -> AsyncIterator[None]:
    """Inside the block, ``observe`` gets twenty times a second how many seconds later than due the loop came by."""
    task = asyncio.create_task(_beat(observe))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _beat(observe: Callable[[float], object]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + _EVERY_S
        await asyncio.sleep(_EVERY_S)
        observe(max(0.0, loop.time() - due_s))
