"""Every labelled row on exactly one rank, once an epoch: ranks are played one after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ml_platform.errors import FeatureError, TrainingError
from ml_platform.training import fitting, loader, plan
from ml_platform.training.config import TrainingJob
from ml_platform_tests.training import made


def loaders(
    job: TrainingJob, world: int, *, streaming: bool = False
) -> tuple[list[loader.Loader], loader.Cuts, object]:
    groups, schema = plan.survey(job, 0, 1, lambda value: [value])
    rows = sum(group.labelled for group in groups)
    kinds = fitting.kinds(job, schema)
    shares = [list(plan.read(job, groups, *plan.share(rows, rank, world))) for rank in range(world)]
    partials = []
    for tables in shares:
        partial = fitting.Partial(kinds)
        for table in tables:
            partial.merge(fitting.summarize(job, kinds, table))
        partials.append(partial)
    fitted = fitting.finish(job, partials)
    made_loaders = [
        loader.make(job, groups, None if streaming else shares[rank], fitted, rank, world, "cpu")
        for rank in range(world)
    ]
    return made_loaders, loader.Cuts(rows, world, job.recipe.batch_size), fitted


def labelled(paths: list[str]) -> list[int]:
    return [
        r["row"]
        for path in paths
        for r in pq.read_table(path, columns=["row", "late"]).to_pylist()
        if r["late"] is not None
    ]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("row_group", [1, 37, 150, 10_000])
def test_every_labelled_row_is_seen_once_an_epoch(tmp_path: Path, world: int, streaming: bool, row_group: int) -> None:
    paths = made.files(tmp_path, rows=100, row_group=row_group)
    job = made.job(paths, numeric=("row",), categorical=(), batch_size=8 * world, processes=world)
    ranks, cuts, fitted = loaders(job, world, streaming=streaming)
    wanted = sorted(labelled(paths))
    orders = []
    for epoch in (1, 2):
        seen: list[int] = []
        for rank in ranks:
            batches = list(rank.epoch(epoch))
            assert len(batches) == cuts.steps
            assert {len(b.target) for b in batches} <= {7, 8, 9}
            numbers = np.concatenate([b.numeric[:, 0].double().numpy() for b in batches])
            scaling = fitted.numeric[0]  # type: ignore[attr-defined]
            seen += np.rint(numbers * scaling.std + scaling.mean).astype(int).tolist()
        assert sorted(seen) == wanted
        orders.append(seen)
    assert orders[0] != orders[1]
    assert orders[0] != wanted


def test_streaming_mixes_rows_of_different_row_groups(tmp_path: Path) -> None:
    paths = made.files(tmp_path, rows=200, row_group=50)
    ranks, _, fitted = loaders(made.job(paths, numeric=("row",), categorical=(), processes=1), 1, streaming=True)
    first = next(iter(ranks[0].epoch(1)))
    scaling = fitted.numeric[0]  # type: ignore[attr-defined]
    numbers = np.rint(first.numeric[:, 0].double().numpy() * scaling.std + scaling.mean).astype(int)
    assert len(set(numbers // 50)) > 4


def test_an_epoch_can_be_repeated_exactly(tmp_path: Path) -> None:
    paths = made.files(tmp_path)
    for streaming in (False, True):
        (a, b), _, _ = loaders(made.job(paths), 2, streaming=streaming)
        assert all((x.numeric == y.numeric).all() for x, y in zip(a.epoch(3), a.epoch(3), strict=True))
        assert not all(x.numeric.equal(y.numeric) for x, y in zip(a.epoch(3), b.epoch(3), strict=True))


def test_weights_make_the_mean_over_ranks_the_mean_over_rows() -> None:
    cuts = loader.Cuts(rows=101, world=3, batch_size=30)
    for step in range(cuts.steps):
        sizes = [stop - start for start, stop in (cuts.bounds(rank, step) for rank in range(3))]
        losses = [float(rank + 1) for rank in range(3)]
        mean_of_ranks = sum(cuts.weight(rank, step) * losses[rank] for rank in range(3)) / 3
        assert mean_of_ranks == pytest.approx(np.average(losses, weights=sizes))


@pytest.mark.parametrize(("rows", "world", "batch"), [(3, 3, 3), (7, 3, 3), (5, 2, 2), (1000, 2, 2), (10, 4, 4096)])
def test_no_rank_is_ever_without_rows(rows: int, world: int, batch: int) -> None:
    cuts = loader.Cuts(rows, world, batch)
    sizes = [[b - a for a, b in (cuts.bounds(r, s) for s in range(cuts.steps))] for r in range(world)]
    assert sum(map(sum, sizes)) == rows
    assert min(map(min, sizes)) >= 1


def test_a_rank_reads_only_the_row_groups_of_its_share(tmp_path: Path) -> None:
    paths = made.files(tmp_path, batches=4, rows=100)
    job = made.job(paths)
    groups, _ = plan.survey(job, 0, 1, lambda value: [value])
    rows = sum(group.labelled for group in groups)
    Path(paths[0]).unlink()  # the second half must not need the first file
    start, stop = plan.share(rows, 1, 2)
    assert sum(table.num_rows for table in plan.read(job, groups, start, stop)) == stop - start


def test_files_that_cannot_be_learned_from_are_named(tmp_path: Path) -> None:
    paths = made.files(tmp_path)
    survey = lambda job: plan.survey(job, 0, 1, lambda value: [value])  # noqa: E731
    with pytest.raises(FeatureError, match="wind"):
        survey(made.job(paths, numeric=("wind",)))
    with pytest.raises(TrainingError, match=r"gone\.parquet"):
        survey(made.job([*paths, str(tmp_path / "gone.parquet")]))
    Path(paths[1]).write_bytes(Path(paths[1]).read_bytes()[:-100])
    with pytest.raises(TrainingError, match=r"batch-1\.parquet"):
        survey(made.job(paths))


def test_fewer_rows_than_processes_is_refused(tmp_path: Path) -> None:
    paths = made.files(tmp_path, batches=1, rows=1)
    with pytest.raises(TrainingError, match="fewer rows"):
        plan.survey(made.job(paths), 0, 4, lambda value: [value])
