import json
from html.parser import HTMLParser

import pytest

from lab_utils import cli, report, runs
from lab_utils.data import Example
from lab_utils.errors import LabError
from lab_utils.generation import Prediction

ATTACK = '"><script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)>&amp;'
LONG = "word " * 20_000
TEXTS = {
    "script": ATTACK,
    "style": "</style></pre></details></body><!-- ",
    "emoji": "👩‍🚀 is late 🛥️",
    "right-to-left": "הסירה מאחרת \u202e abc \u2067",
    "long": LONG,
    "control": "a\x00b\x07c",
    "empty": "",
}


def record(method, count, **changes):
    """What a finished run's record holds, as far as the report reads it."""
    training = {"seconds": 61.0, "peak_memory_gb": 1.5, "steps": 2, "first_loss": 3.0, "last_loss": 2.0}
    return {
        "status": "finished",
        "method": method,
        "recipe": "toy",
        "seed": 0,
        "model": {"name": "toy model", "fingerprint": "m", "parameters": 990, "trainable_parameters": 10, "checkpoint_mb": 4.0},
        "data": {"name": "toy data", "fingerprint": "d", "train": 9, "test": count},
        "config": {"recipe": {"prompt": {"instruction": "Sum."}, "lengths": {"document_tokens": 9}, "generation": {"max_new_tokens": 8}}},
        "environment": {"device": "CPU", "precision": "float32", "packages": {"torch": "2.13.0"}},
        "generation": {"stopped_share": 1.0, "peak_memory_gb": 1.0},
        "metrics": {"protocol": {"package": "rouge-score", "stemmer": True}},
        **({"training": training} if method != "zero_shot" else {}),
        **changes,
    }


def save(folder, method, predictions, **changes):
    run = runs.Run(runs.make_folder(folder / method), {})
    run.save_predictions(predictions)
    run.add(**record(method, len(predictions), **changes))
    if method != "zero_shot":
        (run.folder / "log.csv").write_text(
            "step,epoch,loss,grad_norm,learning_rate,seconds,validation_loss\n0,0,,,,0,3.5\n1,1,3.25,1,0.1,1,\n1,1,,,,1,2.25\n"
        )


class Page(HTMLParser):
    """A page as a browser takes it apart."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.cells, self.styles = [], [], [], []
        self.open = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        self.open = self.open[: len(self.open) - 1 - self.open[::-1].index(tag)] if tag in self.open else self.open

    def handle_data(self, data):
        (self.styles if "style" in self.open else self.text).append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def page_of(folder, test=None):
    return Page(report.write(folder, test).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Every hostile text as id, document, answer and reference, and in the names of a run."""
    folder = tmp_path_factory.mktemp("hostile")
    ids = {name: f"{name} {ATTACK}" if name != "long" else "long" for name in TEXTS}
    answers = [Prediction(ids[name], text, (text if name not in ("long", "empty") else "short",), 1, True) for name, text in TEXTS.items()]
    names = {
        "recipe": ATTACK,
        "data": record("lora", len(answers))["data"] | {"name": ATTACK},
        "model": record("lora", 1)["model"] | {"name": ATTACK},
        "environment": {"device": ATTACK, "precision": ATTACK, "packages": {ATTACK: ATTACK}},
        "metrics": {"protocol": {ATTACK: ATTACK}},
    }
    for method in ("zero_shot", "lora"):
        save(folder, method, answers, **names)
    test = [Example(ids[name], text or "a document", ("short",)) for name, text in TEXTS.items()]
    return Page(report.write(folder, test).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Two methods on three documents with two references each."""
    folder = tmp_path_factory.mktemp("plain")
    references = ("harbour ship storm night", "night storm")
    for method, answers in (("zero_shot", ["ship", "other", ""]), ("lora", ["harbour ship", "storm night", "night"])):
        save(folder, method, [Prediction(f"d{i}", text, references, 1, True) for i, text in enumerate(answers)])
    test = [Example(f"d{i}", f"Ann: The ship {i}.\nBen: Yes.", references) for i in range(3)]
    return folder, test, page_of(folder, test)


# --- the page is harmless and needs nothing else


@pytest.mark.parametrize("which", ["hostile", "plain"])
def test_the_page_loads_and_links_nothing(request, which):
    page = request.getfixturevalue(which)
    page = page if which == "hostile" else page[2]
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "a", "form", "video", "audio"})
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("href", "srcset", "action", "style"), (tag, name)
            assert name != "src" or value.startswith("data:image/png;base64,"), (tag, name)
    assert len(page.styles) == 1 and "url(" not in page.styles[0] and "@import" not in page.styles[0]


def test_hostile_texts_add_no_tags(hostile):
    assert {tag for tag, _ in hostile.tags} == {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "ul", "li", "div", "table", "thead", "tbody", "tr", "th", "td",
        "figure", "img", "details", "summary", "pre", "dl", "dt", "dd",
    }  # fmt: skip
    assert len(hostile.all("details")) == len(hostile.all("pre")) == len(TEXTS)
    assert len(hostile.all("img")) == 4 and hostile.open == []


def test_hostile_texts_are_shown_letter_by_letter(hostile):
    # the document, two answers and the reference; the long reference is another text, the script is the protocol's name and value too
    expected = {"script": 4 + 2, "style": 4, "emoji": 4, "right-to-left": 4, "long": 3}
    assert {name: hostile.text.count(TEXTS[name]) for name in expected} == expected
    assert sum(ATTACK in text for text in hostile.text) > 10


def test_an_empty_answer_is_shown_as_empty(hostile):
    assert hostile.text.count("(empty)") == 2


def test_long_lines_wrap_instead_of_widening_the_page(hostile):
    assert "white-space: pre-wrap" in hostile.styles[0] and "overflow-x: auto" in hostile.styles[0]


def test_every_image_has_an_alternative_text_with_its_numbers(plain):
    page = plain[2]
    texts = [image["alt"] for image in page.all("img")]
    assert len(texts) == 4
    scores, differences, cost, losses = texts
    assert "zero-shot 6.7 [" in scores and "LoRA 56.7 [" in scores and "one reference against the others 66.7 [66.7, 66.7]" in scores
    assert "LoRA against zero-shot 50.0 [" in differences and "LoRA" in cost and "at 1.5" in cost
    assert "LoRA: validation loss from 3.50 to 2.25" in losses


def test_the_page_says_its_language_and_its_characters(plain):
    page = plain[2]
    assert page.all("html") == [{"lang": "en"}] and {"charset": "utf-8"} in page.all("meta")


# --- the page and the facts agree


def test_the_tables_cells_are_the_facts(plain):
    folder, test, page = plain
    rows = report.build(folder, test)["table"]
    expected = [*rows[0], *("" if value is None else str(value) for row in rows for value in row.values())]
    assert page.cells == expected
    assert [row["system"] for row in rows] == ["lead-3", "zero-shot", "LoRA", "one reference against the others"]


def test_the_findings_stand_on_the_page(plain):
    folder, test, page = plain
    findings = report.build(folder, test)["findings"]
    assert len(findings) == 3 and all(sentence in page.text for sentence in findings)


def test_the_facts_are_plain_data_with_the_differences_of_the_findings(plain):
    facts = report.build(*plain[:2])
    public = json.loads(json.dumps({key: value for key, value in facts.items() if not key.startswith("_")}))
    (difference,) = public["differences"]
    assert difference["pair"] == "LoRA against zero-shot" and difference["win_tie_loss"] == [3, 0, 0]
    # F1 by hand, each the mean of a four-word and a two-word reference. zero-shot: one word of four (40) and 0; 0; 0.
    # LoRA: two of four (200/3) and 0; 200/3 and 100; 40 and 200/3.
    assert difference["mean"] == pytest.approx((100 / 3 + 250 / 3 + 160 / 3 - 20) / 3)
    assert public["protocol"] == {"package": "rouge-score", "stemmer": True, "n": 3}
    assert f"better by {difference['mean']:.1f} points" in public["findings"][0]


def test_the_command_prints_the_same_facts_as_json(plain, capsys, monkeypatch):
    folder, test, _ = plain
    monkeypatch.setattr(cli, "test_examples", lambda run_dir, data_dir: test)
    assert cli.main(["report", str(folder), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    facts = report.build(folder, test)
    assert printed == {key: json.loads(json.dumps(value)) for key, value in facts.items() if not key.startswith("_")}


def test_without_the_test_set_documents_and_lead_3_are_left_out(plain, tmp_path):
    folder = plain[0]
    strangers = [Example("another", "Ann: Hello.", ("x",))]
    for test in (None, strangers):
        facts = report.build(folder, test)
        assert "lead-3" not in [row["system"] for row in facts["table"]] and facts["_documents"] == {}


def test_zero_shot_alone_has_a_report_without_differences(tmp_path):
    save(tmp_path, "zero_shot", [Prediction("d0", "ship", ("ship",), 1, True)])
    page = page_of(tmp_path)
    assert len(page.all("img")) == 1 and "(empty)" not in page.text


def test_unfinished_runs_are_left_out(plain, tmp_path):
    predictions = [Prediction("d0", "ship", ("ship",), 1, True)]
    save(tmp_path, "zero_shot", predictions)
    save(tmp_path, "lora", predictions, status="failed")
    assert [row["system"] for row in report.build(tmp_path)["table"]] == ["zero-shot"]


def test_a_folder_without_runs_is_one_sentence(tmp_path):
    with pytest.raises(LabError, match="No finished run") as caught:
        report.write(tmp_path)
    assert "\n" not in str(caught.value) and not (tmp_path / "report.html").exists()


def test_a_log_is_read_as_numbers_with_empty_cells_as_none(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss,validation_loss\n0,,3.5\n1,2.25,\n", encoding="utf-8")
    assert report.read_log(tmp_path / "log.csv") == [
        {"step": 0, "loss": None, "validation_loss": 3.5},
        {"step": 1, "loss": 2.25, "validation_loss": None},
    ]
