"""Against a real `mlflow server`, also one that is away for a while, and a real `mlflow models serve`."""

import contextlib
import http.server
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import RegistryError
from ml_platform.registry import glance, identity, models
from ml_platform.registry.connection import Connection
from ml_platform.registry.tracking import MlflowResource
from ml_platform_tests.registry.conftest import context, free_port, process
from ml_platform_tests.registry.test_models import register
from ml_platform_tests.registry.trained import declare


@dataclass
class Outage:
    """How a server misbehaves. `down` until a time; or every `every`-th request is answered 500, done all the same."""

    down_until: float = 0.0
    every: int = 0
    asked: int = 0
    refused: list[str] = field(default_factory=list)


@contextlib.contextmanager
def unreliable(server: str, outage: Outage) -> Iterator[str]:
    """A gateway in front of a real server, and its outages."""

    class Gateway(http.server.BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            outage.asked += 1
            if time.monotonic() < outage.down_until:
                outage.refused.append(self.path)
                self.answer(503, b"upstream is down", "text/plain")
                return
            kept = {name: self.headers[name] for name in ("Content-Type",) if name in self.headers}
            request = urllib.request.Request(server + self.path, data=body, headers=kept, method=self.command)
            try:
                with urllib.request.urlopen(request) as response:
                    status, content, kind = response.status, response.read(), response.headers["Content-Type"]
            except urllib.error.HTTPError as error:
                status, content, kind = error.code, error.read(), error.headers["Content-Type"]
            if outage.every and outage.asked % outage.every == 0:
                outage.refused.append(self.path)
                status, content, kind = 500, b"lost the answer", "text/plain"
            self.answer(status, content, kind)

        def answer(self, status: int, content: bytes, kind: str | None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind or "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    gateway = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{gateway.server_address[1]}"
    finally:
        gateway.shutdown()


def test_a_server_that_is_away_for_a_while_is_waited_for(server, caplog):
    outage = Outage(down_until=time.monotonic() + 2)
    with unreliable(server, outage) as url:
        mlflow = MlflowResource(tracking_uri=url, patience=30.0)
        with mlflow.tracked_run(context(), experiment="waited", fingerprint="f1", run_name="waited") as run:
            run.log_metrics({"roc_auc": 0.7})
            outage.down_until = time.monotonic() + 2  # while the run is ended, too
        assert run.url == f"{url}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    assert outage.refused
    assert "trying again" in caplog.text
    found = Connection(server).client.get_run(run.run_id)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"roc_auc": 0.7})


@pytest.mark.parametrize("every", [2, 3, pytest.param(5, marks=pytest.mark.slow)])
def test_answers_that_get_lost_double_nothing(server, trained, every):
    """Every so many requests one is done, and answered with 500: asking again must not do it twice."""
    flaky = declare(name=f"flaky_{every}")  # a name of its own: the server is shared
    outage = Outage(every=every)
    with unreliable(server, outage) as url:
        mlflow = MlflowResource(tracking_uri=url, patience=60.0)
        with mlflow.tracked_run(context(), experiment=flaky.name, fingerprint="f1", run_name="flaky") as run:
            registered = models.register(
                flaky,
                trained.folder,
                connection=run.connection,
                run_id=run.run_id,
                fingerprint="f1",
                data_version="d1",
                input_example=trained.example,
            )
    assert len(outage.refused) > 2
    client = Connection(server).client
    assert [v.version for v in client.search_model_versions(f"name = '{flaky.name}'")] == [registered.version]
    assert client.get_model_version_by_alias(flaky.name, "champion").version == registered.version
    experiment = client.get_experiment_by_name(flaky.name)
    assert [r.info.run_id for r in client.search_runs([experiment.experiment_id])] == [run.run_id]
    assert len(client.get_run(run.run_id).outputs.model_outputs) == 1


def test_a_server_is_one_registry_by_whatever_name(server):
    made = identity.ensured(Connection(server), lambda: identity.first_name(server))
    for name in (f"{server}/", server.replace("127.0.0.1", "localhost")):
        assert identity.known(name) == made
        assert identity.ensured(Connection(name), lambda: "another") == made
    Connection(server).client.create_registered_model("marked", tags={"mark": "here"})
    assert [glance.model_tag(server, *asked) for asked in (("marked", "mark"), ("marked", "no"), ("none", "mark"))] == [
        "here",
        "",
        "",
    ]
    away = f"http://127.0.0.1:{free_port()}"
    assert identity.known(away) == identity.first_name(away)


def test_a_server_that_stays_away_is_an_error_that_says_what_to_do():
    mlflow = MlflowResource(tracking_uri=f"http://127.0.0.1:{free_port()}", patience=0.5)
    with (
        pytest.raises(RegistryError, match="ML_PLATFORM_MLFLOW"),
        mlflow.tracked_run(context(), experiment="toy", fingerprint="f1", run_name="toy"),
    ):
        pass


def test_an_outage_at_the_end_does_not_hide_why_a_stage_failed(server, caplog):
    outage = Outage()
    with unreliable(server, outage) as url:
        mlflow = MlflowResource(tracking_uri=url, patience=0.5)

        def stage() -> None:
            with mlflow.tracked_run(context(), experiment="hidden", fingerprint="f1", run_name="hidden"):
                outage.down_until = time.monotonic() + 600
                raise ValueError("the real reason")

        with pytest.raises(ValueError, match="the real reason"):
            stage()
    assert "could not be ended as FAILED" in caplog.text


def test_what_mlflow_refuses_is_not_tried_again(server):
    connection = Connection(server, patience=600.0)
    started = time.monotonic()
    with pytest.raises(RegistryError, match="refused to read"):
        connection.call("read a run", connection.client.get_run, "0" * 32)
    assert time.monotonic() - started < 60


def post(url: str, rows: Any, form: str = "dataframe_split") -> tuple[int, Any]:
    body = json.dumps({form: rows}).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_champion_is_served_over_http(server, trained, tmp_path: Path):
    """Registered through one server, loaded from it and served by `mlflow models serve`: raw rows in, scores out."""
    register(MlflowResource(tracking_uri=server), trained)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/toy@champion", "--port", str(port)]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--workers", "1"]
    url = f"http://127.0.0.1:{port}"
    # MLflow starts `uvicorn` by name, which is beside this Python; in an activated environment it is on the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with process(command, f"{url}/health", tmp_path / "log", MLFLOW_TRACKING_URI=server, PATH=path):
        frame = trained.frame(50)
        rows = json.loads(frame.to_json(orient="split", index=False))
        assert any(None in row for row in rows["data"])  # missing numbers and missing text
        status, answer = post(f"{url}/invocations", rows)
        assert status == 200, answer
        given = [row["probability"] for row in answer["predictions"]]
        assert abs(trained.scorer.score(frame) - given).max() < 1e-6
        records = json.loads(frame.to_json(orient="records"))
        assert post(f"{url}/invocations", records, "dataframe_records") == (200, answer)
        without = json.loads(frame.drop(columns="size").to_json(orient="split", index=False))
        status, answer = post(f"{url}/invocations", without)
        assert status == 400
        assert "missing inputs ['size']" in answer["message"]
        status, answer = post(
            f"{url}/invocations", json.loads(frame.assign(age="old").to_json(orient="split", index=False))
        )
        assert status == 400
        assert "Failed to convert column age" in answer["message"]
