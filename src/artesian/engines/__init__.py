"""Engines: they carry commands out, and say afterwards what became of them.

``base``      the seam: what every engine does, and what it promises
``registry``  engines by name; plugins
``local/``    processes on this machine, without any other software

An engine never answers with a return value: a lost reply is only a late event.
"""
