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
# In notebook 1 we asked the model as it was published. Now we show it good summaries and change **all** of its weights: **full fine-tuning**.
#
# | | |
# |---|---|
# | **You will** | write a training row, its loss and the learning-rate schedule yourself, predict memory and steps, break five things on purpose, then train with the Trainer and score the result |
# | **You will learn** | what is supervised and why the end token is, where the memory goes, why weights are kept in float32, how to read loss curves, and the symptoms of usual mistakes |
# | **You need** | notebook 1 if possible, for the score to beat; with the default recipe no GPU, no network, no token |
# | **Time** | about 90 minutes of yours; about 3 minutes of computing with the default recipe on 2 CPU cores without GPU |
#
# Six cells are **exercises**. Replace each `...` by your answer and run the cell. A check says passed, almost (with a hint that grows), or not
# attempted. Where an answer is missing, the notebook goes on with the lab's own.
#
# In the parameters cell `None` means: as the recipe says. The last three values only change the side experiments. Where a recipe's model is too large
# for full fine-tuning, the notebook stops with one sentence that says so, and how much memory it would take.

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
seed = 0  # decides every random draw
model = None  # another model: a hub id
model_dir = None  # a folder with another model
data = None  # other data: a hub id
data_dir = None  # a folder (train, validation, test files) or one CSV, JSONL or Parquet file
document_column = None  # of your documents; None: document, dialogue, article or text
summary_column = None  # of your summaries; None: references, summary1, summary or highlights
test_from = None  # "validation" where the data has no test split
train_examples = None  # how many training documents
validation_examples = None  # how many validation documents
test_examples = None  # how many test documents
data_seed = None  # which documents are drawn, where fewer are used than there are
learning_rate = None  # how far one step moves the weights
epochs = None  # how often each training document is seen
batch_size = None  # examples for one change of the weights
micro_batch = None  # examples in memory at one time
publish_to = None  # "owner/name": upload the result to the hub
hand_steps = 3  # steps of the loop that we write by hand
check_examples = 4  # short documents for the small checks, at least 2
short_limit = 40  # a document limit, in tokens, small enough to see what is cut
assignment = None  # its name, if this is one: kept in the record
student = None  # your id, if you hand this in: kept in the record

# %%
from lab_utils import check, comparison, config, generation, memory, methods
from lab_utils import metrics, models, plots, progress, runs, significance, training
from lab_utils import data as corpora  # `data` is a parameter

settings = config.resolve(
    recipe, "full", seed, model=model, model_dir=model_dir, data=data, data_dir=data_dir,
    document_column=document_column, summary_column=summary_column, test_from=test_from,
    train_examples=train_examples, validation_examples=validation_examples, data_seed=data_seed,
    test_examples=test_examples, learning_rate=learning_rate, epochs=epochs,
    batch_size=batch_size, micro_batch=micro_batch, publish_to=publish_to,
)  # fmt: skip
corpus = corpora.load(settings.recipe.data)
run = runs.start(run_dir, settings, assignment, student)  # from here on this run is recorded
check.note_in(run_dir)  # what the exercises say is kept beside the records
mark = None  # notebook 1's record: the score to beat
if runs.status_of(run_dir, "zero_shot") == "finished":
    mark = runs.read(run_dir, "zero_shot")
print(settings.recipe.title)

# %% [markdown]
# ## Where we are
#
# One document, the **story**, goes with us through all five notebooks. So does a table, the **ledger**: what each method cost and what it scored. Here
# is the story with the untrained model's summary, and the ledger's first row: the score to beat.
#
# **Predict:** what will be different in the summary after training? Write one sentence down. You will need it near the end.

# %%
import pandas as pd

story = corpus.test[0]
print(story.document, "\n\nReference:", story.references[0])
if mark:
    print("Zero-shot:", *[p.prediction for p in mark.predictions if p.id == story.id])
rows = pd.DataFrame(comparison.ledger([mark] if mark else []))
rows.set_index("method") if mark else "No score to beat: no finished record of notebook 01."

# %%
with memory.Peak() as idle:  # what this process holds before there is a model; we need it later
    pass
base, chosen = models.load(settings), settings.training
short = sorted(corpus.train, key=lambda e: len(e.document))  # for quick experiments
print(f"{base.parameters:,} parameters")
print(f"{base.precision.name} products: {base.precision.reason}")
print(f"{len(corpus.train):,} documents to train on, {len(corpus.validation):,} to validate")
print(chosen)  # as the recipe or the parameters cell says

# %% [markdown]
# ## What a training row is
#
# A row is a **prompt**, the same as in notebook 1, followed by the **answer** we want and the **end token** (EOS), with which the model says that it is
# done. Rows of a batch have one length, so shorter ones are filled up with the **pad token**.
#
# Every token has a **label**. A token that the model should learn to write is **supervised**: its label is the token itself. Everywhere else the label
# is `IGNORED` (-100), which the loss skips. So the labels decide three things:
#
# - The prompt is ignored. We teach the model to write summaries, not to write documents.
# - The answer is supervised, **and the end token after it**.
# - The padding is ignored. In many models the pad token *is* the end token.

# %% [markdown]
# ### Exercise 2.1 (build): Write a training row with its labels
#
# Given: `prompt` and `answer`, two lists of token ids without end token; `end` and `pad`, two token ids, which may be equal; `length`, which is never
# too short. Return two lists of that length: `input_ids`, what the model reads, padded on the right, and `labels`, one for each token of `input_ids`.
#
# **Predict:** a script masks (sets to -100) every label that equals the pad token. In which rows does that go wrong?


# %%
def mask_labels(prompt, answer, end, pad, length):
    # BEGIN SOLUTION
    padding = length - len(prompt) - len(answer) - 1
    input_ids = [*prompt, *answer, end] + [pad] * padding
    labels = [-100] * len(prompt) + [*answer, end] + [-100] * padding
    return input_ids, labels
    # END SOLUTION


masked_row = check.mask_labels(mask_labels)
masked_row

# %% [markdown] tags=["instructor"]
# **Instructor, 2.1** (10 minutes). Look for masking by position. A solution that compares tokens with `pad` fails only where pad and end are equal, or
# where the answer holds that id; ask which models that is (Llama 2, TinyLlama and Phi-2 as they are usually set up). Common misunderstanding: that labels
# must be shifted by the user. In transformers the model's loss shifts them.

# %% [markdown]
# That script hides the end token wherever the pad token is the end token, and an answer's own tokens wherever they have that id. So mask by position.
#
# Now your function on a real row, with six tokens of padding. Its labels must be those of the lab's `Encoder`, which builds the rows for training. An
# encoder-decoder reads prompt and answer apart: its encoder reads the prompt, the **source**, which has no labels; its decoder's row has no prompt.
#
# `answer` ends with the end token, which your function adds itself, so it gets `answer[:-1]`. The second cell draws the row, each token in a block.
#
# **Predict:** what share of the tokens is supervised, and which token is the last supervised one?

# %%
from lab_utils.batching import IGNORED
from lab_utils.prompts import answer_ids

example, tokenizer, causal = short[0], base.tokenizer, base.family == "causal"
prompt = base.encoder.prompt_of(example.document)
answer = answer_ids(tokenizer, settings.recipe.prompt, example.summary)
before = prompt if causal else []  # what the labels must skip
end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
made = masked_row.best(before, answer[:-1], end, pad, len(before) + len(answer) + 6)
ids, labels = (list(map(int, part)) for part in made)
assert labels == base.encoder(example)["labels"] + [IGNORED] * 6
print("The summary:", example.summary)

# %%
source = [] if causal else prompt
kinds = ["source"] * len(source) + ["prompt"] * len(before)
kinds += ["answer"] * (len(answer) - 1) + ["end token"] + ["padding"] * 6
supervised = [False] * len(source) + [label != IGNORED for label in labels]
tokens = [tokenizer.decode([token]) for token in source + ids]
plots.mask(tokens, kinds, supervised).save(run.figures / "row.png")

# %% [markdown]
# The strip shows the whole row to scale. Of long parts the middle is left out. Blue is supervised: exactly the summary, and after it the end token.
# That last label is as important as the words, as a broken model will soon show.
#
# ## The loss of a row
#
# At every position the model gives a score to each token of the vocabulary: how well it would go on as the **next** one. These scores are called
# **logits**. So the logits at position t belong to the label at t + 1.
#
# `log_softmax` turns logits into logarithms of probabilities. The loss of a position is minus the logarithm of the probability of the right token.
# Probability 1 costs 0, one half costs 0.69, one in a hundred costs 4.6. The loss of a batch is the mean over all its supervised tokens, whichever row
# they stand in. This is called **cross-entropy**.

# %% [markdown]
# ### Exercise 2.2 (build): Write the loss of a decoder
#
# Given: `logits`, a float tensor (rows, length, vocabulary), and `labels`, an integer tensor (rows, length) with -100 where nothing is supervised.
# Return the mean loss as one number, in nats (natural logarithm). `torch.nn.functional.cross_entropy` would do it in one line; do it without.
#
# **Predict:** two rows have 10 and 30 supervised tokens. Is the mean of the rows' means the same number?

# %%
import torch


def mean_loss(logits, labels):
    # BEGIN SOLUTION
    logits, targets = logits[:, :-1], labels[:, 1:]
    supervised = targets != -100
    # one row per supervised token, one column per token of the vocabulary
    log_probabilities = logits[supervised].log_softmax(-1)
    right = log_probabilities.gather(1, targets[supervised].unsqueeze(1))
    return -right.mean()
    # END SOLUTION


written_loss = check.mean_loss(mean_loss)
written_loss

# %% [markdown] tags=["instructor"]
# **Instructor, 2.2** (15 minutes). Look for the shift, for a mask before `gather` (an index of -100 is an error), and for one division at the end. A
# solution with `softmax` and then `log` passes small scores and fails large ones. Common misunderstanding: that each row counts the same. Here each token
# does, so long summaries weigh more.

# %% [markdown]
# The mean of the rows' means is another number: in it, a token of the row with 10 counts three times as much as one of the row with 30.
#
# Now your loss on the model's own logits, for a batch of short documents, which the **collator** pads. `training.token_losses`, which the training
# below uses, computes logits only where they are needed. A decoder beside an encoder reads its labels already shifted by a start token, so there we put
# an ignored label in front.
#
# **Predict:** how long are the rows of the batch? Will the two losses be the same? Is either of them near 0?


# %%
def batch_of(examples, encoder):
    """Padded tensors of these examples, on the model's device."""
    padded = base.collator([encoder(example) for example in examples])
    return {name: tensor.to(base.model.device) for name, tensor in padded.items()}


batch = batch_of(short[: check_examples // 2], base.encoder)
print({name: tuple(tensor.shape) for name, tensor in batch.items()})

# %%
labels = batch["labels"].cpu()
inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
with torch.no_grad():
    logits = base.model(**inputs).logits.float().cpu()
    total, count = training.token_losses(base.model, batch)
if not causal:
    labels = torch.nn.functional.pad(labels, (1, 0), value=IGNORED)
    logits = torch.nn.functional.pad(logits, (0, 0, 0, 1))
by_hand = torch.as_tensor(written_loss.best(logits, labels)).float()
print(f"by hand:      {by_hand:.4f}")
print(f"token_losses: {total / count:.4f} over {count} supervised tokens")
assert torch.isclose(by_hand, (total / count).cpu(), atol=1e-3)
del logits  # large, and memory will be measured

# %% [markdown]
# All rows are as long as the longest, and the two losses are the same. Only the memory differs: logits for every position and every token of the
# vocabulary are often the largest tensor of a training step.
#
# **Predict:** what has the model read last when it must write the first word of the summary? And when it must write the end token?

# %%
reads = batch.get("decoder_input_ids", batch["input_ids"])[0].tolist()
expects = batch["labels"][0].tolist()
if causal:
    expects = expects[1:]  # the label at t + 1 belongs to what is read at t
pairs = [pair for pair in zip(reads, expects, strict=False) if pair[1] != IGNORED]
shown = pd.DataFrame(pairs[:4] + pairs[-2:], columns=["reads last", "must predict"])
shown.map(lambda token: repr(tokenizer.decode([token])))

# %% [markdown]
# The first prediction is made at the last token of the prompt, or, in an encoder-decoder, at a start token that stands before the answer. The last
# prediction is the end token, made after the last word or mark of the summary.
#
# **Perplexity** is exp(loss). A perplexity of 10 means: the model hesitates as if between 10 equally likely tokens.
#
# **Predict:** a model that knows nothing gives every token of the vocabulary the same probability. What is its perplexity? And that of our base?

# %%
vocabulary = base.model.config.vocab_size
uniform = torch.nn.functional.cross_entropy(torch.zeros(1, vocabulary), torch.tensor([0]))
print(f"The vocabulary has {vocabulary:,} tokens.")
print(f"knows nothing: loss {uniform:.2f}, perplexity {uniform.exp():,.0f}")
print(f"our base:      loss {by_hand:.2f}, perplexity {by_hand.exp():.3g}")

# %% [markdown]
# Knowing nothing means a perplexity equal to the vocabulary size. A pretrained model is far below; random weights are near it, or above where they are
# wrong with confidence. So if a training log begins at `ln(vocabulary)` or higher, check whether the weights were loaded.
#
# ## What is cut when a text is too long
#
# Many scripts cut a row at its end: the end token first, then the answer. We cut only the document. `small` below is the same encoder with
# `short_limit` as its limit.
#
# **Predict:** with a limit of a few dozen tokens, what is left of a prompt, and of its answer?

# %%
from dataclasses import replace

example = corpus.train[0]
limits = settings.recipe.lengths.model_copy(update={"document_tokens": short_limit})
small = replace(base.encoder, lengths=limits)
answer = [label for label in small(example)["labels"] if label != IGNORED]
print(tokenizer.decode(small.prompt_of(example.document)))
print("\nANSWER:", tokenizer.decode(answer).strip())
assert answer == answer_ids(tokenizer, settings.recipe.prompt, example.summary)
cut = sum(base.encoder.is_cut(e.document) for e in corpus.train)
print(f"\nAt the recipe's own limit, {cut} training documents lose their end.")

# %% [markdown]
# The document stops at the limit. The words after it, the answer and the end token are untouched.
#
# ## How much memory will it take?
#
# For every trained parameter the machine holds float32 numbers of 4 bytes each:
#
# - the **weight**,
# - its **gradient**,
# - what the optimizer **Adam** keeps, the **moments**: a running mean of the gradient and one of its square.

# %% [markdown]
# ### Exercise 2.3 (recall): Predict the memory of full fine-tuning
#
# How many GB (1e9 bytes) is that for this model, before a single token is read? Give `expected_gb`, a number or a formula. The number of parameters was
# printed where the model was loaded, and is `base.parameters`.
#
# **Predict:** which of the parts is the largest?

# %%
# BEGIN SOLUTION
expected_gb = 16 * base.parameters / 1e9
# END SOLUTION
check.memory_gb(expected_gb, parameters=base.parameters)

# %% [markdown]
# The lab's own count, by part. Full fine-tuning trains all parameters.
#
# **Predict:** by the same count, how many GB would a model with 7 billion parameters take?

# %%
trainable = models.trainable_parameters(base.model)
plan = memory.ledger(base.parameters, trainable)
parts = {"weights": plan.weights, "gradients": plan.gradients, "moments": plan.optimizer}
print(f"{trainable:,} of {base.parameters:,} parameters are trained: {plan.total:.3f} GB")
print(f"7 billion parameters: {memory.ledger(7_000_000_000, 7_000_000_000).total:.0f} GB")
plots.stacked({"predicted": parts}).save(run.figures / "memory_predicted.png")

# %% [markdown]
# That is 16 bytes a parameter, and half of them belong to the optimizer. Notebooks 3 and 4 will shrink the bar.
#
# ## The training loop by hand
#
# Training repeats five things: compute the loss, compute the gradients, take a step, forget the gradients, look. `AdamW` is Adam with weight decay
# kept apart from the gradient (Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization"); `fused` only makes it faster. `autocast` runs the
# matrix products in the number format named where the model was loaded.
#
# To be quick we take `micro_batch` short documents, cut to `short_limit`, and use the same ones at every step.
#
# **Predict:** what will the loss do?

# %%
original = models.fingerprint(base.model)  # explained below
batch = batch_of(short[: chosen.micro_batch], small)
rate, decay = chosen.learning_rate, chosen.weight_decay
optimizer = torch.optim.AdamW(base.model.parameters(), rate, weight_decay=decay, fused=True)
base.model.train()
for step in range(1, hand_steps + 1):
    with base.precision.autocast(base.model.device.type):
        total, count = training.token_losses(base.model, batch)
    loss = total / count
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step} of {hand_steps}: loss {loss.item():.3f}")
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
# ## Break it: mistakes that give no error message
#
# Fine-tuning that goes wrong rarely stops with an error. It runs to its end, and the result is bad. We make some usual mistakes on purpose, to know
# them by their **symptoms**. Most of them happen to copies of a small model with random weights, so our own stays as it is. The small model can learn a
# few rows by heart, and that is enough to see.
#
# `trained_copy` is the loop from above. It returns a trained copy and the loss of every step.

# %%
import copy

tiny = models.load(config.resolve("tiny-causal", "full", seed, max_new_tokens=80))
everyday = sorted(corpora.load(tiny.settings.recipe.data).train, key=lambda e: len(e.document))
examples, others = everyday[:check_examples], everyday[-check_examples:]


# %%
def tiny_batch(some):
    """Padded tensors of these examples for the small model."""
    padded = tiny.collator([tiny.encoder(example) for example in some])
    return {name: tensor.to(tiny.model.device) for name, tensor in padded.items()}


def loss_of(network, batch):
    total, count = training.token_losses(network, batch)
    return total / count


# %%
def trained_copy(batch, rate, steps=40, dtype=torch.float32):
    network = copy.deepcopy(tiny.model).to(dtype).train()
    adam = torch.optim.AdamW(network.parameters(), rate)
    reported = []
    for _ in progress.through(range(steps), "steps"):
        loss = loss_of(network, batch)
        loss.backward()
        adam.step()
        adam.zero_grad()
        reported.append(loss.item())
    return network.eval(), reported


# %% [markdown]
# ### Break it: no -100 on the prompt
#
# Two copies learn the same rows. For the second one every token is supervised, the prompt too. Then both are scored on rows that they have not seen: by
# the loss with their own labels, which they report, and by the loss of the answers alone.
#
# **Predict:** which copy reports the lower loss on new rows? Which has learnt the answers better?

# %%
def without_mask(batch):
    """The batch with every token supervised, all but the padding."""
    padding = batch["attention_mask"] == 0
    return batch | {"labels": batch["input_ids"].masked_fill(padding, IGNORED)}


learnt, unseen = tiny_batch(examples), tiny_batch(others)
bare, bare_unseen = without_mask(learnt), without_mask(unseen)
table = []
for name, own, new in (("answer only", learnt, unseen), ("no mask", bare, bare_unseen)):
    network, _ = trained_copy(own, 3e-3)
    share = (own["labels"] != IGNORED).sum() / own["attention_mask"].sum()
    with torch.no_grad():
        losses = [loss_of(network, batch).item() for batch in (new, unseen, learnt)]
    table.append([name, f"{share:.0%}", *losses])
columns = ["copy", "supervised", "new: reports", "new: answers", "learnt: answers"]
pd.DataFrame(table, columns=columns).set_index("copy").round(2)

# %% [markdown]
# The second copy reports mostly the loss of prompts, whose fixed words come again in every row and are quickly learnt. That says little about the
# answers, and in as many steps the answers were learnt less well. (On new answers neither copy is better than a model that knows nothing: they learn
# by heart.)
#
# **Symptom:** a loss that looks healthier than that of others, and summaries that are worse than it suggests. Print the share of supervised tokens
# before you train: for long documents and short summaries it must be small.
#
# ### Break it: the end token is not supervised
#
# The usual way to this mistake: the pad token is set to the end token, and then every label that is the pad token is masked. Two copies learn one row
# by heart, the second one with its end token masked.
#
# **Predict:** how does each summary end?

# %%
one = [min(examples, key=lambda e: len(e.summary))]
right = tiny_batch(one)
is_end = right["labels"] == tiny.tokenizer.eos_token_id
no_end = right | {"labels": right["labels"].masked_fill(is_end, IGNORED)}
print("learnt:", one[0].summary)
for name, batch in (("with end", right), ("without", no_end)):
    network, _ = trained_copy(batch, 5e-3, steps=60)
    # say: takes each line of progress, and here prints none
    p = generation.summarize(network, tiny, one, say=lambda line: None).predictions[0]
    ended = "ended by itself" if p.stopped else "cut off"
    print(f"\n{name}, {p.tokens} tokens, {ended}: {p.prediction}")

# %% [markdown]
# **Symptom:** it never stops. The summary is there, and then the model repeats itself or rambles until `max_new_tokens` cuts it off. The share of
# answers that ended by themselves (notebook 1 printed it) is near 0. The loss shows nothing, since the one label that matters is not in it.
#
# ## Why weights are kept in float32
#
# **bfloat16** has the range of float32, but only 8 significant bits instead of 24. Between 1 and 2 its numbers are 0.0078 apart. Adam moves a weight in
# its first step by about the learning rate, which is far less.
#
# **Predict:** we add 0.00003 a thousand times to a weight of 1.0. Where does it end in float32? In bfloat16?

# %%
for dtype in (torch.float32, torch.bfloat16):
    weight = torch.tensor(1.0, dtype=dtype)
    for _ in range(1000):
        weight += 3e-5
    print(f"{str(dtype):15} ends at {weight.item():.4f}")

# %% [markdown]
# In bfloat16 every single addition is rounded away, and a thousand times nothing is nothing. Smaller weights have closer neighbours, so for them a
# smaller step is enough. The next cell takes a weight of middle size from our model and tries two steps on it, a large one and a tiny one.
#
# **Predict:** does either step move it?

# %%
weights = base.model.get_input_embeddings().weight.detach()
middle = weights.abs().flatten()[:1_000_000].median().item()  # half of the weights are smaller


def moves(weight, rate):
    """Whether a bfloat16 weight is another number after one step of this size."""
    stored = torch.tensor(weight, dtype=torch.bfloat16)
    return bool(stored + rate != stored)


print(f"A weight of middle size: {middle:.4g}")
print("Does 0.01 move it?", moves(middle, 0.01))
print("Does 1e-8 move it?", moves(middle, 1e-8))

# %% [markdown]
# ### Exercise 2.4 (explore): Find the smallest learning rate that still moves a bfloat16 weight
#
# Call `moves(middle, rate)` with rates of your choice, by hand or in a loop. Give as `smallest` the smallest rate that moves the weight, to within ten
# per cent. Then try weights of other sizes: what share of the weight is the smallest rate, roughly?
#
# **Predict:** is the smallest rate above or below this recipe's learning rate?

# %%
# BEGIN SOLUTION
smallest = next(rate for rate in (1e-10 * 1.05**k for k in range(1000)) if moves(middle, rate))
# END SOLUTION
check.smallest_moving_rate(smallest, weight=middle)

# %% [markdown] tags=["instructor"]
# **Instructor, 2.4** (10 minutes). Look for a search that narrows down (powers of ten, then halving), and for the finding: the smallest rate is a fixed
# share of the weight, between 1/512 and 1/256, because the gap between neighbours grows with the number. Common misunderstanding: that small numbers
# themselves cannot be stored. bfloat16 stores 1e-30 well; what it cannot do is *add* it to something much larger.

# %% [markdown]
# Where the smallest rate is above the recipe's learning rate, a step of that size would be lost on this weight. So the trained weights stay in float32,
# the **master weights**, and only the matrix products may run in 16 bits (Micikevicius et al. 2018, "Mixed Precision Training").
#
# ### Break it: everything in bfloat16
#
# First our model's embedding weights, all at once: what share would not move by this recipe's learning rate? Then the small model, trained with a low
# learning rate, once with float32 weights, once with bfloat16 weights. The second is what you get from loading a model with `dtype=torch.bfloat16` and
# training it.
#
# **Predict:** what share of the small model's bfloat16 weights never moves? Does its loss fall as far as with float32 weights?

# %%
rate, stored = chosen.learning_rate, weights.bfloat16()
unmoved = (stored + rate == stored).float().mean()
print(f"{unmoved:.0%} of the embedding weights would not move by {rate:g} in bfloat16.")
del weights, stored
batch = tiny_batch(examples)
for dtype in (torch.float32, torch.bfloat16):
    network, reported = trained_copy(batch, 2e-5, dtype=dtype)
    still = 0
    for new, old in zip(network.parameters(), tiny.model.parameters(), strict=True):
        still += (new == old.to(dtype)).sum().item()
    print(f"\n{dtype}: {still / tiny.parameters:.0%} of the weights never moved")
    print(f"loss {reported[0]:.3f} to {reported[-1]:.3f}")

# %% [markdown]
# **Symptom:** with bfloat16 weights the loss falls more slowly or not at all, at a rate that works for others, and most weights are the same after
# training as before. A higher rate seems to help, which hides the cause.
#
# ## Gradient accumulation changes nothing
#
# If a batch does not fit into memory, read it in parts, add up the gradients, and divide once by the number of supervised tokens of the *whole* batch.
#
# We look at the gradient of the embeddings, since every layer's gradient passes through it.
#
# **Predict:** is the gradient of all rows at once the same as that of two halves? And if we average the two halves' own means?

# %%
def gradient_of_sum(examples):
    """Gradient of the summed loss for the embeddings, and the token count."""
    total, count = training.token_losses(base.model, batch_of(examples, small))
    embeddings = base.model.get_input_embeddings().weight
    return torch.autograd.grad(total, embeddings)[0], count


checked = short[:check_examples]
half = len(checked) // 2
wanted = progress.through([checked, checked[:half], checked[half:]], "gradients")
(whole, n), (first, n1), (second, n2) = map(gradient_of_sum, wanted)
at_once = whole / n
of_sum = ((first + second) / n - at_once).norm() / at_once.norm()
of_means = ((first / n1 + second / n2) / 2 - at_once).norm() / at_once.norm()
print(f"two halves, their sum divided by all {n} tokens: off by {of_sum:.4%}")
print(f"two halves, mean of the means over {n1} and {n2}:   off by {of_means:.1%}")
assert of_sum < 1e-3
del whole, first, second, at_once  # large, and memory will be measured

# %% [markdown]
# The sum divided by all tokens is equal, up to rounding. The mean of two means is not: a token counts for more if it stands in the half with fewer
# tokens. Our Trainer divides by all tokens.
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
# How many **optimizer steps** there are, and how far each one goes, you can say in advance. The next two exercises do.

# %% [markdown]
# ### Exercise 2.5 (recall): Predict the number of optimizer steps
#
# Compute `expected_steps`, a whole number, from `len(corpus.train)`, the number of documents, `chosen.epochs`, which may be a fraction, and
# `chosen.batch_size`. (`chosen` was printed where the model was loaded.) The last batch of an epoch may be smaller than the others, and is a step too.
# Where `epochs` gives no whole number of steps, it is rounded up.
#
# **Predict:** does `micro_batch` change the number?

# %%
import math

# BEGIN SOLUTION
expected_steps = math.ceil(chosen.epochs * math.ceil(len(corpus.train) / chosen.batch_size))
# END SOLUTION
check.optimizer_steps(
    expected_steps, documents=len(corpus.train), epochs=chosen.epochs,
    batch_size=chosen.batch_size, micro_batch=chosen.micro_batch,
)  # fmt: skip

# %% [markdown]
# ### Exercise 2.6 (build): Write the learning-rate schedule
#
# At first Adam's moments rest on few gradients, and a large step may go anywhere. So the rate starts at 0, rises in a straight line to `peak` while
# `warmup` steps are done, and falls in a straight line to 0, which it reaches when all `steps` are done.
#
# Given: three whole numbers, `done` (finished steps), `steps` and `warmup` (may be 0), and `peak`. Return the rate of the next step, and 0 where `done`
# is larger than `steps`.
#
# **Predict:** how large is the very first step?


# %%
def learning_rate_schedule(done, steps, warmup, peak):
    # BEGIN SOLUTION
    if done < warmup:
        return peak * done / warmup
    return peak * max(0, steps - done) / max(1, steps - warmup)
    # END SOLUTION


schedule = check.learning_rate_schedule(learning_rate_schedule)
schedule

# %% [markdown] tags=["instructor"]
# **Instructor, 2.6** (10 minutes). Look for the two lines that meet at the peak, for `warmup = 0` without a division by zero, and for an end that is not
# below 0. Common misunderstanding: that the decay is counted from the first step, which makes the rate drop where warm-up ends.

# %% [markdown]
# Now the training. The first line of the log names the steps, the later ones the validation loss.
#
# **Predict:** will the validation loss fall, and by how much?

# %%
untrained = generation.summarize(base.model, base, [story]).predictions[0]  # kept for later
run.add(data=corpus.describe(), model=base.describe())
history = methods.train(base.model, base, corpus, run)

# %% [markdown]
# The log holds the rate of every step. We draw it beside the rates of your function. (A recipe may ask for another schedule than the linear one; then
# the two differ.)
#
# **Predict:** where is the highest point?

# %%
warmup = math.ceil(chosen.warmup * history.steps)
logged = [row for row in history.log if row.get("learning_rate") is not None]
numbers = [row["step"] for row in logged]
rates = [row["learning_rate"] for row in logged]
by_hand = []
for step in numbers:
    rate = schedule.best(step - 1, history.steps, warmup, chosen.learning_rate)
    by_hand.append(float(rate))
curves = {"by hand": (numbers, by_hand), f"log ({chosen.schedule})": (numbers, rates)}
told = f"Learning rates, by hand up to {max(by_hand):.2g}, in the log up to {max(rates):.2g}."
plots.lines(curves, "step", "learning rate", told)

# %% [markdown]
# With warm-up the very first step has a rate of 0 and changes nothing; the log shows it, and so does the function. The highest point is where warm-up
# ends. Were there as many steps as you predicted? `micro_batch` made no difference to them.
#
# ## Was the memory as predicted?
#
# The three predicted parts must be in the measured peak. So must everything else that lives in memory at the same time:
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
# The peak is larger, because the prediction counts only weights, gradients and moments. For a very small model on a CPU, Python and its libraries, some
# loaded only for training, are nearly everything. For a large model the prediction tells you whether training is possible at all.
#
# ## Read the loss curves
#
# The thin line jumps: every step sees other documents, and some are harder. The thick line is its running mean, `plots.smoothed`. The points do not
# jump: they are always the same validation documents.
#
# **Predict:** what would the two curves look like if the model learnt its training documents by heart?

# %%
validated = [row for row in history.log if row.get("validation_loss") is not None]
for row in validated:
    loss = row["validation_loss"]
    perplexity = math.exp(loss)
    print(f"after step {row['step']}: validation loss {loss:.3f}, perplexity {perplexity:.3g}")
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
# Loss is not quality. We summarize all test documents and read the story first. Take out the sentence that you wrote at the top. ("Before" may part
# from the summary shown there: the story was one of a batch then and is asked alone here, so rounding differs.)
#
# **Predict:** what will have changed more, the facts or the manner?

# %%
scores = methods.evaluate(base.model, base, corpus, run)
ours = runs.read(run_dir, "full")
for name, p in [("before", untrained), ("after", ours.predictions[0])]:
    ended = "ended by itself" if p.stopped else "cut off"
    print(f"{name}, {p.tokens} tokens, {ended}:\n{p.prediction}\n")
print("reference:", story.references[0])

# %% [markdown]
# Compare length and manner with the reference. Then check every name and fact against the document: sounding right and being right are two things.
#
# ## The test scores
#
# Did training help? Comparing two separate intervals is a weak test. Both methods summarized the *same* documents, so we take the difference document
# by document and resample those differences. What makes a document hard for both then cancels out.
#
# **Predict:** how many points of ROUGE-1 did training bring, and does the interval of the difference exclude 0?

# %%
reasons = ["notebook 01 has no finished record in this run_dir"]
if mark:
    reasons = runs.unlike([mark, ours])
if reasons:
    print("No comparison with zero-shot:", "; ".join(reasons) + ".")
else:
    rouge_ours = [row["rouge1"] for row in metrics.score(ours.predictions)]
    rouge_mark = [row["rouge1"] for row in metrics.score(mark.predictions)]
    gap = significance.paired_difference(rouge_ours, rouge_mark)
    print(f"full fine-tuning minus zero-shot: {gap.mean:+.1f} points of ROUGE-1")
    print(f"95% interval: {gap.low:+.1f} to {gap.high:+.1f}")
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
# ### Break it: another prompt than in training
#
# The prompt of training and that of the test must be the same, to the letter. Many published notebooks write it twice, and differently. We measure the
# loss of the same validation answers after the trained prompt, and after another that says the same in other words and without a chat template. Nothing
# is trained here.
#
# **Predict:** will the loss of the same answers rise? More or less than training lowered it?

# %%
instruction = "Instruct: Write a summary of the text below."
other = config.Prompt(style="plain", instruction=instruction, cue="Output:")
changed = settings.recipe.model_copy(update={"prompt": other})
mismatched = replace(base, settings=settings.model_copy(update={"recipe": changed}))
asked = sorted(corpus.validation, key=lambda e: len(e.document))[:check_examples]
for name, reader in (("trained prompt", base), ("another prompt", mismatched)):
    loss = training.validation_loss(base.model, reader, asked)
    print(f"{name}: loss {loss:.3f} on the same {len(asked)} answers")

# %% [markdown]
# Compare the rise with the fall of the validation loss in training: another prompt can cost much of what training brought.
#
# **Symptom:** the validation loss of training is good, the test summaries are worse than it promised, and often in the manner of the untrained model.
# The cure is one function that writes the prompt for both, here `prompts.prompt_text`.
#
# ### Break it: dropout left on
#
# Some models drop a share of their activations at random while they train, so that they do not lean on few of them (Srivastava et al. 2014, "Dropout").
# `model.train()` switches that on, `model.eval()` off, and transformers' Trainer leaves a model in training mode. A copy of the small model learns a
# few rows. Then we give its attention a dropout of 0.5, larger than usual, and score those rows three times in each
# mode.
#
# **Predict:** in which mode are the three losses not the same?

# %%
batch = tiny_batch(examples)
dropping, _ = trained_copy(batch, 3e-3)
for layer in dropping.model.layers:
    layer.self_attn.attention_dropout = 0.5
for mode, switch in (("train():", dropping.train), ("eval(): ", dropping.eval)):
    switch()
    with torch.no_grad():
        print(mode, *[f"{loss_of(dropping, batch):.6f}" for _ in range(3)])

# %% [markdown]
# **Symptom:** the same model, the same rows, and another score each time, if only in the last digits; or a fine-tuned model that does a little worse
# than its own log. Look at `model.training`. Our `summarize` and `validation_loss` call `eval()` themselves and restore the mode.
#
# ## The ledger so far
#
# What did the points cost? The table that began with one row grows with every notebook. Compare the new row with the one that you predicted at the end
# of notebook 1. Zero-shot trains nothing, so its memory is that of generating. The checkpoint is saved in the number format of the products, without
# gradients and moments.
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
texts = [Example("mine", mine.strip(), ("",))]
print(generation.summarize(base.model, base, texts).predictions[0].prediction)

# %% [markdown] tags=["solution"]
# ### Answers to the questions at the end
#
# <details><summary>Show the answers</summary>
#
# 1. The summary's tokens and the end token. Not the prompt, and not the padding.
# 2. It writes until `max_new_tokens` cuts it off. The end token was never a label, so it never learnt to stop.
# 3. The weight only: 4 bytes in float32, 2 in a 16-bit format. Gradients and moments exist for training.
# 4. The activations shrink to about a quarter; weights, gradients and moments stay. The result is the same up to rounding, as long as the loss is
#    divided by the tokens of the whole batch.
# 5. Its step is smaller than half the distance to the neighbouring bfloat16 number, so every sum is rounded back. float32 weights would move.
# 6. The weights: a loss at or above `ln(vocabulary)` is that of a model that knows nothing. Were they loaded, and by the right names? Then the labels: is
#    each row's label the token itself, shifted once and not twice? Then the prompt: is it the one that the model was trained to read?
# 7. It looks like overfitting. Stop where the validation loss was lowest, or train for fewer epochs; a lower rate or more data if there are any. With
#    few validation documents the turn may be chance: look at more of them, and at the scores, before you decide.
#
# </details>

# %% [markdown]
# ## In this notebook we have
#
# - written a training row: the summary and the end token are supervised, nothing else,
# - written the loss and confirmed `token_losses`,
# - predicted the memory and the steps, and measured them,
# - written the training loop and the schedule of its rate, and seen why the base must be loaded anew and why weights stay in float32,
# - made five usual mistakes and seen their symptoms,
# - trained with the Trainer, read the loss curves, and compared the scores with zero-shot.
#
# The story has its second summary, and the ledger its second row.
#
# **Questions**
#
# To recall:
#
# 1. Which tokens of a training row are supervised?
# 2. The end token's label is -100 in every row. What does the model do at the test?
# 3. Which of the 16 bytes a parameter does a model need that only answers?
# 4. `micro_batch` goes from 4 to 1 while `batch_size` stays. What happens to the memory, and to the result?
# 5. A bfloat16 weight gets a thousand small steps and does not move. Why?
#
# To discuss:
#
# 6. A training log begins with a loss near `ln(vocabulary)`. What do you check, and in which order?
# 7. The training loss falls and the validation loss, of 16 documents, rises at its last point. What do you do?
#
# **Next:** `03_lora` trains a small share of the parameters, a few per cent or less. Write down the peak memory and your guess for what remains of it.
