"""The tracker `wandb`: a run of Weights & Biases, online where an account is set up, else offline in
`<run>/wandb`, to be sent later with `wandb sync`."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from feste_dp.files.reading import read_plain
from feste_dp.files.writing import write_whole
from feste_dp.run.events import Event
from feste_dp.run.trackers.tracker import RunFacts, Tracker

DIRECTORY = "wandb"
PROJECT = "feste-dp"
_ID_FILE = "feste-dp-id"
_ID_BYTES = 100


class WeightsAndBiases(Tracker):
    """Scalars over their step, samples as a table of text, the config as the run's config. A resumed run goes
    on under the same id. WANDB_MODE, WANDB_ENTITY and the like mean what they mean everywhere; project and
    tags are those of the config, where it has some, else of WANDB_PROJECT and WANDB_TAGS."""

    name = "wandb"

    def start(self, run: RunFacts) -> None:
        import wandb

        directory = run.directory / DIRECTORY
        directory.mkdir(exist_ok=True)
        self._wandb = wandb
        self._samples: list[list[object]] = []
        self._run = wandb.init(
            project=run.config["run.wandb_project"] or os.environ.get("WANDB_PROJECT") or PROJECT,
            # None: wandb itself reads WANDB_TAGS
            tags=run.config["run.wandb_tags"] or None,
            name=run.name,
            id=_id_of(directory),
            resume="allow",
            dir=str(run.directory),
            config=dict(run.config),
            mode=_mode(wandb.api.api_key),
            # the output is the run's, the CPUs are the workers'
            settings=wandb.Settings(
                console="off", silent=True, x_disable_stats=True, x_disable_meta=True, disable_git=True
            ),
        )
        # steps that are done again after a resume would be refused as wandb's own step counter
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def text(self, step: int, tag: str, text: str) -> None:
        self._samples.append([step, text])
        self._run.log({"step": step, tag: self._wandb.Table(columns=["step", "text"], data=self._samples)})

    def event(self, event: Event) -> None:
        self._run.summary[f"event/{event.kind}"] = f"step {event.step}: {event.text}"

    def close(self) -> None:
        self._run.finish()


def _mode(api_key: str | None) -> str:
    """What the user says; else online only where that needs no question."""
    return os.environ.get("WANDB_MODE") or ("online" if api_key else "offline")


def _id_of(directory: Path) -> str:
    """The id that this run has with wandb, made at its first start."""
    path = directory / _ID_FILE
    try:
        known = read_plain(path, _ID_BYTES).decode().strip()
    except FileNotFoundError:
        known = ""
    if not known:
        known = secrets.token_hex(4)
        write_whole(path, f"{known}\n".encode())
    return known
