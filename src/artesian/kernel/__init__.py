"""The one brain: ``Scheduler.step(events) -> plan``. Pure: no clock, no process, no file.

``scheduler``   one cycle, in six steps
``lifecycle``   the life of a job as a documented state machine
``state``       every node and job; changed by records alone
``nodes``       what it knows of a node
``sharing``     equal parts of jobs and nodes, kept once
``replay``      state = replay(journal)
``accounting``  device-seconds by cause: the ledger behind the waterfall
``training``    what came of one training job: loss, tokens/s, MFU, recoveries
``progress``    what a job's workers said, and which of their steps still count
``timeline``    a worker's time as a partition: no moment twice, none left out
``gang``        which part of the devices a worker stands for
``intervals``   sets of time
``notes``       what a figure rests on, in words
"""
