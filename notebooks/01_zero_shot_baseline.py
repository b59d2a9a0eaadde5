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
# How well does a language model summarize before we train it? Asking it without training and without an example is called **zero-shot**.
#
# | | |
# |---|---|
# | **You will** | read the data, write ROUGE-1 and ROUGE-L, fool them, set length limits, ask the untrained model for summaries, and score them |
# | **You will learn** | what ROUGE counts and what it cannot see, why a number needs an interval, what a model really reads, and what few-shot examples change |
# | **You need** | Python and one trained model behind you; with the default recipe no GPU, no network, no token |
# | **Time** | an hour and a half with the exercises; the computer needs about 2 minutes of it with the default recipe on 2 CPU cores without GPU |
#
# Words are explained in [GLOSSARY.md](GLOSSARY.md), failures in [TROUBLESHOOTING.md](TROUBLESHOOTING.md), sources in [READING.md](READING.md).
#
# The course has five notebooks. This one measures the score to beat. Notebooks 2 to 4 try to beat it with three ways of training: full fine-tuning,
# LoRA and QLoRA. Notebook 5 asks what each of them gained, and at what cost.
#
# Six **exercises** check themselves. Replace the `...`, run the cell, and read the verdict: passed, almost (with a hint), or not attempted. Hints grow
# with every wrong answer. The notebook runs to its end in any case: where a later cell needs an answer that is missing, the lab's own takes its place.
# Three sections **break** something on purpose, so that you know the symptom when you meet it again. Where you read "Predict", write down what you
# expect before you run the next cell.

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

# %%
# Is this machine fit? Looks at it for some ten seconds; the marks are explained below.
from lab_utils import doctor

healthy = doctor.report()

# %% [markdown]
# The lines above name this machine and the number format in which it usually multiplies matrices. `float32` has 32 bits a number. `bfloat16` and
# `float16` have 16, which is faster where the hardware supports it. A reason is given because some GPUs accept `bfloat16` and only imitate it, slowly.
#
# `[ok]` asks nothing of you, `[warn]` costs speed or a method, and `[FAIL]` must be mended before you go on. Both say how, and name the entry of
# [TROUBLESHOOTING.md](TROUBLESHOOTING.md). The last lines say which recipe this machine is good for, and why. If your instructor chose a recipe, keep that.
#
# **Parameters.** Every notebook has a cell like the next one. A **recipe** is a YAML file in `lab_utils/recipes` that fixes model, data, prompt, limits
# and training. `None` means: as the recipe says. Your own data may be a folder or a single file. Name its two columns if the comments below do not list
# their names. Give all notebooks the same model and data, or their scores cannot be compared.

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
test_examples = None  # how many test documents
data_seed = None  # which documents are drawn, where fewer are used than there are
prompt_examples = 4  # validation documents on which prompts are tried
shots_tried = [0, 1, 3]  # worked examples in the prompts that are tried
assignment = None  # its name, if this is one: kept in the record
student = None  # your id, if you hand this in: kept in the record

# %%
from lab_utils import baselines, check, config, metrics, models, plots, progress, runs
from lab_utils import data as corpora  # `data` is a parameter

settings = config.resolve(
    recipe, "zero_shot", seed, model=model, model_dir=model_dir, data=data, data_dir=data_dir,
    document_column=document_column, summary_column=summary_column,
    test_from=test_from, test_examples=test_examples, data_seed=data_seed,
)  # fmt: skip
corpus = corpora.load(settings.recipe.data)
run = runs.start(run_dir, settings, assignment, student)  # from here on this run is recorded
check.note_in(run_dir)  # what the exercises say is kept beside the records
print(settings.recipe.title)

# %%
print(f"{corpus.name} ({corpus.source})")
print(f"training documents:   {len(corpus.train):,}")
print(f"validation documents: {len(corpus.validation):,}")
print(f"test documents:       {len(corpus.test):,}\n")
for what, notes in {"recipe": settings.recipe.all_notes, "data": corpus.notes}.items():
    print(f"Notes on the {what}:", *(notes or ["none"]), sep="\n- ")

# %% [markdown]
# A recipe's notes say where it comes from, what was corrected, and what its **base model**, the pretrained model that we start from, has seen before.
# The data's notes say what was found in the data. Two findings would matter for every score:
#
# - A document that stands in the training split and in the test split is a **leak**: training would show the model its summary.
# - A document with several reference summaries is **one** test item. Counted once for each of them, it would pass for more evidence than it is.
#
# ## Look at the data
#
# Always read before you train. We call the first test document the **story**. It stays with us through all five notebooks: every method is asked to
# summarize it. Read it and write your own summary, in one or two sentences, on paper. You will need it soon. (In some data, tags such as `#Person1#`
# stand for names.)

# %%
story = corpus.test[0]
print(story.document)

# %% [markdown]
# Now the **references**: the summaries that come with the document. A model's summary is scored against them. Some data sets have one for each
# document, some have several, by different writers. Compare them with yours: first the facts, then the words.
#
# **Predict:** if we count shared words, how similar are two good summaries of one document? 100 would be the same words, 0 none in common.

# %%
for number, reference in enumerate(story.references, 1):
    print(f"{number}. {reference}\n")

# %% [markdown]
# ## ROUGE by hand
#
# ROUGE-1 counts shared words (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries").
#
# - **Precision:** what share of the summary's words is in the reference?
# - **Recall:** what share of the reference's words is in the summary?
# - **F1:** their harmonic mean, 2 P R / (P + R). We write it from 0 to 100.
#
# First the words. We split a text as the library `rouge-score` does: lower case, letters and digits only. Commas and the `#` of `#Person1#` go.
#
# Then we collect texts to score: the story's own beginning (**lead-3**, its first three turns or sentences; a turn is what one speaker says at a time)
# and the other references, if there are any. All are scored against the first reference.

# %%
import re
from collections import Counter


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


reference, *others = story.references
texts = {"lead-3": baselines.lead(story.document)}
for number, text in enumerate(others, 2):
    texts[f"reference {number}"] = text
print(words(reference))

# %% [markdown]
# ### Exercise 1.1 (build): Write ROUGE-1
#
# `summary` and `reference` are lists of words. Return F1, a number from 0 to 100. Two texts without a shared word get 0, and so does an empty list.
#
# A word is shared as often as it occurs in **both** lists: twice in one and three times in the other makes two. `Counter`, imported above, counts.
#
# **Predict:** a summary is one correct word, twenty times. Is its precision high or low? Its recall?

# %%
def rouge1(summary, reference):
    # BEGIN SOLUTION
    mine, theirs = Counter(summary), Counter(reference)
    shared = (mine & theirs).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / mine.total(), shared / theirs.total()
    return 100 * 2 * precision * recall / (precision + recall)
    # END SOLUTION


verdict = check.rouge1(rouge1)
verdict

# %% [markdown] tags=["instructor"]
# **Instructor, 1.1** (10 minutes). Look for the clipped count, `min` of the two counts, and for a word on the empty case. Common: sets in place of
# counts (repeats vanish), `sum(w in reference for w in summary)` (repeats pay), a division by zero. `200 * shared / (len(summary) + len(reference))` is
# the same F1 and worth showing: F1 is the overlap over the mean length.

# %% [markdown]
# Now the library, with its stemmer (explained below) switched off. Both should agree to the last digit. `verdict.best` is your function if it passed,
# and the lab's own if not.

# %%
from rouge_score.rouge_scorer import RougeScorer

rouge1 = verdict.best
library = RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
for name, text in texts.items():
    by_hand = rouge1(words(text), words(reference))
    by_library = 100 * library.score(reference, text)["rouge1"].fmeasure
    print(f"{name}: by hand {by_hand:.2f}, by the library {by_library:.2f}")
    assert abs(by_hand - by_library) < 1e-4
twenty_times = 20 * words(reference)[:1]
print(f"the reference's first word, twenty times: {rouge1(twenty_times, words(reference)):.2f}")

# %% [markdown]
# Twenty times one right word scores next to nothing. The word counts only as often as the reference has it: all other repeats lower precision, and
# recall is what one word is worth.
#
# ROUGE-1 does not see the order of words. **ROUGE-L** does. In place of the shared words it takes the **longest common subsequence**: as many words as
# possible that stand in both texts in the same order. Other words may stand between them. Of *a b c d* and *b x d a* it is *b d*.
#
# ### Exercise 1.2 (build): Write ROUGE-L
#
# Again `summary` and `reference` are lists of words. Return F1 from 0 to 100, with the length of the longest common subsequence as the number of shared
# words, and 0 where nothing is shared. Texts may have hundreds of words, so do not try all subsequences (dynamic programming avoids it).
#
# **Predict:** can ROUGE-L of two texts be higher than their ROUGE-1?

# %%
def rouge_l(summary, reference):
    # BEGIN SOLUTION
    best = [[0] * (len(reference) + 1) for _ in range(len(summary) + 1)]
    for i, mine in enumerate(summary, 1):
        for j, theirs in enumerate(reference, 1):
            if mine == theirs:
                best[i][j] = best[i - 1][j - 1] + 1
            else:
                best[i][j] = max(best[i - 1][j], best[i][j - 1])
    shared = best[-1][-1]
    return 200 * shared / (len(summary) + len(reference)) if shared else 0.0
    # END SOLUTION


verdict = check.rouge_l(rouge_l)
verdict

# %% [markdown] tags=["instructor"]
# **Instructor, 1.2** (15 minutes). Look for the table, or a recursion with `functools.cache`. Common: the longest run of neighbours (that is a
# substring), taking the first match greedily, a recursion that forgets (right, and exponential: the check counts comparisons). ROUGE-L is never above
# ROUGE-1 of the same pair, since a common subsequence is also a set of shared words.

# %%
rouge_l = verdict.best
for name, text in texts.items():
    by_hand = rouge_l(words(text), words(reference))
    by_library = 100 * library.score(reference, text)["rougeL"].fmeasure
    print(f"{name}: ROUGE-L by hand {by_hand:.2f}, by the library {by_library:.2f}")
    print(f"    its ROUGE-1: {rouge1(words(text), words(reference)):.2f}")
    assert abs(by_hand - by_library) < 1e-4

# %% [markdown]
# ROUGE-L is never above ROUGE-1: the words of a common subsequence are shared words.
#
# Most published numbers use **stemming**: "agrees" and "agreed" then count as one word. ROUGE-2 counts pairs of neighbouring words. ROUGE-Lsum is
# ROUGE-L sentence by sentence. `metrics.rouge` gives all of them, stemmed, so its numbers differ a little from ours. From here on we use it.
#
# **Predict:** which of the four is the lowest, and why?

# %%
import pandas as pd

pairs = {"reference 1": metrics.rouge(reference, reference)}
for name, text in texts.items():
    pairs[name] = metrics.rouge(text, reference)
pd.DataFrame(pairs).T.round(1).rename_axis("against reference 1")

# %% [markdown]
# ROUGE-2 is usually the lowest: a pair is shared only if both words are, side by side. And two good summaries of one document are usually far from 100.
# Keep that in mind when a model scores 40.
#
# ### Exercise 1.3 (explore): A true summary, and a false one that scores higher
#
# All three answers are strings. Type your summary from paper as `honest`. Then write `false`: a summary of the story that states something wrong and
# still scores **higher**. Copy the words that make it wrong, as they stand there side by side, into `false_words`.
#
# The check computes ROUGE-1 of both against reference 1, without stemming. `honest` must also be above lead-3. Neither may be the reference word for
# word. Expect to try several.
#
# **Predict:** how few words make a good summary false? How many points do they cost?

# %%
# BEGIN SOLUTION
# half of what a careful writer wrote stands in for your own summary
honest = " ".join(reference.split()[: len(reference.split()) // 2])
false = f"Not true: {reference}"
false_words = "Not true"
# END SOLUTION
check.fool_rouge((honest, false, false_words), document=story.document, reference=reference)

# %% [markdown] tags=["instructor"]
# **Instructor, 1.3** (10 minutes). The check computes scores and cannot judge truth: let neighbours judge each other's pairs. Look for one changed
# number, name or "not" in an otherwise good summary. Common: a false summary made of random words (it does not score), and the belief that stemming or
# ROUGE-2 would have helped. Ask what a score would need to read in order to notice. Notebook 5 comes back to this.

# %% [markdown]
# ## How long are the texts?
#
# A model reads **tokens**: words, parts of words and marks, into which its **tokenizer** splits a text. An English token is about three quarters of a
# word. Longer inputs cost time and memory, so every recipe sets two limits. A document over its limit loses its end, and such documents are counted. A
# summary is never cut: a reference without its end would teach the wrong thing. Training leaves out the few summaries that are too long, and says how
# many.
#
# **Predict:** what share of the documents would lose their end at 256 tokens? And what share would you accept at the recipe's own limit?

# %%
base = models.load(settings)
print(f"{base.precision.name} products: {base.precision.reason}")

# %% [markdown]
# We count the tokens of the training texts. The `summary` of a document is its first reference.

# %%
def count_tokens(text):
    return len(base.tokenizer(text, add_special_tokens=False)["input_ids"])


tokens = {
    "documents": [count_tokens(e.document) for e in corpus.train],
    "summaries": [count_tokens(e.summary) for e in corpus.train],
}

# %%
chosen = settings.recipe.lengths
limits = {"documents": chosen.document_tokens, "summaries": chosen.summary_tokens}
for limit in (256, limits["documents"]):
    over = sum(n > limit for n in tokens["documents"]) / len(tokens["documents"])
    print(f"{over:.0%} of the training documents are longer than {limit} tokens.")
plots.lengths(tokens, limits).save(run.figures / "lengths.png")

# %% [markdown]
# Limits are read off **percentiles**. The 90th percentile is the length that nine of ten texts do not exceed. The longest text of all is a poor guide:
# one outlier would decide how much memory you need. One widely read recipe (Schmid 2023, "Efficient Large Language Model training with LoRA and Hugging
# Face") takes the 85th percentile of the documents and the 90th of the summaries.
#
# ### Exercise 1.4 (build): Find the smallest limit
#
# `lengths` is a list of whole numbers, the tokens of each text, in any order. `share`, from 0 to below 1, is the share of texts that may be cut.
# Return the **smallest** limit, a whole number of tokens, at which no more than that share is cut. A text of exactly that length is not cut.
#
# **Predict:** for lengths 10, 20, 30, 40 and a share of 0.25, what is the limit? What would `numpy.percentile` say, which interpolates between lengths?

# %%
def length_limit(lengths, share):
    # BEGIN SOLUTION
    allowed = int(share * len(lengths))  # whole texts
    return sorted(lengths)[len(lengths) - 1 - allowed]
    # END SOLUTION


verdict = check.length_limit(length_limit)
verdict

# %% [markdown] tags=["instructor"]
# **Instructor, 1.4** (8 minutes). Look for the case of a text of exactly the limit, and for ties. Common: `np.quantile(lengths, 1 - share)`, which
# interpolates to a length that no text has; share and 1 - share exchanged; an index off by one. `method="inverted_cdf"` is the same as this exercise.

# %%
length_limit = verdict.best
allowed = {"half": 0.5, "15%": 0.15, "10%": 0.1, "5%": 0.05, "none": 0.0}
found = {}
for name, lengths in tokens.items():
    found[name] = {label: length_limit(lengths, share) for label, share in allowed.items()}
print("The recipe's limits:", limits)
pd.DataFrame(found).rename_axis("may lose their end")

# %% [markdown]
# For the four lengths the limit is 30: one text of four is longer. Interpolation says 32.5, and no text needs the tokens above 30. Now compare the
# recipe's limits with the table: what share of the texts do they give up?
#
# ## The baseline that costs nothing
#
# A **baseline** is a score to beat. **Lead-3** copies the beginning: the first three turns of a conversation, the first three sentences of an article.
# It understands nothing, so a useful model should beat it. On news that is hard, because articles say the main thing first (See et al. 2017, "Get To
# The Point").
#
# **Predict:** what ROUGE-1 will it get, as a mean over the test documents? Its score on the story is above.

# %%
from types import SimpleNamespace

copies = []
for e in corpus.test:
    copied = baselines.lead(e.document)
    copies.append(SimpleNamespace(id=e.id, prediction=copied, references=e.references))
lead_rows = metrics.score(copies)  # one row of scores for each document
lead = metrics.summarize(lead_rows)["rouge1"]
print(f"lead-3: ROUGE-1 {lead['mean']:.1f}, {len(lead_rows)} documents")
print(f"95% interval: {lead['low']:.1f} to {lead['high']:.1f}")
print(metrics.PROTOCOL)

# %% [markdown]
# The last line is the **protocol**: how the number came about. Scores with different protocols cannot be compared.
#
# **Why an interval?** We have some documents, not all the documents in the world. Other documents would give another mean. The interval comes from the
# **bootstrap**: from our documents draw as many again, with replacement, take the mean, repeat 10,000 times, keep the middle 95% of the means.
#
# A method that is "one point better", inside such an interval, may be no better at all.
#
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
#
# **Predict:** what will stand before the document, and what behind it?

# %%
prompt = base.encoder.prompt_of(story.document)
print(f"{settings.recipe.model.label}: {base.parameters:,} parameters, {base.family}")
print(f"{settings.recipe.prompt.style} prompt of {len(prompt)} tokens\n")
print(base.tokenizer.decode(prompt))

# %% [markdown]
# Two special tokens are worth knowing. Many models expect **BOS** (beginning of sequence) before everything else, once. Many chat templates write it
# themselves. If the tokenizer then adds it a second time, the model sees a form that it never saw in training. So we look at the first tokens and check
# that it does not stand there twice. Some models have no BOS, T5 for one, and some name one and do without it, such as Phi-2.
#
# **EOS** (end of sequence) is how a model says "I am done". Training will teach it when to say so.
#
# In the tokens below, `Ġ` or `▁` stands for a space and `Ċ` for a line break.

# %%
print("the prompt begins:", base.tokenizer.convert_ids_to_tokens(prompt[:6]))
print("BOS:", base.tokenizer.bos_token or "none", "  EOS:", base.tokenizer.eos_token)
assert prompt[:2] != 2 * [base.tokenizer.bos_token_id]  # BOS does not stand there twice

# %% [markdown]
# ### Exercise 1.5 (recall): What does the model read?
#
# A model summarizes a test document, without worked examples in the prompt. Which of these does it read while it does so?
#
# a) the instruction; b) the beginning of the document; c) the end of a document that is longer than the limit; d) the reference; e) the tokens that it
# has written so far; f) summaries of training documents.
#
# Answer with a set of letters, such as `{"a", "d"}`.

# %%
# BEGIN SOLUTION
read = {"a", "b", "e"}
# END SOLUTION
check.model_reads(read)

# %% [markdown]
# ## Ask it
#
# Decoding is **greedy**: always the most probable next token. Other ways may read better, but this one leaves nothing to chance, and that is what a
# comparison needs. An answer ends when the model writes EOS. If it does not, the answer is cut off after `max_new_tokens` tokens.
#
# The first document we ask about is the story.
#
# **Predict:** will a model of this size get the names right? The main point? Will it end by itself?

# %%
from lab_utils import generation

first_try = generation.summarize(base.model, base, [story])
print(first_try.predictions[0].prediction)
print("\nended by itself:", first_try.predictions[0].stopped)

# %% [markdown]
# Check every statement of this answer against the story. Then go on to ask worse.
#
# ## Break it: three ways to ask wrongly
#
# Each of the next three sections makes one usual mistake, on a few validation documents with short answers. None of them is an error to the computer.
# (For the first, transformers has a warning. It is easily lost among others, and this lab silences them.) So you must know the **symptom**.
#
# First two helpers, which do what `generation.summarize` does for every batch. Prompts of different lengths are filled up to one length (**padding**),
# and a mask says which positions are padding. Below it is printed for two toy prompts, of three tokens and of one.

# %%
import torch

from lab_utils.batching import pad_left, pad_right


def batch_of(prompts, pad):
    """The prompts, all of one length, and their mask: 1 for prompt, 0 for padding."""
    ids = pad(prompts, base.tokenizer.pad_token_id)
    mask = pad([[1] * len(prompt) for prompt in prompts], 0)
    device = base.model.device
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


print(batch_of([[5, 6, 7], [8]], pad_left)[1])

# %% [markdown]
# Then the model writes. What a decoder returns begins with its prompt, so we cut that off.

# %%
def answers(prompts, pad, **changes):
    """Short answers to a batch of prompts; `changes` go to the decoding."""
    ids, mask = batch_of(prompts, pad)
    how = generation.decoding(base)
    how.update(max_new_tokens=min(24, how.max_new_tokens), **changes)
    in_precision = base.precision.autocast(base.model.device.type)
    with torch.no_grad(), in_precision, progress.waiting("Answering"):
        output = base.model.generate(input_ids=ids, attention_mask=mask, generation_config=how)
    first = ids.shape[1] if base.family == "causal" else 0
    rows = [base.tokenizer.decode(row[first:], skip_special_tokens=True) for row in output]
    return [text.strip() for text in rows]

# %% [markdown]
# We ask about a document with a short prompt, one with a middle and one with a long one.

# %%
prompt_of = base.encoder.prompt_of
by_length = sorted(corpus.validation[:50], key=lambda e: len(prompt_of(e.document)))
places = sorted({0, len(by_length) // 2, len(by_length) - 1})
few = [by_length[place] for place in places]
prompts = [prompt_of(e.document) for e in few]


def mean_rouge1(texts):
    total = 0
    for text, e in zip(texts, few, strict=True):
        total += metrics.rouge(text, e.summary)["rouge1"]
    return total / len(few)

# %% [markdown]
# ### Break it: padding on the wrong side
#
# A decoder writes behind the **last** position of each row. With padding on the left, that position is the end of the prompt. With padding on the
# right it is padding, and the first new token is predicted from there. An encoder-decoder writes in a row of its own and masks the padding of the
# other, so the side should make no difference to it.
#
# **Predict:** which of these documents is answered the same on both sides? (Prompts that the limit cuts to one length need no padding: then there is
# nothing to see.)

# %%
padded = {"left": answers(prompts, pad_left), "right": answers(prompts, pad_right)}
for prompt, left, right in zip(prompts, *padded.values(), strict=True):
    filled = max(map(len, prompts)) - len(prompt)
    same = "the same answer" if left == right else "another answer"
    print(f"{filled} tokens of padding, {same}")
    print(f"  left:  {left!r}")
    print(f"  right: {right!r}\n")
for side, written in padded.items():
    print(f"{base.family}, padded on the {side}: ROUGE-1 {mean_rouge1(written):.1f}")

# %% [markdown]
# **Symptom:** the longest document of every batch, which has no padding, is answered as usual. The others derail at their first word, and scores change
# with the batch size. Ask one document alone and in a batch: if the answers differ from the beginning, look at the padding. (Further on they may part
# without any mistake: sums in 16 bits depend on the shape of the batch, and one other word leads to others.) **Left to generate with a decoder,
# right to train**, and always with the mask.
#
# ### Break it: sampling while scoring
#
# Many models are published with sampling switched on: the next token is drawn by its probability. That makes livelier chats. We score the same
# documents three times that way, and greedily a second time.
#
# **Predict:** how many points lie between the best and the worst of the three?

# %%
usual, pad = ("left", pad_left) if base.family == "causal" else ("right", pad_right)
with torch.random.fork_rng():  # what comes later must not depend on this cell
    torch.manual_seed(seed)
    drawn = answers(3 * prompts, pad, do_sample=True)  # each prompt three times, in one batch
again = answers(prompts, pad)

# %% [markdown]
# The first third of what was drawn is one round of answers, and so on.

# %%
count = len(few)
rounds = [mean_rouge1(drawn[i * count : (i + 1) * count]) for i in range(3)]
print("sampled:", *(f"{score:.1f}" for score in rounds))
print(f"spread:  {max(rounds) - min(rounds):.1f} points of ROUGE-1")
print(f"greedy:  {mean_rouge1(padded[usual]):.1f} {mean_rouge1(again):.1f}")
print("the same greedy answers both times:", "yes" if again == padded[usual] else "no")

# %% [markdown]
# **Symptom:** the same model gets another score each time it is scored, and a difference between two methods comes and goes. The spread above is due
# to chance alone. A comparison that samples must average over many draws; one that decodes greedily need not.
#
# ### Break it: another prompt than the model knows
#
# We leave out what the model was trained to see: the chat template, if its prompt has one, and then the instruction too.
#
# **Predict:** will the score fall? Will the answers still look like summaries?

# %%
from dataclasses import replace

own = settings.recipe.prompt
forms = {}
if own.style == "chat":
    forms["no chat template"] = own.model_copy(update={"style": "plain", "system": None})
forms["the document alone"] = config.Prompt(style="plain", instruction="")
told = {"the recipe's prompt": padded[usual]}
for name, form in forms.items():
    encoder = replace(base.encoder, prompt=form)
    told[name] = answers([encoder.prompt_of(e.document) for e in few], pad)
for name, found in told.items():
    print(f"{name}: ROUGE-1 {mean_rouge1(found):.1f}, for example {found[0]!r}\n")

# %% [markdown]
# **Symptom:** a lower score, and other answers: empty, going on with the document, about something else, or without end. No message says why.
# With so few documents the score alone proves nothing, so read the answers. Print one decoded prompt, as we did above, before you trust any score. In
# this course one function writes every prompt, for training and for generation alike.
#
# ## Does it help to show examples?
#
# **One-shot** puts a worked example before the question; **few-shot** puts several. It costs no training, but every example is read again for every
# summary. With long documents the prompt may grow past the longest text that the model was trained on, and then answers fall apart.
#
# We try this on *validation* documents. Choosing a prompt on the test set would be peeking.
#
# **Predict:** which number of examples wins? Which ends its answers most reliably?

# %%
asked = corpus.validation[:prompt_examples]
results, tried = {}, {}
for shots in shots_tried:
    worked = corpus.train[:shots]
    results[shots] = generation.summarize(base.model, base, asked, shots=worked)
    scored = metrics.score(results[shots].predictions)
    longest = max(len(prompt_of(e.document, worked)) for e in asked)
    tried[shots] = {"scores": [row["rouge1"] for row in scored], "tokens": longest}

# %% [markdown]
# All prompts were asked about the same documents, so we compare document by document: each prompt's **paired difference** to the one with the highest
# mean (0 for the highest itself), with its 95% interval. Where that interval contains 0, these documents do not show which of the two is better. (With
# so few documents, even these intervals are too narrow.)

# %%
from lab_utils import significance

highest = max(tried, key=lambda shots: sum(tried[shots]["scores"]))
top = tried[highest]["scores"]
gaps = {}
for shots, trial in tried.items():
    gaps[shots] = significance.paired_difference(trial["scores"], top)
    print(f"{shots} examples minus {highest}: {gaps[shots].signed()}")

# %% [markdown]
# The table has the means, each with an interval of its own, these differences, and what each prompt costs.

# %%
rows = {}
for shots, trial in tried.items():
    rows[f"examples: {shots}"] = {
        "ROUGE-1": str(significance.bootstrap(trial["scores"])),
        "minus the highest": gaps[shots].signed(),
        "longest prompt, tokens": trial["tokens"],
        "ended by itself": f"{results[shots].describe()['stopped_share']:.0%}",
        "seconds": round(results[shots].seconds, 1),
    }
pd.DataFrame(rows).T

# %% [markdown]
# Compare the table with your predictions. The highest mean alone does not say which prompt wins; the differences do.
#
# ### Exercise 1.6 (explore): How many examples?
#
# Choose a number of examples from the table, as `shots`, and give your `reason`, a string: `"score"` if the score alone settles it, `"cost"` if several
# are level and the shortest prompt decides. Level means: the interval of the difference to the highest mean contains 0. The check compares your claim
# with the table.
#
# Then change `shots_tried` or `prompt_examples` in the parameters cell, run it, and run this section again.
#
# **Predict:** with twice as many documents, would your choice stand?

# %%
# BEGIN SOLUTION
shots = min((k for k in gaps if not gaps[k].excludes_zero()), key=lambda k: tried[k]["tokens"])
reason = "cost" if sum(not gap.excludes_zero() for gap in gaps.values()) > 1 else "score"
# END SOLUTION
check.prompt_choice((shots, reason), tried=tried)

# %% [markdown] tags=["instructor"]
# **Instructor, 1.6** (10 minutes). Look for a choice that names the interval. Common: the highest mean taken for the winner, separate intervals
# compared where paired ones are to be had, "no difference" concluded from an interval that contains 0. A good answer adds what would settle it: more
# documents. Ask what 500 summaries would cost with each prompt.

# %% [markdown]
# The course goes on with zero examples, whatever you chose. Every method will get that same prompt. Otherwise we could not tell what training did from
# what the prompt did.
#
# ## The baseline on the test set
#
# Now the real measurement, on every test document. It is written to a **record**, `run.json`, with the settings, the versions, the scores and their
# protocol. The summaries go to `predictions.jsonl`. Notebook 5 reads both.
#
# **Predict:** what ROUGE-1 will the untrained model get? Above lead-3, or below?

# %%
from lab_utils import methods

run.add(data=corpus.describe(), model=base.describe())
scores = methods.evaluate(base.model, base, corpus, run)
print(metrics.PROTOCOL)
pd.DataFrame({name: scores[name] for name in metrics.ROUGE}).T.round(1)

# %% [markdown]
# Is that what one should expect here? The lab keeps records of its own runs. The 95% interval of a recorded mean is the **band** in which your mean
# should lie, if you changed nothing.

# %%
from lab_utils import expected

print(expected.sentence(run.record))

# %% [markdown]
# The same ROUGE-1 as a picture, beside other scores to judge it by. Three of them copy: **lead-3** the beginning, **longest-3** the three longest turns
# or sentences, **whole document** everything. Where documents have several references there is also **one reference against the others**: what one
# writer gets when scored against other writers. No system should be expected to pass that by much.
#
# The sentences after the picture test the differences. Their p values and Holm's correction are explained in notebook 5.
#
# **Predict:** which of the three copies scores highest, and which lowest?

# %%
from lab_utils import comparison

finished = [runs.read(run_dir, "zero_shot")]
systems = comparison.lines(finished, {e.id: e.document for e in corpus.test})
rows = {}
for s in systems:
    i = metrics.summarize(s.rows)["rouge1"]
    rows[s.name] = (i["mean"], i["low"], i["high"])
plots.intervals(rows, "ROUGE-1").save(run.figures / "baseline.png")

# %%
for sentence in comparison.findings(systems):
    print(sentence)

# %% [markdown]
# ## What goes wrong?
#
# The whole document has every word that can be shared, so its recall is high; its many other words lower precision. A copy can score above a model and
# still be no summary.
#
# A mean hides how a model fails. Read the worst and the best summary.
#
# **Predict:** does the best one retell its document, or copy from it?

# %%
predictions = {p.id: p for p in finished[0].predictions}
ranked = sorted(metrics.score(finished[0].predictions), key=lambda row: row["rouge1"])
for name, row in [("worst", ranked[0]), ("best", ranked[-1])]:
    p = predictions[row["id"]]
    print(f"{name}, ROUGE-1 {row['rouge1']:.1f}")
    print(f"  model:     {p.prediction}")
    print(f"  reference: {p.references[0]}\n")

# %%
ended = finished[0].record["generation"]["stopped_share"]
print(f"{ended:.0%} of the answers ended by themselves; the rest ran into max_new_tokens.")
lengths = [len(p.prediction.split()) for p in predictions.values()]
wanted = [len(e.summary.split()) for e in corpus.test]
print(f"words in an answer, on average: {sum(lengths) / len(lengths):.0f}")
print(f"in a first reference: {sum(wanted) / len(wanted):.0f}")

# %% [markdown]
# ## The story, and the ledger
#
# This is the untrained model's recorded summary of our story. It may part from the first try: there the story was asked alone, here in a batch.
# Notebooks 2 to 4 ask their trained models for the same document, and every answer goes into the records that notebook 5 compares.

# %%
answer = predictions[story.id].prediction
print(f"reference: {reference}\n\nzero-shot: {answer}\n")
for name, text in {"zero-shot": answer, "lead-3": texts["lead-3"]}.items():
    print(f"{name}, ROUGE-1 against reference 1: {rouge1(words(text), words(reference)):.1f}")

# %% [markdown]
# Compare the two scores with what you read: shared words are not yet a summary.
#
# What does a point of ROUGE cost? From here on we keep a **ledger**: one row for each method, with what was trained, how much memory and time it
# took, how large the saved weights are (the checkpoint), and the score. This is its first row. Zero-shot trains nothing, so its memory is that of
# generating.
#
# Notebook 2 adds the row of full fine-tuning. **Predict** it now, on paper: how many trainable parameters, how much memory, how large a checkpoint,
# how many points?

# %%
pd.DataFrame(comparison.ledger(finished)).set_index("method")

# %% [markdown] tags=["solution"]
# ### Answers to the questions at the end
#
# <details><summary>Show the answers</summary>
#
# 1. The name counts once, as often as the reference has it. Precision falls to one in twenty; recall is what one word is worth. Clipping the counts
#    does this.
# 2. ROUGE-L, and also ROUGE-2. ROUGE-1 counts words wherever they stand.
# 3. The references belong to one document, so their scores rise and fall together. Counted as several items they would make the interval too narrow:
#    it would claim more evidence than there is.
# 4. A decoder continues from the last position of its row, and on the left no padding stands there. An encoder-decoder writes in a row of its own and
#    masks the padding in the source.
# 5. A prompt chosen on the test set is chosen partly for the luck it has there, so its test score would be too good. Sampling would add the luck of
#    the dice to every comparison.
# 6. They overlap widely, so neither is shown to be better. The second is known more exactly (more documents, or scores that vary less). Paired
#    differences on the same documents would be needed; until then choose by cost.
# 7. For ranking systems of one kind on many documents it is cheap and repeatable. It does not see truth: beside it belong people who check facts,
#    questions about names and numbers, or a model that judges entailment. Nobody should be told "it is right" by a ROUGE score.
#
# </details>

# %% [markdown]
# ## In this notebook we have
#
# - written ROUGE-1 and ROUGE-L and confirmed both with the library,
# - seen that a false summary can score above a true one,
# - set length limits from the data,
# - scored lead-3, with an interval,
# - looked at what the model reads, asked wrongly in three ways, and tried prompts with and without examples,
# - recorded the zero-shot baseline that every method must beat, as the first row of the ledger.
#
# **Questions**
#
# 1. A summary repeats one correct name twenty times. What happens to its precision, what to its recall?
# 2. Two summaries have the same words in another order. Which of ROUGE-1, ROUGE-2 and ROUGE-L can tell them apart?
# 3. Why is each document one item, even where it has several references?
# 4. Why are a decoder's prompts padded on the left, and why is the side all the same to an encoder-decoder?
# 5. Why were prompts tried on validation documents, and answers decoded greedily?
#
# To discuss:
#
# 6. One system has 36.0 with an interval of 30 to 42, another 34.0 with 33 to 35. Which would you use, and what would you measure first?
# 7. Your false summary scored higher than your true one. Where would you still trust ROUGE, and what would you put beside it?
#
# **Next:** `02_full_fine_tuning` changes all the weights and writes the second row of the ledger. Take the baseline's ROUGE-1 and your guess for the
# gain with you.
