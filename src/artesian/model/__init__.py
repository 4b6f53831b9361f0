"""The nouns: plain data, no I/O.

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
