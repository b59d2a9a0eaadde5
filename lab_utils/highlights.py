"""A document with the words marked that a summary rests on, to be read without colours and on a phone."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab_utils.sheets import printable
from lab_utils.texts import words
from lab_utils.tracing import Pieces, traced

_RESTS = '<mark style="background: #cfe3f3; color: #000; border-bottom: 2px solid #0072B2"><b>{}</b></mark>'
_STRANGE = '<em style="background: #fbe5cf; color: #000; border-bottom: 2px dashed #a34700">{}</em>'
_TEXT = '<div dir="auto" style="white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.7; margin-top: 0.5em">{}</div>'
_MOST = 8  # turns or words that a caption lists


@dataclass(frozen=True)
class Highlights:
    """The marked texts. As the last line of a cell it shows itself; as plain text, marked words stand in brackets."""

    name: str
    turns: list[Pieces]  # or sentences, of a text in one line
    summary: Pieces

    @property
    def caption(self) -> str:
        """What the marks show, for those who do not see them."""
        everything = sum(len(words("".join(text for text, _ in turn))) for turn in self.turns)
        marked = [sum(on for _, on in turn) for turn in self.turns]
        places = [str(number) for number, count in enumerate(marked, 1) if count]
        where = f", in passage{'s' if len(places) > 1 else ''} {_listed(places)} of {len(self.turns)}" if places else ""
        strange = list(dict.fromkeys(text for text, on in self.summary if on))
        nowhere = f"Nowhere in the document: {_listed(strange)}." if strange else "Each of its content words stands in the document."
        return f"{self.name}: the summary rests on {sum(marked)} of the document's {everything} words{where}. {nowhere}"

    def __repr__(self) -> str:
        document = "\n".join(_joined(turn, "[{}]".format) for turn in self.turns)
        return f"{self.caption}\n\n{document}\n\nsummary: {_joined(self.summary, '({}?)'.format)}"

    def _repr_html_(self) -> str:
        document = "\n".join(_joined(turn, _RESTS.format, html.escape) for turn in self.turns)
        summary = _joined(self.summary, _STRANGE.format, html.escape)
        return (
            '<figure class="tex2jax_ignore mathjax_ignore" style="max-width: 42em; margin: 0">'
            f"<figcaption>{html.escape(printable(self.caption))} {_RESTS.format('Bold')}: the summary rests on this word. "
            f"{_STRANGE.format('Slanted')}: a word of the summary that stands nowhere in the document.</figcaption>"
            f"{_TEXT.format(document)}{_TEXT.format(f'<b>summary:</b> {summary}')}</figure>"
        )


def mark(summary: str, document: str, name: str) -> Highlights:
    """The document's words on which this summary rests, by `tracing.traced`: where words come from, not what a model attended to."""
    return Highlights(name, *traced(summary, document))


def _joined(pieces: Pieces, marked: Callable[[str], str], shown: Callable[[str], str] = str) -> str:
    return "".join(marked(shown(printable(text))) if on else shown(printable(text)) for text, on in pieces)


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _MOST} more" if len(items) > _MOST else ""
    return f"{', '.join(items[:_MOST])}{more}"
