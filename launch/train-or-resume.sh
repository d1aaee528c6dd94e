#!/usr/bin/env bash
# Trains a config in a run directory of its own, or goes on there: the same command starts a run and restarts it.
#
#     launch/train-or-resume.sh CONFIG RUN [options of feste-dp launch]
#
# Ends as feste-dp does: 0 done, 1 failed, 2 bad input, 130 or 143 stopped by a signal after saving.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG RUN [options of feste-dp launch]" >&2
    exit 2
fi
config=$1 run=$2
shift 2
exec feste-dp launch --resume auto --config "$config" --out "$run" "$@"
