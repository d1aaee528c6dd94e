"""A checkpoint of a run as a Hugging Face directory, which transformers and others load without a flag."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feste_dp import __version__
from feste_dp.checkpoint.format import PARAMS
from feste_dp.config.dumping import dump_config
from feste_dp.config.schema import RANDOM, Config
from feste_dp.data.corpus import SHAKESPEARE
from feste_dp.data.tokenizer import ByteTokenizer
from feste_dp.errors import UsageError
from feste_dp.files.whole_folder import check_is_new, put_folder
from feste_dp.json_text import json_text
from feste_dp.model.hugging_face import CONFIG_FILE, settings_for, write_weights
from feste_dp.model.parameters import parameter_count
from feste_dp.run.metrics import MetricsRow, read_metrics, with_perplexity
from feste_dp.run.token_data import NO_TEXT_SHA256
from feste_dp.run.trained_model import TrainedModel
from feste_dp.wording import counted

GENERATION_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
CARD_FILE = "README.md"


def export_to_hugging_face(model: TrainedModel, out: Path) -> None:
    """Writes the folder `out`, which appears whole or not at all. UsageError: it is not new, or cannot be
    written."""
    cfg, tokenizer = model.config.model, model.tokenizer
    texts = {
        CONFIG_FILE: _json(settings_for(cfg, tokenizer.end_of_text)),
        GENERATION_FILE: _json(generation_settings(tokenizer.end_of_text)),
        TOKENIZER_FILE: tokenizer.to_json(),
        TOKENIZER_CONFIG_FILE: _json(tokenizer_settings(tokenizer, cfg.block_size)),
        CARD_FILE: model_card(model, out).encode(),
    }

    def fill(folder: Path) -> None:
        for name, content in texts.items():
            with (folder / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        write_weights(folder, model.arrays[PARAMS], cfg)

    try:
        check_is_new(out)
        if not put_folder(out, fill):
            raise UsageError(f"output folder {out} was filled by another process: name a new one")
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from error


def generation_settings(end_of_text: int | None) -> dict[str, Any]:
    """The content of generation_config.json; without a token to pad with, transformers warns at each call."""
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end_of_text)
    return {"_from_model_config": False} | {name: each for name, each in ids.items() if each is not None}


def tokenizer_settings(tokenizer: ByteTokenizer, block_size: int) -> dict[str, Any]:
    """The content of tokenizer_config.json. The class does as tokenizer.json says; that of GPT-2 would split
    every text GPT-2's way."""
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if tokenizer.end_of_text is not None:
        name = tokenizer.inner.id_to_token(tokenizer.end_of_text)
        settings |= dict.fromkeys(("bos_token", "eos_token", "pad_token"), name)
    return settings


def model_card(model: TrainedModel, out: Path) -> str:
    """README.md: what was trained, on what, how far, how to use it."""
    cfg, tokenizer = model.config.model, model.tokenizer
    is_own = model.manifest.data_sha256 != NO_TEXT_SHA256
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [gpt2, feste-dp]",
        "---",
        "",
        f"# {out.name}",
        "",
        f"A GPT-2 of {parameter_count(cfg):,} parameters: {counted(cfg.n_layer, 'layer')}, "
        f"{counted(cfg.n_head, 'head')}, {cfg.n_embd} channels, context {cfg.block_size}, vocabulary "
        f"{cfg.vocab_size}. {'Trained' if is_own else 'Imported and exported'} with feste-dp {__version__}.",
        "",
        *(_training(model) if is_own else []),
        f"- tokenizer: byte-level BPE, {tokenizer.vocab_size:,} tokens"
        + ("" if tokenizer.end_of_text is None else ", one of them ends a text"),
        "",
        "## Use",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{out.name}")',
        f'model = AutoModelForCausalLM.from_pretrained("{out.name}")',
        'ids = tokenizer("To be", return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**ids, max_new_tokens=50, do_sample=True)[0]))",
        "```",
        *(_command(model.config) if is_own else []),
    ]
    return "\n".join(lines) + "\n"


def _training(model: TrainedModel) -> list[str]:
    """Text, steps and losses."""
    config, state, row = model.config, model.manifest.train, _row_at(model)
    init = config.model.init
    losses = {
        "training loss": None if row is None else with_perplexity(row.train_loss),
        "validation loss": None if state.val_loss is None else with_perplexity(state.val_loss),
        "best validation loss": _best(state.best_val_loss, state.best_step),
    }
    step = model.manifest.step
    return [
        *([] if init == RANDOM else [f"- started from the weights of `{_name_of(init)}`"]),
        f"- text: {_corpus(config)}",
        f"- checkpoint: step {step:,} of {config.train.steps:,}, "
        f"{step * config.tokens_per_step:,} tokens seen",
        *(f"- {name}: {said}" for name, said in losses.items() if said is not None),
    ]


def _command(config: Config) -> list[str]:
    """How to train it again."""
    return [
        "",
        "## Training",
        "",
        "    feste-dp launch --config config.yaml",
        "",
        "with this `config.yaml`:",
        "",
        "```yaml",
        dump_config(_without_places(config)).rstrip(),
        "```",
    ]


def _row_at(model: TrainedModel) -> MetricsRow | None:
    """What metrics.csv says of the step of the checkpoint."""
    with contextlib.suppress(UsageError):
        rows = read_metrics(model.path.parent.parent / "metrics.csv")
        return next((row for row in rows if row.step == model.manifest.step), None)
    return None


def _best(loss: float | None, step: int | None) -> str | None:
    return None if loss is None or step is None else f"{with_perplexity(loss)}, at step {step:,}"


def _corpus(config: Config) -> str:
    if config.data.corpus == SHAKESPEARE:
        return "the plays of Shakespeare"
    places = [config.data.corpus] if isinstance(config.data.corpus, str) else config.data.corpus
    names = ", ".join(f"`{_name_of(place)}`" for place in places[:5])
    return names + (f" and {len(places) - 5} more" if len(places) > 5 else "")


def _without_places(config: Config) -> Config:
    """Where the text, the weights and the run lay is nobody's business."""
    corpus = config.data.corpus
    shown = _name_of(corpus) if isinstance(corpus, str) else [_name_of(place) for place in corpus]
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"init": _name_of(config.model.init)}),
            "data": config.data.model_copy(update={"corpus": shown}),
            "run": config.run.model_copy(update={"dir": _name_of(config.run.dir)}),
        }
    )


def _name_of(place: str) -> str:
    return Path(place).name or place


def _json(content: Mapping[str, Any]) -> bytes:
    return json_text(content, indent=2).encode("ascii") + b"\n"
