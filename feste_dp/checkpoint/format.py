"""What a checkpoint is: the arrays, the manifest, and the manifest's encoding. Touches no disk.

manifest.json is one JSON object. Its last field is the SHA-256 of all bytes before that field, so that a
manifest vouches for itself as it vouches for the shard files.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from feste_dp.checkpoint.schema import Fields, parse_json
from feste_dp.checkpoint.shards import FLOAT_BYTES, HEADER_LIMIT_BYTES, shard_name
from feste_dp.errors import UsageError
from feste_dp.kernels import ARITHMETIC

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
MANIFEST_LIMIT_BYTES = 16 * 1024 * 1024
STEP_LIMIT = 10**12
PARAMETER_LIMIT = 2**40
FILE_LIMIT = 99
TENSOR_LIMIT = 100_000
STATE_LIMIT = 8  # arrays of an optimizer; its names fit into the header of a shard file

PARAMS = "params"
STATE_OF_ADAMW = ("m", "v")
"""What the optimizer's arrays are where a manifest does not say."""

FloatArray = npt.NDArray[np.float32]


Arrays: TypeAlias = Mapping[str, FloatArray]
"""The numbers of a checkpoint, flat float32 arrays of P elements each: PARAMS, then the optimizer's state by
the names that the optimizer gives it."""


def check_arrays(arrays: Arrays) -> None:
    """Raises ValueError unless they can go into one checkpoint."""
    parameters = arrays[PARAMS].size
    for name, array in arrays.items():
        if array.ndim != 1 or array.dtype != np.dtype("<f4") or not array.flags.c_contiguous:
            raise ValueError(f"{name} must be one flat little-endian float32 array")
        if array.size != parameters or array.size == 0:
            raise ValueError(f"{name} has {array.size} elements and {PARAMS} has {parameters}")


@dataclass(frozen=True)
class TensorRange:
    """A named tensor is elements [start, stop) of the flat buffer."""

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class ShardFile:
    """A file holds elements [start, stop) of every array."""

    name: str
    start: int
    stop: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Unmeasured:
    """A step whose validation and sample were given up or not yet done; whoever goes on from here does both
    first. What its row in metrics.csv says besides, as text: a loss may be NaN."""

    train_loss: str
    grad_norm: str
    learning_rate: str
    tokens_per_second: str


@dataclass(frozen=True)
class TrainState:
    """What the training loop has to remember besides the arrays. Times in seconds, losses in nats."""

    best_val_loss: float | None
    best_step: int | None
    evals_since_best: int
    val_loss: float | None  # at this very step, where it was measured
    elapsed_seconds: float
    skipped_steps: int
    unmeasured: Unmeasured | None = None  # in manifest.json only where it is not None


@dataclass(frozen=True, kw_only=True)
class ManifestFields:
    """The part of the manifest that the caller of a save decides."""

    step: int
    config: dict[str, Any]
    tokenizer_sha256: str
    data_sha256: str
    seed: int
    train: TrainState
    layout: tuple[TensorRange, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest(ManifestFields):
    """All of manifest.json; `decode_manifest` gives only consistent ones."""

    format_version: int
    feste_dp_version: str
    files: tuple[ShardFile, ...]
    arithmetic: int = ARITHMETIC
    """Under which version of order and rounding the next step was to be taken; 1 where it is not said."""
    state: tuple[str, ...] = STATE_OF_ADAMW
    """The names of the optimizer's arrays; in manifest.json only where they are others than AdamW's."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of all arrays, in the order in which a shard file has them."""
        return (PARAMS, *self.state)

    @property
    def array_bytes(self) -> int:
        """The bytes of all arrays."""
        return self.parameter_count * FLOAT_BYTES * len(self.tensors)

    @property
    def parameter_count(self) -> int:
        return self.files[-1].stop

    @property
    def size_bytes(self) -> int:
        """The bytes of all shard files."""
        return sum(file.size for file in self.files)


def complete_manifest(
    given: ManifestFields, version: str, files: tuple[ShardFile, ...], tensors: Iterable[str]
) -> Manifest:
    """`tensors` are the names of all arrays, PARAMS first."""
    chosen = {field.name: getattr(given, field.name) for field in fields(ManifestFields)}
    return Manifest(
        **chosen,
        format_version=FORMAT_VERSION,
        feste_dp_version=version,
        files=files,
        state=tuple(tensors)[1:],
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of manifest.json. UsageError when they could not be read back as the same manifest."""
    content = asdict(manifest)
    if manifest.train.unmeasured is None:
        del content["train"]["unmeasured"]
    if manifest.state == STATE_OF_ADAMW:
        del content["state"]
    try:
        text = json.dumps(content, indent=1)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{MANIFEST_NAME}: cannot be written as JSON: {error}") from None
    body = text.removesuffix("\n}").encode("ascii")
    data = body + _seal(body)
    if decode_manifest(data) != manifest:
        raise UsageError(
            f"{MANIFEST_NAME}: holds values that JSON would change (tuples, keys that are not text)"
        )
    return data


def decode_manifest(data: bytes, source: str = MANIFEST_NAME) -> Manifest:
    """The manifest, checked in every field. UsageError naming `source` and the field otherwise."""
    if len(data) > MANIFEST_LIMIT_BYTES:
        raise UsageError(f"{source}: is larger than {MANIFEST_LIMIT_BYTES} bytes")
    seal_length = len(_seal(b""))
    body, seal = data[:-seal_length], data[-seal_length:]
    if seal != _seal(body):
        raise UsageError(f"{source}: does not match its own SHA-256: it is damaged")
    top = Fields(parse_json(data, source), source)
    top.take("manifest_sha256")
    version = top.integer("format_version", 0, 2**31)
    if version != FORMAT_VERSION:
        top.refuse("format_version", f"is {version}; this program reads format {FORMAT_VERSION}")
    step = top.integer("step", 0, STEP_LIMIT - 1)
    layout = _decode_layout(top)
    state = top.texts("state", r"[a-z_0-9]{1,32}", STATE_LIMIT) if top.has("state") else STATE_OF_ADAMW
    files = _decode_files(top, FLOAT_BYTES * (1 + len(state)))
    if layout[-1].stop != files[-1].stop:
        top.refuse("files", f"hold {files[-1].stop} parameters where the layout has {layout[-1].stop}")
    manifest = Manifest(
        format_version=version,
        arithmetic=top.integer("arithmetic", 1, 2**31) if top.has("arithmetic") else 1,
        feste_dp_version=top.text("feste_dp_version", r"[0-9A-Za-z.+!-]{1,64}", "a version"),
        step=step,
        config=top.plain("config"),
        tokenizer_sha256=_take_sha256(top, "tokenizer_sha256"),
        data_sha256=_take_sha256(top, "data_sha256"),
        seed=top.integer("seed", 0, 2**64 - 1),
        train=_decode_train_state(top.object("train"), step),
        layout=layout,
        files=files,
        state=state,
    )
    top.finish()
    return manifest


def step_directory_name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    """The step whose checkpoint has this directory name; None for any other name."""
    match = re.fullmatch(r"step-([0-9]{8,12})", name)
    if match is None or step_directory_name(int(match[1])) != name:
        return None
    return int(match[1])


def _seal(body: bytes) -> bytes:
    return b',\n "manifest_sha256": "' + hashlib.sha256(body).hexdigest().encode("ascii") + b'"\n}\n'


def _take_sha256(entry: Fields, name: str) -> str:
    return entry.text(name, r"[0-9a-f]{64}", "a SHA-256 in 64 hexadecimal digits")


def _decode_train_state(entry: Fields, step: int) -> TrainState:
    state = TrainState(
        best_val_loss=entry.number_or_null("best_val_loss"),
        best_step=entry.integer_or_null("best_step", 0, step),
        evals_since_best=entry.integer("evals_since_best", 0, STEP_LIMIT),
        val_loss=entry.number_or_null("val_loss"),
        elapsed_seconds=entry.number("elapsed_seconds", 0.0),
        skipped_steps=entry.integer("skipped_steps", 0, step),
        unmeasured=_decode_unmeasured(entry.object("unmeasured")) if entry.has("unmeasured") else None,
    )
    if (state.best_val_loss is None) != (state.best_step is None):
        entry.refuse("best_step", "and best_val_loss must both be null or both be given")
    entry.finish()
    return state


def _decode_unmeasured(entry: Fields) -> Unmeasured:
    numbers = [
        entry.text(field.name, r"-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?|nan|-?inf", "a number in text")
        for field in fields(Unmeasured)
    ]
    entry.finish()
    return Unmeasured(*numbers)


def _decode_layout(top: Fields) -> tuple[TensorRange, ...]:
    layout: list[TensorRange] = []
    names: set[str] = set()
    at = 0
    for entry in top.objects("layout", TENSOR_LIMIT):
        name = entry.text("name", r"[A-Za-z0-9_.]{1,128}", "a tensor name")
        if name in names:
            entry.refuse("name", f"{name!r} is given twice")
        names.add(name)
        shape = entry.integers("shape", 1, PARAMETER_LIMIT, most=8)
        start, stop = _take_range(entry, at)
        if math.prod(shape) != stop - start:
            entry.refuse("shape", f"has {math.prod(shape)} elements where its range has {stop - start}")
        entry.finish()
        layout.append(TensorRange(name, shape, start, stop))
        at = stop
    return tuple(layout)


def _decode_files(top: Fields, bytes_per_parameter: int) -> tuple[ShardFile, ...]:
    files: list[ShardFile] = []
    at = 0
    entries = list(top.objects("files", FILE_LIMIT))
    for i, entry in enumerate(entries):
        name = entry.text("name", r"shard-[0-9]{2}-of-[0-9]{2}\.safetensors", "a shard file's name")
        if name != shard_name(i, len(entries)):
            entry.refuse("name", f"{name!r} must be {shard_name(i, len(entries))!r}")
        start, stop = _take_range(entry, at)
        size = entry.integer("size", 1, 2 * PARAMETER_LIMIT * bytes_per_parameter)
        header_size = size - (stop - start) * bytes_per_parameter
        if not 8 < header_size <= 8 + HEADER_LIMIT_BYTES:
            entry.refuse("size", f"{size} does not fit {stop - start} parameters")
        files.append(ShardFile(name, start, stop, size, _take_sha256(entry, "sha256")))
        entry.finish()
        at = stop
    return tuple(files)


def _take_range(entry: Fields, at: int) -> tuple[int, int]:
    start = entry.integer("start", 0, PARAMETER_LIMIT)
    stop = entry.integer("stop", 0, PARAMETER_LIMIT)
    if start != at:
        entry.refuse("start", f"is {start} where the one before ends at {at}")
    if stop <= start:
        entry.refuse("stop", f"is {stop}, not after start {start}")
    return start, stop
