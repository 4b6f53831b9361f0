"""The local engine: attempts are process groups on this machine.

``supervisor``   the process around an attempt: claims it, waits for it, writes down how it ended
``records``      the files of an attempt: claim, start, end; who is alive
``environment``  what the processes of an attempt get to see
``outcome``      exit codes and signals as causes
``engine``       commands in, events out

The driver may be killed at any instant. What keeps an attempt single is the *claim*: a file that only
one supervisor can make. What keeps its end from being lost is that the supervisor writes it down,
whether anybody listens or not.
"""
