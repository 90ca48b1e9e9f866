"""Freezing a batch: what is in the dataset, what is left out and why, and that it can be made again."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from app.database import Database, connect
from app.datasets import freezing, queries, store
from app.datasets import service as datasets
from app.datasets.folder import FolderMaker, Identity
from app.datasets.parquet import ROW_GROUP_ROWS, SCHEMA, FolderWriter
from app.datasets.rows import pseudonym
from app.datasets.service import NotReproducibleError
from app.datasets.split import prompt_key
from app.datasets.store import TargetTakenError
from app.datasets.survey import survey as survey_batch
from app.datasets.verify import verify_folder
from app.models import (
    Annotation,
    Base,
    Batch,
    BatchState,
    Comparison,
    ComparisonState,
    Conversation,
    Freeze,
    Person,
    PersonRole,
    PreferenceDataset,
    PromptSource,
    Review,
    Skip,
    SkipReason,
    SplitPrompt,
    Verdict,
)
from app.settings import Settings
from contract.dataset import Manifest, PreferenceRow
from contract.vocabulary import (
    AttackVector,
    LeftOut,
    MarginScheme,
    Objective,
    RiskCategory,
    Side,
    Split,
    Strength,
)
from model_worker.reward.data import load_preference_dataset
from tests import factories as make

FROZEN_AT = datetime(2026, 11, 23, 9, 30, 1, 234567, tzinfo=UTC)


def freeze(database: Database, batch: Batch, settings: Settings) -> PreferenceDataset:
    """What the reconciler does with a batch that is due, at a moment that tests know."""
    return make.freeze(database, batch, settings, at=FROZEN_AT)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All rows of a dataset folder, each with its split."""
    return [
        row | {"split": path.name.split("-")[0]}
        for path in sorted(folder.rglob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def bytes_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def review(session: Session, annotation: Any, verdict: Verdict) -> None:
    reviewer = make.make_person(session, "Rae", PersonRole.REVIEWER)
    session.add(
        Review(
            annotation_id=annotation.id,
            revision=annotation.revision,
            reviewer_id=reviewer.id,
            verdict=verdict,
            feedback="Look again.",
        )
    )
    session.flush()


def add_feedback(session: Session, batch: Batch) -> None:
    """What batches may ask for beside the choice: tags, quality, edits; and prompts that come from the pool."""
    judged = session.execute(
        select(Annotation, Comparison, Conversation)
        .join(Comparison, Comparison.id == Annotation.comparison_id)
        .join(Conversation, Conversation.id == Comparison.conversation_id)
        .where(Comparison.batch_id == batch.id)
        .order_by(Annotation.id)
    )
    for number, (annotation, comparison, conversation) in enumerate(judged):
        if comparison.objective is Objective.SAFETY:
            comparison.risk_category = list(RiskCategory)[number % 3]
            comparison.attack_vector = list(AttackVector)[number % 7]
        if number % 2:
            annotation.chosen_quality, annotation.rejected_quality = 1 + number % 7, 7 - number % 7
        if number % 3:
            annotation.edited_text = f"Better: {comparison.prompt}"
        if number % 4 == 0:
            conversation.source = PromptSource.POOL
    session.flush()


def test_the_manifest_counts_what_the_files_hold(database: Database, settings: Settings) -> None:
    with database.write() as session:
        batch = make.make_week(session, make.make_person(session), conversations=9)
    dataset = freeze(database, batch, settings)
    folder = datasets.folder_of(dataset, settings)
    assert verify_folder(folder, manifest_sha256=dataset.manifest_sha256) == []
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    assert manifest == datasets.manifest_of(dataset)
    assert (manifest.name, manifest.frozen_at, manifest.batches) == ("batch-001", FROZEN_AT, (1,))
    rows = rows_of(folder)
    assert len(rows) == manifest.rows == dataset.rows
    assert manifest.rows + sum(manifest.left_out.values()) == manifest.comparisons == 26
    # Every third safety pair had the chosen response unsafe ... and the other one safe: none here, so all are rows.
    assert manifest.rows == 26
    for count in manifest.counts:
        found = [row for row in rows if (row["objective"], row["split"]) == (count.objective, count.split)]
        assert len(found) == count.rows
        assert len({row["conversation_id"] for row in found}) == count.conversations
        assert Counter(row["strength"] for row in found) == Counter(count.by_strength)
        assert Counter(row["safety_bin"] for row in found if row["safety_bin"]) == Counter(count.by_safety_bin)
    assert {(count.objective, count.split) for count in manifest.counts} == {
        (objective, split) for objective in Objective for split in Split
    }
    assert [entry.responses for entry in manifest.checkpoints] == [52]
    assert {(entry.objective, entry.version): entry.annotations for entry in manifest.guidelines} == {
        (Objective.HELPFULNESS, 1): 13,
        (Objective.SAFETY, 1): 13,
    }


def test_a_row_says_everything_that_is_known_of_a_comparison(database: Database, settings: Settings) -> None:
    with database.write() as session:
        ann, bo = make.make_person(session), make.make_person(session, "Bo")
        batch = make.make_open_batch(session, system_prompt="Be kind.", held_out_share=0.0)
        annotations = make.make_judged(
            session,
            batch,
            ann,
            "Hello",
            "And now?",
            objective=Objective.SAFETY,
            strength=Strength.SLIGHTLY_BETTER,
            side=Side.B,
        )
        comparison = session.get_one(Comparison, annotations[1].comparison_id)
        for name, side in (("Bo", Side.B), ("Cy", Side.A)):
            make.make_annotation(
                session,
                comparison,
                make.make_person(session, name),
                side=side,
                chosen_safe=True,
                rejected_safe=True,
                is_primary=False,
            )
        make.make_judged(session, batch, bo, "Hello again")
        chosen = annotations[1].chosen_response_id
    dataset = freeze(database, batch, settings)
    rows = rows_of(datasets.folder_of(dataset, settings))
    row = next(row for row in rows if row["turn"] == 2)
    del row["split"]
    assert PreferenceRow.model_validate(row).prompt[-1].content == "And now?"
    assert row["prompt"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "B says Hello"},
        {"role": "user", "content": "And now?"},
    ]
    assert row["chosen"] == [{"role": "assistant", "content": "B says And now?"}]
    assert row["rejected"] == [{"role": "assistant", "content": "A says And now?"}]
    assert (row["margin"], row["strength"], row["chosen_side"]) == (1 / 3, "slightly_better", "b")
    assert (row["safety_bin"], row["chosen_safe"], row["rejected_safe"]) == ("chosen_safe_rejected_unsafe", True, False)
    assert row["chosen_provenance"]["response_id"] == str(chosen)
    assert (row["chosen_provenance"]["checkpoint"], row["chosen_provenance"]["tokens"]) == ("chat-1", 3)
    assert (row["n_labels"], row["agreement"], row["guideline_version"], row["seconds"]) == (3, 0.5, 1, 12.5)
    first = next(row for row in rows if row["turn"] == 1 and row["objective"] == "safety")
    assert (first["n_labels"], first["agreement"]) == (1, None)
    helpful = next(row for row in rows if row["objective"] == "helpfulness")
    assert (helpful["safety_bin"], helpful["chosen_safe"]) == (None, None)
    assert first["annotator"] == row["annotator"] != helpful["annotator"]
    assert str(ann.id) not in str(rows)
    assert "Ann" not in str(rows)


def test_a_row_says_what_else_the_batch_asked_for(database: Database, settings: Settings) -> None:
    with database.write() as session:
        batch = make.make_open_batch(session, held_out_share=0.0)
        ann = make.make_person(session)
        (full,) = make.make_judged(session, batch, ann, "Risky?", objective=Objective.SAFETY)
        make.make_judged(session, batch, ann, "Harmless?")
        full.chosen_quality, full.rejected_quality, full.edited_text = 6, 2, "Much better."
        comparison = session.get_one(Comparison, full.comparison_id)
        comparison.risk_category, comparison.attack_vector = RiskCategory.UNQUALIFIED_ADVICE, AttackVector.NON_ENGLISH
        session.get_one(Conversation, comparison.conversation_id).source = PromptSource.POOL
    dataset = freeze(database, batch, settings)
    names = ("risk_category", "attack_vector", "prompt_source", "chosen_quality", "rejected_quality", "edited")
    found = {
        row["objective"]: tuple(row[name] for name in names) for row in rows_of(datasets.folder_of(dataset, settings))
    }
    improved = [{"role": "assistant", "content": "Much better."}]
    assert found == {
        "safety": ("unqualified_advice", "non_english", "pool", 6, 2, improved),
        "helpfulness": (None, None, "written", None, None, None),
    }


def test_a_judgement_in_the_grace_time_is_kept_and_marked(database: Database, settings: Settings) -> None:
    with database.write() as session:
        batch = make.make_open_batch(session, held_out_share=0.0)
        ann = make.make_person(session)
        (early,) = make.make_judged(session, batch, ann, "Early?")
        (late,) = make.make_judged(session, batch, ann, "Late?")
        batch.closing_at = early.created_at
        late.created_at = early.created_at + timedelta(microseconds=1)
    rows = rows_of(datasets.folder_of(freeze(database, batch, settings), settings))
    assert {row["prompt"][0]["content"]: row["late"] for row in rows} == {"Early?": False, "Late?": True}


def test_what_one_annotator_skips_and_another_judges_is_a_row(database: Database, settings: Settings) -> None:
    with database.write() as session:
        batch = make.make_open_batch(session)
        ann, bo = make.make_person(session), make.make_person(session, "Bo")
        comparison = make.make_pool_comparison(session, batch)
        session.add(Skip(comparison_id=comparison.id, annotator_id=bo.id, reason=SkipReason.CANNOT_JUDGE))
        make.make_annotation(session, comparison, ann)
    dataset = freeze(database, batch, settings)
    manifest = datasets.manifest_of(dataset)
    assert (manifest.rows, manifest.left_out) == (1, {})


@pytest.mark.parametrize(
    ("version", "first_missing", "last"),
    [(1, "risk_category", "agreement"), (2, "chosen_generation", "edited"), (3, "late", "rejected_generation")],
    ids=["first", "second", "third"],
)
def test_a_dataset_of_an_older_version_is_checked_and_made_again_as_it_was(
    database: Database, settings: Settings, tmp_path: Path, version: int, first_missing: str, last: str
) -> None:
    with database.write() as session:
        batch = make.make_week(session, make.make_person(session), conversations=4)
        add_feedback(session, batch)
    frozen = freeze(database, batch, settings)
    with database.write() as session:
        dataset = datasets.get(session, frozen.name)
        # As an app of that time would have written it.
        stored = datasets.folder_of(dataset, settings)
        shutil.rmtree(stored)
        survey = survey_batch(session, batch, datasets.rules_of(batch, []))
        identity = Identity(dataset.name, 1, None, FROZEN_AT, licence=None, format_version=version)
        secret = settings.pseudonym_secret.get_secret_value()
        stored.mkdir()
        manifest, content = FolderMaker(session, batch, identity, datasets.rules_of(batch, []), secret).write(
            stored, survey, queries.splits(session, batch.id)
        )
        dataset.manifest = manifest.model_dump(mode="json")
        dataset.manifest_sha256 = hashlib.sha256(content).hexdigest()
    assert manifest.format_version == version
    columns = list(PreferenceRow.model_fields)
    assert set(rows_of(stored)[0]) - {"split"} == set(columns[: columns.index(first_missing)])
    card = (stored / "README.md").read_text(encoding="utf-8")
    assert f"| `{last}` |" in card
    assert f"| `{first_missing}` |" not in card
    assert b"changes" not in (stored / "manifest.json").read_bytes()
    assert verify_folder(stored, manifest_sha256=dataset.manifest_sha256) == []
    with database.read() as session:
        found = datasets.get(session, dataset.name)
        datasets.recreate(session, found, tmp_path / "again", settings)
        shown = datasets.first_rows(found, Objective.SAFETY, settings, limit=1)
    assert bytes_of(tmp_path / "again") == bytes_of(stored)
    assert shown[0]["chosen_generation"] == ("newest" if version == 3 else None)
    trained_on = load_preference_dataset(stored, Objective.HELPFULNESS)
    assert len(trained_on.train) + len(trained_on.test) == 6


def test_swapping_the_sides_changes_nothing_but_the_side(database: Database, settings: Settings) -> None:
    with database.write() as session:
        ann = make.make_person(session)
        batch = make.make_open_batch(session, held_out_share=0.0)
        for side in Side:
            conversation = make.make_conversation(session, batch, ann)
            comparison = make.make_comparison(session, conversation, f"Side {side}?")
            make.make_ready(session, comparison, ("good", "bad") if side is Side.A else ("bad", "good"))
            make.make_annotation(session, comparison, ann, side=side)
    dataset = freeze(database, batch, settings)
    rows = rows_of(datasets.folder_of(dataset, settings))
    assert {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows} == {("good", "bad")}
    assert {row["chosen_side"] for row in rows} == {"a", "b"}


def test_the_columns_are_those_of_the_contract() -> None:
    assert SCHEMA.names == list(PreferenceRow.model_fields)


@pytest.mark.parametrize("scheme", MarginScheme)
def test_margins_follow_the_scheme_of_the_batch(sqlite_settings: Settings, scheme: MarginScheme) -> None:
    database = connect(sqlite_settings.database_url)
    with database.write() as session:
        batch = make.make_week(session, make.make_person(session), conversations=4)
        batch.margin_scheme = scheme
    dataset = freeze(database, batch, sqlite_settings)
    database.dispose()
    found = {row["strength"]: row["margin"] for row in rows_of(datasets.folder_of(dataset, sqlite_settings))}
    largest = {MarginScheme.NONE: 0.0, MarginScheme.SMALL: 1.0, MarginScheme.LARGE: 3.0}[scheme]
    assert found["significantly_better"] == largest
    assert found["negligibly_better_or_unsure"] == 0


def test_every_comparison_that_is_no_row_has_one_reason(database: Database, settings: Settings) -> None:
    with database.write() as session:
        ann, excluded = make.make_person(session), make.make_person(session, "Ex")
        excluded.is_excluded = True
        batch = make.make_open_batch(session, review_share=1.0, held_out_share=0.5)
        for state in ComparisonState:
            conversation = make.make_conversation(session, batch, ann)
            make.make_comparison(session, conversation, f"state {state}").state = state
        good = make.make_judged(session, batch, ann, "good one", "good follow-up")
        bad = make.make_judged(session, batch, ann, "rejected in review")
        unsafe = make.make_judged(session, batch, ann, "unsafe", objective=Objective.SAFETY, safe=(False, True))
        make.make_judged(session, batch, ann, "nobody looked at this one")
        make.make_judged(session, batch, excluded, "by somebody whose work is excluded")
        # Two prompts that earlier batches put on different sides meet in one conversation.
        long = "a later prompt that is long enough to stand for itself, without the turns before it"
        torn = make.make_judged(session, batch, ann, "known from before", long)
        for prompt, split in (("known from before", Split.TRAIN), (long, Split.TEST)):
            session.add(SplitPrompt(prompt_hash=prompt_key(prompt), split=split, batch_id=batch.id))
        for annotation in (*good, *unsafe, *torn):
            review(session, annotation, Verdict.APPROVED)
        review(session, bad[0], Verdict.REJECTED)
    dataset = freeze(database, batch, settings)
    manifest = datasets.manifest_of(dataset)
    assert manifest.left_out == {
        LeftOut.SAMPLING_FAILED: 1,
        # Sampling, ready, abandoned, and one that says annotated but has no annotation.
        LeftOut.NOT_ANNOTATED: 4,
        LeftOut.SKIPPED: 1,
        LeftOut.UNREVIEWED: 1,
        LeftOut.REJECTED_IN_REVIEW: 1,
        LeftOut.CHOSEN_UNSAFE_REJECTED_SAFE: 1,
        LeftOut.EQUAL_RESPONSES: 1,
        LeftOut.ANNOTATOR_EXCLUDED: 1,
        LeftOut.PROMPT_ON_BOTH_SIDES: 2,
    }
    assert list(manifest.left_out) == list(LeftOut)
    assert manifest.rows == 2
    assert manifest.comparisons == 2 + sum(manifest.left_out.values())
    assert verify_folder(datasets.folder_of(dataset, settings)) == []


def test_unreviewed_work_is_taken_unless_every_review_was_asked_for(database: Database, settings: Settings) -> None:
    with database.write() as session:
        ann = make.make_person(session)
        batch = make.make_open_batch(session, review_share=0.5)
        make.make_judged(session, batch, ann, "nobody looked at this one")
        (bad,) = make.make_judged(session, batch, ann, "rejected")
        review(session, bad, Verdict.REJECTED)
    dataset = freeze(database, batch, settings)
    assert (dataset.rows, datasets.manifest_of(dataset).left_out) == (1, {LeftOut.REJECTED_IN_REVIEW: 1})


def test_a_verdict_on_an_older_revision_does_not_count(database: Database, settings: Settings) -> None:
    with database.write() as session:
        batch = make.make_open_batch(session)
        (annotation,) = make.make_judged(session, batch, make.make_person(session), "changed after the review")
        review(session, annotation, Verdict.REJECTED)
        annotation.revision = 2
    dataset = freeze(database, batch, settings)
    assert dataset.rows == 1


def test_sides_are_noted_and_hold_for_later_batches(database: Database, settings: Settings) -> None:
    with database.write() as session:
        ann = make.make_person(session)
        first = make.make_week(session, ann)
    frozen = freeze(database, first, settings)
    with database.write() as session:
        sides = {row["conversation_id"]: row["split"] for row in rows_of(datasets.folder_of(frozen, settings))}
        assert {str(row.id): row.split for row in session.scalars(select(Conversation))} == sides
        second = make.make_week(session, ann)
    again = freeze(database, second, settings)
    where = {
        (batch, row["prompt"][0]["content"]): row["split"]
        for batch, dataset in ((1, frozen), (2, again))
        for row in rows_of(datasets.folder_of(dataset, settings))
    }
    assert {prompt: split for (batch, prompt), split in where.items() if batch == 1} == {
        prompt: split for (batch, prompt), split in where.items() if batch == 2
    }
    assert set(where.values()) == {"train", "test"}


def test_freezing_again_makes_a_new_version_and_moves_nothing(database: Database, settings: Settings) -> None:
    with database.write() as session:
        ann, bo = make.make_person(session), make.make_person(session, "Bo")
        batch = make.make_week(session, ann)
        make.make_judged(session, batch, bo, "By Bo")
    first = freeze(database, batch, settings)
    before = bytes_of(datasets.folder_of(first, settings))
    with database.write() as session:
        session.get_one(Person, bo.id).is_excluded = True
    second = freeze(database, batch, settings)
    assert (second.name, second.version, second.parent_id) == ("batch-001-v2", 2, first.id)
    manifest = datasets.manifest_of(second)
    assert manifest.parent == "batch-001"
    assert manifest.changes is not None
    secret = settings.pseudonym_secret.get_secret_value()
    assert manifest.changes.excluded_annotators == (pseudonym(secret, bo.id),)
    assert (manifest.changes.rows_removed, manifest.changes.rows_added) == (1, 0)
    assert "it corrects `batch-001`, which stays as it is. 1 rows were removed" in (
        datasets.folder_of(second, settings) / "README.md"
    ).read_text(encoding="utf-8")
    assert datasets.manifest_of(second).left_out == {LeftOut.ANNOTATOR_EXCLUDED: 1}
    assert bytes_of(datasets.folder_of(first, settings)) == before
    sides = [
        {row["comparison_id"]: row["split"] for row in rows_of(datasets.folder_of(dataset, settings))}
        for dataset in (first, second)
    ]
    assert sides[1].items() < sides[0].items()


def test_a_dataset_is_made_again_with_the_same_bytes(database: Database, settings: Settings, tmp_path: Path) -> None:
    with database.write() as session:
        ann = make.make_person(session)
        batch = make.make_week(session, ann)
        add_feedback(session, batch)
    dataset = freeze(database, batch, settings)
    stored = datasets.folder_of(dataset, settings)
    with database.write() as session:
        # What is decided later makes no difference to what was frozen.
        session.get_one(Person, ann.id).is_excluded = True
    with database.read() as session:
        dataset = datasets.get(session, "batch-001")
        datasets.recreate(session, dataset, tmp_path / "again", settings)
        assert bytes_of(tmp_path / "again") == bytes_of(stored)
        assert datasets.export(session, dataset, tmp_path / "copy", settings) == []
        assert bytes_of(tmp_path / "copy") == bytes_of(stored)
        shutil.rmtree(stored / "safety")
        problems = datasets.export(session, dataset, tmp_path / "mended", settings)
        assert "safety/train-00000-of-00001.parquet is missing." in problems
        assert bytes_of(tmp_path / "mended") == bytes_of(tmp_path / "again")


def test_a_dataset_that_cannot_be_made_again_is_refused(database: Database, settings: Settings, tmp_path: Path) -> None:
    with database.write() as session:
        batch = make.make_week(session, make.make_person(session))
    frozen = freeze(database, batch, settings)
    with database.write() as session:
        dataset = datasets.get(session, frozen.name)
        session.execute(text("UPDATE comparisons SET prompt = 'changed by hand'"))
        session.expire_all()
        with pytest.raises(NotReproducibleError, match="rows in the database were changed by hand"):
            datasets.recreate(session, dataset, tmp_path / "again", settings)
        assert not (tmp_path / "again").exists()
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("precious")
        with pytest.raises(TargetTakenError, match="nothing was changed"):
            datasets.export(session, dataset, tmp_path / "mine", settings)
    assert list(tmp_path.glob(".*draft*")) == []


def test_a_crash_between_folder_and_commit_is_mended_by_the_next_attempt(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.write() as session:
        batch = make.make_week(session, make.make_person(session))
    publish = store.Draft.publish

    def publish_and_fail(draft: store.Draft) -> None:
        publish(draft)
        msg = "the power fails"
        raise RuntimeError(msg)

    monkeypatch.setattr(store.Draft, "publish", publish_and_fail)
    with pytest.raises(RuntimeError, match="the power fails"):
        freeze(database, batch, settings)
    monkeypatch.undo()
    folder = settings.datasets_root / "batch-001"
    left_behind = bytes_of(folder)
    (folder / "helpfulness" / "junk.parquet").write_text("half a file")
    killed = settings.datasets_root / ".batch-001.draft-0123"
    killed.mkdir()
    with database.read() as session:
        assert datasets.all_datasets(session) == []
        assert session.get_one(Batch, batch.id).state is BatchState.IN_REVIEW
        (waiting,) = session.scalars(select(Freeze))
        assert waiting.error == "RuntimeError: the power fails"
        assert waiting.holder is None
    assert freezing.work_off(database, settings, waiting.next_attempt_at - timedelta(seconds=1)) == 0
    assert freezing.work_off(database, settings, waiting.next_attempt_at) == 1
    with database.read() as session:
        assert datasets.get(session, "batch-001").rows
        assert session.get_one(Batch, batch.id).state is BatchState.FROZEN
    assert bytes_of(folder) == left_behind
    assert list(settings.datasets_root.iterdir()) == [folder]


def test_an_unfinished_folder_is_never_seen(database: Database, settings: Settings) -> None:
    with database.write() as session:
        batch = make.make_week(session, make.make_person(session))
        # A response whose origin is not known cannot be a row: writing fails in the middle.
        session.execute(text("UPDATE responses SET engine = NULL"))
    with pytest.raises(ValueError, match="engine"):
        freeze(database, batch, settings)
    assert list(settings.datasets_root.iterdir()) == []


def test_a_batch_without_rows_freezes_too(database: Database, settings: Settings) -> None:
    with database.write() as session:
        batch = make.make_open_batch(session)
    dataset = freeze(database, batch, settings)
    folder = datasets.folder_of(dataset, settings)
    assert verify_folder(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "manifest.json"]
    assert dataset.rows == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "add", "manifest"])
def test_verify_names_the_file_that_is_wrong(sqlite_settings: Settings, damage: str) -> None:
    database = connect(sqlite_settings.database_url)
    with database.write() as session:
        batch = make.make_week(session, make.make_person(session))
    dataset = freeze(database, batch, sqlite_settings)
    database.dispose()
    folder = datasets.folder_of(dataset, sqlite_settings)
    name = "safety/test-00000-of-00001.parquet"
    file = folder / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        expected = f"{name} is damaged: its sha256"
    elif damage == "cut":
        file.write_bytes(content[:-1])
        expected = f"{name} is damaged: it has {len(content) - 1} bytes"
    elif damage == "remove":
        file.unlink()
        expected = f"{name} is missing"
    elif damage == "add":
        (folder / "safety" / "test-00001-of-00002.parquet").write_bytes(content)
        expected = "safety/test-00001-of-00002.parquet does not belong"
    else:
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"rows": 24', '"rows": 25'))
        expected = "manifest.json"
    problems = verify_folder(folder, manifest_sha256=dataset.manifest_sha256)
    assert any(problem.startswith(expected) for problem in problems), problems
    assert verify_folder(folder) != []


def test_a_large_part_is_cut_into_files_and_row_groups(tmp_path: Path, sqlite_settings: Settings) -> None:
    database = connect(sqlite_settings.database_url)
    with database.write() as session:
        batch = make.make_week(session, make.make_person(session), conversations=2)
    dataset = freeze(database, batch, sqlite_settings)
    database.dispose()
    row = rows_of(datasets.folder_of(dataset, sqlite_settings))[0]
    del row["split"]
    writer = FolderWriter(tmp_path, rows_per_file=2 * ROW_GROUP_ROWS)
    for _ in range(2 * ROW_GROUP_ROWS + 5):
        writer.add(Split.TRAIN, row)
    written = writer.finish()
    assert [(file.path.name, file.rows) for file in written] == [
        ("train-00000-of-00002.parquet", 2 * ROW_GROUP_ROWS),
        ("train-00001-of-00002.parquet", 5),
    ]
    assert pq.ParquetFile(written[0].path).num_row_groups == 2
    assert [pq.read_table(file.path).num_rows for file in written] == [2 * ROW_GROUP_ROWS, 5]


@pytest.fixture
def sqlite_settings(sqlite_template: Path, tmp_path: Path) -> Settings:
    """Settings of an installation on SQLite, for tests that have nothing to do with the database."""
    shutil.copy(sqlite_template, tmp_path / "here.db")
    settings = Settings(database_url=f"sqlite:///{tmp_path / 'here.db'}", data_dir=tmp_path / "here")
    settings.ensure_secrets()
    return settings


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[Database]:
    """The PostgreSQL database, emptied afterwards."""
    database = connect(postgresql_url)
    yield database
    tables = ", ".join(f'"{table.name}"' for table in Base.metadata.sorted_tables)
    with database.writing.begin() as connection:
        connection.execute(text(f"TRUNCATE {tables} CASCADE"))
    database.dispose()


def test_both_databases_give_the_same_bytes(sqlite_settings: Settings, postgresql: Database, tmp_path: Path) -> None:
    sqlite = connect(sqlite_settings.database_url)
    with sqlite.write() as session:
        batch = make.make_week(session, make.make_person(session), word="Tee mit Süßstoff — 茶 ☕")
        add_feedback(session, batch)
    with sqlite.read() as source, postgresql.write() as target:
        for table in Base.metadata.sorted_tables:
            rows = [dict(row) for row in source.execute(select(table)).mappings()]
            if rows:
                target.execute(insert(table), rows)
    other_settings = sqlite_settings.model_copy(update={"datasets_dir": tmp_path / "elsewhere"})
    here = freeze(sqlite, batch, sqlite_settings)
    there = freeze(postgresql, batch, other_settings)
    sqlite.dispose()
    assert here.manifest_sha256 == there.manifest_sha256
    assert bytes_of(datasets.folder_of(here, sqlite_settings)) == bytes_of(datasets.folder_of(there, other_settings))
