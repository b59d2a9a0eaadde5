import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from lab_utils import cli, comparison, files, flagging, rating, report, runs
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
    "surrogate": "lone \ud800 end",
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
    run = runs.Run(files.make_folder(folder / method), {})
    run.save_predictions(predictions)
    run.add(**record(method, len(predictions), **changes))
    if method != "zero_shot":
        (run.folder / "log.csv").write_text(
            "step,epoch,loss,grad_norm,learning_rate,seconds,validation_loss\n0,0,,,,0,3.5\n1,1,3.25,1,0.1,1,\n1,1,,,,1,2.25\n"
        )


class Page(HTMLParser):
    """A page as a browser takes it apart."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.html = text
        self.tags, self.text, self.tables, self.styles, self.scripts, self.unguarded = [], [], [], [], [], []
        self.open = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "input"):
            self.open.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        inside = [tag for tag, _ in self.open]
        {"style": self.styles, "script": self.scripts}.get(inside[-1] if inside else "", self.text).append(data)
        if "td" in inside or "th" in inside:
            self.tables[-1][-1][-1] += data
        if "\u202e" in data and not any(tag == "bdi" or attributes.get("dir") == "auto" for tag, attributes in self.open):
            self.unguarded.append(data)

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    def table(self, first_cell):
        """Rows of the first table whose heading begins so, with single spaces."""
        found = next(table for table in self.tables if table[0][0] == first_cell)
        return [[" ".join(cell.split()) for cell in row] for row in found]


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
        "data": record("lora", len(answers))["data"] | {"name": ATTACK, "notes": [ATTACK + TEXTS["right-to-left"]]},
        "model": record("lora", 1)["model"] | {"name": TEXTS["right-to-left"] + ATTACK},
        "environment": {"device": ATTACK, "precision": ATTACK, "packages": {ATTACK: ATTACK}},
        "assignment": TEXTS["surrogate"] + TEXTS["control"],
    }
    for method in ("zero_shot", "lora"):
        save(folder, method, answers, **names)
    test = [Example(ids[name], text or "a document", ("short",)) for name, text in TEXTS.items()]
    return report.write(folder, test)


@pytest.fixture(scope="module")
def hostile_page(hostile):
    return Page(hostile.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Two methods on six documents with two references each."""
    folder = tmp_path_factory.mktemp("plain")
    references = ("harbour ship storm night", "night storm")
    answers = {"zero_shot": ["ship", "other", "", "ship", "other 7", ""], "lora": ["harbour ship", "storm night", "night"] * 2}
    for method, texts in answers.items():
        save(folder, method, [Prediction(f"d{i}", text, references, 1, method == "lora") for i, text in enumerate(texts)])
    test = [Example(f"d{i}", f"Ann: The ship {i} lies in the harbour.\nBen: Yes, all night.", references) for i in range(6)]
    return folder, test, page_of(folder, test)


@pytest.fixture(scope="module")
def facts(plain):
    return json.loads(json.dumps(report.build(*plain[:2])))


def examples_of(page):
    return [attributes for attributes in page.all("details") if attributes.get("class") == "example"]


# --- the page is harmless and needs nothing else


@pytest.mark.parametrize("which", ["hostile", "plain"])
def test_the_page_loads_and_links_nothing(request, which):
    page = request.getfixturevalue("hostile_page") if which == "hostile" else request.getfixturevalue("plain")[2]
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object", "embed", "base", "form", "video", "audio"})
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("srcset", "action", "style"), (tag, name)
            assert name != "href" or value.startswith("#"), (tag, value)
            assert name != "src" or value.startswith("data:image/svg+xml;base64,"), (tag, name)
    assert len(page.styles) == 1 and "url(" not in page.styles[0] and "@import" not in page.styles[0]


def test_the_one_script_is_the_templates_own_whatever_the_data(hostile_page, plain):
    assert hostile_page.all("script") == [{}] and len(hostile_page.scripts) == 1
    assert hostile_page.scripts == plain[2].scripts


def test_the_policy_allows_that_script_and_that_style_and_no_network(hostile_page):
    (policy,) = [m["content"] for m in hostile_page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    digests = {
        name: "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for name, (text,) in {"script-src": hostile_page.scripts, "style-src": hostile_page.styles}.items()
    }
    assert rules == {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'", **digests}


def test_hostile_texts_add_no_tags(hostile_page, plain):
    assert {tag for tag, _ in hostile_page.tags} <= {tag for tag, _ in plain[2].tags} and hostile_page.open == []
    assert len(examples_of(hostile_page)) == len(TEXTS)
    assert len(hostile_page.all("img")) == len(plain[2].all("img")) == 4


def test_hostile_texts_are_shown_letter_by_letter(hostile_page):
    # the title, the document, two answers and the reference; the long document stands with two answers and another reference
    counts = {name: hostile_page.text.count(TEXTS[name]) for name in ("emoji", "right-to-left")}
    assert counts == {"emoji": 5, "right-to-left": 5}
    assert sum(TEXTS["long"].strip() in text for text in hostile_page.text) == 3
    assert sum(TEXTS["style"].strip() in text for text in hostile_page.text) == 5
    assert sum(ATTACK in text for text in hostile_page.text) > 20


def test_characters_that_a_page_must_not_hold_are_shown_as_replaced(hostile):
    text = hostile.read_bytes().decode("utf-8")
    assert text.count("a\ufffdb\ufffdc") >= 4 and text.count("lone \ufffd end") >= 4
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text)


def test_direction_marks_in_a_text_cannot_reorder_what_stands_around_it(hostile_page):
    assert sum("\u202e" in text for text in hostile_page.text) >= 6 and hostile_page.unguarded == []
    assert '[dir="auto"], bdi { unicode-bidi: isolate }' in hostile_page.styles[0]


def test_an_empty_answer_is_shown_as_empty(hostile_page):
    assert hostile_page.text.count("(empty)") == 2


# --- the page can be read by everybody


def test_every_image_has_an_alternative_text_with_its_numbers(plain):
    scores, differences, cost, losses = (image["alt"] for image in plain[2].all("img"))
    assert "zero-shot 6.7 [" in scores and "LoRA 56.7 [" in scores and "one reference against the others 66.7 [66.7, 66.7]" in scores
    assert "LoRA against zero-shot 50.0 [" in differences and "LoRA" in cost and "at 1.5" in cost
    assert "LoRA: validation loss from 3.50 to 2.25" in losses


def test_the_page_says_its_language_and_its_characters(plain):
    page = plain[2]
    assert page.all("html") == [{"lang": "en"}] and {"charset": "utf-8"} in page.all("meta")


def test_headings_go_down_one_level_at_a_time(plain):
    levels = [int(tag[1]) for tag, _ in plain[2].tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_tables_have_captions_and_say_what_their_headings_head(plain):
    page = plain[2]
    assert len(page.all("caption")) == len(page.all("table")) >= 8
    assert {th["scope"] for th in page.all("th")} == {"col", "row"}


def test_every_link_of_the_contents_leads_to_a_heading(plain):
    page = plain[2]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a")} == {h["id"] for h in page.all("h2")}


# --- the page and the facts agree


def values(data):
    """All numbers and all strings in plain data."""
    if isinstance(data, dict | list):
        return [found for inner in (data.values() if isinstance(data, dict) else data) for found in values(inner)]
    return [] if data is None else [data]


def test_every_number_in_a_table_is_a_rounded_number_of_the_facts(plain, facts):
    strings = " ".join(value for value in values(facts) if isinstance(value, str))
    exact = [value for value in values(facts) if isinstance(value, int | float)]
    checked = 0
    for cell in (cell for table in plain[2].tables for row in table[1:] for cell in row[1:]):
        for sign, digits, percent in re.findall(r"([+-]?)(\d[\d,]*(?:\.\d+)?)(%?)", cell.replace("< 0.001", "")):
            decimals = len(digits.partition(".")[2])
            shown = float(f"{sign}{digits.replace(',', '')}")
            close = any(abs(value * (100 if percent else 1) - shown) <= 0.5000001 * 10**-decimals for value in exact)
            assert close or f"{sign}{digits}{percent}" in strings, cell
            checked += 1
    assert checked > 150


def test_the_table_of_scores_is_the_facts_as_a_reader_sees_them(plain, facts):
    rows = plain[2].table("System")[1:]
    assert [row[0] for row in rows] == [line["name"] for line in facts["systems"]]
    assert [row[0] for row in rows][-3:] == ["zero-shot", "LoRA", "one reference against the others"]
    for row, line, shown in zip(rows, facts["systems"], facts["table"], strict=True):
        i = line["scores"]["rouge1"]
        assert row[1] == f"{i['mean']:.1f} [{i['low']:.1f}, {i['high']:.1f}]" == shown["ROUGE-1"]


def test_the_table_of_pairs_shows_wins_p_values_and_what_could_be_detected(plain, facts):
    ((name, verdict, gap, counts, p, holm, detectable),) = plain[2].table("Pair")[1:]
    (d,) = facts["differences"]
    # F1 by hand, each the mean of a four-word and a two-word reference. zero-shot: one word of four (40) and 0; 0; 0.
    # LoRA: two of four (200/3) and 0; 200/3 and 100; 40 and 200/3. Twice.
    assert d["mean"] == pytest.approx((100 / 3 + 250 / 3 + 160 / 3 - 20) / 3)
    assert name == "LoRA against zero-shot" and gap == f"+50.0 [+{d['low']:.1f}, +{d['high']:.1f}]"
    assert counts == "6 / 0 / 0" and (d["wins"], d["ties"], d["losses"]) == (6, 0, 0)
    # of the 2**6 ways to swap names, two give a difference as large: none swapped, all swapped
    assert p == holm == "0.031" and d["p"] == d["p_holm"] == 2 / 64
    assert detectable == f"{d['detectable']:.1f}" and verdict == "better" and d["detected"]


def test_the_findings_stand_on_the_page(plain, facts):
    shown = " ".join(" ".join(plain[2].text).split())
    assert len(facts["findings"]) == 3 and all(sentence in shown for sentence in facts["findings"])


def test_the_facts_hold_neither_texts_of_the_data_nor_folders_nor_private_keys(plain, facts):
    written = json.dumps(facts)
    assert str(plain[0]) not in written and "harbour" not in written and not [key for key in facts if key.startswith("_")]
    assert facts["n"] == 6 and facts["protocol"]["package"] == "rouge-score"
    assert facts["examples"][0]["id"] == "d0" and facts["examples"][0]["rouge1"]["LoRA"] == pytest.approx(100 / 3)


def test_the_command_prints_the_same_facts_as_json(plain, facts, capsys, monkeypatch):
    folder, test, _ = plain
    monkeypatch.setattr(comparison, "test_examples", lambda run_dir, data_dir: test)
    assert cli.main(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == facts


def test_flags_are_counted_by_method_and_stand_with_their_summary(plain, facts):
    assert facts["flags"]["empty"] == {"zero-shot": 2, "LoRA": 0} and facts["flags"]["unstopped"] == {"zero-shot": 6, "LoRA": 0}
    assert plain[2].table("Flag")[1:] == [[kind, *map(str, counts.values())] for kind, counts in facts["flags"].items()]
    assert examples_of(plain[2])[2]["data-flags"] == "|empty|unstopped|" and list(facts["flags"]) == list(flagging.KINDS)


def test_turns_that_a_summary_leans_on_are_marked_and_named(plain):
    lines = [li for li in plain[2].all("li") if li.get("dir") == "auto"]
    # per document: two turns, two references. LoRA: "harbour ship" leans on the first turn, "storm night" and "night" on the second.
    marks = [[i for i, li in enumerate(lines[4 * d : 4 * d + 2]) if "data-l1" in li] for d in range(6)]
    assert marks == [[0], [1], [1]] * 2
    assert sum("leans on turn 2" in text for text in plain[2].text) == 4


def test_what_people_said_has_a_section_only_where_somebody_rated(plain, monkeypatch):
    folder, test, page = plain
    assert "What people said" not in page.text
    mark = {"mean": 4.25, "low": 3.5, "high": 4.75, "n": 5}
    people = {
        "findings": [f"Two people rated. {ATTACK}"],
        "scores": {"LoRA": {"fluency": mark, "faithfulness": None}},
        "errors": {"LoRA": {"n": 5, "share": {"mean": 0.4, "low": 0.2, "high": 0.6}}},
    }
    monkeypatch.setattr(rating, "results", lambda run_dir, systems: people)
    page = page_of(folder, test)
    assert page.text.count("What people said") == 2 and people["findings"][0] in page.text
    ((_, marks),) = [table for table in page.tables if table[0][-1] == "with an error"]
    assert [" ".join(cell.split()) for cell in marks] == ["LoRA", "4.2 [3.5, 4.8] n = 5", "", "40%"]


# --- records of other times


def test_without_the_test_set_what_needs_documents_is_left_out(plain):
    folder = plain[0]
    strangers = [Example("another", "Ann: Hello.", ("x",))]
    for test in (None, strangers):
        facts = report.build(folder, test)
        assert "lead-3" not in [row["system"] for row in facts["table"]]
        assert facts["flags"] is None and facts["groups"] is None and facts["late"] is None
    page = page_of(folder)
    assert "turns" not in [ol.get("class") for ol in page.all("ol")] and page.text.count("(empty)") == 2


def test_records_with_little_in_them_have_a_page_too(tmp_path):
    recipe = record("lora", 2)["config"]["recipe"]
    bare = {"config": {"recipe": {key: recipe[key] for key in ("prompt", "lengths", "generation")}}, "environment": {}}
    for method in ("zero_shot", "lora"):
        save(tmp_path, method, [Prediction(f"d{i}", "ship", ("ship",), 1, True) for i in range(2)], **bare)
    (tmp_path / "lora" / "log.csv").unlink()
    page = page_of(tmp_path)
    assert any("made by an older version" in text for text in page.text) and any("no training log" in text for text in page.text)


def test_records_with_infinite_numbers_and_half_characters_are_strict_json(tmp_path, capsys, monkeypatch):
    training = record("lora", 1)["training"] | {"last_loss": float("inf"), "validation_losses": [1.5, float("nan")]}
    save(tmp_path, "lora", [Prediction("d\ud800", "ship", ("ship",), 1, True)], training=training, assignment="half \ud800")
    monkeypatch.setattr(comparison, "test_examples", lambda run_dir, data_dir: None)
    assert cli.main(["report", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr().out
    printed.encode("utf-8")  # a terminal or file takes it
    (run,) = json.loads(printed, parse_constant=pytest.fail)["runs"]
    assert run["training"]["last_loss"] is None and run["training"]["validation_losses"] == [1.5, None]
    assert page_of(tmp_path).table("Value")


def test_a_record_of_another_version_is_reported_without_documents(plain, capsys):
    assert comparison.test_examples(plain[0]) is None  # the toy records name no model
    assert cli.main(["report", str(plain[0]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["flags"] is None


def test_bleu_and_chrf_stand_with_the_signature_of_their_protocol(tmp_path):
    text = "the ship leaves at night"
    save(tmp_path, "zero_shot", [Prediction("d0", text, (text, "no"), 5, True)])
    page = page_of(tmp_path)
    assert ["BLEU", "100.0 [100.0, 100.0]", ""] in page.table("Measure") and "nrefs:2|" in "".join(page.text)


def test_bertscore_stands_on_the_page_where_an_encoder_was_named(tmp_path, monkeypatch):
    save(tmp_path, "zero_shot", [Prediction(f"d{i}", "ship", ("ship",), 1, True) for i in range(2)])
    monkeypatch.setattr(report.encoder_score, "score", lambda predictions, encoder: [0.5] * len(predictions))
    path, _ = report.make(tmp_path, encoder="models/tiny-bert")
    page = Page(path.read_text(encoding="utf-8"))
    assert ["BERTScore", "0.50 [0.50, 0.50]"] in page.table("Measure") and "last layer of tiny-bert" in "".join(page.text)
    assert "BERTScore" not in "".join(page_of(tmp_path).text)


def test_what_keeps_meteor_away_is_said(tmp_path, monkeypatch):
    save(tmp_path, "zero_shot", [Prediction("d0", "ship", ("ship",), 1, True)])
    monkeypatch.setattr(report.companions, "meteor_missing", lambda: "METEOR is left out: no WordNet.")
    assert "METEOR is left out: no WordNet." in "".join(page_of(tmp_path).text)


def test_a_score_that_is_not_that_of_its_predictions_is_noted(plain, tmp_path):
    changed = {"protocol": {"package": "rouge-score"}, "rouge1": {"mean": 12.5, "low": 10.0, "high": 14.0}}
    save(tmp_path, "zero_shot", [Prediction(f"d{i}", "ship", ("ship",), 1, True) for i in range(2)], metrics=changed)
    (note,) = report.build(tmp_path)["notes"]
    assert "says 12.5 ROUGE-1; its predictions give 100.0" in note and report.build(plain[0])["notes"] == []


def test_values_of_the_records_that_differ_between_runs_are_told_apart(facts):
    shared, differing = facts["settings"]["shared"], facts["settings"]["differing"]
    assert shared["config.recipe.prompt.instruction"] == "Sum." and shared["environment.packages.torch"] == "2.13.0"
    assert differing["method"] == {"zero_shot": "zero_shot", "lora": "lora"} and differing["training.seconds"] == {"lora": 61.0}
    assert not [path for path in [*shared, *differing] if path.startswith("metrics")]


def test_long_logs_are_thinned_in_the_table_but_every_validation_stays():
    log = [{"step": i, "loss": float(i), "validation_loss": 0.5 if i in (7, 999) else None} for i in range(1000)]
    rows = dict(report._steps({"lora": log}))
    assert 30 <= len(rows) <= 33 and {7, 999} <= set(rows)
    assert rows[999] == {("lora", "loss"): 999.0, ("lora", "validation_loss"): 0.5}


# --- in a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=20000", "--dump-dom",
]  # fmt: skip


def in_browser(page, script, tmp_path, width=900):
    """What a script finds in the page, opened `width` wide in a frame; `d` is its document and `set` fills a control."""
    outer = tmp_path / "outer.html"
    outer.write_text(
        f"""<!doctype html><meta charset="utf-8"><pre id="out"></pre>
        <iframe id="frame" width="{width}" height="800" srcdoc="{html.escape(page)}"></iframe><script>
        frame.onload = () => {{
          const d = frame.contentDocument, w = frame.contentWindow;
          const set = (id, value) => {{
            d.getElementById(id).value = value;
            for (const name of ["input", "change"]) d.getElementById(id).dispatchEvent(new w.Event(name));
          }};
          const shown = () => [...d.querySelectorAll(".example:not([hidden])")].map(item => item.dataset.number).join("");
          out.textContent = JSON.stringify((() => {{ {script} }})());
        }}</script>""",
        encoding="utf-8",
    )
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", outer.as_uri()]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    return json.loads(html.unescape(re.search('<pre id="out">(.*?)</pre>', dumped, re.DOTALL)[1]))


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_the_filter_finds_words_and_flags_and_sorts(plain, tmp_path):
    found = in_browser(
        plain[2].html,
        """const seen = {all: shown()};
        set("filter-text", "SHIP 4"); seen.words = shown(); set("filter-text", "");
        set("filter-flag", "|empty|"); seen.empty = shown(); set("filter-flag", "any"); seen.any = shown(); set("filter-flag", "");
        set("filter-order", "spread"); seen.spread = shown(); set("filter-order", "0"); seen.worst = shown();
        set("filter-order", "order"); seen.order = shown();
        seen.count = d.getElementById("filter-count").textContent;
        const ground = () => w.getComputedStyle(d.querySelector("li[data-l1]:not([data-l0])")).backgroundColor;
        const grounds = [ground()]; d.getElementById("lean-0").checked = true; grounds.push(ground());
        seen.marked = grounds.map(color => color !== "rgba(0, 0, 0, 0)");
        return seen""",
        tmp_path,
    )
    # spread, LoRA minus zero-shot, by document: 40/3, 250/3, 160/3, twice; zero-shot's worst are the four zeros
    assert found == {
        "all": "012345", "words": "4", "empty": "25", "any": "012345", "spread": "142503", "worst": "124503", "order": "012345",
        "count": "6 of 6 shown", "marked": [True, False],
    }  # fmt: skip


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_without_its_script_the_page_shows_every_example_and_no_filter(plain, tmp_path):
    page = plain[2].html.replace("<script>", '<script type="none">')
    assert in_browser(page, 'return [shown(), w.getComputedStyle(d.getElementById("filter")).display]', tmp_path) == ["012345", "none"]


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_a_phone_shows_even_hostile_texts_without_moving_sideways(hostile, tmp_path):
    script = """for (const item of d.querySelectorAll("details")) item.open = true;
    return [d.documentElement.scrollWidth <= 360, d.querySelectorAll("script").length]"""
    assert in_browser(hostile.read_text(encoding="utf-8"), script, tmp_path, width=360) == [True, 1]


# --- what there is to report


def test_zero_shot_alone_has_a_report_without_differences(tmp_path):
    save(tmp_path, "zero_shot", [Prediction("d0", "ship", ("ship",), 1, True)])
    page = page_of(tmp_path)
    assert len(page.all("img")) == 1 and "(empty)" not in page.text


def test_one_document_alone_has_a_page_too(tmp_path):
    for method in ("zero_shot", "lora"):
        save(tmp_path, method, [Prediction("d0", "ship", ("ship",), 1, True)])
    test = [Example("d0", "Ann: ship.", ("ship",))]
    assert page_of(tmp_path, test).table("Pair")[1][3] == "0 / 1 / 0"


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
