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
# | **You will** | round real weights to 4 bits in two ways of your own, confirm one with bitsandbytes, quantize the whole base, train an adapter on it, test it, and break three things on purpose |
# | **You will learn** | why NF4 has its 16 levels, what its constants cost, which parts should keep their precision, what quantization alone does to a model, and when QLoRA is worth it |
# | **You need** | notebook 3, or an idea of what a LoRA adapter is |
# | **Time** | about 3 minutes of computing with the default recipe on 2 CPU cores without GPU; an hour or more with the six exercises |
#
# ## The idea
#
# In notebook 3 the base was frozen, and only a small adapter was trained. A frozen weight is only read. Must it then be stored as precisely as a weight
# that is trained?
#
# **QLoRA** (Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs") stores the base in 4 bits a weight. The adapter is trained, so it is
# stored more precisely: in float32 here, in 16 bits in the paper. A layer computes
#
# `y = unpacked(W) x + (alpha / r) B A x`
#
# `W` is unpacked for each product. It gets no update. To store a number in fewer bits, with fewer possible values, is called **quantization**.
#
# A recipe may also store the base in 8 bits (`quantization: int8`). The course then keeps the name `qlora` for the method, though the paper's is the
# 4-bit one.
#
# The cell of an exercise ends with a check: it says *passed*, *almost* with a hint that grows, or *not attempted*. An exercise left open stops nothing.

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
document_column = None  # your documents; None: document, dialogue, article or text
summary_column = None  # None: references, summary1, summary or highlights
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
target_modules = None  # "all-linear", "attention", "query-value", or ["q_proj", "v_proj"]
quantization = None  # how the frozen base is stored: "none", "int8" or "nf4"
publish_to = None  # "owner/name": upload the result to the hub
quantization_examples = 3  # validation documents that compare the quantized bases
assignment = None  # its name, if this is one: kept in the record
student = None  # your id, if you hand this in: kept in the record

# %%
from dataclasses import asdict

import pandas as pd
import torch

from lab_utils import adapters, check, comparison, config, generation, layers, memory
from lab_utils import methods, metrics, models, plots, report, runs, significance, training
from lab_utils import data as corpora  # `data` is a parameter

check.note_in(run_dir)  # what the exercises say is kept beside the records
settings = config.resolve(
    recipe, "qlora", seed, model=model, model_dir=model_dir, data=data, data_dir=data_dir,
    document_column=document_column, summary_column=summary_column, test_from=test_from,
    train_examples=train_examples, validation_examples=validation_examples, data_seed=data_seed,
    test_examples=test_examples, learning_rate=learning_rate, epochs=epochs,
    batch_size=batch_size, micro_batch=micro_batch, rank=rank, alpha=alpha, dropout=dropout,
    target_modules=target_modules, quantization=quantization, publish_to=publish_to,
)  # fmt: skip

# %%
corpus = corpora.load(settings.recipe.data)
run = runs.start(run_dir, settings, assignment, student)
plain = models.load(settings, quantization="none")
print(f"{settings.recipe.model.label}: {plain.parameters:,} parameters")
print(f"{plain.precision.name} products; the base is not quantized yet")
print(f"this recipe's base will be stored in {settings.quantization}")

# %% [markdown]
# ## Where we stand
#
# Two things go with us through all notebooks: our document, and the **ledger** of what each method has cost and scored. Here is the document, what the
# methods before made of it, and the ledger so far. (What has not run here is not listed.)
#
# **Predict:** QLoRA is LoRA on a base in fewer bits. In which columns will its row differ from LoRA's, and in which direction?

# %%
story = corpus.test[0]


def where_we_stand():
    """What each finished method made of our document, and the ledger."""
    finished = runs.read_all(run_dir)
    for earlier in finished:
        told = [p.prediction for p in earlier.predictions if p.id == story.id]
        print(f"{plots.METHOD_NAMES[earlier.method]}:", *told, "\n")
    rows = comparison.ledger(finished) or [{"method": "nothing has run here yet"}]
    return pd.DataFrame(rows).set_index("method")


print(story.document, "\n")
where_we_stand()

# %% [markdown]
# ## What do weights look like?
#
# We take one linear layer from the middle of the model, before any quantization. (We choose among the layers that can be cut into whole blocks, since
# we do that below.)
#
# **Predict:** draw the histogram of its weights. Where are most of them? If they follow a normal distribution, 68% lie within one standard deviation
# of the mean and 95% within two.

# %%
linears, whole_blocks = {}, []
for name, module in plain.model.named_modules():
    if isinstance(module, torch.nn.Linear):
        linears[name] = module
        if module.in_features % 64 == 0 and module.weight.numel() % 1024 == 0:
            whole_blocks.append(name)
name = whole_blocks[len(whole_blocks) // 2]
weights = linears[name].weight.detach().float().cpu()
apart = ((weights - weights.mean()) / weights.std()).abs()
print(f"{name}: {weights.shape[0]} x {weights.shape[1]} weights")
print(f"the largest is {apart.max():.1f} standard deviations from the mean")
print(f"within one standard deviation: {(apart < 1).float().mean():.0%}")
print(f"within two: {(apart < 2).float().mean():.0%}")

# %%
alt = f"Histogram of the weights of {name}: one peak at zero, falling off on both sides."
with plots.axes(width=plots.NARROW, height=2.6) as (figure, axis):
    axis.hist(weights.flatten().numpy(), bins=100, color=plots.ACCENT)
    axis.set(xlabel="weight", ylabel="how many")
    picture = plots.Picture(figure, alt)
picture.save(run.figures / "weights.png")

# %% [markdown]
# A bell: most weights are near zero, few are far out. Trained layers often have more far-out weights than a normal distribution has. (The default
# recipe's base was published in a 4-bit file and unpacked, as its label says: here its weights are rounded for the second time.)
#
# ## 4 bits are 16 levels
#
# The plain way is **int4**. Divide by the largest absolute value (**absmax**), so that all weights lie between -1 and 1. Multiply by 7. Round to the
# nearest whole number: that is the **code**, and all that is stored besides the absmax. To get the weight back, do the reverse. The codes -7 to 7 are 15
# levels at equal distances. Zero is one of them; the 16th code is not used.
#
# One absmax may serve the whole layer, or only a **block** of neighbouring weights.
#
# ### Exercise 4.1 (build): Round blocks of weights to int4
#
# Write `int4(rows)`. `rows` is a float32 tensor of shape (n, size), and each row is one block. Return what int4 leaves of it: the weights after rounding,
# in the same shape. A block of zeros comes back as zeros.
#
# **Predict:** one absmax for the whole layer, for 1,024 weights, for 64: which gives the smallest error, and why?

# %%
def int4(rows):
    # BEGIN SOLUTION
    absmax = rows.abs().amax(1, keepdim=True)
    codes = (rows / absmax.clamp(min=1e-12) * 7).round()
    return codes / 7 * absmax
    # END SOLUTION


verdict = check.int4(int4)
verdict

# %%
int4_of = verdict.best  # your function if it passed, the lab's otherwise


def error(rounded, original):
    """Norm of what rounding changed, as a share of the original's norm."""
    return ((rounded.to(original) - original).norm() / original.norm()).item()


for size in (weights.numel(), 1024, 64):
    blocks = weights.reshape(-1, size)
    print(f"one absmax for {size:>9,} weights: error {error(int4_of(blocks), blocks):.1%}")

# %% [markdown] tags=["instructor"]
# **Instructor, 4.1** (10 minutes). Look for one absmax for each row (`keepdim`) and for the two factors undone in the opposite order. Common
# misunderstanding: that the codes are the result. What is stored and what is computed with are two things: codes and absmax are stored, the unpacked
# weights are multiplied. Ask why the factor is 7 and not 8: 17 codes would need a fifth bit, or one end would be cut.

# %% [markdown]
# A larger block has a larger absmax, so its levels lie further apart for everybody. QLoRA uses blocks of 64.
#
# ### Break it: one far-out weight
#
# In a copy of our layer we make one weight 30 times as large as the largest. Then int4 again: one absmax for the layer, and blocks of 64. The error is that
# of all *other* weights.
#
# **Predict:** in each of the four cases, which share of the other weights comes back as exactly zero?

# %%
planted, rows = weights.clone(), {}
planted[0, 0] = 30 * weights.abs().max()
for label, matrix in {"as it is": weights, "one far-out weight": planted}.items():
    others = matrix.flatten()[1:]
    for size in (weights.numel(), 64):
        rounded = int4_of(matrix.reshape(-1, size)).flatten()[1:]
        zeros = (rounded == 0).float().mean().item()
        row = {"error of the others": error(rounded, others), "zeros": zeros}
        rows[f"{label}, blocks of {size:,}"] = row
pd.DataFrame(rows).T.map("{:.1%}".format)

# %% [markdown]
# With one absmax, a single weight has silenced the layer: all others are zero. In blocks of 64 it silences its 63 neighbours, and nobody else notices.
#
# **Symptom:** no error, no NaN. The layer's weights are mostly zeros, and the model's answers turn to noise as soon as this layer is quantized, though
# every other layer is fine. When a quantized model fails, count the zeros of each layer.
#
# ## Better levels: NF4
#
# int4 has as many levels at the far ends, where weights are rare, as in the middle, where most of them are. **NF4** (4-bit NormalFloat) puts levels
# where normally distributed weights are: at **quantiles** of the normal distribution. The aim is that each level serves about the same number of
# weights. Seven quantiles below zero, zero itself, eight above, all divided by the largest. Zero is exact, because some weights must stay zero.
#
# The outermost quantile cannot be at 100%, for that is infinity. The authors' code stops at 96.77%, the average of `1 - 1/32` and `1 - 1/30`.
#
# **Predict:** where are the levels closest together? Will they agree with the table that the paper prints?

# %%
from statistics import NormalDist


def quantiles(count):
    """`count` levels, from the tail of the normal distribution to just before its middle."""
    tail = 1 - (1 / 32 + 1 / 30) / 2
    return [NormalDist().inv_cdf(tail + (0.5 - tail) * i / count) for i in range(count)]


made = torch.tensor(sorted([-q for q in quantiles(7)] + [0.0] + quantiles(8)))
made /= made.max()
print(made.numpy().round(3))

# %%
NF4 = torch.tensor([  # as printed by Dettmers et al. 2023, appendix E
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip
print(f"largest difference between our quantiles and the table: {(made - NF4).abs().max():.1e}")
assert torch.allclose(made, NF4, atol=1e-6)

# %%
blocks = weights.reshape(-1, 64)
scaled = (blocks / blocks.abs().amax(1, keepdim=True).clamp(min=1e-12)).flatten()
int4_levels = torch.arange(-7, 8) / 7
alt = "Histogram of weights / absmax. Below it the levels: NF4's dense at zero, int4's even."
with plots.axes(width=plots.NARROW, height=3.2) as (figure, axis):
    axis.hist(scaled.numpy(), bins=101, color=plots.QUIET, alpha=0.6)
    top = axis.get_ylim()[1]
    axis.plot(NF4, [-0.07 * top] * 16, "|", ms=14, mew=2, color=plots.ACCENT, label="NF4")
    axis.plot(int4_levels, [-0.19 * top] * 15, "|", ms=14, mew=2, color="#D55E00", label="int4")
    axis.set(xlabel="weight / absmax of its block of 64", ylabel="how many", yticks=[])
    axis.legend(loc="upper left")
    picture = plots.Picture(figure, alt)
picture.save(run.figures / "levels.png")

# %% [markdown]
# The bars at -1 and 1 are no accident: every block holds one weight that *is* the absmax. It is stored without error.
#
# ### Exercise 4.2 (build): Find the codes of a block
#
# A **code** is now the place of a level in the table, 0 to 15. Write `nf4_block(rows, levels)`. `rows` has the shape (n, size), one block in each row;
# `levels` are 16 numbers from -1 to 1 in ascending order. Return two tensors: `codes`, whole numbers in the shape of `rows`, and `absmax`, one for each
# row. The code of a weight is that of the level nearest to it, after division by the absmax of its block.
#
# **Predict:** the code of a weight that is zero, and that of the largest weight of a block, if it is negative.

# %%
def nf4_block(rows, levels):
    # BEGIN SOLUTION
    absmax = rows.abs().amax(1, keepdim=True)
    half_way = (levels[1:] + levels[:-1]) / 2  # where the nearest level changes
    codes = torch.bucketize(rows / absmax.clamp(min=1e-12), half_way)
    return codes, absmax
    # END SOLUTION


verdict = check.nf4_block(nf4_block)
verdict

# %% [markdown] tags=["instructor"]
# **Instructor, 4.2** (15 minutes). Look for the nearest level rather than the one below: `searchsorted` on the levels themselves is the usual
# slip, and nothing but a larger error shows it. Common misunderstanding: that a code is a number to compute with. It is an index; 12 is not twice 6. Ask
# what a solution with all distances costs in memory (16 numbers for each weight) and what half-way points save.

# %% [markdown]
# Zero has the code 7, the far end on the negative side 0. To unpack, look the codes up in the table and multiply by the absmax. Now we can compare sets
# of levels on our layer.
#
# **Predict:** which error is smallest at the same 4 bits: int4's, that of 16 evenly spaced levels, or NF4's?

# %%
codes_of = verdict.best


def nearest(levels):
    """What is left of our blocks when each weight takes the nearest of these levels."""
    codes, absmax = codes_of(blocks, levels)
    return levels[codes.long()] * absmax.reshape(-1, 1)


ours, even = nearest(NF4), nearest(torch.linspace(-1, 1, 16))
print(f"int4:           {error(int4_of(blocks), blocks):.2%}")
print(f"16 even levels: {error(even, blocks):.2%}")
print(f"NF4:            {error(ours, blocks):.2%}")
print(f"NF4 changed {(ours != blocks).float().mean():.0%} of the weights.")

# %% [markdown]
# All three store 4 bits a weight. int4 leaves one code unused; even levels use it, but have no exact zero. The rest of the gap is the place of the
# levels.
#
# Nearly every weight is changed, and no error here is tiny. What that does to answers we measure below.
#
# ## The library agrees
#
# **bitsandbytes** packs two 4-bit codes into each byte, the first in its upper half, and keeps one float32 absmax for each block.
#
# **Predict:** which share of its codes is equal to ours?

# %%
import bitsandbytes
from bitsandbytes import functional as bnb

packed, state = bnb.quantize_4bit(weights, blocksize=64, quant_type="nf4")
codes, absmax = codes_of(blocks, NF4)
theirs = torch.stack([packed >> 4, packed & 15], -1).reshape(codes.shape)
same = (theirs == codes).float().mean().item()
apart = (state.absmax - absmax.flatten()).abs().max()
print(f"{same:.3%} of the codes are equal")
print(f"the largest difference of an absmax is {apart:.1e}")
print(f"{packed.numel():,} bytes of codes and {state.absmax.numel():,} constants")
assert same > 0.999

# %% [markdown]
# Same levels, same rounding. (A weight half-way between two levels may go either way, where the last digit of the quotient differs.)
# From here on the library does the work.
#
# We hand it a matrix as one long row: on a CPU, bitsandbytes 0.50 unpacks wrongly where a block crosses the end of a row.

# %%
def stored(matrix, size=64, double=False):
    """What NF4 leaves of a matrix; `double`: the constants are rounded too."""
    flat = matrix.flatten()
    packed, state = bnb.quantize_nf4(flat, blocksize=size, compress_statistics=double)
    return bnb.dequantize_4bit(packed, state).reshape(matrix.shape)


print(f"largest difference from our own: {(stored(blocks) - ours).abs().max():.1e}")

# %% [markdown]
# ## What do the constants cost?
#
# Each block also stores its absmax, a float32 of 32 bits. So 4 bits are really more than 4.
#
# **Double quantization** rounds these constants too: to 8 bits each, in blocks of 256 constants that share one float32.
#
# ### Exercise 4.3 (build): Count the bits of a weight
#
# Write `bits_per_weight(block, constant_bits, second_block=None)`: how many bits a weight costs in all. `block` weights share a constant of
# `constant_bits` bits. If `second_block` is given, that many constants share a float32. QLoRA without double quantization is `(64, 32)`, and with it
# `(64, 8, 256)`.
#
# **Predict:** how many bits does double quantization save for each weight?

# %%
def bits_per_weight(block, constant_bits, second_block=None):
    # BEGIN SOLUTION
    bits = 4 + constant_bits / block
    return bits if second_block is None else bits + 32 / (block * second_block)
    # END SOLUTION


verdict = check.bits_per_weight(bits_per_weight)
verdict

# %% [markdown] tags=["instructor"]
# **Instructor, 4.3** (5 minutes). Look for the second constant shared by `block * second_block` weights. Common misunderstanding: that double
# quantization rounds the weights twice. It rounds the constants. The saving, 0.37 bits, looks small: ask for it as a share of the base's memory (8%).

# %% [markdown]
# Small blocks round better and have more constants. Here are bits against error, on our layer.
#
# **Predict:** does double quantization, which makes every constant a little wrong, raise the error?

# %%
bits, rows = verdict.best, []
for size, double in ((64, False), (32, True), (64, True), (256, True), (1024, True)):
    cost = bits(size, 8, 256) if double else bits(size, 32)
    lost = error(stored(weights, size, double), weights)
    rows.append((size, double, cost, cost / 8, f"{lost:.2%}"))
names = ["block", "double quantization", "bits a weight", "bytes", "error"]
pd.DataFrame(rows, columns=names).round(3)

# %% [markdown]
# Double quantization brings the constants from 0.5 bits a weight to 0.127. Compare the first row with the third: the error hardly changes.
#
# ### Exercise 4.4 (recall): A large base
#
# How many GB do 7 billion weights take in NF4, in blocks of 64, with double quantization? A GB is 10<sup>9</sup> bytes. Guess first, then calculate: `bits` is
# the function of the last exercise.

# %%
# BEGIN SOLUTION
large_base = 7e9 * bits(64, 8, 256) / 8 / 1e9
# END SOLUTION

check.base_gb(large_base)

# %% [markdown]
# ## The whole base in few bits
#
# `models.load` follows the recipe: `nf4`, with double quantization, or `int8`. Only the matrices of linear layers are quantized. Embeddings, norms,
# biases and the output layer (the **head**) keep their format: they are either looked up, tiny, or sensitive. T5 models keep the layers named `wo` as
# well, and in float32, since their products overflow in float16.
#
# **Predict:** which share of all parameters is quantized?

# %%
from collections import Counter

base = models.load(settings)
counts = Counter()
for path, p in base.model.named_parameters():
    if isinstance(p, bitsandbytes.nn.Params4bit):
        counts["quantized"] += 2 * p.numel()  # two weights in a byte
    elif isinstance(p, bitsandbytes.nn.Int8Params):
        counts["quantized"] += p.numel()
    else:
        owner, _, part = path.rpartition(".")
        kind = type(base.model.get_submodule(owner)).__name__
        counts[f"kept: {kind} {part}"] += p.numel()
assert counts.total() == base.parameters
print(f"this recipe's base is stored in {settings.quantization}")
for kind, n in counts.items():
    print(f"{kind}: {n:,} parameters, {n / base.parameters:.1%}")

# %% [markdown]
# From these counts the memory follows by arithmetic: 4 bytes a weight in float32, 2 in bfloat16, 1 in int8, and in NF4 the bytes of the table above. What
# is not quantized is counted in bfloat16 here.
#
# **Predict:** is NF4 an eighth of float32?

# %%
rest = base.parameters - counts["quantized"]
rows = {}
for kind in ("float32", "bfloat16", "int8", "nf4"):
    linear = counts["quantized"] * memory.WEIGHT_BYTES[kind] / 1e9
    kept = rest * (4 if kind == "float32" else 2) / 1e9
    rows[kind] = {"quantized layers": linear, "embedding and the rest": kept}
print(f"The rest has {rest / base.parameters:.0%} of the parameters,")
print(f"and in NF4 {kept / (linear + kept):.0%} of the bytes.")
plots.stacked(rows).save(run.figures / "base_in_bits.png")

# %% [markdown]
# No: the part that stays limits the gain. A small model often has the vocabulary of a big one, so its embedding is a large share.
# In a model of 7 billion parameters the embedding is a few percent.
#
# ## What does quantization alone cost?
#
# Nothing has been trained yet. We ask the same base three times: not quantized (`none`), in int8, in NF4. Two instruments, both on the same few
# validation documents: ROUGE-1 of the answers, and the loss on the first reference. Both are averaged over documents. Differences are paired by document,
# with bootstrap intervals.
#
# **Predict:** how much does int8 lose, how much NF4? Which of the two instruments shows it more clearly?

# %%
trial = corpus.validation[:quantization_examples]


def measured(base):
    """ROUGE-1 and loss, one value for each document."""
    rows = metrics.score(generation.summarize(base.model, base, trial).predictions)
    losses = [training.validation_loss(base.model, base, [e]) for e in trial]
    return {"ROUGE-1": [row["rouge1"] for row in rows], "loss": losses}


found, loaded = {}, {"none": plain, settings.quantization: base}
for kind in ("none", "int8", "nf4"):
    found[kind] = measured(loaded.get(kind) or models.load(settings, quantization=kind))

# %%
rows = {}
for what in ("ROUGE-1", "loss"):
    for kind, values in found.items():
        mean = sum(values[what]) / len(trial)
        gap = significance.paired_difference(values[what], found["none"][what])
        rows[what, kind] = [mean, gap.mean, gap.low, gap.high]
pd.DataFrame(rows, index=["mean", "difference", "low", "high"]).T.round(3)

# %% [markdown]
# With so few documents these intervals are too narrow. Of three documents, the bootstrap's interval simply runs from the smallest difference to the
# largest, and by chance alone all three have the same sign one time in four. So an interval that leaves out zero is a hint here, not yet a finding.
#
# ROUGE sees only which words came out, so a few documents say little. The loss looks at the probability of every token and notices smaller changes. What
# rounding costs here need not be lost: the adapter is trained on the rounded base and can make up for it.
#
# ### Break it: the embedding and the head in 4 bits too
#
# The part that was kept takes many of the bytes. So why keep it? We store it in NF4 as well, for a moment, and put the old weights back.
#
# The error is that of the logits against the unquantized base, over the last words of one answer, as a share of their norm. Each position's mean is
# subtracted first: the same number added to all logits of a position changes no probability.
#
# **Predict:** most of the weights are already in few bits. Will the rest, in 4 bits, add less error than they did, as much, or more?

# %%
example = plain.collator([plain.encoder(trial[0])])
del example["labels"]
# A causal model can be asked for the last positions only.
last = {"logits_to_keep": 32} if plain.family == "causal" else {}


def logits(base):
    device = base.model.device
    inputs = {key: value.to(device) for key, value in example.items()}
    with torch.no_grad(), base.precision.autocast(device.type):
        found = base.model(**inputs, **last).logits.float()
    return found - found.mean(-1, keepdim=True)

# %%
exact = logits(plain)


def damage(base):
    loss = training.validation_loss(base.model, base, trial[:2])
    return {"error of the logits": error(logits(base), exact), "loss": loss}


rows = {"not quantized": damage(plain), f"layers in {settings.quantization}": damage(base)}

# %%
# One matrix or two, for a model may use the same for both.
ends = {base.model.get_input_embeddings().weight, base.model.get_output_embeddings().weight}
old = {weight: weight.data for weight in ends}
untouched = models.fingerprint(base.model)
try:
    for weight in ends:
        weight.data = stored(weight.data)
    rows["embedding and head in nf4 too"] = damage(base)
finally:
    for weight in ends:
        weight.data = old[weight]
assert models.fingerprint(base.model) == untouched
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# Compare the last row with the one above it. In a pretrained model this part of the weights costs loss on top of all the layers; how much differs from
# model to model. A word's row of the embedding is all that the layers are told of that word, and each logit is one row of the head.
#
# **Symptom:** a quantized model is worse than expected before any training, and its layers look fine one by one. Then list which modules are quantized, as
# we did above, and look for the embedding and the head.
#
# ### Exercise 4.5 (explore): Which layer would you keep?
#
# Suppose that one more layer may stay in 16 bits. Which one? We take the layers of one transformer block in the middle of the model, and what flows into
# each of them while two documents are read. `matrices[name]` is a pair: `W`, the weights of the first 512 outputs (n_out, n_in), and `X`, the inputs
# (tokens, n_in).

# %%
block = ".".join(name.split(".")[:3]) + "."
inside = {n: module for n, module in linears.items() if n.startswith(block)}
inputs = {}


def note(module, given):
    """A hook: called whenever its layer is about to run. It keeps the layer's input."""
    inputs[module] = given[0].detach()


hooks = [module.register_forward_pre_hook(note) for module in inside.values()]
training.validation_loss(plain.model, plain, trial[:2])
for hook in hooks:
    hook.remove()

# %%
matrices = {}
for n, module in inside.items():
    if module in inputs:
        W = module.weight.detach()[:512].float().cpu()
        X = inputs[module].flatten(0, -2).float().cpu()
        matrices[n] = W, X
        print(n, "weights", tuple(W.shape), "inputs", tuple(X.shape))

# %% [markdown]
# A layer computes `X @ W.T`. Find the layer whose output changes most, as a share of the output's norm, when `stored(W)` takes the place of `W`. Then compare
# with the error of the weights alone. `error(rounded, original)` from above gives such shares.
#
# - `harm`: for each name, that share;
# - `most_harmed`: the name of the layer with the largest.
#
# **Predict:** all matrices are rounded by the same rule. Will their outputs suffer alike?

# %%
# BEGIN SOLUTION
harm = {n: error(X @ stored(W).T, X @ W.T) for n, (W, X) in matrices.items()}
most_harmed = max(harm, key=harm.get)
# END SOLUTION

check.what_to_keep(most_harmed, layers=matrices)

# %% tags=["solution"]
lost = {n: error(stored(W), W) for n, (W, X) in matrices.items()}
pd.DataFrame({"weights": lost, "outputs": harm}).map("{:.1%}".format)

# %% [markdown] tags=["instructor"]
# **Instructor, 4.5** (15 minutes). Look for a comparison that uses the inputs. Common misunderstanding: that the layer with the largest error of
# its weights must suffer most. Inputs are far from equal in all directions, so an error counts where inputs are large. Ask what is still missing: a share
# of one output says nothing about how later layers use it. The loss with one kind of layer kept would; it costs a pass over documents for each kind.

# %% [markdown]
# The error of the weights is nearly the same everywhere: one rule, one kind of bell. The errors of the outputs differ, since they depend on the inputs
# too. Methods such as GPTQ (Frantar et al. 2022) and AWQ (Lin et al. 2023) look at inputs for this reason. NF4 does not: it needs no data at all.
#
# ## What gets a gradient?
#
# ### Exercise 4.6 (recall): Forward, backward
#
# In a layer `y = unpacked(W) x + (alpha / r) B A x` in the middle of the model, for which of these does the backward pass of QLoRA compute a gradient?
# (a) the codes of `W`, (b) their absmax constants, (c) `A`, (d) `B`, (e) the input `x`. Give the letters in one string.

# %%
# BEGIN SOLUTION
with_gradient = "cde"
# END SOLUTION

check.qlora_gradients(with_gradient)

# %% [markdown]
# ### A silent failure
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
    options = {"bias": False, "quant_type": "nf4", "compute_dtype": torch.float32}
    layer = bitsandbytes.nn.Linear4bit(64, 64, **options).to(base.model.device)
    if repacking is not None:
        layer.support_avx512bf16_for_cpu = repacking
    matrix = bnb.dequantize_4bit(layer.weight, layer.weight.quant_state)
    x = torch.ones(1, 64, device=base.model.device)
    layer.eval()(x)
    x.requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on such a CPU one warning is all that is ever said
        layer.train()(x).sum().backward()
    return x.grad, matrix.sum(0, keepdim=True)

# %%
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
# **Predict:** how many trainable parameters, compared with LoRA at the same rank and on the same layers? Will training be faster or slower? Will the
# peak memory be lower, and by how much?

# %%
plan = settings.training
untrained = generation.summarize(base.model, base, [story]).predictions[0].prediction
peft_model = adapters.attach_lora(base)
before = models.fingerprint(peft_model)
adapter = [p for p in peft_model.parameters() if p.requires_grad]
print(f"rank {plan.rank}, target modules {plan.target_modules}, optimizer {plan.optimizer}")
print(f"trainable: {models.trainable_parameters(peft_model):,}, in {adapter[0].dtype}")
print("fingerprint of the quantized base:", before)

# %%
# The unquantized base leaves the memory. `held` is what stays.
plain = loaded = linears = inside = inputs = matrices = module = W = X = None
with memory.Peak() as held:
    pass
run.add(data=corpus.describe(), model=base.describe())
history = methods.train(peft_model, base, corpus, run)
print("fingerprint after training:", models.fingerprint(peft_model))
assert models.fingerprint(peft_model) == before

# %%
speeds = {}
for method in ("full", "lora"):
    if runs.status_of(run_dir, method) == "finished":
        speeds[method] = runs.read(run_dir, method).record["training"]
speeds["qlora"] = history.describe()
for method, facts in speeds.items():
    speed, peak = facts["tokens_per_second"], facts["peak_memory_gb"]
    print(f"{plots.METHOD_NAMES[method]}: {speed:.0f} tokens a second, peak {peak:.2f} GB")
print(f"Before QLoRA's training this notebook already held {held.gb:.2f} GB.")

# %%
curves = {}
for method in speeds:
    if method != "full":
        curves[method] = report.read_log(run.folder.parent / method / "log.csv")
plots.losses(curves).save(run.figures / "losses.png")

# %% [markdown]
# The base kept its fingerprint: quantized weights were read, never written. At the same rank and on the same layers the adapter is as large as LoRA's,
# for the shapes are the same. Quantized weights are converted for every product, which costs time. (If only QLoRA is listed, notebooks 2 and 3 have
# not run here.)
#
# On a small model, above all on a CPU, the measured memory is a disappointment, and may even be above LoRA's. It is mostly the program, the libraries,
# what this notebook held before, weights that are unpacked for a product, and the **activations**, which are as large as in LoRA. (On a GPU only tensors
# are counted.) A small base was never the problem.
#
# A large one is. Its bytes can be calculated: 16 for a trained parameter (weight, gradient, Adam's two moments), 2 for a frozen one in 16 bits, 0.516
# in NF4.
#
# **Predict:** weights, gradients and optimizer for 7 billion parameters: full, LoRA, QLoRA? Let the adapter have 1% of the parameters, and let the
# whole base be quantized.

# %%
rows = {}
for billions in (1.1, 7, 11):
    n = round(billions * 1e9)
    rows[f"{billions} billion: full"] = asdict(memory.ledger(n, n))
    rows[f"{billions} billion: LoRA, 16 bits"] = asdict(memory.ledger(n, n // 100, "bfloat16"))
    in_nf4 = memory.ledger(n, n // 100, "bfloat16", quantized=n)
    rows[f"{billions} billion: QLoRA"] = asdict(in_nf4)
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
mine = runs.read(run_dir, "qlora")
others = [r for r in runs.read_all(run_dir) if r.method in ("zero_shot", "lora")]
others = [r for r in others if not runs.unlike([r, mine])]
for difference in comparison.differences(comparison.lines([*others, mine])):
    if difference.name.startswith("QLoRA"):
        print(difference.sentence())
if len(others) < 2:
    print("Notebooks 01 and 03 have not both run here with the same settings.")

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
moved = adapters.load_adapter(whole, run.folder / "adapter")
for label, network, its_base in (("rounded", peft_model, base), ("original", moved, whole)):
    loss = training.validation_loss(network, its_base, trial)
    answer = generation.summarize(network, its_base, [story]).predictions[0].prediction
    print(f"on the {label} base, loss {loss:.4f}: {answer}\n")

# %% [markdown]
# It works on both, because the two bases are close. But these are two models, with two losses and sometimes two answers. (The unquantized base may even
# do better with an adapter that never saw it: nothing of it was rounded away.)
#
# Which base an adapter was tested on belongs in every report. `methods.restore` loads the quantized base again.
#
# ### Break it: merge into 4 bits
#
# In notebook 3 we merged an adapter into its base: `W + (alpha / r) B A`. Here `W` lies on a grid of 16 levels, and the sum must be rounded to that grid
# again. We look at one adapted layer.
#
# **Predict:** the update is much smaller than the distance between two levels. Which share of the weights gets another code? How much of the update
# arrives?

# %%
whole = moved = network = its_base = None
adapted = [n for n, module in peft_model.named_modules() if hasattr(module, "lora_A")]
middle = peft_model.get_submodule(adapted[len(adapted) // 2])
on_grid = stored(layers.unpacked(middle).float())
update = middle.get_delta_weight("default").detach().float()
print(f"The update is {update.norm() / on_grid.norm():.1%} of the weights, by norm.")

# %%
arrived = stored(on_grid + update) - on_grid
codes, _ = codes_of(on_grid.cpu().reshape(-1, 64), NF4)
new_codes, _ = codes_of((on_grid + update).cpu().reshape(-1, 64), NF4)
print(f"{(codes != new_codes).float().mean():.1%} of the weights got another code.")
print(f"What arrived differs from the update by {error(arrived, update):.0%} of it.")

# %% [markdown]
# And the whole model? `layers.merged` puts merged 16-bit copies in the place of the adapted layers, for as long as we ask. We measure the loss, round these
# copies to NF4, and measure again. The base itself is not touched.
#
# **Predict:** order four losses: no adapter, adapter beside the base, merged in 16 bits, merged and rounded to NF4.

# %%
def loss():
    """Loss of our model, as it is now, on two of the trial documents."""
    return training.validation_loss(peft_model, base, trial[:2])


losses = {"adapter beside the base": loss()}
with peft_model.disable_adapter():
    losses["no adapter"] = loss()

# %%
with layers.merged(peft_model, base.precision):
    losses[f"merged, in {base.precision.name}"] = loss()
    now = [peft_model.get_submodule(n) for n in adapted]
    copies = [module for module in now if isinstance(module, torch.nn.Linear)]
    for module in copies:
        module.weight.data = stored(module.weight.data)
    losses["merged, then NF4"] = loss()
print(f"{len(copies)} of {len(adapted)} adapted layers were merged and rounded")
assert models.fingerprint(peft_model) == before
pd.Series(losses, name="loss").round(3).to_frame()

# %% [markdown]
# Where the update is small beside the grid, almost every sum falls back to the level that it came from. What changes is mostly the absmax of each block,
# by the update of one weight, and that moves the whole block: noise in place of what was learnt. (A tiny random model with a high learning rate may keep
# more.)
#
# **Symptom:** no error, and the merged model's loss is near that of the untrained one. So one keeps the adapter beside its 4-bit base, or merges into a base
# in 16 bits and tests that model again.
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
# ## Where we stand now
#
# Our document and the ledger once more, with QLoRA's row. **Predict:** the size of QLoRA's checkpoint, and how its answer differs from LoRA's.

# %%
where_we_stand()

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
mine = """
Ana: Are you still coming on Saturday?
Ben: Yes, but the early train is sold out. I arrive at two.
Ana: Then we'll have a late lunch. Shall I make the soup you liked?
Ben: Please! I'll bring bread and something sweet.
"""
yours = corpora.Example("mine", mine.strip(), ("",))
print(generation.summarize(peft_model, base, [yours]).predictions[0].prediction)

# %% [markdown] tags=["solution"]
# ### Answers to the questions at the end
#
# <details><summary>Show the answers</summary>
#
# 1. The matrices of the linear layers are in 4 bits. The embedding, the norms, the biases and the head keep 16 (or 32) bits. The adapter is in float32, and
#    so are its gradients and moments.
# 2. Little would be left of it. Quantiles of the normal distribution put many levels near zero; weights spread evenly need them just as much at the
#    ends. Levels at equal distances would then be best.
# 3. `4 + 32/32 = 5` bits without double quantization, and `4 + 8/32 + 32/(32 * 256)`, about 4.25, with it.
# 4. The adapters of the layers before can only learn from an error that is passed back to them, and the way back leads through `W`: the gradient of the
#    input is `W` transposed times the gradient of the output.
# 5. The part that is not quantized (the embedding above all) is a large share of a small model, and activations, the libraries and the program do not shrink
#    at all.
# 6. Neither, if both say which base they tested. The adapter was trained on the rounded weights; the 16-bit base is another model, close to it. And the sum
#    is rounded to 16 bits. A score belongs to a base, a precision and an adapter. Who merges should test the merged model.
# 7. There is no rule. Larger models usually lose less from 4 bits than they gain from their size, but the task may not need the size. Measure both on
#    validation with the same budget of memory or time, several seeds, paired over documents; look at the time for an answer too, and at what it costs to
#    serve. State what was held equal.
#
# </details>

# %% [markdown]
# ## In this notebook we have
#
# - looked at real weights and rounded them to 16 levels, as int4 and as NF4,
# - made the NF4 levels from quantiles and confirmed our codes with bitsandbytes,
# - counted what is quantized and what is not, and what the constants cost,
# - measured what quantization alone does to a model, and met a failure that says nothing,
# - broken three things: a layer with one far-out weight, a model with its head in 4 bits, an adapter merged into 4 bits,
# - trained an adapter on the quantized base, tested it, moved it to another base, and added a row to the ledger.
#
# **Questions**
#
# 1. Which parts of a model trained with QLoRA are stored in 4 bits, and which in more?
# 2. NF4 assumes normally distributed weights. What would happen to its advantage if they were spread evenly?
# 3. Blocks of 32 weights round better than blocks of 64. How many bits does a weight cost then, with and without double quantization?
# 4. The quantized weights get no gradient. Why must the gradient still pass through them?
# 5. Why does QLoRA save less on a small model than the factor from 16 to about 4 bits suggests?
#
# To discuss:
#
# 6. A colleague merges a QLoRA adapter into the 16-bit base and gets another score than you. Is one of you wrong?
# 7. Your GPU can train a model of 3 billion parameters with LoRA in 16 bits, or one of 13 billion with QLoRA. Which would you take, and what would you
#    measure before you decide?
#
# **Next:** `05_evaluation` puts all methods side by side, with our document among the others: what did each one really buy?
