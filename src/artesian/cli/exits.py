"""The exit codes. For a followed job they say what became of it."""

FAILED, USAGE, INTERRUPTED = 1, 2, 130
JOB_FAILED, JOB_NOT_FINISHED, JOB_NOT_FOUND, JOB_CANCELLED = 100, 101, 102, 103
