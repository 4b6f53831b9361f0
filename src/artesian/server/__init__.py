"""The control plane: what drives ``kernel.Scheduler`` with real time and real engines.

``config``    where the state lives; the environment is read here
``settings``  what the user has set: artesian.toml
``fleet``     this machine, as nodes
``driver``    the live driver: journal, step, engine, in a loop
``bell``      waking the daemon, and the lock that it holds
``daemon``    the process around the driver, started when somebody needs it
``embedded``  the control plane for a command: submit, cancel, read, wake the daemon
``report``    waterfalls and training summaries
"""
