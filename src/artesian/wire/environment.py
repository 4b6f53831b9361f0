"""Names of the environment variables that artesian sets for the processes it starts.

Workers also get torchrun's variables (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``, ...),
so that a script written for torchrun runs unchanged; these are artesian's own, on top.
"""

JOB_ID = "ARTESIAN_JOB_ID"
EPOCH = "ARTESIAN_EPOCH"
"""Number of the attempt, from 1. It fences: what an older attempt still says is ignored."""
PROGRESS_DIR = "ARTESIAN_PROGRESS_DIR"
"""Folder for the attempt's progress files, one per worker."""
CHECKPOINT_DIR = "ARTESIAN_CHECKPOINT_DIR"
"""Folder for the job's checkpoints; the same for all its attempts."""
CHECKPOINT_EVERY = "ARTESIAN_CHECKPOINT_EVERY"
"""Steps between two checkpoints; ``600s``: the time between them; ``auto``: as often as is best."""
DATASET = "ARTESIAN_DATASET"
"""Folder of text that the job names under ``data:``."""
STOP_GRACE = "ARTESIAN_STOP_GRACE"
"""Seconds that the attempt has from SIGTERM, when it is to stop, to the SIGKILL that the engine sends."""
FAULTS = "ARTESIAN_FAULTS"
"""JSON list of faults to inject (see ``artesian.wire.faults``)."""
WORKERS = "ARTESIAN_WORKERS"
"""Workers that ``artesian launch`` starts on this node when no ``--nproc-per-node`` is given."""
DEVICES = "ARTESIAN_DEVICES"
"""Indices of the node's devices that the attempt may use, separated by commas."""
LOG_DIR = "ARTESIAN_LOG_DIR"
"""Folder in which the launch agent keeps the output of every worker but its first: ``rank-N.out``.

Where it is not set, all workers of a node write to the agent's own stdout and stderr.
"""
AGENT_FDS = "ARTESIAN_AGENT_FDS"
"""Two file descriptors that a worker has from its launch agent: its heartbeat's page, and a socket."""
MEMORY = "ARTESIAN_MEMORY"
"""Name of the node's shared memory in which workers keep their state between restarts by the launch agent."""
HOLDER = "ARTESIAN_HOLDER"
"""Where this node holds other nodes' memory: a JSON object with host, port and token; set for workers."""
RESTART = "ARTESIAN_RESTART"
"""How often the launch agent has restarted the gang within this attempt."""
RDZV_TOKEN = "ARTESIAN_RDZV_TOKEN"  # noqa: S105 - a name
"""Secret that the launch agents of several nodes share; needed where they meet over a network."""
STATE_DIR = "ARTESIAN_STATE"
"""Folder of the embedded control plane's state."""
CONFIG = "ARTESIAN_CONFIG"
"""File with the settings of the control plane."""
SERVER = "ARTESIAN_SERVER"
"""Address of the server that the command line asks, such as ``https://artesian.example``."""
TOKEN = "ARTESIAN_TOKEN"  # noqa: S105 - a name
"""The token that the server is shown."""
TOKEN_FILE = "ARTESIAN_TOKEN_FILE"  # noqa: S105 - a name
"""File, mode 0600, that has the token."""
DATABASE = "ARTESIAN_DATABASE"
"""URL of the PostgreSQL database that servers share. Its password stays out of the list of processes here."""
