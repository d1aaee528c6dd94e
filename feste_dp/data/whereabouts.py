"""Where the text of a run may lie now. A place is no identity: whoever asks compares fingerprints."""

import contextlib
import itertools
import os
from pathlib import Path

from feste_dp.data.tokens import META_FILE, TokenData, open_token_data
from feste_dp.errors import UsageError

Corpus = str | list[str]


def absolute_corpus(corpus: Corpus) -> Corpus:
    """The paths, so that they are found from any other directory. One that is not UTF-8 has no place in a
    config: then they stay as they were given, which can be read back."""
    paths = [str(Path(path).absolute()) for path in ([corpus] if isinstance(corpus, str) else corpus)]
    try:
        "".join(paths).encode()
    except UnicodeEncodeError:
        return corpus
    return paths[0] if isinstance(corpus, str) else paths


def is_there(corpus: Corpus) -> bool:
    """Whether something lies at every path."""
    return all(os.path.lexists(path) for path in ([corpus] if isinstance(corpus, str) else corpus))


def corpus_beside(corpus: Corpus, folder: Path) -> Corpus | None:
    """The paths where they would be had they been moved together with `folder`; None where nothing is there.

    From somewhere above `folder`, a path that was moved with it still ends as it did: the longest end that is
    found above `folder`, nearest first, is taken for each path.
    """
    above = list(
        dict.fromkeys(itertools.chain(*((at, *at.parents) for at in (folder.absolute(), folder.resolve()))))
    )
    found = [_beside(path, above) for path in ([corpus] if isinstance(corpus, str) else corpus)]
    there = [path for path in found if path is not None]
    if len(there) < len(found):
        return None
    return there[0] if isinstance(corpus, str) else there


def _beside(path: str, above: list[Path]) -> str | None:
    parts = Path(path).parts[1:] if Path(path).is_absolute() else Path(path).parts
    for start in range(len(parts)):
        for folder in above:
            candidate = str(folder.joinpath(*parts[start:]))
            if candidate != path and os.path.lexists(candidate):
                return candidate
    return None


def cached_tokens(cache_root: Path, fingerprint: str, tokenizer_sha256: str) -> TokenData | None:
    """The prepared tokens in the cache that have these hashes, whatever text they were made of."""
    for meta in sorted(cache_root.glob(f"corpora/*/{META_FILE}")):
        with contextlib.suppress(UsageError):  # damaged: not what is looked for
            data = open_token_data(meta.parent)
            if (data.fingerprint, data.tokenizer_sha256) == (fingerprint, tokenizer_sha256):
                return open_token_data(meta.parent, verify=True)
    return None
