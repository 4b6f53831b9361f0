"""Pure decisions on a snapshot: who goes first, where, and why the others wait.

``base``      the seams: Policy, Order, Place
``order``     who goes first
``place``     where a job goes
``scored``    where a job goes, by scores of the nodes
``mix``       what jobs are like, given or (``learning``) taken from what runs
``fragmentation``, ``worth``  scores that keep room for the jobs that are yet to come
``pipeline``  a policy from an order and a placement
``accounts``, ``allowance``, ``entitled``  what teams hold, what they let a job have, and who gets which devices by that
``rounds``, ``round``  devices of several models, given out in rounds
``explain``   reasons in words
``registry``  policies by name; plugins
"""
