#!/usr/bin/env bash
# One node or several of a Slurm cluster, through pre-emption and time limits:
#
#     sbatch launch/slurm.sh CONFIG [options of feste-dp launch]
#     sbatch --nodes=4 launch/slurm.sh CONFIG [options of feste-dp launch]
#
# Two minutes before the time limit Slurm sends SIGUSR2: feste-dp finishes its step, saves and ends, and the job puts
# itself back into the queue. A pre-empted job gets SIGTERM, or SIGUSR2 too where the cluster is set to
# send_user_signal: it saves as well, and Slurm requeues it. The next start goes on from there, with as many nodes, and
# workers on them, as it then has CPUs: their number never changes the result. scancel sends SIGTERM: the run saves,
# and that is it. Set RUN to choose the run directory.
#
# Several nodes see the same files, have feste-dp[mpi] and are connected by MPI: PMI says how srun introduces them to
# each other, pmix (Open MPI) or pmi2 (MPICH). A job of several whose node or process dies goes back into the queue too,
# unless it had not come to a new checkpoint since it started.
#
#SBATCH --job-name=feste-dp
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
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
nodes=${SLURM_JOB_NUM_NODES:-1}
echo "$(date -u +%FT%TZ) start ${SLURM_RESTART_COUNT:-0} of job $SLURM_JOB_ID on $nodes x $(nproc) CPUs, run $run"

requeue=
start=()
if [ "$nodes" -gt 1 ]; then
    # srun passes USR2 on, but kills at once when it gets TERM, which Slurm has sent to feste-dp itself
    start=(srun "--mpi=${PMI:-pmix}" --kill-on-bad-exit "--cpus-per-task=${SLURM_CPUS_PER_TASK:-1}")
    trap : TERM INT
    trap 'requeue=yes; kill -USR2 "$training" 2>/dev/null' USR2
else
    trap 'kill -TERM "$training" 2>/dev/null' TERM INT
    trap 'requeue=yes; kill -TERM "$training" 2>/dev/null' USR2
fi
newest() { readlink "$run/checkpoints/latest"; }
before=$(newest)
${start[@]+"${start[@]}"} feste-dp launch --resume auto --config "$config" --out "$run" "$@" &
training=$!
# a signal ends a wait, not the training
wait "$training"
status=$?
while kill -0 "$training" 2>/dev/null; do
    wait "$training"
    status=$?
done

case $status in
0 | 2 | 130) ;;
140 | 143) reason=saved ;;
*) if [ "$nodes" -gt 1 ] && [ "$(newest)" != "$before" ]; then requeue=yes reason="ended with status $status"; fi ;;
esac
if [ -n "$requeue" ] && [ -n "${reason:-}" ]; then
    echo "$(date -u +%FT%TZ) $reason; back into the queue"
    scontrol requeue "$SLURM_JOB_ID" || exit 143
    exit 0
fi
exit "$status"
