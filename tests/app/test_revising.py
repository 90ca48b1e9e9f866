"""Work that is left out afterwards, or taken again: new versions, made by the reconciler alone."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from app.batches.reconciler import reconcile
from app.database import Database
from app.datasets import service as datasets
from app.models import Freeze, PersonRole, now
from app.settings import Settings
from tests import factories as make
from tests.conftest import Browser


def test_leaving_work_out_makes_new_versions_of_what_it_is_in(
    database: Database, settings: Settings, sign_in: Callable[..., Browser], tmp_path: Path
) -> None:
    with database.write() as session:
        ann, bo = make.make_person(session), make.make_person(session, "Bo")
        first = make.make_week(session, ann)
        make.make_judged(session, first, bo, "By Bo")
        second = make.make_week(session, ann)
    for batch in (first, second):
        make.freeze(database, batch, settings)
    at = now() + timedelta(minutes=1)
    assert reconcile(database, settings, at) == 0
    admin = sign_in(PersonRole.ADMIN)
    assert admin.post(f"/admin/people/{bo.id}/excluded", {"is_excluded": "true"}).status_code == 303
    assert "work left out" in admin.get("/admin/people").text
    assert "person.work_excluded" in admin.get("/admin/audit").text
    # One is asked for, and written.
    assert reconcile(database, settings, at) == 2
    assert reconcile(database, settings, at) == 0
    assert names(database) == {"batch-001": 25, "batch-001-v2": 24, "batch-002": 24}
    with database.read() as session:
        revised = datasets.get(session, "batch-001-v2")
        datasets.recreate(session, revised, tmp_path / "again", settings)
    page = sign_in(PersonRole.TRAINER).get("/datasets/batch-001-v2").text
    assert "Corrects" in page
    assert "1 rows were removed" in page
    assert "wrote a new version of its dataset" in admin.get("/admin/batches/1").text
    admin.post(f"/admin/people/{bo.id}/excluded", {"is_excluded": "false"})
    assert reconcile(database, settings, at) == 2
    assert names(database)["batch-001-v3"] == 25
    with database.read() as session:
        changes = datasets.manifest_of(datasets.get(session, "batch-001-v3")).changes
    assert changes is not None
    assert (changes.rows_removed, changes.rows_added, len(changes.included_annotators)) == (0, 1, 1)


def names(database: Database) -> dict[str, int]:
    with database.read() as session:
        return {dataset.name: dataset.rows for dataset, _ in datasets.all_datasets(session)}


def test_the_batch_says_how_far_its_dataset_is_and_why_it_failed(
    database: Database, settings: Settings, sign_in: Callable[..., Browser]
) -> None:
    with database.write() as session:
        batch = make.make_week(session, make.make_person(session))
    settings.datasets_root.write_text("a file is in the way")
    with pytest.raises(NotADirectoryError):
        make.freeze(database, batch, settings)
    admin = sign_in(PersonRole.ADMIN)
    page = admin.get("/admin/batches/1").text
    assert "could not be written: NotADirectoryError" in page
    assert "The next attempt is at" in page
    with database.write() as session:
        waiting = session.get_one(Freeze, batch.id)
        waiting.holder, waiting.rows_written, waiting.rows_expected = "somebody", 1200, 2400
    assert "1,200 of 2,400 rows" in admin.get("/admin/batches/1").text
