"""trained_model of a pipeline with candidates: all of them on the holdout, and the one model that goes on.

That is the best candidate's, under its own data version, so nothing below runs when the same one wins again; or a model
that averages what all of them say. Nothing is trained here: an edited recipe trains its own candidate again, no other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.recipe import AVERAGE, CANDIDATE, TRAINED_MODEL
from ml_platform.stages.baseline import learning_params
from ml_platform.stages.shown import rounded
from ml_platform.stages.stage import UNPARTITIONED, Bench, Outcome, Stage, Work
from ml_platform.stages.trained_model import HISTORY, LOSS_PLOT, loss_plot, model_folder
from ml_platform.stages.training_set import TrainingList, load_training_list
from ml_platform.stages.warm import SEEN_FILE
from ml_platform.store.manifest import Manifest
from ml_platform.training.result import CONTENT, FILES, RESULT
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.evaluation.intervals import Answers
    from ml_platform.stages.chain import Chain

TABLE_FILE = "candidates.json"
TRAINING_SET = "training_set"


class ChosenModel(Stage):
    """One artifact: the model folder of the candidate that goes on, or of the average of all; and their table."""

    name = TRAINED_MODEL
    kinds = ("pytorch", "scikitlearn", "mlflow")

    @property
    def description(self) -> str:
        names = ", ".join(self.pipeline.candidates)
        what = f"the best of the candidates {names} by {self.pipeline.main_metric} on the held-out batches"
        if self.pipeline.choose == "average":
            what = f"a model that answers with the mean of what the candidates {names} say"
        return f"Unpartitioned: {what}. Nothing is trained here."

    @property
    def upstream(self) -> tuple[str, ...]:
        return (TRAINING_SET, *self.pipeline.recipes)

    def code(self) -> CodeVersion:
        gate = self.pipeline.model_gate
        roots = [
            "ml_platform.evaluation.candidates:compare",
            "ml_platform.evaluation.predictions:score",
            "ml_platform.training.scoring:Scorer",
        ]
        if self.pipeline.choose == "average":
            roots.append("ml_platform.training.ensemble:write")
        params = {
            **learning_params(self),
            "candidates": list(self.pipeline.candidates),  # of equals the first one
            "choose": self.pipeline.choose,
            "metric": self.pipeline.main_metric,
            "intervals": [gate.draws, gate.confidence],
        }
        return code_version(roots, params=params, libraries=("scikit-learn", "torch"))

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        """The training set and every candidate, which must have been trained on it: others say nothing of theirs."""
        found: dict[str, Manifest] = {}
        missing: list[str] = []
        for name in self.upstream:
            manifest = chain.settled(name, [UNPARTITIONED])[UNPARTITIONED]
            if isinstance(manifest, str):
                missing.append(manifest)
            else:
                found[name] = manifest
        if missing:
            return {UNPARTITIONED: "; ".join(dict.fromkeys(missing))}
        present = found[TRAINING_SET].data_version
        if old := [name for name in self.pipeline.recipes if found[name].inputs[TRAINING_SET] != present]:
            of_another = f"{', '.join(old)}: trained on another training set than the present one"
            return {UNPARTITIONED: f"{of_another}. Materialize {'it' if len(old) == 1 else 'them'} anew first."}
        return {UNPARTITIONED: {name: manifest.data_version for name, manifest in found.items()}}

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        from ml_platform.evaluation.candidates import compare

        (work,) = works
        trained = {name: work.manifests[f"{CANDIDATE}{name}"] for name in self.pipeline.candidates}
        folders = {name: model_folder(bench.store, each, bench.scratch / name) for name, each in trained.items()}
        averaged = self.pipeline.choose == "average"
        if averaged:
            from ml_platform.training import ensemble

            folders[AVERAGE] = ensemble.write(folders, bench.scratch / AVERAGE)
        listed = load_training_list(bench, work)
        holdout = {m.batch: TrainingList.paths(bench.store, [m]) for m in listed.holdout}
        answers = {name: self._answers(folder, holdout) for name, folder in folders.items()}
        chosen, rows = compare(self.pipeline, answers, AVERAGE if averaged else None)
        rows = [row | self._told(row["candidate"], folders, trained) for row in rows]
        table = {"metric": self.pipeline.main_metric, "choose": self.pipeline.choose, "chosen": chosen, "rows": rows}
        page = self._track(bench, work, trained, table)
        histories = {name: manifest.facts["history"] for name, manifest in trained.items()}
        one = trained.get(chosen) if not averaged else None
        (bench.scratch / TABLE_FILE).write_text(json.dumps(table, indent=1))
        (bench.scratch / LOSS_PLOT).write_bytes(loss_plot(histories))
        seen = (one or next(iter(trained.values()))).file(SEEN_FILE)
        hashes = json.loads((folders[chosen] / RESULT).read_text())["files"]
        yield Outcome(
            batch=UNPARTITIONED,
            data_version=one.data_version if one else short_hash({name: hashes[name] for name in CONTENT}),
            files={
                **{name: (folders[chosen] / name).resolve() for name in (*FILES, RESULT)},
                SEEN_FILE: bench.store.path(seen),
                LOSS_PLOT: bench.scratch / LOSS_PLOT,
                TABLE_FILE: bench.scratch / TABLE_FILE,
            },
            facts={
                "history": one.facts["history"] if one else json.loads((folders[chosen] / HISTORY).read_text()),
                "mlflow": page,
                "restarts": sum(each.facts["restarts"] for each in ([one] if one else trained.values())),
                "candidates": table,
            },
        )

    def _answers(self, folder: Path, holdout: Mapping[str, Sequence[Path]]) -> Answers:
        from ml_platform.evaluation.intervals import Answers
        from ml_platform.evaluation.predictions import score
        from ml_platform.training.scoring import Scorer

        said = score(self.pipeline, Scorer.load(folder), holdout)
        return Answers(task=self.pipeline.task, target=said.target, scores=said.scores, classes=said.classes)

    @staticmethod
    def _told(name: str, folders: Mapping[str, Path], trained: Mapping[str, Manifest]) -> dict[str, Any]:
        """What it took to train it, and how large it is."""
        folder = folders[name]
        history, model = (json.loads((folder / file).read_text()) for file in (HISTORY, "model.json"))
        return {
            "seconds": history["seconds"],
            "parameters": model["parameters"],
            "bytes": sum((folder / file).stat().st_size for file in CONTENT),
            **({"data_version": trained[name].data_version} if name in trained else {}),
        }

    def _track(self, bench: Bench, work: Work, trained: Mapping[str, Manifest], table: Mapping[str, Any]) -> str:
        """Put what was found into the MLflow run of the choice, and of each candidate, below it.

        Returns:
            Where the choice's run can be seen.
        """
        from ml_platform.stages.registered_model import model_params, run_name

        rows = {row["candidate"]: row for row in table["rows"]}
        with bench.mlflow.tracked_run(
            bench.context,
            experiment=self.pipeline.name,
            fingerprint=work.fingerprint,
            run_name=run_name(self.pipeline.name, work.fingerprint),
        ) as run:
            run.log_params(model_params(self.pipeline, {"candidates": table}))
            run.log_metrics(candidate_metrics({"candidates": table}))
            page, parent = run.describe(), run.run_id
        for name, manifest in trained.items():
            with bench.mlflow.tracked_run(
                bench.context,
                experiment=self.pipeline.name,
                fingerprint=manifest.fingerprint,
                run_name=run_name(f"{self.pipeline.name}-{name}", manifest.fingerprint),
            ) as run:
                # MLflow's own tag for a run that is shown below another.
                run.set_tags({"mlflow.parentRunId": parent, "ml_platform.candidate": name})
                run.log_metrics(figures(rows[name]))
        return page

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, Any]:
        import dagster as dg

        from ml_platform.evaluation.drawing import markdown
        from ml_platform.stages.publish import table
        from ml_platform.stages.registered_model import mlflow_link

        found = manifest.facts["candidates"]
        return {
            "candidates": table([_shown(row, found["metric"]) for row in found["rows"]]),
            "chosen": found["chosen"],
            "by": found["metric"] if found["choose"] == "best" else found["choose"],
            "loss": dg.MetadataValue.md(markdown(chain.store.read_bytes(manifest.file(LOSS_PLOT)), "loss curves")),
            "weights": manifest.file("weights.safetensors").sha256,
            "mlflow run": mlflow_link(manifest.facts["mlflow"]),
        }


_NO_METRICS = ("candidate", "chosen", "data_version")


def _shown(row: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """A record of the table for a person: the main metric first."""
    first = ("candidate", "chosen", metric, "low", "high", "gain", "gain_low", "gain_high")
    return {name: rounded(row[name]) for name in (*first, *(name for name in row if name not in first)) if name in row}


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    """What was measured of a candidate, by name."""
    return {name: value for name, value in row.items() if name not in _NO_METRICS and value is not None}


def candidate_metrics(facts: Mapping[str, Any]) -> dict[str, float]:
    """The figures of all candidates by names such as "candidate_wide_roc_auc", of a trained model's facts; none where
    there was one recipe."""
    rows = facts.get("candidates", {}).get("rows", ())
    return {f"{CANDIDATE}{row['candidate']}_{name}": value for row in rows for name, value in figures(row).items()}
