"""How the API tells external datasets."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from app.datasets.api_examples import EXTERNAL_ENTRY
from app.models import ExternalDataset
from contract.external import FileFormat
from contract.vocabulary import Objective


class ExternalEntry(BaseModel):
    """An external dataset in the list of the API."""

    model_config = ConfigDict(use_attribute_docstrings=True, json_schema_extra={"examples": [EXTERNAL_ENTRY]})

    name: str
    rows: int
    objective: Objective | None
    """What its authors judged; null where that is unknown or mixed."""
    licence: str
    source_format: FileFormat
    source_sha256: str
    """Of the imported file, byte for byte."""
    created_at: datetime
    manifest_sha256: str
    """The digest that names exactly this dataset."""

    @classmethod
    def of(cls, dataset: ExternalDataset) -> "ExternalEntry":
        """The entry of an external dataset."""
        return cls(
            name=dataset.name,
            rows=dataset.rows,
            objective=dataset.objective,
            licence=dataset.licence,
            source_format=dataset.source_format,
            source_sha256=dataset.source_sha256,
            created_at=dataset.created_at,
            manifest_sha256=dataset.manifest_sha256,
        )
