"""The DAG of docs/install.rst that shows what is installed."""

# [START versions]
from importlib.metadata import PackageNotFoundError, version

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task


@dag(schedule=None)
def installed_versions():
    @task
    def show_versions() -> dict[str, str]:
        found = {}
        for name in ("apache-airflow", "airflow-provider-omics-cache", "boto3", "botocore", "aiobotocore"):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = "not installed"
        return found

    show_versions()


installed_versions()
# [END versions]
