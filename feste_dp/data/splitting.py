"""How a tokenizer splits a text before its merges, and where the text may be cut first.

The library takes 100 to 300 bytes for a byte that it encodes, and time that grows with the square, so it is
fed parts of a text. A cut is allowed only where the ids of the parts are provably those of the whole: where
the whole text is split too, and nothing before or behind has a say in the other side.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from feste_dp.errors import UsageError

END_OF_TEXT = "<|endoftext|>"
"""GPT-2's token behind a document."""
LONGEST_LINE = 4096
LINE_PATTERN = rf"[^\n]{{0,{LONGEST_LINE}}}\n|[^\n]{{1,{LONGEST_LINE}}}(?= |\z)|[^\n]{{1,{LONGEST_LINE}}}"
"""How the tokenizers that are trained here split a text first: into lines with their ends. A longer line is
cut, before a space where there is one."""
LINE = re.compile(LINE_PATTERN.replace(r"\z", r"\Z"))

PART_CHARACTERS = 2**13
MOST_CHARACTERS = 2**20
"""Of a text without a place to cut; more would take the library gigabytes and hours."""
_NEAR_CHARACTERS = 256

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_ENDS = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Patterns that later models have; every word of them is ended by a space, every run of line ends by a letter.
LATER_PATTERNS = {
    *(
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{number}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{_ENDS}"
        for number in (r"\p{N}{1,3}", r"\p{N}")
    ),
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_ENDS}",
}

# Characters that are no white space in any version of Unicode, and letters.
_BLACK = "[!-~\u00a1-\u167f\u2070-\u2fff\u3001-\ud7ff\uff01-\uffdc\U00010000-\U0010ffff]"
_LETTER = "[A-Za-z\u00c0-\u00d6\u0400-\u0481\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3]"
# No word of GPT-2's pattern has white space behind another character, and its white space looks ahead only.
_AFTER_WORD = re.compile(f"(?<={_BLACK})(?=[ \\n\\r\\t])")
# Words of later patterns may end in line ends, and a line end takes the white space before it.
_BEFORE_SPACE = re.compile(f"(?<={_BLACK})(?= )")
_BEFORE_SPACE_OR_AFTER_LINE = re.compile(f"{_BEFORE_SPACE.pattern}|(?<=\\n)(?={_LETTER})")
_AFTER_LINE = re.compile(r"(?<=\n)")


@dataclass(frozen=True)
class AddedToken:
    """A text that becomes one token wherever it stands, before anything is split."""

    content: str
    id: int
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False
    special: bool = True


@dataclass(frozen=True)
class Cutting:
    """Where texts may be cut for one tokenizer; nowhere where `place` is None."""

    place: re.Pattern[str] | None
    added: tuple[AddedToken, ...] = ()
    into_lines: bool = False
    """Whether a long line may be cut where LINE ends, too."""

    @property
    def margin(self) -> int:
        """Characters behind a place that decide whether it is one."""
        longest = max((len(token.content) for token in self.added), default=1)
        return longest + (LONGEST_LINE + 1) * self.into_lines

    def last_place(self, text: str, start: int, stop: int) -> int:
        """The last place after start, stop at most, with `margin` characters behind stop; else start."""
        if self.place is not None:
            for first in (max(start + 1, stop - _NEAR_CHARACTERS), start + 1):
                for found in reversed(list(self.place.finditer(text, first, stop))):
                    if not self._inside_added(text, found.start()):
                        return found.start()
        return self._last_in_long_line(text, start, stop) if self.into_lines else start

    def _inside_added(self, text: str, at: int) -> bool:
        """Whether an added token reaches over the place, or takes the white space behind it."""
        for token in self.added:
            size = len(token.content)
            if text.find(token.content, max(0, at - size + 1), at + size - 1) >= 0:
                return True
            if token.rstrip and text.startswith(token.content, at - size):
                return True
        return False

    def _last_in_long_line(self, text: str, start: int, stop: int) -> int:
        """In a line, of which LINE matches from start on; an added token begins it anew."""
        if any(text.find(token.content, start, stop + self.margin) >= 0 for token in self.added):
            found = [(text.rfind(token.content, start, stop), len(token.content)) for token in self.added]
            return max([start, *(at + size for at, size in found if at >= 0)])
        at = start
        while (line := LINE.match(text, at)) is not None and line.end() <= stop:
            at = line.end()
        return at


NOWHERE = Cutting(None)
LINES = Cutting(_AFTER_LINE, into_lines=True)


def parts_of(pieces: Iterable[str], cutting: Cutting) -> Iterator[str]:
    """The text that the pieces make up in parts of about PART_CHARACTERS, cut as `cutting` allows.

    UsageError where MOST_CHARACTERS in a row have no place for a cut.
    """
    rest = ""
    for piece in pieces:
        rest += piece
        start, size = 0, PART_CHARACTERS
        while len(rest) - start >= size + cutting.margin:
            end = cutting.last_place(rest, start, start + size)
            if end > start:
                yield rest[start:end]
                start, size = end, PART_CHARACTERS
            elif size >= MOST_CHARACTERS:
                raise _endless(cutting)
            else:
                size *= 2
        rest = rest[start:]
    if len(rest) > MOST_CHARACTERS + cutting.margin:
        raise _endless(cutting)
    if rest:
        yield rest


def _endless(cutting: Cutting) -> UsageError:
    seen = f"a text has {MOST_CHARACTERS:,} characters in a row that the tokenizer must see at once"
    if cutting.place is None:
        return UsageError(f"{seen}, for it splits text by a rule of its own: cut the text into documents")
    return UsageError(f"{seen}, for no space or line end follows a word: put line ends into the text")


def lines_of(pieces: Iterable[str]) -> Iterator[str]:
    """The lines (LINE) of the text that the pieces make up, the same however it is cut into pieces."""
    rest = ""
    for piece in pieces:
        rest += piece
        end = rest.rfind("\n") + 1
        yield from LINE.findall(rest[:end])
        rest, start = rest[end:], 0
        while len(rest) - start > LONGEST_LINE + 1:  # where it is cut depends on no more than what is there
            found = LINE.match(rest, start)
            assert found is not None
            yield found[0]
            start = found.end()
        rest = rest[start:]
    yield from LINE.findall(rest)


def cutting_for(pre_tokenizer: Any, normalized: bool, added: Sequence[AddedToken]) -> Cutting:
    """What is proven of a checked pre_tokenizer of a tokenizer.json; NOWHERE where nothing is."""
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    kinds = [_kind(step) for step in steps]
    plain = not any(token.lstrip or token.rstrip or token.single_word for token in added)
    if kinds == ["lines", "words"] and plain and not normalized:
        # behind which of several tokens a line begins anew, where they overlap, only the library knows
        return Cutting(_AFTER_LINE, tuple(added), {each.content for each in added} <= {END_OF_TEXT})
    if {"other", "lines"} & set(kinds) or not {"words", "later words"} & set(kinds):
        return NOWHERE
    for token in added:
        # Whether it begins is decided by the character before a place; or by a text that is not there yet.
        if token.single_word and token.content[0].isspace():
            return NOWHERE
        if normalized and token.normalized and (token.rstrip or _AFTER_WORD.search(token.content)):
            return NOWHERE
    place = _AFTER_WORD
    if "later words" in kinds:
        place = _BEFORE_SPACE if "words" in kinds else _BEFORE_SPACE_OR_AFTER_LINE
        place = _BEFORE_SPACE if any(token.lstrip for token in added) else place
    return Cutting(place, tuple(added))


def _kind(step: dict[str, Any]) -> str:
    """What is known of one step of the splitting."""
    if step["type"] == "ByteLevel":
        return "words" if step.get("use_regex", True) else "bytes"
    if step["type"] == "Digits":
        return "digits"
    pattern = step["pattern"].get("Regex")
    # such a pattern matches every character, so that what is removed between matches is nothing
    whole = (step["behavior"], bool(step["invert"])) in (("Isolated", False), ("Removed", True))
    if not whole:
        return "other"
    if pattern == LINE_PATTERN:
        return "lines"
    if pattern == GPT2_PATTERN:
        return "words"
    return "later words" if pattern in LATER_PATTERNS else "other"
