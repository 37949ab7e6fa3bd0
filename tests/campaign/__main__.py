"""Break the station in every way that we can, and count what it loses: `python -m tests.campaign`.

Exit status 1 on any violation (judgement.py defines them), 2 when a fault that was asked for with --only
cannot be done here. --short takes two or three minutes, the full campaign about half an hour.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from tests.campaign import plants, report
from tests.campaign.run import FULL, SHORT, campaign


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--short", action="store_true", help="every fault a few times only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="FAULT", help="this fault only; may be repeated")
    parser.add_argument("--times", type=int, help="each fault so many times")
    parser.add_argument("--patience", type=float, metavar="S", help="the PLC gives a part up after so long")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave stations and histories there")
    parser.add_argument(
        "--plant", action="append", choices=plants.PLANTS, default=[], help="spoil the daemon: must be found"
    )
    arguments = parser.parse_args()
    plan = SHORT if arguments.short else FULL
    unknown = set(arguments.only or ()) - set(plan.times)
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(plan.times)}")
    times = {name: arguments.times or n for name, n in plan.times.items()}
    if arguments.only:
        times = {name: times[name] for name in arguments.only}
    began = time.monotonic()
    plan = dataclasses.replace(plan, times=times, patience_s=arguments.patience or plan.patience_s)
    outcome = campaign(plan, arguments.seed, arguments.plant, arguments.keep)
    report.show(outcome)
    if arguments.json is not None:
        table = report.as_json(outcome, arguments.seed, time.monotonic() - began)
        arguments.json.write_text(json.dumps(table, indent=2) + "\n")
    not_done = set(arguments.only or ()) & set(outcome.skipped)
    if not_done:
        print(f"NOT DONE: {', '.join(sorted(not_done))}; the reason is above", file=sys.stderr)
    return 1 if outcome.verdict.found else 2 if not_done else 0


if __name__ == "__main__":
    sys.exit(main())
