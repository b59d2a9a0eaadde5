"""The trainings of a sweep, one after the other, each with a record of its own."""

from __future__ import annotations

import gc
import math
import sys
import time
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import median

from lab_utils import adapters, config, data, environment, locks, methods, models, runs, scrubbing, training
from lab_utils.environment import say
from lab_utils.errors import LabError, TrainingDiverged
from lab_utils.progress import duration
from lab_utils.sweep.grid import Point, merging
from lab_utils.sweep.records import keep_plan, record_of
from lab_utils.sweep.table import report

CLAIMS = ".claims"


def run(points: Sequence[Point], out: str | Path, only: Collection[int] | None = None) -> None:
    """Trains and measures the points, each into a folder of its own under `out`; where all were asked for, the table is written, too.

    A point that is finished with the same settings is kept, whatever its number was. One that another process is running is left to it.
    One that fails is recorded so, and the others go on.

    Args:
        only: numbers of points; the others are left alone.

    Raises:
        LabError: a number that no point has; or, at the end, which points failed and why.
    """
    if missing := set(only or ()) - {point.number for point in points}:
        raise LabError(f"No point {', '.join(map(str, sorted(missing)))}: this grid has points 1 to {len(points)} (`--list` shows them).")
    out = Path(out)
    keep_plan(points, out)
    chosen = [point for point in points if only is None or point.number in only]
    ahead = [point for point in chosen if not _is_finished(out, point)]
    say(f"{merging(points)}; {len(chosen) - len(ahead)} of {len(chosen)} are finished already, with the same settings.")
    failed, took = [], []
    for place, point in enumerate(ahead, 1):
        say(f"[{place}/{len(ahead)}] {point.name}")
        try:
            mine = locks.hold(out / CLAIMS / point.key, patience=0)
        except locks.Busy:
            say("being run by another process: going on with the next")
            continue
        with mine:
            if _is_finished(out, point):
                say("finished by another process meanwhile")
                continue
            started = time.perf_counter()
            reason = _attempt(point, out / point.folder)
        if reason:
            say(f"{point.name} failed: {reason}")
            failed.append(f"{point.name} ({reason})")
            continue
        took.append(time.perf_counter() - started)
        later = len(ahead) - place
        left = f"; {duration(later * median(took))} left for {later} more" if later else ""
        say(f"{point.name}: done in {duration(took[-1])}{left}")
    if only is None:
        say(f"table: {report(out)}")
    if failed:
        raise LabError(
            f"{len(failed)} of {len(chosen)} points failed: {'; '.join(failed)}. "
            "Mend them, or take them out of the grid, and give the same command again: finished points are kept."
        )


def _attempt(point: Point, folder: Path) -> str | None:
    """Measures a point; returns why it failed, if it did."""
    try:
        if point.measure == "test":
            methods.run(point.settings, folder)
        else:
            _validate(point.settings, folder)
    except LabError as error:
        return str(error).rstrip(".")
    except Exception as error:  # whatever went wrong here, out of memory or a mistake of ours, must not cost the other points
        print(scrubbing.without_secrets(traceback.format_exc()), file=sys.stderr)
        return scrubbing.text(f"{type(error).__name__}: {error}").rstrip(".")
    finally:
        gc.collect()
        environment.return_memory()
    return None


def _validate(settings: config.Settings, folder: Path) -> None:
    """Trains, if the method does, and leaves a finished record with the loss on the validation documents: no adapter, no summaries."""
    record = runs.start(folder, settings)
    with record.watched():
        corpus, base = data.load(settings.recipe.data), models.load(settings)
        record.add(data=corpus.describe(), model=base.describe())
        model = adapters.attach_lora(base) if settings.method in ("lora", "qlora") else base.model
        if settings.training is not None:
            history = training.train(model, base, corpus.train, log_file=record.folder / "log.csv")
            trainable = models.trainable_parameters(model)
            record.add(training=history.describe(), model=base.describe() | {"trainable_parameters": trainable})
        loss = training.validation_loss(model, base, corpus.validation)
        if not math.isfinite(loss):
            raise TrainingDiverged(f"The validation loss is {loss}: try a third of the learning rate.")
        record.add(validation={"loss": loss, "examples": len(corpus.validation)})
        record.finish()


def _is_finished(out: Path, point: Point) -> bool:
    return record_of(out, point.key, point.settings.method).get("status") == "finished"
