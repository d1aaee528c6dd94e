"""Which of the text is for training and which for validation. Knows no tokens."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from feste_dp.data.text_file import Text
from feste_dp.errors import UsageError


class Stretch(NamedTuple):
    """Characters start .. stop of the texts one after the other, each of which ends its last line."""

    texts: Sequence[Text]
    start: int = 0
    stop: int | None = None

    def pieces(self) -> Iterator[str]:
        """Its text."""
        for document, _ in self.documents():
            yield from document

    def documents(self) -> Iterator[tuple[Iterator[str], bool]]:
        """The text of each that has a part in it, and whether its end is in it."""
        at = 0
        for text in self.texts:
            after = at + _joined(text)
            if after > self.start and (self.stop is None or at < self.stop):
                stop = None if self.stop is None else self.stop - at
                yield _part(text, max(0, self.start - at), stop), stop is None or after - at <= stop
            at = after


def split_at_end(texts: Sequence[Text], val_fraction: float) -> tuple[Stretch, Stretch]:
    """The last val_fraction of the characters is held out, from the start of the line that it begins in."""
    cut = _split_position(texts, val_fraction)
    return Stretch(texts, 0, cut), Stretch(texts, cut)


def split_by_document(texts: Sequence[Text], val_fraction: float) -> tuple[Stretch, Stretch]:
    """Whole texts are held out, val_fraction of the characters or a little more: those whose SHA-256 is
    lowest, so that it is chance which, and always the same. UsageError where there are fewer than two."""
    if len({text.sha256 for text in texts}) < 2:
        raise UsageError("there is one document only: give more, or hold out the end of the text")
    wanted, held = sum(map(_joined, texts)) * val_fraction, set[str]()
    for text in sorted(texts, key=lambda text: text.sha256):
        if sum(_joined(text) for text in texts if text.sha256 in held) >= wanted and held:
            break
        if len({each.sha256 for each in texts} - held) == 1:
            break  # one is left to learn from
        held.add(text.sha256)
    return (
        Stretch([text for text in texts if text.sha256 not in held]),
        Stretch([text for text in texts if text.sha256 in held]),
    )


def held_in_files(texts: Sequence[Text], val_texts: Sequence[Text]) -> tuple[Stretch, Stretch]:
    """Validation has texts of its own. UsageError where one of them is learnt from too."""
    names = {text.sha256: text.name for text in texts}
    for text in val_texts:
        if text.sha256 in names:
            raise UsageError(
                f"{text.name}, for validation, is the same text as {names[text.sha256]}, to learn from"
            )
    return Stretch(texts), Stretch(val_texts)


def _joined(text: Text) -> int:
    """Characters of a text with the line end that it gets where it has none."""
    return text.characters + (not text.ends_line)


def _split_position(texts: Sequence[Text], val_fraction: float) -> int:
    """The character of the joined text where validation starts: the start of the line that holds the one at
    1 - val_fraction."""
    position = int(sum(map(_joined, texts)) * (1 - val_fraction))
    start = 0
    for text in texts:
        if position <= start + _joined(text):
            break
        start += _joined(text)
    at, line = start, start
    for piece in _part(text, 0, position - start):
        newline = piece.rfind("\n", 0, position - at)
        line = at + newline + 1 if newline >= 0 else line
        at += len(piece)
    return line or position


def _part(text: Text, start: int, stop: int | None) -> Iterator[str]:
    """Characters start .. stop of the text with its line end."""
    at = 0
    for piece in itertools.chain(text.pieces(), () if text.ends_line else ("\n",)):
        shown = piece[max(0, start - at) : None if stop is None else max(0, stop - at)]
        at += len(piece)
        if shown:
            yield shown
