"""The Ray engine: attempts are Ray jobs, whose driver takes a placement group and an agent on each node.

``settings``   what a site says about its Ray
``client``     the dashboard's REST interface: jobs and nodes, over HTTP and nothing else
``inventory``  Ray's nodes as nodes that jobs can be placed on; the last word on them
``files``      names of the files that engine, driver and agents share
``request``    an attempt as a file for the driver and the agents
``gang``       the driver of a Ray job: placement group, agents, the verdict
``agent``      the actor on a node
``keeper``     the process between an agent and the attempt's supervisor
``outcome``    verdicts and records as causes
``attempts``   what the engine knows of an attempt, and what its files say
``engine``     commands in, events out
``site``       an engine from a table of ``artesian.toml``

The control plane never imports Ray; ``gang`` and ``agent`` do, on the cluster. What keeps an attempt
single is Ray's refusal of a second job with the same id, and the claim of the supervisor on its first
node. How it ended is written down below the attempt's folder, which all nodes share.
"""
