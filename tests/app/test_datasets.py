"""Freezing a batch: what is in the dataset, what is left out, and that it can be made again."""

from app.database import Database
from app.datasets import service as datasets
from app.models import now
from app.settings import Settings
from tests import factories as make


def test_smoke(database: Database, settings: Settings, tmp_path) -> None:
    with database.write() as session:
        batch = make.make_open_batch(session)
        ann = make.make_person(session)
        for i in range(5):
            conv = make.make_conversation(session, batch, ann)
            for turn in (1, 2):
                c = make.make_comparison(session, conv, f"prompt {i}" if turn == 1 else "why?", turn)
                make.make_ready(session, c, (f"yes {i}", "no"))
                make.make_annotation(session, c, ann)
        batch.frozen_at = now()
        d = datasets.freeze(session, batch, settings)
        print(d.manifest)
    with database.read() as session:
        print((datasets.folder_of(d, settings) / "README.md").read_text())
        datasets.recreate(session, d, tmp_path / "again", settings)
        assert datasets.export(session, d, tmp_path / "exp", settings) == []
