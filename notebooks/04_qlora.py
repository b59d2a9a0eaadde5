# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4. QLoRA
#
# What is lost, and what is saved, when the frozen base is kept in a few bits a weight?
#
# | | |
# |---|---|
# | **You will** | round real weights to 4 bits by hand in two ways, confirm one with bitsandbytes, quantize the whole base, train an adapter on it, and test it |
# | **You will learn** | why NF4 has its 16 levels, what its constants cost, what quantization alone does to a model, and when QLoRA is worth it |
# | **You need** | notebook 3, or an idea of what a LoRA adapter is |
# | **Time** | about 4 minutes with the default recipe on 2 CPU cores without GPU |
#
# ## The idea
#
# In notebook 3 the base was frozen, and only a small adapter was trained. A frozen weight is only read. Must it then be stored as precisely as a weight
# that is trained?
#
# **QLoRA** (Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs") stores the base in 4 bits a weight and the adapter in float32. A
# layer computes
#
# `y = unpacked(W) x + (alpha / r) B A x`
#
# `W` is unpacked for each product. It gets no update, but gradients flow *through* it, to the adapters of the layers before. To store a number in fewer
# bits, with fewer possible values, is called **quantization**.
#
# A recipe may also store the base in 8 bits (`quantization: int8`). The course then keeps the name `qlora` for the method, though the paper's is the
# 4-bit one.

# %%
# Finds the lab around this notebook, or fetches it (Colab, Kaggle), and makes the session ready.
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = "https://github.com/summarization-lab/summarization-lab"
root = next((p for p in [Path.cwd(), *Path.cwd().parents] if (p / "lab_utils").is_dir()), Path.cwd() / "summarization-lab")
if not root.is_dir():
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(root)], check=True)
os.chdir(root)
sys.path.insert(0, str(root))
from lab_utils import bootstrap

bootstrap.ensure()

# %% tags=["parameters"]
recipe = "smollm2-everyday"  # which model, data, prompt and budgets
run_dir = "runs/smollm2-everyday"  # where records go
seed = 0
model = None  # another model: a hub id
model_dir = None  # a folder with another model
data = None  # other data: a hub id
data_dir = None  # a folder (train, validation, test files) or one CSV, JSONL or Parquet file
document_column = None  # the column of your documents; None: document, dialogue, article or text
summary_column = None  # the column of your summaries; None: references, summary1, summary or highlights
test_from = None  # "validation" where the data has no test split
train_examples = None  # how many training documents
validation_examples = None  # how many validation documents
test_examples = None  # how many test documents
learning_rate = None
epochs = None  # how often each training document is seen
batch_size = None  # examples for one change of the weights
micro_batch = None  # examples in memory at one time
rank = None  # r: rows of A, columns of B
alpha = None  # the update is multiplied by alpha / r
dropout = None  # on the input of A, in training only
target_modules = None  # "all-linear", "attention", "query-value", or a list of layer names such as ["q_proj", "v_proj"]
quantization = None  # how the frozen base is stored: "none", "int8" or "nf4"
publish_to = None  # "owner/name": upload the result to the hub
quantization_examples = 6  # validation documents on which the quantized bases are compared before training

# %%
from lab_utils import config, models, runs
from lab_utils import data as corpora  # `data` is a parameter

settings = config.resolve(
    recipe, "qlora", seed, model=model, model_dir=model_dir, data=data, data_dir=data_dir, document_column=document_column,
    summary_column=summary_column, test_from=test_from, train_examples=train_examples, validation_examples=validation_examples,
    test_examples=test_examples, learning_rate=learning_rate, epochs=epochs, batch_size=batch_size, micro_batch=micro_batch,
    rank=rank, alpha=alpha, dropout=dropout, target_modules=target_modules, quantization=quantization, publish_to=publish_to,
)  # fmt: skip
corpus = corpora.load(settings.recipe.data)
run = runs.start(run_dir, settings)
plain = models.load(settings, quantization="none")
print(f"{settings.recipe.model.label}: {plain.parameters:,} parameters, {plain.precision.name} products")
print(f"this recipe's base will be stored in {settings.quantization}; here it is not quantized yet")

# %% [markdown]
# ## What do weights look like?
#
# We take one linear layer from the middle of the model, before any quantization. (We choose among the layers that can be cut into whole blocks, since
# we do that below.)
#
# **Predict:** draw the histogram of its weights. Where are most of them? If they follow a normal distribution, 68% lie within one standard deviation
# of the mean and 95% within two.

# %%
import torch

from lab_utils import plots

linears = [(name, module) for name, module in plain.model.named_modules() if isinstance(module, torch.nn.Linear)]
linears = [(name, m) for name, m in linears if m.in_features % 64 == 0 and m.weight.numel() % 1024 == 0]
name, layer = linears[len(linears) // 2]
weights = layer.weight.detach().float()
apart = ((weights - weights.mean()) / weights.std()).abs()
print(f"{name}: {weights.shape[0]} x {weights.shape[1]} weights, the largest is {apart.max():.1f} standard deviations from the mean")
print(f"within one standard deviation: {(apart < 1).float().mean():.0%}, within two: {(apart < 2).float().mean():.0%}")
with plots.axes(height=2.6) as (figure, axis):
    axis.hist(weights.flatten().cpu().numpy(), bins=100, color=plots.ACCENT)
    axis.set(xlabel="weight", ylabel="how many")
    picture = plots.Picture(figure, f"Histogram of the weights of {name}: one peak at zero, falling off on both sides.")
picture.save(run.figures / "weights.png")

# %% [markdown]
# A bell: most weights are near zero, few are far out. Trained layers often have more far-out weights than a normal distribution has. (The default
# recipe's base was published in a 4-bit file and unpacked, as its label says: here its weights are rounded for the second time.)
#
# ## 4 bits are 16 levels
#
# The plain way is **int4**: divide by the largest absolute value (**absmax**), so that all weights lie between -1 and 1; multiply by 7; round to a
# whole number; to get the weight back, do the reverse. The codes -7 to 7 are 15 levels at equal distances. Zero is one of them; the 16th code is not
# used.
#
# One absmax may serve the whole layer, or only a **block** of neighbouring weights.
#
# **Predict:** which block size gives the smallest error, and why?


# %%
def blocks(weights, size):
    """The weights in rows of `size`, and the absmax of each row."""
    rows = weights.reshape(-1, size)
    return rows, rows.abs().amax(1, keepdim=True)


def int4(weights, size=64):
    rows, absmax = blocks(weights, size)
    codes = (rows / absmax * 7).round()
    return (codes / 7 * absmax).reshape(weights.shape)


def error(rounded):
    return ((rounded - weights).norm() / weights.norm()).item()


for size in (weights.numel(), 1024, 64):
    print(f"int4, one absmax for {size:>9,} weights: error {error(int4(weights, size)):.1%} of the weights' norm")

# %% [markdown]
# One far-out weight stretches the distance between levels for everybody in its block. In a small block it does less harm. QLoRA uses blocks of 64.
#
# ## Better levels: NF4
#
# int4 has as many levels at the far ends, where weights are rare, as in the middle, where most of them are. **NF4** (4-bit NormalFloat) puts levels
# where normally distributed weights are: at **quantiles** of the normal distribution. The aim is that each level serves about the same number of
# weights. Seven quantiles below zero, zero itself, eight above, all divided by the largest. Zero is exact, because some weights must stay zero.
#
# The outermost quantile cannot be at 100%, for that is infinity. The authors' code stops at 96.77%, the average of `1 - 1/32` and `1 - 1/30`.
#
# **Predict:** where are the levels closest together? Will ours agree with the table printed in the paper?

# %%
from statistics import NormalDist


def quantiles(count):
    """`count` levels from the tail of the normal distribution towards its middle, which is left out."""
    tail = 1 - (1 / 32 + 1 / 30) / 2
    return [NormalDist().inv_cdf(tail + (0.5 - tail) * i / count) for i in range(count)]


made = torch.tensor(sorted([-q for q in quantiles(7)] + [0.0] + quantiles(8)))
NF4 = torch.tensor([  # as printed by Dettmers et al. 2023, appendix E
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], device=weights.device)  # fmt: skip
assert torch.allclose(made / made.max(), NF4.cpu(), atol=1e-6)
print("our quantiles agree with the table:", (made / made.max()).numpy().round(3))

# %%
rows, absmax = blocks(weights, 64)
with plots.axes(height=3) as (figure, axis):
    axis.hist((rows / absmax).flatten().cpu().numpy(), bins=101, color=plots.QUIET, alpha=0.6)
    top = axis.get_ylim()[1]
    axis.plot(NF4.tolist(), [-0.06 * top] * 16, "|", color=plots.ACCENT, markersize=14, markeredgewidth=2, label="NF4")
    axis.plot(torch.arange(-7, 8) / 7, [-0.16 * top] * 15, "|", color="#D55E00", markersize=14, markeredgewidth=2, label="int4")
    axis.set(xlabel="weight / absmax of its block of 64", ylabel="how many")
    axis.legend(loc="upper left")
    alt = "Histogram of weights divided by their block's absmax. Below it the levels: NF4's are dense around zero, int4's evenly spaced."
    picture = plots.Picture(figure, alt)
picture.save(run.figures / "levels.png")

# %% [markdown]
# The bars at -1 and 1 are no accident: every block holds one weight that *is* the absmax. It is stored without error.
#
# ## NF4 by hand
#
# Divide by the block's absmax, take the nearest level, multiply by the absmax again. The nearest level changes half-way between two levels, so we
# look up between which half-way points a weight lies.
#
# **Predict:** which error is smallest at the same 4 bits: int4's, that of 16 evenly spaced levels, or NF4's?


# %%
def nearest(weights, levels, size=64):
    rows, absmax = blocks(weights, size)
    codes = torch.bucketize(rows / absmax, (levels[1:] + levels[:-1]) / 2)
    return (levels[codes] * absmax).reshape(weights.shape)


even = torch.linspace(-1, 1, 16, device=weights.device)
print(f"int4: {error(int4(weights)):.2%}   16 even levels: {error(nearest(weights, even)):.2%}   NF4: {error(nearest(weights, NF4)):.2%}")
print(f"NF4 changed {(nearest(weights, NF4) != weights).float().mean():.0%} of the weights.")

# %% [markdown]
# All three store 4 bits a weight. int4 leaves one code unused; even levels use it, but have no exact zero. The rest of the gap is the place of the
# levels.
#
# Nearly every weight is changed, and no error here is tiny. What that does to answers we measure below.
#
# ## The library agrees
#
# **bitsandbytes** packs two 4-bit codes into each byte and keeps one float32 absmax for each block.
#
# **Predict:** which share of its unpacked weights is equal to ours?

# %%
from bitsandbytes import functional as bnb

ours = nearest(weights, NF4)
packed, state = bnb.quantize_4bit(weights, blocksize=64, quant_type="nf4")
theirs = bnb.dequantize_4bit(packed, state)
same = torch.isclose(theirs, ours, rtol=1e-5, atol=0).float().mean().item()
print(f"{same:.3%} are equal; the largest difference is {(theirs - ours).abs().max():.1e}")
print(f"{weights.numel():,} weights: {packed.numel():,} bytes of codes, {state.absmax.numel():,} constants")
assert same > 0.999  # a weight half-way between two levels may go either way where the last digit of the quotient differs

# %% [markdown]
# Same levels, same rounding.
#
# ## What do the constants cost?
#
# One float32 constant for 64 weights is 32 / 64 = **0.5 bits a weight**. So 4 bits are really 4.5.
#
# **Double quantization** rounds the constants too: 8 bits each, in blocks of 256 that share one float32. That is 8 / 64 + 32 / (64 x 256) = **0.127
# bits**. A weight now costs 4.127 bits, or **0.516 bytes**. For 7 billion weights the saving is about 0.33 GB.
#
# ## The whole base in few bits
#
# `models.load` follows the recipe: `nf4`, with double quantization, or `int8`. Only the matrices of linear layers are quantized. Embeddings, norms,
# biases and the output layer (the **head**) keep their format: they are either looked up, tiny, or sensitive. T5 models keep the layers named `wo` as
# well, and in float32, since their products overflow in float16.
#
# **Predict:** which share of all parameters is quantized?

# %%
from collections import Counter

import bitsandbytes
import pandas as pd

base = models.load(settings)
counts, seen = Counter(), set()
for module in base.model.modules():
    for part, p in module.named_parameters(recurse=False):
        if id(p) not in seen:  # an embedding may serve as the head too, and counts once
            two_in_a_byte = isinstance(p, bitsandbytes.nn.Params4bit)
            few_bits = two_in_a_byte or isinstance(p, bitsandbytes.nn.Int8Params)
            counts["quantized" if few_bits else f"kept: {type(module).__name__} {part}"] += p.numel() * (2 if two_in_a_byte else 1)
        seen.add(id(p))
assert counts.total() == base.parameters
print(f"this recipe's base is stored in {settings.quantization}")
pd.DataFrame({"parameters": counts, "share": {kind: f"{n / base.parameters:.1%}" for kind, n in counts.items()}})

# %% [markdown]
# From these counts the memory follows by arithmetic: 4 bytes a weight in float32, 2 in bfloat16, 1 in int8, 0.516 in NF4. What is not quantized is
# counted in bfloat16 here.
#
# **Predict:** is NF4 an eighth of float32?

# %%
from lab_utils import memory

quantized = counts["quantized"]
rows = {}
for label, kept in {"float32": "float32", "bfloat16": "bfloat16", "int8": "bfloat16", "nf4": "bfloat16"}.items():
    sizes = quantized * memory.WEIGHT_BYTES[label], (base.parameters - quantized) * memory.WEIGHT_BYTES[kept]
    rows[label] = {"quantized layers": sizes[0] / 1e9, "embedding and the rest": sizes[1] / 1e9}
print(f"The rest has {1 - quantized / base.parameters:.0%} of the parameters, and in NF4 {sizes[1] / sum(sizes):.0%} of the bytes.")
plots.stacked(rows).save(run.figures / "base_in_bits.png")

# %% [markdown]
# No: the part that stays limits the gain. A small model often has the vocabulary of a big one, so its embedding is a large share.
# In a model of 7 billion parameters the embedding is a few percent.
#
# ## What does quantization alone cost?
#
# Nothing has been trained yet. We ask the same base three times: not quantized (`none`), in int8, in NF4. Two instruments, both on the same few
# validation documents: ROUGE-1 of the answers, and the loss on the first reference. Both are averaged over documents. Differences are paired, with
# 95% intervals.
#
# **Predict:** who loses how much? Which instrument will notice it first?

# %%
from lab_utils import generation, metrics, significance, training

trial = corpus.validation[:quantization_examples]


def measured(base):
    rows = metrics.score(generation.summarize(base.model, base, trial).predictions)
    return [row["rouge1"] for row in rows], [training.validation_loss(base.model, base, [e]) for e in trial]


loaded = {"none": plain, settings.quantization: base}
found = {kind: measured(loaded.get(kind) or models.load(settings, quantization=kind)) for kind in ("none", "int8", "nf4")}

# %%
table = {}
for kind, values in found.items():
    table[kind] = {}
    for what, d, numbers, before in zip(("ROUGE-1", "loss"), (1, 3), values, found["none"], strict=True):
        i = significance.paired_difference(numbers, before)
        table[kind][what] = f"{sum(numbers) / len(trial):.{d}f}"
        table[kind][f"{what}, difference"] = "" if numbers is before else f"{i.mean:+.{d}f} [{i.low:+.{d}f}, {i.high:+.{d}f}]"
pd.DataFrame(table).T

# %% [markdown]
# An interval that leaves out zero shows a difference. ROUGE sees only which words came out, so a few documents say little. The loss looks at the
# probability of every token and notices smaller changes. What rounding costs here need not be lost: the adapter is trained on the rounded base and can
# make up for it.
#
# ## A silent failure
#
# Some CPUs have instructions for bfloat16 (AVX512-BF16). On these, bitsandbytes repacks a 4-bit layer at its first evaluation pass, for faster
# answers. The repacked form has no backward pass. Training then goes on, without an error, with gradients missing.
#
# We give one small layer an evaluation pass and ask for the gradient of its input: once as bitsandbytes sets it up, once with the repacking off.
#
# **Predict:** for which of the two is the gradient right on this machine?

# %%
import warnings


def input_gradient(repacking=None):
    """Gradient of the sum of outputs after an evaluation pass, and what it should be."""
    layer = bitsandbytes.nn.Linear4bit(64, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32).to(base.model.device)
    layer.support_avx512bf16_for_cpu = layer.support_avx512bf16_for_cpu if repacking is None else repacking
    matrix = bnb.dequantize_4bit(layer.weight, layer.weight.quant_state)
    x = torch.ones(1, 64, device=base.model.device)
    layer.eval()(x)
    x.requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on such a CPU one warning is all that is ever said
        layer.train()(x).sum().backward()
    return x.grad, matrix.sum(0, keepdim=True)


as_it_comes, (gradient, expected) = input_gradient()[0], input_gradient(repacking=False)
print("as it comes:   ", "no gradient at all" if as_it_comes is None else "there is a gradient")
print("repacking off: ", f"largest error {(gradient - expected).abs().max():.1e}")
assert torch.allclose(gradient, expected, atol=1e-4)

# %% [markdown]
# If the first line says "no gradient at all", this CPU repacks. `models.load` switches it off for every 4-bit layer, so nobody can forget it. Nor are
# answers slower for it: while it writes them, `generation.summarize` works on layers that were unpacked once, where memory has room for them.
#
# ## Train
#
# The adapter goes on as in notebook 3. It is in float32, while the base is quantized.
#
# **Predict:** how many trainable parameters, compared with LoRA at the same rank and on the same layers? Will training be faster or slower? How much
# lower will the peak memory be?

# %%
story, plan = corpus.test[0], settings.training
untrained = generation.summarize(base.model, base, [story]).predictions[0].prediction
peft_model = models.attach_lora(base)
before = models.fingerprint(peft_model)
adapter = [p for p in peft_model.parameters() if p.requires_grad]
print(f"rank {plan.rank}, target modules {plan.target_modules}, optimizer {plan.optimizer}")
print(f"trainable: {models.trainable_parameters(peft_model):,} parameters in {adapter[0].dtype}")
print("fingerprint of the quantized base:", before)

# %%
from lab_utils import methods

plain = loaded = linears = layer = None  # the unquantized base leaves the memory
with memory.Peak() as held:  # and this is what stays
    pass
run.add(data=corpus.describe(), model=base.describe())
history = methods.train(peft_model, base, corpus, run)
print("fingerprint after training:", models.fingerprint(peft_model))
assert models.fingerprint(peft_model) == before

# %%
from lab_utils import report

recorded = [m for m in ("full", "lora", "qlora") if m == "qlora" or runs.status_of(run_dir, m) == "finished"]
speeds = {m: (history.describe() if m == "qlora" else runs.read(run_dir, m).record["training"]) for m in recorded}
for m, facts in speeds.items():
    print(f"{plots.METHOD_NAMES[m]}: {facts['tokens_per_second']:.0f} tokens a second, peak memory {facts['peak_memory_gb']:.2f} GB")
print(f"Before QLoRA's training this notebook already held {held.gb:.2f} GB.")
curves = {m: report.read_log(run.folder.parent / m / "log.csv") for m in recorded if m != "full"}
plots.losses(curves).save(run.figures / "losses.png")

# %% [markdown]
# The base kept its fingerprint: quantized weights were read, never written. At the same rank and on the same layers the adapter is as large as LoRA's,
# for the shapes are the same. Quantized weights are converted for every product, which costs time. (If only QLoRA is listed, notebooks 2 and 3 have
# not run here.)
#
# On a small model, above all on a CPU, the measured memory is a disappointment. It is mostly the program, the libraries, what this notebook held
# before, and the **activations**, which are as large as in LoRA. (On a GPU only tensors are counted.) A small base was never the problem.
#
# A large one is. Its bytes can be calculated: 16 for a trained parameter (weight, gradient, Adam's two moments), 2 for a frozen one in 16 bits, 0.516
# in NF4.
#
# **Predict:** weights, gradients and optimizer for 7 billion parameters: full, LoRA, QLoRA? Let the adapter have 1% of the parameters, and let the
# whole base be quantized.

# %%
from dataclasses import asdict

rows = {}
for billions in (1.1, 7, 11):
    n = round(billions * 1e9)
    rows[f"{billions} billion: full"] = asdict(memory.ledger(n, n))
    rows[f"{billions} billion: LoRA, 16 bits"] = asdict(memory.ledger(n, n // 100, "bfloat16"))
    rows[f"{billions} billion: QLoRA"] = asdict(memory.ledger(n, n // 100, "bfloat16", quantized=n))
plots.stacked(rows).save(run.figures / "larger_models.png")

# %% [markdown]
# For 7 billion parameters: 112 GB for full fine-tuning, 15.1 GB for LoRA, 4.7 GB for QLoRA, before activations. A GPU with 16 GB has no room for the
# first. The second leaves hardly any for activations, the third plenty. The authors also let optimizer states move to the main memory when a GPU
# runs short (**paged optimizers**). In a recipe: `optimizer: paged_adamw_8bit`, which also keeps the two moments in 8 bits.
#
# ## The test set
#
# **Predict:** ROUGE-1 of QLoRA, beside LoRA and zero-shot. And our document, whose answer from the untrained quantized base we kept: what will change?

# %%
scores = methods.evaluate(peft_model, base, corpus, run)
trained = runs.read(run_dir, "qlora").predictions[0].prediction
print(f"before:    {untrained}\n\nafter:     {trained}\n\nreference: {story.references[0]}")
print(metrics.PROTOCOL)
pd.DataFrame({name: scores[name] for name in metrics.ROUGE}).T.round(1)

# %% [markdown]
# Is that what one should expect here? As in notebook 1, the band is the 95% interval of a recorded mean.

# %%
from lab_utils import expected

print(expected.sentence(run.record))

# %%
from lab_utils import comparison

mine = runs.read(run_dir, "qlora")
others = [r for r in runs.read_all(run_dir) if r.method in ("zero_shot", "lora") and not runs.unlike([r, mine])]
for difference in comparison.differences(comparison.lines([*others, mine])):
    if difference.name.startswith("QLoRA"):
        print(difference.sentence())
if len(others) < 2:
    print("Notebooks 01 and 03 give QLoRA something to be compared with; not both have run here with the same settings.")

# %% [markdown]
# In the paper QLoRA matched fine-tuning in 16 bits. "No detectable difference" from LoRA would agree with that. It would not prove it: a limited number
# of documents only bounds how large a difference may be. And look at the settings of both: a recipe may adapt other layers in the two methods.
#
# ## An adapter belongs to its base
#
# The adapter learnt on the rounded weights. Its update fits the original weights too, since rounding changed no shape.
#
# **Predict:** loaded onto the base that was *not* quantized, will it give the same answer? Nonsense? The same loss on the trial documents?

# %%
whole = models.load(settings, quantization="none")
moved = models.load_adapter(whole, run.folder / "adapter")
for label, network, its_base in [(f"on its own base ({settings.quantization})", peft_model, base), ("on the unquantized base", moved, whole)]:
    answer = generation.summarize(network, its_base, [story]).predictions[0].prediction
    print(f"{label}, loss {training.validation_loss(network, its_base, trial):.4f}: {answer}\n")

# %% [markdown]
# It works on both, because the two bases are close. But these are two models, with two losses and sometimes two answers. Which base an adapter was
# tested on belongs in every report. `methods.restore` loads the quantized base again.
#
# ## NF4 or int8
#
# LLM.int8() (Dettmers et al. 2022, "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale") stores weights in 8 bits. A recipe chooses with
# one word: `quantization: nf4` or `quantization: int8`.
#
# | | NF4 | int8 |
# |---|---|---|
# | bytes for a quantized weight | 0.516 | about 1 |
# | the product | weights are unpacked; inputs keep their format | inputs are rounded to 8 bits too |
# | far-out values | small blocks keep their harm local | **outlier** features (6 or more in size) are multiplied in 16 bits |
# | take it when | the base does not fit otherwise | the base fits in 8 bits and you want less rounding error |
#
# Outliers are why int8 needs that care: in models of about 7 billion parameters and more, a few features of the input become far larger than the
# rest, and rounding them with the others ruins the answers.
#
# Last, what every method has cost and scored so far. **Predict:** the size of QLoRA's checkpoint.

# %%
pd.DataFrame(comparison.ledger(runs.read_all(run_dir))).set_index("method")

# %% [markdown]
# Only the adapter is saved, in float32: 4 bytes for each trainable parameter. The quantized base is made again from the published weights whenever it
# is loaded.
#
# ## Your own text
#
# Put a text of your own between the quotes, of the kind that the model was trained on. Later, in a terminal:
# `lab summarize --run runs/smollm2-everyday/qlora my_text.txt` (with your own run directory).
#
# With `publish_to = "owner/name"` in the parameters cell, the adapter is uploaded to the hub as a public repository when its test is over, with a
# card made from the record: base, data and its licence, settings, scores with their protocol. No document and no reference goes with it. The token
# comes from the environment (`HF_TOKEN` or a login) or from Colab's or Kaggle's secrets. It is never a parameter, since parameters are saved in
# notebooks.
#
# **Predict:** which of your facts will the summary keep? Which will it get wrong?

# %%
from lab_utils.data import Example

mine = """
Ana: Are you still coming on Saturday?
Ben: Yes, but the early train is sold out. I arrive at two.
Ana: Then we'll have a late lunch. Shall I make the soup you liked?
Ben: Please! I'll bring bread and something sweet.
"""
print(generation.summarize(peft_model, base, [Example("mine", mine.strip(), ("",))]).predictions[0].prediction)

# %% [markdown]
# ## In this notebook we have
#
# - looked at real weights and rounded them to 16 levels by hand, as int4 and as NF4,
# - made the NF4 levels from quantiles and confirmed our rounding with bitsandbytes,
# - counted what is quantized and what is not, and what the constants cost,
# - measured what quantization alone does to a model, and met a failure that says nothing,
# - trained an adapter on the quantized base, tested it, and moved it to another base.
#
# **Questions**
#
# 1. Blocks of 16 weights would round better than blocks of 64. What would their constants cost, without double quantization?
# 2. NF4 assumes normally distributed weights. What would happen to its advantage if they were spread evenly?
# 3. The quantized weights get no gradient. Why must the gradient still pass through them?
# 4. Why does QLoRA save less on a small model than the factor from 16 to 4.127 bits suggests?
# 5. A colleague merges a QLoRA adapter into the 16-bit base and gets another score than you. Is one of you wrong?
#
# **Next:** `05_evaluation` puts all methods side by side: what did each one really buy?
