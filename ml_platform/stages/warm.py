"""Warm starts: which model a training run goes on from, and which batches it then sees.

The parent belongs to the training set: it is the champion of the moment in which the training set was frozen, and stays
so whatever is registered or rolled back later. So a model that becomes the champion changes nothing about itself, the
same training set always means the same model, and the next training set begins from whoever is champion then.

A champion that has seen every training batch already, as after a rebuilt training set, has nothing to learn: its own
parent takes its place. So does the parent of one that has learned from a batch which a gate refuses now: weights must
not keep what was revoked. Where nobody is left, training begins anew, and says why.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_platform.errors import DamagedArtifactError, RefusedError
from ml_platform.versions.fingerprint import short_hash

if TYPE_CHECKING:
    from ml_platform.recipe import Recipe
    from ml_platform.stages.chain import Chain
    from ml_platform.stages.training_set import Member
    from ml_platform.store import Store
    from ml_platform.store.manifest import Manifest

TRAINED = "trained_model"
SEEN_FILE = "seen.json"
"""In every trained model: the data version of each batch that its weights have learned from, its ancestors' too."""


def parent_of(chain: Chain, train: Sequence[Member], refused: Collection[str]) -> dict[str, str]:
    """Which model a warm start on these batches goes on from, as facts of the training set.

    Args:
        chain: the pipeline as it stands.
        train: the batches to learn from.
        refused: batches that a gate refuses now.

    Returns:
        `fingerprint` and `data_version` of the trained model and `champion`, the version in the registry through which
        it was found; or `cold`, why there is none.

    Raises:
        RegistryError: the registry cannot be asked.
    """
    from ml_platform.registry.glance import champion

    standing = champion(chain.settings.mlflow, chain.pipeline.name)
    if standing is None:
        return {"cold": "there is no champion yet"}
    named = f"the champion, version {standing.version},"
    fingerprint, data_version, reason = standing.fingerprint, standing.data_version, ""
    while fingerprint:
        manifest = chain.store.find(chain.pipeline.name, TRAINED, fingerprint)
        seen = seen_by(chain.store, manifest) if manifest is not None else None
        if manifest is None or seen is None or manifest.data_version != data_version:
            return {"cold": f"{named} rests on weights that are not in the store: trained model {fingerprint}"}
        if spoilt := sorted(set(refused) & seen.keys()):
            reason = f"{named} has learned from {spoilt[0]}, which is refused now"
        elif all(seen.get(member.batch) == member.version for member in train):
            reason = f"{named} has learned from all of these batches, and began anew itself"
        else:
            return {"fingerprint": fingerprint, "data_version": data_version, "champion": standing.version}
        before = manifest.facts.get("warm_start", {})
        fingerprint, data_version = before.get("fingerprint", ""), before.get("data_version", "")
    return {"cold": reason or f"{named} was not trained by this platform"}


def parent_inputs(recipe: Recipe, training_set: Manifest) -> dict[str, str]:
    """What a warm start adds to a trained model's inputs: the parent, and how much is replayed."""
    parent = training_set.facts.get("warm_start", {})
    if recipe.warm_start is None or "fingerprint" not in parent:
        return {}
    how = {"parent": parent["fingerprint"], "replay": recipe.warm_start.replay}
    return {"champion": parent["data_version"], "warm start": short_hash(how)}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a warm start sees.

    Args:
        parent: the model that it goes on from.
        seen: data versions of the batches that the parent has learned from.
        new: batches that it has not, or not in this version.
        replayed: those of the others that are seen again.
    """

    parent: Manifest
    seen: Mapping[str, str]
    new: Sequence[Member]
    replayed: Sequence[Member]

    @property
    def members(self) -> list[Member]:
        """All that is learned from, in batch order."""
        return sorted((*self.new, *self.replayed), key=lambda member: member.batch)


def choose(chain: Chain, recipe: Recipe, training_set: Manifest, train: Sequence[Member]) -> Choice | None:
    """The parent and the batches of a warm start; None for a start anew.

    Old batches are drawn whole, by a hash of the seed, the parent and their name, until they have the declared share of
    the old rows.

    Raises:
        RefusedError: the parent is no longer in the store.
    """
    if not parent_inputs(recipe, training_set):
        return None
    assert recipe.warm_start is not None
    fingerprint = training_set.facts["warm_start"]["fingerprint"]
    parent = chain.store.find(chain.pipeline.name, TRAINED, fingerprint)
    seen = seen_by(chain.store, parent) if parent is not None else None
    if parent is None or seen is None or parent.data_version != training_set.facts["warm_start"]["data_version"]:
        raise RefusedError(
            "The model that training is to go on from is no longer in the store.",
            where=f"{chain.pipeline.name}/{TRAINED} {fingerprint}",
            fix="bring it back into the store; or freeze the training set anew, which asks for the present champion: "
            f"`ml-platform run {chain.pipeline.name} --select training_set --force`",
        )
    old = [member for member in train if seen.get(member.batch) == member.version]
    drawn = sorted(old, key=lambda member: short_hash([recipe.seed, fingerprint, member.batch]))
    wanted, replayed, rows = recipe.warm_start.replay * sum(member.rows for member in old), [], 0
    for member in drawn:
        if rows >= wanted:
            break
        replayed.append(member)
        rows += member.rows
    new = [member for member in train if seen.get(member.batch) != member.version]
    return Choice(parent=parent, seen=seen, new=new, replayed=replayed)


def seen_by(store: Store, manifest: Manifest) -> dict[str, str] | None:
    """Data version of every batch that a trained model has learned from; None where it does not say, or is damaged."""
    if all(file.name != SEEN_FILE for file in manifest.files):
        return None
    try:
        seen: dict[str, str] = json.loads(store.read_bytes(manifest.file(SEEN_FILE)))
    except DamagedArtifactError:
        return None
    return seen


def facts_of(choice: Choice, training_set: Manifest, history: Mapping[str, Any]) -> dict[str, Any]:
    """What a trained model says of its warm start: from what, with which batches; or why the weights did not serve."""
    told = history["warm_start"]
    facts = {**training_set.facts["warm_start"], "warm": told["warm"]}
    if not told["warm"]:
        return {**facts, "cold": told["cold"]}
    return {
        **facts,
        "new": [member.batch for member in choice.new],
        "replayed": [member.batch for member in choice.replayed],
        "rows": history["rows"],
        "unknown_categories": told["unknown_categories"],
    }


def describe(facts: Mapping[str, Any]) -> str:
    """A trained model's or a training set's warm start, in a line; "" where none was asked for."""
    warm = facts.get("warm_start")
    if not warm:
        return ""
    if "cold" in warm:
        return f"cold: {warm['cold']}"
    told = f"from {warm['data_version']} (through version {warm['champion']})"
    return f"{told}: {len(warm['new'])} new batches, {len(warm['replayed'])} seen again" if "new" in warm else told
