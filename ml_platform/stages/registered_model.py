"""registered_model: the gates' last word, then a version in MLflow's registry, promoted or kept as challenger.

A model that is worse than the champion is refused against the champion of that moment, once: the verdict stays with the
model's evaluation, whatever becomes of the champion, until somebody asks anew (`--force`). What becomes of one that is
registered is decided by `registry.promotion`, as `Pipeline.promotion` says, and what people decide later counts.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import RefusedError, RegistryError
from ml_platform.stages import warm
from ml_platform.stages.against_champion import NOT_WORSE, TRAINED, Beside, beside_champion
from ml_platform.stages.baseline import settled_inputs
from ml_platform.stages.carried import carried, describe_version, provenance_tags, told
from ml_platform.stages.chosen_model import candidate_metrics
from ml_platform.stages.evaluation import failed_gates, interval_metrics, shown_files
from ml_platform.stages.evidence import PROMOTED, approving, evidence, good_enough, promoted
from ml_platform.stages.stage import UNPARTITIONED, Bench, Check, CheckResult, Outcome, Stage, Work
from ml_platform.stages.trained_model import model_folder
from ml_platform.stages.training_set import TrainingList, waived_shown
from ml_platform.store.manifest import Manifest
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    import pyarrow as pa
    from dagster import MetadataValue

    from ml_platform.pipeline import Pipeline
    from ml_platform.recipe import Recipe
    from ml_platform.registry.models import RegisteredVersion
    from ml_platform.registry.promotion import Promotions, Ruling
    from ml_platform.registry.tracking import TrackedRun
    from ml_platform.stages.chain import Chain

GATES_PASSED = "gates_passed"
EXAMPLE_ROWS = 5
RECORD_FILE = "registered.json"
COMPARED_AGAIN = 5
"""Times that a model is compared anew because another one became the champion meanwhile."""


class RegisteredModel(Stage):
    """One artifact: which registered version the model is. A model that misses a gate is never registered."""

    name = "registered_model"
    kinds = ("mlflow",)

    @property
    def description(self) -> str:
        return (
            f"Unpartitioned: the version of `{self.pipeline.name}` in MLflow's registry. One version per distinct "
            f"model; load the one in use with mlflow.pyfunc.load_model('models:/{self.pipeline.name}@champion')."
        )

    @property
    def upstream(self) -> tuple[str, ...]:
        return ("evaluation",)

    def code(self) -> CodeVersion:
        gate, promotion = self.pipeline.model_gate, self.pipeline.promotion
        params = {
            "promotion": [promotion.by, promotion.least_gain],
            "gates": [str(gate) for gate in self.pipeline.gates],
            "champion": [gate.champion, gate.metric, gate.tolerance, gate.confidence, gate.draws],
        }
        return code_version((), params=params, libraries=())

    def checks(self) -> tuple[Check, ...]:
        blocking = self.pipeline.model_gate.champion == "reject"
        return (
            Check(name=GATES_PASSED, description="Did the model pass every gate of its evaluation?"),
            Check(
                name=NOT_WORSE,
                description="Is a new model not worse than the champion, on the same rows, beyond noise?",
                blocking=blocking,
            ),
            Check(
                name=PROMOTED,
                description="Is the model the champion? Warns of one that waits for a person, or was rejected.",
                blocking=False,
            ),
        )

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
        evaluation = work.manifests["evaluation"]
        trained = bench.chain.of_version(TRAINED, evaluation.inputs[TRAINED])
        training_set = bench.chain.of_version("training_set", evaluation.inputs["training_set"])
        missed = failed_gates(evaluation)
        check = CheckResult(name=GATES_PASSED, passed=not missed, description="; ".join(missed))
        lenient = self.pipeline.model_gate.champion != "reject"
        files = carried(bench, trained, evaluation, training_set)
        for _ in range(COMPARED_AGAIN):
            beside = beside_champion(bench, evaluation, trained, training_set)
            failed = [*missed, beside.message] if beside.worse and not lenient else missed
            version, page, ruling = self._register(bench, trained, evaluation, files, beside, failed=failed)
            if failed or ruling is not None:
                break
            bench.log.info("Another model has become the champion meanwhile: compared again.")
        else:
            raise RegistryError("The champion changes faster than a model can be compared with it.", passing=True)
        now = promoted(bench.chain, trained.data_version, version.version if version else "")
        record = bench.scratch / RECORD_FILE
        facts = {"mlflow": page, TRAINED: trained.data_version, **(_facts(version) if version else {})}
        facts["beside"] = {**beside.facts, "said": beside.message}
        good, why = good_enough(self.pipeline, beside)
        facts |= {"good_enough": good, "why": why, "outcome": ruling.outcome if ruling else "refused"}
        record.write_text(json.dumps(facts, indent=1, sort_keys=True))
        yield Outcome(
            batch=UNPARTITIONED,
            data_version=short_hash([self.pipeline.name, trained.data_version, failed]),
            files={RECORD_FILE: record, **told(files)},
            facts=facts,
            checks=[check, beside.check(warn=lenient), now],
            rejected="The model is not registered: " + "; ".join(failed) if failed else "",
            gated=True,
        )

    def stands(self, chain: Chain, manifest: Manifest) -> bool:
        """Whether the registry has the version, and its aliases name what was decided. A look that imports no MLflow:
        it is made in every run."""
        from ml_platform.registry import glance
        from ml_platform.registry.models import CHALLENGER
        from ml_platform.registry.trail import Trail

        registry, name, model = chain.settings.mlflow, self.pipeline.name, manifest.facts[TRAINED]
        if not glance.stands(registry, name, model):
            return False
        decided, champion = Trail.of(chain.store, name, registry).read(), glance.champion(registry, name)
        waits = decided.challenger
        if waits is not None and waits.model == model:
            challenger = glance.champion(registry, name, CHALLENGER)
            if challenger is None or challenger.data_version != model:
                return False
        if decided.champion is None:
            return champion is not None or bool(decided.decisions)
        return champion is not None and champion.data_version == decided.champion.model

    def restore(self, bench: Bench, work: Work, manifest: Manifest) -> None:
        """Back at an earlier model: its version is there, and what was decided about it holds."""
        chain, version = bench.chain, manifest.facts[TRAINED]
        evaluation = chain.of_version("evaluation", manifest.inputs["evaluation"], trained_model=version)
        trained = chain.of_version(TRAINED, version)
        files = self._carried(bench, trained, evaluation)
        self._register(bench, trained, evaluation, files, known=manifest)

    def answers(self, chain: Chain, manifest: Manifest) -> Sequence[Mapping[str, Any]]:
        """As it was found, but for who is the champion now: people decide that later."""
        found = super().answers(chain, manifest)
        if manifest.verdict == "rejected":
            return found
        now = asdict(promoted(chain, manifest.facts[TRAINED], manifest.facts["version"]))
        return [now if check["name"] == PROMOTED else check for check in found]

    def _register(
        self,
        bench: Bench,
        trained: Manifest,
        evaluation: Manifest,
        files: Mapping[str, Path],
        beside: Beside | None = None,
        *,
        failed: Sequence[str] = (),
        known: Manifest | None = None,
    ) -> tuple[RegisteredVersion | None, str, Ruling | None]:
        """Log all there is to know into the model's MLflow run; then register it and decide about it. Doing it again
        changes nothing.

        Args:
            bench: what bodies use.
            trained, evaluation: of the model.
            files: that a new version holds beside the model.
            beside: how it compares with the champion, where it is a new one.
            failed: what keeps it out of the registry.
            known: the artifact of an earlier registration that the pipeline has gone back to.

        Returns:
            The version, None where it was not to be registered; where the run can be seen; and what the policy made of
            it, None where it is refused or must be compared again.
        """
        from ml_platform.registry.promotion import Promotions

        training_set = bench.chain.of_version("training_set", trained.inputs["training_set"])
        with self._tracked(bench, trained) as run:
            run.log_params(model_params(self.pipeline, trained.facts))
            tags = {
                f"ml_platform.{name.replace(' ', '_')}": text for name, text in _told(trained, training_set).items()
            }
            run.set_tags(tags)
            run.log_series(loss_series(trained.facts["history"]))
            run.log_metrics(evaluation.facts["metrics"])
            run.log_metrics(interval_metrics(evaluation))
            run.log_metrics(candidate_metrics(trained.facts))
            if beside is not None:
                tags["ml_platform.beside_champion"] = beside.message
                run.set_tags({"ml_platform.beside_champion": beside.message})
                gain = "gain_over_champion"
                names = {"gain": gain, "low": f"{gain}_low", "high": f"{gain}_high"}
                figures = {name: beside.facts.get(key) for key, name in names.items()}
                run.log_metrics({name: value for name, value in figures.items() if value is not None})
            run.log_metrics({f"baseline_{name}": value for name, value in evaluation.facts["baseline"].items()})
            looked_at = {name: bench.store.read_bytes(file) for name, file in shown_files(evaluation).items()}
            run.log_artifacts(looked_at | {name: path.read_bytes() for name, path in told(files).items()})
            promotions = Promotions(run.connection, bench.store, self.pipeline.name)
            known_of_it = evidence(bench, evaluation, beside)
            if failed:
                promotions.refused(trained.data_version, reason="; ".join(failed), evidence=known_of_it)
                return None, run.describe(), None
            version = self._upload(bench, run, trained, evaluation, files, tags)
            page = run.describe()
        self._bring_back(bench, promotions)
        if known is None:
            assert beside is not None
            good, why = good_enough(self.pipeline, beside)
        else:
            good, why = known.facts.get("good_enough", True), "the pipeline has gone back to it"
        ruling = promotions.by_policy(
            trained.data_version,
            promote=good,
            person=self.pipeline.promotion.by == "person",
            reason=why,
            evidence=known_of_it,
            against=beside.against if beside else None,
            announce=functools.partial(self._announce, bench),
        )
        if ruling is not None:
            about = promotions.trail.read().about(trained.data_version)
            describe_version(run.connection, ruling.version, files, [each.describe() for each in about])
        return ruling.version if ruling else version, page, ruling

    def _tracked(self, bench: Bench, trained: Manifest) -> AbstractContextManager[TrackedRun]:
        return bench.mlflow.tracked_run(
            bench.context,
            experiment=self.pipeline.name,
            fingerprint=trained.fingerprint,
            run_name=run_name(self.pipeline.name, trained.fingerprint),
        )

    def _carried(self, bench: Bench, trained: Manifest, evaluation: Manifest) -> dict[str, Path]:
        training_set = bench.chain.of_version("training_set", evaluation.inputs["training_set"])
        return carried(bench, trained, evaluation, training_set)

    def _upload(
        self,
        bench: Bench,
        run: TrackedRun,
        trained: Manifest,
        evaluation: Manifest,
        files: Mapping[str, Path],
        tags: Mapping[str, str],
    ) -> RegisteredVersion:
        """A complete version of the model, under whatever aliases it has."""
        from ml_platform.registry.models import EVALUATION_TAG, register

        training_set = bench.chain.of_version("training_set", trained.inputs["training_set"])
        folder = bench.scratch / f"model-{trained.fingerprint}"
        return register(
            self.pipeline,
            # It lies there already when the model is compared anew, with another champion than at first.
            folder if folder.exists() else model_folder(bench.store, trained, folder),
            connection=run.connection,
            run_id=run.run_id,
            fingerprint=trained.fingerprint,
            data_version=trained.data_version,
            input_example=self._example(bench, training_set),
            metrics=evaluation.facts["metrics"],
            tags={
                "ml_platform.training_set": trained.inputs["training_set"],
                EVALUATION_TAG: evaluation.data_version,
                "ml_platform.code_version": trained.code_version,
                "ml_platform.dagster_run": bench.run_id,
                **provenance_tags(files),
                **tags,
            },
            carried=files,
            program=True,
            promote=None,
        )

    def _bring_back(self, bench: Bench, promotions: Promotions) -> None:
        """Register a champion anew, from the store, whose version was found damaged and which is not today's model."""
        lost = promotions.homeless()
        if lost is None:
            return
        try:
            trained = bench.chain.of_version(TRAINED, lost.model)
            found = bench.chain.of_version("evaluation", lost.evidence.get("evaluation", ""), trained_model=lost.model)
        except RefusedError as error:
            bench.log.warning(f"The champion is damaged, and the store cannot replace it.\n{error}")
            return
        aside = replace(bench, scratch=bench.scratch / "champion_again")  # today's model has files of these names
        aside.scratch.mkdir(exist_ok=True)
        with self._tracked(aside, trained) as run:
            self._upload(aside, run, trained, found, self._carried(aside, trained, found), {})

    def _announce(self, bench: Bench, version: RegisteredVersion, why: str) -> None:
        """Tell people that a model waits for them; `automation.alerts` sends it on."""
        import dagster as dg

        text = f"Version {version.version} waits as challenger: {why}. {approving(self.pipeline.name, version.version)}"
        key = bench.chain.published.key(self.name)
        bench.context.log_event(
            dg.AssetObservation(asset_key=key, description=text, metadata={"notice": "waits for a person"})
        )

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
        load = f"mlflow.pyfunc.load_model('models:/{facts['name']}@champion')"
        beside = {"beside the champion": facts["beside"]["said"]} if "beside" in facts else {}
        now = promoted(chain, facts[TRAINED], facts["version"])
        version = str(now.metadata["version"])
        shown = {"model": f"models:/{facts['name']}/{version}", "version": version, "alias": now.metadata["alias"]}
        beside |= {"standing when published": now.description}
        beside |= {"exported program": program} if (program := facts.get("program")) else {}
        return {**shown, **beside, "mlflow run": mlflow_link(facts["mlflow"]), "load it with": load}


def _told(trained: Manifest, training_set: Manifest) -> dict[str, str]:
    """What a person must know of a model's origin: batches that were waived, and whose weights it began with."""
    began = warm.describe(trained.facts)
    return {**waived_shown(training_set.facts), **({"warm start": began} if began else {})}


def _facts(version: RegisteredVersion) -> dict[str, Any]:
    from ml_platform.registry.upload import PROGRAM_TAG

    return {
        "name": version.name,
        "version": version.version,
        "uri": version.uri,
        "aliases": list(version.aliases),
        "run_id": version.run_id,
        "program": version.tags.get(PROGRAM_TAG, ""),
    }


def mlflow_link(page: str) -> MetadataValue:
    """Where an MLflow run can be seen: a link, or the command that shows it."""
    import dagster as dg

    return dg.MetadataValue.url(page) if page.startswith("http") else dg.MetadataValue.text(page)


def run_name(pipeline: str, fingerprint: str) -> str:
    """What a model's MLflow run is called."""
    return f"{pipeline}-{fingerprint[:8]}"


def mlflow_params(recipe: Recipe) -> dict[str, object]:
    """The recipe as MLflow's parameters."""
    identity = recipe.identity()
    nested = {"hyperparameters", "optimizer_options"}
    flat = {name: value for name, value in identity.items() if name not in nested}
    replay = {"replay": recipe.warm_start.replay} if recipe.warm_start else {}
    return flat | replay | {key: value for name in nested for key, value in identity[name].items()}


def model_params(pipeline: Pipeline, facts: Mapping[str, Any]) -> dict[str, object]:
    """What a trained model, whose facts these are, was made with. Of an average the parameters of each member, by names
    such as "wide.epochs"."""
    if pipeline.recipe is not None:
        return mlflow_params(pipeline.recipe)
    chosen = facts.get("candidates", {}).get("chosen", "")
    about: dict[str, object] = {"candidates": ", ".join(pipeline.candidates), "choose": pipeline.choose}
    if chosen in pipeline.candidates:
        return about | {"candidate": chosen} | mlflow_params(pipeline.candidates[chosen])
    each = {name: mlflow_params(recipe) for name, recipe in pipeline.candidates.items()}
    return about | {f"{name}.{key}": value for name, params in each.items() for key, value in params.items()}


def loss_series(history: Mapping[str, Any]) -> dict[str, list[float]]:
    """What was measured in each epoch, as MLflow's metrics."""
    names = ("train_loss", "learning_rate", "samples_per_second")
    return {name: [epoch[name] for epoch in history["epochs"]] for name in names}
