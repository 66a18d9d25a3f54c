"""The broker of the integration tests: KAFKA_BROKERS, else an embedded one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import TIMEOUT_S, Cluster, Scripts

from demo.broker import EmbeddedBroker


@pytest.fixture(scope="session")
def brokers() -> Iterator[str]:
    """A Kafka cluster's address: KAFKA_BROKERS where set, else one embedded broker for all tests."""
    if os.environ.get("KAFKA_BROKERS"):
        yield os.environ["KAFKA_BROKERS"]
        return
    with EmbeddedBroker() as broker:
        yield broker.bootstrap_servers


@pytest.fixture(scope="session")
def cluster(brokers: str) -> Cluster:
    """The tests' own access to the cluster."""
    return Cluster(brokers)


@pytest.fixture
def own_broker() -> Iterator[EmbeddedBroker]:
    """A broker that the test may stop or kill."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def scripts(brokers: str, tmp_path: Path) -> Iterator[Scripts]:
    """The scripts, against the tests' cluster."""
    runner = Scripts(brokers, tmp_path)
    yield runner
    runner.close()


@pytest.fixture
def await_condition() -> Callable[[Callable[[], bool]], None]:
    """Waits until a condition holds; fails when it does not within a minute."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, "the condition did not become true"
            time.sleep(0.02)

    return wait
