"""A real Slurm of one node with two simulated GPUs, on loopback, in a folder of its own; no systemd, no accounting."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

CONFIG = """\
ClusterName=fgvalidate
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
# Neither cgroups nor systemd are needed.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
ReturnToService=2
KillWait=5
# How long a command tries to reach a controller that is not there.
MessageTimeout=6
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
GresTypes=gpu
# More than this machine may have: what is tested does not compute.
SlurmdParameters=config_overrides
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:2
PartitionName=main Nodes=node1 Default=YES PriorityTier=1 DefMemPerCPU=1500
PartitionName=urgent Nodes=node1 PriorityTier=2 DefMemPerCPU=1500
PartitionName=short Nodes=node1 PriorityTier=1 DefMemPerCPU=1500 MaxTime=1
"""


def _find_program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found, f"{name} is not installed, and these tests need a real Slurm: apt-get install slurm-wlm munge"
    return found


def _find_free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


class Cluster:
    """The daemons; a context manager that ends exactly what it has started.

    Attributes:
        env: What a Slurm command needs in its environment to talk to this cluster.
    """

    def __init__(self) -> None:
        # Short: the name of a socket in it has 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.env = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Cluster":
        self._bring_up()
        return self

    def restart(self) -> None:
        """Begins anew, with no job known: a controller that was away confuses new jobs with old ones for a while."""
        self._end_daemons()
        self._bring_up()

    def _bring_up(self) -> None:
        try:
            for _ in range(3):
                # Another program may take a port before its daemon does.
                if self._start():
                    return
                self._end_daemons()
        except BaseException:
            self._end_daemons()
            raise
        raise AssertionError(f"Slurm does not come up:\n{self._read_logs()}")

    def __exit__(self, *_: object) -> None:
        try:
            if self.list_active():
                self.call("scancel", "--me")
                self._poll(lambda: not self.list_active(), limit_s=60)
        finally:
            self._end_daemons()
        shutil.rmtree(self.folder)

    def _start(self) -> bool:
        self.folder.chmod(0o755)
        for name in ("state", "spool"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()
        for index in range(2):
            # Slurm wants a device file.
            gpu = self.folder / f"gpu{index}"
            gpu.unlink(missing_ok=True)
            gpu.symlink_to("/dev/null")
        controller_port, node_port = _find_free_ports()
        host = socket.gethostname().partition(".")[0]
        config = CONFIG.format(
            host=host,
            user=getpass.getuser(),
            folder=self.folder,
            controller_port=controller_port,
            node_port=node_port,
        )
        (self.folder / "slurm.conf").write_text(config, encoding="utf-8")
        gres = f"AutoDetect=off\nNodeName=node1 Name=gpu File={self.folder}/gpu[0-1]\n"
        (self.folder / "gres.conf").write_text(gres, encoding="utf-8")
        key = self.folder / "munge.key"
        key.unlink(missing_ok=True)
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        files["seed-file"] = "munged.seed"
        self._start_daemon("munged", "--foreground", "--force", *(f"--{k}={self.folder / v}" for k, v in files.items()))
        if not self._poll((self.folder / "munge.socket").exists, limit_s=15):
            return False
        self.start_controller()
        self._start_daemon("slurmd", "-D", "-N", "node1", "-f", self.env["SLURM_CONF"])
        return self._poll(lambda: self.call("sinfo", "--noheader", "--format=%T").startswith("idle"), limit_s=30)

    def start_controller(self) -> None:
        """Starts slurmctld, with the state that it had."""
        self._start_daemon("slurmctld", "-D", "-f", self.env["SLURM_CONF"])

    def stop_controller(self) -> None:
        """Ends slurmctld; jobs that run go on."""
        self._end_daemon("slurmctld")

    def call(self, *argv: str) -> str:
        """Calls one of Slurm's commands; what it prints, or "" when it fails."""
        answer = subprocess.run(
            argv, env={**os.environ, **self.env}, capture_output=True, text=True, timeout=60, check=False
        )
        return answer.stdout if answer.returncode == 0 else ""

    def list_active(self) -> dict[str, str]:
        """Returns the names of all jobs that are pending, running or ending, by their ids."""
        rows = self.call("squeue", "--noheader", "--format=%i %j").splitlines()
        return {job_id: name for job_id, _, name in (row.partition(" ") for row in rows)}

    def describe(self, job_id: str) -> dict[str, str]:
        """Returns what `scontrol show job` says."""
        words = self.call("scontrol", "show", "job", "--oneliner", job_id).split()
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    def _poll(self, is_true: Callable[[], object], *, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while not is_true():
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self._daemons.values()):
                return False
            time.sleep(0.1)
        return True

    def _start_daemon(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                # It does not outlive this program, however that ends.
                ["setpriv", "--pdeathsig", "TERM", _find_program(name), *arguments],
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _end_daemon(self, name: str) -> None:
        daemon = self._daemons.pop(name, None)
        if daemon is not None:
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _end_daemons(self) -> None:
        for name in ("slurmd", "slurmctld", "munged"):
            self._end_daemon(name)

    def _read_logs(self) -> str:
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')}" for path in self.folder.glob("*.out"))
