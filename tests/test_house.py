"""The project's own rules: imports, README, units, file sizes, changelog."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from inspector import __version__
from inspector.cli import app

ROOT = Path(__file__).parents[1]
LONGEST = 400  # lines of a file


def commands():
    return set(typer.main.get_command(app).commands)


def test_import_rules_hold():
    """The contracts are in pyproject.toml."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_readme_lists_exactly_the_commands_that_exist():
    listed = re.findall(r"^\| `inspector ([a-z-]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(commands())


@pytest.mark.parametrize("page", ["README.md", "station.toml", "CHANGELOG.md"])
def test_no_page_speaks_of_a_command_that_does_not_exist(page):
    named = re.findall(r"`inspector ([a-z][a-z-]*)", (ROOT / page).read_text())
    assert set(named) <= commands()


def test_every_line_of_what_happens_when_names_a_test_that_exists():
    chapter = (ROOT / "README.md").read_text().split("## What happens when")[1].split("\n## ")[0]
    lines = [line for line in chapter.splitlines() if line.startswith("| ")][1:]
    known = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^ *def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert len(lines) > 20
    for line in lines:
        named = re.findall(r"`(test_\w+)`", line)
        assert named, f"no test is named: {line}"
        assert set(named) <= known, line
        assert line.count("|") == 6, f"five columns: {line}"


def test_messages_speak_of_no_command_that_does_not_exist():
    for file in [*(ROOT / "inspector").rglob("*.py"), *(ROOT / "training").rglob("*.py")]:
        named = re.findall(r"`inspector ([a-z][a-z-]*)", file.read_text())
        assert set(named) <= commands(), file


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_units_verify(tmp_path):
    units = sorted(path for path in (ROOT / "systemd").iterdir() if path.suffix in (".service", ".timer"))
    assert units
    for unit in units:
        text = re.sub(r"^(Exec\w+=[-+!@]*)\S+", r"\1/bin/true", unit.read_text(), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text)
    copies = [tmp_path / unit.name for unit in units]
    done = subprocess.run(["systemd-analyze", "verify", *copies], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "inspector" in line]
    assert (done.returncode, ours) == (0, [])


def test_units_run_a_command_that_exists():
    for unit in (ROOT / "systemd").iterdir():
        for command in re.findall(r"^Exec\w+=\S*/inspector ([a-z-]+)", unit.read_text(), re.MULTILINE):
            assert command in commands()


def test_files_stay_short():
    files = [*(ROOT / "inspector").rglob("*.py"), *(ROOT / "training").rglob("*.py")]
    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}
    assert len(files) > 50
    assert {file: count for file, count in lines.items() if count > LONGEST} == {}


def test_the_changelog_knows_this_version():
    headings = re.findall(r"^## .*$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert any(__version__ in heading for heading in headings), headings
