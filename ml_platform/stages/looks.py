"""How else an evaluated model is looked at: the threshold, calibration, slices, time, a constant, and each feature.

Each look has a file with all of it and the facts that people are shown; those that judge are asset checks too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.pipeline import METRICS, Pipeline
from ml_platform.stages.shown import rounded
from ml_platform.stages.stage import Check, CheckResult

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_platform.evaluation.intervals import Answers, Interval
    from ml_platform.training.scoring import Scorer

SLICES_FILE = "slices.json"
CALIBRATION_FILE = "calibration.json"
THRESHOLD_FILE = "threshold.json"
CLASSES_FILE = "classes.json"
FOUND_FILE = "found_slices.json"
TIME_FILE = "over_time.json"
IMPORTANCE_FILE = "importance.json"
FILES = (SLICES_FILE, CALIBRATION_FILE, THRESHOLD_FILE, CLASSES_FILE, FOUND_FILE, TIME_FILE, IMPORTANCE_FILE)
"""Every file that a look may leave."""
CALIBRATED = "calibrated"
SLICES = "slices"
CONSTANT = "beats_constant"
SHOWN = 20
"""Slices in a check's table, the worst."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model that is looked at.

    Args:
        pipeline: its gate.
        answers, baseline, constant: of the model, of gradient boosting, and of the constant predictor, for the same
            rows.
        columns: values of every feature and of the `sliced` columns, in the order of the rows.
        batches: rows by batch, in the order of the rows.
        around: intervals of the metrics over all rows.
        scorer: the model.
    """

    pipeline: Pipeline
    answers: Answers
    baseline: Answers
    constant: Answers
    columns: Mapping[str, pa.ChunkedArray]
    batches: Mapping[str, int]
    around: Mapping[str, Interval]
    scorer: Scorer

    @property
    def metric(self) -> str:
        """The metric by which parts of the rows are compared."""
        return self.pipeline.model_gate.main(METRICS[self.pipeline.task][0])


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one way of looking at a model came to.

    Args:
        facts: what an evaluation keeps of it.
        file: all of it, as JSON, where that is more; its name is that of the artifact's file.
        intervals: of figures that it knows about, by name.
        check: for people, where it judges.
        rejects: whether it keeps the model out of the registry.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    check: CheckResult | None = None
    rejects: bool = False


def checks(pipeline: Pipeline) -> Iterator[Check]:
    """The asset checks of those looks that a pipeline's task and columns allow."""
    gate = pipeline.model_gate
    text = "Is the model surely better than the training label's shares, or its mean, said of every row?"
    yield Check(name=CONSTANT, description=text, blocking=False)
    if pipeline.task != "regression":
        text = "Do probabilities come true as often as they say?"
        yield Check(name=CALIBRATED, description=text, blocking=gate.calibration.reject is not None)
    if columns := sliced(pipeline):
        text = f"Is the model good on each part of the held-out rows, by {', '.join(columns)}?"
        yield Check(name=SLICES, description=text, blocking=gate.slice_bound is not None)


def sliced(pipeline: Pipeline) -> tuple[str, ...]:
    """Columns by whose values the held-out rows are looked at apart."""
    declared = pipeline.model_gate.slices
    return pipeline.features.categorical if declared is None else declared


def kept(pipeline: Pipeline) -> tuple[str, ...]:
    """Columns whose values are wanted beside the scores."""
    return tuple(dict.fromkeys([*pipeline.features.columns, *sliced(pipeline)]))


def look(subject: Subject, scratch: Path) -> Iterator[Look]:
    """Look at a model in every way that its task and columns allow. Files are written into `scratch`."""
    yield _constant(subject)
    match subject.pipeline.task:
        case "binary":
            yield _threshold(subject, scratch / THRESHOLD_FILE)
        case "multiclass":
            yield _classes(subject, scratch / CLASSES_FILE)
        case "regression":
            yield _errors(subject)
    if subject.pipeline.task != "regression":
        yield _calibration(subject, scratch / CALIBRATION_FILE)
    if sliced(subject.pipeline):
        yield _slices(subject, scratch / SLICES_FILE)
    yield _search(subject, scratch / FOUND_FILE)
    yield _over_time(subject, scratch / TIME_FILE)
    yield _importance(subject, scratch / IMPORTANCE_FILE)


def _constant(subject: Subject) -> Look:
    from ml_platform.evaluation.champion import compare

    gate = subject.pipeline.model_gate
    found = compare(subject.answers, subject.constant, subject.metric, gate)
    beats = found.low > 0  # NaN, which is not known, is not
    facts = {"metric": found.metric, "gain": _known(found.gain), "low": _known(found.low), "high": _known(found.high)}
    said = f"{found.metric} is {found.model:.4f}, that of the constant predictor {found.champion:.4f}: {found.around}"
    told = said if beats else f"{said}. The model is not surely better than saying the same of every row."
    return Look(
        facts={"beats_constant": {**facts, "passed": beats}},
        check=CheckResult(name=CONSTANT, passed=beats, warn=True, description=told, metadata=facts),
    )


def _threshold(subject: Subject, path: Path) -> Look:
    from ml_platform.evaluation.threshold import threshold

    gate = subject.pipeline.model_gate
    found = threshold(subject.answers, gate.threshold, draws=gate.draws, confidence=gate.confidence)
    record = found.record()
    return Look(facts={"threshold": record}, file=_written(path, record), intervals=found.intervals)


def _classes(subject: Subject, path: Path) -> Look:
    from ml_platform.evaluation.details import by_class

    gate = subject.pipeline.model_gate
    found = by_class(subject.answers, draws=gate.draws, confidence=gate.confidence)
    return Look(facts={"classes": found[:SHOWN]}, file=_written(path, found))


def _errors(subject: Subject) -> Look:
    from ml_platform.evaluation.details import error_intervals

    gate = subject.pipeline.model_gate
    return Look(intervals=error_intervals(subject.answers, draws=gate.draws, confidence=gate.confidence))


def _calibration(subject: Subject, path: Path) -> Look:
    from ml_platform.evaluation.calibration import calibration
    from ml_platform.evaluation.intervals import Interval

    gate = subject.pipeline.model_gate
    found = calibration(subject.answers, draws=gate.draws, confidence=gate.confidence)
    _written(path, asdict(found) if found else None)
    if found is None:
        check = CheckResult(name=CALIBRATED, passed=False, warn=True, description="Not reached.")
        return Look(check=check, file=path)
    warn, reject = gate.calibration.warn, gate.calibration.reject
    rejects = reject is not None and found.low > reject
    limit = reject if rejects else warn
    figures = {"error": found.error, "low": found.low, "high": found.high}
    said = f"the expected calibration error is {found.error:.4f} [{found.low:.4f}, {found.high:.4f}]"
    passed = not rejects and (warn is None or found.low <= warn)
    check = CheckResult(
        name=CALIBRATED,
        passed=passed,
        warn=not rejects,
        description=said if passed else f"{said}, surely above {limit}",
        metadata={**figures, "bins": [{k: rounded(v) for k, v in row.items()} for row in found.bins]},
    )
    return Look(
        check=check,
        file=path,
        rejects=rejects,
        facts={"calibration": figures},
        intervals={"calibration_error": Interval(found.low, found.high)},
    )


def _slices(subject: Subject, path: Path) -> Look:
    from ml_platform.evaluation.slices import described, slices

    gate, metric = subject.pipeline.model_gate, subject.metric
    columns = {name: subject.columns[name] for name in sliced(subject.pipeline)}
    overall = subject.around.get(metric)
    found = slices(subject.answers, columns, metric=metric, overall=overall, gate=gate, baseline=subject.baseline)
    records = [slice_.record() for slice_ in found]
    rejects = any(slice_.rejects for slice_ in found)
    said = described(found) or f"{metric} was looked at in {len(found)} slices of at least {gate.slice_rows} rows"
    check = CheckResult(
        name=SLICES,
        passed=not any(slice_.bad for slice_ in found),
        warn=not rejects,
        description=said,
        metadata={"metric": metric, "worst": [{k: rounded(v) for k, v in r.items()} for r in records[:SHOWN]]},
    )
    file = _written(path, {"metric": metric, "slices": records})
    return Look(check=check, file=file, rejects=rejects, facts={"slices": records[:SHOWN]})


def _search(subject: Subject, path: Path) -> Look:
    from ml_platform.evaluation.search import search

    features = subject.pipeline.features
    categorical = dict.fromkeys([*features.categorical, *sliced(subject.pipeline)])
    found = search(
        subject.answers,
        categorical={name: subject.columns[name] for name in categorical},
        numeric={name: subject.columns[name] for name in features.numeric},
        metric=subject.metric,
        gate=subject.pipeline.model_gate,
        baseline=subject.baseline,
    )
    record = {"loss": found.loss, "looks": found.looks, "slices": [slice_.record() for slice_ in found.slices]}
    return Look(facts={"found_slices": record}, file=_written(path, {"metric": subject.metric, **record}))


def _over_time(subject: Subject, path: Path) -> Look:
    from ml_platform.evaluation.over_time import over_time

    gate, metric = subject.pipeline.model_gate, subject.metric
    found = over_time(subject.answers, subject.batches, metric=metric, gate=gate, baseline=subject.baseline)
    return Look(facts={"over_time": found}, file=_written(path, {"metric": metric, "batches": found}))


def _importance(subject: Subject, path: Path) -> Look:
    import pyarrow as pa

    from ml_platform.evaluation.importance import importance

    rows = pa.table({name: subject.columns[name] for name in subject.scorer.columns})
    most = subject.pipeline.model_gate.importance_rows
    found = importance(subject.scorer, rows, subject.answers, metric=subject.metric, most_rows=most)
    records = [each.record() for each in found]
    return Look(facts={"importance": records}, file=_written(path, {"metric": subject.metric, "features": records}))


def _written(path: Path, record: Any) -> Path:
    path.write_text(json.dumps(record, indent=1))
    return path


def _known(value: float) -> float | None:
    return None if value != value else value
