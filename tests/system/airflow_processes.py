"""A real Airflow: scheduler, DAG processor, triggerer, API server and tasks in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


class AirflowProcesses:
    """``airflow standalone`` on free ports, in a home of its own, driven through Airflow's REST API."""

    def __init__(self, home: Path, dags: Path, environment: dict[str, str]) -> None:
        self.log = home / "standalone.log"
        self.url = f"http://localhost:{_free_port()}"
        self._token = ""
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__HOST": "localhost",
            "AIRFLOW__API__PORT": self.url.rpartition(":")[2],
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(_free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(_free_port()),
            "NO_PROXY": "localhost,127.0.0.1",
            "no_proxy": "localhost,127.0.0.1",
            **environment,
        }

    def __enter__(self) -> AirflowProcesses:
        command = [sys.executable, "-m", "airflow", "standalone"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.wait(self._is_healthy, "Airflow to be healthy", timeout=180)
            self._token = self.call("GET", "/auth/token")["access_token"]
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop every process that was started, children of children included."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if not self._signal_group(sign):
                return
            give_up = time.monotonic() + 15
            while time.monotonic() < give_up:
                self._process.poll()  # a zombie would keep the group alive
                if not self._signal_group(0):
                    return
                time.sleep(0.1)

    def _signal_group(self, sign: int) -> bool:
        try:
            os.killpg(self._process.pid, sign)
        except ProcessLookupError:
            return False
        return True

    def _is_healthy(self) -> bool:
        try:
            health = self.call("GET", "/api/v2/monitor/health")
        except OSError:
            return False
        return all(health[component]["status"] == "healthy" for component in COMPONENTS)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call Airflow's REST API."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.add_note(error.read().decode(errors="replace")[:1000])
            raise

    def wait(self, condition: Any, what: str, timeout: float) -> None:
        """Wait until the condition holds."""
        give_up = time.monotonic() + timeout
        while not condition():
            if self._process.poll() is not None or time.monotonic() > give_up:
                tail = self.log.read_text(errors="replace")[-4000:]
                raise TimeoutError(f"waited for {what} for {timeout:.0f} s; the log of Airflow ends in\n{tail}")
            time.sleep(1)

    def wait_for_dags(self, dag_ids: Iterable[str]) -> None:
        """Wait until the DAG processor has found the DAGs."""
        wanted = set(dag_ids)

        def are_there() -> bool:
            return wanted <= {dag["dag_id"] for dag in self.call("GET", "/api/v2/dags")["dags"]}

        self.wait(are_there, f"the DAGs {sorted(wanted)}", timeout=120)

    def trigger(self, dag_id: str) -> str:
        """Start a DAG run and return its id."""
        run = self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None})
        return str(run["dag_run_id"])

    def clear(self, dag_id: str, run_id: str) -> None:
        """Clear every task of a DAG run."""
        body = {"dry_run": False, "dag_run_id": run_id, "only_failed": False, "reset_dag_runs": True}
        self.call("POST", f"/api/v2/dags/{dag_id}/clearTaskInstances", body)

    def wait_for_runs(self, runs: Iterable[tuple[str, str]], timeout: float) -> dict[tuple[str, str], str]:
        """Wait until each DAG run has ended, and return their states."""
        states: dict[tuple[str, str], str] = {}

        def have_ended() -> bool:
            for dag_id, run_id in runs:
                states[dag_id, run_id] = self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"]
            return all(state in ("success", "failed") for state in states.values())

        runs = list(runs)
        self.wait(have_ended, f"the DAG runs {runs}", timeout)
        return states

    def task(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Get a task instance."""
        return self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")

    def task_log(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1) -> str:
        """Read what a task logged on the workers."""
        name = f"dag_id={dag_id}/run_id={run_id}/task_id={task_id}/attempt={attempt}.log"
        return (self.log.parent / "logs" / name).read_text()

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Get the value of an XCom."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.call("GET", path)["value"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
