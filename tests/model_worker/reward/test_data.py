"""Reading frozen datasets: every file is checked, every bad row is named."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from contract.dataset import DatasetFile
from contract.recipe import Recipe
from contract.vocabulary import Objective, Split, Strength
from model_worker.errors import DatasetError, TrainingError
from model_worker.reward.data import find_leaks, load_preference_dataset, read_manifest, sha256_of
from model_worker.reward.sources import gather_sources
from tests.model_worker.reward.builders import (
    assistant,
    make_comparison,
    simulated_comparisons,
    user,
    write_dataset,
    write_manifest,
)

TRAIN = "helpfulness/train-00000-of-00001.parquet"
RECIPE = Recipe(objective=Objective.HELPFULNESS)


def test_a_dataset_comes_back_as_it_was_written(tmp_path: Path) -> None:
    train, test = simulated_comparisons(5, seed=1), simulated_comparisons(2, seed=2)
    folder = write_dataset(tmp_path, train=train, test=test)
    dataset = load_preference_dataset(folder, Objective.HELPFULNESS)
    assert dataset.name == "week-1"
    assert dataset.manifest_sha256 == sha256_of(folder / "manifest.json")
    assert list(dataset.train) == train
    assert list(dataset.test) == test
    assert load_preference_dataset(folder, Objective.SAFETY).train == ()


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no manifest\.json"):
        read_manifest(tmp_path)


def test_a_damaged_manifest_is_refused_with_its_field(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, train=[make_comparison()])
    content = json.loads((folder / "manifest.json").read_text())
    content["rows"] = "many"
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"manifest\.json: rows: "):
        read_manifest(folder)


def test_a_changed_file_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, train=[make_comparison()])
    content = bytearray((folder / TRAIN).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / TRAIN).write_bytes(content)
    with pytest.raises(DatasetError, match=f"{TRAIN} is not the file that was frozen"):
        load_preference_dataset(folder, Objective.HELPFULNESS)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, train=[make_comparison()])
    (folder / TRAIN).unlink()
    with pytest.raises(DatasetError, match=f"{TRAIN} is missing"):
        load_preference_dataset(folder, Objective.HELPFULNESS)


def test_a_path_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "inside", train=[make_comparison()])
    (folder / TRAIN).rename(tmp_path / "outside.parquet")
    rewrite(folder, path="../outside.parquet", rows=1)
    with pytest.raises(DatasetError, match=r"\.\./outside\.parquet leads out"):
        load_preference_dataset(folder, Objective.HELPFULNESS)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, train=[make_comparison()])
    pq.write_table(pq.read_table(folder / TRAIN).drop_columns("rejected"), folder / TRAIN)
    rewrite(folder, rows=1)
    with pytest.raises(DatasetError, match=f"{TRAIN} has no column rejected"):
        load_preference_dataset(folder, Objective.HELPFULNESS)


def test_a_bad_row_is_named_with_its_field(tmp_path: Path) -> None:
    good, bad = make_comparison(1), make_comparison(2, strength=None)
    folder = write_dataset(tmp_path, train=[good, bad])
    with pytest.raises(DatasetError, match=f"{TRAIN}, row 2: strength: "):
        load_preference_dataset(folder, Objective.HELPFULNESS)


def test_a_prompt_that_does_not_end_with_the_user_is_refused(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, train=[make_comparison(prompt=(user("hello"), assistant("hi")))])
    with pytest.raises(DatasetError, match="row 1: prompt: the last message must be the user's"):
        load_preference_dataset(folder, Objective.HELPFULNESS)


def test_a_wrong_number_of_rows_is_refused(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, train=[make_comparison()])
    rewrite(folder, rows=2)
    with pytest.raises(DatasetError, match=r"holds 1 rows; manifest\.json says 2"):
        load_preference_dataset(folder, Objective.HELPFULNESS)


def test_leaks_are_found_by_normalised_context_and_by_conversation() -> None:
    train = [
        make_comparison(1, prompt=(user("How  are\nYOU?"),)),
        make_comparison(2, prompt=(user("How are you?"), assistant("Fine."), user("Good"))),
        make_comparison(3, conversation_key="held out"),
        make_comparison(4, strength=Strength.BETTER),
    ]
    test = [
        make_comparison(5, prompt=(user("how are you?"),)),
        make_comparison(6, conversation_key="held out", prompt=(user("another turn"),)),
    ]
    assert find_leaks(train, test) == ("comparison-1", "comparison-3")


def test_a_leak_stops_the_run_and_names_the_comparisons(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, train=[make_comparison(1), make_comparison(2)], test=[make_comparison(2)])
    with pytest.raises(TrainingError, match=r"concerned: comparison-2\."):
        gather_sources([folder], [], [], RECIPE)


def test_a_leak_between_two_datasets_is_found(tmp_path: Path) -> None:
    one = write_dataset(tmp_path / "one", train=[make_comparison(1)], test=[make_comparison(2)])
    two = write_dataset(tmp_path / "two", train=[make_comparison(2)], name="week-2")
    with pytest.raises(TrainingError, match=r"concerned: comparison-2\."):
        gather_sources([one, two], [], [], RECIPE)


def test_an_external_comparison_with_a_held_out_prompt_is_left_out_and_counted(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "week", train=[make_comparison(1)], test=[make_comparison(2)])
    external = tmp_path / "other.jsonl"
    rows = [
        {"chosen": f"\n\nHuman: {prompt}\n\nAssistant: yes", "rejected": f"\n\nHuman: {prompt}\n\nAssistant: no"}
        for prompt in ("prompt number 2", "prompt number 9")
    ]
    external.write_text("\n".join(json.dumps(row) for row in rows))
    sources = gather_sources([folder], [external], [], RECIPE)
    assert [comparison.comparison_id for comparison in sources.train] == ["comparison-1", "other.jsonl:2"]
    assert "1 external comparisons left out: their prompts are in a held-out split." in sources.notes


def test_no_rows_of_the_objective_is_an_error(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, train=[make_comparison()])
    with pytest.raises(TrainingError, match="no training comparisons for safety"):
        gather_sources([folder], [], [], RECIPE.model_copy(update={"objective": Objective.SAFETY}))


def rewrite(folder: Path, *, rows: int, path: str = TRAIN) -> None:
    """Make the manifest fit a file that a test has changed."""
    file = folder / path
    write_manifest(
        folder,
        [
            DatasetFile(
                path=path,
                objective=Objective.HELPFULNESS,
                split=Split.TRAIN,
                rows=rows,
                bytes=file.stat().st_size,
                sha256=sha256_of(file),
            )
        ],
    )
