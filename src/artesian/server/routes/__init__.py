"""The routes below /api/v1, one file per noun. Each names the role that it needs; ``app`` puts them together.

``common``    what they share: JSON answers, the service
``jobs``      submit, list, show, why, cancel, logs
``events``    the journal as a stream
``fleet``     nodes, devices, teams, the queue, the census
``waterfall`` where the compute went
``tokens``    who may come in
``health``    for probes and for Prometheus
"""
