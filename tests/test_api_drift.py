"""Every argument, name and private door of transformers, peft and their kin that the lab uses is there in the installed versions."""

import ast
import logging
import re
import warnings
from functools import cache

import installed
import pytest
import usage
from versions import ROOT

from lab_utils import adapters, config, environment, generation, models, trainer, training
from lab_utils.data import Example

# Classes whose base is an argument, which no import shows.
BASES = {"Lean": "peft.tuners.lora.Linear", "Metered": "transformers.Trainer"}
# Methods of objects that no import leads to (or, with ?, such objects called), and what they may be: one of them must take the arguments.
METHODS = {
    ".apply_chat_template": ["transformers.PreTrainedTokenizerBase.apply_chat_template"],
    ".compile": ["torch.nn.Module.compile"],
    ".compute": ["evaluate.Metric.compute"],
    ".decode": ["transformers.PreTrainedTokenizerBase.decode", "builtins.bytes.decode"],
    ".disable_adapter": ["peft.PeftModel.disable_adapter"],
    ".generate": ["transformers.GenerationMixin.generate"],
    ".get_base_layer": ["peft.tuners.lora.LoraLayer.get_base_layer"],
    ".get_base_model": ["peft.PeftModel.get_base_model"],
    ".get_delta_weight": ["peft.tuners.lora.Linear.get_delta_weight"],
    ".merge_and_unload": ["peft.tuners.lora.LoraModel.merge_and_unload"],
    "?model": [f"transformers.{name}.forward" for name in ("LlamaForCausalLM", "T5ForConditionalGeneration", "BertModel")],
    ".remove_callback": ["transformers.Trainer.remove_callback"],
    ".save_pretrained": [f"{name}.save_pretrained" for name in ("transformers.PreTrainedModel", "peft.PeftModel")],
    ".set_attn_implementation": ["transformers.PreTrainedModel.set_attn_implementation"],
    "?tokenizer": ["transformers.PreTrainedTokenizerBase.__call__"],
    ".train": ["transformers.Trainer.train", "torch.nn.Module.train"],
    ".unload": ["peft.tuners.lora.LoraModel.unload"],
    ".unwrap_model": ["accelerate.Accelerator.unwrap_model"],
    ".update": ["transformers.GenerationConfig.update", "builtins.dict.update"],
    ".zero_grad": ["torch.nn.Module.zero_grad"],
}
# Arguments about which a signature errs, with the reason why that is well.
EXPLAINED = {
    ("transformers.T5Config", "decoder_start_token_id"): "a configuration keeps what it does not know as an attribute (tested below)",
    ("tokenizers.processors.TemplateProcessing", "pair"): "tokenizers 0.22 does not say that it may be left out",
}
ANYTHING = {"huggingface_hub.ModelCard.from_template": "what it does not know goes to our template, which holds it against its own words"}
# Underscored names on objects that are not ours: where they must be found, and what breaks in silence without them.
PRIVATE = {
    "_aggregate_and_compute": (
        "sacrebleu.metrics.BLEU",
        "sums per document would be missing, and with them the intervals of BLEU and chrF",
    ),
    "_attn_implementation": ("transformers.PreTrainedConfig", "the bench could not put attention back as it was"),
    "_compiled_call_impl": ("torch.nn.Module", "a model would stay compiled after training"),
    "_compute_score_from_stats": ("sacrebleu.metrics.BLEU", "BLEU and chrF of resampled documents could not be computed"),
    "_get_train_sampler": ("transformers.Trainer", "rows would not be grouped by length"),
    "_is_accelerate_prepared": ("accelerate.Accelerator", "autocast would be left out when a model is trained a second time"),
    "_is_amx_tile_supported": ("torch.cpu", "the precision of a CPU would be chosen without knowing its units for bfloat16"),
    "_is_avx512_bf16_supported": ("torch.cpu", "the precision of a CPU would be chosen without knowing its units for bfloat16"),
    "_save_checkpoint": ("transformers.Trainer", "an interrupted training would start anew"),
}
# Attributes set on objects that are not ours, which would take any other name as well: what must know them.
WRITTEN = {
    "attention_dropout": ["transformers.models.llama.modeling_llama.LlamaAttention"],
    "base_model_name_or_path": ["peft.LoraConfig"],
    "bias": ["torch.nn.Linear"],
    "cache_implementation": ["transformers.GenerationConfig"],
    "chat_template": ["transformers.PreTrainedTokenizerBase"],
    "data": ["torch.Tensor"],
    "decoder": ["tokenizers.Tokenizer"],
    "eos_token": ["transformers.PreTrainedTokenizerBase"],
    "generation_config": ["transformers.PreTrainedModel"],
    "init_lora_weights": ["peft.LoraConfig"],
    "lr_scheduler": ["transformers.Trainer"],
    "model_max_length": ["transformers.PreTrainedTokenizerBase"],
    "optimizer": ["transformers.Trainer"],
    "pad_token": ["transformers.PreTrainedTokenizerBase"],
    "pad_token_id": ["transformers.LlamaConfig", "transformers.GenerationConfig"],
    "post_processor": ["tokenizers.Tokenizer"],
    "pre_tokenizer": ["tokenizers.Tokenizer"],
    "save_only_model": ["transformers.TrainingArguments"],
    "should_save": ["transformers.TrainerControl"],
    "support_avx512bf16_for_cpu": ["bitsandbytes.nn.Linear4bit"],
    "use_cache": ["transformers.LlamaConfig", "transformers.T5Config"],
    "weight": ["torch.nn.Linear"],
}
# Of notebooks, widgets, templates, zip files and Python itself, where a wrong name shows at once or is one of ours in a namespace.
ELSEWHERE = {
    "__class__", "__name__", "__qualname__", "body", "cells", "children", "compress_type", "create_system", "daemon", "disabled",
    "execution_count", "external_attr", "filters", "metadata", "nbformat", "nbformat_minor", "outputs", "source", "value",
}  # fmt: skip
# What the lab reads on the layers and weights of peft and bitsandbytes.
READ = {
    "peft.tuners.lora.LoraLayer": [
        "active_adapters", "base_layer", "disable_adapters", "lora_A", "lora_B", "lora_dropout", "lora_variant", "merged",
        "merged_adapters", "scaling",
    ],
    "peft.PeftModel": ["peft_config"],
    "transformers.Trainer": ["accelerator", "model_wrapped", "state"],
    "transformers.TrainerState": ["epoch", "global_step", "max_steps"],
    "bitsandbytes.nn.Params4bit": ["quant_state"],
    "bitsandbytes.functional.QuantState": ["absmax"],
}  # fmt: skip


@cache
def sources():
    files = sorted([*(ROOT / "lab_utils").rglob("*.py"), *(ROOT / "notebooks").glob("*.py")])
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


@cache
def uses():
    makers = usage.makers(sources())
    return {place: usage.usage(source, place, makers, BASES) for place, source in sources().items()}


def everything(kind):
    """One kind of use in all files, without what belongs to an extra that is not installed."""
    return [one for found in uses().values() for one in getattr(found, kind)]


def checked(call):
    return installed.is_installed(call.target) and call.target not in ANYTHING


def said_of(call):
    said = installed.complaints(call.target, call.positional, call.keywords, bound=call.bound, complete=call.complete)
    explained = {name for target, name in EXPLAINED if target == call.target}
    return [text for text in said if text.split()[-1] not in explained]


@cache
def read_by_the_lab():
    nodes = [node for source in sources().values() for node in ast.walk(ast.parse(source))]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


@cache
def attributes_of_the_lab():
    """The names that the lab's own classes give to attributes."""
    found = set()
    for source in sources().values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                fields = [part.target for part in node.body if isinstance(part, ast.AnnAssign)]
                fields += [target for part in node.body if isinstance(part, ast.Assign) for target in part.targets]
                found |= {target.id for target in fields if isinstance(target, ast.Name)}
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") == "self":
                found.add(node.attr)
    return found


# --- the installed versions -------------------------------------------------------------------------------------------


def test_every_name_that_the_lab_takes_from_a_library_is_there():
    optional = set().union(*(found.optional for found in uses().values()))
    gone = []
    for found in uses().values():
        for name, place in found.names.items():
            if name not in optional and installed.is_installed(name) and not installed.is_there(name):
                gone.append(f"{place}: {name}")
    assert not gone


def test_every_argument_that_the_lab_gives_is_taken():
    optional = set().union(*(found.optional for found in uses().values()))
    calls = [call for call in everything("calls") if checked(call) and (call.target not in optional or installed.is_there(call.target))]
    assert not [f"{call.place}: {complaint}" for call in calls for complaint in said_of(call)]


def test_methods_of_models_tokenizers_and_trainers_take_what_the_lab_gives_them():
    said = []
    for call in everything("unresolved"):
        owners = METHODS.get(call.target, ())
        found = [installed.complaints(owner, call.positional, call.keywords, bound=True, complete=False) for owner in owners]
        if found and all(found):
            said.append(f"{call.place}: {min(found, key=len)}")
    assert not said


def test_of_the_libraries_but_torch_every_argument_could_be_looked_up():
    silent = {call.target for call in everything("calls") if checked(call) and not installed.has_signature(call.target)}
    assert {target for target in silent if not target.startswith("torch.")} <= {"transformers.GgufConfig"}  # absent in 5.15


def test_what_the_lab_overrides_in_a_library_is_still_called_with_what_it_takes():
    found = [one for one in everything("subclasses") if installed.is_installed(one.base)]
    said = [f"{one.place}: {text}" for one in found for text in installed.subclass_complaints(one.base, one.node, read_by_the_lab())]
    assert not said


def test_a_callback_is_given_what_it_asks_for_by_name():
    given = set(re.findall(r"(\w+)=", installed.source("transformers.trainer_callback.CallbackHandler")))
    methods = [
        method
        for one in everything("subclasses")
        if one.base == "transformers.TrainerCallback"
        for method in one.node.body
        if isinstance(method, ast.FunctionDef) and method.name.startswith("on_")
    ]
    asked = {argument.arg for method in methods for argument in method.args.args} - {"self", "args", "state", "control"}
    assert asked and asked <= given


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_name_that_the_lab_leans_on_is_still_there(name):
    owner, harm = PRIVATE[name]
    there = installed.is_there(f"{owner}.{name}") or re.search(rf"\b{name}\b", installed.source(owner))
    assert there, f"{owner} knows no {name} any more: {harm}"


@pytest.mark.parametrize("name", WRITTEN)
def test_an_attribute_that_the_lab_sets_is_one_that_the_library_knows(name):
    for owner in WRITTEN[name]:
        assert name in installed.members(owner) or re.search(rf"\b{name}\b", installed.source(owner)), owner


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, names in READ.items() for name in names])
def test_an_attribute_that_the_lab_reads_is_there(owner, name):
    assert name in installed.members(owner)


def test_a_configuration_keeps_what_it_does_not_know():
    assert installed.find("transformers.T5Config")(decoder_start_token_id=7).decoder_start_token_id == 7


def test_nothing_that_the_lab_does_is_deprecated(tmp_path, monkeypatch):
    """Loading, adapting, training, answering, saving: with warnings and logs on, which the lab turns down elsewhere."""
    logged = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())
    monkeypatch.setattr(environment, "quiet", lambda: None)
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.WARNING)
    examples = [Example(f"e{i}", f"Ann: Where are you {i}?\nBen: At home.", ("Ben is at home.",)) for i in range(2)]
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for recipe, method, more in (
                ("tiny-causal", "lora", {"loraplus_ratio": 4}),
                ("tiny-causal", "qlora", {}),
                ("tiny-seq2seq", "full", {"activation_checkpointing": True}),
            ):
                settings = config.resolve(recipe, method, seed=0, batch_size=1, micro_batch=1, **more)
                base = models.load(settings)
                model = base.model if method == "full" else adapters.attach_lora(base)
                training.train(model, base, examples, max_steps=1, say=lambda line: None)
                generation.summarize(model, base, examples[:1], say=lambda line: None)
                if method == "lora":
                    adapters.save_adapter(model, base, tmp_path)
                    adapters.load_adapter(models.load(settings), tmp_path)
            models.quantization_config("int8", base.precision)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    texts = [str(one.message) for one in warned if issubclass(one.category, FutureWarning | DeprecationWarning)]
    texts += [text for text in logged if re.search(r"deprecat|will be removed", text)]
    # peft asks transformers by the old name; there is nothing here to change.
    assert not [text for text in texts if "is_gradient_checkpointing" not in text]


@pytest.mark.parametrize("wanted", [True, False])
def test_recomputation_in_the_backward_pass_is_asked_for_by_a_name_that_is_known(tmp_path, wanted):
    settings = config.resolve("tiny-causal", "lora", activation_checkpointing=wanted)
    made = trainer.training_arguments(settings.training, str(tmp_path), 0, environment.precision(), "cpu")
    asked = {name: value for name, value in vars(made).items() if name in ("activation_checkpointing", "gradient_checkpointing")}
    assert wanted in asked.values()


# --- the tables above -------------------------------------------------------------------------------------------------


def test_every_private_name_that_the_lab_uses_is_in_the_table_with_what_would_break():
    found = {name: place for use in uses().values() for name, place in use.private.items()}
    ours = {node.name for source in sources().values() for node in ast.walk(ast.parse(source)) if hasattr(node, "name")}
    assert {name: place for name, place in found.items() if name not in ours | {"_asdict"} and name not in PRIVATE} == {}
    overridden = {part.name for one in everything("subclasses") for part in one.node.body if isinstance(part, ast.FunctionDef)}
    assert set(PRIVATE) <= set(found) | overridden


def test_every_attribute_that_the_lab_sets_on_what_is_not_its_own_is_in_a_table():
    found = {name: place for use in uses().values() for name, place in use.written.items()}
    known = attributes_of_the_lab() | ELSEWHERE | set(WRITTEN) | set(PRIVATE)
    assert {name: place for name, place in found.items() if name not in known} == {}
    assert set(WRITTEN) <= set(found)


def test_every_method_and_attribute_of_the_tables_is_used():
    used = {call.target for call in everything("unresolved")}
    assert set(METHODS) <= used
    assert {name for names in READ.values() for name in names} <= read_by_the_lab()


@pytest.mark.parametrize(
    "target",
    [
        "transformers.Trainer", "transformers.TrainingArguments", "transformers.GenerationConfig", "transformers.BitsAndBytesConfig",
        "transformers.AutoModelForCausalLM.from_pretrained", "transformers.AutoModelForSeq2SeqLM.from_pretrained",
        "transformers.AutoTokenizer.from_pretrained", "peft.LoraConfig", "peft.get_peft_model", "peft.PeftModel.from_pretrained",
        "peft.optimizers.create_loraplus_optimizer", "bitsandbytes.functional.quantize_4bit", "bitsandbytes.nn.Linear4bit",
        "datasets.load_dataset", "huggingface_hub.snapshot_download", "huggingface_hub.hf_hub_download",
        "huggingface_hub.HfApi.create_repo", "huggingface_hub.HfApi.upload_folder", "papermill.execute_notebook",
    ],
)  # fmt: skip
def test_the_calls_that_matter_are_found_with_their_arguments(target):
    assert [call for call in everything("calls") if call.target == target and (call.keywords or call.positional)]


# --- the reader itself ------------------------------------------------------------------------------------------------


def complaints_about(source):
    return [text for call in usage.usage(source, "toy.py").calls for text in said_of(call)]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import transformers as t\nt.TrainingArguments(output_dir='x', evaluation_stratgy='no')", "takes no evaluation_stratgy"),
        ("def f():\n    from peft import LoraConfig\n    LoraConfig(rank=4)", "peft.LoraConfig takes no rank"),
        ("from peft import LoraConfig\noptions = {'r': 4}\noptions['rang'] = 4\nLoraConfig(**options)", "takes no rang"),
        ("from peft import LoraConfig\noptions = {'r': 4}\noptions |= {'rang': 4}\nLoraConfig(**options)", "takes no rang"),
        ("from peft import LoraConfig\nLoraConfig(**({'rang': 1} if y else {'r': 1}))", "takes no rang"),
        ("from transformers import GenerationConfig\nGenerationConfig(max_new_tokns=3)", "takes no max_new_tokns"),
        (
            "from transformers import Trainer, TrainerCallback\nT = Trainer if a else TrainerCallback\nT(modell=1)",
            "transformers.Trainer takes",
        ),
        ("from transformers import AutoTokenizer\nAutoTokenizer.from_pretraned('x')", "from_pretraned is gone"),
        ("from huggingface_hub import HfApi\napi = HfApi()\napi.create_repo('a/b', exists_ok=True)", "takes no exists_ok"),
        ("from peft import get_peft_model\nget_peft_model(model)", "now needs peft_config"),
        ("from huggingface_hub import HfApi\nHfApi().create_repo('a/b', 1)", "takes 1 arguments by position, not 2"),
        ("from transformers import Trainer\nmeter.around(Trainer)(modell=1)", "transformers.Trainer takes no modell"),
    ],
)
def test_a_call_that_a_library_would_refuse_is_reported(source, complaint):
    assert complaint in " ".join(complaints_about(source))


@pytest.mark.parametrize(
    "source",
    [
        "from peft import LoraConfig\nLoraConfig(r=4, **{'lora_alpha': 8})",
        "from peft import LoraConfig\nLoraConfig(**anything)",
        "from peft import get_peft_model\nget_peft_model(*both)",
        "def f(LoraConfig):\n    LoraConfig(rang=4)",
        "from huggingface_hub import HfApi\nHfApi(token=None).create_repo('a/b', exist_ok=True)",
        "import torch\nlayer = torch.nn.Linear(2, 3)\nlayer(1)",
    ],
)
def test_a_call_that_is_right_or_cannot_be_known_is_left_in_peace(source):
    assert complaints_about(source) == []


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("def _get_sampler_of_training(self):\n        return 1", "nothing calls Mine._get_sampler_of_training"),
        ("def compute_loss(self, model, inputs):\n        return 1", "takes return_outputs, which its override does not"),
        ("def __init__(self):\n        self.model_takes_loss_arguments = True", "sets model_takes_loss_arguments"),
        ("def log(self, logs, start_time=None):\n        return super().log_all(logs)", "has no log_all"),
        ("def log(self, logs, start_time=None):\n        return self.accelerater", "has no accelerater"),
    ],
)
def test_an_override_that_would_do_nothing_is_reported(body, complaint):
    source = f"from transformers import Trainer\nclass Mine(Trainer):\n    {body}\n"
    (found,) = usage.usage(source, "toy.py").subclasses
    assert complaint in " ".join(installed.subclass_complaints(found.base, found.node, used=set()))


def test_private_names_set_attributes_and_guarded_names_are_seen():
    found = usage.usage(
        "import transformers, os\nmodel._hidden = 1\nmodel.__dict__.pop('_prepared')\nos._exit(0)\n"
        "if hasattr(transformers, 'Newer'):\n    transformers.Newer()\n",
        "toy.py",
    )
    assert set(found.private) == {"_hidden", "_prepared"}
    assert set(found.written) == {"_hidden"}
    assert found.optional == {"transformers.Newer"}


def test_a_class_made_by_a_function_keeps_its_own_arguments_to_itself():
    source = (
        "def made():\n    from transformers import Trainer\n    class Mine(Trainer):\n        def __init__(self, *a, say, **k): ...\n"
        "    return Mine\n"
        "made()(model=1, say=2, colour=3)\n"
    )
    (call,) = [c for c in usage.usage(source, "toy.py", usage.makers({"toy.py": source})).calls if c.target == "transformers.Trainer"]
    assert call.keywords == {"model", "colour"}
    assert said_of(call) == ["transformers.Trainer takes no colour"]


def test_a_library_that_is_not_installed_is_no_complaint():
    assert not checked(usage.Call("toy.py:1", "no_such_library.Thing", False, 0, frozenset({"colour"}), True))
