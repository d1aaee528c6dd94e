"""What a checkpoint says of its run, believed where it agrees with the program and with the files beside it.

checkpoint/ knows that a manifest is consistent in itself; here it meets config, model and tokenizer.
"""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from feste_dp.checkpoint.format import Manifest, TensorRange
from feste_dp.config.schema import Config
from feste_dp.data.tokenizer import ByteTokenizer, load_tokenizer
from feste_dp.data.tokenizer_file import MAX_TOKENIZER_BYTES
from feste_dp.errors import UsageError
from feste_dp.files.reading import read_plain
from feste_dp.kernels import ARITHMETIC
from feste_dp.machine.limits import available_memory
from feste_dp.model.parameters import layout
from feste_dp.wording import command


def saved_config(manifest: Manifest, checkpoint: Path) -> Config:
    """The config in the manifest. UsageError unless it is one, and its model has the manifest's tensors."""
    try:
        config = Config.model_validate(manifest.config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = ascii(f"{key}: {first['msg']}"[:200])[1:-1]
        raise UsageError(f"{checkpoint}: its config is not one of this program: {reason}") from None
    # without its tensors built: a config may ask for more than there is memory
    if manifest.layout != tuple(TensorRange(*tensor) for tensor in layout(config.model)):
        raise UsageError(f"{checkpoint}: its tensors are not those of its config's model")
    return config


def older_arithmetic(manifest: Manifest) -> str | None:
    """What to say where the steps after a checkpoint are computed otherwise than those before it were."""
    if manifest.arithmetic == ARITHMETIC:
        return None
    return (
        f"arithmetic: {manifest.arithmetic} -> {ARITHMETIC}, another version of feste-dp: up to step "
        f"{manifest.step} the order of the text and the last bits are the other's, from here on this one's"
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
    if tokenizer.vocab_size != config.model.vocab_size:
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
