"""The form that promotes a checkpoint."""

from app.accounts.forms import ProtectedForm


class PromoteForm(ProtectedForm):
    """Promoting a checkpoint: for the next batch, or for the open one too."""

    for_open_batch: bool = False
