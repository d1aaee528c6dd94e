"""Numba's own configuration file in the current folder is as without effect as its variables are
(cli/environment.py): with some settings it compiles other code, or none."""

import os
import sys
import warnings

CONFIG_FILE = ".numba_config.yaml"


def pass_over_numba_config() -> bool:
    """Whether there is such a file; then Numba is imported here, and does not read it now or later."""
    if "numba" in sys.modules or not os.path.isfile(CONFIG_FILE):  # noqa: PTH113
        return False
    yaml = sys.modules.get("yaml")
    sys.modules["yaml"] = None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "a Numba config file is found but" it cannot be read
            from numba.core import config
    finally:
        del sys.modules["yaml"]
        if yaml is not None:
            sys.modules["yaml"] = yaml
    config._config_fname = ""  # looked for again with each function that is compiled
    return True
