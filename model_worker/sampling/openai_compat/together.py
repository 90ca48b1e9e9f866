"""Several requests at once, which end together: when one fails, the others are stopped."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


async def together(work: Sequence[Coroutine[Any, Any, ResultT]]) -> list[ResultT]:
    """The results in the order of ``work``; raises what the first that failed raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
