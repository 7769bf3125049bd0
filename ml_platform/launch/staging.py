"""What a job reads, keeps and leaves in the store, where its processes share nothing else with who launched it.

    jobs/<name>/<specification>/
        spec.json         the job, its files by hash: written once, before anything runs
        checkpoints/      what a process that is started again goes on from
        model/            the result; `result.json` is written last, so a model is there whole or not at all
        used.json         what it has taken so far, in all its attempts

The files to learn from are artifacts and so in the store already: they go by hash, and a hash is checked wherever it is
read. A file that is not in the store is put there, as bytes without a manifest: garbage a day later. The launcher has
them all and counts their rows: so every rank knows which of them it reads, and fetches no others (`training.plan`).

The specification is part of the path: what was kept for another one is never taken for this one's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ml_platform.errors import TrainingError
from ml_platform.files import sha256
from ml_platform.launch import training_files
from ml_platform.launch.used import Used
from ml_platform.store import Store, layout
from ml_platform.store.manifest import ArtifactFile
from ml_platform.training.checkpoint import folder
from ml_platform.training.config import TrainingJob, Warm
from ml_platform.training.result import FILES, RESULT, FolderResult, read_result
from ml_platform.versions.code import CodeVersion, code_version
from ml_platform.versions.fingerprint import short_hash

SPEC, USED = "spec.json", "used.json"
_SCHEMA = 2
_SHA256 = re.compile(r"[0-9a-f]{64}")


def code_of(job: TrainingJob) -> CodeVersion:
    """The version of the code that trains this job, where this process runs."""
    recipe = job.recipe
    roots = ["ml_platform.training.job:main", recipe.model, *([recipe.loss] if recipe.loss else [])]
    return code_version(roots, params={}, libraries=("torch", "numpy"))


@dataclass(frozen=True)
class Staging:
    """A job's folder in the store. Every method raises StoreError where the store cannot be reached.

    Args:
        store: seen by the launcher and by the job, perhaps under different URLs.
        folder: relative to the store's root.
    """

    store: Store
    folder: str

    @classmethod
    def of(cls, store: Store, name: str, job: TrainingJob) -> Staging:
        """The folder of a job."""
        return cls(store, layout.job(name, short_hash(job.identity())))

    def write(self, job: TrainingJob) -> None:
        """Put the job where its processes find it, with whatever it reads that is not in the store."""
        files = self._training_files(job, job.files)
        warm: dict[str, Any] = {}
        if job.warm is not None:
            parent = sorted(path for path in Path(job.warm.folder).iterdir() if path.is_file())
            found = self._references(list(map(str, parent)))
            warm["folder"] = {path.name: file for path, file in zip(parent, found, strict=True)}
            warm["files"] = self._training_files(job, job.warm.files)
        record = {
            "schema": _SCHEMA,
            "job": json.loads(replace(job, output="").to_json()),
            "files": files,
            "warm": warm,
            "code": code_of(job).to_dict(),
        }
        self.store.backend.replace(self._at(SPEC), json.dumps(record, sort_keys=True, indent=1).encode())

    def read(self, work: Path) -> TrainingJob:
        """The job, as a process elsewhere carries it out. Its files are not fetched yet: see `training_files.finder`.

        Args:
            work: a local folder for its output, and for what it must not read in place.

        Raises:
            TrainingError: there is no such job, or the code here is not the code that it was launched with.
            DamagedArtifactError: a file is not the one that it was.
        """
        text = self.store.backend.read_many([self._at(SPEC)]).get(self._at(SPEC))
        if text is None:
            raise TrainingError(
                "The store has no such job.",
                where=self.store.backend.place(self._at(SPEC)),
                fix="give the job the same store as the launcher: `store` in ML_PLATFORM_KUBERNETES",
            )
        record = json.loads(text)
        if record.pop("schema") != _SCHEMA:
            raise TrainingError("The job was launched by another version of the platform.", where=self.folder)
        job = TrainingJob.from_json(json.dumps(record["job"]))
        _same_code(job, CodeVersion.from_dict(record["code"]))
        warm, known = job.warm, training_files.Known()
        files = known.add(record["files"])
        if warm is not None:
            parent = work / "parent"
            parent.mkdir(parents=True, exist_ok=True)
            for name, path in zip(
                record["warm"]["folder"], self._paths(record["warm"]["folder"].values()), strict=True
            ):
                (parent / name).unlink(missing_ok=True)
                (parent / name).symlink_to(path)
            warm = Warm(parent=warm.parent, folder=str(parent), files=known.add(record["warm"]["files"]))
        known.write(work)
        return replace(job, files=files, warm=warm, output=str(work / "model"))

    def keep_checkpoints(self, place: Path, kept: set[str], *, first: bool = True) -> set[str]:
        """Make the store hold the checkpoints that are in a local folder, and no others.

        Each machine puts the parts of its own ranks. The manifest, without which a checkpoint does not exist, lies on
        rank 0's and goes last, when the parts of all are there.

        Args:
            place: of a running job (`training.checkpoint.folder`).
            kept: names that the store holds, as far as it was told here.
            first: whether rank 0 runs here, so that old ones are to be removed from here.

        Returns:
            The names that it holds now. One that is here and not among them waits for another machine's part.
        """
        here = set(folder.listed(place))
        held = here & kept
        for name in sorted(here - kept):
            try:
                if self._keep(place / name, "checkpoints", name):
                    held.add(name)
            except Exception:
                if (place / name).exists():
                    raise
                here.discard(name)  # gave way to a newer one meanwhile
        if first and held:
            for name in kept - here:
                there = self.store.backend.scan(self._at("checkpoints", name))
                self.store.backend.remove_many([self._at("checkpoints", name, folder.MANIFEST)])
                self.store.backend.remove_many(list(there))
            return held
        return held | (kept - here)

    def _keep(self, checkpoint: Path, *at: str) -> bool:
        """Put a checkpoint's files that are here; the manifest only when all others are there. Whether all is there."""
        names = {path.name for path in checkpoint.iterdir()}
        parts = {self._at(*at, name): checkpoint / name for name in names - {folder.MANIFEST}}
        there = self.store.backend.stamps(list(parts))
        self.store.backend.put_many({path: source for path, source in parts.items() if path not in there})
        if folder.MANIFEST not in names:
            return True
        wanted = [self._at(*at, name) for name in folder.manifest(checkpoint.parent, checkpoint.name)["files"]]
        if len(self.store.backend.stamps(wanted)) < len(wanted):
            return False
        self.store.backend.put_many({self._at(*at, folder.MANIFEST): checkpoint / folder.MANIFEST})
        return True

    def fetch_checkpoints(self, place: Path) -> set[str]:
        """Bring the store's checkpoints into a local folder, in place of what is there. Returns their names."""
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        found = [Path(path) for path in self.store.backend.scan(self._at("checkpoints"))]
        names = {path.parent.name for path in found if path.name == folder.MANIFEST}
        for path in found:
            if (name := path.parent.name) in names:
                (place / name).mkdir(exist_ok=True)
                self.store.backend.fetch(self._at("checkpoints", name, path.name), place / name / path.name)
        return names

    def keep_result(self, folder: Path) -> None:
        """Put a finished model folder into the store, and let go of the checkpoints."""
        files = {self._at("model", name): folder / name for name in FILES}
        self.store.backend.put_many(files)
        self.store.backend.put_many({self._at("model", RESULT): folder / RESULT})
        self.store.backend.remove_many(list(self.store.backend.scan(self._at("checkpoints"))))

    def used(self) -> Used:
        """What the job has taken, as far as that was kept."""
        text = self.store.backend.read_many([self._at(USED)]).get(self._at(USED))
        return Used.from_record(json.loads(text) if text else {})

    def keep_used(self, used: Used) -> None:
        """Keep what the job has taken, in place of what was kept."""
        self.store.backend.replace(self._at(USED), json.dumps(asdict(used)).encode())

    def has_result(self) -> bool:
        """Whether a model is there."""
        return bool(self.store.backend.stamps([self._at("model", RESULT)]))

    def fetch_result(self, folder: Path) -> FolderResult | None:
        """Copy the model into a local folder, which is replaced. None where there is none, or it is damaged."""
        draft = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            for name in (*FILES, RESULT):
                self.store.backend.fetch(self._at("model", name), draft / name)
        except Exception:
            if self.has_result():
                raise
            shutil.rmtree(draft)
            return None
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
        return read_result(folder)

    def remove(self) -> None:
        """Remove all that is kept of this job."""
        remove(self.store, self.folder)

    def _at(self, *names: str) -> str:
        return "/".join((self.folder, *names))

    def _references(self, paths: Sequence[str]) -> list[dict[str, Any]]:
        """Files by hash and size; those that the store lacks are put there."""
        found = []
        for text in paths:
            path = Path(text).resolve()
            # A path that the store gave out is named by its hash, which was checked on the way.
            hashed = path.name if _SHA256.fullmatch(path.name) else sha256(path)
            found.append((path, ArtifactFile(name=Path(text).name, sha256=hashed, size=path.stat().st_size)))
        blobs = {layout.blob(file.sha256): path for path, file in found}
        there = self.store.backend.stamps(list(blobs))
        self.store.backend.put_many({blob: path for blob, path in blobs.items() if blob not in there})
        return [{"name": file.name, "sha256": file.sha256, "size": file.size} for _, file in found]

    def _training_files(self, job: TrainingJob, paths: Sequence[str]) -> list[dict[str, Any]]:
        return training_files.described(job, paths, self._references(paths))

    def _paths(self, references: Any) -> tuple[str, ...]:
        return tuple(str(path) for path in self.store.paths([ArtifactFile(**each) for each in references]))


def remove(store: Store, folder: str) -> None:
    """Remove what the store keeps below a folder of jobs."""
    store.backend.remove_many(sorted(store.backend.scan(folder)))


def _same_code(job: TrainingJob, launched: CodeVersion) -> None:
    """Refuse code that is not the one whose version the job's name covers. What a library was built for may differ, as
    torch for another kind of GPU: the result says which one it was."""
    here = code_of(job)
    if here.modules == launched.modules and _released(here) == _released(launched):
        return
    raise TrainingError(
        "The code here is not the code that the job was launched with.",
        where=job.pipeline,
        got="; ".join(cause.text for cause in here.diff(launched)[:5]),
        fix="build the image from the revision that launches",
    )


def _released(code: CodeVersion) -> dict[str, str]:
    return {name: version.partition("+")[0] for name, version in code.libraries.items()}
