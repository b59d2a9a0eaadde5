# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5. Evaluation
#
# What did each method really buy, and how sure may we be?
#
# | | |
# |---|---|
# | **You will** | read the records of notebooks 1 to 4, recompute their scores, compare the methods pair by pair, look for errors that no score shows, rate summaries blind, and write a report |
# | **You will learn** | when runs may be compared, what a protocol does to a number, what intervals and tests can and cannot say, how few examples mislead |
# | **You need** | finished records in the run directory; nothing is trained here |
# | **Time** | about a minute, and an hour if you rate summaries with your class |

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
recipe = "smollm2-everyday"
run_dir = "runs/smollm2-everyday"
seed = 0  # of the resampling
data = None  # this and the next five as in the notebooks before: they give the documents
data_dir = None
document_column = None
summary_column = None
test_from = None
test_examples = None
few = 10  # how many documents a hasty evaluation would use
many = 100  # and a better one
rater = ""  # your name opens the rating form near the end
rated_documents = 20  # how many documents it shows

# %%
from itertools import combinations

import numpy as np
import pandas as pd
from IPython.display import display

from lab_utils import analysis, comparison, companions, config, metrics, plots, rating, rating_form
from lab_utils import report, runs, significance, texts
from lab_utils import data as corpora  # `data` is a parameter

settings = config.resolve(
    recipe, "zero_shot", seed, data=data, data_dir=data_dir, document_column=document_column,
    summary_column=summary_column, test_from=test_from, test_examples=test_examples,
)  # fmt: skip
corpus = corpora.load(settings.recipe.data)
documents = {e.id: e.document for e in corpus.test}
finished = runs.read_all(run_dir)
comparison.lines(finished[:1])  # says so where there is nothing yet
print("finished:", ", ".join(run.method for run in finished))

# %% [markdown]
# ## May these runs be compared?
#
# Only if everything but the method is the same: the base model, the test set, the prompt, the decoding. Each record carries a **fingerprint** of its
# base and of its test set. `runs.unlike` lists every difference. An empty list means: go on.
#
# Then we pretend that the last run used another prompt. **Predict** what the check says.

# %%
import copy
from dataclasses import replace

print("differences:", runs.unlike(finished))
fingerprints = {r.method: [r.record[part]["fingerprint"] for part in ("model", "data")] for r in finished}
display(pd.DataFrame(fingerprints, index=["base", "test set"]).T)
other = replace(finished[-1], method="imposter", record=copy.deepcopy(finished[-1].record))
other.record["config"]["recipe"]["prompt"]["instruction"] = "Write a haiku about this text."
try:
    comparison.lines([finished[0], other])
except Exception as refusal:
    print(refusal)

# %% [markdown]
# ## Recompute before you believe
#
# A record claims a score. The predictions beside it must give the same score again. If they do not, somebody changed one of them. `Rouge` is this lab's
# measure as an `evaluate` metric; the one that `evaluate` downloads has no stemmer by default and returns the median of random draws.

# %%
from lab_utils.rouge import Rouge

for run in finished:
    predictions, references = zip(*[(p.prediction, list(p.references)) for p in run.predictions], strict=True)
    again = Rouge().compute(predictions=predictions, references=references)["rouge1"]
    recorded = run.record["metrics"]["rouge1"]["mean"]
    print(f"{run.method:10} ROUGE-1 recorded {recorded:.4f}, recomputed {again:.4f}")
    assert abs(again - recorded) < 1e-9
print("\nprotocol:", metrics.PROTOCOL)

# %% [markdown]
# ## The table
#
# Every score has its 95% interval, every run its costs. The lines without costs help you to read it. Three of them **copy**: the beginning (lead-3), the
# longest turns, the whole document. **One reference against the others** scores a writer with the other writers' summaries; it exists where documents
# have several references.
#
# **Predict:** does every method beat plain copying?

# %%
systems = comparison.lines(finished, documents)
trained = [s for s in systems if s.run]
pd.DataFrame(comparison.table(systems)).fillna("").set_index("system")

# %% [markdown]
# ## What the protocol does
#
# A ROUGE number depends on choices that have nothing to do with the model. The **stemmer** makes "paid" and "pays" less different. With several
# **references** you may take the mean, the best, or just the first. **Sentences** matter for ROUGE-Lsum alone: split, each finds its match anywhere.
#
# We score the *same* summaries six times. **Predict:** which choice moves the number most?

# %%
Protocol = metrics.RougeProtocol
choices = {
    "ROUGE-1, this lab": ("rouge1", Protocol()),
    "no stemmer": ("rouge1", Protocol(stemmer=False)),
    "first reference": ("rouge1", Protocol(references="first")),
    "best reference": ("rouge1", Protocol(references="best")),
    "ROUGE-Lsum, this lab": ("rougeLsum", Protocol()),
    "Lsum, sentences not split": ("rougeLsum", Protocol(sentences="none")),
}


def mean_score(run, measure, protocol):
    return np.mean([row[measure] for row in metrics.score(run.predictions, protocol=protocol)])


scored = {label: {s.name: mean_score(s.run, *choice) for s in trained} for label, choice in choices.items()}
pd.DataFrame(scored).round(1)

# %% [markdown]
# No model changed. With one reference a document, the three ways to use references agree. Never compare two numbers whose protocols you do not know.
#
# ## An interval by hand
#
# Draw as many documents as there are, with replacement. Take the mean. Do it 10,000 times. The middle 95% of these means is the interval. It says how
# much the mean would move with another draw of documents.
#
# **Predict:** how wide is it, in points?

# %%
values = np.array(trained[-1].values("rouge1"))
rng = np.random.default_rng(seed)
means = [rng.choice(values, len(values)).mean() for _ in range(10_000)]
low, high = np.percentile(means, [2.5, 97.5])
print(f"by hand: {values.mean():.1f} [{low:.1f}, {high:.1f}], {high - low:.1f} points wide, n = {len(values)}")
print("library:", significance.bootstrap(values, seed))

# %% [markdown]
# The two agree up to the luck of the draw. How many documents would make it narrow? We draw test sets of many sizes from ours.
#
# **Predict:** what do four times as many documents do to the width?

# %%
sizes = [5, 10, 20, 50, 100, 200, 500]
halves = significance.half_widths(values, sizes, seed)
said = ", ".join(f"{half:.1f} points at {size}" for size, half in zip(sizes, halves, strict=True))
curve = {trained[-1].name: (sizes, halves)}
plots.lines(curve, "test documents", "plus or minus, points", f"Half of the 95% interval, by test documents: {said}.")

# %% [markdown]
# ## Pair by pair
#
# Some intervals overlap. Does that mean there is no difference? Not yet. Some documents are hard for every method and some easy. That spread is in both
# intervals, and it cancels when we subtract **on the same document** first.
#
# We take the two methods whose means lie closest. **Predict:** is the interval of their difference wider or narrower than those of the two scores?

# %%
def gap(pair):
    return abs(np.mean(pair[0].values("rouge1")) - np.mean(pair[1].values("rouge1")))


earlier, later = min(combinations(trained, 2), key=gap, default=(trained[0], trained[0]))
ours, theirs = later.values("rouge1"), earlier.values("rouge1")
gaps = np.array(ours) - np.array(theirs)
one, two = significance.bootstrap(ours, seed), significance.bootstrap(theirs, seed)
together = significance.paired_difference(ours, theirs, seed)
print(f"{later.name} {one}, {earlier.name} {two}")
print(f"{later.name} minus {earlier.name}: {together}, higher on {np.mean(gaps > 0):.0%} of the documents")
apart = np.hypot(one.high - one.low, two.high - two.low)
print(f"width {apart:.1f} if the documents were not the same, {together.high - together.low:.1f} as pairs")

# %% [markdown]
# ## A test by hand
#
# Suppose the two methods were equally good. Then it would be chance which of them got which score on a document, and every gap could as well have the
# other **sign**. So flip signs at random, many times, and count how often the mean gap comes out as large as ours. That share is the **p value** of a
# permutation test. **Predict:** is it below 0.05 for our two methods?

# %%
flips = rng.choice([-1, 1], size=(10_000, len(gaps)))
as_large = np.abs((flips * gaps).mean(axis=1)) >= abs(gaps.mean()) - 1e-12
print(f"by hand: {(as_large.sum() + 1) / (len(flips) + 1):.4f}")
print(f"library: {significance.permutation_test(ours, theirs, seed):.4f}")

# %% [markdown]
# Four methods make six pairs. Test all six at 5%, and in about one class of five, equal methods will seem to differ somewhere. **Holm's correction**
# raises the p values so that a false alarm *anywhere* in the table stays below 5%.
#
# The last column turns the question round: how large must a true difference be for these documents to show it four times in five?

# %%
pairs = comparison.differences(systems)
columns = ["difference", "win/tie/loss", "p", "p, Holm", "detectable"]
rows = {d.name: [str(d.interval), f"{d.wins}/{d.ties}/{d.losses}", d.p, d.p_holm, d.detectable] for d in pairs}
pd.DataFrame(rows, index=columns).T if rows else "One method alone has no pairs."

# %% [markdown]
# Filled and blue: detected, by corrected test and interval. Hollow and grey: **no detectable difference**. That is a result too. It does not say that two
# methods are equal: a difference smaller than the last column could hide there.

# %%
forest = {d.name: (d.interval.mean, d.interval.low, d.interval.high) for d in pairs}
detected = [d.name for d in pairs if d.detected]
plots.intervals(forest, "difference in ROUGE-1 points", True, detected) if forest else "One method alone has no pairs."

# %% [markdown]
# ## What a few documents would have said
#
# Many tutorials compare methods on the first ten test rows. We can replay that: draw ten documents, rank the methods, repeat. Then draw a hundred, with
# replacement, since our test set may be smaller.
#
# **Predict:** how many different rankings will come out?

# %%
names, matrix = [s.name for s in trained], np.array([s.values("rouge1") for s in trained])


def rankings(size, draws=2000):
    means = matrix[:, rng.integers(0, matrix.shape[1], (draws, size))].mean(axis=2)
    orders = [" > ".join(names[i] for i in order) for order in np.argsort(-means, axis=0).T]
    return pd.Series(orders).value_counts(normalize=True)


print("all documents:", " > ".join(names[i] for i in np.argsort(-matrix.mean(axis=1))))
table = pd.DataFrame({f"{size} documents": rankings(size) for size in (few, many)}).fillna(0)
table.sort_values(list(table), ascending=False).style.format("{:.1%}")

# %% [markdown]
# ## Beside ROUGE
#
# ROUGE rewards two things at once: *how* summaries look here (length, tense, how people are named) and *what* they say. Other measures take these
# apart. Coverage and density tell how much is copied, novel bigrams how much is not. Name and number precision ask whether the summary's names and
# numbers stand in the document.
#
# **Predict:** which rows did training move most: those of manner, or those of matter?

# %%
shown = ["words", "length_ratio", "unstopped", "repetition", "coverage", "density", "novel_bigrams",
         "name_precision", "number_precision", "speaker_recall"]  # fmt: skip
beside = [s for s in systems if s.run or s.name in ("lead-3", comparison.HUMAN)]
means = {s.name: {key: np.mean(s.values(key)) if s.values(key) else None for key in shown} for s in beside}
display(pd.DataFrame(means).rename(companions.LABELS).round(2))
meanings = pd.DataFrame({"can and cannot tell": {companions.LABELS[key]: companions.MEANINGS[key] for key in shown}})
meanings.style.set_properties(**{"text-align": "left"})

# %% [markdown]
# ## Errors that a score does not show
#
# A summary can share most words with its reference and still be false. Simple rules can point at suspects: a number or a name that stands nowhere, or
# two speakers who seem to have changed places. They are **hints**. Each needs a reader, and a summary without a flag may be wrong all the same.

# %%
examples = {e.id: e for e in corpus.test}
flagged = {
    s.name: [(p, flag) for p in s.run.predictions for flag in analysis.flags(p, examples[p.id])] for s in trained
}
kinds = {name: [flag.kind for _, flag in found] for name, found in flagged.items()}
display(pd.DataFrame({name: {kind: found.count(kind) for kind in analysis.KINDS} for name, found in kinds.items()}))
for p, flag in flagged[trained[-1].name][:4]:
    print(f"{p.id}, {flag.kind}: {flag.detail}\n    {p.prediction}")

# %% [markdown]
# ## Where in the document does a summary look?
#
# For every turn we ask how much of the summary rests on it: which of its words and word pairs come from there. Here is the document on which the last
# method scores best, with a bar per turn.

# %%
chosen = examples[trained[-1].run.predictions[analysis.best(trained[-1], 1)[0]].id]
answer = next(p.prediction for p in trained[-1].run.predictions if p.id == chosen.id)
for share, turn in zip(analysis.leaning(answer, chosen.document), texts.units(chosen.document), strict=True):
    print(f"{'#' * round(30 * share):12.12} {turn}")
print(f"\n{trained[-1].name}: {answer}\nreference: {chosen.summary}")

# %% [markdown]
# Does a model find the important part when it comes **late**? We let the references say where it stands, halve the documents there, and score both halves.
# The bars show on which third of a document summaries rest. **Predict:** which bars of a trained model resemble those of the references?

# %%
for sentence in analysis.late_sentences(systems, corpus.test):
    print("-", sentence)
thirds = ["first third", "middle third", "last third"]
plots.grouped(analysis.profile(systems, corpus.test), thirds, "share of what a summary rests on")

# %% [markdown]
# ## Read where they disagree
#
# The document with the widest spread of scores is the one to read. Check the facts: who, what, when, how much. Would you rank the answers as ROUGE does?

# %%
index = analysis.disagreements(systems, 1)[0]
story = examples[trained[0].rows[index]["id"]]
print(f"{story.document}\n")
for s in trained:
    print(f"{s.name:18} {s.rows[index]['rouge1']:5.1f}  {s.run.predictions[index].prediction}")
print(f"{'a reference':18}        {story.summary}")

# %% [markdown]
# ## What it cost
#
# Quality is half of the answer. The other half is memory, time and what you must store. **Predict:** which method needs the most memory in training?

# %%
costs = {}
for s in trained:
    if "training" in s.run.record:
        i = significance.bootstrap(s.values("rouge1"))
        costs[s.run.method] = (s.run.record["training"]["peak_memory_gb"], i.mean, i.low, i.high)
plots.cost_and_quality(costs, "peak memory in training, GB", "ROUGE-1") if costs else "No trained method yet."

# %% [markdown]
# ## Ask people
#
# In the end a summary is for a reader. Put your name into `rater` in the parameters cell and run this cell: the form shows summaries in random order, without
# saying who wrote them. One of them is a reference. Your answers go into a file in the run directory after each click, so you can stop and go on later. Copy the files of
# your class into one folder, and the next cell shows how well you agree.

# %%
rating_form.form(run_dir, rater, documents, rated_documents)

# %%
people = rating.results(run_dir, systems)
print("\n".join(people["findings"]) if people else "Nobody has rated these summaries yet.")

# %% [markdown]
# ## Findings
#
# These sentences are computed from the records. They say no more than the tests allow.

# %%
for sentence in comparison.findings(systems):
    print("-", sentence)
print("\nprotocol:", metrics.PROTOCOL)
page = report.write(run_dir, corpus.test)
print(f"All this on one page that opens without a network: {page.name} in {run_dir}")

# %% [markdown]
# ## In this notebook we have
#
# - checked that the runs may be compared, and recomputed every score,
# - seen what stemmer, references and sentence split do to a number,
# - put an interval on a mean and a p value on a difference, by hand,
# - corrected for many pairs, and asked what our documents can detect at all,
# - looked for wrong names, numbers and speakers, and for what comes late,
# - set quality beside cost, and prepared a blind rating.
#
# **Questions**
#
# 1. Two intervals overlap. Why may the paired difference still be clear?
# 2. "No detectable difference": how many documents would you need to detect one of two points?
# 3. A paper reports 47 ROUGE-1, you get 41 with the same model. Name three protocol differences that could explain it.
# 4. Which of your findings would you expect to change with another seed?
# 5. Which method would you use with 8 GB of memory and ten tasks to serve, and why?
#
# **Next:** change one thing in a recipe, predict what happens, and run it again: `make run-all P="rank=4"`.
