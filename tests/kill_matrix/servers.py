"""The servers of the matrix: PostgreSQL, Redis, the local HealthOmics, and each process of Airflow."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from airflow_processes import AirflowApi, airflow_environment, free_port
from psycopg.rows import dict_row

from airflow_provider_omics_cache.local import LocalHealthOmicsControl
from tests.kill_matrix.gateway import Gateway
from tests.kill_matrix.machine import Programs
from tests.kill_matrix.planted import SECRETS
from tests.kill_matrix.processes import Process

DAGS = Path(__file__).parent / "dags"
BUCKET = "kill-matrix"
DATABASE = "airflow"
#: Long limits: the machine may be slow, and no outcome depends on them.
START_SECONDS = 240.0
#: Seconds without a heartbeat after which the scheduler gives a task to another worker.
HEARTBEAT_TIMEOUT = 12


class Airflow(AirflowApi):
    """The API of Airflow; whoever waits for it gives up when one of its processes has ended.

    :param url: where it answers.
    :param processes: the processes.
    """

    def __init__(self, url: str, processes: dict[str, Process]) -> None:
        super().__init__(url)
        self._processes = processes

    def is_alive(self) -> bool:
        """Tell whether every process runs."""
        return all(process.is_alive for process in self._processes.values())

    def last_words(self) -> str:
        """Return the end of the logs of the processes that have ended."""
        ended = [process for process in self._processes.values() if not process.is_alive]
        return "".join(f"; {process.name} has ended:\n{process.last_words()}" for process in ended)


@dataclass
class Servers:
    """All servers, while they run.

    :param processes: the process of each name; a stand-in replaces the process that it stands in for.
    :param service: the local HealthOmics. Its state is in its memory: it is frozen, but never killed. Instead of that,
        the gateway cuts its connections.
    :param gateway: the proxy before the local HealthOmics.
    :param control: control of the local HealthOmics.
    :param airflow: Airflow's API.
    :param service_url: where the local HealthOmics answers, without the gateway.
    :param database_url: connection to Airflow's database.
    :param redis_port: port of the broker.
    :param environment: environment of Airflow's processes.
    :param logs: directory of the logs.
    :param home: Airflow's home.
    :param postgresql: directory of PostgreSQL's programs.
    """

    processes: dict[str, Process]
    service: Process
    gateway: Gateway
    control: LocalHealthOmicsControl
    airflow: AirflowApi
    service_url: str
    database_url: str
    redis_port: int
    environment: dict[str, str]
    logs: Path
    home: Path
    postgresql: Path
    _retired: list[Process] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _down: set[str] = field(default_factory=set)

    def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """Ask Airflow's database.

        :param query: the query.
        :param arguments: its arguments.
        """
        with psycopg.connect(self.database_url, autocommit=True, connect_timeout=10, row_factory=dict_row) as database:
            return database.execute(query, arguments).fetchall()  # type: ignore[arg-type]

    def kill(self, name: str) -> None:
        """Kill a process and leave it down.

        :param name: its name.
        """
        self._down.add(name)
        if name == "service":
            self.gateway.cut()
        else:
            self.processes[name].kill()

    def freeze(self, name: str) -> Process:
        """Freeze a process, and return it.

        :param name: its name.
        """
        process = self.service if name == "service" else self.processes[name]
        process.freeze()
        return process

    def start(self, name: str) -> None:
        """Start a process that was killed.

        :param name: its name.
        """
        if name == "service":
            self.gateway.restore()
        else:
            self.processes[name].start()
        self._down.discard(name)

    def stand_in(self, name: str) -> None:
        """Start another process of the same kind beside a frozen one, which :meth:`retire` kills.

        :param name: name of the process.
        """
        self._retired.append(self.processes[name])
        self.processes[name] = self._airflow_process(name)
        self.processes[name].start()

    def retire(self) -> None:
        """Kill the processes that others have stood in for."""
        for process in self._retired:
            process.kill()
        self._retired.clear()

    def restart_the_dead(self) -> list[str]:
        """Start every process that has ended by itself, as a service manager does, and return their names."""
        dead = [name for name, process in self.processes.items() if name not in self._down and not process.is_alive]
        for name in dead:
            self.processes[name].start()
        return dead

    def start_airflow(self) -> None:
        """Start each process of Airflow."""
        for name in ("api-server", "scheduler", "dag-processor", "triggerer", "worker"):
            self.processes[name] = self._airflow_process(name)
            self.processes[name].start()

    def stop_all(self) -> None:
        """Kill every process: nothing of them is needed any more."""
        for process in [*self._retired, *reversed(self.processes.values())]:
            process.kill()

    def _airflow_process(self, name: str) -> Process:
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        commands = {
            "api-server": ["api-server", "--workers", "1", "--port", self.airflow.url.rpartition(":")[2]],
            "scheduler": ["scheduler", "--skip-serve-logs"],
            "dag-processor": ["dag-processor"],
            "triggerer": ["triggerer", "--skip-serve-logs"],
            "worker": [
                *("celery", "worker", "--skip-serve-logs", "--without-mingle", "--without-gossip"),
                *("--concurrency", "10", "--celery-hostname", f"worker-{number}@%h"),
                *("--pid", str(self.home / f"worker-{number}.pid")),
            ],
        }
        command = [sys.executable, "-m", "airflow", *commands[name]]
        return Process(f"{name}-{number}", command, self.environment, self.logs)


@contextmanager
def running_servers(programs: Programs, home: Path, logs: Path, port: int) -> Iterator[Servers]:
    """Run every server but Airflow while the context lasts; :meth:`Servers.start_airflow` starts that.

    :param programs: the server programs.
    :param home: directory for their data.
    :param logs: directory for their logs.
    :param port: port of Airflow's API server; 0 for a free one.
    """
    home.chmod(0o711)  # PostgreSQL runs as another user
    with ExitStack() as stack:
        processes: dict[str, Process] = {}
        service_port = free_port()
        service = _local_healthomics(service_port, logs)
        stack.callback(service.kill)
        service.start()
        wait_until(lambda: _answers(service_port), "the local HealthOmics", service)
        service_url = f"http://127.0.0.1:{service_port}"
        gateway = stack.enter_context(Gateway(("127.0.0.1", service_port), logs / "calls.log"))
        processes["database"], database_port = _postgresql(programs.postgresql, home, logs)
        processes["broker"], redis_port = _redis(programs.redis, home, logs)
        database = f"airflow:{SECRETS['database password']}@127.0.0.1:{database_port}/{DATABASE}"
        airflow = Airflow(f"http://127.0.0.1:{port or free_port()}", processes)
        servers = Servers(
            processes=processes,
            service=service,
            gateway=gateway,
            control=LocalHealthOmicsControl(service_url),
            airflow=airflow,
            service_url=service_url,
            database_url=f"postgresql://{database}",
            redis_port=redis_port,
            environment=_environment(home, airflow.url, gateway.url, database, redis_port),
            logs=logs,
            home=home,
            postgresql=programs.postgresql,
        )
        stack.callback(servers.stop_all)
        processes["database"].start()
        processes["broker"].start()
        wait_until(lambda: _answers(redis_port), "Redis", processes["broker"])
        wait_until(lambda: bool(servers.rows("SELECT 1")), "PostgreSQL", processes["database"])
        yield servers


def wait_until(condition: Callable[[], bool], what: str, process: Process, seconds: float = START_SECONDS) -> None:
    """Wait until a server answers.

    :param condition: whether it does.
    :param what: its name.
    :param process: its process.
    :param seconds: the longest wait.
    :raises RuntimeError: it has ended, or does not answer.
    """
    give_up = time.monotonic() + seconds
    while True:
        with suppress(OSError, psycopg.OperationalError):
            if condition():
                return
        if not process.is_alive or time.monotonic() > give_up:
            raise RuntimeError(f"{what} does not answer; its log ends in\n{process.last_words()}")
        time.sleep(0.2)


def _answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return True


def _local_healthomics(port: int, logs: Path) -> Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_"))}
    command = [
        sys.executable,
        "-m",
        "airflow_provider_omics_cache.local",
        "--port",
        str(port),
        "--bucket",
        BUCKET,
        "--lenient",
    ]
    return Process("service", command, environment, logs)


def _postgresql(programs: Path, home: Path, logs: Path) -> tuple[Process, int]:
    user = _user_of_postgresql()
    directory, password = home / "postgresql", home / "postgresql-password"
    directory.mkdir()
    password.write_text(SECRETS["database password"])
    if user:
        shutil.chown(directory, user)
        shutil.chown(password, user)
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
    subprocess.run(
        [
            *(programs / "initdb", "--pgdata", directory, "--username", "airflow", "--encoding", "UTF8"),
            *("--auth", "scram-sha-256", "--pwfile", password, "--no-sync"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        env=environment,
        cwd="/",
        user=user,
        extra_groups=[] if user else None,
    )
    port = free_port()
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": 200,
        "fsync": "off",  # processes are killed here, not the machine
    }
    options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
    process = Process("database", [str(programs / "postgres"), "-D", str(directory), *options], environment, logs, user)
    process.start()
    url = f"postgresql://airflow:{SECRETS['database password']}@127.0.0.1:{port}/postgres"

    def create_database() -> bool:
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as database:
            database.execute(f"CREATE DATABASE {DATABASE}")
        return True

    try:
        wait_until(create_database, "PostgreSQL", process)
    finally:
        process.stop()
    return process, port


def _user_of_postgresql() -> str | None:
    """Return the user that PostgreSQL must run as, because it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _redis(program: str, home: Path, logs: Path) -> tuple[Process, int]:
    port = free_port()
    configuration = home / "redis.conf"
    configuration.write_text(
        f'port {port}\nbind 127.0.0.1\nsave ""\nappendonly no\ndir {home}\nrequirepass {SECRETS["broker password"]}\n'
    )
    return Process("broker", [program, str(configuration)], {"PATH": os.environ["PATH"]}, logs), port


def _environment(home: Path, airflow: str, gateway: str, database: str, redis_port: int) -> dict[str, str]:
    connection = {
        "conn_type": "aws",
        "login": "testing",
        "password": SECRETS["secret key"],
        "extra": {
            "aws_session_token": SECRETS["session token"],
            "endpoint_url": gateway,
            "region_name": "us-east-1",
            "config_kwargs": {"inject_host_prefix": False},
        },
    }
    return airflow_environment(
        home,
        DAGS,
        PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
        PYTHONUNBUFFERED="1",
        AIRFLOW_CONN_AWS_DEFAULT=json.dumps(connection),
        AIRFLOW_VAR_SESSION_POLICY=SECRETS["session policy"],
        AIRFLOW__CORE__EXECUTOR="CeleryExecutor",
        AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True",
        AIRFLOW__CORE__FERNET_KEY="a2lsbC1tYXRyaXgta2lsbC1tYXRyaXgta2lsbC1tYXQ=",
        AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"{airflow}/execution/",
        AIRFLOW__API__BASE_URL=airflow,
        AIRFLOW__API__HOST="127.0.0.1",
        AIRFLOW__API__PORT=airflow.rpartition(":")[2],
        AIRFLOW__API__SECRET_KEY=SECRETS["api key"],
        AIRFLOW__API_AUTH__JWT_SECRET=SECRETS["jwt secret"],
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"postgresql+psycopg2://{database}",
        AIRFLOW__CELERY__BROKER_URL=f"redis://:{SECRETS['broker password']}@127.0.0.1:{redis_port}/0",
        AIRFLOW__CELERY__RESULT_BACKEND=f"db+postgresql+psycopg2://{database}",
        AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER="1",
        AIRFLOW__LOGGING__LOGGING_LEVEL="DEBUG",
        AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT=str(HEARTBEAT_TIMEOUT),
        AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL="3",
        AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD="15",
        AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL="10",
        AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT="45",
        AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL="5",
        AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC="2",
        AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD="12",
        AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL="2",
    )
