"""Checks that a dataset folder is what its manifest promises; needs no database."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from app.datasets.parquet import schema_of
from contract.dataset import CARD_FILE, MANIFEST_FILE, READABLE_VERSIONS, DatasetFile, Manifest
from contract.digests import sha256_of


def verify_folder(folder: Path, *, manifest_sha256: str | None = None) -> list[str]:
    """What is wrong with a dataset folder, as sentences that name the file; an empty list if nothing is.

    ``manifest_sha256`` is the digest that names the dataset, if it is known.
    """
    if not folder.is_dir():
        return [f"{folder} is not a folder."]
    try:
        content = (folder / MANIFEST_FILE).read_bytes()
        manifest = Manifest.model_validate_json(content)
    except OSError:
        return [f"{MANIFEST_FILE} is missing: {folder} is not the folder of a preference dataset."]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return [f"{MANIFEST_FILE}: {place}: {first['msg']}."]
    problems = list(_manifest_problems(manifest))
    if manifest_sha256 not in {None, hashlib.sha256(content).hexdigest()}:
        problems.append(f"{MANIFEST_FILE} is not the one that was frozen: its sha256 is not {manifest_sha256}.")
    if not (folder / CARD_FILE).is_file():
        problems.append(f"{CARD_FILE} is missing.")
    elif manifest.card_sha256 not in {None, sha256_of(folder / CARD_FILE)}:
        problems.append(f"{CARD_FILE} is damaged: its sha256 is not {manifest.card_sha256}.")
    for file in manifest.files:
        problems.extend(_file_problems(folder, file, manifest.format_version))
    problems.extend(_stray_files(folder, manifest))
    return problems


def _manifest_problems(manifest: Manifest) -> Iterator[str]:
    if manifest.format_version not in READABLE_VERSIONS:
        known = " and ".join(str(version) for version in sorted(READABLE_VERSIONS))
        yield f"{MANIFEST_FILE}: format_version is {manifest.format_version}; this program knows {known}."
    if manifest.rows + sum(manifest.left_out.values()) != manifest.comparisons:
        yield f"{MANIFEST_FILE}: rows and left_out together are not the {manifest.comparisons} comparisons."
    counted = Counter({(count.objective, count.split): count.rows for count in manifest.counts})
    in_files: Counter[tuple[str, str]] = Counter()
    for file in manifest.files:
        in_files[file.objective, file.split] += file.rows
    if counted != in_files or counted.total() != manifest.rows:
        yield f"{MANIFEST_FILE}: the rows of counts, files and the whole differ."


def _file_problems(folder: Path, file: DatasetFile, format_version: int) -> Iterator[str]:
    path = PurePosixPath(file.path)
    place = folder / path
    if path.is_absolute() or ".." in path.parts or place.resolve() != folder.resolve() / path:
        yield f"{MANIFEST_FILE}: the path {file.path} leads out of the folder."
    elif not place.is_file():
        yield f"{file.path} is missing."
    elif place.stat().st_size != file.bytes:
        yield f"{file.path} is damaged: it has {place.stat().st_size} bytes, not {file.bytes}."
    elif sha256_of(place) != file.sha256:
        yield f"{file.path} is damaged: its sha256 is not {file.sha256}."
    else:
        yield from _parquet_problems(place, file, format_version)


def _parquet_problems(place: Path, file: DatasetFile, format_version: int) -> Iterator[str]:
    try:
        with pq.ParquetFile(place) as parquet:
            rows, schema = parquet.metadata.num_rows, parquet.schema_arrow
    except (pa.ArrowException, OSError) as error:
        yield f"{file.path} cannot be read as Parquet: {error}."
        return
    if rows != file.rows:
        yield f"{file.path} holds {rows} rows, not {file.rows}."
    if not schema.equals(schema_of(format_version)):
        yield f"{file.path} has other columns than the format says."


def _stray_files(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Parquet files that the manifest does not know would be loaded all the same, by their names."""
    known = {file.path for file in manifest.files}
    for path in sorted(folder.rglob("*.parquet")):
        name = path.relative_to(folder).as_posix()
        if name not in known:
            yield f"{name} does not belong to the dataset: the manifest does not list it."
