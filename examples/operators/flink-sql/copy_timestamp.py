"""Copies each message, with the message's Kafka timestamp as timestamp_start."""

import argparse
import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from py4j.protocol import Py4JError, Py4JJavaError
from pyflink.common import Configuration, JobClient
from pyflink.java_gateway import get_gateway
from pyflink.table import EnvironmentSettings, TableEnvironment

# Fields that are not declared are dropped: these are those of data/data.json, and the one of --trace field:trace.
INPUT = """
CREATE TABLE input (
  message_key BYTES,
  trace STRING,
  id STRING, `type` STRING, containerId STRING, eventTime STRING, remark STRING, remarks ARRAY<STRING>,
  location ROW<port STRING, name STRING, latitude DOUBLE, longitude DOUBLE>,
  setPoint DOUBLE, supplyAir DOUBLE, probes ARRAY<DOUBLE>, humidity INT, powered BOOLEAN,
  unit ROW<imei BIGINT, kWh DOUBLE, leak DOUBLE, rssi INT, defrost BOOLEAN>,
  inspector STRING, checks ARRAY<ROW<item STRING, ok BOOLEAN>>,
  cleared BOOLEAN, goods ROW<text STRING, hsCode STRING>, `value` ROW<amount DOUBLE, currency STRING>,
  documents ARRAY<STRING>,
  direction STRING, lane INT, seals ARRAY<STRING>, truck ROW<driver STRING, grossKg INT, genset BOOLEAN>,
  operation STRING, vessel ROW<name STRING, draught DOUBLE>, slot ARRAY<INT>, plugged BOOLEAN, delayHours DOUBLE,
  alarm ROW<code STRING, text STRING, severity INT, active BOOLEAN>, acknowledgedBy STRING,
  timestamp_start TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  headers MAP<STRING, BYTES> METADATA
) WITH (
  'connector' = 'kafka',
  'properties.bootstrap.servers' = '{brokers}',
  'topic' = '{input}',
  'properties.group.id' = '{output}-flink-sql',
  'scan.startup.mode' = 'group-offsets',
  'properties.auto.offset.reset' = 'earliest',
  'key.format' = 'raw', 'key.fields' = 'message_key', 'value.fields-include' = 'EXCEPT_KEY',
  'value.format' = 'json', 'value.json.encode.ignore-null-fields' = 'true'
)
"""
# All as in the input, but here timestamp_start is a field like the others, and what is METADATA is said again.
OUTPUT = """
CREATE TABLE output (timestamp_start TIMESTAMP_LTZ(3), headers MAP<STRING, BYTES> METADATA) WITH (
  'topic' = '{output}',
  'sink.delivery-guarantee' = '{guarantee}',
  'sink.transactional-id-prefix' = '{output}-flink-sql',
  'properties.transaction.timeout.ms' = '600000'
) LIKE input (EXCLUDING METADATA OVERWRITING OPTIONS)
"""
# Your own work would be done here.
RESULTS = "INSERT INTO output SELECT * FROM input"


def completed(checkpoints: Path) -> set[Path]:
    """The metadata of the completed checkpoints, of this start and of those before; Flink writes it last."""
    return set(checkpoints.glob("*/chk-*/_metadata"))


def started(arguments: argparse.Namespace, temporary: str, checkpoints: Path, before: set[Path]) -> JobClient:
    """The running job, from the newest checkpoint of those before: Flink in a JVM of this process's own."""
    options = {
        "execution.checkpointing.interval": "1 s",  # offsets are committed at checkpoints
        "execution.checkpointing.dir": checkpoints.as_uri(),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "restart-strategy.type": "disable",  # an error ends the job
        "io.tmp.dirs": temporary,
        "web.tmpdir": temporary,
        "rest.bind-address": "localhost",  # nobody else needs to reach it, and whoever does may run code
        "jobmanager.bind-host": "localhost",
    }
    if before:
        newest = max(before, key=lambda path: path.stat().st_mtime_ns)
        options["execution.state-recovery.path"] = newest.parent.as_uri()
    configuration = Configuration()
    for name, value in options.items():
        configuration.set_string(name, value)
    tables = TableEnvironment.create(
        EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build()
    )
    values = {
        "brokers": os.environ["KAFKA_BROKERS"],
        "input": arguments.input,
        "output": arguments.output,
        "guarantee": "exactly-once" if arguments.exactly_once else "at-least-once",
    }
    tables.execute_sql(INPUT.format(**values))
    tables.execute_sql(OUTPUT.format(**values))
    return tables.execute_sql(RESULTS).get_job_client()


def wait(job: JobClient, checkpoints: Path, before: set[Path], stopped: threading.Event) -> None:
    """Say once that the job reads; returns when stopped. Raises Py4JJavaError when the job fails."""
    ready, end = False, job.get_job_execution_result()
    while not stopped.wait(0.2):
        if end.done():
            end.result()
        if not ready and completed(checkpoints) - before:  # the first one needs all tasks running
            print("operator ready", flush=True)
            ready = True
    job.cancel().result()
    while not end.done():
        time.sleep(0.05)


def end_java() -> None:
    """End the JVM, which would go on for a moment, with files in the temporary folder."""
    logging.disable()  # py4j would report that nobody answers any more
    with contextlib.suppress(Py4JError):
        get_gateway().jvm.System.exit(0)


def main() -> None:
    """Run until stopped, with KAFKA_BROKERS in the environment.

    --input TOPIC --output TOPIC [--exactly-once] [--checkpoints FOLDER]
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--exactly-once", action="store_true")
    parser.add_argument("--checkpoints", help="keeps the place for the next start (default: a temporary folder)")
    arguments = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with tempfile.TemporaryDirectory() as temporary:
        checkpoints = Path(arguments.checkpoints or temporary).resolve()
        before = completed(checkpoints)
        try:
            wait(started(arguments, temporary, checkpoints, before), checkpoints, before, stopped)
        except Py4JJavaError as error:
            sys.exit("\n".join(line for line in str(error).splitlines() if not line.startswith("\t")))
        finally:
            end_java()


if __name__ == "__main__":
    main()
