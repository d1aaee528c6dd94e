"""Where the threads of one process wait for each other between two products.

The hand-over between two threads of Python takes 10 to 20 us, one here 0.2: a token of twelve layers has 60
of them. Who has looked for longer than a product takes lets the core go, and sleeps: on cores that others use
too, the thread that is waited for would not get one otherwise.
"""

from numba import types

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.vector.registers import address_of
from feste_dp.kernels.vector.shared_words import load_shared_word, store_shared_word, yield_core

WORDS_OF_A_LINE = 8
_LOOKS_BETWEEN_YIELDS = 200
_YIELDS_BEFORE_SLEEP = 50  # some 100 us
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
            if looks % _LOOKS_BETWEEN_YIELDS == 0:
                if looks < _LOOKS_BETWEEN_YIELDS * _YIELDS_BEFORE_SLEEP:
                    yield_core()
                else:
                    _usleep(_SLEEP_US)


@kernel
def share(count, step, part, parts):
    """First and last + 1 of `count` things that fall to a part, in multiples of `step`."""
    steps = (count + step - 1) // step
    return min(count, steps * part // parts * step), min(count, steps * (part + 1) // parts * step)
