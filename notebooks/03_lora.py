# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3. LoRA
#
# Can a model learn the task while all of its own weights stay as they are?
#
# | | |
# |---|---|
# | **You will** | build a LoRA layer in ten lines, compare it with peft's, train the whole model through adapters, save, load and merge them, and break them on purpose |
# | **You will learn** | what a low-rank update is, how to count its parameters, what it saves in memory and on disk, what it does not save, and how its usual failures look |
# | **You need** | notebooks 01 and 02 (this one also runs without their records, but then has nothing to compare with) |
# | **Time** | about 4 minutes of computing with the default recipe on 2 CPU cores without GPU, and about 45 minutes for the six exercises |
#
# Full fine-tuning writes a new copy of every weight. LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models") keeps the old weights
# and learns a small correction beside them.
#
# The last line of an exercise's cell judges your answer: passed, almost (with a hint that grows), or not attempted. An exercise that is not solved yet
# stops nothing: the cells after it go on with the lab's own answer.

# %%
# Finds the lab around this notebook, or fetches it (Colab, Kaggle), and makes the session ready.
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = "https://github.com/summarization-lab/summarization-lab"
REVISION = "main"  # the branch or tag that the badges open
fetched = Path.cwd() / "summarization-lab"
root = next((p for p in [Path.cwd(), *Path.cwd().parents, fetched] if (p / "lab_utils" / "bootstrap.py").is_file()), None)
if root is None:
    part = fetched.with_name(".summarization-lab.part")  # renamed once it is complete
    shutil.rmtree(part, ignore_errors=True)
    clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", REVISION, REPOSITORY, str(part)]
    unasked = {"stdin": subprocess.DEVNULL, "env": os.environ | {"GIT_TERMINAL_PROMPT": "0"}}
    try:
        subprocess.run(clone, check=True, capture_output=True, text=True, **unasked)
        root = part.rename(fetched)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = " ".join((getattr(error, "stderr", "") or str(error)).split())
        raise SystemExit(
            f"The lab could not be fetched ({reason}). It takes git, the internet (Kaggle: Settings > Internet) "
            f"and no other folder named {fetched.name} here. Then run this cell again."
        ) from None
os.chdir(root)
sys.path.insert(0, str(root))
from lab_utils import bootstrap

bootstrap.ensure(notebook="source")

# %% tags=["parameters"]
recipe = "smollm2-everyday"  # which model, data, prompt and budgets
run_dir = "runs/smollm2-everyday"  # where records go
seed = 0
model = None  # another model: a hub id
model_dir = None  # a folder with another model
data = None  # other data: a hub id
data_dir = None  # a folder (train, validation, test files) or one CSV, JSONL or Parquet file
document_column = None  # column of documents; None: document, dialogue, article or text
summary_column = None  # column of summaries; None: references, summary1, summary or highlights
test_from = None  # "validation" where the data has no test split
train_examples = None  # how many training documents
validation_examples = None  # how many validation documents
test_examples = None  # how many test documents
data_seed = None  # which documents are drawn, where fewer are used than there are
learning_rate = None
epochs = None  # how often each training document is seen
batch_size = None  # examples for one change of the weights
micro_batch = None  # examples in memory at one time
rank = None  # r: rows of A, columns of B
alpha = None  # the update is multiplied by alpha / r
dropout = None  # on the input of A, in training only
target_modules = None  # "all-linear", "attention", "query-value" or ["q_proj", "v_proj"]
quantization = None  # how the frozen base is stored: "none", "int8" or "nf4"
publish_to = None  # "owner/name": upload the result to the hub
sweep_ranks = [2, 32]  # ranks of the small experiment at the end
sweep_steps = 3  # its optimizer steps for each rank
sweep_validation = 4  # its validation documents
assignment = None  # its name, if this is one: kept in the record
student = None  # your id, if you hand this in: kept in the record

# %%
import copy
import gc
import warnings

import pandas as pd
import torch

from lab_utils import adapters, check, comparison, config, generation, layers, memory
from lab_utils import methods, metrics, models, plots, report, runs, training
from lab_utils import data as corpora  # `data` is a parameter
from lab_utils.errors import LabError

check.note_in(run_dir)  # what the exercises say is kept beside the records

# %%
settings = config.resolve(
    recipe, "lora", seed, model=model, model_dir=model_dir, data=data, data_dir=data_dir,
    document_column=document_column, summary_column=summary_column, test_from=test_from,
    train_examples=train_examples, validation_examples=validation_examples, data_seed=data_seed,
    test_examples=test_examples, learning_rate=learning_rate, epochs=epochs,
    batch_size=batch_size, micro_batch=micro_batch, rank=rank, alpha=alpha, dropout=dropout,
    target_modules=target_modules, quantization=quantization, publish_to=publish_to,
)  # fmt: skip

# %%
plan = settings.training
corpus = corpora.load(settings.recipe.data)
run = runs.start(run_dir, settings, assignment, student)
base = models.load(settings)
run.add(data=corpus.describe(), model=base.describe())
print(f"{settings.recipe.model.label}: {base.parameters:,} parameters")
print(f"quantization {settings.quantization}, {base.precision.name} products")
print(f"rank {plan.rank}, alpha {plan.alpha:g}, dropout {plan.dropout:g}")
print(f"target modules {plan.target_modules}, learning rate {plan.learning_rate:g}")

# %% [markdown]
# ## The story and the ledger so far
#
# Two things travel through all notebooks. The **story** is the first test document: every method writes a summary of it. The **ledger** is a table that
# gets one row from each method: what was trained, what it cost, what it scored.
#
# **Predict:** look at the rows so far, then write down LoRA's: trainable parameters, peak memory, minutes, size of the checkpoint and ROUGE-1. At the
# end we compare these five numbers.

# %%
story = corpus.test[0]


def tell(finished):
    """Prints what these runs have written for the story."""
    for one in finished:
        written = {p.id: p.prediction for p in one.predictions}
        summary = written.get(story.id, "(another test set)")
        print(f"{plots.METHOD_NAMES[one.method]}: {summary}\n")


earlier = runs.read_all(run_dir)
print(f"reference: {story.references[0]}\n")
tell(earlier)
rows = pd.DataFrame(comparison.ledger(earlier))
rows.set_index("method") if earlier else "No notebook has left a record in this run_dir yet."

# %% [markdown]
# ## The idea
#
# A linear layer multiplies its input by a matrix `W`. Fine-tuning replaces `W` by `W + dW`. Nothing limits `dW`: it has as many numbers as `W`.
#
# LoRA allows only updates of the form
#
# $$dW = \frac{\alpha}{r}\, B A$$
#
# where `A` has `r` rows, `B` has `r` columns, and `r` is small. Such a product has **rank** `r` at most: all its rows are mixtures of the `r` rows
# of `A`. `W` stays **frozen**; only `A` and `B` are trained. The factor `alpha / r` is meant to keep the size of the update similar when `r` changes.
#
# Here is a matrix of rank 1. **Predict** the second row of the product.

# %%
B = torch.tensor([[1.0], [2.0], [0.0], [-1.0]])
A = torch.tensor([[3.0, 1.0, 0.0, 2.0, -1.0]])
product = B @ A
print(product)
print(f"{product.numel()} numbers, made from {A.numel() + B.numel()}")
print(f"rank: {torch.linalg.matrix_rank(product)}")

# %% [markdown]
# Every row is a multiple of `A`; the second is 2 times `A`. For a layer with `n_in` inputs and `n_out` outputs, `W` is `n_out` x `n_in`, `A` is
# `r` x `n_in`, and `B` is `n_out` x `r`.
#
# ### Exercise 3.1 (recall): From which rank on?
#
# A layer has 1,000 inputs and 1,000 outputs. Give the smallest rank at which `A` and `B` together have **more** numbers than `W`.
#
# **Predict** before you calculate: is it below 10, from 10 to 100, or above 100?

# %%
# BEGIN SOLUTION
break_even_rank = 501
# END SOLUTION
check.break_even(break_even_rank)

# %% [markdown]
# So LoRA saves a lot when the rank is far below the sides of the layer. We list the shapes of all linear layers of this model. The output layer, which
# scores the words, is left out: it is usually not adapted.
#
# **Predict:** which layers are the largest, those of the attention or those of the feed-forward part?

# %%
head = base.model.get_output_embeddings()
modules = dict(base.model.named_modules())
output_layer = next(name for name, m in modules.items() if m is head)
linears = {name: m for name, m in modules.items() if isinstance(m, torch.nn.Linear)}
linears.pop(output_layer, None)
shapes = {name: (m.in_features, m.out_features) for name, m in linears.items()}
largest = max(shapes, key=lambda name: shapes[name][0] * shapes[name][1])
first = next(iter(shapes))
print(f"{len(shapes)} linear layers; the first: {first}, {shapes[first]}")
print(f"a largest one: {largest}, {shapes[largest]}")

# %% [markdown]
# ### Exercise 3.2 (build): Count the parameters of an adapter
#
# Write `count_lora(shapes, rank, chosen)`. Given are
#
# - `shapes`, a dictionary: name of a layer -> `(n_in, n_out)`, as above,
# - `rank`, a whole number,
# - `chosen`, the names of the layers that get an adapter.
#
# Return how many numbers all `A` and `B` of the chosen layers have together.
#
# **Predict:** with twice the rank, how many times as many will it be?

# %%
def count_lora(shapes, rank, chosen):
    # BEGIN SOLUTION
    return sum(rank * (n_in + n_out) for n_in, n_out in (shapes[name] for name in chosen))
    # END SOLUTION


verdict = check.count_lora(count_lora, shapes=shapes, rank=plan.rank)
best_count = verdict.best
verdict

# %% [markdown] tags=["instructor"]
# **Instructor, 3.2** (8 minutes). Look for: both factors counted, each with its own side, and only the chosen layers. A loop is as good as a sum. Common:
# `rank * n_in * n_out` (the size of a full matrix, not of its factors), and `2 * rank * n_in`, which is right for square layers only and so survives a
# quick test on `q_proj`. Ask: why does the count not depend on alpha?

# %% [markdown]
# ## A LoRA layer by hand
#
# Twice the rank makes twice as many parameters. Now the layer itself.
#
# It computes what a layer with `W + (alpha / r) B A` in place of `W` would compute. It need not form that matrix, which is as large as `W`: there is a
# cheaper order of the products.
#
# ### Exercise 3.3 (build): Write the forward pass of LoRA
#
# Write `lora_forward(x, W, A, B, alpha)`. All are tensors but `alpha`, a number: `x` is `n` x `n_in` (one row per token), `W` is `n_out` x `n_in`, `A` is
# `r` x `n_in`, `B` is `n_out` x `r`. Return the layer's output, `n` x `n_out`. There is no bias.
#
# A gradient must reach `A` and `B`, so use torch operations.
#
# **Predict:** the cheaper order multiplies `x` by one of the two factors first. How many numbers has a row of `x` become after that?

# %%
def lora_forward(x, W, A, B, alpha):
    # BEGIN SOLUTION
    return x @ W.T + alpha / A.shape[0] * (x @ A.T) @ B.T
    # END SOLUTION


verdict = check.lora_forward(lora_forward)
best_forward = verdict.best
verdict

# %% [markdown] tags=["instructor"]
# **Instructor, 3.3** (10 minutes). Look for: the transposes (torch stores weights as outputs x inputs), `alpha / r` on the update only, and `r` read from the
# shape of `A`. Forming `W + scale * B @ A` is right and passes; ask what it costs for one token (`n_out * n_in * r` products) against two thin products
# (`r * (n_in + n_out)`). Common: `alpha` without `/ r`, which looks the same in every test where `alpha` happens to be 1.

# %% [markdown]
# After `A` each row of `x` has `r` numbers, and `B` makes them `n_out`.
#
# Now a layer that can be trained. `A` starts random, `B` at zero. (Both at zero would never move: the gradient of each is multiplied by the other.)
#
# We put it around a float32 copy of the largest layer, without its bias. (Weights that are stored in fewer bits are unpacked for this.) **Predict:**
# how far is the output from that of the plain layer? And after we fill `B` with small random numbers? Which share of the layer's parameters does it train?

# %%
class LoRA(torch.nn.Module):
    """A frozen linear layer with a trainable update of low rank."""

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear, self.alpha = linear.requires_grad_(False), alpha
        n_out, n_in = linear.weight.shape
        device = linear.weight.device
        self.A = torch.nn.Parameter(torch.randn(rank, n_in, device=device) / rank)
        self.B = torch.nn.Parameter(torch.zeros(n_out, rank, device=device))

    def forward(self, x):
        return best_forward(x, self.linear.weight, self.A, self.B, self.alpha)

# %%
n_in, n_out = shapes[largest]
linear = torch.nn.Linear(n_in, n_out, bias=False)
linear.weight = torch.nn.Parameter(layers.unpacked(linears[largest]).float())
mine = LoRA(linear, plan.rank, plan.alpha)
x = torch.randn(4, n_in, device=linear.weight.device)
print(f"B = 0:     largest change {(mine(x) - linear(x)).abs().max():.3f}")
torch.nn.init.normal_(mine.B, std=0.02)
print(f"B filled:  largest change {(mine(x) - linear(x)).abs().max():.3f}")
trained, frozen = models.trainable_parameters(mine), linear.weight.numel()
print(f"{trained:,} trainable parameters, {trained / frozen:.1%} of the {frozen:,} frozen ones")

# %% [markdown]
# With `B = 0` nothing changes. So training starts exactly at the base model and moves away from it step by step.
#
# Now the library. **peft** finds layers by name and wraps them in place. We give it the same layer and copy our `A` and `B` into its wrapper.
#
# **Predict:** do the outputs agree?

# %%
from peft import LoraConfig, inject_adapter_in_model

options = LoraConfig(r=plan.rank, lora_alpha=plan.alpha, target_modules=["0"])
theirs = inject_adapter_in_model(options, torch.nn.Sequential(linear))[0]
theirs.lora_A["default"].weight.data.copy_(mine.A)
theirs.lora_B["default"].weight.data.copy_(mine.B)
assert torch.allclose(mine(x), theirs(x), rtol=1e-4, atol=1e-4)
print(f"largest difference between peft and ours: {(mine(x) - theirs(x)).abs().max():.1e}")

# %% [markdown]
# They agree. One layer is done; the model has many.
#
# ## Attach it to the whole model
#
# First we note where we start: the base's answer to the story, and the fingerprint of its weights. (The answer may differ from the zero-shot one above.
# That came from a large batch, and in 16 bits sums are rounded differently there, so a near tie between two words can fall the other way.)
#
# Then `adapters.attach_lora` calls peft with the recipe's rank, alpha and **target modules**. `all-linear` means every linear layer except the output
# layer; `attention` and `query-value` mean those layers of the attention, whatever their names are in this model.
#
# **Predict:** which layers will be hit, and how many are they?

# %%
def answer(network, base):
    """The summary of the story."""
    return generation.summarize(network, base, [story]).predictions[0].prediction


answer_before, fingerprint_before = answer(base.model, base), models.fingerprint(base.model)
print(f"the base, {fingerprint_before}: {answer_before}")

# %%
peft_model = adapters.attach_lora(base)
if plan.pissa:  # a part of each weight is in the adapter now; the rest stays frozen
    fingerprint_before = models.fingerprint(peft_model)
wrapped = [name for name, m in peft_model.named_modules() if hasattr(m, "lora_A")]
hit = [name.removeprefix("base_model.model.") for name in wrapped]
endings = pd.Series([name.split(".")[-1] for name in hit])
print(endings.value_counts(sort=False).to_string())
print(f"{len(hit)} layers")

# %% [markdown]
# Our `count_lora` predicts the number of trainable parameters from the shapes alone. **Predict:** will peft have made exactly as many?

# %%
predicted = best_count(shapes, plan.rank, hit)
counted = models.trainable_parameters(peft_model)
print(f"trainable parameters: predicted {predicted:,}, counted {counted:,}")
print(f"share of all parameters: {counted / (base.parameters + counted):.2%}")
assert plan.dora or predicted == counted  # DoRA has a magnitude for each output besides

# %% [markdown]
# The count is exact. (DoRA, `dora: true` in a recipe, trains one more number for each output.) It needs shapes only, so choices can be compared without
# building them.
#
# Each name below stands for a **kind**: all layers of that name. (An encoder-decoder has attention in three places, and a name hits all of them: in the
# encoder, in the decoder, and from the decoder to the encoder's output.)
#
# **Predict:** which kinds have the smallest adapters?

# %%
def of_kind(*wanted):
    """The names of all layers of these kinds."""
    return [name for name in shapes if name.split(".")[-1] in wanted]


kinds = list(dict.fromkeys(name.split(".")[-1] for name in shapes))
rows = {}
for kind in kinds:
    names = of_kind(kind)
    rows[kind] = {"layers": len(names), "parameters at rank 1": best_count(shapes, 1, names)}
budget = 5 * best_count(shapes, 1, shapes) // 2
print(f"the budget of the next exercise: {budget:,} parameters")
pd.DataFrame(rows).T

# %% [markdown]
# ### Exercise 3.4 (explore): Spend a budget
#
# (Where `k_proj` and `v_proj` are the smallest, several query heads share one head of keys and values, so these layers have fewer outputs.)
#
# You may spend `budget` parameters, and should use at least 90% of them. Choose `my_rank`, a whole number, and `my_targets`, a list of kinds such as
# `["q_proj", "v_proj"]`, so that the adapter has 90% to 100% of the budget. Try several choices: the check says how far off each one is. One rank goes
# for all kinds that you choose.
#
# **Predict:** is there a rank at which *all* kinds together fit?

# %%
# BEGIN SOLUTION
my_targets = [min(kinds, key=lambda kind: best_count(shapes, 1, of_kind(kind)))]
my_rank = budget // best_count(shapes, 1, of_kind(*my_targets))
# END SOLUTION
check.within_budget((my_rank, my_targets), shapes=shapes, budget=budget)

# %% [markdown] tags=["instructor"]
# **Instructor, 3.4** (8 minutes). Every choice that fits passes, so ask for the reason: what would you give the model for this budget, few kinds with a high
# rank or many with a low one? Look for the observation that all kinds together do not fit at any rank (rank 2 is 80% of the budget, rank 3 is 120%).
# Common: layer names from another model family, and the belief that a name stands for one layer. The solution above takes the smallest kind, since it has
# to fit every recipe; it is not a recommendation.

# %% [markdown]
# All kinds together never fit: rank 2 is 80% of the budget, rank 3 is 120%. So one buys either more kinds or a higher rank. Hu et al. (section 7.1) asked
# the same for the attention of GPT-3: at one budget, more kinds with a lower rank were better than one kind with a higher one. Dettmers et al. (2023,
# "QLoRA: Efficient Finetuning of Quantized LLMs") found that adapters on all linear layers were needed to match full fine-tuning, and that the rank
# mattered little.
#
# ### Break it: names that miss, and names that hit too much
#
# peft finds layers by the end of their names. We let it search a copy of the model that has shapes and no weights (torch's device `meta`), so nothing can
# break. Three lists: two kinds of this model; the same with a slip of the pen in the second; the first two with the output layer.
#
# **Predict:** how many layers does each list hit? Which one raises an error?

# %%
def hollow():
    """Our model without its weights."""
    with torch.device("meta"):
        return type(base.model)(copy.deepcopy(base.model.config))


def hit_by(names):
    """How many layers peft adapts for these names, and the parameters of their adapters."""
    options = LoraConfig(r=plan.rank, target_modules=names)
    with warnings.catch_warnings(action="ignore"):  # an output layer may share its weights
        network = inject_adapter_in_model(options, hollow(), low_cpu_mem_usage=True)
    sizes = [p.numel() for name, p in network.named_parameters() if "lora_" in name]
    return {"layers": len(sizes) // 2, "trainable parameters": f"{sum(sizes):,}"}


meant, slip = kinds[:2], [kinds[0], kinds[1] + "x"]
lists = [meant, slip, [*meant, output_layer]]
pd.DataFrame({", ".join(names): hit_by(names) for names in lists}).T

# %% [markdown]
# No error. The misspelt name was dropped without a word, because the other one hit something. The output layer is a single layer, and its adapter is large
# because the vocabulary is. **Symptom:** the number of trainable parameters is not the one you counted beforehand. Nothing else tells: the loss still
# falls.
#
# Now a list from another model's tutorial, of which no name exists here. And the lab's own check for both wrong lists.
#
# **Predict:** what does each of them say?

# %%
def by_lab(names):
    return adapters.target_modules(hollow(), names)


# of Llama and its relatives, of T5, of BERT
known = (["q_proj", "v_proj"], ["q", "v"], ["query", "value"])
foreign = next((names for names in known if not set(names) & set(kinds)), ["no_such_layer"])
tries = [("peft", hit_by, foreign), ("the lab", by_lab, foreign), ("the lab", by_lab, slip)]
for who, search, names in tries:
    try:
        search(names)
    except (ValueError, LabError) as error:
        print(f"{who}, given {names}: {error}\n")

# %% [markdown]
# peft stops only where no name hits. The lab wants every name to hit, and lists those that there are.
#
# ## What does it save in memory?
#
# Full fine-tuning holds 16 bytes for each weight: the weight, its gradient and Adam's two moments, all in float32. Here a frozen weight costs its
# storage alone: 4 bytes in float32, 2 in a 16-bit format, 1 in int8, about half a byte in 4 bits. Only the adapter pays 16.
#
# A quantized base is a mixture: its linear layers are stored in few bits, the rest is not (notebook 4 looks into that). So we add up what each frozen
# weight really occupies.
#
# **Predict:** the total for full fine-tuning and for LoRA, from the two parameter counts above.

# %%
frozen = sum(p.nbytes for p in base.model.parameters() if not p.requires_grad) / 1e9
adapter = memory.ledger(counted, counted)
lora = memory.Ledger(frozen + adapter.weights, adapter.gradients, adapter.optimizer)
assert abs(lora.total - frozen - 16 * counted / 1e9) < 1e-9
full = memory.ledger(base.parameters, base.parameters)
print(f"full fine-tuning {full.total:.4f} GB, LoRA {lora.total:.4f} GB")
bars = {"full fine-tuning": vars(full), "LoRA": vars(lora)}
plots.stacked(bars).save(run.figures / "memory_predicted.png")

# %% [markdown]
# Gradients and moments (`optimizer` in the figure) shrink to the adapter's share. The bars leave out the **activations**, the results of each layer that
# the backward pass needs. LoRA sends the same tokens through the same layers, so these hardly shrink.
#
# ## Train
#
# The loss, the masking and the loop are those of notebook 2. The best learning rate is higher: usually about ten times that of full fine-tuning
# (Schulman et al. 2025, "LoRA Without Regret").
#
# **Predict:**
#
# - the validation loss at step 0, compared with the untrained model,
# - the time. A full step makes three matrix products for each weight: forward, gradient of the input, gradient of the weight. Which one can LoRA skip?

# %%
history = methods.train(peft_model, base, corpus, run)
costs, curves = {"lora": history.describe()}, {"lora": history.log}
if runs.status_of(run_dir, "full") == "finished":
    recorded = runs.read(run_dir, "full")
    costs["full"] = recorded.record["training"]
    curves["full"] = report.read_log(recorded.folder / "log.csv")
for method, cost in costs.items():
    print(f"{plots.METHOD_NAMES[method]}: {cost['tokens_per_second']:.0f} tokens a second")
    print(f"  peak memory {cost['peak_memory_gb']:.1f} GB")
plots.losses(curves).save(run.figures / "losses.png")

# %% [markdown]
# Training starts at the loss of the untrained model, because `B` is zero. The gradient of a frozen weight is not needed: LoRA skips that product. The
# small products with `A` and `B` eat part of what is saved. And the peak is higher than the bar: it also holds activations, and on a CPU the program
# and whatever this notebook loaded before.
#
# If notebook 2 has not run here, only one method stands above.
#
# ## The base is unharmed
#
# **Predict:** the fingerprint of the base weights after training, and the answer with the adapter switched off.

# %%
fingerprint_after = models.fingerprint(peft_model)
with peft_model.disable_adapter():
    answer_off = answer(peft_model, base)
answer_on = answer(peft_model, base)
print(f"fingerprint before: {fingerprint_before}, after: {fingerprint_after}\n")
print(f"adapter off: {answer_off}\n\nadapter on:  {answer_on}\n")
print(f"reference:   {story.references[0]}")
assert fingerprint_after == fingerprint_before
assert plan.pissa or answer_off == answer_before

# %% [markdown]
# Same fingerprint, and with the adapter off the base's answer, word for word. One base can carry many adapters, one for each task, and switch between
# them.
#
# (Not so with PiSSA, `pissa: true` in a recipe. It starts with the strongest directions of each weight in the adapter, and takes them out of the base.
# The rest is frozen and keeps its fingerprint, but alone it does not answer as the base does.)
#
# ## The adapter on disk
#
# Does the file bring everything back? We throw the trained model away, load a fresh base, and load the adapter onto it.
#
# **Predict:** the size of the adapter file. Its numbers are float32, 4 bytes each. And the answer of the model that is put together again.
#
# (With PiSSA the file is twice as large: it saves its first `A` and `B` as well, to take them away again.)

# %%
folder = run.folder / "adapter"
for path in sorted(folder.iterdir()):
    print(f"{path.stat().st_size / 1e6:10.3f} MB  {path.name}")
adapter_mb = counted * 4 / 1e6 * (2 if plan.pissa else 1)
model_mb = base.parameters * base.precision.dtype.itemsize / 1e6
print(f"{adapter_mb:10.3f} MB  predicted for the adapter")
print(f"{model_mb:10.3f} MB  the whole model in {base.precision.name}")
print(f"The whole model is {model_mb / adapter_mb:.0f} times as much.")

# %%
peft_model = base = modules = linears = head = None
gc.collect()  # the trained model has left the memory; its file is left
base = models.load(settings)
peft_model = adapters.load_adapter(base, folder)
answer_loaded = answer(peft_model, base)
print(answer_loaded)
assert plan.pissa or answer_loaded == answer_on

# %% [markdown]
# The file is a little larger than its numbers, since it also holds their names and shapes. And the answer is the same. (With PiSSA it need not be: that
# file goes onto the untouched base, whose sums are rounded differently.)
#
# ### Break it: a new adapter in place of the trained one
#
# A script that was copied from the training code attaches an adapter again where it should load one. The shapes fit, so there is no error.
#
# (`pissa=False`, since PiSSA would change the base.) **Predict:** the answer, and the largest number in any `B`.

# %%
base.model = peft_model.unload()  # the base without its adapter
peft_model = adapters.attach_lora(base, pissa=False)  # the mistake: new, not loaded
answer_new = answer(peft_model, base)
in_B = [p.abs().max().item() for name, p in peft_model.named_parameters() if "lora_B" in name]
print(f"largest number in any B: {max(in_B):g}\n\n{answer_new}\n")
print(f"the base's answer, word for word: {answer_new == answer_before}")
base.model = peft_model.unload()
peft_model = adapters.load_adapter(base, folder)

# %% [markdown]
# **Symptom:** no error, an adapter of the right size, and the answers of the untrained model, word for word. Every `B` is zero. With peft alone the two calls
# are `get_peft_model` (new) and `PeftModel.from_pretrained` (trained).
#
# ## Merging
#
# An adapter costs extra products whenever the model runs. They can be saved: the layer and its adapter can be made one ordinary matrix.
#
# ### Exercise 3.5 (build): Merge an adapter into its layer
#
# Write `merge(W, A, B, alpha)`, with the shapes of exercise 3.3. Return a **new** matrix, `n_out` x `n_in`, such that a plain layer with it computes what
# `W` and the adapter compute together. `W` itself must stay as it is.
#
# **Predict:** if `W` is square and you swap `A` and `B` by mistake, will torch complain?

# %%
def merge(W, A, B, alpha):
    # BEGIN SOLUTION
    return W + alpha / A.shape[0] * B @ A
    # END SOLUTION


verdict = check.merge(merge)
best_merge = verdict.best
verdict

# %% [markdown] tags=["instructor"]
# **Instructor, 3.5** (6 minutes). Look for: `B @ A` and not `A @ B`, the scale `alpha / r`, and a new matrix. `W += ...` gives the right numbers and is
# refused, because it changes the base for whoever comes next: the break-it section below shows what that does. To the prediction: `A @ B` is `r` x `r`.
# torch complains for every `r` but two: `r = 1`, where one number is added everywhere, and `r` equal to the sides of `W`.

# %% [markdown]
# (`A @ B` is `r` x `r`. So torch complains, unless `r` is 1, where one number is added everywhere, or as large as the sides of `W`.)
#
# We take the parts of one layer of the trained model, unpacked to float32, and peft's own update. (DoRA also rescales the rows of the sum. That is left
# out here.) **Predict:** the three shapes.

# %%
name = largest if largest in hit else hit[0]
layer = peft_model.get_submodule(f"base_model.model.{name}")
W = layers.unpacked(layer).float().cpu()
A = layer.lora_A["default"].weight.detach().float().cpu()
B = layer.lora_B["default"].weight.detach().float().cpu()
update = layer.get_delta_weight("default").detach().float().cpu()
alpha_here = layer.scaling["default"] * len(A)  # with rslora or pissa not the recipe's alpha
print(f"{name}: W {tuple(W.shape)}, A {tuple(A.shape)}, B {tuple(B.shape)}")

# %% [markdown]
# Now we merge them. **Predict:** does the merged layer give the same output? If it is then rounded to bfloat16, which keeps two to three decimal digits,
# how large is the rounding error compared with the update?

# %%
merged = best_merge(W, A, B, alpha_here)
assert torch.allclose(merged, W + update, rtol=1e-4, atol=1e-5)
x = torch.randn(4, W.shape[1])
change = x @ merged.T - best_forward(x, W, A, B, alpha_here)
print(f"{name}: outputs differ by {change.abs().max():.1e} at most")
print(f"The update is {update.norm() / W.norm():.2%} of the weights (by norm).")
error = merged.bfloat16().float() - merged
print(f"Rounding to bfloat16 is an error of {error.norm() / update.norm():.1%} of the update.")

# %% [markdown]
# Now the whole model, in float32 and unquantized. A very large model is left out here, since it may not fit.
#
# **Predict:** how far will the merged model's scores for the next words (its **logits**) be from the adapted one's?

# %%
merge_here = base.parameters < 1e9  # a float32 copy of a larger base may not fit
if merge_here:
    whole = models.load(settings, quantization="none")
    adapted = adapters.load_adapter(whole, folder).float()
    batch = whole.collator([whole.encoder(corpus.train[0])])
    batch = {key: value.to(whole.model.device) for key, value in batch.items()}
    logits = adapted(**batch).logits
    with warnings.catch_warnings(action="ignore"):  # a remark on T5's output layer
        whole.model = adapted.merge_and_unload()
    change = (whole.model(**batch).logits - logits).abs().max() / logits.abs().max()
    print(f"largest change of a logit: {change:.0e} of the largest logit")
    assert change < 1e-3
else:
    print(f"Left out: {base.parameters:,} parameters in float32 may not fit into memory.")

# %% [markdown]
# In float32, merging changes the last digits only. In bfloat16, the sum is rounded to the grid of the large weights, and part of the small update is
# lost. The grid of quantized weights is coarser still, so one does not merge into them; one merges into an unquantized base.
#
# A merged model is an ordinary model again and runs without peft. The price: the adapter can no longer be switched off.
#
# `generation.summarize` has it both ways. While it writes, a merged copy of each adapted layer stands in the layer's place; afterwards the layers stand
# where they stood. So every method is tested with weights rounded to the format of the products, the fully trained ones too. (Where memory has no room for
# the copies, and for int8 and DoRA layers, the adapter stays beside its layer.)
#
# ### Break it: a base that is no longer the base
#
# peft's own `merge` writes into `W`, and its `unmerge` subtracts the update again. We play that on a copy of one layer.
#
# The four fingerprints: of the layer as loaded, merged, with the update subtracted again, and taken from the base anew.
#
# **Predict:** which of the four are alike?

# %%
probe = torch.nn.Linear(W.shape[1], W.shape[0], bias=False)
again = layers.unpacked(layer).float().cpu()
states = {"as loaded": W, "merged": merged, "subtracted": merged - update, "taken anew": again}
for state, weight in states.items():
    probe.weight = torch.nn.Parameter(weight)
    differ = (weight != W).float().mean()
    print(f"{state:11} {models.fingerprint(probe)}  {differ:.1%} of the weights differ")

# %% [markdown]
# Subtracting does not bring the old weights back: what was rounded away in the sum is gone. Only loading does.
#
# Now suppose that a merged model is taken for the base, as happens when a notebook goes on with the variable that it has.
#
# **Predict:** its validation loss before any training step.
#
# (Where the base was too large for a merged copy, the adapter switched on stands for it.)

# %%
few = corpus.validation[:2]
mutated = (whole.model, whole) if merge_here else (peft_model, base)
with peft_model.disable_adapter():
    of_base = training.validation_loss(peft_model, base, few)
of_mutated = training.validation_loss(*mutated, few)
of_adapter = training.validation_loss(peft_model, base, few)
losses = {"base": of_base, "merged, taken for a base": of_mutated, "adapter": of_adapter}
pd.Series(losses, name="validation loss").round(3).to_frame()

# %% [markdown]
# **Symptom:** at step 0 the loss is already where an earlier training left it, "zero-shot" scores like a trained model, and the next method seems to learn
# nothing. There is no error. **Cure:** load the base anew before every method, and compare fingerprints. `methods.train` takes one before and after, and
# records nothing if they differ.
#
# ## What was learnt?
#
# The **singular values** of an update say how strong each of its independent directions is. At most `r` of them are above zero. The sum of their squares
# is the sum of the squares of all numbers in the update.
#
# ### Exercise 3.6 (build): Count the directions that matter
#
# Write `effective_rank(values)`. Given is a list of singular values (floats, the largest first). Return how many of them, counted from the first, it takes
# to hold at least 90% of the sum of the squares of all. For an update that is all zero, return 0.
#
# **Predict:** how many of the trained layer's directions hold 90% of its update? The cell after next shows it.

# %%
def effective_rank(values):
    # BEGIN SOLUTION
    wanted, held = 0.9 * sum(value**2 for value in values), 0.0
    for count, value in enumerate(values):
        if held >= wanted:
            return count
        held += value**2
    return len(values)
    # END SOLUTION


verdict = check.effective_rank(effective_rank)
best_rank = verdict.best
verdict

# %% [markdown] tags=["instructor"]
# **Instructor, 3.6** (8 minutes). Look for: squares, a running sum, and the count at which it gets there. Common: the sum of the values in place of their
# squares, one too few (counting the values *before* the 90%), and a division by the sum, which fails for a fresh adapter, whose update is zero. With
# torch, `cumsum` and `searchsorted` make it two lines; both ways are fine.

# %%
r = len(A)  # the rank of the adapter
values = torch.linalg.svdvals(update)[: r + 2]
print(f"{best_rank(values.tolist())} of {r} directions hold 90% of the update.")
alt = f"Singular values of the update of {name}: " + ", ".join(f"{v:.3g}" for v in values)
curve = {name: (range(1, len(values) + 1), values)}
picture = plots.lines(curve, "direction", "singular value", alt)
picture.save(run.figures / "singular_values.png")

# %% [markdown]
# After direction `r` there is nothing. Hu et al. (section 7) concluded that the top few directions are the useful ones. Ours is one layer after a short
# training, so it shows what to look at, not a law.
#
# ## The test set
#
# **Predict:** LoRA's ROUGE-1. As in notebook 1, the cell also says what one should expect here: the band is the 95% interval of a recorded mean.

# %%
from lab_utils import expected

scores = methods.evaluate(peft_model, base, corpus, run)
print(metrics.PROTOCOL)
print(expected.sentence(run.record))
pd.DataFrame({name: scores[name] for name in metrics.ROUGE}).T.round(1)

# %% [markdown]
# A difference is measured in pairs, as in notebook 2: the same document, one method minus the other.
#
# **Predict:** is LoRA above or below full fine-tuning? Will the interval of the difference contain 0?

# %%
records = [one for one in runs.read_all(run_dir) if one.method != "qlora"]
reasons = runs.unlike(records)
if len(records) < 3:
    print("Notebook 01 or 02 has no finished record in this run_dir.")
if reasons:
    print("These runs cannot be compared:", "; ".join(reasons))
else:
    for difference in comparison.differences(comparison.lines(records)):
        if difference.name.startswith("LoRA"):
            print(difference.sentence())

# %% [markdown]
# An interval that contains 0 does not show that two methods are equally good. It shows that these documents cannot tell them apart.
#
# ## Your own text
#
# Put a text of your own between the quotes, of the kind that the model was trained on. Later, in a terminal:
# `lab summarize --run runs/smollm2-everyday/lora my_text.txt` (with your own run directory).
#
# With `publish_to = "owner/name"` in the parameters cell, the adapter is uploaded to the hub as a public repository when its test is over, with a
# card made from the record: base, data and its licence, settings, scores with their protocol. No document and no reference goes with it. The token
# comes from the environment (`HF_TOKEN` or a login) or from Colab's or Kaggle's secrets. It is never a parameter, since parameters are saved in
# notebooks.
#
# **Predict:** which of your facts will the summary keep? Which will it get wrong?

# %%
mine = """
Ana: Are you still coming on Saturday?
Ben: Yes, but the early train is sold out. I arrive at two.
Ana: Then we'll have a late lunch. Shall I make the soup you liked?
Ben: Please! I'll bring bread and something sweet.
"""
example = corpora.Example("mine", mine.strip(), ("",))
print(generation.summarize(peft_model, base, [example]).predictions[0].prediction)

# %% [markdown]
# ## Does the rank matter?
#
# A small experiment: for each rank the same base, a fresh adapter, very few steps (`sweep_steps`), and the loss on very few validation documents
# (`sweep_validation`). `alpha` is twice the rank, so `alpha / r` stays the same. (`pissa=False`, since the base must stay as it is.)
#
# **Predict:** which rank has the lowest loss?

# %%
checked, rows = corpus.validation[:sweep_validation], []
with peft_model.disable_adapter():
    untrained = training.validation_loss(peft_model, base, checked)
whole = adapted = mutated = layer = logits = None  # one model in memory
for r in sweep_ranks:
    base.model = peft_model.unload()  # the base without its adapter
    peft_model = adapters.attach_lora(base, rank=r, alpha=2 * r, pissa=False)
    training.train(peft_model, base, corpus.train, max_steps=sweep_steps)
    loss = training.validation_loss(peft_model, base, checked)
    trained = models.trainable_parameters(peft_model)
    rows.append({"rank": r, "trainable parameters": trained, "validation loss": round(loss, 3)})
print(f"untrained: validation loss {untrained:.3f}")
print(pd.DataFrame(rows).to_string(index=False))

# %% [markdown]
# The same numbers as a figure. Is the gap between the ranks large, compared with their distance from the untrained model?

# %%
losses = [row["validation loss"] for row in rows]
steps = f"after {sweep_steps} steps"
curves = {steps: (sweep_ranks, losses), "untrained": (sweep_ranks, [untrained] * len(losses))}
alt = f"Validation loss {untrained:.3f} untrained; {steps}, at ranks {sweep_ranks}: {losses}"
picture = plots.lines(curves, "rank", "validation loss (nats per answer token)", alt)
picture.save(run.figures / "ranks.png")

# %% [markdown]
# This cannot rank the ranks. So few steps show how each one starts, not where it ends. (With warm-up, the very first step has a rate of 0 and changes
# nothing.) Adam moves every number by about the same amount, so a larger rank, with more numbers, also moves the layer further in one step. One seed
# fixes one random `A` and one order of the documents.
#
# To answer the question one would train each rank with the full budget, with a learning rate of its own and several seeds, and compare the differences
# with the spread between seeds.
#
# ### Break it: alpha 0
#
# An `alpha` that was lost on the way (a typing slip in a configuration, a default of another script) multiplies every update by 0. We attach two new
# adapters, one with the recipe's alpha and one with 0, and give each a single step of AdamW on one short document.
#
# **Predict:** for each alpha, which of the gradients of `A` and `B` are zero? Which of the two move?

# %%
short = min(corpus.train, key=lambda example: len(example.document) + len(example.summary))
batch = base.collator([base.encoder(short)])
batch = {key: value.to(base.model.device) for key, value in batch.items()}


def loss_of(network):
    """Mean loss per answer token of the short document."""
    with base.precision.autocast(network.device.type):
        total, count = training.token_losses(network, batch)
    return total / count


def size(tensors):
    """The root of the sum of all squares."""
    return sum(t.detach().float().square().sum().item() for t in tensors) ** 0.5

# %%
def one_step(alpha):
    """What one step of AdamW does to a new adapter."""
    network = adapters.attach_lora(base, alpha=alpha, pissa=False)
    A = [p for name, p in network.named_parameters() if "lora_A" in name]
    B = [p for name, p in network.named_parameters() if "lora_B" in name]
    A_before = [p.detach().clone() for p in A]
    loss = loss_of(network)
    loss.backward()
    torch.optim.AdamW([*A, *B], plan.learning_rate).step()
    A_moved = [p - old for p, old in zip(A, A_before, strict=True)]
    found = {"gradient of A": size(p.grad for p in A), "gradient of B": size(p.grad for p in B)}
    found |= {"A moved by": size(A_moved), "B moved by": size(B)}
    found |= {"loss before": loss.item(), "loss after": loss_of(network).item()}
    base.model = network.unload()
    return found


base.model = peft_model.unload()
pd.DataFrame({f"alpha {a:g}": one_step(a) for a in (plan.alpha, 0)}).map("{:.4g}".format)

# %% [markdown]
# With the recipe's alpha the gradient of `A` is zero too, but only in this first step, because `B` is still zero. With alpha 0 both gradients are zero and
# stay so. `A` moves all the same: AdamW's weight decay (0.01, the default of torch) shrinks it a little at each step. So the adapter file is not the one
# that training started from, and yet the model answers like the base.
#
# **Symptom:** the column `grad_norm` of the log is 0 from the first step on, and the validation loss is the same number each time. The training loss still
# moves, since every step sees other documents.
#
# ## The story and the ledger
#
# Take the five numbers that you wrote down at the beginning.
#
# **Predict:** which one of them is furthest off? (Notebook 4 will try to need less memory than LoRA's row, and to score as much.)

# %%
everything = runs.read_all(run_dir)
print(f"reference: {story.references[0]}\n")
tell(everything)
pd.DataFrame(comparison.ledger(everything)).set_index("method")

# %% [markdown] tags=["solution"]
# ### Answers to the questions at the end
#
# <details><summary>Open</summary>
#
# 1. At most 8. Less, where some of the 8 directions depend on the others. At the start it is 0, since `B` is zero.
# 2. `A` and `B`. The gradient of each frozen `W` is skipped: one of three products per layer. The gradient of each layer's *input* is still needed, to
#    reach the adapters below.
# 3. Yes: the update would be zero as well, and the gradient of `A` would not be, because `B` is random. It is a convention which of the two starts at
#    zero; the two choices train a little differently. Only both at zero is a dead end.
# 4. The bars leave out the activations, which hardly shrink, since the same tokens go through the same layers. On a CPU the peak also holds Python,
#    its libraries and whatever the notebook loaded before.
# 5. The scale, `alpha / r`, is halved. With both doubled it stays as it was.
# 6. One base and ten small files, against ten whole models. With adapters one process can hold one base and change the task from request to request, at
#    the price of the extra products; merged or fully tuned models have no extra products and need the memory of a whole model each. How many requests
#    there are per task decides.
# 7. The sum was rounded to bfloat16's grid, and part of the update was lost: this notebook printed how much for one layer. Merge in float32 and test
#    what will be shipped, in the format in which it will run; or keep the adapter beside the base. Also look at the interval: a small fall may be none.
#
# </details>

# %% [markdown]
# ## In this notebook we have
#
# - written a low-rank update as a product, and counted its parameters from shapes,
# - built a LoRA layer by hand and confirmed it with peft,
# - attached adapters to the whole model, predicted their number exactly, and spent a budget of them,
# - trained them and shown that the base did not change,
# - saved the adapter, loaded it onto a fresh base, and merged it in float32,
# - broken it in four ways: wrong names, a new adapter for a trained one, a mutated base, alpha 0,
# - scored it against the methods before, and added its row to the ledger.
#
# **Questions**
#
# 1. `B` has 8 columns and `A` has 8 rows. What do you know about the rank of `B A`? And at the very start of training?
# 2. Which tensors get a gradient in LoRA training, and which product of the backward pass is skipped?
# 3. `B` starts at zero and `A` random. Would the other way round work too?
# 4. Why does the measured peak shrink by less than the bars of weights, gradients and optimizer?
# 5. You double the rank and leave `alpha` as it is. What happens to the scale of the update? And if you double both?
#
# To discuss:
#
# 6. You serve ten tasks from one base. What lies on disk with ten adapters, and with ten fully tuned models? Would you merge?
# 7. You merged an adapter into a bfloat16 model and the score fell a little. What happened, and what would you do?
#
# **Next:** `04_qlora` stores the base in fewer bits. Write down which part of the LoRA bar in the memory figure is the largest: that part will shrink.
