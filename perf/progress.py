"""A progress line on stderr, where that is a terminal; otherwise nothing."""

from __future__ import annotations

import sys
from typing import Any


class Progress:
    """Messages, rate and a note, redrawn a few times a second. `total` None: no end is known."""

    def __init__(self, total: int | None) -> None:
        self._bar: Any = None
        if sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm  # slow to import

            self._bar = tqdm(
                total=total, unit=" messages", unit_scale=True, leave=False, mininterval=0.2, file=sys.stderr
            )

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
        """What stands behind the rate."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def write(self, text: str) -> None:
        """Write to stdout without tearing the line."""
        if self._bar is None:
            sys.stdout.write(text)
        else:
            self._bar.write(text, file=sys.stdout, end="")
        sys.stdout.flush()

    def close(self) -> None:
        """Remove the line."""
        if self._bar is not None:
            self._bar.close()
