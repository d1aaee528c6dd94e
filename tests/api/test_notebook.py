import json
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "docs" / "python.ipynb"

# in a process of its own: the kernel's client warns of what is deprecated, which fails a test
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def test_the_notebook_runs_from_start_to_end(tmp_path):
    assert all(not cell.get("outputs") for cell in json.loads(NOTEBOOK.read_text())["cells"])
    command = [sys.executable, "-c", EXECUTE, str(NOTEBOOK), str(tmp_path / "done.ipynb")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    outputs = [
        "".join(output.get("text", output.get("data", {}).get("text/plain", "")))
        for cell in json.loads((tmp_path / "done.ipynb").read_text())["cells"]
        for output in cell.get("outputs", [])
    ]
    assert any(output.startswith("step 100: ") for output in outputs)
    assert "300" in outputs
    assert any(output.startswith("<feste_dp.Model: 169,728 parameters") for output in outputs)
    assert (tmp_path / "data/runs/notebook/checkpoints/step-00000300").is_dir()
