"""Which trackers a config asks for, and whether what they need is installed."""

import importlib.util
from collections.abc import Sequence

from feste_dp.errors import UsageError
from feste_dp.run.trackers.json_lines import JsonLines
from feste_dp.run.trackers.tensorboard import TensorBoard
from feste_dp.run.trackers.tracker import Tracker
from feste_dp.run.trackers.weights_and_biases import WeightsAndBiases

_TRACKERS: dict[str, type[Tracker]] = {
    tracker.name: tracker for tracker in (JsonLines, TensorBoard, WeightsAndBiases)
}
_LIBRARIES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


def make_trackers(names: Sequence[str]) -> list[Tracker]:
    """A tracker for each name, none twice. UsageError names the first whose library is missing."""
    for name in names:
        library = _LIBRARIES.get(name)
        if library is not None and importlib.util.find_spec(library) is None:
            raise UsageError(
                f"run.trackers: {name} needs {library}, which is not installed: "
                f"pip install 'feste-dp[{name}]', or leave {name} out of run.trackers"
            )
    return [_TRACKERS[name]() for name in dict.fromkeys(names)]
