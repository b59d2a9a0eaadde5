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
# | **You will** | build a LoRA layer in ten lines, compare it with peft's, train the whole model through adapters, save, load and merge them, and try other ranks |
# | **You will learn** | what a low-rank update is, how to count its parameters, what it saves in memory and on disk, and what it does not save |
# | **You need** | notebooks 01 and 02 (this one also runs without their records, but then has nothing to compare with) |
# | **Time** | about 4 minutes with the default recipe on 2 CPU cores without GPU |
#
# Full fine-tuning writes a new copy of every weight. LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models") keeps the old weights
# and learns a small correction beside them.

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
sweep_ranks = [2, 32]  # ranks of the small experiment at the end
sweep_steps = 3  # its optimizer steps for each rank
sweep_validation = 6  # its validation documents

# %%
import gc

import pandas as pd
import torch

from lab_utils import comparison, config, generation, memory, methods, metrics, models, plots, report, runs, training
from lab_utils import data as corpora  # `data` is a parameter

settings = config.resolve(
    recipe, "lora", seed, model=model, model_dir=model_dir, data=data, data_dir=data_dir, document_column=document_column,
    summary_column=summary_column, test_from=test_from, train_examples=train_examples, validation_examples=validation_examples,
    test_examples=test_examples, learning_rate=learning_rate, epochs=epochs, batch_size=batch_size, micro_batch=micro_batch,
    rank=rank, alpha=alpha, dropout=dropout, target_modules=target_modules, quantization=quantization, publish_to=publish_to,
)  # fmt: skip
plan = settings.training
corpus = corpora.load(settings.recipe.data)
run = runs.start(run_dir, settings)
base = models.load(settings)
run.add(data=corpus.describe(), model=base.describe())
print(f"{settings.recipe.model.label}: {base.parameters:,} parameters, quantization {settings.quantization}, {base.precision.name} products")
print(f"rank {plan.rank}, alpha {plan.alpha:g}, dropout {plan.dropout:g}, target modules {plan.target_modules}, learning rate {plan.learning_rate:g}")

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
print(B @ A)
print(f"{(B @ A).numel()} numbers, made from {A.numel() + B.numel()}. Rank: {torch.linalg.matrix_rank(B @ A)}")

# %% [markdown]
# Every row is a multiple of `A`; the second is 2 times `A`. For a layer with `n_in` inputs and `n_out` outputs, the two factors have
# `r * (n_in + n_out)` numbers instead of `n_in * n_out`. The larger the layer, the larger the saving.
#
# We list the shapes of all linear layers of the model. The output layer, which scores the words, is left out: it is usually not adapted.
#
# **Predict:** for the largest layer, which share of its parameters does LoRA need at our rank?

# %%
head = base.model.get_output_embeddings()
linears = {name: m for name, m in base.model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}
shapes = {name: (m.in_features, m.out_features) for name, m in linears.items()}
largest = max(shapes, key=lambda name: shapes[name][0] * shapes[name][1])
n_in, n_out = shapes[largest]
full, low = n_in * n_out, plan.rank * (n_in + n_out)
print(f"{largest}: {n_in:,} inputs, {n_out:,} outputs")
print(f"full update: {full:,} parameters; rank {plan.rank}: {low:,}, that is {low / full:.1%}")

# %% [markdown]
# ## A LoRA layer by hand
#
# It wraps a linear layer and adds `alpha / r` times `B A x` to its output. `BA` is never formed: `x` goes through `A` first, then through `B`, and that
# is cheap because there are only `r` numbers in between.
#
# `A` starts random, `B` at zero. (Both at zero would never move: the gradient of each is multiplied by the other.)
#
# We put it around a float32 copy of the largest layer, without its bias. (Weights that are stored in fewer bits are unpacked for this.) **Predict:**
# how far is the output from that of the plain layer? And after we fill `B` with small random numbers?

# %%
class LoRA(torch.nn.Module):
    """A frozen linear layer with a trainable update of low rank."""

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), alpha / rank
        self.A = torch.nn.Parameter(torch.randn(rank, linear.in_features, device=linear.weight.device) / rank)
        self.B = torch.nn.Parameter(torch.zeros(linear.out_features, rank, device=linear.weight.device))

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T) @ self.B.T

# %%
from peft.utils.integrations import dequantize_module_weight

linear = torch.nn.Linear(n_in, n_out, bias=False)
linear.weight = torch.nn.Parameter(dequantize_module_weight(linears[largest]).detach().float())
mine, x = LoRA(linear, plan.rank, plan.alpha), torch.randn(4, n_in, device=linear.weight.device)
assert torch.equal(mine(x), linear(x))
print(f"B = 0:     largest change {(mine(x) - linear(x)).abs().max():.3f}")
torch.nn.init.normal_(mine.B, std=0.02)
print(f"B filled:  largest change {(mine(x) - linear(x)).abs().max():.3f}")
print(f"trainable: {models.trainable_parameters(mine):,} parameters")

# %% [markdown]
# With `B = 0` nothing changes, to the last bit. So training starts exactly at the base model and moves away from it step by step.
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
# First we note where we start: the base's answer to our document, and the fingerprint of its weights. Then `models.attach_lora` calls peft with the
# recipe's rank, alpha and **target modules**. `all-linear` means every linear layer except the output layer; `attention` and `query-value` mean those
# layers of the attention, whatever their names are in this model.
#
# **Predict:** how many trainable parameters will there be? Add up `r * (n_in + n_out)` over the layers that are hit.

# %%
def answer(network, base):
    """The summary of the story document."""
    return generation.summarize(network, base, [story]).predictions[0].prediction


story = corpus.test[0]
answer_before, fingerprint_before = answer(base.model, base), models.fingerprint(base.model)
print(f"reference: {story.references[0]}\nthe base:  {answer_before}")

# %%
peft_model = models.attach_lora(base)
hit = [name.removeprefix("base_model.model.") for name, m in peft_model.named_modules() if hasattr(m, "lora_A")]
print(pd.Series([name.split(".")[-1] for name in hit]).value_counts(sort=False).to_string(), "\n")
predicted, counted = plan.rank * sum(sum(shapes[name]) for name in hit), models.trainable_parameters(peft_model)
print(f"{len(hit)} layers; trainable parameters: predicted {predicted:,}, counted {counted:,}")
print(f"share of all parameters: {counted / (base.parameters + counted):.2%}")
assert predicted == counted

# %% [markdown]
# The formula is exact. It needs shapes only, so we can compare choices without building them. An encoder-decoder has attention in three places: in the
# encoder, in the decoder, and from the decoder to the encoder's output.
#
# Hu et al. adapted attention matrices only, mostly query and value. Dettmers et al. (2023, "QLoRA: Efficient Finetuning of Quantized LLMs") found that
# adapters on all linear layers were needed to match full fine-tuning, and that the rank mattered little.
#
# **Predict:** how much smaller is an adapter on the query and value layers alone?

# %%
query_value = [name for name in shapes if name.split(".")[-1][0] in "qv"]  # q_proj and v_proj; in T5, q and v
rows = {}
for label, chosen in [("query and value", query_value), ("all linear layers", shapes)]:
    for r in (1, plan.rank):
        size = r * sum(sum(shapes[name]) for name in chosen)
        share = f"{size / (base.parameters + size):.2%}"
        rows[f"{label}, rank {r}"] = {"layers": len(chosen), "trainable": f"{size:,}", "share": share}
pd.DataFrame(rows).T

# %% [markdown]
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
frozen = sum(p.numel() * p.element_size() for p in base.model.parameters() if not p.requires_grad) / 1e9
adapter = memory.ledger(counted, counted)
lora = memory.Ledger(frozen + adapter.weights, adapter.gradients, adapter.optimizer)
assert abs(lora.total - frozen - 16 * counted / 1e9) < 1e-9
ledgers = {"full": memory.ledger(base.parameters, base.parameters), "lora": lora}
print(f"full fine-tuning {ledgers['full'].total:.4f} GB; LoRA, base with quantization {settings.quantization}: {lora.total:.4f} GB")
bars = {plots.METHOD_NAMES[m]: {"weights": g.weights, "gradients": g.gradients, "Adam's moments": g.optimizer} for m, g in ledgers.items()}
plots.stacked(bars).save(run.figures / "memory_predicted.png")

# %% [markdown]
# Gradients and moments shrink to the adapter's share. The bars leave out the **activations**, the results of each layer that the backward pass needs.
# LoRA sends the same tokens through the same layers, so these hardly shrink.
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
    costs["full"], curves["full"] = recorded.record["training"], report.read_log(recorded.folder / "log.csv")
for method, cost in costs.items():
    print(f"{plots.METHOD_NAMES[method]}: {cost['tokens_per_second']:.0f} tokens a second, peak memory {cost['peak_memory_gb']:.1f} GB")
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
print(f"fingerprint before: {fingerprint_before}, after: {fingerprint_after}")
print(f"\nadapter off: {answer_off}\n\nadapter on:  {answer_on}\n\nreference:   {story.references[0]}")
assert fingerprint_after == fingerprint_before and answer_off == answer_before

# %% [markdown]
# Same fingerprint, and with the adapter off the base's answer, word for word. One base can carry many adapters, one for each task, and switch between
# them.
#
# ## The adapter on disk
#
# Does the file bring everything back? We throw the trained model away, load a fresh base, and load the adapter onto it. Attaching a *new* adapter
# instead is a common mistake: no error, and the model answers as the base does, because a new `B` is zero.
#
# **Predict:** the size of the adapter file. Its numbers are float32, 4 bytes each. And the answer of the model that is put together again.

# %%
folder = run.folder / "adapter"
for path in sorted(folder.iterdir()):
    print(f"{path.stat().st_size / 1e6:10.3f} MB  {path.name}")
adapter_mb, model_mb = counted * 4 / 1e6, base.parameters * base.precision.dtype.itemsize / 1e6
print(f"{adapter_mb:10.3f} MB  predicted for the adapter")
print(f"{model_mb:10.3f} MB  the whole model in {base.precision.name}, {model_mb / adapter_mb:.0f} times as much")

# %%
peft_model = base = linears = head = None
gc.collect()  # the trained model has left the memory; its file is left
base = models.load(settings)
peft_model = models.load_adapter(base, folder)
answer_loaded = answer(peft_model, base)
print(answer_loaded)
assert answer_loaded == answer_on

# %% [markdown]
# The file is a little larger than its numbers, since it also holds their names and shapes. And the answer is the same.
#
# ## Merging
#
# An adapter costs extra products whenever the model runs. They can be saved: `W + (alpha / r) B A` is one ordinary matrix. First one layer, then the
# whole model, both in float32 and unquantized. A very large model is left out here, since it may not fit in float32.
#
# **Predict:** does the merged layer give the same output? If it is then rounded to bfloat16, which keeps two to three decimal digits, how large is the
# rounding error compared with the update? And how far will the merged model's scores for the next words (its **logits**) be from the adapted one's?

# %%
name = largest if largest in hit else hit[0]
if merge_here := base.parameters < 1e9:  # a float32 copy of a larger base may not fit
    whole = models.load(settings, quantization="none")
    adapted = models.load_adapter(whole, folder).float()
    layer = adapted.get_submodule(f"base_model.model.{name}")
    update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    merged, x = layer.base_layer.weight + update, torch.randn(4, shapes[name][0], device=update.device)
    assert torch.allclose(layer(x), torch.nn.functional.linear(x, merged, layer.base_layer.bias), rtol=1e-3, atol=1e-3)
    error = merged.bfloat16().float() - merged
    print(f"{name}: the update is {update.norm() / layer.base_layer.weight.norm():.2%} of the weights (by norm),")
    print(f"and rounding the merged weights to bfloat16 is an error of {error.norm() / update.norm():.1%} of the update.")
else:
    print(f"Left out: {base.parameters:,} parameters in float32 may not fit into memory.")

# %%
import warnings

if merge_here:
    batch = whole.collator([whole.encoder(corpus.train[0])])
    batch = {key: value.to(whole.model.device) for key, value in batch.items()}
    logits = adapted(**batch).logits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft remarks that T5's embedding and output layer are two
        whole.model = adapted.merge_and_unload()
    change = (whole.model(**batch).logits - logits).abs().max() / logits.abs().max()
    print(f"largest change of a logit: {change:.0e} of the largest logit")
    assert change < 1e-3

# %% [markdown]
# In float32, merging changes the last digits only. In bfloat16, the sum is rounded to the grid of the large weights, and part of the small update is
# lost. The grid of quantized weights is coarser still, so one does not merge into them; one merges into an unquantized base.
#
# A merged model is an ordinary model again and runs without peft. The price: the adapter can no longer be switched off.
#
# `generation.summarize` has it both ways. While it writes, a merged copy of each adapted layer stands in the layer's place; afterwards the layers stand
# where they stood. So every method is tested with weights rounded to the format of the products, the fully trained ones too.
#
# ## What was learnt?
#
# The **singular values** of an update say how strong each of its independent directions is. At most `r` of them are above zero.
#
# **Predict:** how many of them hold 90% of the sum of their squares?

# %%
layer = peft_model.get_submodule(f"base_model.model.{name}")
A, B = layer.lora_A["default"].weight.detach().float().cpu(), layer.lora_B["default"].weight.detach().float().cpu()
values = torch.linalg.svdvals(layer.scaling["default"] * B @ A)[: plan.rank + 2]
share = values.square().cumsum(0) / values.square().sum()
print(f"{int((share < 0.9).sum()) + 1} of {plan.rank} directions hold 90% of the update.")
alt = f"Singular values of the update of {name}: " + ", ".join(f"{value:.3g}" for value in values)
plots.lines({name: (range(1, len(values) + 1), values)}, "direction", "singular value", alt).save(run.figures / "singular_values.png")

# %% [markdown]
# After direction `r` there is nothing. Hu et al. (section 7) concluded that the top few directions are the useful ones. Ours is one layer after a short
# training, so it shows what to look at, not a law.
#
# ## The test set
#
# A difference is measured in pairs, as in notebook 2: the same document, one method minus the other.
#
# **Predict:** will LoRA be above or below full fine-tuning? Will the interval of the difference contain 0? And what will its row in the ledger say?

# %%
scores = methods.evaluate(peft_model, base, corpus, run)
records = [runs.read(run_dir, m) for m in ("zero_shot", "full", "lora") if runs.status_of(run_dir, m) == "finished"]
reasons = runs.unlike(records)
if reasons or len(records) < 3:
    print("Not every comparison can be made:", "; ".join(reasons) or "notebook 01 or 02 has no finished record in this run_dir")
for difference in [] if reasons else comparison.differences(comparison.lines(records)):
    if difference.name.startswith("LoRA"):
        print(difference.sentence())
print(metrics.PROTOCOL)
pd.DataFrame({name: scores[name] for name in metrics.ROUGE}).T.round(1)

# %% [markdown]
# Is that what one should expect here? As in notebook 1, the band is the 95% interval of a recorded mean.

# %%
from lab_utils import expected

print(expected.sentence(run.record))

# %%
pd.DataFrame(comparison.ledger(runs.read_all(run_dir))).set_index("method")

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
from lab_utils.data import Example

mine = """
Ana: Are you still coming on Saturday?
Ben: Yes, but the early train is sold out. I arrive at two.
Ana: Then we'll have a late lunch. Shall I make the soup you liked?
Ben: Please! I'll bring bread and something sweet.
"""
print(generation.summarize(peft_model, base, [Example("mine", mine.strip(), ("",))]).predictions[0].prediction)

# %% [markdown]
# ## Does the rank matter?
#
# A small experiment: for each rank the same base, a fresh adapter, a handful of steps, and the loss on a few validation documents. `alpha` is twice the
# rank, so `alpha / r` stays the same.
#
# **Predict:** which rank has the lowest loss?

# %%
checked, rows = corpus.validation[:sweep_validation], []
with peft_model.disable_adapter():
    untrained = training.validation_loss(peft_model, base, checked)
whole = adapted = layer = None  # one model in memory
for r in sweep_ranks:
    base.model = peft_model.unload()  # the base without its adapter
    peft_model = models.attach_lora(base, rank=r, alpha=2 * r)
    training.train(peft_model, base, corpus.train, max_steps=sweep_steps)
    loss = training.validation_loss(peft_model, base, checked)
    rows.append({"rank": r, "trainable parameters": models.trainable_parameters(peft_model), "validation loss": round(loss, 3)})
print(pd.DataFrame(rows).to_string(index=False), f"\nuntrained: validation loss {untrained:.3f}")
losses = [row["validation loss"] for row in rows]
curves = {f"after {sweep_steps} steps": (sweep_ranks, losses), "untrained": (sweep_ranks, [untrained] * len(losses))}
alt = f"Validation loss {untrained:.3f} untrained; after {sweep_steps} steps, by rank: {dict(zip(sweep_ranks, losses, strict=True))}"
plots.lines(curves, "rank", "validation loss (nats per answer token)", alt).save(run.figures / "ranks.png")

# %% [markdown]
# This cannot rank the ranks. A handful of steps shows how fast each one starts, not where it ends. Adam moves every number by about the same amount,
# so a larger rank, with more numbers, also moves the layer further in one step. One seed fixes one random `A` and one order of the documents. To
# answer the question one would train each rank with the full budget, with a learning rate of its own and several seeds, and compare the differences
# with the spread between seeds.
#
# ## In this notebook we have
#
# - written a low-rank update as a product and counted its parameters,
# - built a LoRA layer by hand and confirmed it with peft,
# - attached adapters to the whole model, and predicted their number exactly,
# - trained them and shown that the base did not change,
# - saved the adapter, loaded it onto a fresh base, and merged it in float32,
# - scored it against the methods before, and tried other ranks.
#
# **Questions**
#
# 1. A layer has 1,000 inputs and 1,000 outputs. From which rank on does LoRA have more parameters than the layer?
# 2. `B` starts at zero and `A` random. Would the other way round work too?
# 3. Why does the measured peak shrink by less than the bars of weights, gradients and optimizer?
# 4. You serve ten tasks from one base. What lies on disk with ten adapters, and with ten fully tuned models?
# 5. You merged an adapter into a bfloat16 model and the score fell a little. What happened, and what would you do?
#
# **Next:** `04_qlora` stores the base in fewer bits. Write down which part of the LoRA bar in the memory figure is the largest: that part will shrink.
