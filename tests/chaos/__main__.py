"""python -m tests.chaos --seconds 60: train while everything is killed, and compare with a quiet run."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.storm import Storm, quiet_run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="start no new round after so long")
    parser.add_argument("--kills", type=int, default=0, help="go on until so many kills, whatever the time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1500, help="steps of a round's run")
    parser.add_argument("--config", type=Path, default=Path("configs/tiny.yaml"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        quiet = quiet_run(arguments.config, arguments.steps, Path(folder) / "quiet")
        storm = Storm(arguments.config, arguments.steps, arguments.seed, Path(folder))
        while storm.seconds < arguments.seconds or storm.kills < arguments.kills:
            outcome = storm.round()
            print(storm.summary(), flush=True)
            if outcome != quiet:
                print(f"round {storm.rounds} (seed {arguments.seed}) differs from the quiet run", flush=True)
                return 1
    print("every round ended with the weights and the metrics of the quiet run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
