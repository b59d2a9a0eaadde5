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
# | **You will learn** | when runs may be compared, what a protocol does to a number, what intervals and tests can and cannot say, how ten test examples or a choice made on the test set mislead |
# | **You need** | the records of notebooks 1 to 4 in `run_dir`; nothing is trained here. In Colab and Kaggle each notebook has a machine of its own: if the records are missing, run `!python -m lab_utils run --only 01,02,03,04` in a new cell below the first |
# | **Time** | about a minute of computing; an hour and a half with the six exercises, and another 45 minutes if you rate summaries with your class |

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
recipe = "smollm2-everyday"
run_dir = "runs/smollm2-everyday"
seed = 0  # of the resampling
data = None  # this and the next six as in the notebooks before: they give the documents
data_dir = None
document_column = None
summary_column = None
test_from = None
test_examples = None
data_seed = None
few = 10  # how many documents a hasty evaluation would use
many = 100  # and a better one
rater = ""  # your name opens the rating form near the end
rated_documents = 5  # how many documents it shows
assignment = None  # its name, if this is one: kept in the record
student = None  # your id, if you hand this in: kept in the record

# %%
from itertools import combinations, product

import numpy as np
import pandas as pd

from lab_utils import analysis, check, comparison, companions, config, flagging, highlights
from lab_utils import metrics, plots, rating, rating_form, report, runs, significance
from lab_utils import data as corpora  # `data` is a parameter

check.note_in(run_dir)  # what the exercises say is kept beside the records
settings = config.resolve(
    recipe, "zero_shot", seed, data=data, data_dir=data_dir, data_seed=data_seed,
    document_column=document_column, summary_column=summary_column,
    test_from=test_from, test_examples=test_examples,
)  # fmt: skip
corpus = corpora.load(settings.recipe.data)
documents = {e.id: e.document for e in corpus.test}
finished = runs.read_all(run_dir)
comparison.lines(finished[:1])  # stops here, with the reason, where no run has finished
print("finished:", ", ".join(run.method for run in finished))

# %% [markdown]
# ## Where we stand
#
# The **ledger** has grown from notebook to notebook. Here it is complete: one row for every method that has finished.
#
# Below it stands our story, the document that has been with us since notebook 1, with a summary by each method. Put the summaries in order, the best first,
# and write the order down. We come back to both at the end.
#
# **Predict:** how many times as large as LoRA's checkpoint is that of full fine-tuning? How many times as high is its score? Will ROUGE put the summaries
# in the same order as you?

# %%
pd.DataFrame(comparison.ledger(finished)).set_index("method")

# %%
story = corpus.test[0]


def side_by_side(example):
    """A reference and every method's summary of one document."""
    found = {"a reference": example.summary}
    for run in finished:
        name = plots.METHOD_NAMES[run.method]
        found[name] = next(p.prediction for p in run.predictions if p.id == example.id)
    return found


print(story.document)
for name, summary in side_by_side(story).items():
    print(f"\n{name}\n    {summary or '(empty)'}")

# %% [markdown]
# ## May these runs be compared?
#
# Only if they answered the same question: same base model, test set, prompt and length limits. (Decoding is greedy in every run.) Each record carries a
# **fingerprint**, a hash, of its base and of its test set. `runs.unlike` lists what differs; an empty list means: go on. It does not ask whether the methods
# saw equally many documents: the records and the report say that. Whether they were tuned with equal care, only those know who tuned them.
#
# **Predict:** QLoRA stores its base in 4 bits. Will its base have another fingerprint than those of the other methods?

# %%
print("differences:", runs.unlike(finished))
fingerprints = {}
for run in finished:
    fingerprints[run.method] = {
        "base": run.record["model"]["fingerprint"],
        "test set": run.record["data"]["fingerprint"],
    }
pd.DataFrame(fingerprints).T

# %% [markdown]
# A record's fingerprint of the base is taken from the weights on disk, before they are quantized. In how many bits a method then stores them is part of the
# method.
#
# ### Exercise 5.1 (recall): Say which comparisons you would send back
#
# Five papers each compare two methods. Every summary is scored with one protocol, and every table says on how many documents.
#
# - **a.** LoRA and full fine-tuning: same base, prompt, decoding and 500 test documents. Each has a learning rate of its own, the best of three on the
#   validation documents.
# - **b.** Zero-shot is asked with "Summarize:" and decodes greedily. LoRA gets the prompt of its training and draws each token at random. Same
#   500 test documents.
# - **c.** Full fine-tuning is scored after its last epoch. QLoRA was scored on the 500 test documents after every epoch, and its best epoch is reported.
# - **d.** LoRA with rank 4 and with rank 16, otherwise alike. Rank 4 was trained once. Rank 16 was trained with five seeds, and the best run is reported.
# - **e.** Zero-shot and full fine-tuning: same base, prompt, decoding and 500 test documents. The one took no training and the other four hours. The table
#   says so.
#
# Put the letters of the **unfair** ones into `unfair`, as one string such as `"ab"`. **Predict** first how many there are.

# %%
# BEGIN SOLUTION
unfair = "bcd"
# END SOLUTION

check.unfair(unfair)

# %% [markdown]
# ### Break it: compare what must not be compared
#
# We copy the record of the last run and alter one entry of the copy: the instruction in its prompt. Then, in a second copy, the fingerprint of its test set.
# All this happens in memory; the files stay as they are. **Predict:** what will `runs.unlike` say to each? Would it notice an altered *summary*?

# %%
from copy import deepcopy
from dataclasses import replace


def copy_of_last_run():
    """The last run, with a record of its own that we may alter."""
    return replace(finished[-1], record=deepcopy(finished[-1].record), method="the copy")


# %%
haiku, elsewhere = copy_of_last_run(), copy_of_last_run()
haiku.record["config"]["recipe"]["prompt"]["instruction"] = "Write a haiku about this text."
elsewhere.record["data"]["fingerprint"] = "another"
print("prompt:  ", runs.unlike([finished[0], haiku]))
print("test set:", runs.unlike([finished[0], elsewhere]))
try:
    comparison.lines([finished[0], haiku])
except Exception as refusal:
    print("\nThe table refuses:", refusal)

# %% [markdown]
# **Symptom:** here the lab refuses and names what differs. Most code never asks. There, the symptom is a difference larger than the method can explain, in a
# table that does not state prompt, test set and decoding. Nobody can rule those out afterwards.
#
# `unlike` reads records. It would not have noticed an altered summary.
#
# ## Recompute before you believe
#
# A record claims a score. The predictions beside it must give the same score again. If they do not, one of the two files was changed, or scored by another
# protocol. `Rouge` is this lab's measure in the form of `evaluate`, Hugging Face's library of metrics. The ROUGE that `evaluate` itself downloads has no
# stemmer by default, and returns a median of random resamples, so the same summaries can get slightly different numbers.
#
# **Predict:** how many decimals of the two will agree?

# %%
from lab_utils.rouge import Rouge

for run in finished:
    predictions = [p.prediction for p in run.predictions]
    references = [list(p.references) for p in run.predictions]
    again = Rouge().compute(predictions=predictions, references=references)["rouge1"]
    recorded = run.record["metrics"]["rouge1"]["mean"]
    print(f"{run.method:10} ROUGE-1 recorded {recorded:.4f}, recomputed {again:.4f}")
    assert abs(again - recorded) < 1e-9
print("\nprotocol:", metrics.PROTOCOL)

# %% [markdown]
# ## The table
#
# Every score has its 95% interval, every run its costs. "Trained share" is the share of the parameters that were trained, "ended by itself" the share of
# summaries that stopped before the length limit.
#
# The lines without costs help you to read the table. Three of them **copy**: the beginning (lead-3), the three longest turns, the whole document. **One
# reference against the others** scores a writer with the other writers' summaries; it exists where documents have several references.
#
# **Predict:** does every method beat every kind of copying?

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
scored = {}
for label, (measure, protocol) in choices.items():
    scored[label] = {}
    for s in methods:
        rows = metrics.score(s.run.predictions, protocol=protocol)
        scored[label][s.name] = np.mean([r[measure] for r in rows])
pd.DataFrame(scored).round(1)

# %% [markdown]
# No model changed. With one reference a document, the three ways to use references agree. Never compare two numbers whose protocols you do not know.
#
# ### Exercise 5.2 (explore): Find the lowest and the highest score of the same summaries
#
# `lsum(protocol)` gives the mean ROUGE-Lsum of summaries of the last method, always the same ones; nothing but the protocol changes. `options` lists what a
# `Protocol` may choose, as in `Protocol(stemmer=False, sentences="none")`. Find the protocol with the lowest score and the one with the highest. Put the two
# protocols, not their scores, into `lowest` and `highest`.
#
# **Predict:** will the two lie further apart than the trained methods do in the table?

# %%
options = {
    "stemmer": (True, False),
    "sentences": ("rule", "none"),
    "references": ("mean", "best", "first"),
}
some = methods[-1].run.predictions[:many]  # enough here, and quick


def lsum(protocol):
    """Mean ROUGE-Lsum of the same summaries under this protocol."""
    return np.mean([row["rougeLsum"] for row in metrics.score(some, protocol=protocol)])


print(f"this lab: {lsum(Protocol()):.2f}")

# %%
# BEGIN SOLUTION
lowest = min((Protocol(*choice) for choice in product(*options.values())), key=lsum)
highest = max((Protocol(*choice) for choice in product(*options.values())), key=lsum)
# END SOLUTION

check.protocol_range([lowest, highest], predictions=some)

# %% [markdown] tags=["instructor"]
# **Instructor, 5.2** (10 minutes). Some try all twelve in a loop, some change one choice at a time; both are good. Ask for the range in points
# beside the differences between methods in the table. A common misunderstanding: the protocol with the highest numbers is the best. No protocol is; what
# counts is that everyone in a table has the same one, and that the table names it.

# %% [markdown]
# ### Exercise 5.3 (build): Write the bootstrap interval of a mean
#
# How sure is a mean? Other documents would give another one. To see how far it would move, the **bootstrap** treats our documents as if they were all there
# are. It draws as many documents as we have, *with replacement*, and takes their mean. It does so many times. The middle 95% of these means is the interval.
#
# Given are `values`, an array with one score a document, how many times to draw (`draws`), and a `seed` for `np.random.default_rng`. Return `low, high`.
#
# **Predict:** how close will it come to the interval in the table? What would change with 100 draws in place of 10,000?

# %%
def bootstrap_interval(values, draws, seed):
    # BEGIN SOLUTION
    rng = np.random.default_rng(seed)
    means = [rng.choice(values, len(values)).mean() for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return low, high
    # END SOLUTION


verdict = check.bootstrap_interval(bootstrap_interval)
verdict

# %% [markdown] tags=["instructor"]
# **Instructor, 5.3** (15 minutes). The usual slip is to take percentiles of the scores, not of the means: that interval holds documents. Ask what
# `replace=False` would give. A common misunderstanding: "95% of the documents lie in it", or "the true mean lies in it with 95% probability". It is the
# procedure that catches the mean 95 times in 100, and with very few documents it does so less often.

# %%
values = np.array(methods[-1].values("rouge1"))
for draws in (10_000, 100):
    low, high = verdict.best(values, draws, seed)
    print(f"{draws:6,} draws: [{low:.1f}, {high:.1f}], {high - low:.1f} points wide")
print("library:      ", significance.bootstrap(values, seed))
print("documents:    ", len(values))

# %% [markdown]
# How many documents would make the interval narrow? We draw test sets of other sizes from ours; sizes above ours look ahead, as if our documents stood
# for all.
#
# **Predict:** what do four times as many documents do to the width?

# %%
sizes = [5, 20, 80, 320]
halves = significance.half_widths(values, sizes, seed)
points = [f"{half:.1f} points at {size}" for size, half in zip(sizes, halves, strict=True)]
said = f"Half of the 95% interval, by test documents: {', '.join(points)}."
print(said)
curve = {methods[-1].name: (sizes, halves)}
plots.lines(curve, "test documents", "plus or minus, points", said)

# %% [markdown]
# ### Exercise 5.4 (build): Say how many documents an interval needs
#
# `n` documents give an interval of plus or minus `half_width` points. Return how many documents give plus or minus `wanted` points: a whole number, rounded
# up. The curve above shows the law.
#
# **Predict:** how many documents would this run's last method need for plus or minus 1 point?

# %%
import math


def documents_needed(half_width, n, wanted):
    # BEGIN SOLUTION
    return math.ceil(n * (half_width / wanted) ** 2)
    # END SOLUTION


verdict = check.documents_needed(documents_needed)
verdict

# %% [markdown] tags=["instructor"]
# **Instructor, 5.4** (5 minutes). Watch for the linear answer (half the width, twice the documents) and for the ratio upside down. Ask what the
# number means for a class project with ten documents, and why nobody halves an interval of 10,000 documents.

# %%
half = significance.half_widths(values, [len(values)], seed)[0]
needed = int(verdict.best(half, len(values), 1))
drawn = significance.half_widths(values, [max(1, needed)], seed, resamples=2_000)[0]
print(f"plus or minus {half:.1f} points with {len(values)} documents")
print(f"plus or minus 1 would need {needed:,}")
print(f"drawn: {needed:,} documents give plus or minus {drawn:.2f}")

# %% [markdown]
# ## Pair by pair
#
# Where two intervals overlap, is there no difference? We cannot say yet. Some documents are hard for every method and some easy. That spread is in both
# intervals, and part of it cancels when we subtract **on the same document** first.
#
# We take the two methods whose means lie closest. **Predict:** will the interval of their difference be wider or narrower than the intervals of the two
# scores? And than it would be, had each method summarized documents of its own?

# %%
def gap(pair):
    return abs(np.mean(pair[0].values("rouge1")) - np.mean(pair[1].values("rouge1")))


earlier, later = min(combinations(methods, 2), key=gap, default=(methods[0], methods[0]))
if later is earlier:
    print("One method alone: the pair below is that method with itself.")
ours, theirs = np.array(later.values("rouge1")), np.array(earlier.values("rouge1"))
gaps = ours - theirs
print(f"{later.name} minus {earlier.name}: higher on {np.mean(gaps > 0):.0%} of the documents")

# %%
one, two = significance.bootstrap(ours, seed), significance.bootstrap(theirs, seed)
together = significance.paired_difference(ours, theirs, seed)
width_one, width_two, width_paired = (i.high - i.low for i in (one, two, together))
print(f"{later.name} {one}, {earlier.name} {two}; the difference of pairs {together}")
print(f"widths: {width_one:.1f} and {width_two:.1f} alone")
print(f"{width_paired:.1f} for the difference of pairs")
apart = np.hypot(width_one, width_two)  # the spreads of independent means add up as squares
print(f"{apart:.1f} for the difference, had each method summarized documents of its own")

# %% [markdown]
# A difference carries the spread of two scores, so its interval may well be wider than that of one. What pairing saves is the step from the last line to the
# difference of pairs: what is hard or easy for both has cancelled. So two intervals that overlap decide nothing. Ask whether the interval of the paired
# difference leaves zero out.
#
# ### Exercise 5.5 (build): Write the sign-flip test
#
# Suppose it made no difference which method wrote which summary. Then we could swap the two names on any document, and its gap would change its **sign**.
# So flip at random, a coin for each document, and take the mean gap. Do so many times, and count how often it is at least as far from zero as the one we
# observed. That share is the **p value** of a permutation test. What we observed is itself one of the ways the signs can stand: count it too, in the
# numerator and in the denominator.
#
# Given are `gaps`, an array with one difference a document, and as before `draws` and `seed`. Return p; a flip counts on either side of zero.
#
# **Predict:** is it below 0.05 for our two methods?

# %%
def sign_flip_test(gaps, draws, seed):
    # BEGIN SOLUTION
    signs = np.random.default_rng(seed).choice([-1, 1], size=(draws, len(gaps)))
    as_far = np.abs((signs * gaps).mean(axis=1)) >= abs(gaps.mean()) - 1e-12
    return (as_far.sum() + 1) / (draws + 1)
    # END SOLUTION


verdict = check.sign_flip_test(sign_flip_test)
verdict

# %% [markdown] tags=["instructor"]
# **Instructor, 5.5** (15 minutes). Ask what stays and what changes: all documents stay, and only signs change (the bootstrap does the opposite).
# Usual slips: one direction only, `>` for `>=`, no +1. A common misunderstanding: p is the probability that the methods are equal. It is the share of sign
# flips that lie as far out, *if* the names did not matter.

# %%
print(f"by flips: {verdict.best(gaps, 10_000, seed):.4f}")
print(f"library:  {significance.permutation_test(ours, theirs, seed):.4f}")

# %% [markdown]
# Four methods make six pairs. Imagine four equal methods in many classes: if each class tests all six pairs at 5%, about one class in five finds a
# "difference" somewhere. **Holm's correction** raises the p values so that the chance of even one such false alarm in the whole table is at most 5%.
#
# Win/tie/loss counts the documents on which the first-named method scores higher, equal, lower. "Detectable" turns the question round: how large, in points,
# must a true difference be for a test set of this size to show it four times in five?
#
# **Predict:** how many pairs will still be below 5% after the correction?

# %%
pairs = comparison.differences(systems)
no_pairs = "One method alone has no pairs."


def row(d):
    p_values = [comparison.p_text(p) for p in (d.p, d.p_holm)]
    detectable = f"{d.detectable:.1f}" if d.detectable else ""
    return [d.interval.signed(), f"{d.wins}/{d.ties}/{d.losses}", *p_values, detectable]


columns = ["difference", "win/tie/loss", "p", "p, Holm", "detectable"]
pd.DataFrame({d.name: row(d) for d in pairs}, index=columns).T if pairs else no_pairs

# %% [markdown]
# The same differences as a figure. A filled blue point is detected: the corrected test and the interval agree. A hollow grey one is **no detectable
# difference**. That is a result too. It does not say that two methods are equal: every difference inside the interval remains possible. An interval may even
# leave zero out while its point is hollow, because the test is corrected for many pairs and the interval is not.

# %%
forest = {d.name: (d.interval.mean, d.interval.low, d.interval.high) for d in pairs}
detected = [d.name for d in pairs if d.detected]
label = "difference in ROUGE-1 points"
plots.intervals(forest, label, zero_line=True, clear=detected) if forest else no_pairs

# %% [markdown]
# ### Exercise 5.6 (explore): State what these documents show
#
# The table spoke of ROUGE-1 alone. `compare(measure)` makes the same comparison on another of the `measures`; its p is already corrected. Look for a pair
# whose verdict there is not that of ROUGE-1: detected on one measure and not on the other. If there is none, take any pair.
#
# State it in `claim`, a dictionary with `measure`, `first` and `second` (two names of the table), `points` (the mean of the first minus that of the second,
# to one decimal or more) and `detected`: True where the corrected p value is below 0.05 *and* the interval leaves zero out.
#
# **Predict:** on which measure will a verdict change?

# %%
# one method alone is compared with the reference lines
contenders = methods if len(methods) > 1 else systems
measures = ["rouge2", "rougeL", "best_rouge1", "words"]
scores_by = {}  # measure -> method -> one score for each document
for measure in ["rouge1", *measures]:
    scores_by[measure] = {s.name: s.values(measure) for s in contenders}

# %% [markdown]
# `best_rouge1` is ROUGE-1 with the best reference, `words` the number of words. A pair is compared as above: first minus second, with its interval and
# its p value, and then Holm's correction over all pairs of the measure.

# %%
def compare(measure):
    """Every pair of methods on this measure, with its interval and its corrected p value."""
    rows = []
    scores = scores_by[measure]
    for first, second in combinations(reversed(scores), 2):
        i = significance.paired_difference(scores[first], scores[second], seed)
        p = significance.permutation_test(scores[first], scores[second], seed)
        pair = {"first": first, "second": second}
        rows.append({**pair, "points": i.mean, "low": i.low, "high": i.high, "p": p})
    corrected = significance.holm([r["p"] for r in rows])
    return [{**r, "p": p} for r, p in zip(rows, corrected, strict=True)]


pd.DataFrame(compare("rouge2")).round(3)

# %%
# BEGIN SOLUTION
claim = min(
    (
        {"measure": m, **r, "detected": r["p"] < 0.05 and r["low"] * r["high"] > 0}
        for m in measures
        for r in compare(m)
    ),
    # False, a changed verdict, comes first
    key=lambda c: c["detected"] == (f"{c['first']} against {c['second']}" in detected),
)
# END SOLUTION

check.claim(claim, values=scores_by)

# %% [markdown] tags=["instructor"]
# **Instructor, 5.6** (10 minutes). Any true claim passes; let them read theirs aloud. Ask how many measures they looked at before they chose: Holm's
# correction covers the pairs of one measure, not the search through several measures. A common misunderstanding: "not detected" means "equal".

# %% [markdown]
# ## Break it: ten test examples
#
# Some tutorials compare methods on the first ten test rows. First the ranking by all our documents. `matrix` has a row for each method and a column for
# each document.

# %%
names = [s.name for s in methods]
matrix = np.array([s.values("rouge1") for s in methods])


def ranking(means):
    return " > ".join(names[i] for i in np.argsort(-means))


print("all documents:", ranking(matrix.mean(axis=1)))

# %% [markdown]
# Now we replay what those tutorials do: draw `few` of our documents at random, with replacement, rank the methods, and repeat. Then the same with `many`.
# **Predict:** how many different rankings will the small draws give? Will the large ones agree on one?

# %%
rng = np.random.default_rng(seed)


def rankings(size, draws=2000):
    """How often each ranking of the methods comes up among test sets of this size."""
    drawn_documents = rng.integers(0, matrix.shape[1], (draws, size))
    means = matrix[:, drawn_documents].mean(axis=2)  # methods x draws
    orders = [ranking(column) for column in means.T]
    return pd.Series(orders).value_counts(normalize=True)


table = pd.DataFrame({f"{size} documents": rankings(size) for size in (few, many)}).fillna(0)
table.sort_values(list(table), ascending=False).style.format("{:.1%}")

# %% [markdown]
# **Symptom:** the order of close methods changes with the documents, and a second small draw contradicts the first. A table without n and interval hides it.
# The interval from so few documents is wide, and still too narrow: they hold hardly any of the rare very low and very high scores.
#
# Careful: the replay takes the differences in our documents for the true ones. It shows how often a small test set would have misled us about *them*.
# Whether there is a difference at all is what the test above asked.
#
# ## Break it: choose on the test set
#
# Somebody tries several prompts, seeds or checkpoints, scores each on the test set, and reports the best. What if all were **equally good**? We let coins
# make such variants: on each document a coin decides which of our two closest methods hands in its summary. One half of the documents chooses the variant
# with the highest mean. The other half scores it again.
#
# **Predict:** how many points does the best of 20 gain where it was chosen? How many of them remain on the other half?

# %%
def luck(variants, times=300):
    """Points of the best over the average: where it was chosen, and on the other half."""
    gains = []
    for _ in range(times):
        order = rng.permutation(len(gaps))
        halves = order[: max(1, len(order) // 2)], order[len(order) // 2 :]
        coins = rng.integers(0, 2, (variants, len(gaps)))
        scores = theirs + coins * gaps  # variants x documents
        chosen = scores[:, halves[0]].mean(axis=1).argmax()
        gains.append([scores[chosen, half].mean() - scores[:, half].mean() for half in halves])
    return np.mean(gains, axis=0)


gained = {f"best of {variants}": luck(variants) for variants in (1, 2, 5, 20, 100)}
pd.DataFrame(gained, index=["where it was chosen", "on the other half"]).T.round(2)

# %% [markdown]
# **Symptom:** the score falls as soon as new documents come, and it falls further the more variants were tried. Nothing in the single number shows it, so ask
# how many there were. This lab chose its prompts and learning rates on validation documents. The test set is for one look.
#
# ## Measures beside ROUGE
#
# ROUGE rewards two things at once: *how* summaries look here (length, tense, how people are named) and *what* they say. Other measures take these
# apart. Coverage and density tell how much is copied, novel bigrams how much is not. Name precision asks whether the summary's names stand in the document,
# number precision whether its numbers do. The first seven rows are about manner, the last three about matter. A mean leaves out documents that a row does not
# apply to, such as summaries without a number. The second table says what each measure can and cannot tell.
#
# **Predict:** in which rows do trained models come closer to the references (last column, where there is one)? In which do they move away?

# %%
shown = ["words", "length_ratio", "unstopped", "repetition", "coverage", "density",
         "novel_bigrams", "name_precision", "number_precision", "speaker_recall"]  # fmt: skip
beside = [s for s in systems if s.run or s.name in ("lead-3", comparison.HUMAN)]
means = {s.name: {key: companions.mean(s.values(key)) for key in shown} for s in beside}
pd.DataFrame(means).rename(companions.LABELS).round(2)

# %%
meanings = {companions.LABELS[key]: companions.MEANINGS[key] for key in shown}
explained = pd.DataFrame({"can and cannot tell": meanings})
explained.style.set_properties(**{"text-align": "left"})

# %% [markdown]
# ## Errors that a score does not show
#
# A summary can share most words with its reference and still be false. Simple rules can point at suspects: one that is empty, cut off by the length limit
# ("unstopped") or caught in a loop ("repeats"); a number or a name that stands neither in the document nor in a reference; two speakers who seem to have
# changed places. They are **hints**. Each needs a reader, and a summary without a flag may be wrong all the same.
#
# We count the flagged summaries of each method. A model that names no number gets no flag for one; number precision, above, looks only at summaries with
# numbers.
#
# **Predict:** which kinds will training remove, and which not? Can one become more frequent?

# %%
examples = {e.id: e for e in corpus.test}
flagged, counts = {}, {}
for s in methods:
    found = []
    for p in s.run.predictions:
        found += [(p, flag) for flag in flagging.flags(p, examples[p.id])]
    flagged[s.name] = found
    kinds = [flag.kind for _, flag in found]
    counts[s.name] = {kind: kinds.count(kind) for kind in flagging.KINDS}
pd.DataFrame(counts)

# %% [markdown]
# Read four of the last method's. Which of them point at an error?

# %%
for p, flag in flagged[methods[-1].name][:4]:
    print(f"{p.id}, {flag.kind}: {flag.detail}")
    print(f"    {p.prediction}")

# %% [markdown]
# ## Where in the document does a summary look?
#
# Which words of the document does a summary rest on? We take its content words (not "the" or "and") and look each up by its stem, alone and with its
# neighbour, in the turn that fits its sentence best. Here is our story, marked for the last method's summary. A mark shows where a word stands in the
# document, not what the model attended to; a paraphrase leaves no trace.
#
# **Predict:** on which turns does the summary rest? Which of its words stand nowhere in the document? Then read: is every statement true?

# %%
highlights.mark(side_by_side(story)[methods[-1].name], story.document, methods[-1].name)

# %% [markdown]
# Does a model find the important part when it comes **late**? The references show where it stands: we look up which turns they rest on. Then we sort the
# test set into two halves, documents whose important part comes early and documents where it comes late, and score each. The halves hold different
# documents, so something else, such as their length, may cause a difference.
#
# The bars show on which third of a document summaries rest. **Predict:** where does the untrained model look most? Does training bring the bars nearer
# to those of the references?

# %%
for sentence in analysis.late_sentences(systems, corpus.test):
    print("-", sentence)
thirds = ["first third", "middle third", "last third"]
shares = analysis.profile(systems, corpus.test)
plots.grouped(shares, thirds, "share of what a summary rests on")

# %% [markdown]
# ## Read the best, the worst, and where they disagree
#
# First each method's best and worst summary, by ROUGE-1, each with a reference. Where that does not settle a fact, look into the document:
# `print(documents["..."])`, with the id that is printed. **Predict:** is the best one true in every statement? Is the worst one a bad summary?

# %%
for s in methods:
    for which, found in (("best", analysis.best(s, 1)), ("worst", analysis.worst(s, 1))):
        index = found[0]
        p = s.run.predictions[index]
        print(f"{which} of {s.name}, {s.rows[index]['rouge1']:.1f} ({p.id})")
        print(f"    summary:     {p.prediction or '(empty)'}")
        print(f"    a reference: {p.references[0]}\n")

# %% [markdown]
# Now the document with the widest spread of scores. Check the facts: who, what, when, how much. **Predict:** would you rank the answers as ROUGE does?

# %%
index = analysis.disagreements(systems, 1)[0]
disputed = examples[methods[0].rows[index]["id"]]
scores = {s.name: f"{s.rows[index]['rouge1']:.1f}" for s in methods}
print(disputed.document)
for name, summary in side_by_side(disputed).items():
    print(f"\n{name} {scores.get(name, '')}\n    {summary or '(empty)'}")

# %% [markdown]
# ## What it cost
#
# Quality is half of the answer. The other half is memory, time and what you must store. Compare costs only between runs on one machine; on a CPU the peak
# is that of the whole program. **Predict** from the ledger: does a trained method need more memory than another and still score lower? Was that difference
# in score detected?

# %%
costs = {}
for s in methods:
    training = s.run.record.get("training")
    if training:
        i = significance.bootstrap(s.values("rouge1"))
        costs[s.run.method] = (training["peak_memory_gb"], i.mean, i.low, i.high)
cost = "peak memory in training, GB"
plots.cost_and_quality(costs, cost, "ROUGE-1") if costs else "No trained method yet."

# %% [markdown]
# ## Ask people
#
# In the end a summary is for a reader. Put your name into `rater` in the parameters cell, run that cell again, and then the next one. For each document you
# mark every summary from 1 to 5 for fluency, faithfulness, coverage (here: does it tell what matters?) and conciseness, and name its worst error. Then you
# choose the better one of two. Nobody tells you who wrote what; one of them is a reference. Each answer is saved at once.
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
#
# **Predict** the sentences first: write down what you may say of each pair.

# %%
for sentence in comparison.findings(systems):
    print("-", sentence)
print("\nprotocol:", metrics.PROTOCOL)
page = report.write(run_dir, corpus.test)
print(f"Scores, pairs, costs and all summaries on one page: {page.name} in {run_dir}")
print("It opens without a network.")

# %%
from lab_utils import expected

for run in finished:  # each beside the 95% interval of the lab's own recorded run
    print(f"{plots.METHOD_NAMES[run.method]}, {expected.sentence(run.record)}")

# %% [markdown]
# ## The story and the ledger, at the end
#
# You put the summaries of our story in order at the beginning. Here they are in the order of ROUGE-1, with what the rules of "Errors that a score does not
# show" say about them, and below them the ledger, a last time. One document is one vote; what all of them say stands in the findings.
#
# **Predict:** which summary will stand on top? And which row of the ledger would you take to a machine with 8 GB?

# %%
place = next(i for i, row in enumerate(methods[0].rows) if row["id"] == story.id)
for s in sorted(methods, key=lambda s: -s.rows[place]["rouge1"]):
    answer = s.run.predictions[place]
    found = ", ".join(flag.kind for flag in flagging.flags(answer, story)) or "no flag"
    print(f"{s.name}, {s.rows[place]['rouge1']:.1f} ROUGE-1, {found}")
    print(f"    {answer.prediction or '(empty)'}\n")
pd.DataFrame(comparison.ledger(finished)).set_index("method")

# %% [markdown] tags=["solution"]
# ### Answers to the questions at the end
#
# <details><summary>Show the answers</summary>
#
# 1. Documents that are hard for one method are mostly hard for the other. That spread widens both intervals, and much of it cancels in the differences.
# 2. Nine times as many, 540: the width falls with the square root of the number.
# 3. The signs as we observed them are one of the ways they can stand, and that way is counted too. So the count is 1 at least.
# 4. Stemmer, how several references are used, how text is split into sentences; also the package and how it averages.
# 5. No. A true difference anywhere in the interval remains possible; one much above "detectable" would probably have been seen.
# 6. Small differences between trained methods may well change with another seed: no interval here contains that spread. With other documents, what the
#    intervals say may happen: they do contain the spread of documents. What is large against both should stay.
# 7. Look at memory and checkpoint size together. Ten tasks are ten full models, or one base with ten small adapters. With a large model on a GPU the smaller
#    base of QLoRA leaves more room and costs some time; with a small model on a CPU it may save nothing (see the ledger). "Not detectably different" is no
#    proof that quality is the same: where it counts, test with more documents.
#
# </details>

# %% [markdown]
# ## In this notebook we have
#
# - checked that the runs may be compared, seen a comparison refused, and recomputed every score,
# - seen what stemmer, references and sentence split do to a number,
# - put an interval on a mean and a p value on a difference, with code of our own,
# - corrected for many pairs, and asked what our documents can detect at all,
# - been misled by ten documents, and by a choice made on the test set,
# - looked for wrong names, numbers and speakers, and for what comes late,
# - set quality beside cost, closed the ledger, and prepared a blind rating.
#
# **Questions**
#
# 1. Two intervals overlap. Why may the paired difference still be clear?
# 2. An interval is plus or minus 3 points with 60 documents. How many documents give plus or minus 1?
# 3. Why is a p value from random sign flips never zero?
# 4. A paper reports 47 ROUGE-1, you get 41 with the same model. Name three protocol differences that could explain it.
# 5. "No detectable difference": does it say that two methods are equal?
#
# To discuss:
#
# 6. Which of your findings would you expect to change with another seed, and which with other documents?
# 7. Which method would you use with 8 GB of memory and ten tasks to serve, and why?
#
# **Next:** no interval here holds the spread between seeds. Predict it, then measure it, in a run directory of its own:
# `make run-all P="seed=1" OUT=runs/seed-1`. Or change one value of the recipe: `make run-all P="rank=4 alpha=8" OUT=runs/rank-4`. (Without `make`:
# `!python -m lab_utils run -p seed=1 --out runs/seed-1`.)
#
# ## Hand in
#
# If this is an assignment: save all notebooks, then run the last cell again. It makes one small file with your records, predictions, notebooks and answers,
# without folders of your machine and without anything that looks like a password or token. It says what is missing. Look into the file before you send it.

# %%
from lab_utils.submissions import packing

if student:
    print(packing.pack(run_dir, student, assignment))
else:
    print("Nothing to hand in: no student was named among the parameters.")
