"""Pure decisions on a snapshot: who goes first, where, and why the others wait.

``base``      the seams: Policy, Order, Place
``order``     who goes first
``place``     where a job goes
``pipeline``  a policy from an order and a placement
``explain``   reasons in words
``registry``  policies by name; plugins
"""
