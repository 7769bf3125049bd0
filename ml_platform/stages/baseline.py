"""baseline: gradient boosting on the same rows, what the trained model must justify itself against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_platform.stages.stage import UNPARTITIONED, Bench, Outcome, Stage, Work
from ml_platform.stages.training_set import TrainingList, load_training_list
from ml_platform.store.manifest import Manifest
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.stages.chain import Chain

SCORES_FILE = "scores.npy"
METRICS_FILE = "metrics.json"


def learning_params(stage: Stage) -> dict[str, Any]:
    """What every learner reads of the declaration: which columns, and what to predict."""
    features = stage.pipeline.features
    return {
        "numeric": features.numeric,
        "categorical": features.categorical,
        "label": stage.pipeline.label,
        "task": stage.pipeline.task,
    }


def settled_inputs(chain: Chain, names: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
    """The inputs of a stage that reads unpartitioned stages only, or why it cannot be built."""
    versions: dict[str, str] = {}
    for name in names:
        manifest = chain.settled(name, [UNPARTITIONED])[UNPARTITIONED]
        if isinstance(manifest, str):
            return {UNPARTITIONED: manifest}
        versions[name] = manifest.data_version
    return {UNPARTITIONED: versions}


class Baseline(Stage):
    """One artifact: the baseline's scores on the holdout, and its metrics."""

    name = "baseline"
    kinds = ("scikitlearn",)

    @property
    def description(self) -> str:
        return "Unpartitioned: scikit-learn's histogram gradient boosting on the same rows, and how good it is."

    @property
    def upstream(self) -> tuple[str, ...]:
        return ("training_set",)

    def code(self) -> CodeVersion:
        params = {**learning_params(self), "seed": self._seed}
        roots = ("ml_platform.evaluation.baseline:fit_and_score",)
        return code_version(roots, params=params, libraries=("scikit-learn",))

    @property
    def _seed(self) -> int:
        """The recipe's. Of several candidates no one's: to edit one of them concerns that one alone."""
        return self.pipeline.recipe.seed if self.pipeline.recipe else 0

    def inputs(self, chain: Chain, batches: Sequence[str]) -> dict[str, Mapping[str, str] | str]:
        return settled_inputs(chain, self.upstream)

    def build(self, bench: Bench, works: Sequence[Work]) -> Iterator[Outcome]:
        import numpy as np

        from ml_platform.evaluation.baseline import fit_and_score

        (work,) = works
        listed = load_training_list(bench, work)
        result = fit_and_score(
            self.pipeline,
            TrainingList.paths(bench.store, listed.train),
            TrainingList.paths(bench.store, listed.holdout),
            seed=self._seed,
        )
        scores = bench.scratch / SCORES_FILE
        np.save(scores, result.scores, allow_pickle=False)
        metrics = bench.scratch / METRICS_FILE
        metrics.write_text(json.dumps(result.metrics, indent=1, sort_keys=True))
        yield Outcome(
            batch=UNPARTITIONED,
            data_version=short_hash([file_hash.hexdigest() for file_hash in map(_hashed, (scores, metrics))]),
            files={SCORES_FILE: scores, METRICS_FILE: metrics},
            facts={"metrics": result.metrics},
        )

    def metadata(self, chain: Chain, manifest: Manifest) -> dict[str, Any]:
        return dict(manifest.facts["metrics"])


def _hashed(path: Any) -> Any:
    return hashlib.sha256(path.read_bytes())
