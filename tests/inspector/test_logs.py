"""Log lines tell, and never stop anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.station import camera, until

PASS = 1
SAY = (
    "from inspector import logs\n"
    "from inspector.settings import Logging\n"
    "import structlog\n"
    "logs.configure(Logging(format='json'))\n"
    "for number in range(2000):\n"
    "    structlog.get_logger().error('said', number=number)\n"
)


def test_a_line_is_one_json_object_with_level_and_time():
    done = subprocess.run([sys.executable, "-c", SAY], stderr=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["number"] for line in lines] == list(range(2000))
    assert {(line["event"], line["level"]) for line in lines} == {("said", "error")}
    assert all(line["timestamp"].endswith("Z") for line in lines)


def test_a_full_disk_under_the_lines_is_no_error():
    with Path("/dev/full").open("w") as full:
        assert subprocess.run([sys.executable, "-c", SAY], stderr=full, check=False).returncode in (0, 120)


def test_a_reader_of_the_lines_that_goes_away_stops_no_part(station, plc):
    station.write(camera())
    ours, theirs = os.pipe()
    station.daemon = subprocess.Popen(
        [sys.executable, "-m", "inspector", "run"],
        cwd=station.root,
        stderr=theirs,
        env=station._environment({}),
    )
    os.close(theirs)
    until(lambda: plc.status() & 1, "READY")
    os.close(ours)
    for sequence in (1, 2, 3):
        plc.trigger(sequence)
        until(lambda s=sequence: (s, PASS) in plc.verdicts(), f"verdict {sequence}", 30)
    assert station.stop() == 0
