"""What a key that the schema does not have was probably meant to be."""

import difflib

from feste_dp.config.expectations import either
from feste_dp.config.schema import known_keys, sections

# Names that other trainers use, by the key each stands for here.
ALIASES = {
    "model.block_size": "seq_len seq_length sequence_length context_length max_seq_len n_ctx n_positions",
    "model.n_layer": "n_layers num_layers num_hidden_layers",
    "model.n_head": "n_heads num_heads num_attention_heads",
    "model.n_embd": "hidden_size d_model embed_dim n_embed embedding_size",
    "model.init": "init_from pretrained checkpoint resume_from",
    "model.n_inner": "intermediate_size ffn_dim d_ff mlp_width",
    "model.tie_embeddings": "tie_weights tie_word_embeddings weight_tying",
    "data.corpus": "dataset text path files",
    "data.val_fraction": "val_split validation_split",
    "train.steps": "epochs num_epochs num_steps max_steps max_iters iterations",
    "train.batch_size": "global_batch_size",
    "train.micro_batch": "micro_batch_size",
    "train.precision": "dtype",
    "optim.lr": "learning_rate max_lr",
    "optim.min_lr": "min_learning_rate",
    "optim.warmup_steps": "warmup warmup_iters",
    "optim.schedule": "lr_schedule lr_scheduler scheduler",
    "optim.beta1": "adam_beta1",
    "optim.beta2": "adam_beta2",
    "optim.eps": "epsilon adam_eps",
    "optim.weight_decay": "wd",
    "optim.clip_norm": "grad_clip clip max_grad_norm",
    "eval.every": "eval_every eval_interval",
    "eval.batches": "eval_iters eval_batches",
    "eval.patience": "early_stopping early_stop",
    "sample.tokens": "max_new_tokens max_tokens",
    "checkpoint.every": "save_every save_interval",
    "run.workers": "num_workers n_workers",
    "run.dir": "out_dir output_dir",
    "run.step_timeout_s": "timeout step_timeout",
    "run.trackers": "tracker logger loggers report_to",
    "run.wandb_project": "project project_name",
    "run.wandb_tags": "tags",
}
SECTION_ALIASES = {"optimizer": "optim", "training": "train", "validation": "eval", "dataset": "data"}


def describe_unknown(path: str) -> str:
    """What to say of a key, or of the name of a section, that the schema does not have."""
    section, dot, key = path.partition(".") if "." in path else ("", "", path)
    if path in known_keys():
        return f"unknown key; write `{key}:` below `{section}:`"
    known_sections = list(sections())
    names: dict[str, list[str]] = {}
    for known in known_keys():
        for name in [known.split(".")[1], *ALIASES.get(known, "").split()]:
            names.setdefault(name, []).append(known)
    word = key.lower().replace("-", "_")
    if not dot and word in SECTION_ALIASES:
        found = [SECTION_ALIASES[word]]
    elif word in names:
        found = names[word]
    elif not dot and difflib.get_close_matches(word, known_sections, n=1):
        found = difflib.get_close_matches(word, known_sections, n=1)
    else:
        own = [name for name, keys in names.items() if any(known.startswith(f"{section}.") for known in keys)]
        near = difflib.get_close_matches(word, own, n=1) or difflib.get_close_matches(
            word, names, n=1, cutoff=0.7
        )
        found = names[near[0]] if near else []
    found = [known for known in found if known.startswith(f"{section}.")] or found
    if found:
        return f"unknown key; did you mean {either(found)}?"
    here = sections()[section].model_fields if section in known_sections else known_sections
    return f"unknown key; known here: {', '.join(here)}"
