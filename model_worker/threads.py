"""How many processor threads a model runs on: a small one is fastest on a single thread."""

from collections.abc import Iterable

import torch

# Below this a layer takes microseconds, and threads spend longer waiting for each other than computing:
# the demo checkpoint's decode step took 7 ms on one thread and 142 ms on two of a busy two-core machine.
_ONE_THREAD_PARAMETERS = 50_000_000


def use_fitting_threads(models: Iterable[torch.nn.Module]) -> None:
    """Run the whole process on one thread where all its models are small and on a processor."""
    if all(_is_small(model) for model in models):
        torch.set_num_threads(1)


def _is_small(model: torch.nn.Module) -> bool:
    weights = list(model.parameters())
    on_processor = all(weight.device.type == "cpu" for weight in weights)
    return on_processor and sum(weight.numel() for weight in weights) < _ONE_THREAD_PARAMETERS
