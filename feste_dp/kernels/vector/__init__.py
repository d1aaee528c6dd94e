"""Vector code that Numba cannot express, written as LLVM vector IR: all that knows LLVM.

Addresses are integers, strides count elements of 4 bytes. The vector width follows the CPU: 16 float32 lanes
with AVX-512, 8 with AVX, 4 elsewhere (SSE, NEON).
"""
