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
# | **Time** | about a minute, and a lesson if you rate summaries with your class |

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
rated_documents = 5  # how many documents it shows

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
comparison.lines(finished[:1])  # stops here, with the reason, where no run has finished
print("finished:", ", ".join(run.method for run in finished))

# %% [markdown]
# ## May these runs be compared?
#
# Only if they answered the same question: same base model, test set, prompt and length limits. (Decoding is greedy in every run.) Each record carries a
# **fingerprint**, a hash, of its base and of its test set. `runs.unlike` lists what differs; an empty list means: go on. It does not ask whether the methods saw
# equally many documents or were tuned with equal care. That stands in the records, and the report shows it.
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
# A record claims a score. The predictions beside it must give the same score again. If they do not, one of the two files was changed, or scored by another
# protocol. `Rouge` is this lab's measure in the form of `evaluate`, Hugging Face's library of metrics. The ROUGE that `evaluate` itself downloads has no
# stemmer by default, and returns a median of random resamples, so the same summaries can get slightly different numbers.

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
methods = [s for s in systems if s.run]
pd.DataFrame(comparison.table(systems)).fillna("").set_index("system")

# %% [markdown]
# ## What the protocol does
#
# A ROUGE number depends on choices that have nothing to do with the model. The **stemmer** cuts endings off: "pays" and "paying"
# both become "pay". With several **references** you may take the mean, the best, or just the first. **ROUGE-Lsum** is ROUGE-L sentence by sentence: a
# sentence of the reference may find its words in any sentence of the summary. If the text is not split into sentences, it is ROUGE-L.
#
# We score the *same* summaries six times. **Predict:** which choice moves a number furthest from its "this lab" column?

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


scored = {label: {s.name: mean_score(s.run, *choice) for s in methods} for label, choice in choices.items()}
pd.DataFrame(scored).round(1)

# %% [markdown]
# No model changed. With one reference a document, the three ways to use references agree. Never compare two numbers whose protocols you do not know.
#
# ## An interval by hand
#
# Draw as many documents as there are, with replacement. Take the mean. Do it 10,000 times. The middle 95% of these means is the interval. It says how
# much the mean would move with another draw of documents.
#
# We do it for the last method of the table. **Predict:** how close will it come to the interval there? What would change with 100 draws in place of 10,000?

# %%
values = np.array(methods[-1].values("rouge1"))
rng = np.random.default_rng(seed)
means = [rng.choice(values, len(values)).mean() for _ in range(10_000)]
low, high = np.percentile(means, [2.5, 97.5])
print(f"by hand: {values.mean():.1f} [{low:.1f}, {high:.1f}], {high - low:.1f} points wide, n = {len(values)}")
print("library:", significance.bootstrap(values, seed))

# %% [markdown]
# The two agree up to the luck of the draw. How many documents would make the interval narrow? We draw test sets of other sizes from ours; sizes above ours
# look ahead, as if our documents stood for all.
#
# **Predict:** what do four times as many documents do to the width?

# %%
sizes = [5, 20, 80, 320]
halves = significance.half_widths(values, sizes, seed)
said = ", ".join(f"{half:.1f} points at {size}" for size, half in zip(sizes, halves, strict=True))
print(said)
curve = {methods[-1].name: (sizes, halves)}
plots.lines(curve, "test documents", "plus or minus, points", f"Half of the 95% interval, by test documents: {said}.")

# %% [markdown]
# ## Pair by pair
#
# Where two intervals overlap, is there no difference? We cannot say yet. Some documents are hard for every method and some easy. That spread is in both
# intervals, and much of it cancels when we subtract **on the same document** first.
#
# We take the two methods whose means lie closest. **Predict:** is the interval of their difference wider or narrower than those of the two scores?

# %%
def gap(pair):
    return abs(np.mean(pair[0].values("rouge1")) - np.mean(pair[1].values("rouge1")))


earlier, later = min(combinations(methods, 2), key=gap, default=(methods[0], methods[0]))
if later is earlier:
    print("One method alone: the pair below is that method with itself.")
ours, theirs = later.values("rouge1"), earlier.values("rouge1")
gaps = np.array(ours) - np.array(theirs)
one, two = significance.bootstrap(ours, seed), significance.bootstrap(theirs, seed)
together = significance.paired_difference(ours, theirs, seed)
print(f"{later.name} {one}, {earlier.name} {two}")
print(f"{later.name} minus {earlier.name}: {together}, higher on {np.mean(gaps > 0):.0%} of the documents")
wide, also_wide, narrow = (i.high - i.low for i in (one, two, together))
print(f"widths: {wide:.1f} and {also_wide:.1f} alone, {narrow:.1f} for the difference of pairs")
print(f"{np.hypot(wide, also_wide):.1f} for the difference, had each method summarized other documents")

# %% [markdown]
# ## A test by hand
#
# Suppose it made no difference which method wrote which summary. Then we could swap the two names on any document, and its gap would change its **sign**.
# So flip signs at random, many times, and count how often the mean gap is at least as far from zero as ours. That share is the **p value** of a permutation
# test. (Our own result counts as one of the flips: hence the +1.) **Predict:** is it below 0.05 for our two methods?

# %%
flips = rng.choice([-1, 1], size=(10_000, len(gaps)))
as_large = np.abs((flips * gaps).mean(axis=1)) >= abs(gaps.mean()) - 1e-12
print(f"by hand: {(as_large.sum() + 1) / (len(flips) + 1):.4f}")
print(f"library: {significance.permutation_test(ours, theirs, seed):.4f}")

# %% [markdown]
# Four methods make six pairs. Imagine four equal methods in many classes: if each class tests all six pairs at 5%, about one class in five finds a
# "difference" somewhere. **Holm's correction** raises the p values so that the chance of even one such false alarm in the whole table is at most 5%.
#
# Win/tie/loss counts the documents on which the first-named method scores higher, equal, lower. "Detectable" turns the question round: how large, in points,
# must a true difference be for these documents to show it four times in five?

# %%
pairs = comparison.differences(systems)


def row(d):
    p_values = [comparison.p_text(p) for p in (d.p, d.p_holm)]
    return [d.interval.signed(), f"{d.wins}/{d.ties}/{d.losses}", *p_values, d.detectable and f"{d.detectable:.1f}"]


columns = ["difference", "win/tie/loss", "p", "p, Holm", "detectable"]
pd.DataFrame({d.name: row(d) for d in pairs}, index=columns).T if pairs else "One method alone has no pairs."

# %% [markdown]
# Filled and blue: detected, by corrected test and interval. Hollow and grey: **no detectable difference**. That is a result too. It does not say that two
# methods are equal: every difference inside the interval remains possible. An interval may even leave zero out while its point is hollow, because the test
# is corrected for many pairs and the interval is not.

# %%
forest = {d.name: (d.interval.mean, d.interval.low, d.interval.high) for d in pairs}
detected = [d.name for d in pairs if d.detected]
plots.intervals(forest, "difference in ROUGE-1 points", True, detected) if forest else "One method alone has no pairs."

# %% [markdown]
# ## What a few documents would have said
#
# Some tutorials compare methods on the first ten test rows. We can replay that: draw `few` of our documents at random, with replacement, rank the
# methods, and repeat. Then the same with `many`. **Predict:** how many different rankings will the small draws give? Will the large ones agree on one?
#
# Careful: the replay takes the differences in our documents for the true ones. It shows how often a small test set would have misled us about *them*.
# Whether there is a difference at all is what the test above asked.

# %%
names, matrix = [s.name for s in methods], np.array([s.values("rouge1") for s in methods])


def rankings(size, draws=2000):
    means = matrix[:, rng.integers(0, matrix.shape[1], (draws, size))].mean(axis=2)
    orders = [" > ".join(names[i] for i in order) for order in np.argsort(-means, axis=0).T]
    return pd.Series(orders).value_counts(normalize=True)


print("all documents:", " > ".join(names[i] for i in np.argsort(-matrix.mean(axis=1))))
table = pd.DataFrame({f"{size} documents": rankings(size) for size in (few, many)}).fillna(0)
table.sort_values(list(table), ascending=False).style.format("{:.1%}")

# %% [markdown]
# ## Measures beside ROUGE
#
# ROUGE rewards two things at once: *how* summaries look here (length, tense, how people are named) and *what* they say. Other measures take these
# apart. Coverage and density tell how much is copied, novel bigrams how much is not. Name precision asks whether the summary's names stand in the document,
# number precision whether its numbers do. The first seven rows are about manner, the last three about matter. A mean leaves out documents that a row does not
# apply to, such as summaries without a number.
#
# **Predict:** in which rows do trained models come closer to the references (last column, where there is one)?

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
# A summary can share most words with its reference and still be false. Simple rules can point at suspects: one that is empty, cut off by the length limit
# ("unstopped") or caught in a loop ("repeats"); a number or a name that stands neither in the document nor in a reference; two speakers who seem to have
# changed places. They are **hints**. Each needs a reader, and a summary without a flag may be wrong all the same.
#
# **Predict:** which kinds will training remove, and which not?

# %%
examples = {e.id: e for e in corpus.test}
flagged = {
    s.name: [(p, flag) for p in s.run.predictions for flag in analysis.flags(p, examples[p.id])] for s in methods
}
kinds = {name: [flag.kind for _, flag in found] for name, found in flagged.items()}
display(pd.DataFrame({name: {kind: found.count(kind) for kind in analysis.KINDS} for name, found in kinds.items()}))
for p, flag in flagged[methods[-1].name][:4]:
    print(f"{p.id}, {flag.kind}: {flag.detail}\n    {p.prediction}")

# %% [markdown]
# ## Where in the document does a summary look?
#
# For every turn we ask how much of the summary rests on it: which of its words and word pairs come from there. Here is the document on which the last
# method scores best, with a bar per turn. This shows where words come from, not what the model attended to; a paraphrase leaves no trace. And is every
# statement in this best summary true?

# %%
chosen = examples[methods[-1].run.predictions[analysis.best(methods[-1], 1)[0]].id]
answer = next(p.prediction for p in methods[-1].run.predictions if p.id == chosen.id)
for share, turn in zip(analysis.leaning(answer, chosen.document), texts.units(chosen.document), strict=True):
    print(f"{'#' * round(20 * share):10.10} {turn}")
print(f"\n{methods[-1].name}: {answer}\nreference: {chosen.summary}")

# %% [markdown]
# Does a model find the important part when it comes **late**? The references show where it stands: we look up which turns they rest on. Then we sort the
# **test set** into two halves, documents whose important part comes early and documents where it comes late, and score each. The halves hold different
# documents, so something else, such as their length, may cause a difference.
#
# The bars show on which third of a document summaries rest. **Predict:** where does the untrained model look most? Does training bring the bars nearer
# to those of the references?

# %%
for sentence in analysis.late_sentences(systems, corpus.test):
    print("-", sentence)
thirds = ["first third", "middle third", "last third"]
plots.grouped(analysis.profile(systems, corpus.test), thirds, "share of what a summary rests on")

# %% [markdown]
# ## Read the worst, and where they disagree
#
# First each method's worst summary, by ROUGE-1. Is it a bad summary? Then the document with the widest spread of scores. Check the facts: who, what, when, how
# much. Would you rank the answers as ROUGE does?

# %%
for s in methods:
    worst = analysis.worst(s, 1)[0]
    print(f"worst of {s.name}, {s.rows[worst]['rouge1']:.1f}: {s.run.predictions[worst].prediction or '(empty)'}\n")
index = analysis.disagreements(systems, 1)[0]
story = examples[methods[0].rows[index]["id"]]
print(f"{story.document}\n")
for s in methods:
    print(f"{s.name:18} {s.rows[index]['rouge1']:5.1f}  {s.run.predictions[index].prediction}")
print(f"{'a reference':18}        {story.summary}")

# %% [markdown]
# ## What it cost
#
# Quality is half of the answer. The other half is memory, time and what you must store. Compare costs only between runs on one machine; on a CPU the peak
# is that of the whole program. **Predict:** which method needs the most memory in training?

# %%
costs = {}
for s in methods:
    if "training" in s.run.record:
        i = significance.bootstrap(s.values("rouge1"))
        costs[s.run.method] = (s.run.record["training"]["peak_memory_gb"], i.mean, i.low, i.high)
plots.cost_and_quality(costs, "peak memory in training, GB", "ROUGE-1") if costs else "No trained method yet."

# %% [markdown]
# ## Ask people
#
# In the end a summary is for a reader. Put your name into `rater` in the parameters cell and run this cell. For each document you mark every summary
# from 1 to 5 for fluency, faithfulness, coverage (here: does it tell what matters?) and conciseness, and name its worst error. Then you choose the better one of
# two. Nobody tells you who wrote what; one of them is a reference. Each answer is saved at once.
#
# A class must rate **one and the same run directory**: copy it to everyone, and collect everyone's file in its folder `ratings`. Four methods and five
# documents are 30 items, a lesson.

# %%
rating_form.form(run_dir, rater, documents, rated_documents)

# %%
people = rating.results(run_dir, systems)
print("\n".join(people["findings"]) if people else "Nobody has rated these summaries yet.")

# %% [markdown]
# ## Findings
#
# These sentences are computed from the records. They speak of **these trained models** on documents of this kind. Train again with another seed and you get
# other models: that spread is in no interval here. Before you write "LoRA is worse than full fine-tuning", train both with several seeds.

# %%
for sentence in comparison.findings(systems):
    print("-", sentence)
print("\nprotocol:", metrics.PROTOCOL)
page = report.write(run_dir, corpus.test)
print(f"Scores, pairs, costs and all summaries on one page that opens without a network: {page.name} in {run_dir}")

# %%
from lab_utils import expected

for run in finished:  # each beside the 95% interval of the lab's own recorded run
    print(f"{plots.METHOD_NAMES[run.method]}, {expected.sentence(run.record)}")

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
# 2. "No detectable difference": how many documents would you need to detect a difference of two points? (Use the column "detectable" and the square root.)
# 3. A paper reports 47 ROUGE-1, you get 41 with the same model. Name three protocol differences that could explain it.
# 4. Which of your findings would you expect to change with another seed?
# 5. Which method would you use with 8 GB of memory and ten tasks to serve, and why?
#
# **Next:** change one thing in a recipe, predict what happens, and run it again: `make run-all P="rank=4"`.
