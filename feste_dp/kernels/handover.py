"""The word by which one process hands another something that lies in memory both can see.

A place to hand over is a word that is AWAY (its owner sleeps), LISTENING (its owner will look at it before
it sleeps) or FULL (something was put there). The owner goes from LISTENING to AWAY, the other side from
LISTENING to FULL, each by an exchange that fails where the other was faster.
"""

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.vector.registers import address_of
from feste_dp.kernels.vector.shared_words import (
    exchange_shared_word,
    load_shared_word,
    store_shared_word,
    yield_core,
)

AWAY, LISTENING, FULL = 0, 1, 2
_LOOKS_BETWEEN_YIELDS = 50


@kernel
def look(word, rounds):
    """Whether something is there, after looking `rounds` times for about half a microsecond.

    Yields the core between the looks, so that whoever is to put something there can run on it.

    word   (1,) int64
    """
    address = address_of(word)
    for _ in range(rounds):
        for _ in range(_LOOKS_BETWEEN_YIELDS):
            if load_shared_word(address) == FULL:
                return True
        yield_core()
    return False


@kernel
def listen(word):
    """The owner: from here on it will look."""
    store_shared_word(address_of(word), LISTENING)


@kernel
def go_away(word):
    """The owner, before it sleeps; False where something was put there meanwhile."""
    return exchange_shared_word(address_of(word), LISTENING, AWAY)


@kernel
def is_listening(word):
    return load_shared_word(address_of(word)) == LISTENING


@kernel
def is_full(word):
    """Whether something is there, without waiting."""
    return load_shared_word(address_of(word)) == FULL


@kernel
def hand_over(word):
    """The other side: make a LISTENING word FULL; False where its owner has gone away meanwhile."""
    return exchange_shared_word(address_of(word), LISTENING, FULL)
