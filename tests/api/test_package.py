import subprocess
import sys

import feste_dp

LIGHT = """
import sys
before = set(sys.modules)
import feste_dp
assert set(sys.modules) - before == {"feste_dp"}, set(sys.modules) - before
assert {"load", "new", "train", "resume", "Model"} <= set(dir(feste_dp))
from feste_dp.train import early_stop
import feste_dp.train.early_stop
assert feste_dp.UsageError.__module__ == "feste_dp.errors"
assert "numba" not in sys.modules and "numpy" not in sys.modules
assert feste_dp.train.__name__ == "train" and callable(feste_dp.train)
try:
    feste_dp.trian
except AttributeError as error:
    print(error)
"""


def test_importing_the_package_imports_nothing_else_and_train_is_the_function(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stderr, done.stdout) == ("", "module 'feste_dp' has no attribute 'trian'\n")
    assert list(tmp_path.iterdir()) == []


def test_every_name_that_is_offered_is_there():
    for name in feste_dp.__all__:
        assert getattr(feste_dp, name) is not None
