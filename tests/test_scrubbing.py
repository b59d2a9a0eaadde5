import base64
import json
import time
from pathlib import Path

import pytest
from submitted import code, markdown, notebook, printed

from lab_utils import scrubbing
from lab_utils.errors import LabError

# In two parts, so that no scanner of repositories takes a test for a leak.
TOKENS = [
    "hf_" + "NobodyMayReadThisToken",
    "hf_" + "abcdefghijklmnopqrstuvwxyzabcdefgh",
    "gh" + "p_0123456789abcdefABCDEF0123456789abcd",
    "github" + "_pat_11ABCDEFG0123456789_abcdefghijklmnop",
    "sk" + "-proj-Ab3dEfGhIjKlMnOpQrStUvWx",
    "sk" + "-abcdefghijklmnopqrstuvwxyzabcdef",
    "AK" + "IAIOSFODNN7EXAMPLE",
    "AI" + "zaSyA0123456789abcdefghijklmnopqrstu",
    "xo" + "xb-123456789012-abcdefghijkl",
    "ey" + "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF_123-xyz",
]
UNTOUCHED = [
    "and/or, n/a, 1/2, 3/4 of it, 24/7, he/she, km/h, w/o, TCP/IP, input/output",
    "approximately ~3/4, see https://docs.python.org/3/library/re.html#re.sub and http://localhost:8888/lab?path=a/b/c",
    "[guide](https://huggingface.co/docs/peft/main/en/index) (//cdn.example.org/a/b.js)",
    "anna.schmidt@example.edu, mailto:anna@example.edu",
    "x = a / b / c  # (a+b)/c/d, n//2//3, d[0]/n/2",
    "hf_hub_download(repo_id='owner/name'), hf_tokenizer, hf_configuration, task-force, sk-learn",
    "<td>1</td><td><b>2</b></td></tr></table><br/>",
    '<div class="sk-toggleable__content sk-estimator-doc-link fitted">',
    "a bearer of good news; Bearer {token}; ghp_ is how tokens begin; hf_...",
    "runs/first-week/lora/run.json, ./notebooks/03_lora.ipynb, ../x/y, lab_utils/data.py:12",
    "$f: A \\to B$, \\frac{1}{2}, a \\\\ b, \\alpha\\beta, C:\\, (C:)",
    "#Person1#: Do you write s/he? #Person2#: I say 'they'. /s",
    "the phonemes /kæt/ and /dɒg/; /tmp is a folder",
    "url.replace('/tree/', '/'); '/'.join(parts) + '/x'; f'{root}/a/b'",
    'key: \'rank\', "key": "value", ?key=1',
    "🎈 日本語 Ünïcödé \ufeff\u200b\n\n\t",
]
FOLDERS = [
    ("/home/anna/lab/runs/x.py", "x.py"),
    ("/home/anna", "~"),
    ("/Users/anna/", "~"),
    ("/srv/lab/lab_utils/data.py:12", "data.py:12"),
    ("'/content/drive/My Drive/lab/x.csv'", "'x.csv'"),
    ('open("/home/anna schmidt/lab/x y.csv")', 'open("x y.csv")'),
    ('open("/home/anna schmidt/my lab/")', 'open("my lab")'),
    ("PATH=/opt/anna/bin:/home/anna/bin", "PATH=bin:bin"),
    ("(/home/anna/lab/x.png)", "(x.png)"),
    ("~/lab/secret-plan/x.py in main", "x.py in main"),
    ("~anna/lab/plans/x.py", "x.py"),
    (r"C:\Users\anna\lab\x.py", "x.py"),
    (r"C:\Users\Anna Schmidt\My Lab\x.py", "x.py"),
    (r"C:\Users\anna", "~"),
    (r"D:\\work\\anna\\x.py", "x.py"),
    ("C:/Users/anna/lab/x.py", "x.py"),
    (r"C:\Users\anna/lab/x.py", "x.py"),
    ("file:///home/anna/lab/x.html", "x.html"),
    ("file:///C:/Users/anna/lab/x.html", "x.html"),
    ("vscode-notebook-cell:/Users/anna/lab/x.ipynb#W0", "x.ipynb#W0"),
    (r"\\wsl$\Ubuntu\home\anna\lab\x.py", "x.py"),
    (r"\\wsl.localhost\Ubuntu\home\anna", "~"),
    (r"\\server\share\anna\x.py", "x.py"),
    ("/mnt/c/Users/anna/lab/x.py", "x.py"),
    ("/mnt/c/Users/anna", "~"),
    (r"'a\n/home/anna/lab/x.py'", r"'a\nx.py'"),
    ("error:/home/anna/x.py", "error:x.py"),
]


@pytest.fixture(autouse=True)
def no_secrets(monkeypatch):
    """The secrets of the machine that runs the tests are not the tests' business."""
    import os

    for name in [name for name in os.environ if name.upper().endswith(scrubbing.NAMES_OF_SECRETS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/cluster/people/berta")


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("around", ["{}", "token = '{}'", "?x={}&", "({})", "login({}).", "\x1b[31m{}\x1b[0m", "a\n{}\nb", "日本{}"])
def test_a_token_is_removed_wherever_it_stands_and_nothing_else(token, around):
    assert scrubbing.text(around.format(token)) == around.replace("\x1b[31m", "").replace("\x1b[0m", "").format(scrubbing.REMOVED)


@pytest.mark.parametrize("value", UNTOUCHED)
def test_ordinary_text_stays_to_the_letter(value):
    assert scrubbing.text(value) == value


@pytest.mark.parametrize(("given", "left"), FOLDERS)
def test_an_absolute_folder_is_cut_to_its_last_part_and_a_home_to_a_tilde(given, left):
    assert scrubbing.text(given) == left
    assert scrubbing.text(f"see {given} there") == f"see {left} there"


@pytest.mark.parametrize("value", [*UNTOUCHED, *TOKENS, *(given for given, _ in FOLDERS)])
def test_scrubbing_twice_changes_nothing_more(value):
    once = scrubbing.text(value)
    assert scrubbing.text(once) == once


def test_the_home_of_whoever_runs_it_is_known_wherever_it_lies():
    assert scrubbing.text("at /cluster/people/berta and /cluster/people/berta/x/y.py") == "at ~ and y.py"


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("git clone https://anna:pa55word@example.org/lab.git", "git clone https://[removed]@example.org/lab.git"),
        ("redis://:pa55word@localhost:6379/0", "redis://[removed]@localhost:6379/0"),
        ("http://localhost:8888/?token=0123456789abcdef0123", "http://localhost:8888/?token=[removed]"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer [removed]"),
        ('{"Authorization": "Bearer abcdefghijklmnopqrst"}', '{"Authorization": "Bearer [removed]"}'),
        ('{"username":"anna","key":"0123456789abcdef0123456789abcdef"}', '{"username":"anna","key":"[removed]"}'),
        (r'"{\"key\": \"0123456789abcdef0123456789abcdef\"}"', r'"{\"key\": \"[removed]\"}"'),
    ],
)
def test_what_is_secret_by_its_place_is_removed_and_the_place_stays(given, left):
    assert scrubbing.text(given) == left


@pytest.mark.parametrize("kind", ["RSA ", "", "OPENSSH ", "ENCRYPTED "])
@pytest.mark.parametrize("newline", ["\n", "\\n"])
def test_a_private_key_goes_as_a_whole(kind, newline):
    lines = [f"-----BEGIN {kind}PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED", "MIIEow+/Ab==", f"-----END {kind}PRIVATE KEY-----"]
    assert scrubbing.text(f'k = "{newline.join(lines)}" # mine') == 'k = "[removed]" # mine'


def test_a_private_key_that_was_cut_off_goes_and_code_that_only_names_one_stays():
    begin = "-----BEGIN " + "PRIVATE KEY-----"
    assert "MIIEow" not in scrubbing.text(f"{begin}\nMIIEowIBAAKCAQEA\nabcd")
    assert scrubbing.text(f'found = "{begin}" in text\nprint(1)') == 'found = "[removed]" in text\nprint(1)'


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "my_secret", "DB_PASSWORD"])
def test_values_of_secret_variables_are_removed_as_they_are_now(monkeypatch, name):
    assert scrubbing.text("it is correct-horse+battery.") == "it is correct-horse+battery."
    monkeypatch.setenv(name, "correct-horse+battery")
    assert scrubbing.text("it is correct-horse+battery.") == "it is [removed]."


def test_short_values_and_other_variables_are_no_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "none")
    monkeypatch.setenv("KEYBOARD", "qwertyuiop")
    assert scrubbing.text("none of qwertyuiop") == "none of qwertyuiop"


def test_a_secret_that_begins_another_does_not_leave_its_end(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "correct-horse")
    monkeypatch.setenv("B_TOKEN", "correct-horse-battery")
    assert scrubbing.text("x correct-horse-battery x") == "x [removed] x"


@pytest.mark.parametrize("colour", ["\x1b[31m", "\x1b[0m", "\x1b[38;5;241m"])
def test_colours_inside_a_word_hide_nothing_and_stay_where_nothing_was_hidden(colour):
    token, path = TOKENS[0], "/home/anna/lab/x.py"
    for secret in (token, path):
        assert "anna" not in scrubbing.text(f"{secret[:7]}{colour}{secret[7:]}")
        assert "Nobody" not in scrubbing.text(f"{secret[:7]}{colour}{secret[7:]}")
    assert scrubbing.text(f"{colour}ValueError{colour}: n/a") == f"{colour}ValueError{colour}: n/a"


def test_values_are_scrubbed_at_every_depth_names_included():
    given = {"a": [{"/home/anna/x": ("/home/anna/y", 1, None, True, 0.5)}], "key": "0123456789abcdef0123456789abcdef", TOKENS[0]: "n/a"}
    assert scrubbing.values(given) == {"a": [{"x": ["y", 1, None, True, 0.5]}], "key": "[removed]", "[removed]": "n/a"}


def test_secrets_alone_can_be_taken_out_and_folders_and_images_stay():
    given = {"text": f"/home/anna/x {TOKENS[0]}", "image/png": image(300), "image/svg+xml": f"<svg>{TOKENS[0]}</svg>", "n": 1.5}
    assert scrubbing.without_secrets(given) == given | {"text": "/home/anna/x [removed]", "image/svg+xml": "<svg>[removed]</svg>"}
    assert scrubbing.without_secrets(f"/home/anna/x {TOKENS[0]}") == "/home/anna/x [removed]"


def test_a_value_that_holds_a_secret_is_refused_by_its_name_and_others_are_not():
    scrubbing.refuse({"a": "/home/anna/x", "b": ["owner/name", 1, None]})
    with pytest.raises(LabError, match="^b holds what looks like a token") as caught:
        scrubbing.refuse({"a": "x", "b": {"c": [TOKENS[0]]}, "d": "x"})
    assert TOKENS[0] not in str(caught.value)


def test_a_scrubber_counts_what_it_replaces():
    scrubber = scrubbing.Scrubber()
    scrubber.text(f"{TOKENS[0]} {TOKENS[2]} /home/anna/x.py https://example.org/a/b and/or")
    assert scrubber.removed == 3


# --- notebooks


def image(size):
    return base64.b64encode(bytes(range(256)) * (size // 256 + 1))[: size * 4 // 3].decode()


def shown(**data):
    return {"output_type": "display_data", "data": {name.replace("_", "/", 1): value for name, value in data.items()}, "metadata": {"a": 1}}


def test_sources_and_every_kind_of_output_are_scrubbed():
    secret = [f"login('{TOKENS[0]}')\n", "open('/home/anna/x.py')"]
    error = {"output_type": "error", "ename": "OSError", "evalue": "/home/anna/x", "traceback": ["\x1b[31m/ho\x1b[0mme/anna/lab/x.py"]}
    result = shown(text_plain="/home/anna/x", text_html=["<b>/home/anna/x</b>", "<i>y</i>"], application_json={"p": "/home/anna/x"})
    made = scrubbing.notebook(
        notebook(code(secret, printed(["/home/anna/x\n"]), error, result | {"output_type": "execute_result"}), markdown("/home/anna/x"))
    )
    text = json.dumps(made)
    assert "anna" not in text and "Nobody" not in text
    assert made["cells"][0]["source"] == "login('[removed]')\nopen('x.py')"
    assert made["cells"][0]["outputs"][2]["data"] == {"text/plain": "x", "text/html": "<b>x</b><i>y</i>", "application/json": {"p": "x"}}


def test_of_the_metadata_only_kernel_tags_times_and_parameters_stay():
    ours = {"parameters": {"run_dir": "/home/anna/runs/x"}, "start_time": "a", "end_time": "b", "duration": 1.5, "exception": None}
    theirs = {"input_path": "/home/anna/in.ipynb", "output_path": "out.ipynb", "environment_variables": {}, "version": "2"}
    given = notebook(
        code("1", metadata={"tags": ["parameters"], "papermill": {"duration": 2, "status": "done"}, "collapsed": True}),
        markdown("![](attachment:a.png)", attachments={"a.png": {"image/png": image(300)}}),
        kernelspec={"name": "python3"},
        language_info={"name": "python"},
        widgets={"state": {"x": 1}},
        papermill=ours | theirs,
        colab={"authorship": "anna"},
    )
    made = scrubbing.notebook(given)
    assert made["metadata"] == {
        "kernelspec": {"name": "python3"},
        "language_info": {"name": "python"},
        "papermill": ours | {"parameters": {"run_dir": "x"}},
    }
    assert made["cells"][0]["metadata"] == {"tags": ["parameters"], "papermill": {"duration": 2}}
    assert "attachments" not in made["cells"][1]


def test_widgets_leave_their_text():
    widget = {"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "bar"}}
    assert scrubbing.notebook(notebook(code("", widget)))["cells"][0]["outputs"][0]["data"] == {"text/plain": "bar"}


def test_images_stay_as_they_are():
    data = image(60_000)
    page = f'<img src="data:image/png;base64,{data}"> /home/anna/x'
    made = scrubbing.notebook(notebook(code("", shown(image_png=data), shown(text_html=page))))
    assert [output["data"] for output in made["cells"][0]["outputs"]] == [
        {"image/png": data},
        {"text/html": page.replace("/home/anna/x", "x")},
    ]


def test_text_that_pretends_to_be_an_image_is_scrubbed():
    made = scrubbing.notebook(notebook(code("", shown(image_png="/home/anna/x: no image"))))
    assert made["cells"][0]["outputs"][0]["data"] == {"image/png": "x: no image"}


def test_above_the_limit_the_largest_images_become_a_text_that_says_so():
    sizes = [50_000, 200_000, 120_000, 40_000]
    made = scrubbing.notebook(notebook(*(code("", shown(image_png=image(size), text_plain="<Figure>")) for size in sizes)))
    kept = ["image/png" in cell["outputs"][0]["data"] for cell in made["cells"]]
    assert kept == [True, False, True, True]
    assert "200 kB" in made["cells"][1]["outputs"][0]["data"]["text/plain"]


def test_the_notebook_that_was_given_is_not_changed():
    given = notebook(code(["/home/anna/x"], shown(image_png=image(400_000))))
    before = json.dumps(given)
    scrubbing.notebook(given)
    assert json.dumps(given) == before


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"cells": None},
        {"cells": "abc", "metadata": [1]},
        {
            "cells": [
                1,
                None,
                {"cell_type": 5},
                {"cell_type": "code", "outputs": [7, {"data": [1]}, {"output_type": "error", "traceback": 3}]},
            ]
        },
        {"cells": [{"cell_type": "code", "metadata": "x", "source": [1, "a"], "outputs": {"a": 1}, "execution_count": "7", "id": 4}]},
        {"cells": [{"cell_type": "code", "outputs": [{"output_type": "stream", "text": {"a": 1}, "name": None}]}]},
        {"worksheets": [{"cells": []}], "nbformat": 3},
    ],
)
def test_a_notebook_of_odd_shape_is_no_error(odd):
    assert isinstance(scrubbing.notebook(odd)["cells"], list)


def test_a_scrubbed_notebook_is_still_one_for_nbformat():
    import nbformat

    error = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["t"]}
    given = notebook(code("1", printed("a"), error, shown(text_plain="b"), id="cell-00"), markdown("m", id="cell-01"))
    nbformat.validate(scrubbing.notebook(given))


def test_the_labs_own_notebooks_stay_as_they_are():
    for path in sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb")):
        given = json.loads(path.read_text(encoding="utf-8"))
        made = scrubbing.notebook(given)
        assert [cell["source"] for cell in made["cells"]] == ["".join(cell["source"]) for cell in given["cells"]], path.name


# --- time


@pytest.mark.parametrize(
    "unit",
    [
        "The meeting is at nine, and/or at ten; see https://example.org/a/b for more. ",
        "/", "//", "/a", '"/', '"/a ', "\\", "\\\\a", "C:\\a b", "a:/", "~", "~a/", "-eyJa", "-eyJabcdefgh.", "eyJ", "sk-", "-sk-a",
        "://a:", "://", "-----BEGIN PRIVATE KEY-----", "Bearer ", "data:a;base64,", "\x1b[0", "'key':", "hf_", "file:/", "vscode-", "{/",
        "/home/anna/x.py ", "\n", " ", "Authorization: ",
    ],
)  # fmt: skip
def test_time_grows_with_the_text_and_no_faster(unit):
    text = unit * (400_000 // len(unit))
    start = time.perf_counter()
    scrubbing.text(text)
    assert time.perf_counter() - start < 2
