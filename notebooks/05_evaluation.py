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
# | **You will** | read the records of notebooks 1 to 4, recompute their scores, put intervals on them, compare the methods pair by pair, and write a report |
# | **You will learn** | when runs may be compared, why paired comparisons are sharper, how few examples mislead, and how the protocol moves a score |
# | **You need** | finished records in the run directory; nothing is trained here |
# | **Time** | less than a minute |

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
data = None  # this and the next four as in the notebooks before: they give the documents
data_dir = None
document_column = None
summary_column = None
test_from = None
test_examples = None
few = 10  # how many documents a hasty evaluation would use

# %%
import numpy as np
import pandas as pd

from lab_utils import comparison, config, metrics, plots, report, runs, significance
from lab_utils import data as corpora  # `data` is a parameter

settings = config.resolve(
    recipe, "zero_shot", seed, data=data, data_dir=data_dir, document_column=document_column, summary_column=summary_column,
    test_from=test_from, test_examples=test_examples,
)  # fmt: skip
corpus = corpora.load(settings.recipe.data)
finished = runs.read_all(run_dir)
comparison.lines(finished[:1])  # says so where there is nothing yet
print("finished:", ", ".join(run.method for run in finished))

# %% [markdown]
# ## May these runs be compared?
#
# Only if everything but the method is the same: the base model, the test set, the prompt, the decoding. Each record carries a **fingerprint** of its
# base and of its test set. `runs.unlike` lists every difference. An empty list means: go on.

# %%
print(runs.unlike(finished))
pd.DataFrame({r.method: {"base": r.record["model"]["fingerprint"], "test set": r.record["data"]["fingerprint"]} for r in finished}).T

# %% [markdown]
# What would a refusal look like? We pretend that the last run used another prompt. **Predict** what the check says.

# %%
import copy
from dataclasses import replace

other = replace(finished[-1], method="imposter", record=copy.deepcopy(finished[-1].record))
other.record["config"]["recipe"]["prompt"]["instruction"] = "Write a haiku about this text."
try:
    comparison.lines([finished[0], other])
except Exception as refusal:
    print(refusal)

# %% [markdown]
# ## Recompute before you believe
#
# A record claims a score. The predictions beside it must give the same score again. If they do not, somebody changed one of them.

# %%
systems = comparison.lines(finished, {e.id: e.document for e in corpus.test})
for system in systems:
    if system.run:
        again = np.mean(system.values("rouge1"))
        recorded = system.run.record["metrics"]["rouge1"]["mean"]
        print(f"{system.name:18} recorded {recorded:.4f}, recomputed {again:.4f}")
        assert abs(again - recorded) < 1e-9

# %% [markdown]
# ## The table
#
# Scores have 95% intervals. Costs stand beside them. Lines without costs help to read it. **Lead-3** copies the beginning: three turns of a
# conversation, three sentences of an article. **One reference against the others** scores a writer with the other writers' summaries; it exists where
# documents have several references.

# %%
pd.DataFrame(comparison.table(systems)).fillna("").set_index("system")

# %% [markdown]
# ## An interval by hand
#
# Draw as many documents as there are, with replacement. Take the mean. Do it 10,000 times. The middle 95% of these means is the interval. It says how
# much the mean would move with another draw of documents.
#
# **Predict:** how wide is it, in points?

# %%
values = np.array(systems[-2].values("rouge1") if systems[-1].run is None else systems[-1].values("rouge1"))
rng = np.random.default_rng(seed)
means = [rng.choice(values, len(values)).mean() for _ in range(10_000)]
low, high = np.percentile(means, [2.5, 97.5])
print(f"by hand: {values.mean():.1f} [{low:.1f}, {high:.1f}], {high - low:.1f} points wide, n = {len(values)}")
print("library:", significance.bootstrap(values, seed))

# %% [markdown]
# The two agree up to the luck of the draw. Now all systems at once.

# %%
scores = {s.name: significance.bootstrap(s.values("rouge1")) for s in systems}
plots.intervals({name: (i.mean, i.low, i.high) for name, i in scores.items()}, "ROUGE-1 (mean over references)")

# %% [markdown]
# ## Pair by pair
#
# Some intervals overlap. Does that mean there is no difference? Not yet. Some documents are hard for every method and some easy. That spread is in both
# intervals, and it cancels when we subtract **on the same document** first.
#
# **Predict:** is the interval of the difference wider or narrower than those of the two scores?

# %%
trained = [s for s in systems if s.run]
first, last = trained[0], trained[-1]
gaps = np.array(last.values("rouge1")) - np.array(first.values("rouge1"))
apart = np.sqrt(sum((scores[s.name].high - scores[s.name].low) ** 2 for s in (first, last)))
together = significance.paired_difference(last.values("rouge1"), first.values("rouge1"))
print(f"{last.name} minus {first.name}: {gaps.mean():+.1f} points on average, higher on {np.mean(gaps > 0):.0%} of the documents")
print(f"width if they were independent: {apart:.1f}; width paired: {together.high - together.low:.1f}")

# %% [markdown]
# Here are all pairs. A blue interval leaves out zero: the data show a difference. A grey one does not. That is a result too: **no detectable
# difference at this n**. It does not say that the methods are equal.

# %%
pairs = comparison.differences(systems)
for difference in pairs:
    print(difference.sentence())

# %%
rows = {d.name: (d.interval.mean, d.interval.low, d.interval.high) for d in pairs}
plots.intervals(rows, "difference in ROUGE-1 points", zero_line=True) if rows else "One method alone has no pairs."

# %% [markdown]
# ## What a few documents would have said
#
# Many tutorials compare methods on the first ten test rows. We can replay that: draw a few documents, rank the methods, repeat.
#
# **Predict:** how often does the ranking of all documents come out?

# %%
few_used = min(few, len(corpus.test))
matrix = np.array([s.values("rouge1") for s in trained])
full_order = tuple(np.argsort(-matrix.mean(axis=1)))
orders = [tuple(np.argsort(-matrix[:, rng.choice(matrix.shape[1], few_used, replace=False)].mean(axis=1))) for _ in range(2000)]
same = np.mean([order == full_order for order in orders])
print("ranking on all documents:", " > ".join(trained[i].name for i in full_order))
print(f"draws of {few_used} that give this ranking: {same:.0%}; rankings that occur: {len(set(orders))}")

# %% [markdown]
# ## What the protocol does
#
# The same summaries, scored in several ways. A ROUGE number without its protocol cannot be compared with another one. With several references the best
# of them always scores at least as high as their mean, and no model changed. (With one reference the first three columns are equal.)
#
# ROUGE-L comes in two kinds. `rougeL` takes a summary as one long sentence, `rougeLsum` sentence by sentence. Papers often print the second under the
# first one's name.
#
# **Predict:** which of the first four columns is highest?

# %%
from rouge_score.rouge_scorer import RougeScorer

plain = RougeScorer(["rouge1"], use_stemmer=False)


def unstemmed(run):
    return np.mean([100 * np.mean([plain.score(r, p.prediction)["rouge1"].fmeasure for r in p.references]) for p in run.predictions])


def first_reference(run):
    return np.mean([metrics.rouge(p.prediction, p.references[0])["rouge1"] for p in run.predictions])


# %%
protocols = {
    s.name: {
        "mean of references": np.mean(s.values("rouge1")),
        "best reference": np.mean(s.values("best_rouge1")),
        "first reference": first_reference(s.run),
        "mean, no stemmer": unstemmed(s.run),
        "ROUGE-L": np.mean(s.values("rougeL")),
        "ROUGE-Lsum": np.mean(s.values("rougeLsum")),
    }
    for s in trained
}
pd.DataFrame(protocols).T.round(1)

# %% [markdown]
# ## What it cost
#
# Quality is half of the answer. The other half is memory, time and what you must store. **Predict:** which method needs the most memory in training?

# %%
costs = {}
for s in trained:
    if "training" in s.run.record:
        i = scores[s.name]
        costs[s.run.method] = (s.run.record["training"]["peak_memory_gb"], i.mean, i.low, i.high)
plots.cost_and_quality(costs, "peak memory in training, GB", "ROUGE-1") if costs else "No trained method yet."

# %% [markdown]
# The loss curves show how each method got there. All saw the same examples in the same budget.

# %%
curves = {s.run.method: report.read_log(s.run.folder / "log.csv") for s in trained if (s.run.folder / "log.csv").is_file()}
plots.losses(curves) if curves else "No trained method yet."

# %% [markdown]
# ## Read the summaries
#
# Numbers cannot tell whether a summary is *true*. Here is our document from notebook 1 with every system's answer. Check the facts: who, what, when,
# how much.

# %%
story = corpus.test[0]
print(story.document, "\n")
for s in trained:
    answer = next(p for p in s.run.predictions if p.id == story.id)
    print(f"{s.name:18} {answer.prediction}")
print(f"{'a reference':18} {story.summary}")

# %% [markdown]
# Where do the methods disagree most? The document with the widest spread of scores is the one to read next.

# %%
spread = matrix.max(axis=0) - matrix.min(axis=0)
index = int(spread.argmax())
print(f"{corpus.test[index].id}: ROUGE-1 from {matrix[:, index].min():.1f} to {matrix[:, index].max():.1f}\n\n{corpus.test[index].document}\n")
for s in trained:
    print(f"{s.name:18} {s.values('rouge1')[index]:5.1f}  {s.run.predictions[index].prediction}")

# %% [markdown]
# ## Manner or matter?
#
# Training teaches two things: *how* summaries look here (length, tense, how people are named) and *what* to put in. ROUGE rewards both. If most of the
# gain is manner, answers get the right length and end on time while facts stay wrong. So look at manner alone.

# %%
manner = {}
for s in trained:
    texts = [p.prediction for p in s.run.predictions]
    manner[s.name] = {
        "words": np.mean([len(t.split()) for t in texts]),
        "words in references": np.mean([len(r.split()) for p in s.run.predictions for r in p.references]),
        "ended by itself": f"{s.run.record['generation']['stopped_share']:.0%}",
        "empty": sum(not t for t in texts),
    }
pd.DataFrame(manner).T

# %% [markdown]
# ## Findings
#
# These sentences are computed from the records. They say no more than the intervals allow.

# %%
for sentence in comparison.findings(systems):
    print("-", sentence)
print("\nThe protocol of every score above:")
for name, value in metrics.PROTOCOL.items():
    print(f"  {name}: {value}")

# %%
page = report.write(run_dir, corpus.test)
print(f"All this on one page that opens without a network: {page.name} in {run_dir}")

# %% [markdown]
# ## In this notebook we have
#
# - checked that the runs may be compared, and seen a refusal,
# - recomputed every score from its predictions,
# - put intervals on scores by hand and by library,
# - compared methods pair by pair on the same documents,
# - seen what a few documents and another protocol would have said,
# - set quality beside cost, and read what the models wrote.
#
# **Questions**
#
# 1. Two intervals overlap. Why may the paired difference still be clear?
# 2. "No detectable difference": what would you need to detect one of two points?
# 3. A paper reports 47 ROUGE-1, you get 41 with the same model. Name three protocol differences that could explain it.
# 4. Which of your findings would you expect to change with another seed?
# 5. Which method would you use with 8 GB of memory and ten tasks to serve, and why?
#
# **Next:** change one thing in a recipe, predict what happens, and run it again: `make run-all P="rank=4"`.
