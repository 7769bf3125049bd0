"""Spark as the platform runs it: one session in one JVM on this machine, started late and stopped before training.

The whole life of a session:

    config = spark_config(master="local[2]", memory="1g", scratch=home / "spark")
    session = builder(config).getOrCreate()   # dagster-pyspark's resource does the same with `spark_config=config`
    stop(session)                             # the JVM is gone and its memory is free
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.errors import SetupError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

STOP_SECONDS = 20.0
"""How long a JVM may take to leave before it is killed."""


def spark_config(*, master: str = "local[*]", memory: str = "1g", scratch: Path) -> dict[str, str]:
    """Settings of a local session that starts fast, keeps quiet and leaves nothing where it was started.

    Args:
        master: Spark master; `local[n]` counts threads.
        memory: heap of the JVM, such as "1g".
        scratch: folder for shuffle files and the warehouse; Spark makes it.

    Returns:
        Spark properties by name. Those that the feature job relies on for its results it sets itself.
    """
    partitions = str(_cores(master))
    return {
        "spark.app.name": "ml_platform",
        "spark.master": master,
        "spark.driver.memory": memory,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        # A session lives for seconds: the quick compiler alone takes 12 s of processor time to the first result over
        # six months of flights, the optimizing one 25 s. One collector thread leaves the cores to the work.
        "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Duser.timezone=UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # A shuffle of a few megabytes needs a task a core, not 200; for larger ones adaptive execution has 32 to start
        # from, and joins what is small.
        "spark.sql.shuffle.partitions": partitions,
        "spark.sql.adaptive.enabled": "true",
        "spark.sql.adaptive.coalescePartitions.initialPartitionNum": "32",
        "spark.default.parallelism": partitions,
        # Listing some hundred local folders is faster in the driver than as a job of its own.
        "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
        # Opening a local file costs far less than the 4 MiB of reading that Spark reckons with on remote storage.
        "spark.sql.files.openCostInBytes": str(64 << 10),
    }


def builder(config: dict[str, str]) -> Any:
    """A `SparkSession.Builder` with these settings."""
    from pyspark.sql import SparkSession

    made = SparkSession.builder
    for name, value in config.items():
        made = made.config(name, value)
    return made


def started(resource: Any) -> SparkSession:
    """The session of dagster-pyspark's lazy resource, started if it was not.

    Raises:
        SetupError: there is no Java, or its JVM does not start with these settings.
    """
    from pyspark.errors import PySparkRuntimeError

    try:
        session: SparkSession = resource.spark_session
    except PySparkRuntimeError as error:
        raise SetupError(
            "Spark's JVM does not start.",
            got=str(error).splitlines()[0],
            fix="`ml-platform doctor` says what is missing: Java 17 or later, or a sane ML_PLATFORM_SPARK_MEMORY",
        ) from error
    return session


def java_version(session: SparkSession) -> str:
    """The version of the Java that a session's driver runs on."""
    jvm: Any = session.sparkContext._jvm
    return str(jvm.java.lang.System.getProperty("java.version"))


def stop(session: SparkSession) -> None:
    """Stop the session and end its JVM, which `session.stop()` alone leaves running with all of its memory.

    Raises:
        SetupError: the JVM could not be ended.
    """
    import subprocess

    from pyspark import SparkContext

    gateway = SparkContext._gateway
    session.stop()
    if gateway is None:
        return
    process: subprocess.Popen[bytes] | None = getattr(gateway, "proc", None)
    gateway.shutdown()
    # The next session starts a JVM of its own.
    SparkContext._gateway = None
    SparkContext._jvm = None
    if process is None:
        return
    if process.stdin is not None:
        process.stdin.close()  # the JVM leaves when this pipe ends
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise SetupError("Spark's JVM does not end.", got=f"process {process.pid}", fix="end it by hand") from error


def _cores(master: str) -> int:
    """How many threads a `local` master has; for another, those of this machine."""
    count = master.partition("[")[2].rstrip("]").partition(",")[0]
    return int(count) if count.isdigit() else (os.cpu_count() or 2)
