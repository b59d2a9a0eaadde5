"""LoRA's relatives, other optimizers and activation checkpointing: each does what its name says, and comes back from disk."""

import math

import pytest
import torch

from lab_utils import adapters, config, data, environment, generation, methods, models, runs, trainer, training
from lab_utils.errors import LabError

SMALL = {"train_examples": 16, "validation_examples": 2, "test_examples": 3, "warmup": 0.0}


def settings_of(recipe, method="lora", **changes):
    return config.resolve(recipe, method, 0, **SMALL, **changes)


def adapted(recipe, **changes):
    base = models.load(settings_of(recipe, **changes))
    return adapters.attach_lora(base), base


def lora_layers(model):
    return [module for module in model.modules() if hasattr(module, "lora_A")]


@pytest.mark.parametrize(
    "changes",
    [
        {"dora": True},
        {"rslora": True},
        {"pissa": True},
        {"pissa": True, "rank": 2},
        {"loraplus_ratio": 8.0},
        {"dora": True, "quantization": "nf4"},
    ],
    ids=lambda changes: "+".join(changes),
)
def test_a_saved_adapter_of_every_kind_gives_the_same_answers_on_a_fresh_base(recipe, changes, tmp_path):
    record = methods.run(settings_of(recipe, learning_rate=0.05, **changes), tmp_path)
    model, base = methods.restore(tmp_path, "lora")
    corpus = data.load(base.settings.recipe.data)
    again = generation.summarize(model, base, corpus.test, say=lambda line: None).predictions
    assert again == runs.read(tmp_path, "lora").predictions
    assert record.record["model"]["fingerprint"] == base.checkpoint


def test_dora_trains_one_magnitude_for_each_output(recipe):
    plain, with_magnitudes = (models.trainable_parameters(adapted(recipe, dora=dora)[0]) for dora in (False, True))
    outputs = sum(layer.base_layer.weight.shape[0] for layer in lora_layers(adapted(recipe)[0]))
    assert with_magnitudes - plain == outputs


def test_rslora_scales_by_the_root_of_the_rank(recipe):
    layer = lora_layers(adapted(recipe, rslora=True, rank=4, alpha=8)[0])[0]
    assert layer.scaling["default"] == pytest.approx(8 / math.sqrt(4))


def test_pissa_moves_the_largest_directions_into_the_adapter_and_still_answers_as_the_base(recipe):
    model, base = adapted(recipe, pissa=True)
    untouched = models.load(settings_of(recipe))
    row = base.collator([base.encoder(data.load(base.settings.recipe.data).train[0])])
    with torch.no_grad():
        before, now = (m(**row).logits.float() for m in (untouched.model, model))
    layer, name = next((m, n) for n, m in model.named_modules() if hasattr(m, "lora_A"))
    original = untouched.model.get_submodule(name.removeprefix("base_model.model.")).weight.float()
    assert torch.linalg.svdvals(layer.base_layer.weight.float())[0] < torch.linalg.svdvals(original)[0]
    assert (before - now).abs().max() < 0.1 * before.abs().max()


def test_loraplus_gives_b_its_own_learning_rate(recipe):
    model, base = adapted(recipe, loraplus_ratio=8.0)
    groups = trainer.loraplus(model, base.settings.training).param_groups
    assert {round(group["lr"] / base.settings.training.learning_rate) for group in groups if group["params"]} == {1, 8}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pissa": True, "quantization": "nf4"}, "exact weights"),
        ({"pissa": True, "dora": True}, "choose one"),
        ({"dora": True, "quantization": "int8"}, "norms of the weights"),
        ({"loraplus_ratio": 4.0, "optimizer": "adafactor"}, "optimizer: adamw"),
        ({"dora": "yes"}, "boolean"),
        ({"optimizer": "sgdd"}, "adamw_8bit"),
    ],
)
def test_switches_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(LabError, match=words):
        settings_of("tiny-causal", **changes)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor"])
def test_every_optimizer_moves_the_adapter(optimizer):
    model, base = adapted("tiny-causal", optimizer=optimizer)
    before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    training.train(model, base, data.load(base.settings.recipe.data).train, say=lambda line: None)
    after = [p for p in model.parameters() if p.requires_grad]
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert all(torch.isfinite(p).all() for p in after)


def test_without_a_gpu_the_paged_optimizer_is_the_8_bit_one_and_says_so(monkeypatch):
    monkeypatch.setattr(environment, "machine", lambda: environment.Machine("local", "cpu", "CPU", 2, 8.0))
    name, reason = environment.optimizer("paged_adamw_8bit")
    assert name == "adamw_8bit" and "GPU" in reason


def test_without_bitsandbytes_adamw_takes_the_place_of_its_8_bit_form(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    name, reason = environment.optimizer("adamw_8bit")
    assert name == "adamw_torch_fused" and "bitsandbytes" in reason


def test_quantization_without_bitsandbytes_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(LabError, match="quantization=nf4 needs bitsandbytes.*quantization=none"):
        models.load(config.resolve("tiny-causal", "qlora", 0))


def test_activation_checkpointing_changes_neither_loss_nor_gradient(recipe):
    histories = []
    for switched in (False, True):
        model, base = adapted(recipe, activation_checkpointing=switched)
        base.precision = environment.Precision("float32", "rounding should not blur the comparison")
        model.float()
        histories.append(training.train(model, base, data.load(base.settings.recipe.data).train, say=lambda line: None).log)
    for plain, recomputed in zip(*histories, strict=True):
        assert recomputed["loss"] == pytest.approx(plain["loss"], rel=1e-4)
        assert recomputed["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-3)


def test_tensorboard_logs_lie_beside_the_run(tmp_path, monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    methods.run(settings_of("tiny-causal", tensorboard=True), tmp_path)
    assert list((tmp_path / "lora" / "tensorboard").rglob("events.out.tfevents.*"))


def test_tensorboard_that_is_not_installed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LabError, match="pip install tensorboard"):
        training._prepare_tensorboard(tmp_path / "log.csv")


@pytest.mark.parametrize(
    ("family", "wanted", "capability", "words"),
    [
        ("seq2seq", "float16", (8, 0), "overflow in float16"),
        ("causal", "float16", None, "CPUs do not compute float16"),
        ("causal", "bfloat16", (7, 5), "only emulates bfloat16"),
    ],
)
def test_a_precision_that_harms_is_refused_with_the_reason(monkeypatch, family, wanted, capability, words):
    device = "cuda" if capability else "cpu"
    monkeypatch.setattr(environment, "machine", lambda: environment.Machine("local", device, "x", 2, 16.0))
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: capability)
    with pytest.raises(LabError, match=words):
        environment.precision(family, wanted)


def test_a_precision_that_was_asked_for_is_used_and_recorded(tmp_path):
    record = methods.run(settings_of("tiny-causal", precision="float32"), tmp_path).record
    assert record["environment"]["precision"] == "float32"
    assert models.load(settings_of("tiny-causal", precision="float32")).model.dtype == torch.float32


def test_an_adapter_is_refused_by_another_base(tmp_path):
    methods.run(settings_of("tiny-causal"), tmp_path)
    other = models.load(settings_of("tiny-seq2seq"))
    with pytest.raises(LabError, match="was trained on tiny causal.*not on tiny seq2seq"):
        adapters.load_adapter(other, tmp_path / "lora" / "adapter")


def test_an_adapter_without_the_name_of_its_base_is_refused_where_its_shapes_do_not_fit(tmp_path):
    methods.run(settings_of("tiny-causal"), tmp_path)
    folder = tmp_path / "lora" / "adapter"
    (folder / adapters.BASE_FILE).unlink()
    with pytest.raises(LabError, match="cannot be loaded onto"):
        adapters.load_adapter(models.load(settings_of("tiny-seq2seq")), folder)
