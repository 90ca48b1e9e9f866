"""Training sets: which rows they take, what those say, and that the same set is the same bytes."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from app.accounts import service as accounts
from app.database import Database
from app.datasets import service as datasets
from app.external import service as external
from app.external.drafts import Wanted
from app.models import Batch, ExternalDataset, PersonRole, PreferenceDataset, TokenScope
from app.settings import Settings
from app.training_sets import service
from app.training_sets.folder import DamagedMemberError
from app.training_sets.service import SetWanted
from contract.training_set import MemberKind, SetDefinition, SetFilter, SetMember
from contract.vocabulary import MarginScheme, Objective, SafetyBin, Split, Strength
from tests import factories as make
from tests.conftest import Browser

STRONGEST = (Strength.SIGNIFICANTLY_BETTER, Strength.BETTER)


@pytest.fixture
def frozen(database: Database, settings: Settings) -> PreferenceDataset:
    """A dataset with every strength, and held-out rows."""
    with database.write() as session:
        ann = make.make_person(session)
        batch = make.make_week(session, ann, conversations=8)
        for number, strength in enumerate(Strength):
            for objective in Objective:
                make.make_judged(session, batch, ann, f"{strength} {number}", objective=objective, strength=strength)
    return make.freeze(database, batch, settings)


def rows_of(folder: Path, split: Split | None = None) -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob(f"{split or ''}*.parquet")) for row in pq.read_table(file).to_pylist()]


def frozen_rows(dataset: PreferenceDataset, settings: Settings, split: Split) -> list[dict[str, Any]]:
    folder = datasets.folder_of(dataset, settings)
    return [row for one in sorted(folder.iterdir()) if one.is_dir() for row in rows_of(one, split)]


def bring_in(database: Database, settings: Settings, rows: list[dict[str, Any]], **about: Any) -> ExternalDataset:
    file = settings.data_dir / "external.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    draft = external.check(Wanted(**({"name": "elsewhere"} | about)), file, file.name, settings)
    with database.write() as session:
        return external.confirm(session, draft, settings)


def pair(prompt: str, **labels: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": "Yes.", "rejected": "No."} | labels


def written(database: Database, settings: Settings, name: str, target: Path) -> Path:
    with database.read() as session:
        description = service.description_of(service.get(session, name))
        sources = service.sources_of(session, description, settings)
    service.write(description, sources, target)
    return target


def test_a_union_keeps_what_the_filter_says_and_holds_out_what_is_held_out(
    frozen: PreferenceDataset, database: Database, settings: Settings, tmp_path: Path
) -> None:
    held_out = frozen_rows(frozen, settings, Split.TEST)
    assert held_out
    # Case and white space do not make another prompt of it.
    leak = next(row["prompt"][0]["content"] for row in held_out if len(row["prompt"]) == 1).upper() + "  "
    bring_in(
        database,
        settings,
        [
            pair("Strong?", strength="better", margin=9),
            pair("Weak?", strength="slightly_better"),
            pair("Unrated?"),
            pair(leak),
            pair("Unsafe?", chosen_safe=False, rejected_safe=True),
        ],
    )
    wanted = SetWanted(
        name="strongest",
        frozen=[frozen.name],
        external=["elsewhere"],
        margin_scheme=MarginScheme.LARGE,
        keep=SetFilter(strengths=STRONGEST),
    )
    described = service.define(database, wanted, settings)
    folder = written(database, settings, "strongest", tmp_path / "set")

    train, test = rows_of(folder, Split.TRAIN), rows_of(folder, Split.TEST)
    own = [row for row in train if row["source"] == frozen.name]
    expected = [row for row in frozen_rows(frozen, settings, Split.TRAIN) if row["strength"] in STRONGEST]
    assert [row["comparison_id"] for row in own] == [row["comparison_id"] for row in expected]
    assert {row["comparison_id"] for row in test} == {
        row["comparison_id"] for row in held_out if row["strength"] in STRONGEST
    }
    assert {row["margin"] for row in own} <= {3.0, 2.0}
    assert [(row["prompt"][0]["content"], row["margin"]) for row in train if row["source"] == "elsewhere"] == [
        ("Strong?", 2.0),
        ("Unrated?", 0.0),
    ]
    ours, theirs = described.counts
    assert (ours.train, ours.test) == (len(own), len(test))
    assert ours.train + ours.test + ours.filtered == frozen.rows
    assert (theirs.train, theirs.filtered, theirs.held_out_elsewhere) == (2, 2, 1)


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (SetFilter(), {"a", "b", "c", "d"}),
        (SetFilter(keeps_unrated=False), {"c"}),
        (SetFilter(safety_bins=(SafetyBin.BOTH_SAFE,)), {"a", "b", "c"}),
        (SetFilter(objectives=(Objective.SAFETY,)), {"a", "b", "c", "d"}),
        (SetFilter(strengths=(Strength.BETTER,), keeps_unrated=False), set()),
    ],
    ids=["all", "rated", "both safe", "unknown objective", "nothing"],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_a_filter_keeps_of_external_rows(
    keep: SetFilter, kept: set[str], database: Database, settings: Settings, tmp_path: Path
) -> None:
    bring_in(
        database,
        settings,
        [
            pair("a"),
            pair("b", chosen_safe=True, rejected_safe=True),
            pair("c", strength="slightly_better"),
            pair("d", chosen_safe=False, rejected_safe=False),
        ],
    )
    wanted = SetWanted(name="set", external=["elsewhere"], keep=keep)
    if not kept:
        with pytest.raises(service.EmptySetError):
            service.define(database, wanted, settings)
        return
    service.define(database, wanted, settings)
    rows = rows_of(written(database, settings, "set", tmp_path / "set"))
    assert {row["prompt"][0]["content"] for row in rows} == kept


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_known_objective_is_filtered(database: Database, settings: Settings) -> None:
    bring_in(database, settings, [pair("a")], objective=Objective.HELPFULNESS)
    keep = SetFilter(objectives=(Objective.SAFETY,))
    with pytest.raises(service.EmptySetError):
        service.define(database, SetWanted(name="set", external=["elsewhere"], keep=keep), settings)


def test_the_same_set_is_the_same_bytes(
    frozen: PreferenceDataset, database: Database, settings: Settings, tmp_path: Path
) -> None:
    service.define(database, SetWanted(name="all", frozen=[frozen.name]), settings)
    first, second = (written(database, settings, "all", tmp_path / name) for name in ("one", "two"))
    files = {path.name: path.read_bytes() for path in first.iterdir()}
    assert files == {path.name: path.read_bytes() for path in second.iterdir()}
    manifest = json.loads(files["manifest.json"])
    assert {file["path"]: file["sha256"] for file in manifest["files"]} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name.endswith(".parquet")
    }
    assert manifest["definition"]["members"] == [
        {"kind": "frozen", "name": frozen.name, "manifest_sha256": frozen.manifest_sha256}
    ]
    assert manifest["digest"].encode() in files["README.md"]


def test_equal_definitions_have_equal_digests() -> None:
    members = [SetMember(kind=kind, name=name, manifest_sha256="0") for kind in MemberKind for name in "ab"]
    one, two = (
        SetDefinition(members=tuple(order), margin_scheme=MarginScheme.SMALL, keep=SetFilter(strengths=strengths))
        for order, strengths in ((members, STRONGEST), (members[::-1], STRONGEST[::-1]))
    )
    assert one.digest() == two.digest()
    everything = SetFilter(strengths=tuple(Strength), objectives=tuple(Objective))
    assert everything == SetFilter()
    assert one.digest() != one.model_copy(update={"margin_scheme": MarginScheme.NONE}).digest()


def test_a_damaged_member_is_named(
    frozen: PreferenceDataset, database: Database, settings: Settings, tmp_path: Path
) -> None:
    service.define(database, SetWanted(name="all", frozen=[frozen.name]), settings)
    file = next(datasets.folder_of(frozen, settings).rglob("train-*.parquet"))
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(DamagedMemberError, match=f"batch-001: .*{file.name} is damaged: its sha256 is not"):
        written(database, settings, "all", tmp_path / "set")
    assert list(tmp_path.glob("*set*")) == []


def test_the_page_defines_and_shows_a_set(
    frozen: PreferenceDataset, settings: Settings, database: Database, sign_in: Callable[..., Browser]
) -> None:
    bring_in(database, settings, [pair("a")])
    trainer = sign_in(PersonRole.TRAINER)
    assert "There is no training set yet" in trainer.get("/datasets/sets").text
    ticked = {
        "name": "strongest",
        "frozen": [frozen.name],
        "external": ["elsewhere"],
        "margin_scheme": "large",
        "strengths": list(STRONGEST),
        "safety_bins": [label for label in SafetyBin if label.is_exported],
        "objectives": list(Objective),
        "keeps_unrated": "true",
    }
    refused = trainer.post("/datasets/sets", ticked | {"strengths": [], "name": "a b", "frozen": ["batch-9"]})
    assert refused.status_code == 422
    assert "tick at least one." in refused.text
    assert "use up to 100 letters" in refused.text
    unknown = trainer.post("/datasets/sets", ticked | {"frozen": ["batch-9"]})
    assert "there is no dataset batch-9." in unknown.text
    answer = trainer.post("/datasets/sets", ticked)
    assert answer.headers["location"] == "/datasets/sets/strongest"
    page = trainer.get("/datasets/sets/strongest").text
    assert "significantly better, better" in page
    assert "external rows without a strength are kept" in page
    assert "elsewhere" in trainer.get("/datasets/sets").text
    again = trainer.post("/datasets/sets", ticked)
    assert again.status_code == 422
    assert "there is a training set strongest already" in again.text


def test_the_api_defines_and_describes_sets(
    frozen: PreferenceDataset, client: TestClient, database: Database, worker_headers: dict[str, str]
) -> None:
    with database.write() as session:
        token = accounts.create_api_token(session, "laptop", TokenScope.DATASETS)
    client.headers["Authorization"] = f"Bearer {token}"
    wanted = {"name": "two-strongest", "frozen": [frozen.name], "keep": {"strengths": list(STRONGEST)}}
    made = client.post("/api/v1/training-sets", json=wanted)
    assert made.status_code == 201
    assert client.get("/api/v1/training-sets/two-strongest").json() == made.json()
    assert SetDefinition.model_validate(made.json()["definition"]).digest() == made.json()["digest"]
    (entry,) = client.get("/api/v1/training-sets").json()
    assert (entry["members"], entry["train"]) == ([frozen.name], made.json()["counts"][0]["train"])

    answers = {
        409: client.post("/api/v1/training-sets", json=wanted),
        422: client.post("/api/v1/training-sets", json=wanted | {"name": "x", "frozen": ["batch-9"]}),
        404: client.get("/api/v1/training-sets/nothing"),
        403: client.post("/api/v1/training-sets", json=wanted | {"name": "y"}, headers=worker_headers),
        401: client.get("/api/v1/training-sets", headers={"Authorization": "Bearer guess"}),
    }
    assert {status: answer.status_code for status, answer in answers.items()} == {status: status for status in answers}
    assert answers[422].json()["error"]["message"] == "members: there is no dataset batch-9."
    assert (
        client.post("/api/v1/training-sets", json={"name": "x", "keep": {"strengths": ["much"]}})
        .json()["error"]["message"]
        .startswith("keep.strengths.0: Input should be")
    )


def test_versions_of_one_batch_are_not_united(
    frozen: PreferenceDataset, database: Database, settings: Settings
) -> None:
    with database.read() as session:
        batch = session.get_one(Batch, frozen.batch_id)
    again = make.freeze(database, batch, settings)
    with pytest.raises(service.UnknownMemberError, match="are versions of the same batch"):
        service.define(database, SetWanted(name="both", frozen=[frozen.name, again.name]), settings)
