import logging
import os
import sys
import types
import warnings
from typing import get_args

import pytest

from lab_utils import environment
from lab_utils.config import Training
from lab_utils.environment import Machine, Precision

HOSTED = ("KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG")


@pytest.fixture
def nowhere(monkeypatch):
    for name in HOSTED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    return monkeypatch


def test_kaggle_is_kaggle_although_colab_variables_are_set_there(nowhere):
    nowhere.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    nowhere.setenv("COLAB_RELEASE_TAG", "release-colab_20260514")
    nowhere.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert environment.where() == "kaggle"


def test_colab_is_known_by_its_release_tag(nowhere):
    nowhere.setenv("COLAB_RELEASE_TAG", "release-colab_20260819")
    assert environment.where() == "colab"


def test_colab_is_known_by_its_module(nowhere):
    nowhere.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    assert environment.where() == "colab"


def test_anywhere_else_is_local(nowhere):
    assert environment.where() == "local"


@pytest.mark.parametrize(
    "capability, family, name",
    [
        ((6, 0), "causal", "float16"),
        ((6, 0), "seq2seq", "float32"),
        ((7, 5), "causal", "float16"),
        ((7, 5), "seq2seq", "float32"),
        ((8, 0), "causal", "bfloat16"),
        ((8, 0), "seq2seq", "bfloat16"),
        ((9, 0), "causal", "bfloat16"),
        ((9, 0), "seq2seq", "bfloat16"),
    ],
)
def test_bfloat16_needs_capability_8_and_t5_never_gets_float16(capability, family, name):
    assert environment.cuda_precision(capability, family).name == name


@pytest.mark.parametrize("has_bf16, name", [(True, "bfloat16"), (False, "float32")])
def test_a_cpu_gets_bfloat16_only_with_instructions_for_it(has_bf16, name):
    assert environment.cpu_precision(has_bf16).name == name


@pytest.mark.parametrize("family, name", [("causal", "float16"), ("seq2seq", "float32")])
def test_a_t4_that_claims_bfloat16_is_judged_by_its_capability(monkeypatch, family, name):
    monkeypatch.setattr(environment, "machine", lambda: Machine("colab", "cuda", "Tesla T4", 2, 15.0))
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (7, 5))
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
    assert environment.precision(family).name == name


def use_cpu(monkeypatch):
    monkeypatch.setattr(environment, "machine", lambda: Machine("local", "cpu", "CPU (x86_64)", 2, 16.0))


def use_gpu(monkeypatch, capability):
    monkeypatch.setattr(environment, "machine", lambda: Machine("local", "cuda", "a GPU", 2, 16.0))
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: capability)


def use_torch(monkeypatch, avx512, amx):
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)


@pytest.mark.parametrize(
    "flags, name",
    [
        ("fpu sse2 avx512f avx512_bf16", "bfloat16"),
        ("fpu sse2 avx512f amx_bf16 amx_tile", "bfloat16"),
        ("fpu sse2 avx512f avx512bw amx_tile amx_int8", "float32"),
    ],
)
@pytest.mark.parametrize("torch_says", [True, False])
def test_linux_itself_says_whether_a_cpu_has_bfloat16_instructions(monkeypatch, tmp_path, flags, name, torch_says):
    use_cpu(monkeypatch)
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(environment, "Path", lambda path: tmp_path / path.rsplit("/", 1)[-1])
    use_torch(monkeypatch, torch_says, torch_says)
    assert environment.precision().name == name


@pytest.mark.parametrize("avx512, amx, name", [(True, False, "bfloat16"), (False, True, "bfloat16"), (False, False, "float32")])
def test_elsewhere_torch_says_it_and_either_kind_of_instruction_is_enough(monkeypatch, tmp_path, avx512, amx, name):
    use_cpu(monkeypatch)
    monkeypatch.setattr(environment, "Path", lambda path: tmp_path / "absent")
    use_torch(monkeypatch, avx512, amx)
    assert environment.precision().name == name


@pytest.mark.parametrize(
    "capability, family, wanted",
    [(None, "causal", "bfloat16"), (None, "seq2seq", "float32"), ((7, 5), "causal", "float32"), ((9, 0), "causal", "float16")],
)
def test_a_precision_that_machine_and_model_can_bear_is_given_and_said_to_be_asked_for(monkeypatch, capability, family, wanted):
    use_gpu(monkeypatch, capability) if capability else use_cpu(monkeypatch)
    monkeypatch.setattr(environment, "cpu_has_bf16", lambda: wanted == "float32")
    found = environment.precision(family, wanted)
    assert found.name == wanted and "asked for" in found.reason and environment.precision(family).name in found.reason


@pytest.mark.parametrize("wanted", ["auto", "float16"])
def test_what_the_machine_would_choose_keeps_its_own_reason(monkeypatch, wanted):
    use_gpu(monkeypatch, (7, 5))
    assert environment.precision("causal", wanted) == environment.cuda_precision((7, 5), "causal")


@pytest.mark.parametrize("name", get_args(Training.model_fields["optimizer"].annotation))
def test_every_optimizer_of_a_recipe_is_one_that_transformers_knows(monkeypatch, name):
    from transformers.training_args import OptimizerNames

    use_gpu(monkeypatch, (7, 5))
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    chosen, reason = environment.optimizer(name)
    assert chosen in {member.value for member in OptimizerNames} and reason is None
    assert ("paged" in chosen, "8bit" in chosen) == ("paged" in name, "8bit" in name)


@pytest.mark.parametrize(
    "precision, words",
    [
        (environment.cuda_precision((9, 0), "causal"), ("9.0", "hardware")),
        (environment.cuda_precision((7, 5), "causal"), ("7.5", "emulates bfloat16")),
        (environment.cuda_precision((7, 5), "seq2seq"), ("7.5", "emulates bfloat16", "overflow in float16")),
        (environment.cpu_precision(True), ("CPU", "bfloat16 instructions")),
        (environment.cpu_precision(False), ("CPU", "no bfloat16 instructions", "slower")),
    ],
)
def test_the_reason_names_the_hardware_and_the_cause(precision, words):
    assert all(word in precision.reason for word in words)
    assert len(precision.reason.split()) >= 6 and "\n" not in precision.reason


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_products_are_computed_in_the_precision_of_that_name(name):
    import torch

    ones = torch.ones(2, 2)
    with Precision(name, "").autocast("cpu"):
        assert (ones @ ones).dtype == getattr(torch, name) == Precision(name, "").dtype


def test_a_gpu_that_cannot_run_a_kernel_gives_way_to_the_cpu_with_a_warning(monkeypatch):
    def no_kernel(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "Tesla P100-PCIE-16GB")
    monkeypatch.setattr("torch.ones", no_kernel)
    with pytest.warns(UserWarning, match="Tesla P100.*no kernel image") as seen:
        machine = environment.machine.__wrapped__()
    assert machine.device == "cpu" and machine.device_name.startswith("CPU")
    assert "\n" not in str(seen[0].message)


@pytest.mark.parametrize(
    "said, fault", [("CUDA error: it broke.\nCompile with ...", "CUDA error: it broke"), ("", "RuntimeError"), (None, None)]
)
def test_a_kernels_fault_is_one_line_of_what_torch_says(monkeypatch, said, fault):
    import torch

    ones = torch.ones

    def on_the_gpu(*sizes, device):
        if said is not None:
            raise RuntimeError(said)
        return ones(*sizes)

    monkeypatch.setattr(torch, "ones", on_the_gpu)
    assert environment.kernel_fault() == fault


def test_quiet_leaves_every_other_warning_audible():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        environment.quiet()
        warnings.warn("gradient_checkpointing is now activation_checkpointing", FutureWarning, stacklevel=1)
        warnings.warn("gradient_checkpointing costs time", UserWarning, stacklevel=1)
        warnings.warn("another thing will change", FutureWarning, stacklevel=1)
        warnings.warn("something is old", DeprecationWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == [
        "gradient_checkpointing costs time",
        "another thing will change",
        "something is old",
    ]


def test_quiet_leaves_other_loggers_audible():
    environment.quiet()
    for name in ("", "torch", "peft", "bitsandbytes", "bitsandbytes.nn.modules", "accelerate", "py.warnings"):
        assert logging.getLogger(name).isEnabledFor(logging.WARNING), name
    assert logging.getLogger("transformers").isEnabledFor(logging.ERROR)


def test_quiet_keeps_what_the_reader_has_set(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    environment.quiet()
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["TOKENIZERS_PARALLELISM"]) == ("1", "true")


def test_quiet_shows_one_gpu_where_nothing_was_chosen(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    environment.quiet()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_versions_name_installed_packages_only(monkeypatch):
    import numpy

    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package-here"))
    assert environment.versions() == {"numpy": numpy.__version__}
