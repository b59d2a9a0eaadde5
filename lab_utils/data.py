"""Documents with their reference summaries, whatever they were loaded from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab_utils.config import Data
from lab_utils.errors import LabError

EVERYDAY = Path(__file__).parent / "everyday"
SPLITS = ("train", "validation", "test")


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
    source: str
    train: list[Example] = field(repr=False)
    validation: list[Example] = field(repr=False)
    test: list[Example] = field(repr=False)

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
        }


def load(spec: Data) -> Corpus:
    """The corpus that a recipe names, cut to the numbers of examples it asks for.

    Raises:
        LabError: no such folder or file; a line that is not JSON, lacks a field or has an empty summary, by its number.
    """
    packaged = spec.source == "everyday"
    folder = EVERYDAY if packaged else Path(spec.source)
    if not folder.is_dir():
        raise LabError(f"No data folder '{spec.source}': give a folder with {', '.join(s + '.jsonl' for s in SPLITS)}, or 'everyday'.")
    parts = {}
    for split in SPLITS:
        examples = read_jsonl(folder / f"{split}.jsonl")
        wanted = getattr(spec, f"{split}_examples")
        if wanted is not None and wanted > len(examples):
            raise LabError(f"{split}_examples is {wanted}, but {folder.name}/{split}.jsonl has {len(examples)}: ask for at most that many.")
        parts[split] = examples[:wanted]
    return Corpus(name=folder.name, source="packaged" if packaged else "local folder", **parts)


def read_jsonl(path: Path) -> list[Example]:
    """Examples of a JSON-lines file: `document` (or `dialogue`), `references` (or `summary`, or `summary1`..`summaryN`), `id`, `topic`."""
    if not path.is_file():
        raise LabError(f"No file '{path.name}' in '{path.parent.name}': it must hold one JSON object a line with 'document' and 'summary'.")
    examples, seen = [], set()
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            example = _example(json.loads(line.decode("utf-8")), default_id=f"{path.stem}-{number}")
            if example.id in seen:
                raise ValueError(f"the id '{example.id}' stands on an earlier line too")
        except (ValueError, UnicodeDecodeError) as error:
            raise LabError(f"{path.name}, line {number}: {_plain(error)}. Mend that line and run again.") from error
        seen.add(example.id)
        examples.append(example)
    if not examples:
        raise LabError(f"{path.name} holds no examples: it must have one JSON object a line.")
    return examples


def _example(row, default_id: str) -> Example:
    if not isinstance(row, dict):
        raise ValueError(f'expected an object like {{"document": ..., "summary": ...}}, found {type(row).__name__}')
    document = row.get("document", row.get("dialogue"))
    numbered = [row[key] for key in sorted(row) if key.startswith("summary") and key[7:].isdigit()]
    references = row.get("references") or numbered or [row.get("summary")]
    if not isinstance(references, list):
        raise ValueError("'references' must be a list of texts")
    for name, text in [("document", document), *(("summary", reference) for reference in references)]:
        if not isinstance(text, str):
            raise ValueError(f"no '{name}' text (found {', '.join(sorted(map(str, row))) or 'nothing'})")
        if not text.strip():
            raise ValueError(f"the {name} is empty")
    return Example(str(row.get("id", row.get("fname", default_id))), document, tuple(references), str(row.get("topic", "")))


def _plain(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg} at column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    return str(error)


def fingerprint(examples: Iterable[Example]) -> str:
    """First 16 hex digits of SHA-256 over ids, documents and references, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(asdict(example), sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def speakers(document: str) -> list[str]:
    """Speaker labels in order of appearance, for documents whose lines read `Speaker: words`."""
    labels = (line.split(":", 1)[0].strip() for line in document.splitlines() if ":" in line)
    return list(dict.fromkeys(labels))


def lead(document: str, turns: int = 3) -> str:
    """The first turns (or lines) of a document: the baseline that every summarizer must beat."""
    return "\n".join([line for line in document.splitlines() if line.strip()][:turns])
