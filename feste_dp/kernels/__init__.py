"""Numba kernels: one forward/backward pair a file, trusting their input, allocating nothing.

Legend, used in every kernel (a loop index is its axis in lower case; a past position is u <= t):

    B  sequences in a micro-batch       V  vocabulary
    T  positions in a sequence          L  layers
    C  channels (n_embd)                S  shards of a global batch
    H  heads                            W  workers
    D  head dimension, C // H           P  parameters

Arguments come as outputs, saved values, inputs. A gradient is `d` + name. Forward overwrites its outputs.
Backward overwrites the gradient of an activation that has one user, and adds where there is another: the
layer norm to `dx`, which holds the gradient of the skip already, so a residual needs no code. Gradients of
biases, norms and tables are added to; those of the linear layers' weights are overwritten unless
`accumulate`. Each kernel's docstring says which. Whoever makes scratch zeroes it.

Kernels take float32 (training) and float64 (gradient checks). The float64 path is another one where float32
has vector code of its own: matrix products, attention, sums over a row and the exponential are there plain
definitions. So finite differences check the formulas and how they fit together; that the vector code computes
the same is checked against these definitions and against PyTorch (tests/kernels, tests/model).
"""

# The version of what a run computes, down to the bits, saved with each checkpoint: raise it with every change
# after which the same config gives another order of the text, other masks or other roundings.
ARITHMETIC = 3
