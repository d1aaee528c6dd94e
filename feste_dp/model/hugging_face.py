"""Weights as Hugging Face's GPT-2 has them: config.json and safetensors, read without trust, and written.

The list of names exists once for both ways. Linear weights are (in, out) there as here (its Conv1D): tensors
are copied as they are. A pickle (.bin) is never opened.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from feste_dp.config.schema import ModelConfig
from feste_dp.errors import UsageError
from feste_dp.files.safetensors_file import StoredTensor, read_tensor, stored_tensors, write_tensors
from feste_dp.files.untrusted_json import read_object
from feste_dp.machine.limits import available_memory
from feste_dp.model.parameters import layout, parameter_count, view_params

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLES = (
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.bin",
    "tf_model.h5",
    "flax_model.msgpack",
)
MAX_JSON_BYTES, MAX_JSON_ITEMS = 2**22, 100_000
LAYER_NORM_EPSILON = 1e-5

# By the names of model/parameters.py; {} is the layer. transformers puts PREFIX before all but lm_head.
NAMES = {
    "wte": "wte.weight",
    "wpe": "wpe.weight",
    "attn_qkv_w": "h.{}.attn.c_attn.weight",
    "attn_qkv_b": "h.{}.attn.c_attn.bias",
    "attn_proj_w": "h.{}.attn.c_proj.weight",
    "attn_proj_b": "h.{}.attn.c_proj.bias",
    "mlp_fc_w": "h.{}.mlp.c_fc.weight",
    "mlp_fc_b": "h.{}.mlp.c_fc.bias",
    "mlp_proj_w": "h.{}.mlp.c_proj.weight",
    "mlp_proj_b": "h.{}.mlp.c_proj.bias",
    "ln_1_w": "h.{}.ln_1.weight",
    "ln_1_b": "h.{}.ln_1.bias",
    "ln_2_w": "h.{}.ln_2.weight",
    "ln_2_b": "h.{}.ln_2.bias",
    "ln_f_w": "ln_f.weight",
    "ln_f_b": "ln_f.bias",
    "lm_head_w": "lm_head.weight",
}
PREFIX = "transformer."
# Buffers of the causal mask, which old versions stored with the weights.
MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")

GELU_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
# What must have one value, by its name and that of GPT2Config where a file is silent.
FIXED = {
    "model_type": (("gpt2",), None),
    "activation_function": (GELU_TANH, "gelu_new"),
    "layer_norm_epsilon": ((LAYER_NORM_EPSILON,), LAYER_NORM_EPSILON),
    "scale_attn_weights": ((True,), True),
    "scale_attn_by_inverse_layer_idx": ((False,), False),
    "add_cross_attention": ((False,), False),
    "is_encoder_decoder": ((False,), False),
    "pruned_heads": (({}, None), None),
    "quantization_config": ((None,), None),
}
SIZES = {
    "vocab_size": ("vocab_size", 50257),
    "n_positions": ("block_size", 1024),
    "n_layer": ("n_layer", 12),
    "n_head": ("n_head", 12),
    "n_embd": ("n_embd", 768),
}
# What changes no logit: for training, generation, other heads, other programs.
HARMLESS = {
    *("architectures", "attn_pdrop", "embd_pdrop", "resid_pdrop", "initializer_range", "n_inner", "n_ctx"),
    *("tie_word_embeddings", "reorder_and_upcast_attn", "use_cache", "transformers_version", "torch_dtype"),
    *("dtype", "gradient_checkpointing", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id"),
    *("decoder_start_token_id", "task_specific_params", "finetuning_task", "id2label", "label2id"),
    *("num_labels", "problem_type", "output_past", "output_hidden_states", "output_attentions"),
    *("return_dict", "use_bfloat16", "tf_legacy_loss", "torchscript", "tokenizer_class", "prefix"),
    *("chunk_size_feed_forward", "is_decoder", "cross_attention_hidden_size", "tie_encoder_decoder"),
    *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups"),
    *("diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty"),
    *("length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids"),
    *("num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id"),
    *("forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty"),
    *("suppress_tokens", "begin_suppress_tokens", "model_name", "name_or_path", "loss_type", "vocab_pad"),
}


@dataclass(frozen=True)
class StoredModel:
    """A GPT-2 in a folder: its shape, its settings, and where its tensors lie."""

    folder: Path
    config: ModelConfig
    settings: Mapping[str, Any]
    """config.json"""
    tensors: Mapping[str, StoredTensor]
    """By the names without PREFIX"""


def is_hugging_face(folder: Path) -> bool:
    """Whether the folder looks like such a model, readable or not."""
    return (folder / CONFIG_FILE).is_file()


def open_model(folder: Path) -> StoredModel:
    """The model in the folder, its tensors all there and of the right shapes; nothing large is read.

    UsageError names the option, the file or the tensor that does not do.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no directory: name one with {CONFIG_FILE} and {WEIGHTS_FILE}")
    settings = read_object(folder / CONFIG_FILE, MAX_JSON_BYTES, MAX_JSON_ITEMS)
    config = _shape_of(settings, folder / CONFIG_FILE)
    tensors = _checked_tensors(folder, config)
    return StoredModel(folder, config, settings, tensors)


def read_weights(model: StoredModel) -> NDArray[np.float32]:
    """The flat buffer (P,) of model/parameters.py. UsageError: too little memory, numbers that are not
    finite, a head of a tied model that is not the embedding."""
    size, available = 4 * parameter_count(model.config), available_memory()
    if size > available:
        raise UsageError(
            f"{model.folder}: its weights take {size / 2**20:,.0f} MiB of memory, "
            f"{available / 2**20:,.0f} MiB are available"
        )
    flat = np.empty(parameter_count(model.config), np.float32)
    for name, view in named_tensors(flat, model.config):
        read_tensor(model.tensors[name], view)
    head = model.tensors.get(NAMES["lm_head_w"])
    if model.config.tie_embeddings and head is not None:
        wte = view_params(flat, model.config).wte
        other = np.empty_like(wte)
        read_tensor(head, other)
        if not np.array_equal(wte, other):
            raise UsageError(
                f"{head.path}: lm_head.weight is not wte.weight, though tie_word_embeddings is true: "
                f"set it to false in {CONFIG_FILE}"
            )
    return flat


def write_weights(folder: Path, flat: NDArray[np.float32], cfg: ModelConfig) -> None:
    """model.safetensors in an existing folder. Raises OSError."""
    tensors = (
        (name if name == NAMES["lm_head_w"] else PREFIX + name, view)
        for name, view in named_tensors(flat, cfg)
    )
    write_tensors(folder / WEIGHTS_FILE, tensors)


def settings_for(cfg: ModelConfig, end_of_text: int | None) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{name: getattr(cfg, key) for name, (key, _) in SIZES.items()},
        "n_inner": cfg.n_inner or None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "resid_pdrop": cfg.dropout,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": cfg.tie_embeddings,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "use_cache": True,
    }


def named_tensors(flat: NDArray[Any], cfg: ModelConfig) -> Iterator[tuple[str, NDArray[Any]]]:
    """Views of the flat buffer by the names of the files, layer by layer, without PREFIX."""
    for tensor in layout(cfg):
        view = flat[tensor.start : tensor.stop].reshape(tensor.shape)
        if "{}" not in NAMES[tensor.name]:
            yield NAMES[tensor.name], view
        else:
            yield from ((NAMES[tensor.name].format(layer), view[layer]) for layer in range(cfg.n_layer))


def _shape_of(settings: Mapping[str, Any], path: Path) -> ModelConfig:
    for name, (fitting, default) in FIXED.items():
        value = settings.get(name, default)
        if not any(value == each and type(value) is type(each) for each in fitting):
            raise UsageError(
                f"{path}: {name} is {_shown(value)}: only {_shown(fitting[0])} can be read, "
                "for the model here computes no other"
            )
    for name, value in settings.items():
        known = (
            name in FIXED or name in SIZES or name in HARMLESS or name.startswith("_") or "summary" in name
        )
        if not known and value not in (None, False):
            raise UsageError(
                f"{path}: {_shown(name)} is {_shown(value)}: an option that is not known here: remove it"
            )
    tied = settings.get("tie_word_embeddings", True)
    dropout, inner = settings.get("resid_pdrop", 0.1), settings.get("n_inner")
    fields = {key: settings.get(name, default) for name, (key, default) in SIZES.items()}
    if inner is not None and (type(inner) is not int or inner < 1):
        raise UsageError(f"{path}: n_inner is {_shown(inner)}: it is null or a number from 1 on")
    own_width = 0 if inner is None or inner == 4 * _or_zero(fields["n_embd"]) else inner
    try:
        config = ModelConfig(**fields, dropout=dropout, tie_embeddings=tied, n_inner=own_width)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = str(first["loc"][0])
        names = {key: name for name, (key, _) in SIZES.items()}
        names |= {"dropout": "resid_pdrop", "tie_embeddings": "tie_word_embeddings"}
        raise UsageError(f"{path}: {names.get(key, key)}: {first['msg']}") from None
    if config.n_embd % config.n_head:
        raise UsageError(f"{path}: n_head {config.n_head} does not divide n_embd {config.n_embd}")
    return config


def _checked_tensors(folder: Path, config: ModelConfig) -> dict[str, StoredTensor]:
    found: dict[str, StoredTensor] = {}
    for name, tensor in _all_tensors(folder).items():
        plain = name.removeprefix(PREFIX)
        if not MASK.fullmatch(plain):
            if plain in found:
                raise UsageError(f"{tensor.path}: {_shown(plain)} is there twice, with and without {PREFIX}")
            found[plain] = tensor
    shapes = {name: view.shape for name, view in named_tensors(_no_numbers(config), config)}
    for name, shape in shapes.items():
        if name not in found:
            raise UsageError(f"{folder}: the tensor {name} is missing in its safetensors")
        if found[name].shape != shape:
            raise UsageError(
                f"{found[name].path}: {name} has the shape {list(found[name].shape)} "
                f"where {CONFIG_FILE} says {list(shape)}"
            )
    allowed = shapes.keys() | ({NAMES["lm_head_w"]} if config.tie_embeddings else set())
    for name in found.keys() - allowed:
        raise UsageError(f"{found[name].path}: the tensor {_shown(name)} is none of a GPT-2 of this shape")
    head = found.get(NAMES["lm_head_w"])
    if head is not None and head.shape != (config.vocab_size, config.n_embd):
        raise UsageError(f"{head.path}: lm_head.weight has the shape {list(head.shape)}")
    return found


def _no_numbers(config: ModelConfig) -> NDArray[Any]:
    """As large as the flat buffer, of one number: shapes without memory."""
    return np.broadcast_to(np.zeros((), np.int8), (parameter_count(config),))


def _all_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Of the one file, or of all that the index names."""
    if (folder / WEIGHTS_FILE).exists():
        return stored_tensors(folder / WEIGHTS_FILE)
    if (folder / INDEX_FILE).exists():
        return _sharded_tensors(folder)
    for name in PICKLES:
        if (folder / name).exists():
            raise UsageError(
                f"{folder / name} may run any program when it is read: convert it where you trust it, with: "
                f"{_conversion(folder)}"
            )
    raise UsageError(f"{folder} has no {WEIGHTS_FILE}")


def _conversion(folder: Path) -> str:
    source, target = str(folder), f"{folder}-safetensors"
    return (
        'python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
        f'[C.from_pretrained({source!r}).save_pretrained({target!r}) for C in (M, T)]"'
    )


def _sharded_tensors(folder: Path) -> dict[str, StoredTensor]:
    index = folder / INDEX_FILE
    places = read_object(index, MAX_JSON_BYTES, MAX_JSON_ITEMS).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise UsageError(f"{index}: weight_map is no table of files")
    files = sorted(set(places.values()))
    for name in files:
        if (
            not name.endswith(".safetensors")
            or "/" in name
            or "\\" in name
            or not (name.isascii() and name.isprintable() and len(name) < 256)
        ):
            raise UsageError(
                f"{index}: weight_map names {_shown(name)}, which is no safetensors file of its folder"
            )
    in_files = {name: stored_tensors(folder / name) for name in files}
    for tensor, file in places.items():
        if tensor not in in_files[file]:
            raise UsageError(
                f"{folder / file}: the tensor {_shown(tensor)} is missing, which {INDEX_FILE} promises"
            )
    return {tensor: in_files[file][tensor] for tensor, file in places.items()}


def _or_zero(value: Any) -> int:
    return value if type(value) is int else 0


def _shown(value: Any) -> str:
    return ascii(value)[:80]
