"""What a submission is held against: what was assigned, the data, what most of the class has, and what the lab recorded itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from lab_utils import data, expected, plan, sources
from lab_utils.config import Data, Settings
from lab_utils.errors import LabError
from lab_utils.submissions.records import at, finished, number, writable

if TYPE_CHECKING:
    from lab_utils.assignments import Assignment
    from lab_utils.submissions.reading import Submission

FEWEST = 3  # submissions that make a majority worth the name


@dataclass
class Expectations:
    """What one class is held against. Data is read when it is first asked for, and once."""

    assignment: Assignment
    votes: dict[tuple, Counter[str]] = field(default_factory=dict, repr=False)
    _settings: dict[str | None, dict[str, Settings]] = field(default_factory=dict, repr=False)
    _values: dict[str | None, dict[str, dict]] = field(default_factory=dict, repr=False)
    _corpora: dict[Data, data.Corpus | None] = field(default_factory=dict, repr=False)

    @cached_property
    def exercises(self) -> dict[str, float]:
        """Points of each exercise that counts."""
        return self.assignment.exercises

    @cached_property
    def notebooks(self) -> list[str]:
        """Names of the notebooks that were handed out."""
        return [notebook.name for notebook in self.assignment.notebooks]

    @cached_property
    def methods(self) -> list[str]:
        """Those whose notebooks were handed out."""
        return [notebook.method for notebook in self.assignment.notebooks if notebook.method]

    def settings(self, student: str) -> dict[str, Settings]:
        """What each method's run of this student should be."""
        who = self._key(student)
        if who not in self._settings:
            self._settings[who] = self.assignment.settings(who)
        return self._settings[who]

    def values(self, student: str) -> dict[str, dict[str, Any]]:
        """Every parameter of this student's notebooks, by notebook."""
        who = self._key(student)
        if who not in self._values:
            self._values[who] = self.assignment.values(who)
        return self._values[who]

    def _key(self, student: str) -> str | None:
        return writable(student) if self.assignment.varies else None

    def corpus(self, spec: Data) -> data.Corpus | None:
        """The data that was assigned; None where it cannot be read here without a network."""
        if spec not in self._corpora:
            self._corpora[spec] = _corpus(spec)
        return self._corpora[spec]

    def usual(self, what: str, settings: Settings) -> str | None:
        """The fingerprint that more than half of the class have under these settings; None where there is no such majority.

        Args:
            what: "model" or "data".
        """
        votes = self.votes.get(_ballot(what, settings), Counter())
        if votes.total() < FEWEST:
            return None
        [(found, count)] = votes.most_common(1)
        return found if 2 * count > votes.total() else None


def expect(submissions: Iterable[Submission], assignment: Assignment) -> Expectations:
    """What a class shares, for `verify`: every submission has one vote on the fingerprints of base model and test set."""
    found = Expectations(assignment)
    for submission in submissions:
        settings, own = found.settings(submission.student), set()
        for method, record in finished(submission, settings).items():
            for what in ("model", "data"):
                fingerprint = at(record, f"{what}.fingerprint")
                if isinstance(fingerprint, str):
                    own.add((_ballot(what, settings[method]), fingerprint))
        for ballot, fingerprint in own:
            found.votes.setdefault(ballot, Counter())[fingerprint] += 1
    return found


def _ballot(what: str, settings: Settings) -> tuple:
    """Those settings that decide the fingerprint: whoever shares them should share it."""
    if what == "model":
        return what, settings.recipe.model.source, settings.recipe.model.revision
    spec = settings.recipe.data
    drawn = spec.data_seed if spec.test_examples or spec.test_from != "test" else None
    return (
        what,
        spec.model_copy(update={"train_examples": None, "validation_examples": None, "keep_overlaps": False, "data_seed": 0}),
        drawn,
    )


def _corpus(spec: Data) -> data.Corpus | None:
    if sources.is_hub_id(spec.source):
        from huggingface_hub import constants

        if not constants.HF_HUB_OFFLINE:
            return None
    try:
        return data.load(spec)
    except LabError:  # marking goes on: what most of the class has stands in its place
        return None


@cache
def recorded(recipe: str, method: str) -> dict | None:
    """The lab's own record of a recipe's method; None where there is none."""
    path = expected.RECORDED / recipe / method / "run.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


@dataclass
class Case:
    """One submission with what it is held against, as every check gets it."""

    submission: Submission
    assignment: Assignment
    expectations: Expectations

    @cached_property
    def settings(self) -> dict[str, Settings]:
        """What each method's run should be."""
        return self.expectations.settings(self.submission.student)

    @cached_property
    def finished(self) -> dict[str, dict]:
        """The finished records of the assigned methods."""
        return finished(self.submission, self.settings)

    @cached_property
    def trained(self) -> dict[str, dict]:
        """The same without the baseline."""
        return {method: record for method, record in self.finished.items() if method != "zero_shot"}

    def corpus(self, method: str) -> data.Corpus | None:
        """The assigned data."""
        return self.expectations.corpus(self.settings[method].recipe.data)

    def rows(self, method: str) -> list[dict]:
        """The method's summaries."""
        return self.submission.predictions.get(method, [])

    def steps(self, method: str) -> int | None:
        """Optimizer steps that the settings ask for with all training documents; None where their number is not known."""
        corpus, own = self.corpus(method), number(at(self.finished.get(method), "data.train"))
        documents = len(corpus.train) if corpus else int(own or 0)
        return plan.optimizer_steps(self.settings[method], documents) if documents > 0 and self.settings[method].training else None
