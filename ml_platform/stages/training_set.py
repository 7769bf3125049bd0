"""training_set: the frozen list of batches to learn from and to hold out. Below it nothing is partitioned."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.gates.declaration import DRIFT, FEATURE_CHECKS, RATE, SHIFT
from ml_platform.gates.waivers import WAIVED_BEFORE
from ml_platform.stages import warm
from ml_platform.stages.chain import State
from ml_platform.stages.features import parts
from ml_platform.stages.stage import UNPARTITIONED, Bench, Check, CheckResult, Outcome, Stage, Work
from ml_platform.store.manifest import ArtifactFile, Manifest
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.stages.chain import Chain
    from ml_platform.store import Store

LIST_FILE = "training_set.json"
NO_LEAKAGE = "no_leakage"
NOT_EMPTY = "not_empty"
NOT_REACHED = "Not reached."
SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Member:
    """One batch of a training set: the data version of its features, and where their bytes are."""

    batch: str
    version: str
    rows: int
    files: tuple[ArtifactFile, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingList:
    """What a training set's file says. Batches are in name order; no batch is in both lists."""

    train: tuple[Member, ...]
    holdout: tuple[Member, ...]
    left_out: Mapping[str, str]

    @classmethod
    def load(cls, store: Store, manifest: Manifest) -> TrainingList:
        """Read the list of a training_set artifact."""
        record = json.loads(store.read_bytes(manifest.file(LIST_FILE)))
        return cls(
            train=tuple(map(_member, record["train"])),
            holdout=tuple(map(_member, record["holdout"])),
            left_out=record["left_out"],
        )

    @staticmethod
    def paths(store: Store, members: Sequence[Member]) -> list[Path]:
        """Verified local paths of the members' Parquet files, in batch order."""
        return store.paths(file for member in members for file in member.files)


def _member(record: Mapping[str, Any]) -> Member:
    return Member(**{**record, "files": tuple(ArtifactFile(**file) for file in record["files"])})


class TrainingSet(Stage):
    """One artifact: which batches, in which data version."""

    name = "training_set"
    kinds = ("json",)

    @property
    def description(self) -> str:
        return (
            "Unpartitioned: the frozen list of accepted batches to learn from and, later in time, to hold out, each "
            "with the data version of its features. A batch added, changed, rejected or withdrawn makes a new one."
        )

    @property
    def upstream(self) -> tuple[str, ...]:
        return ("features",)

    def code(self) -> CodeVersion:
        params: dict[str, Any] = {
            "split": asdict(self.pipeline.split),
            "features": self.pipeline.features.columns,
            "label": self.pipeline.label,
            "task": self.pipeline.task,
            "leakage_limit": self.pipeline.leakage_limit,
            "feature_gate": asdict(self.pipeline.feature_gate),
            "history": [self.pipeline.batch_gate.history, self.pipeline.batch_gate.least],
        }
        if self._warm:
            params["warm_start"] = True  # only then is the champion looked up
        roots = ("ml_platform.gates.leakage:separation", "ml_platform.gates.matrix:examine")
        return code_version(roots, params=params, libraries=("scikit-learn", "polars", "datasketches"))

    def checks(self) -> tuple[Check, ...]:
        gate = self.pipeline.feature_gate
        limits = {RATE: gate.drift, DRIFT: gate.drift, SHIFT: gate.shift}
        warned = {name for name, limit in limits.items() if limit.reject is None}
        return (
            Check(name=NOT_EMPTY, description="Are there batches to learn from and batches to hold out?"),
            *(Check(name=name, description=text, blocking=name not in warned) for name, text in FEATURE_CHECKS.items()),
            Check(name=NO_LEAKAGE, description="Does no feature alone separate the label suspiciously well?"),
        )

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        """Every batch with current features. One whose features could be built but are not holds everything up."""
        members, waiting, left_out, waived = self._sort_out(chain)
        if waiting:
            first = ", ".join(waiting[:3]) + ("..." if len(waiting) > 3 else "")
            reason = (
                f"features of {len(waiting)} batches are missing or out of date ({first}): materialize validated_batch "
                f"and features for them first, or run `ml-platform run {self.pipeline.name}`."
            )
            return {UNPARTITIONED: reason}
        if not members:
            return {UNPARTITIONED: "there is no accepted batch yet."}
        versions = {f"features/{batch}": manifest.data_version for batch, manifest in members.items()}
        withdrawn = self._withdrawn(chain, left_out)
        versions["left out"] = short_hash([*sorted(left_out), *([withdrawn] if withdrawn else [])])
        if waived:
            versions[WAIVED_BEFORE] = short_hash(waived)
        return {UNPARTITIONED: versions}

    def _sort_out(self, chain: Chain) -> tuple[dict[str, Manifest], list[str], dict[str, str], dict[str, Any]]:
        """Batches with current features, those that wait to be built, those left out, and waivers by input name."""
        validated = chain.statuses("validated_batch", chain.taken())
        withdrawn = chain.withdrawals.holding()
        left_out = {b: s.reason for b, s in validated.items() if s.state is State.REJECTED or b in withdrawn}
        gates = {f"validated_batch/{batch}": status.manifest for batch, status in validated.items()}
        gates |= {r.name: chain.statuses(r.name)[UNPARTITIONED].manifest for r in self.pipeline.references}
        waived = {name: gate.facts["waiver"] for name, gate in gates.items() if gate and gate.verdict == "waived"}
        features = chain.settled("features", [batch for batch in validated if batch not in left_out])
        members = {batch: manifest for batch, manifest in features.items() if isinstance(manifest, Manifest)}
        return members, [batch for batch in features if batch not in members], left_out, waived

    @staticmethod
    def _withdrawn(chain: Chain, left_out: Collection[str]) -> dict[str, str]:
        """Those of the batches left out that a person has taken out, each with the id of the withdrawal."""
        return {batch: w.id for batch, w in sorted(chain.withdrawals.holding().items()) if batch in left_out}

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        (work,) = works
        _, _, left_out, waived = self._sort_out(bench.chain)
        members = {m.batch: m for m in map(_as_member, work.manifests.values())}
        train, holdout = self.pipeline.split.divide(list(members))
        listed = TrainingList(
            train=tuple(members[b] for b in train), holdout=tuple(members[b] for b in holdout), left_out=left_out
        )
        read = {name for m in work.manifests.values() if m.batch in {*train, *holdout} for name in m.inputs}
        waived = {name: waived[name] for name in sorted(read & waived.keys())}
        path = bench.scratch / LIST_FILE
        path.write_text(json.dumps(asdict(listed), indent=1, sort_keys=True))
        empty = self._emptiness(listed)
        checks = [CheckResult(name=NOT_EMPTY, passed=not empty, description=empty)]
        checks += self._looked_at(bench.store, listed) if not empty else _not_reached(*FEATURE_CHECKS, NO_LEAKAGE)
        content: list[Any] = [[(m.batch, m.version) for m in part] for part in (listed.train, listed.holdout)]
        yield Outcome(
            batch=UNPARTITIONED,
            # That a person let a batch in is part of what a model is made of; who and why is told in the facts.
            data_version=short_hash([*content, list(waived)] if waived else content),
            files={LIST_FILE: path},
            facts={
                "train": {"batches": len(train), "rows": sum(m.rows for m in listed.train)},
                "holdout": {"batches": len(holdout), "rows": sum(m.rows for m in listed.holdout)},
                "windows": {"train": [*train[:1], *train[-1:]], "holdout": [*holdout[:1], *holdout[-1:]]},
                "left_out": left_out,
                "withdrawn": self._withdrawn(bench.chain, left_out),
                WAIVED_BEFORE: waived,
                "warm_start": self._parent(bench, listed.train, left_out),
            },
            checks=checks,
            rejected=empty or _reasons(checks),
            gated=True,
        )

    def _parent(self, bench: Bench, train: Sequence[Member], left_out: Mapping[str, str]) -> dict[str, str]:
        """Which model training is to go on from: settled here, for good."""
        if not self._warm:
            return {}
        return warm.parent_of(bench.chain, train, left_out)

    @property
    def _warm(self) -> bool:
        """Whether training goes on from the champion."""
        return any(recipe.warm_start is not None for recipe in self.pipeline.recipes.values())

    @staticmethod
    def _emptiness(listed: TrainingList) -> str:
        for name in ("train", "holdout"):
            if not sum(member.rows for member in getattr(listed, name)):
                return f"The split leaves no rows in `{name}`: land batches of that window or change the split."
        return ""

    def _looked_at(self, store: Store, listed: TrainingList) -> list[CheckResult]:
        """What there is to say of the rows themselves. Reads all of them."""
        checks = list(self._matrix(store, listed))
        if all(check.passed or check.warn for check in checks):
            return [*checks, self._leakage(TrainingList.paths(store, listed.train))]
        return [*checks, *_not_reached(NO_LEAKAGE)]

    def _matrix(self, store: Store, listed: TrainingList) -> Iterator[CheckResult]:
        from ml_platform.gates.matrix import examine

        train, holdout = (
            {member.batch: TrainingList.paths(store, [member]) for member in part}
            for part in (listed.train, listed.holdout)
        )
        for finding in examine(self.pipeline, train=train, holdout=holdout):
            yield CheckResult(
                name=finding.name,
                passed=finding.passed,
                description=finding.message,
                warn=not finding.rejects,
                metadata={title: list(rows) for title, rows in finding.tables.items()},
            )

    def _leakage(self, paths: Sequence[Path]) -> CheckResult:
        import pyarrow.dataset as ds

        from ml_platform.gates.leakage import separation, suspicious

        columns = [*self.pipeline.features.columns, self.pipeline.label]
        table = ds.dataset([str(path) for path in paths], format="parquet").to_table(columns=columns)
        scores = separation(table, self.pipeline)
        bad = suspicious(scores, self.pipeline.leakage_limit)
        ranked = sorted(scores.items(), key=lambda item: -item[1])[:SHOWN]
        named = ", ".join(f"{name} ({scores[name]:.3f})" for name in bad)
        return CheckResult(
            name=NO_LEAKAGE,
            passed=not bad,
            description=f"Features that alone separate the label, above {self.pipeline.leakage_limit}: {named}. Is the "
            "value known when a prediction is asked for? Remove it, or raise leakage_limit."
            if bad
            else "",
            metadata={"separation": [{"feature": name, "score": round(score, 4)} for name, score in ranked]},
        )

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, Any]:
        facts = manifest.facts
        return {
            "training batches": facts["train"]["batches"],
            "training rows": facts["train"]["rows"],
            "training window": "..".join(facts["windows"]["train"]),
            "holdout batches": facts["holdout"]["batches"],
            "holdout rows": facts["holdout"]["rows"],
            "holdout window": "..".join(facts["windows"]["holdout"]),
            "left out": len(facts["left_out"]),
            **({"withdrawn": "; ".join(facts["left_out"][b] for b in out)} if (out := facts.get("withdrawn")) else {}),
            **waived_shown(facts),
            **({"warm start": told} if (told := warm.describe(facts)) else {}),
        }


def _not_reached(*names: str) -> list[CheckResult]:
    return [CheckResult(name=name, passed=False, description=NOT_REACHED) for name in names]


def _reasons(checks: Sequence[CheckResult]) -> str:
    """Why a gate refuses the matrix; "" where it does not."""
    failed = [check for check in checks if not check.passed and not check.warn and check.description != NOT_REACHED]
    return "; ".join(check.description for check in failed)


def _as_member(manifest: Manifest) -> Member:
    return Member(
        batch=manifest.batch,
        version=manifest.data_version,
        rows=manifest.facts["rows"],
        files=tuple(parts(manifest)),
    )


def load_training_list(bench: Bench, work: Work) -> TrainingList:
    """The list behind a stage's `training_set` input."""
    return TrainingList.load(bench.store, work.manifests["training_set"])


def waived_shown(facts: Mapping[str, Any]) -> dict[str, str]:
    """What of a training set was let in by a person, who that was, and why; empty where there is nothing."""
    waived = facts.get(WAIVED_BEFORE, {})
    told = (f"{name.rpartition('/')[2]} (by {w['by']}: {w['reason']})" for name, w in waived.items())
    return {"waived batches": "; ".join(told)} if waived else {}
