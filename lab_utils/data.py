"""Documents with their reference summaries, whatever they were loaded from."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count, islice
from pathlib import Path

from lab_utils import sources
from lab_utils.config import Data
from lab_utils.errors import LabError
from lab_utils.sources import SPLITS
from lab_utils.yamls import shown

EVERYDAY = Path(__file__).parent / "everyday"
DOCUMENT_COLUMNS = ("document", "dialogue", "article", "text")
SUMMARY_COLUMNS = ("references", "summary1", "summary", "highlights")  # summary1 stands for summary1, summary2, ...


@dataclass(frozen=True)
class Example:
    """One document. Several references are several summaries of the same document: one test item, not many."""

    id: str
    document: str
    references: tuple[str, ...]
    topic: str = ""

    @property
    def summary(self) -> str:
        """The first reference: the one that training uses."""
        return self.references[0]


@dataclass(frozen=True)
class Corpus:
    name: str
    source: str  # "packaged", "local folder", "local file" or "hub"
    train: list[Example] = field(repr=False)
    validation: list[Example] = field(repr=False)
    test: list[Example] = field(repr=False)
    overlaps: dict[str, int] = field(default_factory=dict)  # "validation in train": documents of the one that stand in the other
    notes: list[str] = field(default_factory=list)  # what was found and done while loading, in sentences

    @property
    def fingerprint(self) -> str:
        """Of the test set: two runs with the same one were scored on the same documents and references."""
        return fingerprint(self.test)

    def describe(self) -> dict:
        return {
            "name": self.name,
            "source": self.source,
            "fingerprint": self.fingerprint,
            **{split: len(getattr(self, split)) for split in SPLITS},
            "overlaps": self.overlaps,
            "notes": self.notes,
        }


def load(spec: Data) -> Corpus:
    """The corpus that a recipe names: read, grouped by document, freed of overlaps, and cut to the numbers of examples it asks for.

    - Rows of a validation or test split with the same document become one example with several references: the hub's DialogSum
      test split of 1,500 rows is 500 dialogues.
    - Documents that stand in two splits are counted; training leaves those out that will be used for validation or testing.
    - Subsets are drawn with `data_seed` and keep their order.

    Raises:
        LabError: no such data; a row that lacks a column or has an empty text, by its place; too few documents.
    """
    packaged = spec.source == "everyday"
    source = str(EVERYDAY) if packaged else spec.source
    read = sources.read(source, spec.configuration, spec.data_revision)
    on_hub = sources.is_hub_id(source)
    notes: list[str] = []
    splits = {name: _examples(rows, spec, on_hub, notes) for name, rows in read.items()}
    for name in splits:
        if name != "train":
            splits[name] = _grouped(splits[name], name, notes)
    splits = _three_splits(splits, spec, source, notes)
    overlaps, in_train = _overlaps(splits, notes)
    if in_train and not spec.keep_overlaps:
        splits["train"] = [example for example in splits["train"] if example.id not in in_train]
        notes.append(f"These {len(in_train)} rows are left out of training (keep_overlaps=true keeps them).")
    for name in SPLITS:
        splits[name] = _subset(splits[name], getattr(spec, f"{name}_examples"), spec.data_seed, name, notes)
        if not splits[name]:
            raise LabError(
                f"No {name} examples are left in '{Path(source).name}': each also stands in another split. "
                "Give every split documents of its own."
            )
    kind = "packaged" if packaged else "hub" if on_hub else "local folder" if Path(source).is_dir() else "local file"
    return Corpus(source if on_hub else Path(source).name, kind, **splits, overlaps=overlaps, notes=notes)


def read_jsonl(path: Path) -> list[Example]:
    """Examples of one JSON-lines file."""
    return _examples(sources.read_file(path), Data(), False, [])


def _examples(rows: sources.Rows, spec: Data, skip_empty: bool, notes: list[str]) -> list[Example]:
    """Examples of rows. The hub's own rows without text are left out and counted; in a user's file they are an error."""
    examples, seen, empty = [], set(), 0
    stem = re.sub(r"\W+", "-", Path(rows.name).stem)
    for number, (place, row) in enumerate(rows, 1):
        try:
            example = _example(row, spec, default_id=f"{stem}-{number}")
            if example.id in seen:
                if not skip_empty:
                    raise ValueError(f"the id {shown(example.id)} stands on an earlier {rows.unit} too")
                numbered = (f"{example.id}-{n}" for n in count(number))
                example = replace(example, id=next(name for name in numbered if name not in seen))
        except _Empty as error:
            if not skip_empty:
                raise LabError(f"{place}: {error}. Mend that {rows.unit} and run again.") from error
            empty += 1
            continue
        except _NoColumn as error:
            raise LabError(f"{place}: {error}.") from error
        except ValueError as error:
            raise LabError(f"{place}: {error}. Mend that {rows.unit} and run again.") from error
        seen.add(example.id)
        examples.append(example)
    if empty:
        notes.append(f"{rows.name}: {empty} {'row' if empty == 1 else 'rows'} without a document or summary left out.")
    return examples


class _Empty(ValueError):
    """A row whose document or summary has no text."""


class _NoColumn(ValueError):
    """A row without the column that was asked for, or without any known one."""


def _example(row, spec: Data, default_id: str) -> Example:
    if not isinstance(row, dict):
        raise ValueError(f'expected an object like {{"document": ..., "summary": ...}}, found {type(row).__name__}')
    document = row[_column(row, spec.document_column, DOCUMENT_COLUMNS, "document")]
    column = _column(row, spec.summary_column, SUMMARY_COLUMNS, "summary")
    if column == "summary1":
        numbered = sorted((name for name in row if re.fullmatch(r"summary\d+", str(name))), key=lambda name: int(name[7:]))
        references = [row[name] for name in numbered if row[name] is not None]
    else:
        references = row[column] if isinstance(row[column], list) else [row[column]]
    if column == "references" and not isinstance(row[column], list):
        raise ValueError("'references' must be a list of texts")
    for name, text in [("document", document), *(("summary", reference) for reference in references)]:
        if text is not None and not isinstance(text, str):
            raise ValueError(f"the {name} must be text, found {type(text).__name__}")
        if not text or not text.strip():
            raise _Empty(f"the {name} is empty")
    if not references:
        raise _Empty("the summary is empty")
    name = next((row[key] for key in ("id", "fname") if row.get(key) not in (None, "")), default_id)
    different = tuple(dict.fromkeys(whole_characters(reference) for reference in references))
    topic = str(row.get("topic") or row.get("topic1") or "")
    return Example(whole_characters(str(name)), whole_characters(document.replace("\r\n", "\n")), different, whole_characters(topic))


def whole_characters(text: str) -> str:
    """The text with halves of characters, which JSON can hold and no tokenizer reads, replaced by the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _column(row: dict, chosen: str | None, known: Sequence[str], what: str) -> str:
    if chosen is not None and chosen not in row:
        raise _NoColumn(f"no column {shown(chosen)} (found {_listed(row)}); set {what}_column to one of these")
    column = chosen or next((name for name in known if name in row), None)
    if column is None:
        raise _NoColumn(f"no '{what}' text (found {_listed(row)}); name its column with {what}_column")
    return column


def _listed(columns: Iterable[str]) -> str:
    """Names of columns, on one line and not endless, as a file of any kind may hold them."""
    return shown(", ".join(columns))[1:-1] or "nothing"


def _grouped(examples: list[Example], split: str, notes: list[str]) -> list[Example]:
    """One example per document, in the order of first appearance, with all its different references."""
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.document, []).append(example)
    if len(groups) == len(examples):
        return examples
    whose = "file" if split == "all" else f"{split} split"
    notes.append(f"The {whose}'s {len(examples):,} rows are {len(groups):,} documents, some with several references: one item each.")
    taken = {example.id for example in examples}
    return [_merged(group, taken) for group in groups.values()]


def _merged(group: list[Example], taken: Collection[str]) -> Example:
    """One example of several with the same document. `taken` are the ids of all."""
    references = dict.fromkeys(reference for example in group for reference in example.references)
    stem = re.sub(r"_\d+$", "", group[0].id)
    flattened = len(group) > 1 and {example.id for example in group} == {f"{stem}_{number}" for number in range(1, len(group) + 1)}
    name = stem if flattened and stem not in taken else group[0].id  # the hub's test_0_1, test_0_2, ... are the authors' test_0
    return replace(group[0], id=name, references=tuple(references))


def _three_splits(splits: dict[str, list[Example]], spec: Data, source: str, notes: list[str]) -> dict[str, list[Example]]:
    """Train, validation and test, where some of them must be made from others."""
    name = Path(source).name
    if "all" in splits:
        examples = _shuffled(splits["all"], spec.data_seed)
        if len(examples) < 3:
            raise LabError(f"'{name}' has {len(examples)} documents; at least 3 are needed for training, validation and test.")
        held = max(1, len(examples) // 10)
        notes.append(
            f"{name} was split by data_seed={spec.data_seed}: "
            f"{len(examples) - 2 * held} training, {held} validation, {held} test documents."
        )
        return {"test": examples[:held], "validation": examples[held : 2 * held], "train": examples[2 * held :]}
    if spec.test_from == "validation" and "validation" in splits:
        held = _shuffled(splits["validation"], spec.data_seed)
        wanted = spec.test_examples or len(held) // 2
        if not 0 < wanted < len(held):
            raise LabError(
                f"test_examples={wanted} of the validation split's {len(held)} documents leaves none for validation: ask for fewer."
            )
        notes.append(
            f"The test set is {wanted} documents of the validation split (test_from=validation); the others are left for validation."
        )
        splits = splits | {"test": held[:wanted], "validation": held[wanted:]}
    missing = [split for split in SPLITS if split not in splits]
    if missing:
        hint = "; test_from=validation holds out a part of the validation split" if missing == ["test"] else ""
        raise LabError(f"'{name}' has no {' and no '.join(missing)} split (found {', '.join(splits) or 'none'}): add it{hint}.")
    return splits


def _shuffled(examples: list[Example], seed: int) -> list[Example]:
    return random.Random(seed).sample(examples, len(examples))


def _subset(examples: list[Example], wanted: int | None, seed: int, split: str, notes: list[str]) -> list[Example]:
    if wanted is None or wanted == len(examples):
        return examples
    if wanted > len(examples):
        notes.append(f"{split}_examples is {wanted:,}; there are {len(examples):,}, and all of them are used.")
        return examples
    chosen = random.Random(seed).sample(range(len(examples)), wanted)
    return [examples[i] for i in sorted(chosen)]


def _words(text: str) -> Iterator[str]:
    """Its words alone: copies in a dataset often differ in spaces, punctuation or case. A text without any is its own word."""
    found = None
    for found in re.finditer(r"\w+", text):
        yield found[0].lower()
    if found is None:
        yield text


def _overlaps(splits: dict[str, list[Example]], notes: list[str]) -> tuple[dict[str, int], set[str]]:
    """How many documents of one split stand in another, and the ids of the training examples among them.

    Only documents that begin with the same words are compared whole, which keeps 287,000 news articles a matter of seconds.
    """
    held_out: dict[tuple, list[tuple[str, tuple]]] = {}
    found: dict[str, set] = {"validation in train": set(), "test in train": set(), "test in validation": set()}
    for split in ("test", "validation", "train"):
        for example in splits[split]:
            start = tuple(islice(_words(example.document), 8))
            if split == "train" and start not in held_out:
                continue
            words = tuple(_words(example.document))
            for other, theirs in held_out.get(start, ()):
                if other != split and theirs == words:
                    found[f"{other} in {split}"].add((example.id, words))
            if split != "train":
                held_out.setdefault(start, []).append((split, words))
    counts = {pair: len({words for _, words in copies}) for pair, copies in found.items() if copies}
    in_train = {name for pair, copies in found.items() if pair.endswith("train") for name, _ in copies}
    told = [
        f"{counts[f'{split} in train']} of {len(splits[split])} {split} documents"
        for split in ("validation", "test")
        if f"{split} in train" in counts
    ]
    if told:
        notes.append(f"{' and '.join(told)} also stand in the training split, in {len(in_train)} rows.")
    if "test in validation" in counts:
        notes.append(f"{counts['test in validation']} test documents also stand in the validation split.")
    return counts, in_train


def fingerprint(examples: Iterable[Example]) -> str:
    """First 16 hex digits of SHA-256 over ids, documents and references, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(asdict(example), sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]
