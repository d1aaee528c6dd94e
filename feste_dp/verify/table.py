"""golden.json: the SHA-256 that every machine must reach, of runs and of kernels. Owns its form.

It changes with the arithmetic and with nothing else: raise `kernels.ARITHMETIC`, then
`python -m feste_dp.verify.remake`, and commit both together, with the reason.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from feste_dp.config.schema import Config, Precision
from feste_dp.files.writing import write_whole

PATH = Path(__file__).with_name("golden.json")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunHashes(_Strict):
    """What a run gave."""

    state: str
    """SHA-256 of weights, m and v after the last step: float32, little-endian"""
    metrics: str
    """SHA-256 of metrics.csv without its columns of times"""
    rows: str
    """The first eight digits of that of each row, to name the step where it begins"""


class GoldenRun(_Strict):
    config: str
    precision: Precision
    hashes: RunHashes

    @property
    def name(self) -> str:
        return f"{self.config} {self.precision}"


class Table(_Strict):
    arithmetic: int
    configs: dict[str, dict[str, dict[str, object]]]
    """What each says of a run but for its precision, its tokens and its directory"""
    runs: list[GoldenRun]
    kernels: dict[str, str]
    """In the order of a step"""

    def config(self, run: GoldenRun, workers: int, tokens: Path) -> Config:
        """The whole config of a run of the table, on tokens in a folder."""
        content = {name: dict(section) for name, section in self.configs[run.config].items()}
        content["train"]["precision"] = run.precision
        content["data"] = {"corpus": str(tokens)}
        content["run"] = {"name": run.config, "workers": workers}
        return Config.model_validate(content)


def read_table(path: Path = PATH) -> Table:
    return Table.model_validate_json(path.read_bytes())


def write_table(table: Table, path: Path = PATH) -> None:
    write_whole(path, table.model_dump_json(indent=1).encode() + b"\n")
