"""How a child of this program begins: with its parent's import path and its parent's copy of this package.

Run as a file by child_process.py: `python child_boot.py MODULE ARGUMENTS`; calls main() of the module.
"""

import os
import sys

PATH_VARIABLE = "FESTE_DP_IMPORT_PATH"


def main() -> None:
    path = bytes.fromhex(os.environ.pop(PATH_VARIABLE)).split(b"\0")
    # the parent's copy of the package, whatever else its path has under this name
    sys.path[:] = [os.path.abspath(f"{__file__}/../../..")]  # noqa: PTH100
    import feste_dp  # noqa: F401

    sys.path[:] = map(os.fsdecode, path)
    from importlib import import_module

    del sys.argv[0]
    sys.exit(import_module(sys.argv[0]).main())


if __name__ == "__main__":
    main()
