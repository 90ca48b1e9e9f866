"""What can go wrong with an inference server, told apart by what the caller can do about it."""

from contract.checkpoint_files import CheckpointError
from contract.errors import ContractError


class ServerError(ContractError):
    """The server did not do what it was asked; another try may help."""


class ServerBusyError(ServerError):
    """The server has no room or is paused (429, 503); ``retry_after_s`` is what it said, if it said anything."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerRefusedError(ServerError):
    """The server refuses the request (another 4xx): the same request will be refused again."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServerAnswerError(ServerError):
    """The answer makes no sense, or is not an answer to what was asked."""


class WeightsChangedError(ServerAnswerError):
    """The server changed its weights under the response: it has more than one version, or not the one expected."""


class UnfaithfulServerError(CheckpointError):
    """The server ignores a part of what it is asked, so that its responses would not be what their record says."""
