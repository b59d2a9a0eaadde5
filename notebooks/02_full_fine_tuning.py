# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2. Full fine-tuning
#
# Notebook 1 asked the model as it came. Now we show it good summaries and change **all** of its weights.
#
# | | |
# |---|---|
# | **You will** | look inside a training row, compute the loss by hand, predict the memory, write the training loop yourself, then train with the Trainer and score the result |
# | **You will learn** | what is supervised and why the end token is, where 16 bytes a parameter go, why weights are kept in float32, and how to read loss curves |
# | **You need** | notebook 1 if possible, for the mark to beat; with the default recipe no GPU, no network, no token |
# | **Time** | about 4 minutes with the default recipe on 2 CPU cores without GPU |
#
# In the parameters cell `None` means: as the recipe says. The last three only change the side experiments. A recipe whose model is too large for full
# fine-tuning says so in one sentence, with the memory that it would take.

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
publish_to = None  # "owner/name": upload the result to the hub
hand_steps = 3  # steps of the loop that we write by hand
check_examples = 4  # short documents for the small checks, at least 2
short_limit = 40  # a document limit, in tokens, small enough to see what is cut

# %%
from lab_utils import comparison, config, memory, methods, metrics, models, plots, runs, significance, training
from lab_utils import data as corpora  # `data` is a parameter

settings = config.resolve(
    recipe, "full", seed, model=model, model_dir=model_dir, data=data, data_dir=data_dir, document_column=document_column,
    summary_column=summary_column, test_from=test_from, train_examples=train_examples, validation_examples=validation_examples,
    test_examples=test_examples, learning_rate=learning_rate, epochs=epochs, batch_size=batch_size, micro_batch=micro_batch,
    publish_to=publish_to,
)  # fmt: skip
corpus = corpora.load(settings.recipe.data)
run = runs.start(run_dir, settings)
mark = runs.read(run_dir, "zero_shot") if runs.status_of(run_dir, "zero_shot") == "finished" else None
as_text = "ROUGE-1 {mean:.1f}, 95% interval {low:.1f} to {high:.1f}".format
print("The mark to beat:", as_text(**mark.record["metrics"]["rouge1"]) if mark else "none, notebook 01 has no finished record here.")

# %%
with memory.Peak() as idle:  # what this process holds before there is a model; we need it later
    pass
base = models.load(settings)
short = sorted(corpus.train, key=lambda e: len(e.document))  # shortest documents first, for quick experiments
print(f"{base.parameters:,} parameters; {len(corpus.train):,} documents to train on, {len(corpus.validation):,} to validate.")
print(f"{base.precision.name} products: {base.precision.reason}")

# %% [markdown]
# ## What a training row is
#
# A row is a **prompt**, the same as in notebook 1, followed by the **answer** we want. Every token has a **label**: the token the model should have
# predicted there. In the prompt the label is `IGNORED` (-100), which the loss skips. We teach the model to write summaries, not to write documents.
#
# A decoder-only model reads prompt and answer in one row. In an encoder-decoder they are two rows: the encoder reads the prompt, the **source**, which
# has no labels at all; the decoder writes the answer, the **target**.
#
# We print the prompt of one short row, then the labels: a dot for each ignored one or token of a source, brackets around the others.
#
# **Predict:** which tokens stand in brackets? What is the very last one?

# %%
import textwrap

from lab_utils.batching import IGNORED
from lab_utils.prompts import answer_ids

example = short[0]
prompt, row = base.encoder.prompt_of(example.document), base.encoder(example)
answer = answer_ids(base.tokenizer, settings.recipe.prompt, example.summary)
labels = [IGNORED] * (len(prompt) + len(answer) - len(row["labels"])) + row["labels"]
print(base.tokenizer.decode(prompt), "\n")
print(textwrap.fill(" ".join("." if t == IGNORED else f"[{base.tokenizer.decode([t])}]" for t in labels), 110))
print(f"\n{labels.count(IGNORED)} labels ignored, {len(answer)} supervised.\nThe summary: {example.summary}")
assert [t for t in labels if t != IGNORED] == answer and labels[-1] == base.tokenizer.eos_token_id

# %% [markdown]
# Exactly the summary is supervised, and after it the **end token**. That last label is as important as the words. A model that never sees it as a
# label never learns to stop: it writes on until `max_new_tokens` cuts it off. Masking is therefore done by position. Masking "every pad token" would
# also hide the end token in models where the two are the same.
#
# ## Shifted by one
#
# The model reads up to a position and predicts the **next** token. So what it reads at position t is paired with the token at t + 1.
#
# **Predict:** what has the model read last when it must write the first word of the summary?

# %%
import pandas as pd


def batch_of(examples, encoder):
    """Padded tensors of these examples, on the model's device."""
    return {name: tensor.to(base.model.device) for name, tensor in base.collator([encoder(e) for e in examples]).items()}


batch = batch_of(short[: check_examples // 2], base.encoder)
reads, targets = batch.get("decoder_input_ids", batch["input_ids"]), batch["labels"]
if "decoder_input_ids" not in batch:  # an encoder-decoder's input is shifted already
    targets = targets[:, 1:]
pairs = [(a, b) for a, b in zip(reads[0].tolist(), targets[0].tolist(), strict=False) if b != IGNORED]
shown = pd.DataFrame(pairs[:4] + pairs[-2:], columns=["reads last", "must predict"])
shown.map(lambda token: repr(base.tokenizer.decode([token])))

# %% [markdown]
# The first prediction is made at the last token of the prompt, or, in an encoder-decoder, at a start token that stands before the target. The last
# prediction is the end token, made after the last word or mark of the summary.
#
# ## The loss by hand
#
# At each supervised position the model gives every token of the vocabulary a probability. The loss of that position is minus the logarithm of the
# probability of the right token. Probability 1 costs 0, one half costs 0.69, one in a hundred costs 4.6. The loss of a batch is the mean over all
# its supervised tokens. This is called **cross-entropy**.
#
# `training.token_losses`, which the training below uses, computes scores only where they are needed.
#
# **Predict:** will it give the same number as we get from all scores?

# %%
import torch

supervised = targets != IGNORED
with torch.no_grad():
    logits = base.model(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits[:, : targets.shape[1]]
    total, count = training.token_losses(base.model, batch)
log_probabilities = logits[supervised].log_softmax(-1)  # one row per supervised token, one column per token of the vocabulary
by_hand = -log_probabilities.gather(1, targets[supervised].unsqueeze(1)).mean()
print(f"by hand:      {by_hand:.4f} over {supervised.sum()} supervised tokens\ntoken_losses: {total / count:.4f} over {count}")
assert torch.isclose(by_hand, total / count, atol=1e-3)
del logits, log_probabilities  # large, and memory will be measured

# %% [markdown]
# The same loss. Only the memory differs: scores for every position and every token of the vocabulary are often the largest tensor of a training step.
#
# **Perplexity** is exp(loss). It reads as "the model hesitates between so many equally likely tokens".
#
# **Predict:** a model that knows nothing gives every token of the vocabulary the same probability. What is its perplexity? And that of our base?

# %%
vocabulary = base.model.config.vocab_size
uniform = torch.nn.functional.cross_entropy(torch.zeros(1, vocabulary), torch.tensor([0]))
print(f"knows nothing: loss {uniform:.2f}, perplexity {uniform.exp():,.0f}; the vocabulary has {vocabulary:,} tokens")
print(f"our base:      loss {by_hand:.2f}, perplexity {by_hand.exp():.3g}")

# %% [markdown]
# Knowing nothing means a perplexity equal to the vocabulary size. A pretrained model is far below; random weights are near it, or above where they are
# wrong with confidence. So if a training log begins at `ln(vocabulary)` or higher, check whether the weights were loaded.
#
# ## What is cut when a text is too long
#
# Only the document. The words around it and the answer stay whole. Cutting a row at its end, as many scripts do, would cut the answer, and the end
# token first of all.
#
# **Predict:** with a limit of a few dozen tokens, what is left of this prompt, and of its answer?

# %%
from dataclasses import replace

example = corpus.train[0]
small = replace(base.encoder, lengths=settings.recipe.lengths.model_copy(update={"document_tokens": short_limit}))
answer = [t for t in small(example)["labels"] if t != IGNORED]
print(base.tokenizer.decode(small.prompt_of(example.document)), "\n\nANSWER:", base.tokenizer.decode(answer).strip())
assert answer == answer_ids(base.tokenizer, settings.recipe.prompt, example.summary)
print("\nAt the recipe's own limit,", sum(base.encoder.is_cut(e.document) for e in corpus.train), "training documents lose their end.")

# %% [markdown]
# The document stops at the limit. The words after it, the answer and the end token are untouched.
#
# ## How much memory will it take?
#
# For every trained parameter the machine holds four float32 numbers of 4 bytes:
#
# - the **weight**,
# - its **gradient**,
# - Adam's two **moments**: running means of the gradient and of its square.
#
# That makes 16 bytes a parameter, before a single token is read. A model with 7 billion parameters would need 112 GB.
#
# **Predict:** multiply the number of parameters by 16. How many GB for this model?

# %%
trainable = models.trainable_parameters(base.model)
plan = memory.ledger(base.parameters, trainable)
parts = {"weights": plan.weights, "gradients": plan.gradients, "moments": plan.optimizer}
print(f"{trainable:,} of {base.parameters:,} parameters are trained: {plan.total:.3f} GB")
plots.stacked({"predicted": parts}).save(run.figures / "memory_predicted.png")

# %% [markdown]
# Half of the bar belongs to the optimizer. Notebooks 3 and 4 will shrink it.
#
# ## The training loop by hand
#
# Training is five lines, repeated: loss, gradients, step, forget the gradients, look. `AdamW` is Adam with weight decay kept apart from the gradient
# (Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization"); `fused` only makes it faster. `autocast` runs the matrix products in the
# number format named where the model was loaded.
#
# To be quick we take one micro-batch of documents, cut to `short_limit`, and use the same ones at every step.
#
# **Predict:** what will the loss do?

# %%
original = models.fingerprint(base.model)
batch = batch_of(short[: settings.training.micro_batch], small)
optimizer = torch.optim.AdamW(base.model.parameters(), settings.training.learning_rate, weight_decay=settings.training.weight_decay, fused=True)
base.model.train()
for step in range(1, hand_steps + 1):
    with base.precision.autocast(base.model.device.type):
        total, count = training.token_losses(base.model, batch)
    loss = total / count
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: loss {loss.item():.3f}")
del optimizer, loss, total  # frees the moments

# %% [markdown]
# It should fall: the model is learning these few documents. Whether it learns to *summarize* cannot be seen here.
#
# Our loop has changed the model in memory. A **fingerprint** is a hash over all weights.
#
# **Predict:** after so few steps, is the fingerprint still the same? What brings the old one back?

# %%
print("before the loop:", original)
print("after the loop: ", models.fingerprint(base.model))
base = models.load(settings)
print("loaded anew:    ", models.fingerprint(base.model))
assert models.fingerprint(base.model) == original

# %% [markdown]
# One changed weight is enough for another fingerprint. Loading anew brings the original back. A comparison of methods needs this: all of them must
# start from the same weights. Fine-tuning a model that an earlier cell has already changed is a mistake that gives no error message.
#
# ## Why weights are kept in float32
#
# bfloat16 has 8 significant bits. Between 1 and 2 its numbers are 0.0078 apart. Adam's first step moves a weight by about the learning rate.
#
# **Predict:** we add 0.00003 a thousand times to a weight of 1.0. Where does it end in float32? In bfloat16?

# %%
for dtype in (torch.float32, torch.bfloat16):
    weight = torch.tensor(1.0, dtype=dtype)
    for _ in range(1000):
        weight += 3e-5
    print(f"{str(dtype):15} ends at {weight.item():.4f}")

rate, stored = settings.training.learning_rate, base.model.get_input_embeddings().weight.detach().bfloat16()
print(f"Of this model's own embedding weights, {(stored + rate == stored).float().mean():.0%} would not move by {rate:g} in bfloat16.")

# %% [markdown]
# In bfloat16 every single addition is rounded away, and a thousand times nothing is nothing. So the trained weights stay in float32, the **master
# weights**, and only the matrix products may run in 16 bits (Micikevicius et al. 2018, "Mixed Precision Training"). Small weights lose less, because
# their neighbours lie closer together; that is why the last line need not say 100%.
#
# ## Gradient accumulation changes nothing
#
# If a batch does not fit into memory, read it in parts, add up the gradients, and divide once by the number of supervised tokens of the *whole* batch.
#
# **Predict:** is the gradient of all rows at once the same as that of two halves? And if we average the two halves' own means?

# %%
def gradient_of_sum(examples):
    """Gradient of the summed loss for the embeddings, which every layer's gradient passes through, and the token count."""
    total, count = training.token_losses(base.model, batch_of(examples, small))
    return torch.autograd.grad(total, base.model.get_input_embeddings().weight)[0], count


checked = short[:check_examples]
half = len(checked) // 2
(whole, n), (first, n1), (second, n2) = map(gradient_of_sum, (checked, checked[:half], checked[half:]))
errors = [((g - whole / n).norm() / (whole / n).norm()).item() for g in ((first + second) / n, (first / n1 + second / n2) / 2)]
print(f"two halves, their sum divided by all {n} tokens: off by {errors[0]:.4%}")
print(f"two halves, mean of the means over {n1} and {n2}:   off by {errors[1]:.1%}")
assert errors[0] < 1e-3
del whole, first, second  # large, and memory will be measured

# %% [markdown]
# Equal, up to rounding. The mean of two means is not: a token counts for more if it stands in the half with fewer tokens. Our Trainer divides by all
# tokens.
#
# ## The same with the Trainer
#
# `methods.train` runs our loop inside transformers' `Trainer` and saves the result. It adds:
#
# - **accumulation:** `micro_batch` examples at a time until `batch_size` are together,
# - **warm-up and decay:** the learning rate rises over the first steps, then falls to zero,
# - **clipping:** a gradient longer than `max_grad_norm` is shortened (Pascanu et al. 2013, "On the difficulty of training recurrent neural networks"),
# - **grouping:** rows of similar length share a batch, so that little is padded,
# - **a seed:** the same order of examples in every run,
# - **a log** with one row per step, and the loss on validation documents, which are never trained on,
# - **a stop** when a loss is not a number.
#
# A notebook trains on one GPU. With two, or for hours, leave it: `accelerate launch -m lab_utils train` does the same and leaves the same record
# (README, "More than one process").
#
# **Predict:** the number of steps is training documents × epochs / `batch_size`, rounded up. How many? Will the validation loss fall?

# %%
from lab_utils import generation

story = corpus.test[0]
untrained = generation.summarize(base.model, base, [story]).predictions[0]  # kept for later
run.add(data=corpus.describe(), model=base.describe())
print(f"{len(corpus.train):,} documents; {settings.training}")
history = methods.train(base.model, base, corpus, run)

# %% [markdown]
# The first line of the log names the steps, the later ones the validation loss.
#
# ## Was the memory as predicted?
#
# The three parts of the ledger must be in the measured peak. So must everything else that lives in memory at the same time:
#
# - **activations:** results of each layer that are kept until the backward pass needs them. They grow with `micro_batch` and with text length.
#   (With `activation_checkpointing` few are kept, and the backward pass computes the others again.)
# - with 16-bit products, a **16-bit copy** of the weights during each step,
# - on a CPU, **Python** and its libraries, and memory that earlier cells have not given back. (On a GPU only tensors are counted.)
#
# What Python held before there was a model was measured at the top. All else is drawn as "the rest".
#
# **Predict:** by how much will the measured bar be longer?

# %%
rest = max(0.0, history.peak_memory_gb - plan.total - idle.gb)
measured = parts | {"Python": idle.gb, "the rest": rest}
print(f"predicted {plan.total:.3f} GB, measured peak {history.peak_memory_gb:.3f} GB")
plots.stacked({"predicted": parts, "measured": measured}).save(run.figures / "memory.png")

# %% [markdown]
# The peak is larger, because the ledger counts only what depends on the number of parameters. For a very small model on a CPU, Python and
# its libraries, some loaded only for training, are nearly everything. For a large model the ledger tells you whether training is possible at all.
#
# ## Read the loss curves
#
# The thin line jumps: every step sees other documents, and some are harder. The points do not: they are always the same validation documents.
#
# **Predict:** what would the two curves look like if the model learnt its training documents by heart?

# %%
import math

validated = [row for row in history.log if row.get("validation_loss") is not None]
for row in validated:
    print(f"after step {row['step']}: validation loss {row['validation_loss']:.3f}, perplexity {math.exp(row['validation_loss']):.3g}")
plots.losses({"full": history.log}).save(run.figures / "losses.png")

# %% [markdown]
# - **Underfitting:** both curves still fall at the end. More steps or a higher rate would help.
# - **Overfitting:** the training loss goes on falling while the validation loss turns and rises. The model learns its examples by heart; stop earlier.
# - **A rate that is too high:** the loss jumps up, or becomes "not a number".
#
# Which do you see? A few validation points show a direction, not the best place to stop.
#
# ## Before and after
#
# Loss is not quality. We summarize all test documents and read the one we know first.
#
# **Predict:** what will change more, the facts or the manner?

# %%
scores = methods.evaluate(base.model, base, corpus, run)
ours = runs.read(run_dir, "full")
for name, p in [("before", untrained), ("after", ours.predictions[0])]:
    print(f"{name}, {p.tokens} tokens, {'ended by itself' if p.stopped else 'cut off'}:\n{p.prediction}\n")
print("reference:", story.references[0])

# %% [markdown]
# Compare length and manner with the reference. Then check every name and fact against the document: sounding right and being right are two things.
#
# ## The test scores
#
# Two overlapping intervals do not settle whether training helped. Both methods summarized the *same* documents, so we take the difference document by
# document and resample those. Documents that are hard for both then cancel out.
#
# **Predict:** how many points of ROUGE-1 did training bring, and does the interval of the difference exclude 0?

# %%
reasons = runs.unlike([mark, ours]) if mark else ["notebook 01 has no finished record in this run_dir"]
if reasons:
    print("No comparison with zero-shot:", "; ".join(reasons) + ".")
else:
    values = [[row["rouge1"] for row in metrics.score(each.predictions)] for each in (ours, mark)]
    gap = significance.paired_difference(*values)
    print(f"full fine-tuning minus zero-shot: {gap.mean:+.1f} points of ROUGE-1, 95% interval {gap.low:+.1f} to {gap.high:+.1f}")
print(metrics.PROTOCOL)
pd.DataFrame({name: scores[name] for name in metrics.ROUGE}).T.round(1)

# %% [markdown]
# Is that what one should expect here? As in notebook 1, the band is the 95% interval of a recorded mean.

# %%
from lab_utils import expected

print(expected.sentence(run.record))

# %% [markdown]
# If the interval excludes 0, another draw of documents would hardly turn the result around. If it contains 0, we have not shown a difference; we have
# not shown that there is none either. `predictions.jsonl` holds the summaries, and notebook 5 reads them again.
#
# ## The ledger so far
#
# What did the points cost? The table grows with every notebook. Zero-shot trains nothing, so its memory is that of generating. The checkpoint is saved
# in the number format of the products, without gradients and moments.
#
# **Predict:** the checkpoint's size in MB, from the number of parameters and 2 bytes (16-bit products) or 4 bytes (float32) each.

# %%
pd.DataFrame(comparison.ledger(runs.read_all(run_dir))).set_index("method")

# %% [markdown]
# ## Your own text
#
# Put a text of your own between the quotes, of the kind that the model was trained on. Later, in a terminal:
# `lab summarize --run runs/smollm2-everyday/full my_text.txt` (with your own run directory).
#
# With `publish_to = "owner/name"` in the parameters cell, the trained model is uploaded to the hub as a public repository when its test is over, with
# a card made from the record: base, data and its licence, settings, scores with their protocol. No document and no reference goes with it. The token
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
print(generation.summarize(base.model, base, [Example("mine", mine.strip(), ("",))]).predictions[0].prediction)

# %% [markdown]
# ## In this notebook we have
#
# - looked inside a training row: the summary and the end token are supervised, nothing else,
# - computed the loss by hand and confirmed `token_losses`,
# - predicted the memory at 16 bytes a parameter, and measured it,
# - written the training loop by hand, and seen why the base must be loaded anew and why weights stay in float32,
# - trained with the Trainer, read the loss curves, and compared the scores with zero-shot.
#
# **Questions**
#
# 1. What would the model learn if the prompt were supervised too? What if the end token were not?
# 2. A training log begins with a loss near `ln(vocabulary)`. What do you check first?
# 3. Which of the 16 bytes a parameter does a model need that only answers?
# 4. `micro_batch` goes from 4 to 1 while `batch_size` stays. What happens to the memory, and to the result?
# 5. The training loss falls and the validation loss rises. What do you do?
#
# **Next:** `03_lora` trains a few per cent of the parameters. Write down the peak memory and your guess for what remains of it.
