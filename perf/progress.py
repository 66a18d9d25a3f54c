"""What a person at a terminal sees on stderr, where that is one; otherwise nothing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from .live import Recent, Snapshot
from .report.text import recent_line

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class Progress:
    """Messages and rate, redrawn a few times a second, and a note under them. `total` None: no end is known."""

    def __init__(self, total: int | None, *, wanted: bool = True) -> None:
        self._bar: Any = None
        self._under: Any = None
        self._undo = ExitStack()
        if wanted and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm  # slow to import
            from tqdm.contrib.logging import logging_redirect_tqdm

            self._bar = tqdm(
                total=total, unit=" messages", unit_scale=True, leave=False, mininterval=0.2, file=sys.stderr,
                dynamic_ncols=True,
            )  # fmt: skip
            self._undo.enter_context(logging_redirect_tqdm())  # log lines do not tear it

    @property
    def shown(self) -> bool:
        """Whether anybody sees it: else a note need not be computed."""
        return self._bar is not None

    def update(self, done: int) -> None:
        """`done` messages so far."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            self._bar.refresh()

    def note(self, text: str) -> None:
        """What stands under the rate."""
        if self._bar is None:
            return
        if self._under is None:
            self._under = type(self._bar)(
                bar_format="{desc}", position=1, leave=False, file=sys.stderr, dynamic_ncols=True
            )
        self._under.set_description_str(text)

    def write(self, text: str) -> None:
        """Write to stdout without tearing the lines."""
        if self._bar is None:
            sys.stdout.write(text)
        else:
            self._bar.write(text, file=sys.stdout, end="")
        sys.stdout.flush()

    def close(self) -> None:
        """Remove the lines."""
        for bar in (self._under, self._bar):
            if bar is not None:
                bar.close()
        self._undo.close()


class LiveView:
    """A consumer's last seconds, under its progress."""

    def __init__(self, progress: Progress, environment: Mapping[str, str] = os.environ) -> None:
        self._progress, self._recent = progress, Recent()
        plain = bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
        self._before, self._after = ("", "") if plain else (_DIM, _PLAIN)

    def show(self, snapshot: Snapshot) -> None:
        """Redraw it."""
        read = snapshot.counters["messages_read"]
        found = self._recent.add(time.monotonic(), read, snapshot.tallies["delta_ms"])
        self._progress.note(f"{self._before}{recent_line(snapshot.gauges['lag'], found)}{self._after}")
        self._progress.update(read)
