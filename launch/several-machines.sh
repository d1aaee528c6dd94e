#!/usr/bin/env bash
# Several machines on this one, to try training over them before there are more.
#
#     launch/several-machines.sh N COMMAND
#     launch/several-machines.sh 2 mpirun -n 2 feste-dp launch --workers 1 --config configs/quick.yaml
#
# The command runs on the first, node0; mpirun, Open MPI's or MPICH's, reaches them all, without ssh. They are network
# namespaces joined by a bridge, each with a name, an address (10.77.0.1 and on) and a /dev/shm of its own; files, CPUs
# and memory are those of this machine. Needs no root, but a kernel that lets users make namespaces, and the programs
# ip, unshare and nsenter. At the end everything on the machines is killed, and nothing is left.
set -euo pipefail
if [ $# -lt 2 ] || ! [[ $1 =~ ^[1-9][0-9]?$ ]]; then
    echo "usage: $0 N COMMAND" >&2
    exit 2
fi
if [ "${SEVERAL_MACHINES:-}" != $$ ]; then
    SEVERAL_MACHINES=$$ exec unshare --user --map-root-user --net --mount bash "$0" "$@"
fi
unset SEVERAL_MACHINES
count=$1
shift
folder=$(mktemp -d)
holders=() networks=" "

# shellcheck disable=SC2329
end() {
    local process found=yes
    while [ -n "$found" ] && [ "$networks" != " " ]; do
        found=
        for process in /proc/[0-9]*; do
            if [[ $networks == *" $(readlink "$process/ns/net" 2>/dev/null || echo none) "* ]]; then
                kill -KILL "${process#/proc/}" 2>/dev/null && found=yes
            fi
        done
    done
    rm -rf "$folder"
}
trap end EXIT

cat >"$folder/agent" <<'AGENT'
#!/bin/sh
# in place of ssh: agent [options] HOST COMMAND
while [ "${1#-}" != "$1" ]; do shift; done
host=$1
shift
exec nsenter --target "$(cat "${0%/*}/$host.process")" --net --uts --ipc --mount -- env -C "$PWD" sh -c "$*"
AGENT
chmod +x "$folder/agent"
echo "127.0.0.1 localhost" >"$folder/addresses"
for ((i = 0; i < count; i++)); do
    echo "10.77.0.$((i + 1)) node$i" >>"$folder/addresses"
    echo "node$i" >>"$folder/hosts"
done

ip link add name bridge type bridge
ip link set dev bridge up
for ((i = 0; i < count; i++)); do
    # ends with this script, also where that is killed
    unshare --net --uts --ipc --mount bash -c "
        set -e
        hostname node$i
        mount -t tmpfs tmpfs /dev/shm
        mount --bind '$folder/addresses' /etc/hosts
        ip link set dev lo up
        touch '$folder/node$i.ready'
        while kill -0 $$ 2>/dev/null; do sleep 1; done" &
    holder=$!
    disown
    until [ -e "$folder/node$i.ready" ]; do
        kill -0 $holder 2>/dev/null || exit 1
        sleep 0.01
    done
    holders+=("$holder")
    networks+="$(readlink "/proc/$holder/ns/net") "
    echo "$holder" >"$folder/node$i.process"
    ip link add name "port$i" type veth peer name eth0 netns "$holder"
    ip link set dev "port$i" master bridge up
    nsenter --target "$holder" --net ip address add "10.77.0.$((i + 1))/24" dev eth0
    nsenter --target "$holder" --net ip link set dev eth0 up
done

settings=(
    # Open MPI
    "PRTE_MCA_plm_ssh_agent=$folder/agent" "PRTE_MCA_prte_default_hostfile=$folder/hosts"
    PRTE_MCA_hwloc_default_binding_policy=none PRTE_MCA_rmaps_default_mapping_policy=ppr:1:node
    OMPI_MCA_pml=ob1 "OMPI_MCA_btl=tcp,self" OMPI_MCA_btl_tcp_if_include=eth0
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    # MPICH
    HYDRA_LAUNCHER=ssh "HYDRA_LAUNCHER_EXEC=$folder/agent" "HYDRA_HOST_FILE=$folder/hosts" "UCX_TLS=tcp,self"
)
set -m # a process group of its own: Ctrl-C comes once, from here
nsenter --target "${holders[0]}" --net --uts --ipc --mount -- env -C "$PWD" "${settings[@]}" "$@" </dev/null &
command=$!
for signal in INT TERM HUP USR1 USR2; do
    # shellcheck disable=SC2064  # the number as it is now
    trap "kill -$signal $command 2>/dev/null" $signal
done
# a signal ends a wait, not the command
wait $command && status=0 || status=$?
while kill -0 $command 2>/dev/null; do
    wait $command && status=0 || status=$?
done
exit "$status"
