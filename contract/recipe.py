"""The typed recipe of a reward-model training run; the defaults are the paper's (Llama 2, section 3.2.2)."""

from pydantic import Field

from contract.base import Contract
from contract.vocabulary import MarginScheme, Objective


class Recipe(Contract):
    """Every choice of a training run. A run stores its recipe, and so does the reward model it makes."""

    objective: Objective
    """One reward model each for helpfulness and safety, since the two sometimes trade off (section 3.2.2)."""
    margin_scheme: MarginScheme = MarginScheme.SMALL
    """The m(r) of equation 2. The final model's scheme is not stated; small has the best average (Table 28)."""
    safety_loss_weight: float = Field(default=0.0, ge=0)
    """Weight of the auxiliary safety loss. Its formula is not published: ours is a reconstruction (appendix A.3.4)."""
    epochs: int = Field(default=1, ge=1)
    """One: "training longer can lead to over-fitting"."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """1e-5; 5e-6 for the 70B model."""
    min_learning_rate_ratio: float = Field(default=0.1, ge=0, le=1)
    """The cosine schedule ends at this share of the learning rate."""
    warmup_share: float = Field(default=0.03, ge=0, le=1)
    warmup_min_steps: int = Field(default=5, ge=0)
    """Warm-up takes 3 % of the steps, at least 5."""
    pairs_per_step: int = Field(default=512, ge=1)
    """Comparisons per optimiser step: 512, that is 1,024 rows, reached by accumulation."""
    pairs_per_minibatch: int = Field(default=8, ge=1)
    """How many of them are computed at once; changes memory and speed, not the result."""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-5
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    max_length: int = Field(default=4096, ge=8)
    """Tokens. A longer context is cut on the left, a response never is."""
    seed: int = 0
