"""A scenario file (YAML) → the settings of a whole test. docs/scenario.md has the schema.

Its keys are the flags of PerfRun.py without their dashes, and its values what the flags take: so there is one set of
rules, and each value is checked by the flag's own parser. Errors name the file's line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .settings import OPTIONS, Option, SettingsError, checked

if TYPE_CHECKING:
    from yaml.nodes import Node

_STEPS = "steps"


class Scenario(NamedTuple):
    """What a file says, by the fields of Settings: the texts, and what they mean."""

    texts: Mapping[str, str | tuple[str, ...]]
    values: Mapping[str, Any]


def read(path: Path, fields: Sequence[str]) -> Scenario:
    """The scenario in a file, which may set `fields`. Raises SettingsError that names file and line."""
    options = {OPTIONS[field].flag.removeprefix("--"): OPTIONS[field] for field in fields}
    options[_STEPS] = OPTIONS["profile"]
    texts: dict[str, str | tuple[str, ...]] = {}
    values: dict[str, Any] = {}
    for key, node in _entries(_root(path), path):
        option = options.get(key.value)
        if option is None:
            nearest = difflib.get_close_matches(key.value, options, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(sorted(options))}"
            raise _error(path, key, f"{key.value} is no key of a scenario: {hint}")
        if option.field in texts:
            raise _error(path, key, f"{key.value} is there twice")
        found = _texts(node, path, option)
        parsed = tuple(checked(f"{path}, line {line}: {key.value}", text, option.parse) for line, text in found)
        texts[option.field] = tuple(text for _, text in found) if option.repeats else found[0][1]
        values[option.field] = parsed if option.repeats else parsed[0]
    return Scenario(texts, values)


def _root(path: Path) -> Node:
    import yaml

    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise SettingsError(f"the scenario {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"the scenario {path} is not UTF-8") from None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or error
        raise SettingsError(f"{path}{place}: this is no YAML: {problem}") from None
    if node is None:
        raise SettingsError(f"the scenario {path} is empty")
    found: Node = node
    return found


def _entries(root: Node, path: Path) -> Iterator[tuple[Any, Node]]:
    from yaml.nodes import MappingNode, ScalarNode

    if not isinstance(root, MappingNode):
        raise _error(path, root, "a scenario has lines 'key: value'")
    for key, node in root.value:
        if not isinstance(key, ScalarNode):
            raise _error(path, key, "a key must be a plain word")
        yield key, node


def _texts(node: Node, path: Path, option: Option) -> list[tuple[int, str]]:
    """The texts of a value with their lines: one, or those of a list for a flag that may be repeated, or of steps."""
    from yaml.nodes import ScalarNode, SequenceNode

    if isinstance(node, ScalarNode) and node.value != "":
        return [(_line(node), node.value)]
    is_profile = option.field == "profile"
    if isinstance(node, SequenceNode) and node.value and is_profile:
        return [(_line(node), ", ".join(_step(one, path) for one in node.value))]
    if isinstance(node, SequenceNode) and node.value and option.repeats:
        return [(_line(one), _text(one, path)) for one in node.value]
    allowed = "a value or a list of values" if option.repeats or is_profile else "one value"
    raise _error(path, node, f"{option.flag.removeprefix('--')} takes {allowed}")


def _step(node: Node, path: Path) -> str:
    """A step: `rate: 1000 for 60s`, which YAML takes for a key with a value, or `ramp 1000→20000 over 5m`."""
    from yaml.nodes import MappingNode

    from .schedule import profile

    if isinstance(node, MappingNode) and len(node.value) == 1:
        text = " ".join(_text(part, path) for part in node.value[0])
    else:
        text = _text(node, path)
    if "rate 0 " not in text.replace(":", ""):  # a pause is no profile of its own
        checked(f"{path}, line {_line(node)}: step", text, profile)
    return text


def _text(node: Node, path: Path) -> str:
    from yaml.nodes import ScalarNode

    if not isinstance(node, ScalarNode) or node.value == "":
        raise _error(path, node, "a plain value belongs here")
    return str(node.value)


def _error(path: Path, node: Node, problem: str) -> SettingsError:
    return SettingsError(f"{path}, line {_line(node)}: {problem}")


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
