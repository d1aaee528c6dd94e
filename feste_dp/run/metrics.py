"""metrics.csv: one row per step, written so that a kill leaves at most one partial last line.

A row is complete when its newline lies outside quotes. Readers drop what follows the last complete row;
a writer and `truncate_after` cut it off.
"""

import codecs
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from feste_dp.errors import UsageError
from feste_dp.files.growing import GrowingFile, open_growing
from feste_dp.files.reading import read_plain
from feste_dp.run.events import LAST_STEP
from feste_dp.wording import quoted

COLUMNS = (
    "step",
    "elapsed_seconds",
    "learning_rate",
    "train_loss",
    "val_loss",
    "train_perplexity",
    "val_perplexity",
    "grad_norm",
    "tokens_per_second",
    "sample",
)
TIMING = frozenset({"elapsed_seconds", "tokens_per_second"})
MAX_BYTES = 2**31
"""Some ten million rows."""
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LARGEST = 750.0
"""Of this exp is infinite, of its negative 0."""
_HEADER = (",".join(COLUMNS) + "\n").encode()


@dataclass(frozen=True)
class MetricsRow:
    """What is known after a step. Losses are nats per token."""

    step: int
    elapsed_seconds: float
    learning_rate: float
    train_loss: float
    grad_norm: float
    tokens_per_second: float
    val_loss: float | None = None
    """None at a step without validation."""
    sample: str = ""
    """Empty at a step without a sample."""

    @property
    def train_perplexity(self) -> float:
        return perplexity(self.train_loss)

    @property
    def val_perplexity(self) -> float | None:
        return None if self.val_loss is None else perplexity(self.val_loss)


def perplexity(loss: float) -> float:
    """exp(loss) within 2 ulp, infinite where a float64 cannot hold it: by its series, for a C library's may
    differ from one to the next, and metrics.csv is the same everywhere."""
    if not -_LARGEST < loss < _LARGEST:
        return math.inf if loss > 0 else 0.0 if loss < 0 else math.nan
    doublings = round(loss / math.log(2))
    rest = (loss - doublings * _LN2_HIGH) - doublings * _LN2_LOW
    total = 1.0
    for n in range(16, 0, -1):
        total = 1.0 + total * rest / n
    try:
        return math.ldexp(total, doublings)
    except OverflowError:
        return math.inf


def with_perplexity(loss: float) -> str:
    """A loss as people read it: 3.7136 (perplexity 41.0)."""
    return f"{loss:.4f} (perplexity {perplexity(loss):.1f})"


class MetricsWriter(GrowingFile):
    """A metrics file that grows, whole up to its last full row."""

    def __init__(self, path: Path) -> None:
        def whole(_: int) -> int:
            return sum(map(len, _complete_records(read_plain(path, MAX_BYTES), path)))

        super().__init__(path, whole, _HEADER)

    def append(self, row: MetricsRow) -> None:
        """In one write call."""
        self._write(encode_row(row))


def encode_row(row: MetricsRow) -> bytes:
    """One CSV line. Numbers that a resume must repeat are exact (repr), times are rounded."""
    fields = (
        str(row.step),
        f"{row.elapsed_seconds:.3f}",
        _exact(row.learning_rate),
        _exact(row.train_loss),
        _exact(row.val_loss),
        _exact(row.train_perplexity),
        _exact(row.val_perplexity),
        _exact(row.grad_norm),
        f"{row.tokens_per_second:.1f}",
        '"' + row.sample.replace('"', '""') + '"' if row.sample else "",
    )
    # a lone surrogate, which no decoder of tokens makes, is written as \udcff to keep the file UTF-8
    return (",".join(fields) + "\n").encode(errors="backslashreplace")


def read_metrics(path: Path) -> list[MetricsRow]:
    """The rows of a metrics file but for a partial last line; UsageError when it is missing or damaged."""
    return [_decode_row(fields) for _, fields in _read_rows(path)]


def read_rows(content: bytes) -> tuple[list[MetricsRow], int]:
    """The complete rows of a piece of a metrics file that begins with a row or with the header, and how many
    bytes they take. Raises ValueError for a damaged row."""
    records = _split_records(content)
    if records and b"elapsed_seconds" in records[0] and records[0] != _HEADER:
        raise ValueError(_strange_header(content))
    rows = [_decode_row(_split(record)) for record in records if record != _HEADER]
    return rows, sum(map(len, records))


def comparable_rows(path: Path) -> list[dict[str, str]]:
    """The rows as written, without the timing columns: equal for runs that computed the same."""
    return [
        {name: field for name, field in zip(COLUMNS, fields, strict=True) if name not in TIMING}
        for _, fields in _read_rows(path)
    ]


def truncate_after(path: Path, step: int) -> list[MetricsRow]:
    """Cuts the rows after `step` and a partial last line, in one call; returns the rows kept.

    What is cut need not be readable. Needs no room on the disk. A missing file counts as one without rows,
    for the run may have been killed before the first. UsageError leaves the file as it is.
    """
    if not os.path.lexists(path):
        return []
    rows: list[MetricsRow] = []
    size = len(_HEADER)
    if step > 0:
        for record, fields in _each_row(path):
            row = _decode_row(fields)
            if row.step <= step:
                rows.append(row)
                size += len(record)
            if row.step >= step:
                break
    try:
        fd = open_growing(path)
        try:
            if os.pread(fd, len(_HEADER), 0) != _HEADER:
                size = 0  # MetricsWriter writes it anew
            if size < os.fstat(fd).st_size:
                os.ftruncate(fd, size)
        finally:
            os.close(fd)
    except OSError as error:
        raise UsageError(f"cannot cut {path} after step {step}: {error.strerror}") from error
    return rows


def _read_rows(path: Path) -> list[tuple[bytes, list[str]]]:
    return list(_each_row(path))


def _each_row(path: Path) -> Iterator[tuple[bytes, list[str]]]:
    """Each complete row, as its bytes and its ten fields; UsageError at the first that cannot be read."""
    try:
        records = _complete_records(read_plain(path, MAX_BYTES), path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    for number, record in enumerate(records[1:], 1):
        try:
            fields = _split(record)
            strange = _strange_number(fields, _decode_row(fields))
        except ValueError as error:
            reason = ascii(str(error)[:100])[1:-1]
            raise UsageError(f"{path}: row {number} is damaged ({reason}); {_way_out(path)}") from error
        if strange is not None:
            raise UsageError(
                f"{path}: row {number} was changed by another program, such as a spreadsheet: no run writes "
                f"the number {strange[:40]!a}; {_way_out(path)}"
            )
        yield record, fields


def _complete_records(content: bytes, path: Path) -> list[bytes]:
    """The header and the rows, each with its newline; empty when not even the header is complete."""
    records = _split_records(content)
    if records[:1] != [_HEADER] and not (not records and _HEADER.startswith(content)):
        raise UsageError(f"{path} {_strange_header(content)}; {_way_out(path)}")
    return records


def _strange_header(content: bytes) -> str:
    """What is wrong with a first line that is not the header: what spreadsheets do to it has a name."""
    line = content.split(b"\n", 1)[0]
    bare = line.removeprefix(codecs.BOM_UTF8).rstrip(b"\r").replace(b'"', b"")
    signs = [
        (line.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)), "a byte order mark"),
        (line.endswith(b"\r"), "CRLF line ends"),
        (b"\0" in line, "UTF-16"),
        (bare.replace(b";", b",") + b"\n" == _HEADER != bare + b"\n", "semicolons between the columns"),
        (bare.replace(b"\t", b",") + b"\n" == _HEADER != bare + b"\n", "tabs between the columns"),
        (b'"' in line, "quotes around the names"),
    ]
    found = [name for holds, name in signs if holds]
    if found:
        return f"was changed by another program, such as a spreadsheet: it has {', '.join(found)}"
    return "does not start with the header of a metrics file"


def _way_out(path: Path) -> str:
    """What to do with a metrics file that cannot be gone on with."""
    aside = path.with_name(f"{path.stem}-changed{path.suffix}")
    return (
        f"put the original back, or move it away and a resume goes on without the rows so far: "
        f"mv {quoted(path)} {quoted(aside)}"
    )


def _strange_number(fields: list[str], row: MetricsRow) -> str | None:
    """A number that is not as a run writes it. The perplexities follow from the losses."""
    written = _split(encode_row(row))
    places = [at for at, name in enumerate(COLUMNS[:-1]) if not name.endswith("perplexity")]
    return next((fields[at] for at in places if fields[at] != written[at]), None)


def _split_records(content: bytes) -> list[bytes]:
    """The complete records, each with its newline."""
    records: list[bytes] = []
    start = end = 0
    open_quote = False
    while (newline := content.find(b"\n", end)) >= 0:
        open_quote ^= content.count(b'"', end, newline) % 2 == 1
        end = newline + 1
        if not open_quote:
            records.append(content[start:end])
            start = end
    return records


def _split(record: bytes) -> list[str]:
    """The fields of a row: only the last can hold a comma, a quote or a newline."""
    fields = record.decode()[:-1].split(",", len(COLUMNS) - 1)
    if len(fields) != len(COLUMNS):
        raise ValueError(f"{len(fields)} fields instead of {len(COLUMNS)}")
    sample = fields[-1]
    if sample:
        if len(sample) < 2 or sample[0] != '"' or sample[-1] != '"':
            raise ValueError("a sample without quotes")
        fields[-1] = sample[1:-1].replace('""', '"')
    return fields


def _decode_row(fields: list[str]) -> MetricsRow:
    named = dict(zip(COLUMNS, fields, strict=True))
    step = int(named["step"])
    if not 0 <= step <= LAST_STEP:
        raise ValueError("the number of a step that cannot be")
    return MetricsRow(
        step=step,
        elapsed_seconds=float(named["elapsed_seconds"]),
        learning_rate=float(named["learning_rate"]),
        train_loss=float(named["train_loss"]),
        val_loss=float(named["val_loss"]) if named["val_loss"] else None,
        grad_norm=float(named["grad_norm"]),
        tokens_per_second=float(named["tokens_per_second"]),
        sample=named["sample"],
    )


def _exact(number: float | None) -> str:
    """The shortest text that reads back as the same float64; empty for None."""
    return "" if number is None else repr(float(number))
