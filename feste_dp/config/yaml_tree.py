"""From YAML text to nodes that know their line and column, and from a node to a plain value.

No object is ever built from a tag, and anchors are refused, so a small file cannot become a large value; what
would take the parser too long or too much memory is refused before it is parsed. Knows no key of a config.
"""

import re
from dataclasses import dataclass

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from feste_dp.errors import UsageError
from feste_dp.files.marks import YAML_MARKS, too_many_marks

MAX_MARKS = 6_000  # a written config has 170, and one more, or two, for each file of its corpus
MAX_DEPTH = 200  # brackets open at once; for each token the parser looks at all of them
_LONG_TAG = re.compile(r"(?:^|[\s,\[{])!\S{200}")  # the parser takes quadratic time over a tag


@dataclass(frozen=True, order=True)
class Place:
    """Where a value was written; files come before overrides, and line 0 stands for the whole source."""

    rank: int
    line: int
    column: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


class UnreadableError(Exception):
    """A node that is no plain value; the message says why."""


def compose(text: str, place: Place) -> Node | None:
    """The node tree of the only document in the text; None if there is none."""
    if too_many_marks(text.encode(errors="surrogatepass"), YAML_MARKS, MAX_MARKS):
        raise UsageError(
            one_line(f"{place.source}: has more than {MAX_MARKS} lines and values: no config has")
        )
    if _is_deep(text):
        raise UsageError(one_line(f"{place.source}: is nested too deep for a config"))
    if _LONG_TAG.search(text):
        raise UsageError(one_line(f"{place.source}: tags (!) are not taken in a config"))
    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False
    try:
        root: Node | None = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if place.line and mark is not None:
            place = Place(place.rank, mark.line + 1, mark.column + 1, place.source)
        hint = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        cause = ", ".join(str(part) for part in (error.context, error.problem) if part)
        cause = cause.replace("'<stream end>'", "the end")
        raise UsageError(one_line(f"{place}: YAML syntax: {cause}{hint}")) from None
    except ReaderError as error:
        before = text[: error.position]
        if place.line:
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            place = Place(place.rank, line, column, place.source)
        raise UsageError(one_line(f"{place}: YAML syntax: control character in the text")) from None
    except RecursionError:
        raise UsageError(one_line(f"{place.source}: is nested too deep for a config")) from None
    return root


def _is_deep(text: str) -> bool:
    depth = 0
    for bracket in re.finditer(r"[\[{\]}]", text):
        depth = depth + 1 if bracket[0] in "[{" else max(0, depth - 1)
        if depth > MAX_DEPTH:
            return True
    return False


def refusal(node: Node) -> str:
    """Why the node may not stand in a config, or nothing."""
    if node.anchor is not None:
        return "anchors and aliases (& and *) are not taken in a config; write the value out"
    tag = str(node.tag).removeprefix("tag:yaml.org,2002:")
    if tag in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "map", "seq"):
        return ""
    shown = shortened(tag if tag.startswith("!") else f"!!{tag}", 40)
    return f"the tag {shown} is not taken in a config"


def plain_value(node: Node) -> object:
    """The scalar, list of scalars, or (for the message alone) empty map that the node writes."""
    why = refusal(node)
    if why:
        raise UnreadableError(why)
    if isinstance(node, MappingNode):
        return {}
    if isinstance(node, SequenceNode):
        return [plain_value(child) if isinstance(child, ScalarNode) else {} for child in node.value]
    text = str(node.value)
    try:
        if len(text) > 64 and not str(node.tag).endswith(":str"):
            raise ValueError
        match str(node.tag).removeprefix("tag:yaml.org,2002:"):
            case "null":
                return None
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "int":
                base = {"0x": 16, "0o": 8, "0b": 2}.get(text.lstrip("+-")[:2].lower(), 10)
                return int(text, base)
            case "float":
                return float(re.sub(r"_|\.(?=inf|nan)", "", text.lower()))
    except ValueError:
        raise UnreadableError(f"{shortened(text, 40)} is not a number that can be read") from None
    return text


def kind(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a map"
    if isinstance(node, SequenceNode):
        return "a list"
    return "nothing" if str(node.tag).endswith(":null") else f"'{shortened(str(node.value), 40)}'"


def shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def one_line(text: str) -> str:
    """The text with line breaks, control characters and broken UTF-8 written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
