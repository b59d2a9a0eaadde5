"""Rows of a dataset, wherever they lie: files of several formats, a folder with a file per split, or the hub."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab_utils.errors import LabError

SPLITS = ("train", "validation", "test")
FORMATS = (".jsonl", ".json", ".csv", ".parquet")
_SPLIT_WORDS = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Rows:
    """The rows of one split or file, each with the words that say where it stands."""

    name: str
    rows: Sequence[dict] = field(repr=False)
    unit: str = "row"
    numbers: Sequence[int] | None = field(default=None, repr=False)  # of the lines; by default 1, 2, 3, ...

    def __iter__(self) -> Iterator[tuple[str, dict]]:
        for number, row in zip(self.numbers or range(1, len(self.rows) + 1), self.rows, strict=True):
            yield f"{self.name}, {self.unit} {number}", row

    def __len__(self) -> int:
        return len(self.rows)


def is_hub_id(source: str) -> bool:
    return bool(_HUB_ID.fullmatch(source)) and not Path(source).exists()


def read(source: str, configuration: str | None = None, revision: str | None = None) -> dict[str, Rows]:
    """Rows by split. A single file comes back as the one split `all`.

    Args:
        source: a folder, a file or a hub id. configuration, revision: of a hub id.

    Raises:
        LabError: nothing there, an unknown format, rows that cannot be read (with their place), or a hub that cannot be reached.
    """
    path = Path(source)
    if path.is_dir():
        files = split_files(path)
        return {split: _joined(split, [read_file(file) for file in found]) for split, found in files.items()}
    if path.is_file():
        return {"all": read_file(path)}
    if is_hub_id(source):
        return _from_hub(source, configuration, revision)
    raise LabError(
        f"No data '{source}': give a folder with a train, validation and test file ({', '.join(FORMATS)}), one such file, a hub id, or 'everyday'."
    )


def split_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each split in a folder: `train.jsonl`, `dialogsum.dev.jsonl`, `test-00000-of-00002.parquet`.

    A file belongs to the split that a word of its name says; `hiddentest` and other names belong to none.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        words = re.split(r"[^a-z]+", path.stem.lower())
        split = next((split for split, names in _SPLIT_WORDS.items() if set(words) & set(names)), None)
        if path.is_file() and path.suffix in FORMATS and split:
            found.setdefault(split, []).append(path)
    for split, paths in found.items():
        shards = all(re.search(r"\d{5}-of-\d{5}$", path.stem) for path in paths)
        if len(paths) > 1 and not shards:
            names = ", ".join(path.name for path in paths)
            raise LabError(f"'{folder.name}' has more than one {split} file ({names}): leave one of them there.")
    return found


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
    except UnicodeDecodeError as error:
        raise LabError(f"{path.name} is not UTF-8 text (byte {error.start}): save it as UTF-8 and run again.") from error
    except OSError as error:
        raise LabError(f"{path.name} cannot be read ({error.strerror or error}): check the file and run again.") from error
    if not len(rows):
        raise LabError(f"{path.name} holds no examples: it must have one example a {rows.unit}.")
    return rows


def _read_jsonl(path: Path) -> Rows:
    rows, numbers = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line.decode("utf-8")))
        except json.JSONDecodeError as error:
            raise _broken(path, f"line {number}", f"not valid JSON ({error.msg} at column {error.colno})") from error
        except UnicodeDecodeError as error:
            raise _broken(path, f"line {number}", "not UTF-8 text") from error
        numbers.append(number)
    return Rows(path.name, rows, "line", numbers)


def _read_json(path: Path) -> Rows:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise _broken(path, f"line {error.lineno}", f"not valid JSON ({error.msg})") from error
    if not isinstance(rows, list):
        raise LabError(f"{path.name} must hold a list of objects; found {type(rows).__name__}.")
    return Rows(path.name, rows, "object")


def _read_csv(path: Path) -> Rows:
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        rows, numbers = [], []
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise _broken(path, f"line {reader.line_num}", f"not the {len(reader.fieldnames)} columns of the first line")
                rows.append(row)
                numbers.append(reader.line_num)
        except csv.Error as error:
            raise _broken(path, f"line {reader.line_num}", f"not valid CSV ({error})") from error
    return Rows(path.name, rows, "line", numbers)


def _read_parquet(path: Path) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        return Rows(path.name, parquet.read_table(path).to_pylist())
    except pyarrow.ArrowException as error:
        raise LabError(f"{path.name} is not a Parquet file ({str(error).splitlines()[0]}): write it again.") from error


def _broken(path: Path, place: str, what: str) -> LabError:
    return LabError(f"{path.name}, {place}: {what}. Mend that line and run again.")


def _joined(split: str, parts: list[Rows]) -> Rows:
    return parts[0] if len(parts) == 1 else Rows(split, [row for part in parts for row in part.rows])


def _from_hub(source: str, configuration: str | None, revision: str | None) -> dict[str, Rows]:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    try:
        found = datasets.load_dataset(source, configuration, revision=revision)
    except DatasetNotFoundError as error:
        if "gated" in str(error):
            raise LabError(
                f"The data '{source}' is gated: accept its terms on its hub page, then set HF_TOKEN in the environment and run again."
            ) from error
        raise LabError(f"No data '{source}': there is no such folder or file here, and no such dataset on the hub. Check the name.") from error
    except ConnectionError as error:
        raise LabError(
            f"The data '{source}' cannot be fetched, since the hub cannot be reached: connect, or download it elsewhere and give its folder as data_dir."
        ) from error
    except ValueError as error:
        raise LabError(f"The data '{source}' cannot be loaded: {str(error).splitlines()[0]}") from error
    return {split: Rows(f"{source} {split}", found[split]) for split in SPLITS if split in found}
