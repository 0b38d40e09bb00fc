"""Apache Airflow provider for AWS HealthOmics run caches and batch runs."""

__version__ = "0.1.0"
