"""Layers computed with less work give the results of the plain ones, and stand as they stood afterwards."""

import types

import pytest
import torch
from peft.tuners.lora import LoraLayer

from lab_utils import adapters, config, data, encoding, generation, layers, models, training
from lab_utils.environment import Precision

BF16, FP32 = Precision("bfloat16", "set by a test"), Precision("float32", "set by a test")


@pytest.fixture
def adapted(recipe, monkeypatch):
    """Makes a tiny model with an adapter that changes its answers, in the precision asked for, and a batch."""

    def make(precision=FP32, method="lora", lean=True, **changes):
        if not lean:
            monkeypatch.setattr(layers, "lean", lambda model: None)
        monkeypatch.setattr("lab_utils.environment.precision", lambda family="causal", wanted="auto": precision)
        base = models.load(config.resolve(recipe, method, 0, **changes))
        model = adapters.attach_lora(base)
        torch.manual_seed(1)
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.05)
        rows = encoding.rows(base.encoder, data.load(base.settings.recipe.data).train[:3])
        return model, base, base.collator(rows)

    return make


def loss_and_gradients(model, base, batch):
    model.zero_grad(set_to_none=True)
    with base.precision.autocast("cpu"):
        loss, tokens = training.token_losses(model, batch)
    (loss / tokens).backward()
    return (loss / tokens).item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("alpha", [32, 24], ids=["scale 2", "scale 1.5"])
@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("precision", [BF16, FP32], ids=["bfloat16", "float32"])
def test_the_lean_pass_has_pefts_loss_to_the_last_bit(adapted, precision, method, alpha):
    loss, gradients = loss_and_gradients(*adapted(precision, method, rank=16, alpha=alpha))
    plain_loss, plain = loss_and_gradients(*adapted(precision, method, lean=False, rank=16, alpha=alpha))
    assert loss == plain_loss
    for ours, theirs in zip(gradients, plain, strict=True):  # peft adds up the input's gradient in float32
        assert torch.allclose(ours, theirs, rtol=0.02, atol=0.02 * theirs.abs().max().item())


def test_the_lean_pass_is_really_taken_and_left_where_there_is_more_to_do(adapted, monkeypatch):
    model, base, batch = adapted()
    taken = []
    power = layers._is_power_of_two
    monkeypatch.setattr(layers, "_is_power_of_two", lambda scale: taken.append(scale) or power(scale))
    model(**batch)
    assert len(taken) == sum(isinstance(m, LoraLayer) for m in model.modules())
    taken.clear()
    with model.disable_adapter():
        off = model(**batch).logits
    assert not taken and not torch.equal(off, model(**batch).logits)
    dropping, _, batch = adapted(dropout=0.5)
    taken.clear()
    dropping(**batch)
    assert not taken


def test_without_autocast_a_16_bit_base_under_float32_adapters_still_answers(adapted):
    model, _, batch = adapted(BF16)
    assert torch.isfinite(model(**batch).logits).all()


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_merged_layers_give_the_same_logits_and_leave_the_model_as_it_was(adapted, method):
    model, base, batch = adapted(method=method)
    model.eval()
    before = dict(model.named_modules())
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        expected = model(**batch).logits
        with layers.merged(model, base.precision) as replaced:
            assert replaced and not any(isinstance(m, LoraLayer) for m in model.modules())
            assert torch.allclose(model(**batch).logits, expected, atol=1e-5)
    after = dict(model.named_modules())
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())


def test_layers_stand_again_after_an_error(adapted):
    model, base, _ = adapted()
    with pytest.raises(RuntimeError, match="in between"), layers.merged(model, base.precision):
        raise RuntimeError("in between")
    assert any(isinstance(m, LoraLayer) for m in model.modules())


def test_an_adapter_that_is_switched_off_is_not_merged(adapted):
    model, base, batch = adapted()
    model.eval()
    with torch.no_grad(), model.disable_adapter():
        expected = model(**batch).logits
        with layers.merged(model, base.precision):
            assert torch.equal(model(**batch).logits, expected)


def test_a_plain_base_in_4_bits_is_unpacked_and_nothing_else_is_touched(recipe):
    quantized = models.load(config.resolve(recipe, "qlora"))
    with layers.merged(quantized.model, quantized.precision) as replaced:
        assert replaced and not any("4bit" in type(m).__name__ for m in quantized.model.modules())
    assert any("4bit" in type(m).__name__ for m in quantized.model.modules())
    plain = models.load(config.resolve(recipe, "zero_shot"))
    with layers.merged(plain.model, plain.precision) as replaced:
        assert not replaced


def test_layers_under_dora_stay(adapted):
    model, base, _ = adapted(dora=True)
    with layers.merged(model, base.precision) as replaced:
        assert not replaced


def test_int8_layers_stay_since_their_product_rounds_its_inputs_too(adapted):
    model, base, _ = adapted(quantization="int8")
    count = sum(type(m).__name__ == "Linear8bitLt" and hasattr(m, "lora_A") for m in model.modules())
    with layers.merged(model, base.precision):
        assert count and sum(type(m).__name__ == "Linear8bitLt" and hasattr(m, "lora_A") for m in model.modules()) == count


@pytest.mark.parametrize("quantization, error", [("none", 0), ("nf4", 0.15), ("int8", 0.02)])
def test_unpacked_weights_are_the_bases_and_reading_them_leaves_the_layer_as_it_was(adapted, quantization, error):
    model, _, batch = adapted(quantization=quantization)
    expected = model(**batch).logits.detach()
    whole, _, _ = adapted(quantization="none")
    pairs = [(a, b) for a, b in zip(model.modules(), whole.modules(), strict=True) if isinstance(a, LoraLayer)]
    assert pairs
    for quantized, plain in pairs:
        weight = plain.base_layer.weight
        assert (layers.unpacked(quantized) - weight).norm() <= error * weight.norm()
    assert torch.equal(model(**batch).logits, expected)


def test_without_room_for_copies_nothing_is_merged(adapted, monkeypatch):
    model, base, _ = adapted()
    monkeypatch.setattr(layers, "free_bytes", lambda device: 10.0)
    with layers.merged(model, base.precision) as replaced:
        assert not replaced


# --- batches by memory --------------------------------------------------------------------------------------------------


def batch_sizes(lengths, rows, room_tokens, monkeypatch, new=10):
    limits = types.SimpleNamespace(generation_batch=rows, max_new_tokens=new)
    base = types.SimpleNamespace(settings=types.SimpleNamespace(recipe=types.SimpleNamespace(generation=limits)))
    monkeypatch.setattr(generation, "cache_bytes", lambda model: 1)
    monkeypatch.setattr(layers, "free_bytes", lambda device: room_tokens / generation.CACHE_SHARE)
    return generation._batches(lengths, types.SimpleNamespace(device="cpu"), base)


def test_batches_hold_as_many_prompts_as_keys_and_values_have_room_for(monkeypatch):
    # 100 tokens of room: the longest, 40 + 10, has room for two; then 20 + 10 for three of at most four
    assert batch_sizes([5, 40, 20, 30, 20, 20], 4, 100, monkeypatch) == [[1, 3], [2, 4, 5], [0]]


def test_a_prompt_that_has_no_room_is_tried_alone_and_room_for_all_ends_at_the_limit(monkeypatch):
    assert batch_sizes([50, 60], 4, 1, monkeypatch) == [[1], [0]]
    assert batch_sizes([1, 2, 3], 2, 1e9, monkeypatch) == [[2, 1], [0]]


def test_the_bytes_of_a_cached_token_are_those_that_generation_leaves(recipe):
    base = models.load(config.resolve(recipe, "zero_shot"))
    ids = torch.ones(1, 5, dtype=torch.long)
    given = {"decoder_input_ids": ids} if base.family == "seq2seq" else {}
    cache = base.model(input_ids=ids, use_cache=True, **given).past_key_values
    cache = getattr(cache, "self_attention_cache", cache)
    held = sum(tensor.numel() * tensor.element_size() for layer in cache.layers for tensor in (layer.keys, layer.values))
    assert generation.cache_bytes(base.model) == held / 5
