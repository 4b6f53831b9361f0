"""A real Slurm cluster on this machine: Debian's daemons, several ``slurmd`` on one host, devices that are files.

It keeps to a folder of its own and to free ports, runs as root or as an ordinary user, and stops what it
started and nothing else.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import guardian
from cli_harness import Cli
from limits import needs
from ports import free_ports
from proc import processes, read, stat

_TIMEOUT_S = 180.0
_STARTS = 2
SILENT_S = 10
"""On a busy machine a slurmd that lives may say nothing for some seconds, and that must kill no test's job."""
_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"

_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
{auth}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout={silent_s}
MessageTimeout=2
TCPTimeout=1
SlurmctldTimeout=10
InactiveLimit=0
KillWait=2
MinJobAge=300
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1,bf_continue
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
TopologyPlugin=topology/tree
GresTypes=gpu
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Like nodes: ``NAME1`` … ``NAMEn``, each with ``devices`` devices called ``accelerator`` in Slurm's own way.

    Without ``devices`` they have cores alone.
    """

    name: str
    nodes: int
    accelerator: str
    devices: int = 8
    cpus: int = 32

    @property
    def node_names(self) -> Sequence[str]:
        return [f"{self.name}{number}" for number in range(1, self.nodes + 1)]


TWO_KINDS = (Kind(name="h", nodes=2, accelerator="h100"), Kind(name="a", nodes=2, accelerator="910b"))


class SlurmCluster:
    """The daemons, and Slurm's commands; ``conf`` is what ``SLURM_CONF`` must name.

    A node that says nothing for ``silent_s`` is dead to Slurm, and its jobs with it.
    """

    def __init__(self, folder: Path, kinds: Sequence[Kind], *, silent_s: int = SILENT_S) -> None:
        self.folder = folder
        self._silent_s = silent_s
        self.conf = folder / "slurm.conf"
        self.kinds = kinds
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._frozen: dict[str, list[int]] = {}
        """By the node that is cut off: its slurmd and its step daemons."""
        self.env = {**os.environ, "SLURM_CONF": str(self.conf), "PATH": _PATH}
        conf = {"SLURM_CONF": str(self.conf)}
        self._watch = guardian.watch(
            environments=[
                {guardian.MARK: str(folder)},  # the daemons; and what runs on the nodes
                *(conf | {"SLURMD_NODENAME": name} for name in self.node_names),
            ],
            first=signal.SIGKILL,
            folder=folder,
        )

    @property
    def node_names(self) -> Sequence[str]:
        return [name for kind in self.kinds for name in kind.node_names]

    @staticmethod
    def rack_of(node: str) -> str:
        """Return the leaf switch of a node: those of one number share one."""
        return f"rack{node[-1]}"

    def __call__(self, *words: str, check: bool = True) -> str:
        """Run a command of Slurm's, and return what it printed."""
        done = subprocess.run(
            words, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    # -- up and down --------------------------------------------------------------------------------

    def write(self, *, is_authentic: bool) -> None:
        """Write the configuration. ``is_authentic``: with munge, as real clusters; else without any check."""
        for name in ("state", "log", "spool", "dev", "run"):
            (self.folder / name).mkdir(parents=True)
        auth = "AuthType=auth/none\nCredType=cred/none"
        if is_authentic:
            auth = f"AuthType=auth/munge\nCredType=cred/munge\nAuthInfo=socket={self.folder}/run/munge.sock"
            (self.folder / "munge.key").write_bytes(os.urandom(1024))
            (self.folder / "munge.key").chmod(0o400)
        port, *node_ports = free_ports(1 + len(self.node_names))
        host = socket.gethostname().partition(".")[0]
        user = pwd.getpwuid(os.geteuid()).pw_name
        facts = {"folder": self.folder, "host": host, "port": port, "user": user, "auth": auth}
        lines = [_CONF.format(silent_s=self._silent_s, **facts)]
        devices = []
        ports = dict(zip(self.node_names, node_ports, strict=True))
        for kind in self.kinds:
            for name in kind.node_names:
                (self.folder / "spool" / name).mkdir()
                gres = f"Gres=gpu:{kind.accelerator}:{kind.devices} Feature={kind.accelerator} "
                lines.append(
                    f"NodeName={name} NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[name]} CPUs={kind.cpus} "
                    f"RealMemory=64000 {gres if kind.devices else ''}State=UNKNOWN"
                )
                if not kind.devices:
                    continue
                self._make_devices(name, kind.devices)
                devices.append(
                    f"NodeName={name} Name=gpu Type={kind.accelerator} Flags=nvidia_gpu_env "
                    f"File={self.folder}/dev/{name}-[0-{kind.devices - 1}]"
                )
        partitions = "Nodes=ALL MaxTime=INFINITE State=UP"
        lines += [
            f"PartitionName=all {partitions} PriorityTier=1 Default=YES",
            f"PartitionName=urgent {partitions} PriorityTier=10",
        ]
        self.conf.write_text("\n".join(lines) + "\n")
        (self.folder / "gres.conf").write_text("\n".join(devices) + "\n")
        racks: dict[str, list[str]] = {}
        for name in self.node_names:
            racks.setdefault(self.rack_of(name), []).append(name)
        switches = [f"SwitchName={rack} Nodes={','.join(names)}" for rack, names in racks.items()]
        switches.append(f"SwitchName=spine Switches={','.join(racks)}")
        (self.folder / "topology.conf").write_text("\n".join(switches) + "\n")

    def _make_devices(self, name: str, count: int) -> None:
        """Device files where we may make some, else plain ones: Slurm asks only whether they are there."""
        for index in range(count):
            path = self.folder / "dev" / f"{name}-{index}"
            try:
                os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
            except PermissionError:
                path.touch()

    def start(self) -> None:
        """Start every daemon, and wait until all nodes are there."""
        if (self.folder / "munge.key").exists():
            self._start_munge()
        self.start_controller()
        for name in self.node_names:
            self.start_node(name)
        try:
            self.until_states("idle", self.node_names)
        except AssertionError as error:
            log = (self.folder / "log" / "slurmctld.log").read_text()[-2000:]
            raise AssertionError(f"{error}\n{log}") from error

    def _start_munge(self) -> None:
        run = self.folder / "run"
        self._spawn(
            "munged",
            *("munged", "--foreground", "--force", f"--key-file={self.folder}/munge.key"),
            *(f"--socket={run}/munge.sock", f"--pid-file={run}/munged.pid"),
            *(f"--log-file={self.folder}/log/munged.log", f"--seed-file={run}/munge.seed"),
        )
        _until((run / "munge.sock").exists, "munged's socket")

    def start_controller(self) -> None:
        """Start slurmctld, which goes on with the state that the last one saved."""
        self._spawn("slurmctld", "slurmctld", "-D", "-f", str(self.conf))

    def stop_controller(self) -> None:
        """Stop slurmctld: nobody answers any command."""
        self._end("slurmctld")

    def start_node(self, name: str) -> None:
        """Start a node's slurmd."""
        self._spawn(name, "slurmd", "-D", "-f", str(self.conf), "-N", name)

    def cut_off(self, name: str) -> None:
        """Have Slurm reach nothing on a node, and nothing there reach Slurm; what jobs run there lives on."""
        self._frozen[name] = [self._processes[name].pid, *self._daemons_over(self.tasks_on(name))]
        _signal(self._frozen[name], signal.SIGSTOP)

    def reconnect(self, name: str) -> None:
        """Let Slurm and a node that was cut off hear each other again."""
        _signal(self._frozen.pop(name), signal.SIGCONT)

    def kill_node(self, name: str) -> None:
        """Let a node die: slurmd, the step daemons, and all that runs under them."""
        _signal(self._frozen.pop(name, []), signal.SIGKILL)  # step daemons whose tasks have ended, too
        self._processes[name].kill()
        self._processes.pop(name).wait()
        # All stand still before the first dies: on a node without power nobody sees another one's end.
        frozen: set[int] = set()
        while fresh := set(self.processes_of(name)) - frozen:
            _signal(fresh, signal.SIGSTOP)
            frozen |= fresh
        _signal(frozen, signal.SIGKILL)

    def processes_of(self, name: str) -> list[int]:
        """Return the processes of the jobs on a node, the step daemons first."""
        tasks = self.tasks_on(name)
        return [*self._daemons_over(tasks), *tasks]

    def tasks_on(self, name: str) -> list[int]:
        """Return the processes of the jobs on a node without the step daemons."""
        marks = {b"SLURMD_NODENAME=" + name.encode(), b"SLURM_CONF=" + os.fsencode(self.conf)}
        return [pid for pid in processes() if marks <= set(read(pid, "environ").split(b"\0"))]

    @staticmethod
    def _daemons_over(tasks: Iterable[int]) -> list[int]:
        parents = {_parent(pid) for pid in tasks} - {None}
        return [pid for pid in parents if pid and read(pid, "cmdline").startswith(b"slurmstepd")]

    def revive(self) -> None:
        """Bring back every node that a test has killed, cut off or drained, and end all jobs."""
        for name in list(self._frozen):
            self.reconnect(name)
        if "slurmctld" not in self._processes:
            self.start_controller()
            self.until_states("idle", ())
        self("scancel", "--quiet", "--signal=KILL", "--full", *self.job_ids(), check=False)
        self("scancel", "--quiet", *self.job_ids(), check=False)
        for name in self.node_names:
            if name not in self._processes:
                self.start_node(name)
        for name, state in self.states().items():
            if "drain" in state or "down" in state:
                self("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        self.until_states("idle", self.node_names)

    def stop(self) -> None:
        """Stop every daemon, and what is left of the jobs."""
        for name in self.node_names:
            if name in self._processes:
                self.kill_node(name)
        for name in list(self._processes):
            self._end(name)
        guardian.forget(self._watch)

    # -- looking ------------------------------------------------------------------------------------

    def job_ids(self) -> list[str]:
        """Return the jobs that are not over."""
        return self("squeue", "--noheader", "--format=%i", check=False).split()

    def states(self) -> dict[str, str]:
        """Return each node's state in Slurm's words."""
        lines = self("sinfo", "--noheader", "--Node", "--partition=all", "--format=%N %T").splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def until_running(self, *ids: str) -> None:
        """Wait until all of the jobs run."""
        words = ("squeue", "--noheader", "--states=RUNNING", "--format=%i")
        _until(lambda: set(ids) <= set(self(*words).split()), f"jobs {ids} to run")

    def until_states(self, state: str, names: Sequence[str]) -> None:
        """Wait until all of the nodes are in a state."""
        _until(lambda: self._are(state, names), f"{names} {state}")

    def _are(self, state: str, names: Sequence[str]) -> bool:
        try:
            states = self.states()
        except AssertionError:
            return False  # slurmctld does not listen yet
        return all(states.get(name) == state for name in names)

    def _spawn(self, key: str, *words: str) -> None:
        self._processes[key] = subprocess.Popen(
            words,
            env={**self.env, guardian.MARK: str(self.folder)},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _end(self, key: str) -> None:
        process = self._processes.pop(key)
        process.terminate()
        try:
            process.wait(_TIMEOUT_S)  # slurmctld saves its state, which the next one goes on with
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def slurm_cli(root: Path, cluster: SlurmCluster) -> Iterator[Cli]:
    """The commands, with a state below ``root`` and the cluster as their only engine."""
    cli = Cli(root)
    cli.configure(
        f'[engines.cluster]\nkind = "slurm"\nconf = "{cluster.conf}"\npoll_interval_s = 0.5\n'
        f'folder = "{root}/shared"\n'
    )
    try:
        yield cli
    finally:
        cli.end()


@contextmanager
def slurm_cluster(
    kinds: Sequence[Kind] = TWO_KINDS, *, is_authentic: bool = True, silent_s: int = SILENT_S
) -> Iterator[SlurmCluster]:
    """A cluster that is up until the end of the block."""
    wanted = ["slurmctld", "slurmd", "sbatch", "srun", *(["munged"] if is_authentic else [])]
    missing = [name for name in wanted if shutil.which(name, path=_PATH) is None]
    needs(not missing, f"Slurm's {', '.join(missing)}: see scripts/services.sh")
    for attempt in range(_STARTS):
        folder = Path(
            tempfile.mkdtemp(prefix="artesian-slurm-", dir="/tmp")
        )  # short: sockets' paths end at 108
        folder.chmod(0o755)
        cluster = SlurmCluster(folder, kinds, silent_s=silent_s)
        try:
            try:
                cluster.write(is_authentic=is_authentic)
                cluster.start()
            except AssertionError:
                if attempt == _STARTS - 1:
                    raise
                continue  # somebody was quicker to listen on a port that was free
            yield cluster
            return
        finally:
            cluster.stop()
            shutil.rmtree(folder, ignore_errors=True)


def _until(holds: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline_s, f"waited in vain for {what}"
        time.sleep(0.05)


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _parent(pid: int) -> int | None:
    fields = stat(pid)
    return int(fields[1]) if fields else None
