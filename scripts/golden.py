#!/usr/bin/env python3
"""Compare every policy's decisions about the golden traces with those that are kept, or keep the new ones.

::

    python scripts/golden.py                   show what differs; exit code 1 when something does
    python scripts/golden.py --update          show it, and keep the new decisions
    python scripts/golden.py --update --trace  make the trace anew, too (same seed, same trace)
"""

import argparse
import difflib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import golden_traces as golden  # noqa: E402 - found on the path above


def compare(path: Path, lines: list[str], *, is_update: bool) -> bool:
    """Print how ``lines`` differ from the file, write them there in an update; return whether they do."""
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if before == lines:
        return False
    name = str(path.relative_to(ROOT))
    difference = difflib.unified_diff(before, lines, f"{name} (kept)", f"{name} (now)", lineterm="")
    sys.stdout.writelines(f"{line}\n" for line in difference)
    if is_update:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return True


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description="Compare or update the golden decisions.")
    parser.add_argument("--update", action="store_true", help="keep what the policies decide now")
    parser.add_argument("--trace", action="store_true", help="make the trace of events anew, too")
    args = parser.parse_args()
    differs = False
    if args.trace:
        lines = golden.encode_events(golden.synthetic_trace())
        differs |= compare(golden.events_path(), lines, is_update=args.update)
    cycles = golden.decode_events(golden.events_path().read_text(encoding="utf-8").splitlines())
    for policy in golden.POLICIES:
        lines = golden.decisions(policy, cycles)
        differs |= compare(golden.plans_path(policy), lines, is_update=args.update)
    if not differs:
        sys.stdout.write("every policy decides as before\n")
    return int(differs and not args.update)


if __name__ == "__main__":
    sys.exit(main())
