"""Tokens that others change in place while they are read."""

import os

import numpy as np
import pytest

from feste_dp.data.token_guard import TokenGuard
from feste_dp.data.tokenizer import train_tokenizer
from feste_dp.data.tokens import TOKENS_FILE, Source, hold_tokens, write_token_files
from feste_dp.errors import RunError


@pytest.fixture
def folder(tmp_path):
    tokenizer = train_tokenizer(["every byte is a token\n"], 256)
    parts = (np.arange(200, dtype=np.uint32), np.arange(50, dtype=np.uint32))
    write_token_files(tmp_path, tokenizer, *parts, 200, 50, [Source(name="x", bytes=250, sha256="0" * 64)])
    return tmp_path


@pytest.fixture
def guard(folder):
    held = hold_tokens(folder)
    yield TokenGuard(held)
    os.close(held.fd)


def test_tokens_that_are_left_alone_removed_or_replaced_are_as_they_were(folder, guard):
    guard.check()
    path = folder / TOKENS_FILE
    os.utime(path, ns=(1, 1))
    path.chmod(0o600)
    guard.check()
    path.unlink()
    path.write_bytes(b"others")
    guard.check()


@pytest.mark.parametrize("size", [0, 250, 498])
def test_a_file_that_is_cut_is_named_with_what_is_left(folder, guard, size):
    os.truncate(folder / TOKENS_FILE, size)
    for _ in range(2):
        with pytest.raises(RunError, match=f"{TOKENS_FILE} was cut .*: {size} of its 500 bytes are left"):
            guard.check()


def test_other_tokens_in_the_file_are_noticed_and_more_of_them_do_not_matter(folder, guard):
    path = folder / TOKENS_FILE
    with path.open("ab") as file:
        file.write(b"more")
    guard.check()
    with path.open("r+b") as file:
        file.write(b"others")
    os.utime(path, ns=(1, 1))
    with pytest.raises(RunError, match="was overwritten while the run trains"):
        guard.check()
