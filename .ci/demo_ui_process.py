"""``make demo-ui`` as a process that a test or the screenshots start and stop."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from airflow_processes import ROOT, AirflowApi

URL = re.compile(r"^(?P<what>Airflow's UI|the local HealthOmics): +(?P<url>http://\S+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class DemoUi:
    """The running demo.

    :param airflow: its Airflow.
    :param service_url: its local HealthOmics.
    :param process: the process itself.
    :param output: file with what it has printed.
    """

    airflow: AirflowApi
    service_url: str
    process: subprocess.Popen[bytes]
    output: Path


@contextmanager
def running_demo_ui(python: str, output: Path, dags: Path | None = None) -> Iterator[DemoUi]:
    """Run the demo while the context lasts, and stop it as Ctrl-C does.

    :param python: the Python that has Airflow.
    :param output: file for what it prints.
    :param dags: folder of the DAGs. Default: the examples.
    """
    arguments = [] if dags is None else [str(dags)]
    with output.open("wb") as file:
        process = subprocess.Popen(  # nosec B603  # the arguments are constants of this file and the caller's Python
            [python, str(ROOT / ".ci" / "demo_ui.py"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        urls: dict[str, str] = {}

        def has_said_where() -> bool:
            urls.update(URL.findall(output.read_text()))
            return len(urls) == 2 or process.poll() is not None

        AirflowApi("").wait(has_said_where, "make demo-ui", timeout=240)
        if len(urls) < 2:
            raise RuntimeError(f"make demo-ui has ended:\n{output.read_text()}")
        airflow = AirflowApi(urls["Airflow's UI"])
        airflow.log_in(timeout=30)
        yield DemoUi(airflow=airflow, service_url=urls["the local HealthOmics"], process=process, output=output)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
