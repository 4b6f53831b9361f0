"""The client of a server: ``artesian.client.Client``. Small, synchronous, typed; needs httpx and nothing else.

::

    from artesian.client import Client

    with Client("https://artesian.example", token="artesian_…") as client:
        job = client.submit_text("{name: first, devices: 1, command: [python, train.py], workdir: /data/me}")
        for happening in client.follow(job.id):
            print(happening)

The command line uses it where ARTESIAN_SERVER or ``artesian.toml`` names a server.
"""

from artesian.client.client import Client
from artesian.client.errors import ClientError, Refused, Unreachable

__all__ = ["Client", "ClientError", "Refused", "Unreachable"]
