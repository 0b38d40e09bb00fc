"""``make demo-ui``: everything is up, and nothing is left after Ctrl-C."""

from __future__ import annotations

import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from demo_ui_process import DemoUi, running_demo_ui

from tests.conftest import needs_aiobotocore, needs_batches

pytestmark = [
    pytest.mark.system,
    pytest.mark.demo,
    needs_batches,
    needs_aiobotocore,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc to find processes in"),
]

#: 10 s on a machine that does nothing else; Airflow's own default would take up to 5 minutes.
MOST_SECONDS_FOR_A_NEW_FILE = 60
EXAMPLES = sorted((Path(__file__).parents[2] / "example_dags").glob("*.py"))


def processes_of(home: str) -> list[str]:
    """Return the command lines of all processes that have this AIRFLOW_HOME."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if f"AIRFLOW_HOME={home}".encode() in (directory / "environ").read_bytes().split(b"\0"):
                found.append((directory / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended, or is another user's
    return found


def airflow_home(demo: DemoUi) -> str:
    (line,) = [line for line in demo.output.read_text().splitlines() if line.startswith("Airflow's log:")]
    return str(Path(line.split()[-1]).parent)


def test_is_up_with_every_example_until_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "of-the-user"))
    folder = tmp_path / "dags"
    folder.mkdir()
    examples = {Path(shutil.copy(path, folder)) for path in EXAMPLES}
    with running_demo_ui(sys.executable, tmp_path / "output", folder) as demo:
        home = airflow_home(demo)
        dags = demo.airflow.call("GET", "/api/v2/dags")["dags"]
        assert {Path(dag["fileloc"]) for dag in dags} == examples
        assert {dag["dag_id"] for dag in dags if dag["is_paused"]} == {"omics_housekeeping"}
        assert demo.airflow.call("GET", "/api/v2/dags/~/dagRuns")["total_entries"] == 0
        assert urllib.request.urlopen(demo.airflow.url, timeout=10).status == 200
        assert urllib.request.urlopen(f"{demo.service_url}/local-healthomics/clock", timeout=10).status == 200
        assert len(processes_of(home)) > 4

        (folder / "added.py").write_text("from airflow.sdk import DAG\n\ndag = DAG('omics_added', schedule=None)\n")
        added_at = time.monotonic()
        demo.airflow.wait_for_dags(["omics_added"])
        assert time.monotonic() - added_at < MOST_SECONDS_FOR_A_NEW_FILE

        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(60) == 128 + signal.SIGINT
    assert processes_of(home) == []
    assert not Path(home).exists()
    assert not (tmp_path / "of-the-user").exists()
    for url in (demo.airflow.url, demo.service_url):
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url, timeout=10)
