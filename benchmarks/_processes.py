"""What processes cost, as Linux counts it: their CPU time and their memory."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cost:
    """CPU seconds and resident bytes."""

    cpu_s: float
    rss: int


def tree(root: int) -> list[int]:
    """A process and all that it started, and they in turn."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        stat = _stat(int(folder.name))
        if stat:
            parents[int(folder.name)] = int(stat[1])
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def named(name: str) -> list[int]:
    """All processes of a program."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text(encoding="utf-8").strip() == name:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def cost(processes: list[int]) -> Cost:
    """The sum over some processes; one that has ended counts nothing."""
    stats = [stat for stat in map(_stat, processes) if stat]
    # A server that ends its children waits for them, and so has their time in its own.
    return Cost(
        cpu_s=sum(sum(int(ticks) for ticks in stat[11:15]) for stat in stats) / _TICKS,
        rss=sum(int(stat[21]) for stat in stats) * _PAGE,
    )


def _stat(process: int) -> list[str]:
    """The fields of ``/proc/<id>/stat`` after the name, the first of which is the state."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except OSError:
        return []
