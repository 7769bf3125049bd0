"""`ml-platform ui`: Dagster's webserver and daemon on this home, until Ctrl-C."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.errors import SetupError

if TYPE_CHECKING:
    from rich.console import Console

    from ml_platform.cli.processes import Service
    from ml_platform.settings import Settings

EXAMPLES = """[bold]Examples[/bold]

  ml-platform ui                       Dagster on http://127.0.0.1:3000
  ml-platform ui --port 0              on a free port
  ml-platform ui --mlflow-port 5000    and MLflow's own pages beside it

Dagster's own command does the same: DAGSTER_HOME=$PWD/.ml_platform/dagster dagster dev"""

START_SECONDS = 120.0

LOCATIONS = """{ workspaceOrError { ... on PythonError { message } ... on Workspace { locationEntries { name
  locationOrLoadError { __typename ... on PythonError { message } } } } } }"""


def ui(
    port: Annotated[int, typer.Option(help="Port of Dagster's pages; 0 takes a free one.", min=0, max=65535)] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on. There is no log-in: keep it local.")] = "127.0.0.1",
    mlflow_port: Annotated[
        int | None, typer.Option(help="Also show MLflow, on this port; 0 takes a free one.", min=0, max=65535)
    ] = None,
) -> None:
    """Open Dagster's pages, with the daemon that sensors, schedules and queued runs need. Ctrl-C stops everything."""
    from ml_platform.cli import common
    from ml_platform.cli.processes import free_port, run_until_stopped
    from ml_platform.server import noted

    settings = common.load_settings()
    console = common.notices()
    # A service manager sends SIGTERM, a closed terminal SIGHUP: both must stop the children as Ctrl-C does. SIGINT too:
    # a shell that starts us in the background has it ignored, and our children would inherit that.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _interrupt)
    services = [_dagster(settings, host, free_port(host, port, option="--port"))]
    if mlflow_port is not None:
        services.append(_mlflow(settings, host, free_port(host, mlflow_port, option="--mlflow-port"), console))
    with noted(settings, services[0].url):
        run_until_stopped(services, lambda: _announce(services, console))


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _dagster(settings: Settings, host: str, port: int) -> Service:
    from ml_platform.cli.processes import Service
    from ml_platform.instance import prepare_folder, prepare_instance

    home = prepare_folder(settings)
    # Dagster's processes would all make the databases of a cold home at once.
    prepare_instance(settings).dispose()
    return Service(
        name="Dagster",
        url=f"http://{host}:{port}",
        # -W: `dagster dev` warns that `dg dev` is newer; it is not installed without the dev extra.
        command=(
            *(sys.executable, "-W", "ignore", "-m", "dagster", "dev", "-w", str(home / "workspace.yaml")),
            *("--host", host, "--port", str(port), "--log-level", "warning"),
        ),
        # The home, written out: a run's process may have another working folder.
        changes={"DAGSTER_HOME": str(home), "ML_PLATFORM_HOME": str(settings.home)},
        ready="/server_info",
    )


def _mlflow(settings: Settings, host: str, port: int, console: Console) -> Service:
    from ml_platform.cli.processes import Service

    if not settings.mlflow.startswith("sqlite:") and "://" in settings.mlflow:
        console.print(f"MLflow is a server already, at {settings.mlflow}; this one shows the same.", markup=False)
    folder = settings.home / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return Service(
        name="MLflow",
        url=f"http://{host}:{port}",
        command=(
            *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", settings.mlflow),
            *("--host", host, "--port", str(port), "--workers", "1"),
        ),
        # Nobody here evaluates prompts: without it, MLflow keeps nine idle processes.
        changes={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        ready="/health",
        folder=folder,
    )


def _announce(services: list[Service], console: Console) -> None:
    """Wait until every service answers, and say where it is.

    Raises:
        SetupError: one ended, or did not answer in time.
    """
    console.print(f"Starting {' and '.join(service.name for service in services)} ...")
    for service in services:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(service.url + service.ready):
            if (code := service.ended()) is not None:
                raise SetupError(f"{service.name} ended while it started.", got=f"exit code {code}", fix="see above")
            if time.monotonic() > deadline:
                raise SetupError(f"{service.name} did not answer in {START_SECONDS:.0f} s.", where=service.url)
            time.sleep(0.2)
        console.print(f"[bold]{service.name:<8}[/bold] {service.url}")
    for name, problem in _broken_locations(services[0].url).items():
        console.print(f"The code location {name} does not load: {problem}", style="red", markup=False)
    console.print("Ctrl-C stops everything.")


def _answers(url: str) -> bool:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _broken_locations(url: str) -> dict[str, str]:
    """Code locations that Dagster could not load, with the reason."""
    import urllib.request

    request = urllib.request.Request(
        f"{url}/graphql", json.dumps({"query": LOCATIONS}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        workspace = json.load(answer)["data"]["workspaceOrError"]
    if "message" in workspace:
        return {"(all)": workspace["message"]}
    return {
        entry["name"]: error["message"]
        for entry in workspace["locationEntries"]
        if (error := entry["locationOrLoadError"] or {}).get("__typename") == "PythonError"
    }
