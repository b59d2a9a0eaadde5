"""The files of a run directory, and the notebooks beside it, as they may be handed in: read, scrubbed, and none too large."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab_utils.course import NOTEBOOKS
from lab_utils.errors import LabError
from lab_utils.scrubbing import Scrubber
from lab_utils.sheets import shown
from lab_utils.submissions import answers
from lab_utils.submissions.layout import ANSWERS, FILES_OF_A_METHOD, LARGEST, as_json, decoded, too_deep


@dataclass
class Collected:
    """The files of a submission as they will be packed, by name, and what is not among them."""

    run_dir: Path
    contents: dict[str, bytes] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    scrubber: Scrubber = field(default_factory=Scrubber)

    def add_method(self, method: str) -> Any:
        """Adds a method's files; returns its record, None where it has none that can be read."""
        record = None
        for name in FILES_OF_A_METHOD:
            inside = f"{method}/{name}"
            given = self._read(self.run_dir / method / name, inside)
            if given is None:
                continue
            self._add(inside, self._scrubbed(name, given))
            if name == "run.json":
                record = parsed(given)
                if not isinstance(record, dict):
                    self.missing.append(f"{inside} is no record: run {method} again.")
        return record

    def add_folder(self, folder: str, ending: str) -> None:
        """Adds the files with this ending in a folder of the run directory, by name."""
        for path in sorted((self.run_dir / folder).glob(f"[!.]*{ending}")):
            inside = f"{folder}/{path.name}"
            given = self._read(path, inside)
            if given is not None:
                self._add(inside, self._scrubbed(path.name, given))

    def add_notebooks(self, folder: str | Path | None, expected: Iterable[str]) -> None:
        """Adds the student's notebooks and, from their cells, the answers."""
        found = {}
        for name, path in _notebook_files(self.run_dir, folder):
            given = None if name in found else self._read(path, path.name, path.parent.resolve())
            if given is None:
                continue
            content = parsed(given)
            if not isinstance(content, dict):
                self.missing.append(f"{shown(path.name)} is left out, since it is no notebook: save it again.")
            elif folder is not None or answers.was_executed(content):
                found[name] = content
        for name in [notebook.name for notebook in NOTEBOOKS if notebook.name in found]:
            if not answers.was_executed(found[name]):
                self.missing.append(f"Notebook {name} is packed without outputs: run it, save it and pack again.")
            self._add(f"notebooks/{name}.ipynb", json.dumps(self.scrubber.notebook(found[name]), indent=1, ensure_ascii=False) + "\n")
        self.missing += [f"Notebook {name} is missing: run it, save it and pack again." for name in expected if name not in found]
        collected = {}
        for name, content in found.items():
            collected |= answers.of(name, content)
        if collected:
            self._add(ANSWERS, as_json(Scrubber().values(collected)).decode())  # counted already, in the notebooks

    def _read(self, path: Path, name: str, folder: Path | None = None) -> str | None:
        """The text of a file inside a folder, the run directory by default; None, and a reason unless there is none, where it stays out."""
        try:
            if not path.is_file():
                return None
            if not path.resolve().is_relative_to(folder or self.run_dir):
                self.missing.append(f"{shown(name)} is left out, since it is a link to another place: put the file itself there.")
                return None
            if path.stat().st_size > LARGEST:
                self._too_large(name)
                return None
            return decoded(path.read_bytes())
        except OSError as error:
            self.missing.append(f"{shown(name)} is left out, since it cannot be read ({error.strerror}).")
        except ValueError:
            self.missing.append(f"{shown(name)} is left out, since it is no UTF-8 text.")
        return None

    def _add(self, name: str, text: str) -> None:
        content = text.encode("utf-8", "backslashreplace")  # half of a surrogate pair, which JSON reads back from its escape
        if len(content) > LARGEST:
            self._too_large(name)
        else:
            self.contents[name] = content

    def _too_large(self, name: str) -> None:
        self.missing.append(f"{shown(name)} is left out, since it is larger than {LARGEST / 1e6:.0f} MB.")

    def _scrubbed(self, name: str, given: str) -> str:
        """A file's text without secrets. JSON is scrubbed value by value, since its escapes hide where a path begins."""
        if name.endswith(".jsonl"):
            return "\n".join(self._scrubbed_json(line, None) if line.strip() else line for line in given.split("\n"))
        return self._scrubbed_json(given, 2) + "\n" if name.endswith(".json") else self.scrubber.text(given)

    def _scrubbed_json(self, given: str, indent: int | None) -> str:
        try:
            return json.dumps(self.scrubber.values(json.loads(given)), indent=indent, ensure_ascii=False)
        except (ValueError, RecursionError):  # cut off, or not written by the lab: handed in as it is, and named by whoever reads it
            return self.scrubber.text(given)


def _notebook_files(run_dir: Path, folder: str | Path | None) -> Iterator[tuple[str, Path]]:
    """Name of the notebook and file, in the order in which they are preferred. Copies such as `03_lora (1).ipynb` count.

    Raises:
        LabError: the folder that was given is none.
    """
    if folder is not None and not Path(folder).is_dir():
        raise LabError(f"No folder '{folder}': give the one with your notebooks, for example --notebooks notebooks.")
    session = os.environ.get("JPY_SESSION_NAME")  # by which Jupyter tells a kernel the notebook that it belongs to
    beside = [Path(session).parent] if session else []
    for folders in [[Path(folder)]] if folder is not None else [[run_dir], beside, [Path(), Path("notebooks")]]:
        for notebook in NOTEBOOKS:
            found = [path for each in folders for path in each.glob(f"*{notebook.name}*.ipynb") if path.is_file() and path.name[0] != "."]
            for path in sorted(found, key=lambda path: (-path.stat().st_mtime, str(path))):
                yield notebook.name, path


def parsed(given: str) -> Any:
    """The value of a JSON text; None for what is no JSON, or nested beyond reason."""
    try:
        value = json.loads(given)
    except (ValueError, RecursionError):
        return None
    return None if too_deep(value) else value
