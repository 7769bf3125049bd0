"""trained_model, or a candidate for it: a distributed torch job, started through a launcher, followed through Pipes."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.recipe import CANDIDATE, TRAINED_MODEL
from ml_platform.stages import progress, warm
from ml_platform.stages.baseline import learning_params
from ml_platform.stages.execute import CODE_FILE
from ml_platform.stages.shown import rounded
from ml_platform.stages.stage import UNPARTITIONED, Bench, Outcome, Stage, Work
from ml_platform.stages.training_set import TrainingList, load_training_list
from ml_platform.store.manifest import Manifest
from ml_platform.training.checkpoint import resumed
from ml_platform.training.config import TrainingJob, Warm
from ml_platform.training.result import CONTENT, FILES, RESULT
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.registry.tracking import TrackedRun
    from ml_platform.stages.chain import Chain
    from ml_platform.store import Store

HISTORY = "history.json"
LOSS_PLOT = "loss.png"


class TrainedModel(Stage):
    """One artifact: the model folder, with weights as safetensors and its own preprocessing.

    Args:
        pipeline: whose.
        name: which of the pipeline's recipes, by the stage that trains it.
    """

    kinds = ("pytorch", "mlflow")

    def __init__(self, pipeline: Pipeline, name: str = TRAINED_MODEL) -> None:
        super().__init__(pipeline)
        self.name = name
        self.recipe = pipeline.recipes[name]

    @property
    def description(self) -> str:
        recipe = self.recipe
        begun = "on from the champion's weights" if recipe.warm_start else "from nothing"
        what = "Unpartitioned" if self.name == TRAINED_MODEL else "Unpartitioned, a candidate for trained_model"
        return (
            f"{what}: `{recipe.model}`, trained {begun} by {recipe.processes} processes together for "
            f"{recipe.epochs} epochs. The same training set, recipe and topology give the same bytes."
        )

    @property
    def upstream(self) -> tuple[str, ...]:
        return ("training_set",)

    def code(self) -> CodeVersion:
        recipe = self.recipe
        roots = ["ml_platform.training.job:main", recipe.model, *([recipe.loss] if recipe.loss else [])]
        params = {**learning_params(self), "recipe": recipe.identity()}
        return code_version(roots, params=params, libraries=("torch", "numpy"))

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        """The training set; and where training goes on from a champion, that model."""
        training_set = chain.settled("training_set", [UNPARTITIONED])[UNPARTITIONED]
        if isinstance(training_set, str):
            return {UNPARTITIONED: training_set}
        parent = warm.parent_inputs(self.recipe, training_set)
        return {UNPARTITIONED: {"training_set": training_set.data_version, **parent}}

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        (work,) = works
        if (known := self._known_elsewhere(bench, work)) is not None:
            yield known
            return
        listed = load_training_list(bench, work)
        training_set = work.manifests["training_set"]
        choice = warm.choose(bench.chain, self.recipe, training_set, listed.train)
        job = TrainingJob(
            pipeline=self.pipeline.name,
            task=self.pipeline.task,
            label=self.pipeline.label,
            numeric=self.pipeline.features.numeric,
            categorical=self.pipeline.features.categorical,
            recipe=self.recipe,
            files=tuple(str(path) for path in TrainingList.paths(bench.store, listed.train)),
            device=bench.settings.device,
            warm=self._warm(bench, choice) if choice else None,
        )
        folder, follower = self._train(bench, work, job)
        history = json.loads((folder / HISTORY).read_text())
        files = {name: folder / name for name in (*FILES, RESULT)}
        files[warm.SEEN_FILE] = bench.scratch / warm.SEEN_FILE
        facts = {"history": history, "mlflow": follower.page, "restarts": follower.restarts + follower.restarts_inside}
        seen = {member.batch: member.version for member in listed.train}
        if choice is not None:
            facts["warm_start"] = warm.facts_of(choice, training_set, history)
            seen = {**choice.seen, **seen} if facts["warm_start"]["warm"] else seen
        elif self.recipe.warm_start is not None:
            facts["warm_start"] = {**training_set.facts["warm_start"], "warm": False}
        files[warm.SEEN_FILE].write_text(json.dumps(seen, sort_keys=True, indent=1))
        files[LOSS_PLOT] = bench.scratch / LOSS_PLOT
        files[LOSS_PLOT].write_bytes(loss_plot({"train": history}))
        hashes = json.loads((folder / RESULT).read_text())["files"]
        yield Outcome(
            batch=UNPARTITIONED,
            data_version=short_hash({name: hashes[name] for name in CONTENT}),
            files=files,
            facts=facts,
        )

    def _known_elsewhere(self, bench: Bench, work: Work) -> Outcome | None:
        """The very model where another stage has trained it: before a recipe became a candidate it was trained_model's,
        and a candidate may have had another name that is still declared."""
        if bench.store.find(self.pipeline.name, self.name, work.fingerprint) is not None:
            return None  # asked for once more
        for name in sorted({TRAINED_MODEL, *self.pipeline.recipes} - {self.name}):
            there = bench.store.find(self.pipeline.name, name, work.fingerprint)
            if there is not None:
                files = {file.name: bench.store.path(file) for file in there.files if file.name != CODE_FILE}
                facts = {key: fact for key, fact in there.facts.items() if key != "checks"}
                return Outcome(batch=UNPARTITIONED, data_version=there.data_version, files=files, facts=facts)
        return None

    @staticmethod
    def _warm(bench: Bench, choice: warm.Choice) -> Warm:
        folder = model_folder(bench.store, choice.parent, bench.scratch / "parent")
        files = TrainingList.paths(bench.store, choice.members)
        return Warm(parent=choice.parent.data_version, folder=str(folder), files=tuple(map(str, files)))

    def _train(self, bench: Bench, work: Work, job: TrainingJob) -> tuple[Path, _Follower]:
        """Start the job or join the one that runs, and follow it until it has ended.

        The job starts first and MLflow, which takes seconds to import, meets it on the way.

        Returns:
            A copy of the model folder, and what was seen on the way.
        """
        import dagster as dg

        from ml_platform.launch import protocol
        from ml_platform.stages.messages import LogMessages, reader_for
        from ml_platform.stages.registered_model import mlflow_params, run_name

        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            # It says that part of Pipes is in preview: Dagster is pinned.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            reader = reader_for(bench.launcher)
            session = stack.enter_context(
                dg.open_pipes_session(
                    bench.context, context_injector=dg.PipesEnvContextInjector(), message_reader=reader
                )
            )
            follower = _Follower(bench, self)

            def on_status(status: protocol.Status) -> None:
                lost = status.state is protocol.State.LOST
                follower.restarts += lost
                follower.restarts_inside = max(follower.restarts_inside, status.restarts)
                tell = bench.log.warning if lost else bench.log.info
                tell(f"training job {work.fingerprint}: {status.state} {status.detail}".rstrip())
                follower.show(f"{status.state} {status.detail}".splitlines()[0].rstrip())
                if status.state is protocol.State.RUNNING and follower.run is None:
                    follower.run = stack.enter_context(
                        bench.mlflow.tracked_run(
                            bench.context,
                            experiment=self.pipeline.name,
                            fingerprint=work.fingerprint,
                            run_name=run_name(self._shown_as, work.fingerprint),
                        )
                    )
                    follower.run.log_params(mlflow_params(self.recipe))

            def on_line(line: str) -> None:
                if isinstance(reader, LogMessages):
                    reader.take(line)
                follower.drain(session.get_custom_messages())

            result = protocol.run(
                bench.launcher,
                name=work.fingerprint,
                job=job,
                env=session.get_bootstrap_env_vars(),
                log=on_line,
                on_status=on_status,
                stopped=bench.stopping.is_set,
            )
            follower.drain(session.get_custom_messages())
        # Copies: the job's folder stays whole until the artifact is committed, so a kill in between loses nothing.
        folder = Path(shutil.copytree(result.folder, bench.scratch / "model"))
        return folder, follower

    @property
    def _shown_as(self) -> str:
        """What its MLflow runs are called after."""
        candidate = self.name.removeprefix(CANDIDATE)
        return self.pipeline.name if candidate == self.name else f"{self.pipeline.name}-{candidate}"

    def committed(self, bench: Bench, work: Work) -> None:
        bench.launcher.remove(work.fingerprint)

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, Any]:
        import dagster as dg

        from ml_platform.evaluation.drawing import markdown
        from ml_platform.stages.publish import table
        from ml_platform.stages.registered_model import mlflow_link

        history = manifest.facts["history"]
        return {
            "loss": dg.MetadataValue.md(markdown(chain.store.read_bytes(manifest.file(LOSS_PLOT)), "loss curve")),
            "epochs": table([{name: rounded(v) for name, v in epoch.items()} for epoch in history["epochs"]]),
            "ranks": table([{"rank": rank["rank"], **rank} for rank in history["resources"]]),
            "checkpoints": _checkpoints(history),
            "final train loss": rounded(history["epochs"][-1]["train_loss"]),
            "weights": manifest.file("weights.safetensors").sha256,
            "restarts": manifest.facts["restarts"],
            **({"went on": told} if (told := "; ".join(map(resumed.describe, resumed.all_of(history)))) else {}),
            **({"warm start": told} if (told := warm.describe(manifest.facts)) else {}),
            "mlflow run": mlflow_link(manifest.facts["mlflow"]),
        }


class _Follower:
    """Tells Dagster and MLflow of each epoch, while the job goes on."""

    def __init__(self, bench: Bench, stage: TrainedModel) -> None:
        self._bench, self._stage, self._key = bench, stage.name, bench.chain.published.key(stage.name)
        self._seen = 0
        self.run: TrackedRun | None = None
        self.restarts = 0
        self.restarts_inside = 0  # of the job that goes on now, by the backend itself

    @property
    def page(self) -> str:
        """Where the MLflow run can be seen."""
        return self.run.describe() if self.run else ""

    def show(self, how_far: str) -> None:
        """Tell whoever watches this run."""
        progress.notify(self._bench.run_id, self._stage, 0, 1, how_far)

    def drain(self, messages: Sequence[Any]) -> None:
        """Pass on what has come since the last call."""
        import dagster as dg

        new, self._seen = messages[self._seen :], len(messages)
        if new:
            self.show(_how_far(new[-1]))
        for message in new:
            if "step" in message:
                continue  # within an epoch: in the log only
            values = {name: message[name] for name in ("train_loss", "learning_rate", "samples_per_second")}
            self._bench.context.log_event(
                dg.AssetObservation(
                    asset_key=self._key,
                    metadata={"epoch": message["epoch"], **{name: rounded(value) for name, value in values.items()}},
                )
            )
            if self.run is not None:
                self.run.log_metrics(values, step=message["epoch"])


def _checkpoints(history: Mapping[str, Any]) -> str:
    taken = history["checkpoints"]
    if not taken["taken"]:
        return "none was due"
    share = taken["held_up_seconds"] / history["seconds"]
    return (
        f"{taken['taken']} taken, which held training up for {taken['held_up_seconds']:.2f} s ({share:.1%} of its time)"
    )


def _how_far(message: Mapping[str, Any]) -> str:
    place = f", step {message['step']}/{message['steps']}" if "step" in message else f"/{message['epochs']}"
    return f"epoch {message['epoch']}{place}: loss {message['train_loss']:.4f}"


def loss_plot(histories: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The training loss by epoch, one line for each history."""
    from ml_platform.evaluation.plots import loss_curve

    return loss_curve({name: [epoch["train_loss"] for epoch in each["epochs"]] for name, each in histories.items()})


def model_folder(store: Store, manifest: Manifest, into: Path) -> Path:
    """Lay a trained_model artifact out as the folder that it was: links to verified files of the store."""
    into.mkdir(parents=True, exist_ok=True)
    for name in (*FILES, RESULT):
        (into / name).symlink_to(store.path(manifest.file(name)))
    return into
