"""The pages beside the notebooks: every term is explained, every source is named, and nothing is named that does not exist."""

import ast
import functools
import importlib
import json
import re
import shlex
from pathlib import Path

import jupytext
import pytest

from lab_utils import adapters, bootstrap, cli, config, course, data, expected, methods, models, plots, readme, runner, runs

NOTEBOOKS = bootstrap.ROOT / "notebooks"
PAGES = {name: (NOTEBOOKS / f"{name}.md").read_text(encoding="utf-8") for name in ("GLOSSARY", "TROUBLESHOOTING", "READING")}
README = (bootstrap.ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = {course.source(notebook).stem: course.source(notebook) for notebook in course.NOTEBOOKS}
EACH_PAGE = pytest.mark.parametrize("page", PAGES)
EACH_NOTEBOOK = pytest.mark.parametrize("notebook", SOURCES)


@functools.cache
def markdown(notebook):
    """The markdown cells that students get to read first: no answers, no notes for instructors."""
    cells = jupytext.read(SOURCES[notebook]).cells
    return [c.source for c in cells if c.cell_type == "markdown" and not {"solution", "instructor"} & set(c.metadata.get("tags", []))]


def folded(text):
    """Lower case, in one line."""
    return " ".join(text.split()).casefold()


# --- the glossary -------------------------------------------------------------------------------------------------------------

ENTRY = re.compile(r'<a id="(.+?)"></a>\n\*\*(.+?)\*\*(?: \(also (.+?)\))?: (.+) \(\[(\d\d)\]\((.+?)\.ipynb\)\)\n')
ENTRIES = ENTRY.findall(PAGES["GLOSSARY"])
KNOWN = {folded(name) for _, term, also, *_ in ENTRIES for name in (term, *filter(None, also.split(", ")))}

# A bold phrase in a notebook introduces a term, and stands in the glossary, unless it
# - stands in a table, or has a line to itself, such as **Questions**,
# - ends with a colon, full stop or question mark and is no item of a list: a label, such as **Predict:**,
# - is a single letter,
# - is stressed, not introduced:
STRESSED = {
    "0.127 bits", "0.5 bits a weight", "0.516 bytes", "16-bit copy", "all", "and the end token after it", "both", "break",
    "copy", "equally good", "exercises", "higher", "hints", "kind", "last", "late",
    "left to generate with a decoder, right to train", "log", "more", "new", "next", "on the same document", "one",
    "one and the same run directory", "predict", "python", "rate that is too high", "sign", "smallest", "stop", "symptom",
    "symptoms", "these trained models", "unfair",
}  # fmt: skip


def introduced(cell):
    """The terms that a markdown cell introduces."""
    for found in re.finditer(r"\*\*([^*]+?)\*\*", cell):
        line = cell[cell.rfind("\n", 0, found.start()) + 1 : found.end()]
        alone = re.fullmatch(r"\*\*.+\*\*", cell[cell.rfind("\n", 0, found.start()) + 1 :].split("\n")[0])
        label = found[1].rstrip()[-1] in ":.?" and not line.startswith("- **")
        term = re.sub(r"^(a|an|the) |[:.,?]+$", "", folded(found[1]))
        if not (line.startswith("|") or alone or label or len(term) == 1 or term in STRESSED):
            yield term


def test_the_rule_tells_terms_from_labels_and_tables():
    cell = "The **end\ntoken** and **Predict:** what?\n\n- **a seed:** x\n\n| **You will** | y |\n\n**Questions**\n\nall **of** them"
    assert list(introduced(cell)) == ["end token", "seed", "of"]


@EACH_NOTEBOOK
def test_every_term_that_a_notebook_introduces_is_in_the_glossary(notebook):
    missing = {term for cell in markdown(notebook) for term in introduced(cell)} - KNOWN
    assert not missing, "explain them in notebooks/GLOSSARY.md, or add them to STRESSED"


def test_the_glossary_is_sorted_and_every_entry_is_read():
    terms = [term.casefold() for _, term, *_ in ENTRIES]
    assert terms == sorted(terms)
    assert len(ENTRIES) == PAGES["GLOSSARY"].count("<a id=") == len(set(terms))


@pytest.mark.parametrize(("anchor", "term", "also", "text", "number", "notebook"), ENTRIES, ids=[entry[0] for entry in ENTRIES])
def test_an_entry_has_its_anchor_and_a_notebook_that_uses_the_term(anchor, term, also, text, number, notebook):
    assert anchor == re.sub(r"\W+", "-", term.casefold().replace("'", ""))
    assert notebook.startswith(number)
    source = folded(" ".join(line.lstrip("# ") for line in SOURCES[notebook].read_text(encoding="utf-8").splitlines()))
    assert any(folded(name) in source for name in (term, *filter(None, also.split(", "))))
    assert len(re.findall(r"[.?](?= |$)", text)) <= 2


# --- reading ------------------------------------------------------------------------------------------------------------------

CITED = re.compile(r"([A-Z][\w'’-]+)(?: et al\.| and [A-Z][\w'’-]+)?,? \(?((?:19|20)\d\d)\b")
HEADS = [f"{name} {year}" for name, year in re.findall(r"^- \*\*(\S+).*? (\d{4})\.\*\* ", PAGES["READING"], re.M)]


def cited(text):
    """First author and year of the works that a text cites: `(Lin 2004, ...)`, `Hu et al. (2021)`."""
    text = " ".join(text.split())
    return {f"{found[1]} {found[2]}" for found in CITED.finditer(text) if "et al." in found[0] or text[found.start() - 1] in "(;"}


def test_a_citation_is_told_from_a_date():
    assert cited("In May 2024 (Lin 2004, 'ROUGE') and Hu et al. (2021) with (Loshchilov and Hutter 2019, x)") == {
        "Lin 2004",
        "Hu 2021",
        "Loshchilov 2019",
    }


@EACH_NOTEBOOK
def test_every_work_that_a_notebook_cites_is_in_the_reading_list(notebook):
    works = set().union(*map(cited, markdown(notebook)))
    assert works <= set(HEADS), "add it to notebooks/READING.md"


def test_works_that_the_readme_and_the_pages_cite_are_in_the_reading_list():
    assert cited(README) | cited(PAGES["GLOSSARY"]) | cited(PAGES["TROUBLESHOOTING"]) <= set(HEADS)


def test_every_work_in_the_reading_list_says_what_to_read_and_where_most_can_be_had():
    items = re.split(r"^- ", PAGES["READING"], flags=re.M)[1:]
    assert len(items) == len(HEADS) == len(set(HEADS))
    for item in items:
        head, _, why = item.partition("\n")
        assert head.count('"') == 2, head
        assert why.startswith("  ") and len(re.findall(r"[.?](?= |$)", why.split("\n\n")[0].strip())) >= 2, head
        for number, address in re.findall(r"\[arXiv:(.+?)\]\((.+?)\)", head):
            assert re.fullmatch(r"\d{4}\.\d{5}|\d{4}\.\d{4}", number) and address == f"https://arxiv.org/abs/{number}"
        for number, address in re.findall(r"\[ACL (.+?)\]\((.+?)\)", head):
            assert address == f"https://aclanthology.org/{number}"
    assert sum("](https://" in item for item in items) > 0.9 * len(items)


# --- troubleshooting ----------------------------------------------------------------------------------------------------------

TROUBLE = PAGES["TROUBLESHOOTING"]
FENCES = re.findall(r"^```(\w*)\n(.*?)^```", TROUBLE, re.M | re.S)
PYTHON = [code for language, code in FENCES if language == "python"]
SPANS = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", re.sub(r"^```.*?^```", "", TROUBLE, flags=re.M | re.S))
COMMANDS = [line for text in [*(code for language, code in FENCES if not language), *SPANS] for line in text.splitlines() if line]
COMMANDS = [line for line in COMMANDS if re.match(r"(lab|make) [a-z]", line)]
PARAMETERS = set(config.recipe_parameters()) | {name for notebook in course.NOTEBOOKS for name in course.parameters_of(notebook)}
OBJECTS = {"base": models.Base, "corpus": data.Corpus, "run": runs.Run, "settings": config.Settings}


def modules():
    return {path.stem for path in Path(cli.__file__).parent.glob("*.py")}


def test_there_are_commands_and_code_to_check():
    assert len(COMMANDS) > 10 and len(PYTHON) > 15


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_parses_and_its_parameters_exist(command):
    program, *words = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (bootstrap.ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        values = dict(word.split("=", 1) for word in words[1:])
        assert words[0] in targets and set(values) <= {"RECIPE", "ASSIGNMENT", "P", "OUT", "FRESH", "PIP_ARGS"}
        parameters = runner.parse_assignments(values.get("P", "").split())
        assert parameters.keys() <= {name for notebook in course.NOTEBOOKS for name in course.parameters_of(notebook)}
        return
    if len(words) == 1:  # only its name
        with pytest.raises(SystemExit, match="0"):
            cli.parser().parse_args([*words, "--help"])
        return
    arguments = cli.parser().parse_args(words)
    parameters = runner.parse_assignments(getattr(arguments, "parameters", []))
    if getattr(arguments, "recipe", None):
        config.resolve(arguments.recipe, getattr(arguments, "method", None) or "zero_shot", **parameters)


@pytest.mark.parametrize("name", sorted({span for span in SPANS if re.fullmatch(r"[a-z]\w*=\S+", span)}))
def test_a_setting_that_the_page_writes_out_is_a_parameter(name):
    assert name.split("=")[0] in PARAMETERS | {"do_sample"}  # of transformers' generate


@pytest.mark.parametrize("code", [*PYTHON, *(span for span in SPANS if re.match(r"[a-z_]+\.[A-Za-z]", span))])
def test_what_the_page_calls_exists(code):
    if re.fullmatch(r"\w+\.(csv|json|html)", code):  # a file
        return
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, name = node.value.id, node.attr
            if owner in OBJECTS:
                fields = {field for kind in OBJECTS[owner].__mro__ for field in getattr(kind, "__annotations__", {})}
                assert name in fields or hasattr(OBJECTS[owner], name), f"{owner}.{name}"
            elif owner in modules():
                assert hasattr(importlib.import_module(f"lab_utils.{owner}"), name), f"{owner}.{name}"
        if isinstance(node, ast.ImportFrom) and node.module.startswith("lab_utils"):
            for alias in node.names:
                imported = importlib.import_module(node.module)
                assert hasattr(imported, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What a cell of notebook 03 finds there, with the smallest recipe."""
    run_dir = tmp_path_factory.mktemp("trouble")
    for method in ("zero_shot", "lora"):
        methods.run(config.resolve("tiny-causal", method), run_dir)
    settings = config.resolve("tiny-causal", "lora")
    base = models.load(settings)
    found = {"settings": settings, "run_dir": str(run_dir), "base": base, "corpus": data.load(settings.recipe.data)}
    exec(PYTHON[0], found)
    return found | {"peft_model": adapters.attach_lora(base)}


@pytest.mark.parametrize("code", PYTHON, ids=[code.splitlines()[-1][:50] for code in PYTHON])
def test_the_lines_that_confirm_a_symptom_run(names, code, capsys):
    exec(code, dict(names))
    assert capsys.readouterr().out or code == PYTHON[0]


def test_what_the_page_reads_from_a_record_is_there():
    recorded = json.loads((expected.RECORDED / "smollm2-everyday/lora/run.json").read_text(encoding="utf-8"))
    paths = re.findall(r'record((?:\["?[\w.]+"?\])+)', " ".join(PYTHON))
    assert len(paths) > 8
    for path in paths:
        value = recorded
        for key in re.findall(r'\["?([\w.]+)"?\]', path):
            value = value["lora" if key == "settings.method" else key]


@pytest.mark.parametrize("notebook", SOURCES)
def test_a_break_it_cell_that_the_page_quotes_is_a_heading_of_that_notebook(notebook):
    headings = [line.lstrip("# ").casefold() for cell in markdown(notebook) for line in cell.splitlines() if line.startswith("#")]
    quoted = re.findall(rf"\[{notebook[:2]}\]\({notebook}\.ipynb\)((?:, (?:and )?\"[^\"]+\")+)", " ".join(TROUBLE.split()))
    titles = {folded(title) for some in quoted for title in re.findall(r'"([^"]+)"', some)}
    if not any(heading.startswith("break it") for heading in headings):
        titles = {title for title in titles if not title.startswith("break it")}
    assert titles <= set(headings)


# --- links --------------------------------------------------------------------------------------------------------------------


def anchors(page):
    """Anchors of a page: those written out, and those that its headings get on GitHub."""
    headings = re.findall(r"^#+ (.+)$", page, re.M)
    slugs = (re.sub(r"[^\w -]", "", heading.casefold()).replace(" ", "-") for heading in headings)
    return {*re.findall(r'<a id="(.+?)"', page), *slugs}


@EACH_PAGE
def test_links_of_the_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
        file, _, anchor = target.partition("#")
        assert not file or (NOTEBOOKS / file).exists(), target
        if anchor:
            assert anchor in anchors((NOTEBOOKS / file).read_text(encoding="utf-8") if file else PAGES[page]), target


def test_every_symptom_is_in_the_list_at_the_top():
    top, *_ = TROUBLE.partition("\n## ")
    symptoms = anchors(TROUBLE.replace("# Troubleshooting by symptom", "", 1))
    assert {target for target in re.findall(r"\]\(#(.+?)\)", top)} == symptoms


@EACH_PAGE
def test_the_readme_links_to_the_page(page):
    assert f"(notebooks/{page}.md" in README


# --- claims -------------------------------------------------------------------------------------------------------------------

METHODS = "|".join(sorted(plots.METHOD_NAMES.values(), key=len, reverse=True))
SCORE = re.compile(r"(ROUGE-[12L])(?: score)?(?: of| is|:|,)? (?:about )?(\d+\.\d)(?! points)|(\d+\.\d) (?:in |points of )?(ROUGE-[12L])")


def outside_blocks(text):
    """A document without its generated blocks."""
    return re.sub(r"<!-- (.+?) -->.*?<!-- /\1 -->", "", text, flags=re.S)


def claims(text):
    """Scores that a text claims for a method of the course, sentence by sentence: method, measure, value."""
    for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z#*|-])", " ".join(text.split())):
        methods = re.findall(rf"\b({METHODS})\b", sentence, re.I)
        for found in SCORE.finditer(sentence):
            for method in methods:
                yield method, found[1] or found[4], float(found[2] or found[3])


def recorded_bands():
    """Bands of the course's own recipe, by the methods' names and the measures' labels."""
    names = {label: name for name, label in expected.MEASURES.items()}
    found = expected.bands(course.DEFAULT_RECIPE)
    return {(plots.METHOD_NAMES[m].casefold(), label): found[m][names[label]] for m in found for label in names}


def test_a_claim_is_recognised():
    assert list(claims("LoRA reaches ROUGE-1 of 37.2 here. Lead-3: ROUGE-1 29.0.")) == [("LoRA", "ROUGE-1", 37.2)]
    assert list(claims("Zero-shot has 23.2 ROUGE-1.")) == [("Zero-shot", "ROUGE-1", 23.2)]


@pytest.mark.parametrize("document", ["README", *PAGES, *SOURCES])
def test_a_score_that_is_typed_outside_generated_blocks_lies_in_its_recorded_band(document):
    text = outside_blocks(README) if document == "README" else PAGES.get(document) or "\n\n".join(markdown(document))
    for method, measure, value in claims(text):
        band = recorded_bands().get((method.casefold(), measure))
        assert band and band.side(value) == "inside", f"{method} {measure} {value} is not in {band}"


@pytest.mark.parametrize("recipe", readme.RECIPES)
def test_every_score_in_the_readmes_tables_lies_in_its_recorded_band(recipe):
    block = re.search(rf"<!-- results {recipe} -->(.*?)<!-- /results", README, re.S)[1]
    bands = expected.bands(recipe)
    for method, measures in bands.items():
        row = re.search(rf"^\| {re.escape(plots.METHOD_NAMES[method])} \| (.+)$", block, re.M)[1]
        for name, cell in zip(expected.MEASURES, row.split(" | "), strict=False):
            assert measures[name].side(float(cell.split(" ")[0])) == "inside", f"{method} {name}"
            assert str(measures[name]) == " to ".join(re.findall(r"\d+\.\d", cell)[1:]), f"{method} {name}"
