"""Airflow 2 in processes of its own: its web server has another API, and SQLite lets it run one task at a time."""

from __future__ import annotations

import base64
from typing import Any

from airflow_processes import AirflowProcesses

COMPONENTS = ("metadatabase", "scheduler", "triggerer")


class Airflow2Processes(AirflowProcesses):
    """``airflow standalone`` of Airflow 2, with what the tests ask of its REST API."""

    def server_settings(self) -> dict[str, str]:
        """Return the settings of the web server."""
        return {
            "AIRFLOW__API__AUTH_BACKENDS": "airflow.providers.fab.auth_manager.api.auth.backend.basic_auth",
            "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "localhost",
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": self.url.rpartition(":")[2],
            "AIRFLOW__WEBSERVER__BASE_URL": self.url,
            "AIRFLOW__WEBSERVER__WORKERS": "1",
        }

    def log_in(self, timeout: float) -> None:
        """Wait until Airflow is healthy, and read the password that it made."""
        self.wait(self._is_healthy, "Airflow to be healthy", timeout)
        password = (self.home / "standalone_admin_password.txt").read_text().strip()
        self._authorization = f"Basic {base64.b64encode(f'admin:{password}'.encode()).decode()}"

    def _is_healthy(self) -> bool:
        try:
            health = self.call("GET", "/api/v1/health")
        except OSError:
            return False
        return all(health[component]["status"] == "healthy" for component in COMPONENTS)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call Airflow's REST API, at the path of version 1."""
        return super().call(method, path.replace("/api/v2/", "/api/v1/", 1), body)

    def trigger(self, dag_id: str, run_id: str | None = None, conf: dict[str, Any] | None = None) -> str:
        """Start a DAG run and return its id."""
        body = {"conf": conf or {}} | ({"dag_run_id": run_id} if run_id else {})
        return str(self.call("POST", f"/api/v1/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def links(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Get the URLs of a task instance's links, None for those that are not there, by name."""
        return self.call("GET", f"/api/v1/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/links")

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Get the value of an XCom."""
        path = f"/api/v1/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.call("GET", f"{path}?stringify=false")["value"]
