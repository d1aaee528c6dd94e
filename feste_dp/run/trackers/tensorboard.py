"""The tracker `tensorboard`: event files in `<run>/tensorboard`, for `tensorboard --logdir data/runs`."""

from collections.abc import Mapping

from feste_dp.run.events import Event
from feste_dp.run.trackers.tracker import RunFacts, Tracker

DIRECTORY = "tensorboard"


class TensorBoard(Tracker):
    """Scalars, samples and events as text, the config as text and as hyper-parameters. After a resume the
    figures of steps that are done again are hidden by TensorBoard itself (purge_step)."""

    name = "tensorboard"

    def start(self, run: RunFacts) -> None:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        self._writer = SummaryWriter(
            str(run.directory / DIRECTORY),
            purge_step=run.first_step + 1 if run.first_step else None,
            write_to_disk=True,
        )
        known = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in run.config.items()
        }
        # add_hparams() would make a run of its own beside this one
        for summary in hparams(known, {"loss/train": 0.0, "loss/validation": 0.0}):
            self._writer.file_writer.add_summary(summary)
        self._writer.add_text("config", _as_code(run.config_text), run.first_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def text(self, step: int, tag: str, text: str) -> None:
        self._writer.add_text(tag, _as_code(text), step)

    def event(self, event: Event) -> None:
        self._writer.add_text(f"event/{event.kind}", event.text, event.step)

    def close(self) -> None:
        self._writer.close()


def _as_code(text: str) -> str:
    """Markdown that shows the text as it is: indented code, in which nothing is markup."""
    return "\n".join(f"    {line}" for line in text.splitlines())
