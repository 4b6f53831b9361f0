"""What holds for all tests."""

import signal

from hypothesis import settings

# Tests say what is right, never how long it takes: on a busy machine any example may be slow.
settings.register_profile("artesian", deadline=None)
settings.load_profile("artesian")

# Under nohup, and in the background of a script, Ctrl-C is ignored, and every process that a test starts inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
