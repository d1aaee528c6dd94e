"""feste-dp: multiprocess data-parallel training of GPT-2-class language models on CPUs.

`load`, `new`, `train` and `resume` are described in docs/python.md. Importing this imports nothing else: a
name is loaded when it is first used. Types are in __init__.pyi.
"""

import sys

__version__ = "0.1.0"

_WHERE = {
    "Model": "feste_dp.api.model",
    "RunError": "feste_dp.errors",
    "Step": "feste_dp.api.training",
    "Training": "feste_dp.api.training",
    "UsageError": "feste_dp.errors",
    "load": "feste_dp.api.loading",
    "new": "feste_dp.api.loading",
    "resume": "feste_dp.api.training",
    "train": "feste_dp.api.training",
}

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> object:
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})


class _Package(type(sys)):  # type: ignore[misc]
    """A package whose `train` stays the function: the import system sets a package that is imported, as
    feste_dp.train is, as an attribute of the one that it lies in."""

    @property
    def train(self) -> object:
        return __getattr__("train")

    @train.setter
    def train(self, package: object) -> None:
        pass


sys.modules[__name__].__class__ = _Package
