"""An own broker for the tests of the examples, and the scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Cluster, Scripts

from demo.broker import EmbeddedBroker


@pytest.fixture(scope="session")
def engines_cluster() -> Iterator[Cluster]:
    """An embedded broker: the examples know no credentials."""
    with EmbeddedBroker() as broker:
        yield Cluster(broker.bootstrap_servers)


@pytest.fixture
def engines_scripts(engines_cluster: Cluster, tmp_path: Path) -> Iterator[Scripts]:
    """The scripts, against that broker."""
    runner = Scripts(engines_cluster.brokers, tmp_path)
    yield runner
    runner.close()
