"""The nouns: plain data, no I/O.

They are ``msgspec.Struct``s, which are made in a ninth of the time of a frozen dataclass, and read from a journal
without a detour: ``class Start(Struct, frozen=True, kw_only=True, gc=False)``. ``gc=False`` keeps them from the
garbage collector: what holds only what was there before it is in no cycle. To change one is
``msgspec.structs.replace``.

``units``, ``resources``       durations, sizes, resource strings
``fleet``                      Device, Node, Pool, Center, Fleet
``job``                        Job, RetryPolicy, Cause, Outcome
``placement``, ``quota``       where an attempt runs; what a team is guaranteed
``events``, ``plan``           what happened; what is to be done, with reasons
``capacity``, ``snapshot``     what is free (arrays); what a policy sees
``ledger``                     the waterfall
``jobfile``                    a Job from YAML; ``document`` and ``fields`` read any such file
``errors``                     the base of all errors
"""
