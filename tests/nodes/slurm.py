"""A Slurm cluster whose nodes are the machines of `network.py`: slurmctld on the first, slurmd on each."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.nodes.network import Machines

CONF = """\
ClusterName=machines
SlurmctldHost=node0
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
TmpFS={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
MailProg=/bin/true
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

PMIX = "/usr/lib/x86_64-linux-gnu/pmix2/lib/libpmix.so"


def why_there_is_none() -> str | None:
    """Why there is no Slurm to be tried here, or None."""
    for program in ("slurmctld", "slurmd", "srun", "sbatch"):
        if shutil.which(program) is None and not Path("/usr/sbin", program).exists():
            return f"{program} is not installed (apt-get install slurm-wlm libpmix-dev)"
    return None


class Slurm:
    """Runs until the machines end, or before."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        self._machines = machines
        for name in ("state", *machines.names):
            (folder / name).mkdir(parents=True)
        nodes = "\n".join(f"NodeName={name} CPUs=4 RealMemory=1000 State=UNKNOWN" for name in machines.names)
        conf = folder / "slurm.conf"
        conf.write_text(CONF.format(user="root", folder=folder, nodes=nodes))
        self._env = {
            "SLURM_CONF": str(conf),
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
        }
        log = (folder / "slurm.log").open("w")
        with log:
            daemon: dict[str, Any] = {
                "env": self._env,
                "stdout": log,
                "stderr": log,
                "start_new_session": True,
            }
            machines.start(0, ["slurmctld", "-D", "-i"], **daemon)
            for index, name in enumerate(machines.names):
                machines.start(index, ["slurmd", "-D", "-N", name], **daemon)
        deadline = time.monotonic() + 20
        while self.run("sinfo", "--noheader", "--format=%t").stdout != "idle\n":
            assert time.monotonic() < deadline, (folder / "slurm.log").read_text()
            time.sleep(0.1)

    def run(self, *command: str | Path, **popen: Any) -> subprocess.CompletedProcess[str]:
        """A command of Slurm's on the first node."""
        return self._machines.run(0, command, env=self._env | popen.pop("env", {}), **popen)

    def start(self, *command: str | Path, **popen: Any) -> subprocess.Popen[Any]:
        return self._machines.start(0, command, env=self._env | popen.pop("env", {}), **popen)

    def end(self) -> None:
        """Nothing of Slurm runs any more, or writes into the folder."""
        for index in range(len(self._machines.names)):
            while self._machines.kill(index, "slurm"):
                time.sleep(0.01)
