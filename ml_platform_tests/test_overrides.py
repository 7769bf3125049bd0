"""`--set`: values are replaced where the declaration has them, and checked like declared ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ml_platform.errors import DeclarationError
from ml_platform.overrides import overridden
from ml_platform.pipeline import Pipeline, Split


def test_replaces_numbers_texts_lists_and_entries_of_mappings(tiny: Pipeline) -> None:
    found = overridden(
        tiny,
        ["train.epochs=5", "recipe.optimizer=SGD", "recipe.hyperparameters.hidden=[4]", "split.holdout_batches=1"],
    )
    assert (found.recipe.epochs, found.recipe.optimizer) == (5, "SGD")
    assert found.recipe.hyperparameters["hidden"] == [4]
    assert found.split == Split.rolling(holdout=1)
    assert found.recipe.batch_size == tiny.recipe.batch_size
    assert tiny.recipe.epochs != 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe.epochs", "Not a value that can be replaced"),
        ("name=other", "Not a value that can be replaced"),
        ("recipe.epoch=5", "no such field"),
        ("recipe=5", "Not a single value"),
        ("recipe.epochs=0", "epochs"),
        ("recipe.epochs=many", "epochs"),
        ("recipe.epochs.more=1", "no such field"),
        ("leakage_limit=2", "leakage limit"),
        ("recipe.hyperparameters.nosuch=1", "nosuch"),
    ],
)
def test_refuses_what_no_declaration_could_say(tiny: Pipeline, text: str, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        overridden(tiny, [text])


def test_one_candidate_is_changed_and_the_others_stay(tiny: Pipeline) -> None:
    assert tiny.recipe is not None
    both = {"one": tiny.recipe, "other": replace(tiny.recipe, seed=1)}
    pipeline = replace(tiny, recipe=None, candidates=both)
    found = overridden(pipeline, ["candidates.other.epochs=3", "candidates.other.hyperparameters.hidden=[4]"])
    assert found.candidates["one"] == tiny.recipe
    assert (found.candidates["other"].epochs, found.candidates["other"].hyperparameters["hidden"]) == (3, [4])
    every = overridden(pipeline, ["train.epochs=3", "candidates.one.epochs=2"]).candidates
    assert [each.epochs for each in every.values()] == [2, 3], "`train` is all of them; the last word counts"
    assert overridden(pipeline, ["choose=average"]).choose == "average"
    for text, said in {
        "recipe.epochs=3": "trains nothing of that name",
        "recipe.seed=3": "train.epochs=5 .* candidates.one, candidates.other",
        "train.epoch=3": "no such field",
        "candidates.third.epochs=3": "trains nothing of that name",
        "candidates.one=3": "`one` must be a Recipe",
        "candidates.one.epochs=0": "epochs",
        "choose=worst": "no such choice",
    }.items():
        with pytest.raises(DeclarationError, match=said):
            overridden(pipeline, [text])
