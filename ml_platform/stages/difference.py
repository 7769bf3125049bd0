"""What the code here makes stale that another revision's did not: for a pull request, before anything runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ml_platform.discovery import folders
from ml_platform.errors import DeclarationError, PlatformError, SetupError
from ml_platform.stages import all_versions
from ml_platform.stages.cost import Cost, cost_of
from ml_platform.stages.opening import chain_of
from ml_platform.stages.plan import SAMPLED
from ml_platform.stages.why import History
from ml_platform.versions.code import CodeVersion
from ml_platform.versions.revision import Revision, laid_out, path_in, repository_of

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.settings import Settings
    from ml_platform.stages.chain import Chain
    from ml_platform.stages.stage import Stage
    from ml_platform.versions.cause import Cause

SCHEMA = 1
"""Of the JSON that `plan --diff --json` prints. Raise it when a field changes its meaning or goes."""

State = Literal["same", "stale", "may", "added", "removed"]
_Stages = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class StageDifference:
    """One stage.

    Args:
        name: the stage.
        state: "stale" (its code version differs), "may" (one above it is stale, or may be), "added", "removed", "same".
        causes: what differs.
        waits_for: the stages next above that are stale or may be.
        artifacts: how many batches there are of it here; None where nothing is known of any.
        each: what one costs, by history; None where there is none.
    """

    name: str
    state: State
    causes: tuple[Cause, ...] = ()
    waits_for: tuple[str, ...] = ()
    artifacts: int | None = None
    each: Cost | None = None

    @property
    def cost(self) -> Cost | None:
        """What building all of them costs; None where it is not known."""
        if self.artifacts is None or (self.each is None and self.artifacts):
            return None
        return Cost() if self.each is None else self.each * self.artifacts

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "state": self.state,
            "causes": [cause.to_dict() for cause in self.causes],
            "waits_for": list(self.waits_for),
            "artifacts": self.artifacts,
            "cost": self.cost and self.cost.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class PipelineDifference:
    """One pipeline, stage by stage.

    Args:
        name: the pipeline.
        change: "not compared" where the repository that its package lies in, if any, has no such revision.
        revision: of its own repository: what it was compared with.
        stages: in the order of the chain.
        uncounted: why there are no counts.
    """

    name: str
    change: Literal["same", "changed", "added", "removed", "not compared"]
    revision: str = ""
    stages: tuple[StageDifference, ...] = ()
    uncounted: str = ""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The code here compared with a revision's."""

    revision: str
    commit: str
    pipelines: tuple[PipelineDifference, ...]

    @property
    def differs(self) -> bool:
        """Whether anything does."""
        return any(pipeline.change not in ("same", "not compared") for pipeline in self.pipelines)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "schema": SCHEMA,
            "revision": self.revision,
            "commit": self.commit,
            "differs": self.differs,
            "pipelines": [
                {
                    "name": pipeline.name,
                    "change": pipeline.change,
                    "revision": pipeline.revision,
                    "stages": [stage.to_dict() for stage in pipeline.stages],
                    "uncounted": pipeline.uncounted,
                }
                for pipeline in self.pipelines
            ],
        }


def compare(revision: str, settings: Settings, pipelines: Mapping[str, Pipeline], names: Collection[str]) -> Difference:
    """Compare the code here with a revision's: of the repository around the working folder, and of each pipeline's own.

    A branch of the platform and one of a team's repository can so be compared in one, each with its own `main`.

    Args:
        revision: a branch, a tag or a commit.
        settings: which pipelines there are, and where artifacts are counted, if there are any.
        pipelines: those that are declared here.
        names: the ones to compare; all of both sides, when empty.

    Raises:
        SetupError: there is no git, repository or revision, or the revision's pipelines cannot be read.
    """
    now = all_versions.all_versions(settings)
    homes = {
        name: repository_of(folder, revision)
        for name, folder in folders(settings).items()
        if not names or name in names
    }
    with ExitStack() as stack:
        here = repository_of(Path.cwd(), revision)
        others = {home for home in homes.values() if home not in (None, here)}
        # Where nothing has that revision, this says why.
        base = [stack.enter_context(laid_out(revision))] if here or not others else []
        there = {each.repository: [each] for each in base}
        there |= {home: [stack.enter_context(laid_out(revision, home)), *base] for home in others}
        before = {home: _versions_in(revisions) for home, revisions in there.items()}
    gone = {name: home for home, versions in before.items() for name in versions if name not in now}
    wanted = names or sorted({*now, *gone})
    main = next(iter(there.values()))[0]
    if unknown := [name for name in wanted if name not in {*now, *gone}]:
        raise DeclarationError("There is no such pipeline, here or there.", where=main, got=", ".join(unknown))
    found = []
    for name in wanted:
        if (home := {**homes, **gone}[name]) is None:
            found.append(PipelineDifference(name=name, change="not compared"))
            continue
        compared = _pipeline(name, now.get(name), before[home].get(name), settings, pipelines)
        found.append(replace(compared, revision=str(there[home][0])))
    return Difference(revision=str(main), commit=main.commit, pipelines=tuple(found))


def _versions_in(revisions: Sequence[Revision]) -> Mapping[str, _Stages]:
    """Code versions by the revisions' own sources and rules, in a process of its own."""
    program = Path(all_versions.__file__).read_text(encoding="utf-8")
    path = path_in(revisions, sys.path)
    instead_of = [os.path.join(revision.repository, "") for revision in revisions]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "versions.json")
        done = subprocess.run(
            [sys.executable, "-c", program, json.dumps(path), json.dumps(instead_of), str(out)],
            cwd=revisions[0].folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not out.exists():
            lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
            raise SetupError(
                "The revision's pipelines cannot be read.",
                where=", ".join(map(str, revisions)),
                got="\n".join(lines[-5:]),
                fix="choose a revision whose pipelines are declared without errors, with the libraries installed here",
            )
        versions: Mapping[str, _Stages] = json.loads(out.read_text(encoding="utf-8"))
    return versions


def _pipeline(
    name: str, now: _Stages | None, before: _Stages | None, settings: Settings, pipelines: Mapping[str, Pipeline]
) -> PipelineDifference:
    if now is None:
        return PipelineDifference(name=name, change="removed")
    counts, uncounted = counted(pipelines[name], settings)
    stages: dict[str, StageDifference] = {}
    for stage, record in now.items():
        waits_for = tuple(above for above in record["upstream"] if stages[above].state != "same")
        causes: list[Cause] = []
        state: State = "may" if waits_for else "same"
        if before is None or stage not in before:
            state = "added"
        else:
            causes = CodeVersion.from_dict(record["version"]).diff(CodeVersion.from_dict(before[stage]["version"]))
            state = "stale" if causes else state
        artifacts, each = counts.get(stage, (None, None))
        stages[stage] = StageDifference(
            name=stage, state=state, causes=tuple(causes), waits_for=waits_for, artifacts=artifacts, each=each
        )
    gone = [StageDifference(name=stage, state="removed") for stage in before or () if stage not in now]
    differs = gone or any(stage.state != "same" for stage in stages.values())
    return PipelineDifference(
        name=name,
        change="added" if before is None else "changed" if differs else "same",
        stages=(*stages.values(), *gone),
        uncounted=uncounted,
    )


def counted(pipeline: Pipeline, settings: Settings) -> tuple[dict[str, tuple[int, Cost | None]], str]:
    """How many artifacts each stage has here and what one costs; and why that is not known, where it is not.

    CI has neither data nor artifacts, and is told about the code all the same.
    """
    from ml_platform.stages import stages_of

    elsewhere = [place for place in (settings.store, settings.landing) if not Path(place).is_relative_to(settings.home)]
    if not settings.home.exists() and not elsewhere:
        return {}, f"nothing was ever built here: {settings.home} does not exist"
    try:
        chain = chain_of(stages_of(pipeline), settings)
        history, batches = History(chain), set(chain.batches())
        return {
            name: (_artifacts(stage, batches, chain), cost_of(history.sample(name, SAMPLED)))
            for name, stage in chain.stages.items()
        }, ""
    except PlatformError as error:
        return {}, str(error)


def _artifacts(stage: Stage, batches: set[str], chain: Chain) -> int:
    """How many there may be of a stage: none of a batch that one next above has rejected, or a person taken out."""
    out = {batch for above in stage.upstream for batch in chain.published.rejections(above)}
    out |= chain.withdrawals.holding().keys() if stage.upstream else set()
    return len(batches - out) if stage.partitioned else 1
