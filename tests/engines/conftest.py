"""Makes the harness's fixtures known to pytest.

The contract runs against every engine that has a file ``tests/engine_NAME.py`` with a context manager
``ground(root, session)``: see ``engines_harness``. Tests of one engine only override the fixture in their
own file, as ``test_local_engine.py`` does.
"""

from engines_harness import harness, session
from postgres_server import postgres

__all__ = ["harness", "postgres", "session"]
