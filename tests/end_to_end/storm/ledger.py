"""Everything that went over the network in a storm, as the proxy saw it, and what can be read from it."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

_DELIVERIES = ("finish", "fail")
# No answer, and the page of a load balancer, are the storm's doing.
_EXPECTED = (0, HTTPStatus.OK, HTTPStatus.NO_CONTENT, HTTPStatus.BAD_GATEWAY)


@dataclass
class Exchange:
    """One request of a worker, and what became of it."""

    line: str
    verb: str
    """The last part of the path: ``claim``, ``events``, ``finish`` and so on."""
    request: bytes
    status: int = 0
    """0 where no answer came: the app was killed, or the connection cut."""
    answer: bytes = b""
    is_delivered: bool = False
    """Whether the worker got the whole answer."""

    def asked(self) -> Any:
        """The request's message."""
        return json.loads(self.request)

    def told(self) -> Any:
        """The answer's message."""
        return json.loads(self.answer)


@dataclass
class Ledger:
    """All exchanges, in the order in which the requests reached the proxy."""

    exchanges: list[Exchange] = field(default_factory=list)

    def of(self, verb: str, status: int = HTTPStatus.OK) -> Iterator[Exchange]:
        """The exchanges of one kind that were answered so."""
        return (one for one in self.exchanges if one.verb == verb and one.status == status)

    def hand_outs(self) -> Counter[tuple[str, int]]:
        """How often each job was seen being handed out as each attempt."""
        return Counter(
            (job["job_id"], job["attempt"]) for claimed in self.of("claim") for job in claimed.told()["jobs"]
        )

    def asked_checkpoints(self) -> dict[tuple[str, int], dict[str, str]]:
        """The checkpoint's digest that each hand-out asked of each response."""
        return {
            (job["job_id"], job["attempt"]): {spec["response_id"]: spec["checkpoint_digest"] for spec in job["specs"]}
            for claimed in self.of("claim")
            for job in claimed.told()["jobs"]
        }

    def accepted(self) -> list[Exchange]:
        """The deliveries that the app took."""
        return list(self.of("finish", HTTPStatus.NO_CONTENT))

    def late_answers(self) -> int:
        """How many deliveries were refused, since the job was no longer the worker's."""
        return sum(is_refused_as_late(one) for one in self.exchanges)

    def drops(self) -> int:
        """How often a worker was told to drop a job."""
        return sum(len(one.told()["drop"]) for one in self.of("events"))

    def statuses(self) -> dict[str, int]:
        """How many answers of each kind and status there were; ``lost`` where none came."""
        counts = Counter(f"{one.verb} {one.status or 'lost'}" for one in self.exchanges)
        return dict(sorted(counts.items()))

    def unexpected(self) -> list[Exchange]:
        """Answers that no storm excuses: errors of the app itself, and refusals of what a worker should never ask."""
        return [one for one in self.exchanges if one.status not in _EXPECTED and not is_refused_as_late(one)]


def is_refused_as_late(one: Exchange) -> bool:
    """Whether a delivery was refused, since the job was no longer the worker's."""
    is_refused = one.verb in _DELIVERIES and one.status == HTTPStatus.CONFLICT
    return is_refused and one.told()["error"]["code"] == "lease_lost"
