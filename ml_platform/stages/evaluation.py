"""evaluation: the trained model on the holdout, beside the baseline on the same rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.pipeline import METRICS
from ml_platform.stages.baseline import SCORES_FILE, learning_params, settled_inputs
from ml_platform.stages.shown import rounded
from ml_platform.stages.stage import UNPARTITIONED, Bench, Check, CheckResult, Outcome, Stage, Work
from ml_platform.stages.trained_model import model_folder
from ml_platform.stages.training_set import TrainingList, load_training_list
from ml_platform.store.manifest import ArtifactFile, Manifest
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.evaluation.predictions import Predictions
    from ml_platform.stages.chain import Chain

PREDICTIONS_FILE = "predictions.parquet"
METRICS_FILE = "metrics.json"
PLOTS = "plots/"
SANE = "predictions_differ"


class Evaluation(Stage):
    """One artifact: metrics, the scores of every holdout row, and plots."""

    name = "evaluation"
    kinds = ("scikitlearn", "parquet")

    @property
    def description(self) -> str:
        return (
            "Unpartitioned: how good the trained model is on the held-out batches, which are later in time, beside "
            "gradient boosting on the same rows. Its checks decide whether the model may be registered."
        )

    @property
    def upstream(self) -> tuple[str, ...]:
        return ("training_set", "baseline", "trained_model")

    def code(self) -> CodeVersion:
        roots = (
            "ml_platform.evaluation.metrics:compute",
            "ml_platform.evaluation.predictions:score",
            "ml_platform.evaluation.sanity:check",
            "ml_platform.training.scoring:Scorer",
        )
        params = {"layout": 2, **learning_params(self), "gates": [str(gate) for gate in self.pipeline.gates]}
        return code_version(roots, params=params, libraries=("scikit-learn", "torch"))

    def checks(self) -> tuple[Check, ...]:
        gates = (Check(name=_gate_check(gate.metric), description=f"Is {gate}?") for gate in self.pipeline.gates)
        sane = Check(name=SANE, description="Does the model tell rows apart, instead of saying the same of all?")
        return (*gates, sane)

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        return settled_inputs(chain, self.upstream)

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        import numpy as np

        from ml_platform.evaluation import metrics, sanity
        from ml_platform.evaluation.predictions import score
        from ml_platform.training.scoring import Scorer
        from ml_platform.versions.content import content_versions

        (work,) = works
        listed = load_training_list(bench, work)
        folder = model_folder(bench.store, work.manifests["trained_model"], bench.scratch / "model")
        table = bench.scratch / PREDICTIONS_FILE
        holdout = {m.batch: TrainingList.paths(bench.store, [m]) for m in listed.holdout}
        predictions = score(self.pipeline, Scorer.load(folder), holdout, out=table)
        found = metrics.compute(self.pipeline.task, predictions.target, predictions.scores, predictions.classes)
        baseline = work.manifests["baseline"]
        baseline_scores = np.load(bench.store.path(baseline.file(SCORES_FILE)), allow_pickle=False)
        report = sanity.check(self.pipeline.task, predictions.target, predictions.scores, predictions.classes)
        gates = [
            {"name": str(gate), "value": found[gate.metric], "passed": gate.passes(found[gate.metric])}
            for gate in self.pipeline.gates
        ]
        path = bench.scratch / METRICS_FILE
        path.write_text(json.dumps({"metrics": found, "baseline": baseline.facts["metrics"], "gates": gates}, indent=1))
        yield Outcome(
            batch=UNPARTITIONED,
            data_version=short_hash(
                {
                    # The same scores of other rows are another finding: a model that was learned from features of an
                    # earlier code scores them as a new one does its own, and is wrong about today's.
                    "rows": [[member.batch, member.version] for member in listed.holdout],
                    "predictions": content_versions({PREDICTIONS_FILE: [table]})[PREDICTIONS_FILE].data_version,
                    "metrics": {name: repr(value) for name, value in found.items()},
                    "gates": [[gate["name"], gate["passed"]] for gate in gates],
                    "sane": report.passed,
                }
            ),
            files={
                METRICS_FILE: path,
                PREDICTIONS_FILE: table,
                **self._plots(bench.scratch, predictions, baseline_scores),
            },
            facts={
                "rows": len(predictions.target),
                "metrics": found,
                "baseline": baseline.facts["metrics"],
                "gates": gates,
                "sane": report.passed,
                "sanity": report.reason,
            },
            checks=[
                *self._gate_results(gates),
                CheckResult(name=SANE, passed=report.passed, description=report.reason, metadata=report.facts),
            ],
        )

    def _gate_results(self, gates: Sequence[Mapping[str, Any]]) -> Iterator[CheckResult]:
        for declared, gate in zip(self.pipeline.gates, gates, strict=True):
            value = gate["value"]
            yield CheckResult(
                name=_gate_check(declared.metric),
                passed=gate["passed"],
                description=f"{declared.metric} is {value:.4f}; the pipeline asks for {declared}",
                metadata={"value": None if math.isnan(value) else value},
            )

    def _plots(self, scratch: Path, predictions: Predictions, baseline: Any) -> dict[str, Path]:
        from ml_platform.evaluation import plots

        scores = {"network": predictions.scores, "baseline": baseline}
        drawn = plots.for_task(self.pipeline.task, predictions.target, scores, predictions.classes)
        files: dict[str, Path] = {}
        for title, png in drawn.items():
            name = f"{PLOTS}{title.lower().replace(' ', '_')}.png"
            files[name] = scratch / f"{len(files)}.png"
            files[name].write_bytes(png)
        return files

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, Any]:
        import dagster as dg

        from ml_platform.evaluation.plots import markdown
        from ml_platform.stages.publish import table

        facts = manifest.facts
        model, baseline = facts["metrics"], facts["baseline"]
        rows = [
            {"metric": name, "model": rounded(model[name]), "baseline": rounded(baseline.get(name))}
            for name in METRICS[self.pipeline.task]
        ]
        plots: dict[str, str] = {}
        for name, file in plots_of(manifest).items():
            title = f"plot: {Path(name).stem.replace('_', ' ')}"
            plots[title] = markdown(chain.store.read_bytes(file), title)
        shown: dict[str, Any] = {"report": dg.MetadataValue.md(_report(rows, facts["gates"], plots.values()))}
        shown |= {row["metric"]: model[row["metric"]] for row in rows}
        shown |= {"holdout rows": facts["rows"], "metrics": table(rows)}
        return shown | {title: dg.MetadataValue.md(plot) for title, plot in plots.items()}


def _report(rows: Sequence[Mapping[str, Any]], gates: Sequence[Mapping[str, Any]], plots: Iterable[str]) -> str:
    """All there is to see on one page: Dagster shows each piece of Markdown behind a click of its own."""
    lines = ["| metric | model | baseline |", "|---|---|---|"]
    lines += [f"| {row['metric']} | {_figure(row['model'])} | {_figure(row['baseline'])} |" for row in rows]
    said = [f"Gate {g['name']}: {_figure(g['value'])}, {'passed' if g['passed'] else 'MISSED'}" for g in gates]
    return "\n\n".join(["\n".join(lines), *said, *plots])


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def plots_of(manifest: Manifest) -> dict[str, ArtifactFile]:
    """The plots of an evaluation artifact by name, such as "plots/roc.png"."""
    return {file.name: file for file in manifest.files if file.name.startswith(PLOTS)}


def failed_gates(manifest: Manifest) -> list[str]:
    """What keeps an evaluated model out of the registry, in words; empty when nothing does."""
    failed = [f"{g['name']} missed: it is {g['value']:.4f}" for g in manifest.facts["gates"] if not g["passed"]]
    return failed if manifest.facts["sane"] else [*failed, manifest.facts["sanity"]]


def _gate_check(metric: str) -> str:
    return f"gate_{metric}"
