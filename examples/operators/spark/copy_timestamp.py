"""Copies each message, with the message's Kafka timestamp as timestamp_start."""

import argparse
import os
import signal
import sys
import tempfile
import threading

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import expr
from pyspark.sql.streaming import StreamingQuery

# A map from names to values of any type keeps all fields; with a schema, from_json would drop those that it lacks.
# Your own work would be done here too.
RESULT = """
to_json(map_concat(
  from_json(CAST(value AS STRING), 'MAP<STRING, VARIANT>', map('mode', 'FAILFAST')),
  map('timestamp_start', CAST(unix_millis(timestamp) AS VARIANT))
)) AS value
"""


def started(messages: DataFrame, output: str, checkpoints: str) -> StreamingQuery:
    """The running query, which writes each message's result to the topic `output`."""
    sink = messages.select("key", "headers", expr(RESULT)).writeStream.format("kafka")
    sink = sink.option("kafka.bootstrap.servers", os.environ["KAFKA_BROKERS"]).option("topic", output)
    return sink.option("checkpointLocation", checkpoints).start()


def wait(query: StreamingQuery, stopped: threading.Event) -> None:
    """Say once that the query reads; returns when stopped. Raises StreamingQueryException when the query fails."""
    ready = False
    while not stopped.is_set() and not query.awaitTermination(0.2):
        if not ready and query.lastProgress:  # of its first batch, which may be empty
            print("operator ready", flush=True)
            ready = True


def main() -> None:
    """Run until stopped: --input TOPIC --output TOPIC [--checkpoints FOLDER], with KAFKA_BROKERS in the environment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--checkpoints", help="keeps the place for the next start (default: a temporary folder)")
    arguments = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # without spark-submit nobody else needs to reach it
    options = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.mapKeyDedupPolicy": "LAST_WIN",  # a timestamp_start of the input's own is overwritten, and no error
    }
    spark = SparkSession.builder.appName(arguments.output).config(map=options).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    source = spark.readStream.format("kafka").option("kafka.bootstrap.servers", os.environ["KAFKA_BROKERS"])
    source = source.option("startingOffsets", "earliest").option("includeHeaders", "true")
    messages = source.option("subscribe", arguments.input).load()
    with tempfile.TemporaryDirectory() as temporary:
        query = started(messages, arguments.output, arguments.checkpoints or temporary)
        try:
            wait(query, stopped)
            query.stop()
        except StreamingQueryException as error:
            sys.exit(f"the query failed: {str(error).splitlines()[0]}")
        finally:
            spark.stop()


if __name__ == "__main__":
    main()
