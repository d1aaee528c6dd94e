"""Where the threads of one process wait for each other between two products.

The hand-over between two threads of Python takes 10 to 20 us, one here 0.2: a token of twelve layers has 60
of them. Nobody lets a core go for a wait as short as a product: where others want it too, it would be
back after milliseconds (gpt2_87m on such a machine: 30 tokens/s, without 94). Who has looked for longer
sleeps, for the one that is waited for may want that core.
"""

from numba import types

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.vector.registers import address_of
from feste_dp.kernels.vector.shared_words import load_shared_word, store_shared_word

WORDS_OF_A_LINE = 8
_LOOKS_BEFORE_SLEEP = 200_000  # some 0.3 ms
_SLEEP_US = 20
_usleep = types.ExternalFunction("usleep", types.int32(types.uint32))


@kernel
def meet(words, part):
    """Return when all parts have come; what each wrote before is seen by all after.

    words   (parts, WORDS_OF_A_LINE) int64, in column 0 how often each has come, at first all alike
    """
    parts = words.shape[0]
    if parts == 1:
        return
    own = address_of(words[part])
    times = load_shared_word(own) + 1
    store_shared_word(own, times)
    for other in range(parts):
        address, looks = address_of(words[other]), 0
        while load_shared_word(address) < times:
            looks += 1
            if looks > _LOOKS_BEFORE_SLEEP:
                _usleep(_SLEEP_US)


@kernel
def share(count, step, part, parts):
    """First and last + 1 of `count` things that fall to a part, in multiples of `step`."""
    steps = (count + step - 1) // step
    return min(count, steps * part // parts * step), min(count, steps * (part + 1) // parts * step)
