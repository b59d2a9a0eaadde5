"""Rows of a dataset, wherever they lie: files of several formats, a folder with a file per split, or the hub."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab_utils import environment, scrubbing
from lab_utils.errors import LabError
from lab_utils.fields import HUB_ID
from lab_utils.progress import waiting
from lab_utils.yamls import shown

SPLITS = ("train", "validation", "test")
FORMATS = (".jsonl", ".json", ".csv", ".parquet")
_BEYOND_JSON = (ValueError, RecursionError)  # what Python's reader does not take, though it is JSON
_SPLIT_WORDS = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class Rows:
    """The rows of one split or file, each with the words that say where it stands."""

    name: str
    rows: Sequence[dict] = field(repr=False)
    unit: str = "row"
    numbers: Sequence[int] | None = field(default=None, repr=False)  # of the lines; by default 1, 2, 3, ...
    places: Sequence[str] | None = field(default=None, repr=False)  # the words themselves, where the rows come from several files

    def __iter__(self) -> Iterator[tuple[str, dict]]:
        numbers = self.numbers or range(1, len(self.rows) + 1)
        places = self.places or (f"{self.name}, {self.unit} {number}" for number in numbers)
        yield from zip(places, self.rows, strict=True)

    def __len__(self) -> int:
        return len(self.rows)


def is_hub_id(source: str) -> bool:
    return bool(HUB_ID.fullmatch(source)) and not os.path.exists(source)  # unlike Path.exists, it takes a name of any length


def read(source: str, configuration: str | None = None, revision: str | None = None) -> dict[str, Rows]:
    """Rows by split. A single file comes back as the one split `all`.

    Args:
        source: a folder, a file or a hub id. configuration, revision: of a hub id.

    Raises:
        LabError: nothing there, an unknown format, rows that cannot be read (with their place), or a hub that cannot be reached.
    """
    path = Path(source)
    if os.path.isdir(path):
        files = split_files(path)
        return {split: _joined(split, [read_file(file) for file in found]) for split, found in files.items()}
    if os.path.isfile(path):
        return {"all": read_file(path)}
    if is_hub_id(source):
        return _from_hub(source, configuration, revision)
    raise LabError(
        f"No data {shown(source)}: give a folder with a train, validation and test file ({', '.join(FORMATS)}), one such file, "
        "a hub id, or 'everyday'."
    )


def split_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each split in a folder: `train.jsonl`, `dialogsum.dev.jsonl`, `test-00000-of-00002.parquet`.

    A file belongs to the split that a word of its name says; `hiddentest` and other names belong to none.

    Raises:
        LabError: two files that could be the same split, or a split of which not all parts are there.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        words = re.split(r"[^a-z]+", path.stem.lower())
        split = next((split for split, names in _SPLIT_WORDS.items() if set(words) & set(names)), None)
        if path.is_file() and path.suffix in FORMATS and split:
            found.setdefault(split, []).append(path)
    for split, paths in found.items():
        shards = [re.search(r"-\d{5}-of-(\d{5})", path.stem) for path in paths]
        if len(paths) > 1 and not all(shards):
            names = ", ".join(path.name for path in paths)
            raise LabError(f"'{folder.name}' has more than one {split} file ({names}): leave one of them there.")
        if shards[0] and len(paths) != int(shards[0][1]):
            raise LabError(
                f"'{folder.name}' has {len(paths)} of the {int(shards[0][1])} {split} files that {paths[0].name} speaks of: get the rest."
            )
    return {split: found[split] for split in SPLITS if split in found}


def read_file(path: Path) -> Rows:
    """The rows of a JSON-lines, JSON, CSV or Parquet file.

    Raises:
        LabError: not such a file, or a line that cannot be read, with its number.
    """
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise LabError(f"'{path.name}' is none of {', '.join(FORMATS)}: save the data in one of these formats.")
    try:
        rows = readers[path.suffix](path)
    except OSError as error:
        raise LabError(f"{path.name} cannot be read ({error.strerror or error}): check the file and run again.") from error
    if not len(rows):
        raise LabError(f"{path.name} holds no examples: it must have one example per {rows.unit}.")
    return rows


def _read_jsonl(path: Path) -> Rows:
    rows, numbers = [], []
    for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line.decode("utf-8")))
        except json.JSONDecodeError as error:
            raise _broken(path, f"line {number}", f"not valid JSON ({error.msg} at column {error.colno})") from error
        except UnicodeDecodeError as error:
            raise _broken(path, f"line {number}", "not UTF-8 text") from error
        except _BEYOND_JSON as error:
            raise _broken(path, f"line {number}", "a number of thousands of digits, or brackets nested too deeply") from error
        numbers.append(number)
    return Rows(path.name, rows, "line", numbers)


def _read_json(path: Path) -> Rows:
    try:
        rows = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise _broken(path, f"line {error.lineno}", f"not valid JSON ({error.msg})") from error
    except _BEYOND_JSON as error:
        raise LabError(f"{path.name} holds a number of thousands of digits, or brackets nested too deeply: mend it.") from error
    if not isinstance(rows, list):
        raise LabError(f"{path.name} must hold a list of objects; found {type(rows).__name__}.")
    return Rows(path.name, rows, "object")


def _read_csv(path: Path) -> Rows:
    """A row is named by the line that it begins on: an answer may fill several."""
    csv.field_size_limit(1 << 30)
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    columns, rows, numbers, following = None, [], [], 1
    try:
        for values in reader:
            number, following = following, reader.line_num + 1
            if not values:
                continue
            if columns is None:
                columns = values
                if twice := next((name for name in columns if columns.count(name) > 1), None):
                    raise _broken(path, f"line {number}", f"two columns are called {shown(twice)}")
            elif len(values) != len(columns):
                raise _broken(path, f"line {number}", f"{len(values)} columns, not the {len(columns)} of the first line")
            else:
                rows.append(dict(zip(columns, values, strict=True)))
                numbers.append(number)
    except csv.Error as error:
        raise _broken(path, f"line {following}", f"not valid CSV ({error})") from error
    return Rows(path.name, rows, "line", numbers)


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise LabError(f"{path.name}, line {line}: not UTF-8 text. Save the file as UTF-8 and run again.") from error


def _read_parquet(path: Path) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        return Rows(path.name, parquet.read_table(path, page_checksum_verification=True).to_pylist())
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:  # the latter for texts that are none, and dates beyond Python's
        raise LabError(f"{path.name} cannot be read as Parquet ({scrubbing.reason(error)}): write it again.") from error


def _broken(path: Path, place: str, what: str) -> LabError:
    return LabError(f"{path.name}, {place}: {what}. Mend that line and run again.")


def _joined(split: str, parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return Rows(split, [row for part in parts for row in part.rows], parts[0].unit, places=[place for part in parts for place, _ in part])


def _from_hub(source: str, configuration: str | None, revision: str | None) -> dict[str, Rows]:
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    environment.quiet()
    environment.say(f"Looking up the data {source} on the hub ...")
    no_revision = LabError(f"The data '{source}' has no revision '{revision}': see its page for branches and commits.")
    if revision is not None and not _has_revision(source, revision):
        raise no_revision
    try:
        with waiting(f"Downloading and preparing {source}"):
            found = datasets.load_dataset(source, configuration, revision=revision)
    except DatasetNotFoundError as error:
        if "is a gated dataset" in str(error):
            raise LabError(
                f"The data '{source}' is gated: accept its terms on its hub page, then set HF_TOKEN in the environment and run again."
            ) from error
        if str(error).startswith("Revision "):
            raise no_revision from error
        raise LabError(
            f"No data '{source}': there is no such folder or file here, and no such dataset on the hub. Check the name."
        ) from error
    except (DatasetsError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ConnectionError) or "Internet connection" in str(error):  # datasets 4.0 has no kind of its own for this
            raise LabError(
                f"The data '{source}' is neither a folder or file here nor in the download cache, and the hub cannot be reached: connect, "
                "or download it elsewhere and give its folder as data_dir."
            ) from error
        raise LabError(
            f"The data '{source}' cannot be loaded ({scrubbing.reason(error)}): check its configuration and revision, "
            "or give a folder as data_dir."
        ) from error
    return {split: Rows(f"{source} {split}", found[split]) for split in SPLITS if split in found}


def _has_revision(source: str, revision: str) -> bool:
    """False if the hub does not know the revision: datasets 4.0 would then take what it finds in its cache, and say so in its log only."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        HfApi().dataset_info(source, revision=revision)
    except RevisionNotFoundError:
        return False
    except Exception:  # whatever else is wrong, loading says in its own words
        return True
    return True
