"""What a checkpoint says of its run, believed where it agrees with the program and with the files beside it.

checkpoint/ knows that a manifest is consistent in itself; here it meets config, model and tokenizer.
"""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from feste_dp.checkpoint.format import Manifest
from feste_dp.config.schema import Config
from feste_dp.data.tokenizer import ByteTokenizer, load_tokenizer
from feste_dp.data.tokenizer_file import MAX_TOKENIZER_BYTES
from feste_dp.errors import UsageError
from feste_dp.files.reading import read_plain
from feste_dp.files.untrusted_json import first_problem
from feste_dp.kernels import ARITHMETIC
from feste_dp.machine.limits import available_memory
from feste_dp.model.parameters import layout
from feste_dp.wording import command

_SAME_ORDER = 2
"""The first version whose order of the text is today's."""


def saved_config(manifest: Manifest, checkpoint: Path) -> Config:
    """The config in the manifest. UsageError unless it is one, and its model has the manifest's tensors."""
    try:
        config = Config.model_validate(manifest.config)
    except ValidationError as error:
        reason = first_problem(error)
        raise UsageError(f"{checkpoint}: its config is not one of this program: {reason}") from None
    if not has_tensors_of(manifest, config):
        raise UsageError(f"{checkpoint}: its tensors are not those of its config's model")
    return config


def has_tensors_of(manifest: Manifest, config: Config) -> bool:
    """Whether a checkpoint has the model of the config: without its tensors built, for a config may ask for
    more than there is memory."""
    found = [(tensor.name, tensor.shape, tensor.start, tensor.stop) for tensor in manifest.layout]
    return found == layout(config.model)


def older_arithmetic(manifest: Manifest) -> str | None:
    """What to say where the steps after a checkpoint are computed otherwise than those before it were."""
    if manifest.arithmetic == ARITHMETIC:
        return None
    what = "the order of the text and the last bits" if manifest.arithmetic < _SAME_ORDER else "the last bits"
    return (
        f"arithmetic: {manifest.arithmetic} -> {ARITHMETIC}, another version of feste-dp: up to step "
        f"{manifest.step} {what} are the other's, from here on this one's"
    )


def check_memory_for(manifest: Manifest, checkpoint: Path) -> None:
    """UsageError when the arrays of the checkpoint do not fit into the memory that is left now."""
    needed, available = manifest.array_bytes, available_memory()
    if needed > available:
        raise UsageError(
            f"{checkpoint}: needs {needed / 2**20:,.0f} MiB of memory, "
            f"{available / 2**20:,.0f} MiB are available"
        )


def saved_tokenizer(path: Path, manifest: Manifest, config: Config) -> ByteTokenizer:
    """The tokenizer of the run. UsageError unless it is the one that the checkpoint was trained with."""
    if not is_tokenizer_of(path, manifest.tokenizer_sha256):
        raise UsageError(
            f"{path} is damaged or another one: its SHA-256 is not the one in the checkpoint "
            f"({command('resume', path.parent)} puts it back)"
        )
    tokenizer = load_tokenizer(path)
    if tokenizer.vocab_size > config.model.vocab_size:  # a model may have rows that no token uses
        raise UsageError(
            f"{path} has {tokenizer.vocab_size} tokens "
            f"where the checkpoint's model has {config.model.vocab_size}"
        )
    return tokenizer


def is_tokenizer_of(path: Path, sha256: str) -> bool:
    """Whether the file is there and has this hash."""
    try:
        return hashlib.sha256(read_plain(path, MAX_TOKENIZER_BYTES)).hexdigest() == sha256
    except OSError:
        return False
