"""The assembly for another kind of CPU, which is made here and not run: nothing is summed in another order,
and no product is joined to a sum."""

import re

import llvmlite.binding as llvm
import numba
import pytest
from numba import types

from feste_dp.kernels.sums import row_squares, row_sum

TRIPLE = "aarch64-unknown-linux-gnu"


@pytest.fixture(scope="module")
def machine() -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(TRIPLE).create_target_machine(cpu="neoverse-n1", opt=3)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (row_sum, (types.intp, types.intp)),
        (row_squares, (types.intp, types.intp, types.float32)),
    ],
)
def test_a_sum_is_its_definition_in_registers_of_four(machine, function, arguments):
    compiled = numba.njit(error_model="numpy")(function.py_func)  # anew: code from the cache has no text
    compiled.compile(arguments)
    code = compiled.inspect_llvm(arguments)
    assert not re.search(r"\b(reassoc|contract|fast)\b|reduce\.fadd", code)
    code = re.sub(r'^target (triple|datalayout) = .*\n|"target-(cpu|features)"="[^"]*"', "", code, flags=re.M)
    module = llvm.parse_assembly(f'target triple = "{TRIPLE}"\n{code}')
    text = machine.emit_assembly(module)
    assert not re.findall(r"^\s+f(?:mla|mls|madd|msub|nmadd|nmsub)\s.*", text, re.M)
    tree = re.search(
        r"fadd\tv(\d+)\.4s.*\n\s+fadd\tv(\d+)\.4s.*\n\s+fadd\tv\1\.4s, v\1\.4s, v\2\.4s\n"  # 8 and 8, 4 and 4
        r"\s+(?:dup|ext|mov)\t.*\n\s+fadd\tv\1\.[24]s.*\n\s+faddp\ts\d+, v\1\.2s\n",
        text,
    )
    assert tree, "the partial sums are not joined half upon half"
    assert len(re.findall(r"^\s+faddp\s", text, re.M)) == 1
