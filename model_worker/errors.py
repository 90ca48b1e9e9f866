"""Expected failures of reading, training and scoring; each message names what is wrong and what to do about it."""

from contract.errors import ContractError


class DatasetError(ContractError):
    """A dataset is not what its name and digest promise, or no preference data; the message names file, row, field."""


class TrainingError(ContractError):
    """A training run cannot start or go on."""


class TrainingStoppedError(ContractError):
    """A training run was stopped from outside; nothing was saved."""


class RewardModelError(ContractError):
    """A folder is not a reward model that can be loaded."""


class EncodingError(ContractError):
    """A conversation that a checkpoint's chat template refuses, or its tokenizer cannot spell."""


class ResponseTooLongError(EncodingError):
    """A response alone is longer than the model's context, and a response is never cut."""
