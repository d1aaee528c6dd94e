"""Numba kernels: one forward/backward pair a file, trusting their input, allocating nothing.

Legend, used in every kernel (a loop index is its axis in lower case; a past position is u <= t):

    B  sequences in a micro-batch       V  vocabulary
    T  positions in a sequence          L  layers
    C  channels (n_embd)                S  shards of a global batch
    H  heads                            W  workers
    D  head dimension, C // H           P  parameters

Arguments come as outputs, saved values, inputs. A gradient is `d` + name. Forward overwrites its outputs;
backward adds to its outputs, without exception, so a residual needs no code in backward: `dx` already
holds the gradient of the skip. Whoever makes scratch zeroes it.

Kernels are generic over float32 (training) and float64 (gradient checks).
"""

# The version of what a run computes, down to the bits, saved with each checkpoint: raise it with every change
# after which the same config gives another order of the text, other masks or other roundings.
ARITHMETIC = 2
