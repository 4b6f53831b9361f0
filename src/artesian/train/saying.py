"""What a launch agent tells people: lines on stderr."""

import io
import os
import sys


def say(text: str) -> None:
    """Tell whoever reads the agent's stderr. Where it takes nothing, as on a full disk, the agent still goes on."""
    line = f"artesian launch: {text}\n"
    try:
        # Past Python's buffer: what could not be written would be kept there, and the exit code be 120 for it.
        os.write(sys.stderr.fileno(), line.encode(errors="backslashreplace"))
    except io.UnsupportedOperation:  # no file, but what gathers text
        sys.stderr.write(line)
    except (OSError, ValueError, AttributeError):  # the latter two: closed, or there is none
        return
