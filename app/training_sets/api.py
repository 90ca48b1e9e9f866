"""How the API tells training sets."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from app.datasets.api_examples import SET_DESCRIPTION
from contract.training_set import SetDescription


class SetEntry(BaseModel):
    """A training set in the list of the API."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {name: SET_DESCRIPTION[name] for name in ("name", "digest", "created_at")}
                | {"members": ["batch-001", "hh-harmless"], "train": 1792, "test": 0}
            ]
        },
    )

    name: str
    digest: str
    """The sha256 of the definition."""
    members: list[str]
    train: int
    """Rows to train on."""
    test: int
    """Held-out rows."""
    created_at: datetime

    @classmethod
    def of(cls, described: SetDescription) -> "SetEntry":
        """The entry of a training set."""
        return cls(
            name=described.name,
            digest=described.digest,
            members=[member.name for member in described.definition.members],
            train=sum(count.train for count in described.counts),
            test=sum(count.test for count in described.counts),
            created_at=described.created_at,
        )
