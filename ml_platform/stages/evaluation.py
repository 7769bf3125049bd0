"""evaluation: the trained model on the holdout, beside the baseline on the same rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.stages import looks
from ml_platform.stages.baseline import SCORES_FILE, learning_params, settled_inputs
from ml_platform.stages.shown import rounded
from ml_platform.stages.stage import UNPARTITIONED, Bench, Check, CheckResult, Outcome, Stage, Work
from ml_platform.stages.trained_model import model_folder
from ml_platform.stages.training_set import TrainingList, load_training_list
from ml_platform.store.manifest import ArtifactFile, Manifest
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
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
            "gradient boosting and a constant on the same rows. Its checks decide whether the model may be registered."
        )

    @property
    def upstream(self) -> tuple[str, ...]:
        return ("training_set", "baseline", "trained_model")

    def code(self) -> CodeVersion:
        roots = (
            "ml_platform.evaluation.calibration:calibration",
            "ml_platform.evaluation.constant:constant",
            "ml_platform.evaluation.details:by_class",
            "ml_platform.evaluation.details:error_intervals",
            "ml_platform.evaluation.figures:figures",
            "ml_platform.evaluation.importance:importance",
            "ml_platform.evaluation.intervals:intervals",
            "ml_platform.evaluation.intervals:too_few",
            "ml_platform.evaluation.over_time:over_time",
            "ml_platform.evaluation.predictions:score",
            "ml_platform.evaluation.sanity:check",
            "ml_platform.evaluation.search:search",
            "ml_platform.evaluation.slices:slices",
            "ml_platform.evaluation.threshold:threshold",
            "ml_platform.training.scoring:Scorer",
        )
        looked = asdict(self.pipeline.model_gate)
        for name in ("champion", "tolerance"):  # what is compared when the model is to be registered
            del looked[name]
        gates = [str(gate) for gate in self.pipeline.gates]
        params = {"layout": 5, **learning_params(self), "gates": gates, "model_gate": looked}
        return code_version(roots, params=params, libraries=("scikit-learn", "torch"))

    def checks(self) -> tuple[Check, ...]:
        gates = (Check(name=_gate_check(gate.metric), description=f"Is {gate}?") for gate in self.pipeline.gates)
        sane = Check(name=SANE, description="Does the model tell rows apart, instead of saying the same of all?")
        return (*gates, sane, *looks.checks(self.pipeline))

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        return settled_inputs(chain, self.upstream)

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        from ml_platform.evaluation import sanity
        from ml_platform.evaluation.figures import figures
        from ml_platform.evaluation.intervals import intervals, too_few
        from ml_platform.versions.content import content_versions

        (work,) = works
        listed = load_training_list(bench, work)
        table = bench.scratch / PREDICTIONS_FILE
        subject = self._subject(bench, work, listed, table)
        answers, gate = subject.answers, self.pipeline.model_gate
        found = figures(answers, gate.threshold)
        around = intervals(answers, draws=gate.draws, confidence=gate.confidence)
        subject = replace(subject, around=around)
        report = sanity.check(answers.task, answers.target, answers.scores, answers.classes)
        gates = [
            {"name": str(gate), "value": found[gate.metric], "passed": gate.passes(found[gate.metric])}
            for gate in self.pipeline.gates
        ]
        more = list(looks.look(subject, bench.scratch))
        refused = [f"{each.check.name}: {each.check.description}" for each in more if each.check and each.rejects]
        ends = {
            name: part for part_of in (around, *(each.intervals for each in more)) for name, part in part_of.items()
        }
        told = {name: [ends[name].low, ends[name].high] for name in found if name in ends}
        beside = {
            "baseline": figures(subject.baseline, gate.threshold),
            "constant": figures(subject.constant, gate.threshold),
        }
        candidates = work.manifests["trained_model"].facts.get("candidates")
        facts = {
            "task": answers.task,
            "rows": len(answers.target),
            "metric": subject.metric,
            "metrics": found,
            "intervals": told,
            "too_few": too_few(answers),
            **beside,
            "gates": gates,
            "sane": report.passed,
            "sanity": report.reason,
            "refused": refused,
            **({"candidates": candidates} if candidates else {}),
            **{name: fact for each in more for name, fact in each.facts.items()},
        }
        path = bench.scratch / METRICS_FILE
        record = {"metrics": found, "intervals": told, **beside, "gates": gates}
        path.write_text(json.dumps(record, indent=1))
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
                    # What acts on the scores, and is no metric. What else there is to look at follows from the rows and
                    # the scores, or is noise: weights that score alike may owe a little more to another feature.
                    "threshold": repr(facts.get("threshold", {}).get("value")),
                    **(
                        {"refused": [each.check.name for each in more if each.check and each.rejects]}
                        if refused
                        else {}
                    ),
                }
            ),
            files={
                METRICS_FILE: path,
                PREDICTIONS_FILE: table,
                **{each.file.name: each.file for each in more if each.file},
                **self._plots(bench.scratch, subject, facts),
            },
            facts=facts,
            checks=[
                *self._gate_results(gates, told),
                CheckResult(name=SANE, passed=report.passed, description=report.reason, metadata=report.facts),
                *(each.check for each in more if each.check),
            ],
        )

    def _subject(self, bench: Bench, work: Work, listed: TrainingList, table: Path) -> looks.Subject:
        """The model with its answers for the holdout, which `table` keeps, and those of what it stands beside."""
        import numpy as np

        from ml_platform.evaluation.constant import constant
        from ml_platform.evaluation.frames import read_labelled
        from ml_platform.evaluation.intervals import Answers
        from ml_platform.evaluation.predictions import score
        from ml_platform.training.scoring import Scorer

        pipeline, store = self.pipeline, bench.store
        scorer = Scorer.load(model_folder(store, work.manifests["trained_model"], bench.scratch / "model"))
        holdout = {m.batch: TrainingList.paths(store, [m]) for m in listed.holdout}
        said = score(pipeline, scorer, holdout, out=table, keep=looks.kept(pipeline))
        answers = Answers(task=pipeline.task, target=said.target, scores=said.scores, classes=said.classes)
        baseline = store.path(work.manifests["baseline"].file(SCORES_FILE))
        train = TrainingList.paths(store, listed.train)
        learned = read_labelled(pipeline, train, where="constant predictor, training rows", columns=())
        return looks.Subject(
            pipeline=pipeline,
            answers=answers,
            baseline=replace(answers, scores=np.load(baseline, allow_pickle=False)),
            constant=constant(answers, learned[pipeline.label].to_numpy()),
            columns=said.kept,
            batches=said.batches,
            around={},
            scorer=scorer,
        )

    def _gate_results(
        self, gates: Sequence[Mapping[str, Any]], around: Mapping[str, Sequence[float]]
    ) -> Iterator[CheckResult]:
        for declared, gate in zip(self.pipeline.gates, gates, strict=True):
            value = gate["value"]
            low, high = around.get(declared.metric, (None, None))
            yield CheckResult(
                name=_gate_check(declared.metric),
                passed=gate["passed"],
                description=f"{declared.metric} is {value:.4f}; the pipeline asks for {declared}",
                metadata={"value": None if math.isnan(value) else value, "low": low, "high": high},
            )

    def _plots(self, scratch: Path, subject: looks.Subject, facts: Mapping[str, Any]) -> dict[str, Path]:
        from ml_platform.evaluation.gallery import MODEL, pictures

        drawn = pictures({MODEL: subject.answers, "baseline": subject.baseline}, facts, subject.metric)
        files: dict[str, Path] = {}
        for title, png in drawn.items():
            name = f"{PLOTS}{title.lower().replace(' ', '_')}.png"
            files[name] = scratch / f"{len(files)}.png"
            files[name].write_bytes(png)
        return files

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, Any]:
        import dagster as dg

        from ml_platform.evaluation.drawing import markdown
        from ml_platform.evaluation.report import metric_rows, report
        from ml_platform.stages.publish import table

        facts = manifest.facts
        plots = [markdown(chain.store.read_bytes(f), Path(name).stem) for name, f in plots_of(manifest).items()]
        rows = [{name: rounded(value) for name, value in row.items()} for row in metric_rows(facts)]
        shown: dict[str, Any] = {"report": dg.MetadataValue.md(report(facts, plots))}
        shown |= facts["metrics"]
        shown |= {"holdout rows": facts["rows"], "metrics": table(rows)}
        if threshold := facts.get("threshold"):
            shown["threshold"] = threshold["value"] if threshold["value"] is not None else "not known"
        if facts.get("slices"):
            shown["worst slices"] = table([{name: rounded(v) for name, v in s.items()} for s in facts["slices"]])
        if facts.get("over_time"):
            shown["by batch"] = table([{name: rounded(v) for name, v in s.items()} for s in facts["over_time"]])
        return shown


def plots_of(manifest: Manifest) -> dict[str, ArtifactFile]:
    """The plots of an evaluation artifact by name, such as "plots/roc.png"."""
    return {file.name: file for file in manifest.files if file.name.startswith(PLOTS)}


def shown_files(manifest: Manifest) -> dict[str, ArtifactFile]:
    """What a person looks at of an evaluation, by name: plots, and what every look found."""
    return {file.name: file for file in manifest.files if file.name.startswith(PLOTS) or file.name in looks.FILES}


def interval_metrics(manifest: Manifest) -> dict[str, float]:
    """What stands around an evaluation's metrics, as metrics of their own.

    Their intervals, such as "roc_auc_low" and "roc_auc_high"; the constant predictor's figures, such as
    "constant_roc_auc"; and the threshold.
    """
    facts = manifest.facts
    found = {
        f"{name}_{end}": value
        for name, around in facts.get("intervals", {}).items()
        for end, value in zip(("low", "high"), around, strict=True)
    }
    found |= {f"constant_{name}": value for name, value in facts.get("constant", {}).items()}
    threshold = facts.get("threshold", {}).get("value")
    return found if threshold is None else found | {"threshold": threshold}


def failed_gates(manifest: Manifest) -> list[str]:
    """What keeps an evaluated model out of the registry, in words; empty when nothing does."""
    failed = [f"{g['name']} missed: it is {g['value']:.4f}" for g in manifest.facts["gates"] if not g["passed"]]
    sane = [] if manifest.facts["sane"] else [manifest.facts["sanity"]]
    return [*failed, *sane, *manifest.facts.get("refused", ())]


def _gate_check(metric: str) -> str:
    return f"gate_{metric}"
