"""``make mutants``: plant faults in the modules of ``healthomics/``, and check that tests notice them."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.mutants.catalogue import MUTANTS
from tests.mutants.runner import run


def main(arguments: list[str]) -> int:
    """Test every mutant, or those whose fault contains a text."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only mutants whose module or fault contains this")
    given = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if given.only in f"{mutant.module} {mutant.fault}"]
    if not chosen:
        parser.error(f"no mutant contains {given.only!r}")
    began = time.monotonic()
    survivors = 0
    try:
        for result in run(chosen, os.cpu_count() or 1):
            mutant, survivors = result.mutant, survivors + (result.error is not None)
            outcome = "noticed" if result.error is None else "SURVIVED"
            print(f"{outcome:8} {result.seconds:5.1f} s  {mutant.module:10}  {mutant.fault}", flush=True)
            if result.error is not None:
                print(f"  {result.error}")
    except (ValueError, RuntimeError) as error:
        sys.exit(str(error))
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants were noticed, in {time.monotonic() - began:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
