"""A real Airflow: scheduler, DAG processor, triggerer, API server and tasks in processes of their own.

What is started here is a process group of its own, and the whole group is stopped at the end.
"""

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
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
#: Airflow answers late while all its processes are busy.
CALL_TIMEOUT = 120.0
#: Airflow starts in half a minute, and in minutes while the tests of other processes keep the machine busy.
START_TIMEOUT = 600.0
#: Seconds before each new attempt at a call that found SQLite locked. Such a call has changed nothing.
LOCKED_DELAYS = (1, 2, 4, 8, 16)
COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


def stop_when_told() -> None:
    """Let a signal that stops the process raise SystemExit, once, so that what was started is stopped too."""
    signals = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

    def stop(number: int, _: object) -> None:
        for sign in signals:
            signal.signal(sign, signal.SIG_IGN)
        sys.exit(128 + number)

    for sign in signals:
        signal.signal(sign, stop)


def free_port(wanted: int = 0) -> int:
    """Return the wanted port if nobody has it, else another."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def airflow_environment(home: Path, dags: Path, **more: str) -> dict[str, str]:
    """Return the environment of an Airflow that has a home of its own and no settings of the user's."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_"))},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "NO_PROXY": "localhost,127.0.0.1",
        "no_proxy": "localhost,127.0.0.1",
        **more,
    }


@contextmanager
def airflow_command(
    *arguments: str, environment: dict[str, str], stdout: int | IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run an ``airflow`` command while the context lasts."""
    process = subprocess.Popen(  # nosec B603  # the arguments are those of this folder's scripts
        [sys.executable, "-m", "airflow", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if not _signal_group(process, sign):
            return
        give_up = time.monotonic() + 15
        while time.monotonic() < give_up:
            process.poll()  # a zombie would keep the group alive
            if not _signal_group(process, 0):
                return
            time.sleep(0.1)


def _signal_group(process: subprocess.Popen[bytes], sign: int) -> bool:
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        return False
    return True


class AirflowApi:
    """The REST API of an Airflow that lets everybody in.

    :param url: where its API server answers.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._authorization = ""

    def log_in(self, timeout: float) -> None:
        """Wait until Airflow is healthy, and get a token."""
        self.wait(self._is_healthy, "Airflow to be healthy", timeout)
        self._authorization = f"Bearer {self.call('GET', '/auth/token')['access_token']}"

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
            headers={"Content-Type": "application/json", "Authorization": self._authorization},
        )
        delays = iter(LOCKED_DELAYS)
        while True:
            try:
                with urllib.request.urlopen(request, timeout=CALL_TIMEOUT) as answer:  # nosec B310  # the demo's own Airflow
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                text = error.read().decode(errors="replace")[:1000]
                delay = next(delays, None) if error.code == 500 and "Database error" in text else None
                if delay is None:
                    error.add_note(text)
                    raise
                time.sleep(delay)

    def wait(self, condition: Callable[[], object], what: str, timeout: float) -> None:
        """Wait until the condition holds."""
        give_up = time.monotonic() + timeout
        while not condition():
            if not self.is_alive() or time.monotonic() > give_up:
                raise TimeoutError(f"waited for {what} for {timeout:.0f} s{self.last_words()}")
            time.sleep(1)

    def is_alive(self) -> bool:
        """Return False if Airflow has ended."""
        return True

    def last_words(self) -> str:
        """Return the end of Airflow's log, for the error of a wait that timed out."""
        return ""

    def wait_for_dags(self, dag_ids: Iterable[str]) -> None:
        """Wait until the DAG processor has found the DAGs."""
        wanted = set(dag_ids)

        def are_there() -> bool:
            return wanted <= {dag["dag_id"] for dag in self.call("GET", "/api/v2/dags")["dags"]}

        self.wait(are_there, f"the DAGs {sorted(wanted)}", timeout=300)

    def wait_for_files(self, directory: Path) -> list[str]:
        """Wait until the DAG processor has read every file of a directory; return the ids of all DAGs.

        :raises RuntimeError: a file cannot be imported.
        """
        wanted = {path.name for path in directory.glob("*.py")}
        dag_ids: list[str] = []

        def are_read() -> bool:
            errors = self.call("GET", "/api/v2/importErrors")["import_errors"]
            if errors:
                raise RuntimeError("\n".join(f"{error['filename']}:\n{error['stack_trace']}" for error in errors))
            dags = self.call("GET", "/api/v2/dags")["dags"]
            dag_ids[:] = [dag["dag_id"] for dag in dags]
            return wanted <= {Path(dag["fileloc"]).name for dag in dags}

        self.wait(are_read, f"the DAGs of {sorted(wanted)}", timeout=300)
        return dag_ids

    def unpause(self, dag_id: str) -> None:
        """Let the runs of a DAG begin, those that its schedule makes too."""
        self.call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})

    def trigger(self, dag_id: str, run_id: str | None = None, conf: dict[str, Any] | None = None) -> str:
        """Start a DAG run and return its id."""
        body = {"logical_date": None, "dag_run_id": run_id, "conf": conf or {}}
        run = self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)
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

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Mark a task instance, as people do in the UI."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        self.call("PATCH", path, {"new_state": state})

    def links(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Get the URLs of a task instance's links, None for those that are not there, by name."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links"
        return self.call("GET", path)["extra_links"]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Get the value of an XCom."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.call("GET", path)["value"]


class AirflowProcesses(AirflowApi):
    """``airflow standalone`` on free ports, in a home of its own.

    :param home: its directory.
    :param dags: directory of the DAG files.
    :param environment: more settings.
    :param port: port of the API server. Default: a free one.
    :param paused: DAGs are paused until somebody unpauses them. Default: False.
    """

    def __init__(
        self, home: Path, dags: Path, environment: dict[str, str], *, port: int = 0, paused: bool = False
    ) -> None:
        super().__init__(f"http://localhost:{port or free_port()}")
        self.home = home
        self._triggerers: list[subprocess.Popen[bytes]] = []
        self.log = home / "standalone.log"
        self._environment = airflow_environment(
            home,
            dags,
            AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION=str(paused),
            AIRFLOW__CORE__PARALLELISM="6",
            AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=str(free_port()),
            AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT=str(free_port()),
            **self.server_settings(),
            **environment,
        )

    def server_settings(self) -> dict[str, str]:
        """Return the settings of the API server."""
        return {
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__HOST": "localhost",
            "AIRFLOW__API__PORT": self.url.rpartition(":")[2],
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
        }

    def __enter__(self) -> AirflowProcesses:
        with ExitStack() as stack:
            log = stack.enter_context(self.log.open("wb"))
            self._process = stack.enter_context(
                airflow_command("standalone", environment=self._environment, stdout=log)
            )
            self.log_in(timeout=START_TIMEOUT)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def is_alive(self) -> bool:
        """Tell whether ``airflow standalone`` runs."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """Return the end of its log."""
        return f"; the log of Airflow ends in\n{self.log.read_text(errors='replace')[-4000:]}"

    def wait_for_end(self) -> None:
        """Wait until Airflow has ended by itself."""
        self._process.wait()

    def replace_triggerer(self) -> None:
        """Kill the triggerer, with no time to put anything away, and start another one."""
        ours = {self._process.pid, *(triggerer.pid for triggerer in self._triggerers)}
        children = {child.pid for pid in ours for child in psutil.Process(pid).children(recursive=True)} | ours
        killed = [
            process
            for process in psutil.process_iter(["cmdline"])
            if process.pid in children and "triggerer" in " ".join(process.info["cmdline"] or ())
        ]
        assert killed, "there is no triggerer"
        for process in killed:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        environment = {**self._environment, "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port())}
        log = self._stack.enter_context((self.home / f"triggerer-{len(self._triggerers)}.log").open("wb"))
        command = airflow_command("triggerer", environment=environment, stdout=log)
        self._triggerers.append(self._stack.enter_context(command))

    def task_log(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1) -> str:
        """Read what a task logged on the workers."""
        name = f"dag_id={dag_id}/run_id={run_id}/task_id={task_id}/attempt={attempt}.log"
        return (self.home / "logs" / name).read_text()
