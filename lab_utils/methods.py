"""One method from start to record: the steps that notebooks 01 to 04 take one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab_utils import (
    adapters,
    companions,
    data,
    fields,
    files,
    generation,
    integrity,
    metrics,
    models,
    processes,
    runs,
    scrubbing,
    trainer,
    training,
)
from lab_utils.config import Settings
from lab_utils.environment import say
from lab_utils.errors import LabError


def run(settings: Settings, run_dir: str | Path) -> runs.Run:
    """Trains (unless zero-shot), saves, summarizes the test set, scores it and leaves a finished record.

    A run that was interrupted goes on where it stood, if it is started again with the same settings.

    Where several processes run it together, all train and summarize; the main one saves, scores and records.

    Raises:
        LabError: a batch that cannot be dealt out to so many processes, before an older record is replaced.
    """
    if settings.training is not None:
        trainer.accumulation(settings.training)
    record = runs.start(run_dir, settings)
    with record.watched():
        with processes.first_on_each_node():
            corpus = data.load(settings.recipe.data)
        for note in corpus.notes:
            say(note)
        base = models.load(settings)
        record.add(data=corpus.describe(), model=base.describe())
        model = base.model
        if settings.method in ("lora", "qlora"):
            model = adapters.attach_lora(base)
        if settings.method != "zero_shot":
            train(model, base, corpus, record)
        evaluate(model, base, corpus, record)
    return record


def train(model, base: models.Base, corpus: data.Corpus, record: runs.Run) -> training.History:
    """Trains the model in place, saves it, and records what it cost.

    Raises:
        LabError: the base weights under an adapter changed; they must not.
    """
    check = base.settings.method != "full" and (processes.is_main() or processes.sharded())
    with record.watched():
        before = models.fingerprint(model) if check else None
        history = training.train(
            model, base, corpus.train, corpus.validation, log_file=record.folder / "log.csv", checkpoints=record.checkpoints
        )
        if check and models.fingerprint(model) != before and processes.is_main():
            raise LabError("Training changed the base model's weights, which an adapter must leave alone: nothing was recorded.")
        trainable = models.trainable_parameters(model)
        saved = save(model, base, record.folder)
        record.add(training=history.describe(), model=base.describe() | {"trainable_parameters": trainable, **saved})
    return history


def save(model, base: models.Base, folder: Path) -> dict[str, Any]:
    """Writes `adapter/` or, after full fine-tuning, `model/`, in the main process; returns size and hash of the weights, for the record.

    A fully trained model leaves its float32 master weights behind and is kept, and evaluated, in the precision of the products.
    """
    full = base.settings.method == "full"
    target = folder / ("model" if full else "adapter")
    if full:
        model.to(base.precision.dtype)
        model.config.use_cache = True  # Trainer switches it off
        model.generation_config = generation.decoding(base)  # so that whoever loads it alone gets the answers scored here
    weights = None
    if processes.sharded():
        weights = {name: models.whole(p.detach()).cpu() for name, p in model.named_parameters() if full or "lora_" in name}
    if not processes.is_main():
        return {}
    try:
        with files.system_errors():
            if full:
                model.save_pretrained(target, state_dict=weights)
                base.tokenizer.save_pretrained(target)
            else:
                adapters.save_adapter(model, base, target, weights)
    except OSError as error:
        raise LabError(
            f"Cannot save to '{target}' ({scrubbing.reason(error)}): free some space and give the same command again, which goes on here."
        ) from error
    size = sum(path.stat().st_size for path in target.glob("*.safetensors"))
    return {"checkpoint_mb": round(size / 1e6, 2), "saved": integrity.checkpoint_fingerprint(target)}


def evaluate(model, base: models.Base, corpus: data.Corpus, record: runs.Run) -> dict[str, Any]:
    """Summarizes the test set, scores it, and finishes the record; returns its `metrics` (nothing where another process scores)."""
    with record.watched():
        generated = generation.summarize(model, base, corpus.test, unfinished=record.unfinished)
        if not processes.is_main():
            return {}
        record.save_predictions(generated.predictions)
        documents = {example.id: example.document for example in corpus.test}
        scores = metrics.summarize(metrics.score(generated.predictions, documents))
        scores["corpus"] = companions.corpus(generated.predictions)
        record.add(generation=generated.describe(), metrics=scores)
        record.finish()
    _publish(base.settings, record)
    if generated.cut_documents:
        limit = base.settings.recipe.lengths.document_tokens
        say(f"{generated.cut_documents} of {len(corpus.test)} documents are longer than document_tokens={limit}; their end was not read.")
    return scores


def _publish(settings: Settings, record: runs.Run) -> None:
    """Uploads the result where the recipe says so. Without token or network the run is finished all the same, and says what is missing."""
    wanted = settings.recipe.publishing
    if wanted.publish_to and settings.method != "zero_shot":
        from lab_utils import publish

        try:
            name = f"{wanted.publish_to}-{settings.method}"
            finished = runs.read(record.folder.parent, settings.method)
            address = publish.publish(finished, name, wanted.publish_merged, settings.recipe.model.source)
            say(f"Published: {address}")
        except LabError as error:
            say(str(error))


def restore(run_dir: str | Path, method: str, model_dir: str | None = None) -> tuple[Any, models.Base]:
    """The trained model of a finished run, with its base, ready to summarize.

    Args:
        model_dir: the base's folder, where it was a local one: a record keeps no paths.

    Raises:
        LabError: what was saved is not there any more, or not as it was.
    """
    finished = runs.read(run_dir, method)
    full = method == "full"
    if method != "zero_shot":
        integrity.check_saved(finished.folder / ("model" if full else "adapter"), finished.record["model"].get("saved"))
    settings = finished.settings(str(finished.folder / "model") if full else model_dir)
    if full:
        settings = fields.changed(settings, method="zero_shot")
    base = models.load(settings)
    return (base.model if method in ("full", "zero_shot") else adapters.load_adapter(base, finished.folder / "adapter")), base
