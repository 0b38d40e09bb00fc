"""``make test-mwaa``: resolve the requirements of ``docs/install.rst`` against the packages of each MWAA image.

``tests/mwaa/3.3.1.txt`` and so on are what pip lists in the images. They stand for MWAA's constraints too, which have
the same versions. pip runs in an environment with these packages as on MWAA, but installs nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mwaa.page import PAGE, Case, cases

ROOT = Path(__file__).parents[2]
DISTRIBUTION = "airflow-provider-omics-cache"
#: Packages, or the beginnings of their names, that MWAA never lets users change.
ESSENTIAL = (
    "apache-airflow==",
    "flask",
    "gunicorn==",
    "billiard==",
    "celery==",
    "gevent==",
    "greenlet==",
    "kombu==",
    "vine==",
    "sqlalchemy",
    "statsd==",
    "watchtower==",
    "fluent-logger==",
)
#: The newest versions that pip could choose when the page was written. Newer releases are excluded, so that the result
#: stays the same.
NEWEST = ("aiohttp<=3.14.5", "aiosignal<=1.4.0", "s3transfer<=0.19.3", "yarl<=1.25.1")


def image_file(image: str) -> Path:
    """Return the file with the packages of an image.

    :param image: version of Airflow of the image.
    """
    return Path(__file__).with_name(f"{image}.txt")


def resolve(case: Case, wheels: Path) -> str | None:
    """Let pip resolve the requirements as MWAA does. Return what differs from the page, None if nothing does.

    :param case: the case.
    :param wheels: folder with the wheel of the package.
    """
    packages = image_file(case.image).read_text().splitlines()
    with tempfile.TemporaryDirectory(prefix="omics-mwaa-") as name:
        directory = Path(name)
        (directory / "requirements.txt").write_text("\n".join(case.requirements) + "\n")
        essential = [line for line in packages if line.startswith(ESSENTIAL)]
        constraints = packages if case.keeps_constraints else [*essential, *NEWEST]
        (directory / "constraints.txt").write_text("\n".join(constraints) + "\n")
        report = directory / "report.json"
        command = [
            *(str(ROOT / f".venv-mwaa-{case.image}" / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"),
            *("install", "--dry-run", "-qq", "--report", str(report), "--find-links", str(wheels)),
            *("--constraint", str(directory / "constraints.txt"), "--requirement", str(directory / "requirements.txt")),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if case.replaced is None:
            return (
                None if "ResolutionImpossible" in done.stderr else f"pip must refuse it: {done.stderr or 'it did not'}"
            )
        if done.returncode:
            return done.stderr
        installed = {item["metadata"]["name"] for item in json.loads(report.read_text())["install"]}
    expected = {DISTRIBUTION, *case.replaced}
    if installed != expected:
        return f"pip installs {', '.join(sorted(installed))}; the page says {', '.join(sorted(expected))}"
    return None


def main() -> int:
    """Resolve each case of the page."""
    found = cases(PAGE.read_text())
    failed = 0
    with tempfile.TemporaryDirectory(prefix="omics-mwaa-") as wheels, ThreadPoolExecutor(2) as pool:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels]
        subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for case, error in zip(found, pool.map(resolve, found, [Path(wheels)] * len(found)), strict=True):
            outcome = "is refused, as the page says" if case.replaced is None else "is as the page says"
            print(f"{case} {outcome if error is None else 'DIFFERS'}", flush=True)
            if error is not None:
                failed += 1
                print(f"  {error}")
    print(f"{len(found) - failed} of {len(found)} requirement sets are as {PAGE.name} says")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
