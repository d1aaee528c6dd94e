"""transformers 4 loads what is exported, too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
def test_the_version_before_loads_the_same_models_and_tokenizers(tmp_path):
    packages = tmp_path / "packages"
    wanted = ["transformers>=4.57,<5"]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages), *wanted]
    subprocess.run(install, check=True)
    tests = Path(__file__).with_name("test_exporting.py")
    program = (
        "import sys, transformers, pytest; assert transformers.__version__[0] == '4'; "
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    subprocess.run(
        [sys.executable, "-c", program, "-q", "-p", "no:cacheprovider", str(tests)],
        env=os.environ | {"PYTHONPATH": str(packages)},
        check=True,
    )
