"""Which tokens belong to a run: the fingerprint in its checkpoints decides, its paths say where to look."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from feste_dp.checkpoint.format import Manifest
from feste_dp.config.schema import RANDOM, Config
from feste_dp.data.corpus import SHAKESPEARE
from feste_dp.data.preparation import Tell, prepare_for_run
from feste_dp.data.tokenizer import ByteTokenizer, load_tokenizer
from feste_dp.data.tokens import Source, TokenData
from feste_dp.data.whereabouts import Corpus, absolute_corpus, cached_tokens, corpus_beside, is_there
from feste_dp.errors import UsageError
from feste_dp.machine.limits import available_memory
from feste_dp.run.directory import RunDirectory
from feste_dp.wording import command

NO_TEXT_SHA256 = hashlib.sha256(b"").hexdigest()
"""In the manifest of an imported model, in place of the hash of its tokens."""


@dataclass(frozen=True)
class FoundTokens:
    """Token data of a run, and where its text lies now."""

    data: TokenData
    corpus: Corpus
    moved: str | None
    """One line where it does not lie where the run had it."""


def with_absolute_paths(config: Config) -> Config:
    """The config with paths that a resume from another directory still finds."""
    corpus, init = config.data.corpus, config.model.init
    if corpus != SHAKESPEARE:
        config = with_corpus(config, absolute_corpus(corpus))
    if init == RANDOM:
        return config
    place = absolute_corpus(init)
    return config.model_copy(update={"model": config.model.model_copy(update={"init": place})})


def with_corpus(config: Config, corpus: Corpus) -> Config:
    """The config with another text."""
    return config.model_copy(update={"data": config.data.model_copy(update={"corpus": corpus})})


def prepare_tokens(
    config: Config,
    cache_root: Path,
    tell: Tell = lambda line: None,
    tokenizer: ByteTokenizer | None = None,
) -> TokenData:
    """The tokens of the config's text, made and cached on first use, with the `tokenizer` that the run has
    already, or one that is trained. Raises UsageError."""
    return prepare_for_run(
        config.data.corpus,
        config.model.vocab_size,
        config.data.val_fraction,
        config.model.block_size,
        cache_root,
        available_memory(),
        tell,
        tokenizer,
    )


def find_tokens(
    config: Config,
    run: Path,
    known: Manifest | None,
    cache_root: Path,
    others: Sequence[Corpus] = (),
    asked: bool = False,
) -> FoundTokens:
    """The tokens of the run in the folder `run`, the same to the last one as those in `known`, a manifest.

    They are looked for where the config says, at `others`, beside the run as where it was moved together
    with its text, and, where there is no text at all, in the cache. With `asked`, the user has named the
    place, and no other will do. Raises UsageError that names what differs, or what is not there.
    """
    if known is not None and known.data_sha256 == NO_TEXT_SHA256:
        start = command("launch", "--config", "CONFIG", "--init-from", run)
        raise UsageError(
            f"{run} was imported and has no text of its own: start a new run from its weights, as with "
            f"{start}"
        )
    told = config.data.corpus
    tokenizer = _tokenizer_not_trained(config, run, known)
    if told == SHAKESPEARE:
        data = prepare_tokens(config, cache_root, tokenizer=tokenizer)
        if known is not None and not _is_of(data, known):
            raise UsageError(_difference(data, known, told, cache_root))
        return FoundTokens(data, told, None)
    places: list[Corpus] = [told]
    if not asked:
        places += others
        beside = [corpus_beside(corpus, run) for corpus in places]
        places += [corpus for corpus in beside if corpus is not None]
    refusal: UsageError | None = None
    any_text = False
    for corpus in [corpus for number, corpus in enumerate(places) if corpus not in places[:number]]:
        if not is_there(corpus):
            continue
        any_text = True
        try:
            data = prepare_tokens(with_corpus(config, corpus), cache_root, tokenizer=tokenizer)
        except UsageError as error:
            refusal = refusal or error
            continue
        if known is None or _is_of(data, known):
            moved = None if corpus == told else f"data.corpus: {shown_corpus(told)} -> {shown_corpus(corpus)}"
            return FoundTokens(data, corpus, moved)
        refusal = refusal or UsageError(_difference(data, known, corpus, cache_root))
    if not any_text and not asked and known is not None:
        cached = cached_tokens(cache_root, known.data_sha256, known.tokenizer_sha256)
        if cached is not None:
            return FoundTokens(
                cached,
                told,
                f"data.corpus: {shown_corpus(told)} is not there any more; its tokens are in the cache",
            )
    if refusal is None:
        missing = f"text {shown_corpus(told)} does not exist"
        if asked:
            raise UsageError(f"{missing}: check the name")
        raise UsageError(
            f"{missing}, there or beside the run, nor are its tokens in the cache {cache_root}: put it back, "
            "or resume with data.corpus set to where it is"
        )
    raise refusal


def _tokenizer_not_trained(config: Config, run: Path, known: Manifest | None) -> ByteTokenizer | None:
    """The run's own tokenizer where training one on its text would give another: it came with the weights, or
    an earlier version made it."""
    path = RunDirectory(run).tokenizer
    if config.model.init != RANDOM:
        return load_tokenizer(path)
    try:
        tokenizer = load_tokenizer(path)
    except UsageError:
        return None
    is_own = known is not None and hashlib.sha256(tokenizer.to_json()).hexdigest() == known.tokenizer_sha256
    return tokenizer.line_by_line() if is_own else None


def _is_of(data: TokenData, known: Manifest) -> bool:
    return (data.fingerprint, data.tokenizer_sha256) == (known.data_sha256, known.tokenizer_sha256)


def _difference(data: TokenData, known: Manifest, corpus: Corpus, cache_root: Path) -> str:
    """What differs: down to the files where the run's own tokens are still in the cache, else which hash."""
    reasons = []
    own = cached_tokens(cache_root, known.data_sha256, known.tokenizer_sha256)
    if own is not None:
        reasons = _different_sources(own.sources, data.sources)
    if not reasons:
        hashes = (
            ("tokenizer", data.tokenizer_sha256, known.tokenizer_sha256),
            ("tokens", data.fingerprint, known.data_sha256),
        )
        reasons = [
            f"{what} with SHA-256 {found[:8]}.., the run's have {wanted[:8]}.."
            for what, found, wanted in hashes
            if found != wanted
        ]
    return (
        f"the tokens of {shown_corpus(corpus)} are not those the run was trained on "
        f"({'; '.join(reasons[:3])}): restore the text, resume with data.corpus set to where it is, "
        "or start a new run"
    )


def _different_sources(own: Sequence[Source], found: Sequence[Source]) -> list[str]:
    if len(own) != len(found):
        return [f"{len(found)} text files, the run had {len(own)}"]
    pairs = [(was, now) for was, now in zip(own, found, strict=True) if was.sha256 != now.sha256]
    if {was.sha256 for was, _ in pairs} == {now.sha256 for _, now in pairs} and pairs:
        return ["the same text files in another order"]
    return [
        f"{now.name} has {now.bytes:,} bytes"
        + (f", the run's had {was.bytes:,}" if now.bytes != was.bytes else " but others")
        for was, now in pairs
    ]


def shown_corpus(corpus: Corpus) -> str:
    """The path; the first of many."""
    if isinstance(corpus, str):
        return corpus
    return corpus[0] if len(corpus) == 1 else f"{corpus[0]} and {len(corpus) - 1} more"
