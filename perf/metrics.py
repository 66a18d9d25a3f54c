"""Where Prometheus reads a process's metrics: an HTTP server in a thread of its own, which sees snapshots only."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import __version__
from .live import Snapshot
from .settings import Settings, SettingsError

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class MetricsServer:
    """Serves what was published last, on all of this machine's addresses: Prometheus reads from another one."""

    def __init__(self, role: str, port: int, options: Settings) -> None:
        """Raises SettingsError where the port cannot be had."""
        from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server  # slow to import

        self._role = role
        self._information = {
            "role": role, "topic": options.topic, "run_id": options.run_id, "version": __version__,
            "python": platform.python_version(),
        }  # fmt: skip
        self._snapshot = Snapshot({}, {}, {})
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(self)
        try:
            start_http_server(port, "::" if socket.has_dualstack_ipv6() else "0.0.0.0", registry)  # noqa: S104
        except OSError as error:
            raise SettingsError(
                f"--metrics-port: port {port} cannot be opened: {os.strerror(error.errno or 0)}"
            ) from error

    def publish(self, snapshot: Snapshot) -> None:
        """From now on this one is served; nobody may change it any more."""
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client, in its thread."""
        from .report.prometheus import families

        return families(self._role, self._snapshot, self._information)
