"""Engines: they carry commands out, and say afterwards what became of them.

``base``      the seam: what every engine does, and what it promises
``registry``  engines by kind; plugins
``options``   what a user says about an engine, read with errors that name the key
``several``   one engine made of several
``local/``    processes on this machine, without any other software
``slurm/``    batch jobs of Slurm

An engine never answers with a return value: a lost reply is only a late event.
"""
