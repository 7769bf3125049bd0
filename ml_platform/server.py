"""A Dagster server that is up: runs are put into its queue, so that its limits hold for what people start by hand too.

`ml-platform ui` leaves a note of where it serves; `ML_PLATFORM_SERVER` names one that runs elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_platform.errors import SetupError
from ml_platform.processes import ProcessId, is_alive, this_process
from ml_platform.settings import Settings

LOCATION, REPOSITORY = "ml_platform", "__repository__"
"""As workspace.yaml names the code location, and Dagster what is in it."""
NOTE = "server.json"
ANSWER_SECONDS = 5.0
LOAD_SECONDS = 120.0

_LAUNCH = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on Error { message } } }"""
_RELOAD = """mutation Reload($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename
  ... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on PythonError { message } } }
  ... on Error { message } } }"""


@dataclass(frozen=True)
class Server:
    """A Dagster webserver, by its address."""

    url: str

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            with urllib.request.urlopen(f"{self.url}/server_info", timeout=ANSWER_SECONDS) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def launch(self, job: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> str:
        """Put a run of a job into the queue.

        Returns:
            The run's id.

        Raises:
            SetupError: it refuses, does not know the job, or cannot be reached.
        """
        answer = self._launch(job, config, tags)
        if answer["__typename"] == "PipelineNotFoundError":
            self._reload()  # a pipeline that was declared after the server had started
            answer = self._launch(job, config, tags)
        if answer["__typename"] != "LaunchRunSuccess":
            told = answer.get("message") or "; ".join(error["message"] for error in answer.get("errors", ()))
            raise SetupError(
                "The Dagster server did not take the run.",
                where=self.url,
                got=told or answer["__typename"],
                fix="reload the code location in its Deployment page, or run without it: --no-queue",
            )
        return str(answer["run"]["runId"])

    def _launch(self, job: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> Mapping[str, Any]:
        selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "pipelineName": job}
        metadata = {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
        params = {"selector": selector, "runConfigData": dict(config), "executionMetadata": metadata}
        found: Mapping[str, Any] = self._ask(_LAUNCH, params=params)["launchRun"]
        return found

    def _reload(self) -> None:
        answer = self._ask(_RELOAD, name=LOCATION)["reloadRepositoryLocation"]
        problem = answer.get("message") or (answer.get("locationOrLoadError") or {}).get("message")
        if problem:
            raise SetupError("The Dagster server cannot load the code.", where=self.url, got=problem)

    def _ask(self, query: str, **variables: Any) -> Mapping[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=LOAD_SECONDS) as response:
                answer = json.load(response)
        except (OSError, ValueError) as error:
            told = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else error
            raise SetupError(
                "The Dagster server does not answer.",
                where=self.url,
                got=told,
                fix="is it up? `--no-queue` runs without it",
            ) from error
        if answer.get("errors"):
            raise SetupError("The Dagster server refuses.", where=self.url, got=answer["errors"][0]["message"])
        data: Mapping[str, Any] = answer["data"]
        return data


def find(settings: Settings) -> Server | None:
    """The server of these settings that is up; None where there is none.

    Raises:
        SetupError: the one that the settings name does not answer.
    """
    if settings.server:
        server = Server(settings.server.rstrip("/"))
        if not server.answers():
            raise SetupError(
                "The Dagster server does not answer.",
                where=server.url,
                fix="start it, unset ML_PLATFORM_SERVER, or run without it: --no-queue",
            )
        return server
    try:
        note = json.loads((settings.dagster_home / NOTE).read_text())
        server, process = Server(note["url"]), ProcessId(**note["process"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        return None  # half a note: the server is just starting, or was killed while it wrote
    return server if is_alive(process) is not False and server.answers() else None


@contextlib.contextmanager
def noted(settings: Settings, url: str) -> Iterator[None]:
    """Leave a note of where a server of this home serves, as long as the block lasts."""
    path: Path = settings.dagster_home / NOTE
    draft = path.with_name(f".{NOTE}.{os.getpid()}")
    draft.write_text(json.dumps({"url": url, "process": this_process().to_dict()}))
    draft.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
