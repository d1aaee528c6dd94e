"""The whole model against finite differences and PyTorch."""
