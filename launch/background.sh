#!/usr/bin/env bash
# Starts `feste-dp launch` so that it outlives this terminal; prints its process number and its log file.
#
#     launch/background.sh CONFIG [options of feste-dp launch]
#
# To stop it and save: kill PID. To go on: the `resume` command at the end of the log file.
set -euo pipefail
if [ $# -lt 1 ]; then
    echo "usage: $0 CONFIG [options of feste-dp launch]" >&2
    exit 2
fi
config=$1
shift
mkdir -p data/runs
log=data/runs/$(basename "$config" .yaml)-$(date -u +%Y%m%dT%H%M%SZ).log
setsid nohup feste-dp launch --config "$config" "$@" >"$log" 2>&1 </dev/null &
echo "process $!, output in $log"
