"""The Slurm engine: one attempt is one native batch job.

``settings``   what a site says about its Slurm: ``[engines.NAME]`` of ``artesian.toml``
``runner``     where Slurm's commands run: here, or on a login node over ssh
``client``     those commands as functions; an unreachable Slurm told from a refusal
``parse``      what they print, JSON or text, as plain data
``inventory``  Slurm's nodes as ours, and what other people's jobs occupy
``stock``      the nodes on offer, and what changes about them
``script``     an attempt as arguments of ``sbatch`` and a file
``attempts``   an attempt under way, and what is written down about it
``submit``     from an attempt to a batch job, never twice
``batch``      on the node: from Slurm's environment to the attempt's own
``gang``       on the first of several nodes: a launch agent on each
``outcome``    Slurm's states as causes
``engine``     commands in, events out
``site``       all of it put together, from a table of ``artesian.toml``

The files of an attempt are the local engine's, on a folder that control plane and nodes share, and the
same supervisor looks after it. So the end of an attempt is known exactly also when Slurm has forgotten
the job, and an attempt that was submitted twice, by whatever accident, runs once.
"""
