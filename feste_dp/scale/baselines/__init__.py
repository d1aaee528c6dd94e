"""What a study compares with: one process of our own kernels, and PyTorch, each in a process of its own."""
