"""``python -m airflow_provider_omics_cache.local``: serve the local HealthOmics over HTTP."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import boto3
import botocore
from botocore.exceptions import BotoCoreError, ClientError

from airflow_provider_omics_cache.local import serve
from airflow_provider_omics_cache.local.assumptions import DOCUMENTED_RATE_LIMITS


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT arrives; return the exit code."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        os.environ.pop(name, None)  # moto's own sessions would look for the profile
    arguments = _parser().parse_args(argv)
    if arguments.account:
        os.environ["MOTO_ACCOUNT_ID"] = arguments.account
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with ExitStack() as stack:
        try:
            server = stack.enter_context(
                serve(
                    host=arguments.host,
                    port=arguments.port,
                    speed=arguments.speed,
                    strict=not arguments.lenient,
                    region_name=arguments.region,
                    allow_hosts=arguments.allow_host,
                )
            )
        except OSError as error:
            # create_server adds the address to the text, and gives an unknown name a negative number.
            code = error.errno or 0
            reason = os.strerror(code) if code > 0 else str(error)
            sys.stderr.write(f"cannot listen on --host {arguments.host} --port {arguments.port}: {reason}\n")
            return 2
        server.on_run_completed = arguments.on_run_completed
        if arguments.rate_limits == "documented":
            server.settings.rate_limits = DOCUMENTED_RATE_LIMITS.copy()
        try:
            for workflow_id in arguments.workflow:
                server.register_workflow(workflow_id)
            for name in arguments.bucket:
                server.create_bucket(name)
        except (BotoCoreError, ClientError) as error:
            sys.stderr.write(f"cannot create bucket {name}: {error}\n")
            return 2
        sys.stdout.write(
            f"The local HealthOmics answers at {server.url}\n"
            f"export AIRFLOW_CONN_AWS_DEFAULT={shlex.quote(server.airflow_connection)}\n"
        )
        absent = server.absent()
        if absent:
            sys.stderr.write(
                f"The server refuses these, because botocore {botocore.__version__} lacks them: {', '.join(absent)}\n"
            )
        sys.stdout.flush()
        stopped.wait()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_omics_cache.local",
        description="Serve a local HealthOmics and moto's S3, STS and IAM over HTTP.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=0, help="port to listen on (default: a free one)")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="further name of the server under which its control paths answer, such as a service of docker-compose "
        "(repeatable)",
    )
    parser.add_argument(
        "--speed",
        type=_not_negative,
        default=1.0,
        help="service seconds per real second; at 0 time stands still (default 1.0)",
    )
    parser.add_argument("--account", type=_account, help="account id of every caller (default: moto's)")
    parser.add_argument(
        "--region",
        choices=boto3.session.Session().get_available_regions("omics"),
        metavar="REGION",
        default="us-east-1",
        help="Region of the connection (default us-east-1)",
    )
    parser.add_argument(
        "--bucket", action="append", default=[], metavar="NAME", help="S3 bucket to create (repeatable)"
    )
    parser.add_argument(
        "--workflow",
        type=_workflow_id,
        action="append",
        default=[],
        metavar="ID",
        help="id of a workflow that exists (repeatable)",
    )
    parser.add_argument(
        "--lenient",
        action="store_true",
        help="every workflow, run group and bucket for outputs exists (default: those that were registered or created)",
    )
    parser.add_argument(
        "--rate-limits",
        choices=("none", "documented"),
        default="none",
        help="which limits on calls per second of service time apply (default none)",
    )
    parser.add_argument(
        "--on-run-completed",
        type=_function,
        metavar="MODULE:FUNCTION",
        help="Python function that is called with each completed run",
    )
    return parser


def _port(text: str) -> int:
    if not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError("must be from 0 to 65535")
    return int(text)


def _workflow_id(text: str) -> str:
    if re.fullmatch("[0-9]{1,18}", text) is None:
        raise argparse.ArgumentTypeError("must be 1 to 18 digits")
    return text


def _account(text: str) -> str:
    if re.fullmatch("[0-9]{12}", text) is None:
        raise argparse.ArgumentTypeError("must be 12 digits")
    return text


def _not_negative(text: str) -> float:
    speed = float(text)
    if not 0 <= speed < float("inf"):
        raise argparse.ArgumentTypeError("must be at least 0")
    return speed


def _function(text: str) -> Callable[[dict[str, Any]], None]:
    module, _, name = text.partition(":")
    try:
        function: Callable[[dict[str, Any]], None] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return function


if __name__ == "__main__":
    sys.exit(main())
