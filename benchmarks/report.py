"""Measurements → tables, for the screen and for a page of docs/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .laboratory import Run

_WORDS = {True: "met", False: "**missed**", None: "n/a"}

#: A table of texts, the head first.
Table = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Bar:
    """What a figure should reach; `met` is None where it could not be measured."""

    text: str
    measured: str
    met: bool | None


@dataclass(frozen=True)
class Section:
    """One benchmark: what was done, the figures, and the bars."""

    title: str
    text: str
    figures: Table
    bars: Sequence[Bar]

    def markdown(self) -> str:
        """The section, readable on a screen too."""
        bars = [("bar", "measured", "result"), *[(bar.text, bar.measured, _WORDS[bar.met]) for bar in self.bars]]
        return "\n\n".join([f"## {self.title}", self.text, table(self.figures), table(bars)])


def all_rounds(values: Sequence[float], digits: int = 2) -> str:
    """The median, and in brackets the value of each round."""
    return f"{median(values):.{digits}f} ({', '.join(f'{value:.{digits}f}' for value in values)})"


def speed_table(messages: int, runs: Mapping[str, Sequence[Run]]) -> Table:
    """A row per program: seconds, their spread around the median, speed, and processor time (median)."""
    rows = [("program", "seconds: median (rounds)", "spread", "million messages/s", "processor, s")]
    for name, of_one in runs.items():
        if not of_one:
            rows.append((name, "n/a", "n/a", "n/a", "n/a"))
            continue
        times = [run.elapsed_s for run in of_one]
        middle, cpu_s = median(times), median(run.cpu_s for run in of_one)
        spread = f"{(max(times) - min(times)) / middle:.0%}"
        rows.append((name, all_rounds(times), spread, f"{messages / middle / 1e6:.2f}", f"{cpu_s:.2f}"))
    return rows


def ratio_bar(least: float, peer: str, runs: Mapping[str, Sequence[Run]]) -> Bar:
    """The first program against `peer`: the ratio of the median speeds, and the range of the ratios of each round."""
    ours, theirs = [[run.elapsed_s for run in of_one] for of_one in (next(iter(runs.values())), runs[peer])]
    text = f"at least {least:g} × {peer}"
    if not theirs:
        return Bar(text, "n/a", None)
    ratio = median(theirs) / median(ours)
    each = [their_s / our_s for their_s, our_s in zip(theirs, ours, strict=True)]
    return Bar(text, f"{ratio:.2f} × (rounds {min(each):.2f} to {max(each):.2f})", ratio >= least)


def save(path: Path, text: str, *, target: str) -> None:
    """Replace what stands between the two comments of the file; text written by hand around them stays.

    `target` is the make target that writes it.
    """
    begin, end = (f"<!-- written by `make {target}`: {word} -->" for word in ("begin", "end"))
    head, begun, rest = path.read_text(encoding="utf-8").partition(begin)
    _, ended, tail = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"{path.name} has lost the comments between which results are written")
    path.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", encoding="utf-8")


def table(rows: Table) -> str:
    """The rows as Markdown, readable on a screen too."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width for width in widths]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (rows[0], rule, *rows[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
