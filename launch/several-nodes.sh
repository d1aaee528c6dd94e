#!/usr/bin/env bash
# Several machines joined by a network, with mpirun, through failures: trains a config on all hosts of a file, and
# starts again from the last checkpoint whenever the job ends before the run has.
#
#     launch/several-nodes.sh HOSTS CONFIG RUN [options of feste-dp launch]
#
# HOSTS names one machine a line. The run directory lies on the first, where this script runs too; the same feste-dp,
# config and corpus lie in the same places on all, and each is reached from here by ssh without a password.
#
# A launcher that loses a machine may end well with the training unfinished, so it is RUN/finished that counts. After a
# failure it waits PAUSE seconds (30; more than it takes to notice that a machine is gone), twice as long each time
# without a new checkpoint, and gives up after TRIES (4) such failures in a row, or RESTARTS (100) in all.
# Ctrl-C and SIGTERM save the run and end it. Ends as feste-dp does: 0 done, 1 failed, 2 bad input, 130 or 143 stopped.
set -uo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 HOSTS CONFIG RUN [options of feste-dp launch]" >&2
    exit 2
fi
hosts=$1 config=$2 run=$3
shift 3
count=$(grep -cv -e '^[[:space:]]*#' -e '^[[:space:]]*$' -- "$hosts")
if [ "${count:-0}" -eq 0 ]; then
    echo "error: $hosts names no machine: write one a line" >&2
    exit 2
fi
feste_dp=$(command -v feste-dp) || { echo "error: feste-dp is not in PATH: activate its environment" >&2; exit 2; }

case $(mpirun --version 2>&1) in
*"Open MPI"*)
    # unbound: a rank's workers use all cores. It kills soon after INT or TERM, but passes USR2 on and waits.
    job=(mpirun -n "$count" --hostfile "$hosts" --map-by ppr:1:node --bind-to none)
    for name in $(compgen -e FESTE_DP_); do
        job+=(-x "$name")
    done
    stop=USR2
    ;;
*HYDRA*)
    job=(mpirun -n "$count" -f "$hosts" -ppn 1)
    stop=TERM
    ;;
*)
    echo "error: mpirun is neither Open MPI's nor MPICH's: pip install 'feste-dp[mpi]'" >&2
    exit 2
    ;;
esac
job+=("$feste_dp" launch --resume auto --config "$config" --out "$run" "$@")

stopped='' training='' resting=''
ask() {
    stopped=$1
    if [ -n "$training" ]; then kill "-$stop" "$training" 2>/dev/null; fi
    if [ -n "$resting" ]; then kill "$resting" 2>/dev/null; fi
}
trap 'ask 130' INT
trap 'ask 143' TERM HUP
say() { echo "$(date -u +%FT%TZ) $*"; }
newest() { readlink "$run/checkpoints/latest"; }

# A lost machine may keep mpirun waiting long after the run has ended here: once the run's lock has been free for GRACE
# seconds (60), or for ten times as long where nobody saw it taken, mpirun is killed.
release() {
    local held='' free=0
    while sleep 1; do
        if [ -e "$run/lock" ] && grep -q "FLOCK.*:$(stat -c %i "$run/lock") " /proc/locks; then
            held=yes free=0
        elif [ -e "$run/lock" ] && [ $((free += 1)) -gt $((${GRACE:-60} * (${#held} ? 1 : 10))) ]; then
            kill -KILL -- "-$1"
            return
        fi
    done
}

set -m # mpirun in a process group of its own: Ctrl-C reaches it from here alone
in_a_row=0
for ((restarts = 0; ; restarts++)); do
    before=$(newest)
    "${job[@]}" </dev/null &
    training=$!
    if [ -n "$stopped" ]; then kill "-$stop" "$training"; fi # told before there was one to tell
    release "$training" &
    releasing=$!
    # a signal ends a wait, not the training
    wait "$training"
    status=$?
    while kill -0 "$training" 2>/dev/null; do
        wait "$training"
        status=$?
    done
    training=''
    kill -KILL -- "-$releasing" 2>/dev/null
    wait "$releasing" 2>/dev/null
    if [ -e "$run/finished" ]; then exit 0; fi
    if [ -n "$stopped" ]; then exit "$stopped"; fi
    if [ "$status" -eq 2 ]; then exit 2; fi
    in_a_row=$((in_a_row + 1))
    if [ "$(newest)" != "$before" ]; then in_a_row=1; fi
    if [ "$in_a_row" -ge "${TRIES:-4}" ] || [ "$restarts" -ge "${RESTARTS:-100}" ]; then
        say "the job ended with status $status before the run did: given up after $((restarts + 1)) starts"
        exit 1
    fi
    pause=$((${PAUSE:-30} << (in_a_row - 1)))
    say "the job ended with status $status before the run did: starting again in $pause s"
    sleep "$pause" &
    resting=$!
    if [ -n "$stopped" ]; then kill "$resting"; fi
    wait "$resting"
    resting=''
    if [ -n "$stopped" ]; then exit "$stopped"; fi
done
