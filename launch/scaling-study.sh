#!/usr/bin/env bash
# The whole scaling study of a machine: strong and weak, at 1, 2, 4 .. workers and at all physical cores.
#
#     launch/scaling-study.sh CONFIG OUT [options of feste-dp scale]
#
# Writes OUT/strong and OUT/weak. COUNTS=1,2,3 chooses the counts. A count needs as many shards: where the config
# has fewer than the machine has cores, give --set train.shards=64 --set train.batch_size=64, for example.
# Stop everything else on the machine first; the study warns where it is busy.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG OUT [options of feste-dp scale]" >&2
    exit 2
fi
config=$1 out=$2
shift 2
if [ -z "${COUNTS:-}" ]; then
    # siblings of one core share CORE and SOCKET; nproc knows the CPUs that this shell may use
    cores=$(lscpu --parse=CORE,SOCKET | grep -v '^#' | sort -u | wc -l)
    usable=$(nproc)
    if [ "$usable" -lt "$cores" ]; then cores=$usable; fi
    COUNTS=$cores
    for ((count = 1; count < cores; count *= 2)); do COUNTS+=,$count; done
fi
feste-dp scale --config "$config" --workers "$COUNTS" --out "$out/strong" "$@"
feste-dp scale --config "$config" --workers "$COUNTS" --weak --out "$out/weak" "$@"
