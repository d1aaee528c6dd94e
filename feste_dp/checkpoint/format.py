"""What a checkpoint is: the arrays, the manifest, and the manifest's encoding. Touches no disk.

manifest.json is one JSON object. Its last field is the SHA-256 of all bytes before that field, so that a
manifest vouches for itself as it vouches for the shard files.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feste_dp.checkpoint.shards import FLOAT_BYTES, HEADER_LIMIT_BYTES, shard_name
from feste_dp.errors import UsageError, on_one_line
from feste_dp.files.untrusted_json import first_problem, parse_object
from feste_dp.kernels import ARITHMETIC

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
MANIFEST_LIMIT_BYTES = 16 * 1024 * 1024
STEP_LIMIT = 10**12
PARAMETER_LIMIT = 2**40
FILE_LIMIT = 99
TENSOR_LIMIT = 100_000
STATE_LIMIT = 8  # arrays of an optimizer; its names fit into the header of a shard file
NESTING_LIMIT = 32
PLAIN_INTEGER_LIMIT = 2**64

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


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


_LIST = Field(strict=False)  # JSON has no tuples
Step = Annotated[int, Field(ge=0, lt=STEP_LIMIT)]
Element = Annotated[int, Field(ge=0, le=PARAMETER_LIMIT)]
Size = Annotated[int, Field(ge=1, le=PARAMETER_LIMIT)]
StateName = Annotated[str, Field(pattern=r"^[a-z_0-9]{1,32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
NumberInText = Annotated[str, Field(pattern=r"^(-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?|nan|-?inf)$")]


class TensorRange(_Strict):
    """A named tensor is elements [start, stop) of the flat buffer."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,128}$")]
    shape: Annotated[tuple[Size, ...], _LIST, Field(max_length=8)]
    start: Element
    stop: Element


class ShardFile(_Strict):
    """A file holds elements [start, stop) of every array."""

    name: str
    start: Element
    stop: Element
    size: Annotated[int, Field(ge=1, le=2 * PARAMETER_LIMIT * FLOAT_BYTES * (1 + STATE_LIMIT))]
    sha256: Sha256


class Unmeasured(_Strict):
    """A step whose validation and sample were given up or not yet done; whoever goes on from here does both
    first. What its row in metrics.csv says besides, as text: a loss may be NaN."""

    train_loss: NumberInText
    grad_norm: NumberInText
    learning_rate: NumberInText
    tokens_per_second: NumberInText


class TrainState(_Strict):
    """What the training loop has to remember besides the arrays. Times in seconds, losses in nats."""

    best_val_loss: float | None
    best_step: Step | None
    evals_since_best: Step
    val_loss: float | None  # at this very step, where it was measured
    elapsed_seconds: Annotated[float, Field(ge=0)]
    skipped_steps: Step
    unmeasured: Unmeasured | None = None  # in manifest.json only where it is not None


class ManifestFields(_Strict):
    """The part of the manifest that the caller of a save decides."""

    step: Step
    config: dict[str, Any]
    tokenizer_sha256: Sha256
    data_sha256: Sha256
    seed: Annotated[int, Field(ge=0, lt=2**64)]
    train: TrainState
    layout: Annotated[tuple[TensorRange, ...], _LIST, Field(min_length=1, max_length=TENSOR_LIMIT)]


class Manifest(ManifestFields):
    """All of manifest.json; `decode_manifest` gives only consistent ones."""

    format_version: Annotated[int, Field(ge=FORMAT_VERSION, le=FORMAT_VERSION)]
    feste_dp_version: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+!-]{1,64}$")]
    files: Annotated[tuple[ShardFile, ...], _LIST, Field(min_length=1, max_length=FILE_LIMIT)]
    arithmetic: Annotated[int, Field(ge=1, le=2**31)] = 1
    """Under which version of order and rounding the next step was to be taken; 1 where it is not said."""
    state: Annotated[tuple[StateName, ...], _LIST, Field(max_length=STATE_LIMIT)] = STATE_OF_ADAMW
    """The names of the optimizer's arrays; in manifest.json only where they are others than AdamW's."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of all arrays, in the order in which a shard file has them."""
        return (PARAMS, *self.state)

    @property
    def bytes_per_parameter(self) -> int:
        """Of all arrays together."""
        return FLOAT_BYTES * len(self.tensors)

    @property
    def array_bytes(self) -> int:
        """The bytes of all arrays."""
        return self.parameter_count * self.bytes_per_parameter

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
    return Manifest(
        **{name: getattr(given, name) for name in ManifestFields.model_fields},
        format_version=FORMAT_VERSION,
        feste_dp_version=version,
        files=files,
        arithmetic=ARITHMETIC,
        state=tuple(tensors)[1:],
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of manifest.json. UsageError when they could not be read back as the same manifest."""
    content = manifest.model_dump(warnings=False)
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
    content = parse_object(data, source)
    del content["manifest_sha256"]
    version = content.get("format_version")
    if isinstance(version, int) and version != FORMAT_VERSION:  # other fields will be others, too
        shown = str(version)[:20]
        raise UsageError(f"{source}: format_version: is {shown}; this program reads format {FORMAT_VERSION}")
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise UsageError(f"{source}: {first_problem(error)}") from None
    for problem in _disagreements(manifest):
        raise UsageError(f"{source}: {on_one_line(problem)}")
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


def _disagreements(manifest: Manifest) -> Iterator[str]:
    """What no field shows alone, in words that begin with the name of one."""
    yield from _not_plain(manifest.config, "config", NESTING_LIMIT)
    train, layout, files = manifest.train, manifest.layout, manifest.files
    if (train.best_val_loss is None) != (train.best_step is None):
        yield "train.best_step: and best_val_loss must both be null or both be given"
    for name, steps in (("best_step", train.best_step), ("skipped_steps", train.skipped_steps)):
        if steps is not None and steps > manifest.step:
            yield f"train.{name}: is {steps}, the step is {manifest.step}"
    if len(set(manifest.tensors)) != len(manifest.tensors):
        yield "state: names an array twice"
    yield from _gaps("layout", layout)
    names: set[str] = set()
    for i, tensor in enumerate(layout):
        length, elements = tensor.stop - tensor.start, math.prod(tensor.shape)
        if tensor.name in names:
            yield f"layout[{i}].name: {tensor.name} is given twice"
        if elements != length:
            yield f"layout[{i}].shape: has {elements} elements where its range has {length}"
        names.add(tensor.name)
    yield from _gaps("files", files)
    for i, file in enumerate(files):
        length = file.stop - file.start
        if file.name != shard_name(i, len(files)):
            yield f"files[{i}].name: must be {shard_name(i, len(files))}"
        if not 8 < file.size - length * manifest.bytes_per_parameter <= 8 + HEADER_LIMIT_BYTES:
            yield f"files[{i}].size: {file.size} does not fit {length} parameters"
    if layout[-1].stop != files[-1].stop:
        yield f"files: hold {files[-1].stop} parameters where the layout has {layout[-1].stop}"


def _gaps(field: str, ranges: Sequence[TensorRange | ShardFile]) -> Iterator[str]:
    at = 0
    for i, each in enumerate(ranges):
        if each.start != at:
            yield f"{field}[{i}].start: is {each.start} where the one before ends at {at}"
        if each.stop <= each.start:
            yield f"{field}[{i}].stop: is {each.stop}, not after start {each.start}"
        at = each.stop


def _not_plain(value: object, field: str, depth: int) -> Iterator[str]:
    """What of a JSON value others could not read: nested too deep, no number."""
    if depth == 0:
        yield f"{field}: is nested too deep"
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _not_plain(item, f"{field}.{name}"[:100], depth - 1)
    elif isinstance(value, list):
        for item in value:
            yield from _not_plain(item, field, depth - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{field}: is not a finite number"
    elif isinstance(value, int) and abs(value) >= PLAIN_INTEGER_LIMIT:
        yield f"{field}: is an integer of {value.bit_length()} bits"
