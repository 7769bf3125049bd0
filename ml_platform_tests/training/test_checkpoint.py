"""Training that is broken off and begun again ends with the same bytes, in this process, as the only rank."""

from __future__ import annotations

import errno
import functools
import io
import json
import math
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

from ml_platform.errors import TrainingError
from ml_platform.training.checkpoint import folder, parts, state
from ml_platform.training.checkpoint.checkpoints import Checkpoints, Progress
from ml_platform.training.checkpoint.interval import FAILURE_FREE, interval
from ml_platform.training.config import TrainingJob
from ml_platform.training.place import Place
from ml_platform.training.preemption import Asked
from ml_platform.training.report import Reporter
from ml_platform.training.result import CONTENT
from ml_platform_tests.training import made
from ml_platform_tests.training.made import train

DROPOUT: dict[str, Any] = {
    "hyperparameters": {"hidden": [16, 8], "dropout": 0.3},
    "epochs": 4,
    "processes": 1,
    "batch_size": 512,
}


class BrokenOffError(Exception):
    """What a test raises in the middle of training."""


class Listener(Reporter):
    """Keeps the lines, and breaks off after so many steps."""

    def __init__(self, stop_at: tuple[int, int] | None = None) -> None:
        super().__init__(None)
        self.lines: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self.of = 0
        self._stop_at = stop_at

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, values: dict[str, Any]) -> None:
        if "step" in values:
            self.of = values["steps"]
            self.steps.append((values["epoch"], values["step"]))
            if self.steps[-1] == self._stop_at:
                raise BrokenOffError


def job(paths: list[str], out: Path, **changes: Any) -> TrainingJob:
    """A job with a checkpoint after nearly every step, however long one takes."""
    often = {"checkpoint_seconds": 1e-9, "checkpoint_share": 1e9}
    return made.job(paths, out, progress_seconds=0.0, **{**DROPOUT, **often, **changes})


def same(a: Path, b: Path) -> bool:
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in CONTENT)


def checkpoints(out: Path) -> list[Path]:
    """Oldest first."""
    place = folder.place_of(out)
    return [place / name for name in reversed(folder.listed(place))]


@pytest.fixture(scope="module")
def whole(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same job, without a checkpoint and undisturbed."""
    out = tmp_path_factory.mktemp("whole") / "model"
    return train(made.job(paths, out, **DROPOUT), Listener())


@pytest.mark.parametrize("stop_at", [(1, 3), (3, 1), (2, 4), (4, 2)])
def test_it_goes_on_where_it_was_and_ends_with_the_same_bytes(
    paths: list[str], whole: Path, tmp_path: Path, stop_at: tuple[int, int]
) -> None:
    out = tmp_path / "model"
    with pytest.raises(BrokenOffError):
        train(job(paths, out), Listener(stop_at))
    assert not out.exists()
    assert len(checkpoints(out)) in (1, 2)
    second = Listener()
    train(job(paths, out), second)
    assert any("goes on from a checkpoint" in line for line in second.lines)
    counted, begun = ((epoch - 1) * second.of + step for epoch, step in (stop_at, second.steps[0]))
    assert counted - 2 <= begun <= counted, "at most a few steps are done again"
    assert same(out, whole)
    epochs = json.loads((out / "history.json").read_text())["epochs"]
    expected = json.loads((whole / "history.json").read_text())["epochs"]
    assert [e["train_loss"] for e in epochs] == [e["train_loss"] for e in expected]
    assert checkpoints(out) == [], "nobody needs them any more"


@pytest.mark.parametrize("stop_at", [(1, 3), (2, 2)])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_so_does_training_in_mixed_precision(
    paths: list[str], tmp_path: Path, precision: str, stop_at: tuple[int, int]
) -> None:
    changes = {"precision": precision, "loss": "ml_platform_tests.training.models:loud", "epochs": 2}
    undisturbed = train(job(paths, tmp_path / "whole", **changes), Listener())
    with pytest.raises(BrokenOffError):
        train(job(paths, tmp_path / "model", **changes), Listener(stop_at))
    assert same(train(job(paths, tmp_path / "model", **changes), Listener()), undisturbed)
    full = train(job(paths, tmp_path / "full", **changes | {"precision": "float32"}), Listener())
    assert not same(full, undisturbed)


def test_streamed_rows_are_passed_over_in_the_same_order(tmp_path: Path) -> None:
    paths = made.files(tmp_path / "data", batches=2, rows=20_000, row_group=1500)
    changes: dict[str, Any] = {"memory_mib": 1, "batch_size": 4096, "epochs": 2}
    undisturbed = train(job(paths, tmp_path / "whole", **changes), Listener())
    with pytest.raises(BrokenOffError):
        train(job(paths, tmp_path / "model", **changes), Listener((2, 5)))
    resumed = Listener()
    assert same(train(job(paths, tmp_path / "model", **changes), resumed), undisturbed)
    assert (2, 3) <= resumed.steps[0] <= (2, 5)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(paths: list[str], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    with pytest.raises(BrokenOffError):
        train(job(paths, out), Listener((3, 3)))
    before, newest = checkpoints(out)
    (part,) = newest.glob("*.distcp")
    part.write_bytes(part.read_bytes()[:-100])
    second = Listener()
    train(job(paths, out), second)
    assert f"the checkpoint {newest.name} is damaged and is not used" in second.lines
    assert any("goes on from a checkpoint" in line for line in second.lines)
    assert second.steps[0] == (3, int(before.name.partition("-")[0]) - 2 * second.of + 1)
    assert same(out, whole)


class Planted:
    """What must not be run when a checkpoint is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_metadata_is_read_as_every_python_writes_it_and_attributes_are_refused() -> None:
    """A member of an enum is pickled by its value, or up to Python 3.11.3 as an attribute of its class."""
    class_of = f"c{_MEM_FORMAT_ENCODING.__module__}\n{_MEM_FORMAT_ENCODING.__qualname__}\n"

    def attribute(name: str) -> io.BytesIO:
        return io.BytesIO(f"cbuiltins\ngetattr\n({class_of}V{name}\ntR.".encode())

    assert parts._Metadata(attribute("TORCH_CONTIGUOUS_FORMAT")).load() is _MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT
    by_value = io.BytesIO(pickle.dumps(_MEM_FORMAT_ENCODING.TORCH_PRESERVE_FORMAT))
    assert parts._Metadata(by_value).load() is _MEM_FORMAT_ENCODING.TORCH_PRESERVE_FORMAT
    with pytest.raises(TrainingError, match="does not belong there"):
        parts._Metadata(attribute("__subclasses__")).load()


def test_nothing_that_somebody_planted_in_a_checkpoint_is_run(paths: list[str], whole: Path, tmp_path: Path) -> None:
    """Who may write into a store can give his files the right hashes."""
    out, mark = tmp_path / "model", tmp_path / "planted"
    with pytest.raises(BrokenOffError):
        train(job(paths, out), Listener((3, 3)))
    for each in checkpoints(out):
        manifest = folder.manifest(each.parent, each.name)
        (each / ".metadata").write_bytes(pickle.dumps(Planted(mark)))
        files = folder.digests(each, list(manifest["files"]))
        draft = each.rename(folder.draft_of(each.parent, manifest["done"]))
        folder.commit(draft, {**manifest, "files": files}, first=True)
    second = Listener()
    train(job(paths, out), second)
    assert sum("is not one that was written here" in line for line in second.lines) == 2
    assert not mark.exists()
    assert same(out, whole)


def test_the_checkpoint_of_another_job_is_not_used(paths: list[str], tmp_path: Path) -> None:
    out = tmp_path / "model"
    with pytest.raises(BrokenOffError):
        train(job(paths, out), Listener((2, 2)))
    second = Listener()
    train(job(paths, out, seed=5), second)
    assert any("is of another job" in line for line in second.lines)
    assert second.steps[0] == (1, 1)


def test_an_elastic_job_goes_on_in_another_way_and_says_so_in_its_history(tmp_path: Path) -> None:
    """Here with less memory, so that rows are streamed; `launch/test_elastic.py` has other numbers of processes."""
    paths, out = made.files(tmp_path / "data", batches=2, rows=20_000, row_group=1500), tmp_path / "model"
    changes: dict[str, Any] = {"batch_size": 4096, "epochs": 2, "elastic": True}
    with pytest.raises(BrokenOffError):
        train(job(paths, out, **changes), Listener((2, 3)))
    listener = Listener()
    train(job(paths, out, memory_mib=1, **changes), listener)
    assert any("rows_in memory, then streaming" in line and "bytes may differ" in line for line in listener.lines)
    history = json.loads((out / "history.json").read_text())
    (resumed,) = history["resumed_on"]
    assert (resumed["epoch"], resumed["before"]["rows_in"], resumed["after"]["rows_in"]) == (2, "memory", "streaming")
    assert len(history["epochs"]) == 2
    assert listener.steps[0][0] == 2


def test_what_an_elastic_job_may_change_is_no_part_of_what_it_is(paths: list[str], tmp_path: Path) -> None:
    changes: dict[str, Any] = {"processes": 4, "threads": 3, "memory_mib": 7}
    assert job(paths, tmp_path, elastic=True, **changes).identity() == job(paths, tmp_path, elastic=True).identity()
    assert job(paths, tmp_path, **changes).identity() != job(paths, tmp_path).identity()


def test_ranks_that_have_the_same_write_each_a_share_and_rank_0_its_buffers() -> None:
    module = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64))
    optimizer = torch.optim.SGD(module.parameters(), momentum=0.9)
    module(torch.ones(4, 64)).sum().backward()
    optimizer.step()
    tensors = state.tensors_of(module, optimizer)
    shares = [state.written_by(tensors, module, rank, 2) for rank in range(3)]
    assert shares[0].keys() | shares[1].keys() == tensors.keys()
    assert not shares[0].keys() & shares[1].keys()
    assert shares[2] == {}, "it is on another machine"
    assert {f"module.1.{name}" for name, _ in module[1].named_buffers()} <= shares[0].keys()
    sizes = [sum(value.nbytes for value in share.values()) for share in shares[:2]]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_how_often_one_is_taken_is_no_part_of_what_a_job_is(paths: list[str], tmp_path: Path) -> None:
    assert job(paths, tmp_path / "a").identity() == made.job(paths, tmp_path / "b", **DROPOUT).identity()


def test_they_are_taken_as_often_as_pays() -> None:
    often = functools.partial(interval, 0.1, trained=0.0, failures=0, most=1e9, share=1.0)
    calm = often()
    assert calm == pytest.approx(math.sqrt(2 * 0.1 * FAILURE_FREE))
    assert often(trained=600.0, failures=3) < calm / 1.9, "more often where machines go down"
    assert often(trained=1e6) > calm, "less often where they do not"
    assert often(most=10.0) == 10.0, "never is more lost than a team allows"
    assert often(most=1.0, share=0.01) == pytest.approx(10.0), "unless it costs more than a team allows"


def test_the_ranks_listen_soon_also_where_steps_become_slower(paths: list[str], tmp_path: Path) -> None:
    asked = Asked()
    listening = Checkpoints(made.job(paths, tmp_path / "model"), Place(0, 1, "cpu", "none"), {}, asked=asked)
    module = nn.Linear(1, 1)
    assert [listening.due(done) for done in (1, 2)] == [False, True], "the first shows what one costs"
    listening.take(module, torch.optim.AdamW(module.parameters()), Progress(1, 2, [], torch.zeros(1), 0.0), 2)
    for done in range(3, 13):
        time.sleep(0.001)
        assert not listening.due(done)
    asked.set()
    assert any(listening.due(done) for done in range(13, 43)), "not after as many as a second would have had before"
    listening.remove()


def test_a_full_disk_costs_a_checkpoint_and_not_the_training(
    paths: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, flush, full = tmp_path / "model", os.fsync, iter([False, True, False, True])

    def fsync(handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").endswith(".distcp") and next(full, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    listener = Listener()
    train(job(paths, out), listener)
    assert sum("No space left on device" in line for line in listener.lines) == 2
    assert same(out, whole)
