#!/usr/bin/env bash
# One node of a Slurm cluster, through pre-emption and time limits:
#
#     sbatch launch/slurm.sh CONFIG [options of feste-dp launch]
#
# Two minutes before the time limit Slurm sends SIGUSR2: feste-dp finishes its step, saves and ends, and the job puts
# itself back into the queue. A pre-empted job gets SIGTERM, or SIGUSR2 too where the cluster is set to
# send_user_signal: it saves as well, and Slurm requeues it. The next start goes on from there, with as many workers
# as it then has CPUs: their number never changes the result. scancel sends SIGTERM: the run saves, and that is it.
# Set RUN to choose the run directory.
#
#SBATCH --job-name=feste-dp
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=feste-dp-%j.log
set -uo pipefail
if [ $# -lt 1 ]; then
    echo "usage: sbatch $0 CONFIG [options of feste-dp launch]" >&2
    exit 2
fi
config=$1
shift
run=${RUN:-data/runs/slurm-${SLURM_JOB_ID:?is set by Slurm: use sbatch}}
echo "$(date -u +%FT%TZ) start ${SLURM_RESTART_COUNT:-0} of job $SLURM_JOB_ID on $(nproc) CPUs, run $run"

requeue=
trap 'kill -TERM "$training" 2>/dev/null' TERM INT
trap 'requeue=yes; kill -TERM "$training" 2>/dev/null' USR2
feste-dp launch --resume auto --config "$config" --out "$run" "$@" &
training=$!
# a signal ends a wait, not the training
wait "$training"
status=$?
while kill -0 "$training" 2>/dev/null; do
    wait "$training"
    status=$?
done

if [ "$status" -eq 143 ] && [ -n "$requeue" ]; then
    echo "$(date -u +%FT%TZ) saved; back into the queue"
    scontrol requeue "$SLURM_JOB_ID" || exit 143
    exit 0
fi
exit "$status"
