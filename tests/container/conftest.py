"""Engine, images and broker of the container tests."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import KEY, PASSWORD, Containers, working_engine
from harness import Cluster

from demo.broker import EmbeddedBroker, Security, classpath

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


@pytest.fixture(scope="session")
def engine() -> str:
    """The container engine, docker or podman."""
    found = working_engine()
    if found is None:
        pytest.skip("no container engine: neither `docker info` nor `podman info` answers")
    return found


@pytest.fixture(scope="package")
def only_loopback(engine: str) -> Iterator[bool]:
    """Where that can be done (podman, as root), a network in which there is nothing but the broker on 127.0.0.1."""
    if engine != "podman" or os.geteuid() != 0:
        yield False
        return
    classpath()  # downloads the broker, which is out of reach from in there
    library = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as before:
        assert library.unshare(_NEW_NETWORK) == 0, os.strerror(ctypes.get_errno())
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield True
        assert library.setns(before.fileno(), _NEW_NETWORK) == 0, os.strerror(ctypes.get_errno())


@pytest.fixture(scope="package")
def broker(only_loopback: bool) -> Iterator[EmbeddedBroker]:  # noqa: ARG001 (starts in that network)
    """A broker with a plaintext and a SASL_SSL listener, an API key and a SCRAM user."""
    security = Security(plain_users={"token": KEY}, scram_users={"alice": PASSWORD})
    with EmbeddedBroker(security=security) as started:
        yield started


@pytest.fixture(scope="package")
def cluster(broker: EmbeddedBroker) -> Cluster:
    """The tests' own access to the broker."""
    return Cluster(broker.bootstrap_servers)


@pytest.fixture(params=["", "-ubi"], ids=["debian", "ubi"])
def image(request: pytest.FixtureRequest, engine: str) -> str:
    """Each image in turn."""
    name = os.environ.get("IMAGE", "kafka-performance:0.1") + str(request.param)
    done = subprocess.run([engine, "image", "inspect", name], capture_output=True, check=False)
    assert done.returncode == 0, f"there is no image {name}: run `make image image-ubi` first"
    return name


@pytest.fixture
def containers(engine: str, image: str, tmp_path: Path) -> Iterator[Containers]:
    """Runs the image as Kubernetes would."""
    runner = Containers(engine, image, tmp_path)
    yield runner
    runner.close()
