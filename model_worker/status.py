"""How the worker stands at this moment: for the admin's page, the terminal and the app's decisions."""

from contract.sampling import WorkerStatus
from model_worker.library import Library
from model_worker.metrics import Metrics
from model_worker.promotion import Promotion
from model_worker.sampling.interface import Sampler
from model_worker.throughput import TokenRate


class StatusBoard:
    """Gathers the status from those who know."""

    def __init__(
        self, sampler: Sampler, library: Library, promotion: Promotion, metrics: Metrics, rate: TokenRate
    ) -> None:
        self._sampler = sampler
        self._library = library
        self._promotion = promotion
        self._metrics = metrics
        self._rate = rate

    def now(self) -> WorkerStatus:
        """The status at present."""
        facts = self._sampler.facts()
        available = self._library.available().values()
        return WorkerStatus(
            serving=tuple(files.digest for files in facts.checkpoints),
            staging=self._promotion.staging(),
            available=tuple(found.files for found in available),
            refused=(*self._promotion.refused(), *self._library.refused()),
            max_pairs=facts.max_pairs,
            free_pairs=self._sampler.capacity(),
            tokens_per_s=self._rate.per_s(),
            last_error=self._metrics.last_error,
        )


def is_news(status: WorkerStatus, before: WorkerStatus | None) -> bool:
    """Whether something has changed that the app should know at once, unlike the figures that change all the time."""
    return before is None or _lasting(status) != _lasting(before)


def _lasting(status: WorkerStatus) -> WorkerStatus:
    return status.model_copy(update={"free_pairs": 0, "tokens_per_s": 0.0})
