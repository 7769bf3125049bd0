"""registered_model: the gates' last word, then a version in MLflow's registry under the alias `champion`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.stages import warm
from ml_platform.stages.baseline import settled_inputs
from ml_platform.stages.evaluation import failed_gates, plots_of
from ml_platform.stages.stage import UNPARTITIONED, Bench, Check, CheckResult, Outcome, Stage, Work
from ml_platform.stages.trained_model import model_folder
from ml_platform.stages.training_set import TrainingList, waived_shown
from ml_platform.store.manifest import Manifest
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    import pyarrow as pa
    from dagster import MetadataValue

    from ml_platform.registry.models import RegisteredVersion
    from ml_platform.stages.chain import Chain

GATES_PASSED = "gates_passed"
TRAINED = "trained_model"
EXAMPLE_ROWS = 5
RECORD_FILE = "registered.json"


class RegisteredModel(Stage):
    """One artifact: which registered version the model is. A model that misses a gate is never registered."""

    name = "registered_model"
    kinds = ("mlflow",)

    @property
    def description(self) -> str:
        return (
            f"Unpartitioned: the version of `{self.pipeline.name}` in MLflow's registry. One version per distinct "
            f"model; load it with mlflow.pyfunc.load_model('models:/{self.pipeline.name}@champion')."
        )

    @property
    def upstream(self) -> tuple[str, ...]:
        return ("evaluation",)

    def code(self) -> CodeVersion:
        return code_version((), params={"gates": [str(gate) for gate in self.pipeline.gates]}, libraries=())

    def checks(self) -> tuple[Check, ...]:
        return (Check(name=GATES_PASSED, description="Did the model pass every metric gate and the sanity check?"),)

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        """The evaluation, and which registry it is for: another one has other versions.

        A model that scores every held-out row as the registered one does leaves that one in its place.
        """
        given = settled_inputs(chain, self.upstream)[UNPARTITIONED]
        if isinstance(given, str):
            return {UNPARTITIONED: given}
        return {UNPARTITIONED: {**given, "registry": short_hash(chain.settings.mlflow)}}

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        (work,) = works
        failed = failed_gates(work.manifests["evaluation"])
        check = CheckResult(name=GATES_PASSED, passed=not failed, description="; ".join(failed))
        evaluation = work.manifests["evaluation"]
        trained = bench.chain.of_version(TRAINED, evaluation.inputs[TRAINED])
        version, page = self._register(bench, trained, evaluation, register=not failed)
        record = bench.scratch / RECORD_FILE
        facts = {"mlflow": page, TRAINED: trained.data_version, **(_facts(version) if version else {})}
        record.write_text(json.dumps(facts, indent=1, sort_keys=True))
        yield Outcome(
            batch=UNPARTITIONED,
            data_version=short_hash([self.pipeline.name, trained.data_version, failed]),
            files={RECORD_FILE: record},
            facts=facts,
            checks=[check],
            rejected="The model is not registered: " + "; ".join(failed) if failed else "",
            gated=True,
        )

    def stands(self, chain: Chain, manifest: Manifest) -> bool:
        """Whether the registry has the version. A look that imports no MLflow: it is made in every run."""
        from ml_platform.registry.glance import stands

        return stands(chain.settings.mlflow, self.pipeline.name, manifest.facts[TRAINED])

    def restore(self, bench: Bench, work: Work, manifest: Manifest) -> None:
        """Back at an earlier model: its version is there, and the alias must point at it again."""
        chain, version = bench.chain, manifest.facts[TRAINED]
        evaluation = chain.of_version("evaluation", manifest.inputs["evaluation"], trained_model=version)
        self._register(bench, chain.of_version(TRAINED, version), evaluation, register=True)

    def _register(
        self, bench: Bench, trained: Manifest, evaluation: Manifest, *, register: bool
    ) -> tuple[RegisteredVersion | None, str]:
        """Log all there is to know into the model's MLflow run; then register it. Doing it again changes nothing.

        Returns:
            The version, None where it was not to be registered; and where the run can be seen.
        """
        training_set = bench.chain.of_version("training_set", trained.inputs["training_set"])
        with bench.mlflow.tracked_run(
            bench.context,
            experiment=self.pipeline.name,
            fingerprint=trained.fingerprint,
            run_name=run_name(self.pipeline.name, trained.fingerprint),
        ) as run:
            run.log_params(mlflow_params(self))
            told = {
                f"ml_platform.{name.replace(' ', '_')}": text for name, text in _told(trained, training_set).items()
            }
            run.set_tags(told)
            run.log_series(loss_series(trained.facts["history"]))
            run.log_metrics(evaluation.facts["metrics"])
            run.log_metrics({f"baseline_{name}": value for name, value in evaluation.facts["baseline"].items()})
            plots = plots_of(evaluation)
            run.log_artifacts({name: bench.store.read_bytes(file) for name, file in plots.items()})
            if not register:
                return None, run.describe()
            from ml_platform.registry.models import register as register_version

            version = register_version(
                self.pipeline,
                model_folder(bench.store, trained, bench.scratch / f"model-{trained.fingerprint}"),
                connection=run.connection,
                run_id=run.run_id,
                fingerprint=trained.fingerprint,
                data_version=trained.data_version,
                input_example=self._example(bench, training_set),
                metrics=evaluation.facts["metrics"],
                tags={
                    "ml_platform.training_set": trained.inputs["training_set"],
                    "ml_platform.evaluation": evaluation.data_version,
                    "ml_platform.code_version": trained.code_version,
                    "ml_platform.dagster_run": bench.run_id,
                    **told,
                },
            )
            return version, run.describe()

    def _example(self, bench: Bench, training_set: Manifest) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        listed = TrainingList.load(bench.store, training_set)
        paths: list[Path] = TrainingList.paths(bench.store, [m for m in listed.holdout if m.rows][:1])
        with pq.ParquetFile(paths[0]) as file:
            batch = next(file.iter_batches(batch_size=EXAMPLE_ROWS, columns=list(self.pipeline.features.columns)))
        return pa.Table.from_batches([batch])

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, Any]:
        facts = manifest.facts
        shown = {"model": facts["uri"], "version": facts["version"], "aliases": ", ".join(facts["aliases"])}
        load = f"mlflow.pyfunc.load_model('models:/{facts['name']}@champion')"
        return {**shown, "mlflow run": mlflow_link(facts["mlflow"]), "load it with": load}


def _told(trained: Manifest, training_set: Manifest) -> dict[str, str]:
    """What a person must know of a model's origin: batches that were waived, and whose weights it began with."""
    began = warm.describe(trained.facts)
    return {**waived_shown(training_set.facts), **({"warm start": began} if began else {})}


def _facts(version: RegisteredVersion) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "uri": version.uri,
        "aliases": list(version.aliases),
        "run_id": version.run_id,
    }


def mlflow_link(page: str) -> MetadataValue:
    """Where an MLflow run can be seen: a link, or the command that shows it."""
    import dagster as dg

    return dg.MetadataValue.url(page) if page.startswith("http") else dg.MetadataValue.text(page)


def run_name(pipeline: str, fingerprint: str) -> str:
    """What a model's MLflow run is called."""
    return f"{pipeline}-{fingerprint[:8]}"


def mlflow_params(stage: Stage) -> dict[str, object]:
    """The recipe as MLflow's parameters."""
    recipe = stage.pipeline.recipe.identity()
    nested = {"hyperparameters", "optimizer_options"}
    flat = {name: value for name, value in recipe.items() if name not in nested}
    replay = {"replay": warm_start.replay} if (warm_start := stage.pipeline.recipe.warm_start) else {}
    return flat | replay | {key: value for name in nested for key, value in recipe[name].items()}


def loss_series(history: Mapping[str, Any]) -> dict[str, list[float]]:
    """What was measured in each epoch, as MLflow's metrics."""
    names = ("train_loss", "learning_rate", "samples_per_second")
    return {name: [epoch[name] for epoch in history["epochs"]] for name in names}
