"""The commands: the only place that reads argv and prints.

``main``        the command line; imports a command when it is called
``exits``       the exit codes
``streams``     stdin, stdout and stderr as a command finds them
``output``      what all commands share in printing
``picture``     a waterfall and a training summary in the terminal
``plot``        a waterfall as SVG or PNG

Everything else is one file per group of commands.
"""
