"""Rules that every source file keeps, and what happens to files that a stranger wrote: models, data, settings, names and texts."""

import ast
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import jupytext
import pytest
from classroom import honest

from lab_utils import (
    adapters,
    assignments,
    bootstrap,
    check,
    config,
    course,
    fields,
    files,
    handout,
    highlights,
    models,
    pretrained,
    prompts,
    publish,
    rating_form,
    report,
    sources,
    yamls,
)
from lab_utils.config import resolve
from lab_utils.data import Example
from lab_utils.errors import LabError
from lab_utils.submissions import gradebook

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "lab_utils").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def tree(path):
    if path.parent.name != "notebooks":
        return ast.parse(path.read_text(encoding="utf-8"))
    code = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    return ast.parse("\n\n".join(line for cell in code for line in cell.split("\n") if not line.startswith(("%", "!"))))


SOURCES = {path.relative_to(ROOT).as_posix(): tree(path) for path in [*PACKAGE, *NOTEBOOKS]}


def calls(tree):
    """Name as written, such as `subprocess.run`, node, and keyword -> value of every call.

    What stands behind ** is looked up where that name is given a dictionary in the same function.
    """
    return [(ast.unparse(node.func), node, _given(node, scope)) for node, scope in _calls(tree, tree)]


def _calls(node, scope):
    for child in ast.iter_child_nodes(node):
        inner = child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else scope
        if isinstance(child, ast.Call):
            yield child, scope
        yield from _calls(child, inner)


def _given(call, scope):
    found = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg is not None}
    for name in [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg is None]:
        for node in ast.walk(scope):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else None
            if target is not None and ast.unparse(target) == name and isinstance(node.value, ast.Dict):
                found |= {k.value: ast.unparse(v) for k, v in zip(node.value.keys, node.value.values, strict=True) if k is not None}
    return found


# --- rules over the sources -------------------------------------------------------------------------------------------------------

UNPICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
RUN_TEXT = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
RUN_OR_UNPICKLE_FILES = {"evaluate.load", "torch.hub.load", "hub.load", "pd.read_pickle", "pandas.read_pickle"}
UNPACK = re.compile(r"(?:.*\.)?(?:extractall|unpack_archive)")  # the lab reads a zip's entries one by one (submissions/unpacking.py)
ARGUMENTS = {  # of any call: when they are wrong
    "trust_remote_code": lambda value: value != "False",
    "allow_pickle": lambda value: value != "False",
    "shell": lambda value: value != "False",
    "verify": lambda value: value == "False",
    "weights_only": lambda value: value != "True",
}


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_unpickled_and_no_text_is_run(name):
    imported = set()
    for node in ast.walk(SOURCES[name]):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert not imported & UNPICKLING
    called = {called for called, _, _ in calls(SOURCES[name])}
    assert not called & (RUN_TEXT | RUN_OR_UNPICKLE_FILES)
    assert not {word for word in called if UNPACK.fullmatch(word) or word.endswith("mktemp")}


@pytest.mark.parametrize("name", SOURCES)
def test_no_switch_that_makes_a_call_unsafe_is_set(name):
    unsafe = [
        f"{called}({word}={value}), line {node.lineno}"
        for called, node, given in calls(SOURCES[name])
        for word, value in given.items()
        if word in ARGUMENTS and ARGUMENTS[word](value)
    ]
    assert unsafe == []


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_unsafe_unless_told_otherwise_is_told(name):
    for called, node, given in calls(SOURCES[name]):
        if called in ("torch.load", "np.load", "numpy.load"):
            assert ("weights_only" if called == "torch.load" else "allow_pickle") in given, node.lineno
        if called in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"):
            assert "SafeLoader" in ast.unparse(node), node.lineno
        if called.startswith("subprocess.") and called.rpartition(".")[2] in ("run", "Popen", "call", "check_call", "check_output"):
            assert isinstance(node.args[0], ast.List | ast.Name), node.lineno  # a list or its name: a text would need a shell


def loadings(tree):
    """The calls of transformers' `from_pretrained`. Of peft's, a test below unpickles nothing."""
    found = [(called.split(".")[0], node, given) for called, node, given in calls(tree) if called.endswith(".from_pretrained")]
    return [one for one in found if one[0] != "PeftModel"]


@pytest.mark.parametrize("name", [name for name, tree in SOURCES.items() if loadings(tree)])
def test_every_loading_refuses_code_that_comes_along_and_every_model_takes_safetensors_only(name):
    """Where transformers is told nothing, it asks whoever sits there, for 15 seconds, whether to run the code of a model."""
    for kind, node, given in loadings(SOURCES[name]):
        assert given.get("trust_remote_code") == "False", f"{kind}, line {node.lineno}"
        if re.fullmatch(r"auto|AutoModel\w*", kind) and "gguf_file" not in given:  # a GGUF file holds no pickle
            assert given.get("use_safetensors") == "True", f"{kind}, line {node.lineno}"


def test_the_rules_find_what_they_forbid():
    found = ast.parse(
        """
def first():
    options = {"trust_remote_code": True}
    auto.from_pretrained(x, **options)


def second():
    subprocess.run("ls", shell=True)
"""
    )
    (_, _, given), (called, node, switches) = calls(found)
    assert given == {"trust_remote_code": "True"} and ARGUMENTS["trust_remote_code"]("True")
    assert called == "subprocess.run" and switches == {"shell": "True"} and ARGUMENTS["shell"]("True")
    assert isinstance(node.args[0], ast.Constant) and [kind for kind, _, _ in loadings(found)] == ["auto"]


# Not HTML: Markdown, whose page is made with HTML switched off, and the Python of a model card, whose texts are escaped before (test_card).
NO_HTML = {("lab_utils/handout.py", "Environment"), ("lab_utils/card.py", "Template")}


def test_every_template_of_a_page_escapes_and_only_rendered_markdown_passes_as_it_is():
    for name, found in SOURCES.items():
        for called, node, given in calls(found):
            if called in ("Environment", "Template") and given.get("autoescape") != "True":
                assert (name, called) in NO_HTML, f"{name}, line {node.lineno}"
            assert called not in ("Markup", "markupsafe.Markup"), f"{name}, line {node.lineno}"
    unescaped = {}
    for path in (ROOT / "lab_utils").rglob("*.html.jinja"):
        text = path.read_text(encoding="utf-8")
        unescaped[path.name] = re.findall(r"[\w.]+\s*\|\s*safe\b|autoescape\s+false", text)
    assert {name: found for name, found in unescaped.items() if found} == {"page.html.jinja": ["body | safe"]}


def pinned():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def test_every_line_of_the_constraints_is_an_exact_version_given_once():
    assert [line for line in pinned() if not re.fullmatch(r"[A-Za-z0-9._-]+==\d[\w.]*", line)] == []
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in pinned()]
    assert len(names) == len(set(names))


def test_every_direct_dependency_is_pinned_inside_its_range():
    from packaging.requirements import Requirement

    project = bootstrap.project()["project"]
    versions = {re.sub(r"[-_.]+", "-", name).lower(): version for name, _, version in (line.partition("==") for line in pinned())}
    for text in [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(versions[re.sub(r"[-_.]+", "-", wanted.name).lower()], prereleases=True), text


# --- models, data and settings of strangers ---------------------------------------------------------------------------------------

PAYLOAD = "import pathlib; pathlib.Path({mark!r}).touch()"


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path):
    """What appears where a stranger's code has run."""
    place = tmp_path / "it-ran"
    yield place
    assert not place.exists()


@pytest.fixture
def folder(tmp_path):
    """A copy of a tiny model that a test may spoil."""
    spec = config.load_recipe("tiny-causal").model
    return shutil.copytree(pretrained.checkpoint_folder(spec), tmp_path / "model")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def refusal(function, *arguments, **options):
    with pytest.raises(LabError) as caught:
        function(*arguments, **options)
    said = str(caught.value)
    assert "\n" not in said and said.endswith((".", "?"))
    return said


def load(folder, method="zero_shot"):
    return models.load(resolve("tiny-causal", method, model_dir=str(folder)))


def test_the_payload_of_these_tests_would_run(tmp_path):
    import pickle

    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("honest_weights", [False, True])
def test_a_model_with_pickled_weights_alone_is_refused_and_nothing_is_unpickled(folder, mark, honest_weights):
    import torch
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors") if honest_weights else {"weight": Payload(mark)}
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "could not be loaded" in refusal(load, folder)


def test_an_adapter_with_pickled_weights_alone_is_refused_and_nothing_is_unpickled(folder, tmp_path, mark):
    import torch

    base = load(folder, "lora")
    adapters.save_adapter(adapters.attach_lora(base), base, tmp_path / "adapter")
    (tmp_path / "adapter" / adapters.ADAPTER_FILE).unlink()
    torch.save({"weight": Payload(mark)}, tmp_path / "adapter" / "adapter_model.bin")
    assert "pickled weights are never loaded" in refusal(adapters.load_adapter, load(folder), tmp_path / "adapter")


def with_code(folder, mark):
    (folder / "theirs.py").write_text(PAYLOAD.format(mark=str(mark)) + "\nclass Config: pass\nclass Model: pass\nclass Tokenizer: pass\n")


def test_code_of_a_model_is_not_run_and_nobody_is_asked(folder, mark, monkeypatch):
    """Of an architecture that transformers does not know: there is no other way to load it."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a reader was asked whether to run it"))
    with_code(folder, mark)
    change(folder / "config.json", model_type="theirs", auto_map={"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"})
    assert "custom code" in refusal(load, folder)


def test_code_beside_an_architecture_that_is_known_is_passed_over(folder, mark, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a reader was asked whether to run it"))
    with_code(folder, mark)
    change(folder / "config.json", auto_map={"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"})
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["theirs.Tokenizer", "theirs.Tokenizer"]})
    assert type(load(folder).model).__module__.startswith("transformers.")


def test_code_of_a_tokenizer_is_not_run_and_nobody_is_asked(folder, mark, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a reader was asked whether to run it"))
    with_code(folder, mark)
    change(folder / "config.json", model_type="theirs")
    values = {"tokenizer_class": "TheirTokenizer", "auto_map": {"AutoTokenizer": ["theirs.Tokenizer", "theirs.Tokenizer"]}}
    change(folder / "tokenizer_config.json", **values)
    with pytest.raises(ValueError, match="custom code"):
        publish._tokenizer(SimpleNamespace(method="full"), folder, None)  # models.load looks at the model first


ESCAPES = {
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__['__builtins__'] }}",
    "format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "the loop": "{{ cycler.__init__.__globals__.os.mkdir('it-ran') }}",
    "changing": "{{ messages.clear() }}",
}


@pytest.mark.parametrize("template", ESCAPES.values(), ids=ESCAPES)
def test_a_chat_template_cannot_leave_its_sandbox(folder, template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    base = load(folder)
    said = refusal(prompts.prompt_text, base.tokenizer, base.settings.recipe.prompt, "Ann: Hello.")
    assert "chat template" in said and not (tmp_path / "it-ran").exists()


def test_the_loading_script_of_a_data_folder_is_not_run(tmp_path, mark):
    place = tmp_path / "chats"
    place.mkdir()
    for name in ("chats.py", "train.py", "test.py"):
        (place / name).write_text(PAYLOAD.format(mark=str(mark)), encoding="utf-8")
    assert sources.read(str(place)) == {}
    (place / "train.jsonl").write_text('{"document": "a", "summary": "b"}\n', encoding="utf-8")
    assert list(sources.read(str(place))) == ["train"]


def test_the_loading_script_of_data_on_the_hub_is_not_run(tmp_path, mark):
    place = tmp_path / "chats"
    place.mkdir()
    (place / "chats.py").write_text(PAYLOAD.format(mark=str(mark)), encoding="utf-8")
    assert "cannot be loaded" in refusal(sources._from_hub, str(place), None, None)  # where `datasets` looks at what it downloaded


TAGS = ["!!python/object/apply:os.mkdir [{mark}]", "!!python/object/new:os.mkdir [{mark}]", "!!python/name:os.mkdir"]


@pytest.mark.parametrize("tag", TAGS)
def test_a_yaml_file_makes_no_object_and_calls_nothing(tmp_path, mark, tag):
    path = tmp_path / "week.yaml"
    path.write_text(f"title: {tag.format(mark=json.dumps(str(mark)))}\n", encoding="utf-8")
    for read in (yamls.read, assignments.load, config.load_recipe):
        assert "tag" in refusal(read, path)


# --- names that become paths ------------------------------------------------------------------------------------------------------

ODD_NAMES = ["../x", "..", "a/../../x", "/etc/passwd", "..\\x", "C:\\x", "a\0b", "x" * 4000]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_leads_elsewhere_names_no_recipe_assignment_or_notebook(name):
    assert "ecipe" in refusal(config.load_recipe, name)
    assert "No assignment" in refusal(assignments.load, name)
    with pytest.raises(LabError, match="no notebook"):
        course.choose([name])


def test_a_recipe_or_assignment_that_exists_is_not_found_by_a_way_around():
    assert "Unknown recipe" in refusal(config.load_recipe, "../recipes/tiny-causal")
    assert "No assignment" in refusal(assignments.load, "../assignments/first-week")


@pytest.mark.parametrize(
    "source", ["random:../x", "package:../x", "package:..", "owner/name/../../x.gguf", "../name/x.gguf", "owner/name/..\\x.gguf"]
)
def test_the_name_of_a_model_leads_to_no_place_outside_the_cache(source, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache" / "lab"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    refusal(pretrained.checkpoint_folder, fields.changed(config.load_recipe("tiny-causal").model, source=source))
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


@pytest.mark.parametrize("name", [*ODD_NAMES, "con", "~", "-rf"])
def test_what_a_student_is_called_makes_one_part_of_a_path_or_none(name):
    try:
        safe = files.safe_name(name)
    except LabError:
        return
    assert Path(safe).name == safe and safe not in (".", "..") and not re.search(r'[\\/:*?"<>|\0]', safe) and len(safe) <= 61


def test_a_method_is_one_of_the_labs_and_no_path(tmp_path):
    from lab_utils import commands

    for given in ("runs/x/../lora2", "runs/x", "runs/lora/..", ".."):
        assert "is not a method's folder" in refusal(commands.method_folder, given)


# --- texts that become pages ------------------------------------------------------------------------------------------------------

ATTACK = "\"'><script>alert(1)</script><img src=x onerror=alert(1)><svg/onload=alert(1)> [x](javascript:alert(1)) javascript:alert(1)"
ACTIVE = {"iframe", "object", "embed", "base", "form", "svg", "link", "applet", "audio", "video"}


class Page(HTMLParser):
    """A page as a browser takes it apart."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.words = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.words += data


def holds_it_as_text_only(text, own_scripts=0):
    """A page in which the attack can be read, and does nothing."""
    page = Page(text)
    assert "<script>alert(1)</script>" in page.words
    assert page.tags.count("script") == own_scripts and not ACTIVE & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on") and not (value or "").strip().lower().startswith(("javascript:", "vbscript:", "data:text")), name
    return page


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """An assignment of which every text is an attack."""
    sheet = {
        "title": ATTACK, "about": ATTACK, "deadline": ATTACK, "submit": ATTACK, "recipe": "tiny-causal", "hand_out": [1, 3],
        "common": {"test_examples": 4}, "exercises": {"merge": 1}, "marking": [{"criterion": ATTACK, "points": 1, "look_for": ATTACK}],
    }  # fmt: skip
    path = tmp_path_factory.mktemp("assignments") / "week.yaml"
    path.write_text(json.dumps(sheet), encoding="utf-8")
    return assignments.load(path)


def test_a_brief_and_a_marking_guide_show_texts_and_obey_none(hostile):
    for text in (handout.brief(hostile, ATTACK), handout.marking_guide(hostile)):
        page = holds_it_as_text_only(handout.page(hostile.title, text))
        assert "img" not in page.tags and not [value for name, value in page.attributes if name in ("href", "src")]


def test_pages_of_a_class_show_texts_and_obey_none(hostile, tmp_path):
    work = honest(hostile, ATTACK).submission(name=ATTACK, problems=[ATTACK])
    found = gradebook.mark([work], hostile, tmp_path, roster=[ATTACK, "ada"])
    pages = [tmp_path / "index.html", *(found.folder / "students").iterdir()]
    assert len(pages) == 2
    for path in pages:
        holds_it_as_text_only(path.read_text(encoding="utf-8"))


def test_a_report_shows_texts_and_obeys_none(hostile, tmp_path):
    work = honest(hostile, ATTACK)
    for method, record in work.records.items():
        record["model"]["name"] = record["recipe"] = record["config"]["recipe"]["title"] = ATTACK
        record["data"]["notes"] = record["config"]["recipe"]["notes"] = [ATTACK]
        work.predictions[method][0] |= {"prediction": ATTACK, "references": [ATTACK]}
    test = [Example(row["id"], f"Ann: {ATTACK}", (ATTACK,)) for row in next(iter(work.predictions.values()))]
    text = report.write(work.write(tmp_path), test).read_text(encoding="utf-8")
    own = (ROOT / "lab_utils" / "report.html.jinja").read_text(encoding="utf-8").count("<script")
    assert ATTACK not in text
    holds_it_as_text_only(text, own_scripts=own)


def test_what_notebooks_show_shows_texts_and_obeys_none():
    for shown in (rating_form._block(ATTACK, "document"), check.exercise.Verdict("merge", "almost", ATTACK)._repr_html_(),
                  highlights.mark(ATTACK, f"Ann: {ATTACK}", ATTACK)._repr_html_()):  # fmt: skip
        page = Page(shown)
        assert not {"script", "img", "svg"} & set(page.tags) and not [name for name, _ in page.attributes if name.startswith("on")]
