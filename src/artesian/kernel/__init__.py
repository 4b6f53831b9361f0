"""The one brain: ``Scheduler.step(events) -> plan``. Pure: no clock, no process, no file.

``scheduler``   one cycle, in six steps
``lifecycle``   the life of a job as a documented state machine
``state``       every node and job; changed by records alone
``replay``      state = replay(journal)
``accounting``  device-seconds by cause: the ledger behind the waterfall
"""
