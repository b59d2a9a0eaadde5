"""The doctor's report: as text, as JSON, and printed."""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import asdict

from lab_utils import environment, scrubbing
from lab_utils.doctor import advice, diagnosis, looking
from lab_utils.doctor.diagnosis import FAIL
from lab_utils.doctor.facts import Facts

WIDTH = 100


def report(facts: Facts | None = None, as_json: bool = False) -> bool:
    """Prints what this machine is, what works on it, and what to use; True unless something is broken.

    Args:
        facts: of another machine. as_json: facts, findings and advice as one object, without a token or a folder of this machine.
    """
    facts = facts or looking.gather(_say_aside if as_json else environment.say)
    print(json.dumps(as_values(facts), indent=2) if as_json else text(facts))
    return all(one.status != FAIL for one in diagnosis.findings(facts))


def _say_aside(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def text(facts: Facts) -> str:
    """The report in lines of at most `WIDTH` characters: findings, their cures and links, and the advice."""
    found = diagnosis.findings(facts)
    lines = []
    for one in found:
        head = f"{f'[{one.status}]':<7}{one.name:<11}"
        said = f"{one.text}. {one.cure[0].upper()}{one.cure[1:]}." if one.cure else one.text
        lines += _wrapped(head + said, " " * len(head))
        if one.link:
            lines.append(" " * len(head) + f"See {one.link}")
    lines.append("")
    if any(one.status == FAIL for one in found):
        lines.append("First mend what is marked [FAIL], and ask again. Then:")
    for sentence in advice.describe(advice.make(facts), diagnosis.where(facts)):
        lines += _wrapped(sentence, "  ")
    return "\n".join(lines)


def _wrapped(line: str, indent: str) -> list[str]:
    line = scrubbing.text(line)  # before a folder's name is broken in two
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def as_values(facts: Facts) -> dict:
    """Facts, findings and advice as JSON holds them."""
    found = [asdict(one) | {"link": one.link} for one in diagnosis.findings(facts)]
    return scrubbing.values({"facts": asdict(facts), "findings": found, "advice": asdict(advice.make(facts))})
