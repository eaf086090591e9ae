"""A real one-node Slurm on this machine's loopback, from Debian's packages: for root, who may start its daemons."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import end_group, free_port
from tests.support.waiting import eventually

PROGRAMS = ("slurmctld", "slurmd", "munged", "mungekey", "sbatch")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmUser=root
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=2000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=1:00:00 State=UP PriorityTier=1
PartitionName=first Nodes={host} MaxTime=1:00:00 State=UP PriorityTier=2
"""


def is_installed() -> bool:
    return os.geteuid() == 0 and all(shutil.which(name, path=_path()) for name in PROGRAMS)


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[Path]:
    """Slurm with two partitions of one node, of which `first` takes it from `debug`; its configuration file."""
    host = socket.gethostname().partition(".")[0]
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(host=host, folder=folder, cores=os.cpu_count(), controller=free_port(), daemon=free_port())
    )
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    environ = {**os.environ, "SLURM_CONF": str(configuration), "PATH": _path()}
    subprocess.run(["mungekey", "--create", f"--keyfile={key}"], check=True, env=environ)
    with contextlib.ExitStack() as stack:

        def daemon(*command: str) -> None:
            with (folder / f"{command[0]}.log").open("wb") as log:
                process = subprocess.Popen(
                    command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            stack.callback(end_group, process)

        daemon(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munge.log",
        )  # fmt: skip
        eventually((folder / "munge.socket").exists)
        daemon("slurmctld", "-D", "-f", str(configuration))
        daemon("slurmd", "-D", "-f", str(configuration))

        def is_idle() -> bool:
            said = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environ, capture_output=True, text=True, check=False)
            return "idle" in said.stdout

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(configuration))
            eventually(is_idle)
            try:
                yield configuration
            finally:  # jobs have supervisors of their own, which would outlive the daemons
                subprocess.run(["scancel", "--quiet", f"--user={getpass.getuser()}"], env=environ, check=False)
                eventually(is_idle)
