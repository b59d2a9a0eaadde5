# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. Zero-shot baseline
#
# How well does a language model summarize before we train it?
#
# | | |
# |---|---|
# | **You will** | read the data, measure its lengths, score a trivial baseline, compute ROUGE by hand, ask the untrained model for summaries, and score them |
# | **You will learn** | what ROUGE counts, why a number needs an interval, what a model really reads, and what few-shot examples change |
# | **You need** | Python and one trained model behind you; with the default recipe no GPU, no network, no token |
# | **Time** | about 2 minutes with the default recipe on 2 CPU cores without GPU |
#
# Words are explained in [GLOSSARY.md](GLOSSARY.md), failures in [TROUBLESHOOTING.md](TROUBLESHOOTING.md), sources in [READING.md](READING.md).
#
# The course has five notebooks. This one sets the mark. Notebooks 2 to 4 try to beat it with full fine-tuning, LoRA and QLoRA. Notebook 5 asks what
# each method really bought.

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

# %% [markdown]
# The lines above say where you are and in which number format matrix products usually run here. The reason matters: some GPUs accept `bfloat16` and
# only imitate it, slowly.
#
# **Parameters.** Every notebook has one such cell. `None` means: as the recipe says. A recipe is a YAML file in `lab_utils/recipes`. Your own data may
# be a folder or a single file; name its two columns where they have other names. Give all notebooks the same model and data, or their scores cannot be
# compared.

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
test_examples = None  # how many test documents
prompt_examples = 6  # validation documents on which prompts are tried
shots_tried = [0, 1, 3]  # worked examples in the prompts that are tried

# %%
from lab_utils import baselines, config, metrics, models, plots, runs
from lab_utils import data as corpora  # `data` is a parameter

settings = config.resolve(
    recipe, "zero_shot", seed, model=model, model_dir=model_dir, data=data, data_dir=data_dir, document_column=document_column,
    summary_column=summary_column, test_from=test_from, test_examples=test_examples,
)  # fmt: skip
corpus = corpora.load(settings.recipe.data)
run = runs.start(run_dir, settings)
print(settings.recipe.title)
print(f"{corpus.name} ({corpus.source}): {len(corpus.train):,} training, {len(corpus.validation):,} validation, {len(corpus.test):,} test documents")

# %%
for what, notes in {"recipe": settings.recipe.all_notes, "data": corpus.notes}.items():
    print(f"Notes on the {what}:", *(notes or ["none"]), sep="\n- ")

# %% [markdown]
# A recipe's notes say where it comes from, what was put right, and what its base has seen before. The data's notes say what was found in them. Two
# findings matter for every score. A document that stands in the training split and in the test split is a **leak**: the model was shown its summary.
# And a document with several references is **one** test item: counted once for each reference, it would pass for more evidence than it is.
#
# ## Look at the data
#
# Always read before you train. This document will stay with us through all five notebooks. Read it and write your own summary, in one or two
# sentences, on paper.

# %%
story = corpus.test[0]
print(story.document)

# %% [markdown]
# Here is what its writers made of it: the **references**. Some data sets have one for each document, some have several, by different writers. Compare them
# with yours: the facts, then the words.
#
# **Predict:** if we count shared words, how similar are two texts about one document? 100 would be the same words, 0 none in common.

# %%
for number, reference in enumerate(story.references, 1):
    print(f"{number}. {reference}\n")

# %% [markdown]
# ## ROUGE by hand
#
# ROUGE-1 counts shared words (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries").
#
# - **Precision:** which share of the summary's words are in the reference?
# - **Recall:** which share of the reference's words are in the summary?
# - **F1:** their harmonic mean. We write it from 0 to 100.
#
# A word counts as often as it occurs in both, so repeating a good word does not help.
#
# We score other texts about our document against its first reference: the document's own beginning, and the other references.

# %%
import re
from collections import Counter


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def rouge1_by_hand(summary, reference):
    mine, theirs = Counter(words(summary)), Counter(words(reference))
    shared = sum((mine & theirs).values())
    precision, recall = shared / mine.total(), shared / theirs.total()
    return 0.0 if shared == 0 else 100 * 2 * precision * recall / (precision + recall)


reference, *others = story.references
texts = {"the document's beginning": baselines.lead(story.document)} | {f"reference {i}": text for i, text in enumerate(others, 2)}
name, candidate = list(texts.items())[-1]
print(f"{name} against reference 1, ROUGE-1 by hand: {rouge1_by_hand(candidate, reference):.2f}")

# %% [markdown]
# Now the library. It should agree with us to the last digit, as long as it does not stem words.

# %%
from rouge_score.rouge_scorer import RougeScorer

library = RougeScorer(["rouge1"], use_stemmer=False).score(reference, candidate)["rouge1"].fmeasure * 100
print(f"by the library:  {library:.2f}")
assert abs(library - rouge1_by_hand(candidate, reference)) < 1e-9

# %% [markdown]
# Published numbers use **stemming**: "agrees" and "agreed" then count as one word. ROUGE-2 counts pairs of neighbouring words. ROUGE-L looks for the
# longest common sequence. `metrics.rouge` gives all of them, stemmed.
#
# Two good summaries of one document are usually far from 100. Keep that in mind when a model scores 40.

# %%
import pandas as pd

pairs = {f"{name} against reference 1": metrics.rouge(text, reference) for name, text in {"reference 1": reference, **texts}.items()}
pd.DataFrame(pairs).T.round(1)

# %% [markdown]
# ## How long are the texts?
#
# A model reads tokens, not words. Longer inputs cost time and memory, so every recipe sets two limits. Documents over the limit lose their end. That
# is counted and reported. A summary is never cut: a reference without its end would teach the wrong thing. Training leaves out the few that are too
# long, and says how many.
#
# Limits are read off **percentiles**. The 90th percentile is the length that nine of ten texts do not exceed. The longest text of all is a poor guide:
# one outlier would decide how much memory you need. One widely read recipe (Schmid 2023, "Efficient Large Language Model training with LoRA and Hugging
# Face") takes the 85th percentile of the documents and the 90th of the summaries.
#
# **Predict:** which share of the documents would lose their end at 256 tokens? And at the recipe's own limit?

# %%
base = models.load(settings)
print(f"{base.precision.name} products: {base.precision.reason}")
tokens = {
    "documents": [len(base.tokenizer(e.document, add_special_tokens=False)["input_ids"]) for e in corpus.train],
    "summaries": [len(base.tokenizer(e.summary, add_special_tokens=False)["input_ids"]) for e in corpus.train],
}
pd.DataFrame(tokens).quantile([0.5, 0.85, 0.9, 0.95, 1.0]).round().astype(int).rename_axis("percentile")

# %%
limits = {"documents": settings.recipe.lengths.document_tokens, "summaries": settings.recipe.lengths.summary_tokens}
for limit in (256, limits["documents"]):
    over = sum(n > limit for n in tokens["documents"]) / len(tokens["documents"])
    print(f"{over:.0%} of the training documents are longer than {limit} tokens.")
plots.lengths(tokens, limits).save(run.figures / "lengths.png")

# %% [markdown]
# ## The baseline that costs nothing
#
# **Lead-3** copies the beginning: the first three turns of a conversation, the first three sentences of an article. It knows nothing. Any model worth
# its electricity should beat it. On news that is hard, because articles say the main thing first (See et al. 2017, "Get To The Point").
#
# **Predict:** what ROUGE-1 will it get?

# %%
from types import SimpleNamespace


def scored(name_of_prediction):
    """Scores of one text per test document, whatever made it."""
    return metrics.score([SimpleNamespace(id=e.id, prediction=name_of_prediction(e), references=e.references) for e in corpus.test])


lead_rows = scored(lambda e: baselines.lead(e.document))
lead = metrics.summarize(lead_rows)["rouge1"]
print(f"lead-3: ROUGE-1 {lead['mean']:.1f}, 95% interval {lead['low']:.1f} to {lead['high']:.1f}, {len(lead_rows)} documents")
print(metrics.PROTOCOL)

# %% [markdown]
# **Why an interval?** We have some documents, not all the documents in the world. Another draw would give another mean. The interval comes from the
# **bootstrap**: draw as many documents again, with replacement, take the mean, repeat 10,000 times, keep the middle 95% of the means.
#
# A method that is "one point better" inside such an interval may be no better at all.

# %% [markdown]
# ## What the model reads
#
# A model summarizes best when it is asked in the form that it was trained on. Other forms work worse, and nothing warns you. A chat model has a **chat
# template** (`chat` below), which marks the turns with special tokens, often words in angle brackets. Other models read `plain` text: an instruction,
# the document, and perhaps a cue such as "Summary:".
#
# There are two families of models. A **decoder-only** model (`causal`) reads the prompt and writes the summary behind it, in one row of tokens. An
# **encoder-decoder** (`seq2seq`) has two rows: its encoder reads the prompt, called the **source**, and its decoder writes the summary, the **target**.
# The prompt is made in the same way for both.
#
# The text below is decoded from token ids, so it is exactly what the model gets. (Some tokenizers read line breaks as spaces.)

# %%
prompt = base.encoder.prompt_of(story.document)
print(f"{settings.recipe.model.label}: {base.parameters:,} parameters, {base.family}, {settings.recipe.prompt.style} prompt of {len(prompt)} tokens\n")
print(base.tokenizer.decode(prompt))

# %% [markdown]
# Two special tokens are worth knowing. Many models expect **BOS** (beginning of sequence) before everything else, once. Many chat templates write it
# themselves. If the tokenizer then adds it a second time, the model sees a form that it never saw in training. So we look at the first tokens and check
# that it does not stand there twice. Some models have no BOS, T5 for one, and some name one and do without it, such as Phi-2.
#
# **EOS** (end of sequence) is how a model says "I am done". Training will teach it when to say so.

# %%
print("the prompt begins:", base.tokenizer.convert_ids_to_tokens(prompt[:6]))
print("BOS:", base.tokenizer.bos_token or "none", "  EOS:", base.tokenizer.eos_token)
assert prompt[:2] != 2 * [base.tokenizer.bos_token_id]

# %% [markdown]
# ## Ask it
#
# Decoding is **greedy**: always the most probable next token. It is not the prettiest choice. It is the same every time, and that is what a
# comparison needs.
#
# **Predict:** will a model of this size get the names right? The main point?

# %%
from lab_utils import generation

first_try = generation.summarize(base.model, base, [story])
print(first_try.predictions[0].prediction)
print("\nended by itself:", first_try.predictions[0].stopped)

# %% [markdown]
# ## Does it help to show examples?
#
# **One-shot** puts a worked example before the question; **few-shot** puts several. It costs no training, but every example is read again for every
# summary. With long documents the prompt may grow past the longest text that the model was trained on, and then answers fall apart.
#
# We try this on *validation* documents. Choosing a prompt on the test set would be peeking.
#
# **Predict:** which number of examples wins? Which ends its answers most reliably?

# %%
tried, asked = {}, corpus.validation[:prompt_examples]
for shots in shots_tried:
    result = generation.summarize(base.model, base, asked, shots=corpus.train[:shots])
    r1 = metrics.summarize(metrics.score(result.predictions))["rouge1"]
    words_each = sum(len(p.prediction.split()) for p in result.predictions) / len(result.predictions)
    tried[f"{shots} examples"] = {
        "longest prompt, tokens": max(len(base.encoder.prompt_of(e.document, corpus.train[:shots])) for e in asked),
        "ROUGE-1": f"{r1['mean']:.1f} [{r1['low']:.1f}, {r1['high']:.1f}]",
        "words": round(words_each),
        "ended by itself": f"{result.describe()['stopped_share']:.0%}",
        "seconds": round(result.seconds, 1),
    }
pd.DataFrame(tried).T

# %% [markdown]
# Look at the intervals before you pick a winner: with so few documents they are wide. Look at the tokens and seconds too.
#
# The course goes on with zero examples. Every method will get that same prompt. Otherwise we could not tell what training did from what the prompt did.

# %% [markdown]
# ## The baseline on the test set
#
# Now the real measurement, on every test document. It is written to a **record**, `run.json`, with the settings, the versions, the scores and their
# protocol. The summaries go to `predictions.jsonl`. Notebook 5 reads both.

# %%
from lab_utils import methods

run.add(data=corpus.describe(), model=base.describe())
scores = methods.evaluate(base.model, base, corpus, run)
print(metrics.PROTOCOL)
pd.DataFrame({name: scores[name] for name in metrics.ROUGE}).T.round(1)

# %% [markdown]
# Is that what one should expect here? The lab keeps the records behind its README. The 95% interval of a recorded mean is the **band** in which your
# mean should lie, if you changed nothing.

# %%
from lab_utils import expected

print(expected.sentence(run.record))

# %% [markdown]
# The same table as a picture, with lines to judge it by. Three of them copy: **lead-3** the beginning, **longest-3** the
# longest turns, **whole document** everything. Where documents have several references there is also **one
# reference against the others**: what a careful writer gets when scored by other writers. No system should be expected to pass that by much.

# %%
from lab_utils import comparison

finished = [runs.read(run_dir, "zero_shot")]
systems = comparison.lines(finished, {e.id: e.document for e in corpus.test})
rows = {s.name: metrics.summarize(s.rows)["rouge1"] for s in systems}
plots.intervals({name: (i["mean"], i["low"], i["high"]) for name, i in rows.items()}, "ROUGE-1").save(run.figures / "baseline.png")

# %%
for sentence in comparison.findings(systems):
    print(sentence)

# %% [markdown]
# ## What goes wrong?
#
# A mean hides how a model fails. Read the worst and the best summary.

# %%
predictions = {p.id: p for p in finished[0].predictions}
ranked = sorted(metrics.score(finished[0].predictions), key=lambda row: row["rouge1"])
for name, row in [("worst", ranked[0]), ("best", ranked[-1])]:
    p = predictions[row["id"]]
    print(f"{name}, ROUGE-1 {row['rouge1']:.1f}\n  model:     {p.prediction}\n  reference: {p.references[0]}\n")

# %%
generated = runs.read(run_dir, "zero_shot").record["generation"]
lengths = [len(p.prediction.split()) for p in predictions.values()]
wanted = [len(e.summary.split()) for e in corpus.test]
print(f"{generated['stopped_share']:.0%} of the answers ended by themselves; the rest ran into max_new_tokens.")
print(f"Answers have {sum(lengths) / len(lengths):.0f} words on average, first references {sum(wanted) / len(wanted):.0f}.")

# %% [markdown]
# ## In this notebook we have
#
# - read the data and set the length limits from its percentiles,
# - computed ROUGE-1 by hand and confirmed it with the library,
# - scored lead-3, with an interval,
# - looked at what the model reads and tried zero, one and a few examples,
# - recorded the zero-shot baseline that every method must beat.
#
# **Questions**
#
# 1. A summary repeats one correct name twenty times. What happens to its precision, what to its recall?
# 2. Why is each document one item, even where it has several references?
# 3. Why were prompts tried on validation documents?
# 4. Lead-3 copies the text. Why is its recall not 100?
# 5. Which would you trust more: 36.0 with an interval of 30 to 42, or 34.0 with 33 to 35?
#
# **Next:** `02_full_fine_tuning` changes all the weights. Write down the baseline's ROUGE-1 and your guess for the gain.
