"""``make screenshots``: take the pictures of README.md and docs/ in the Airflow of ``make demo-ui``.

The pictures are files of the repository, docs/_static/screenshots/*.png: look at them before you commit them.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_processes import ROOT, stop_when_told
from demo_ui_process import DemoUi, running_demo_ui
from PIL import Image
from playwright.sync_api import FloatRect, Page, expect, sync_playwright

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES = ROOT / "docs" / "_static" / "screenshots"
WIDTH = 1400
MAX_BYTES = 200_000
#: Graphs are drawn and moved after their data has come.
SETTLED_AFTER_MS = 1500
#: A page of Airflow is slow while its tasks work.
LOADED_AFTER_MS = 60_000
#: Pixels around the graph.
MARGIN = 16
RUN_ID = "november"


def main() -> int:
    """Take every picture anew."""
    stop_when_told()
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="omics-screenshots-") as directory:
        python = str(ROOT / ".venv" / "bin" / "python")
        with running_demo_ui(python, Path(directory) / "demo-ui.log") as demo, browser_page() as page:
            Camera(demo, page).take_all()
    return 0


@contextmanager
def browser_page() -> Iterator[Page]:
    """Open a page in headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser.new_page(color_scheme="light", locale="en-US", timezone_id="UTC")
        browser.close()


class Camera:
    """Takes pictures of Airflow's UI.

    :param demo: the running demo.
    :param page: a page of the browser.
    """

    def __init__(self, demo: DemoUi, page: Page) -> None:
        self._demo = demo
        self._airflow = demo.airflow
        self._page = page

    def take_all(self) -> None:
        """Run examples and take every picture."""
        shown = "".join(page.read_text() for page in (ROOT / "docs").rglob("*.rst"))
        for dag in self._airflow.call("GET", "/api/v2/dags")["dags"]:
            if f"screenshots/{dag['dag_id']}.png" in shown:
                self._open(f"/dags/{dag['dag_id']}", view="graph", details=20, height=1000)
                self._take(dag["dag_id"], only=".react-flow__node, .react-flow__edge")
        self.take_cohort()
        self.take_xcom()
        self.take_failed_submissions()
        self.take_resumed_cohort()
        self.take_results()

    def take_cohort(self) -> None:
        """Take a sensor while it is deferred, and the DAG run when it has finished."""
        dag_id, sensor = "omics_cohort_by_parts", "wait_for_submission"
        self._control("clock", speed=0)  # the batch stays as it is, and the sensor deferred
        self._airflow.trigger(dag_id, RUN_ID)
        self._airflow.wait(lambda: self._state(dag_id, sensor) == "deferred", f"{sensor} to defer", timeout=90)
        self._open(f"{self._run(dag_id)}/tasks/{sensor}/details", view="grid", details=75)
        self._take("deferred_task")
        self._finish(dag_id)
        self._open(self._run(dag_id), view="graph", details=30)
        self._take("finished_run")

    def take_xcom(self) -> None:
        """Take the mapping in the sensor's XCom."""
        dag_id = "omics_quickstart"
        self._airflow.trigger(dag_id, RUN_ID)
        self._finish(dag_id)
        self._open_xcom(dag_id, "wait_for_submission", "return_value")
        self._take("xcom")

    def take_failed_submissions(self) -> None:
        """Take failed submissions in the sensor's XCom."""
        dag_id = "omics_resubmit_failed"
        for sample in ("HG00007", "HG00042", "HG01234"):
            fault = {"reason": "ThrottlingException", "message": "Rate exceeded", "times": 1}
            self._control("faults/fail_submission", args=[sample], kwargs=fault)
        self._airflow.trigger(dag_id, RUN_ID)
        self._finish(dag_id)
        self._open_xcom(dag_id, "cohort.round_1.wait_for_submission", "failed_submission_count")
        self._take("failed_submissions")

    def take_resumed_cohort(self) -> None:
        """Take the rounds of a cohort whose failed runs were resumed, and its summary."""
        dag_id, groups = "omics_cohort", ("cohort", "cohort.round_1", "cohort.round_2", "cohort.round_3")
        for sample in range(10, 130, 10):
            fault = {"run_name": f"lung{sample:05}", "reason": "SERVICE_ERROR"}
            self._control("faults/fail_task", args=["Report"], kwargs=fault)
        for sample in (42, 99):
            fault = {"run_name": f"lung{sample:05}", "reason": "OUT_OF_MEMORY_ERROR"}
            self._control("faults/fail_task", args=["CallVariants"], kwargs=fault)
        self._airflow.trigger(dag_id, RUN_ID, conf={"samplesheet": "s3://omics-quickstart/lung.csv"})
        self._finish(dag_id)
        self._open_xcom(dag_id, "cohort.results", "summary", height=1120, width=1100, details=66, groups=groups)
        # The box of a JSON value scrolls: show the value whole.
        self._page.locator("section:has(.monaco-editor)").evaluate("box => box.style.height = '800px'")
        self._page.get_by_role("row").filter(has_text="summary").first.evaluate("row => row.scrollIntoView()")
        self._take("resumed_cohort")

    def take_results(self) -> None:
        """Take the counts and the failed runs of a cohort in the sensor's XCom."""
        dag_id, run_id = "omics_cohort_by_parts", "december"
        reasons = {
            "HG00007": "OUT_OF_MEMORY_ERROR",
            "HG00042": "INPUT_URI_NOT_FOUND",
            "HG01234": "OUT_OF_MEMORY_ERROR",
        }
        for sample, reason in reasons.items():
            self._control("faults/fail_run", args=[sample], kwargs={"reason": reason})
        self._airflow.trigger(dag_id, run_id)
        self._finish(dag_id, run_id)
        self._open_xcom(dag_id, "wait_for_completion", "failed_run_count", run_id, height=1100)
        self._take("cohort_results")

    def _run(self, dag_id: str, run_id: str = RUN_ID) -> str:
        return f"/dags/{dag_id}/runs/{run_id}"

    def _finish(self, dag_id: str, run_id: str = RUN_ID) -> None:
        self._control("clock", speed=30)
        states = self._airflow.wait_for_runs([(dag_id, run_id)], timeout=600)
        if set(states.values()) != {"success"}:
            sys.exit(f"{dag_id} has not succeeded: {states}")

    def _open_xcom(
        self,
        dag_id: str,
        task_id: str,
        first: str,
        run_id: str = RUN_ID,
        height: int = 900,
        width: int = WIDTH,
        details: int = 75,
        groups: Sequence[str] = (),
    ) -> None:
        """Open the XComs of a task with the one of a key at the top."""
        path = f"{self._run(dag_id, run_id)}/tasks/{task_id}/xcom?sort=key"
        self._open(path, view="grid", details=details, height=height, width=width, groups=groups)
        self._page.get_by_label("Expand all extra JSON").click()
        self._page.get_by_role("row").filter(has_text=first).first.evaluate("row => row.scrollIntoView()")

    def _state(self, dag_id: str, task_id: str) -> str:
        state: str = self._airflow.task(dag_id, RUN_ID, task_id)["state"]
        return state

    def _control(self, name: str, **values: Any) -> None:
        url = f"{self._demo.service_url}/local-healthomics/{name}"
        request = urllib.request.Request(url, data=json.dumps(values).encode())
        urllib.request.urlopen(request, timeout=10)  # nosec B310  # the local HealthOmics that the demo has started

    def _open(
        self,
        path: str,
        *,
        view: str,
        details: int,
        height: int = 900,
        width: int = WIDTH,
        groups: Sequence[str] = (),
    ) -> None:
        """Open a page with the grid or the graph beside it; graphs run downward, since more of them is legible so.

        :param path: path of the page.
        :param view: ``grid`` or ``graph``.
        :param details: per cent of the width that the page itself has.
        :param height: height of the window.
        :param width: width of the window.
        :param groups: ids of the task groups that are open. Default: none.
        """
        self._page.set_viewport_size({"width": width, "height": height})
        panels = {"details-panel,main-panel": {"expandToSizes": {}, "layout": [100 - details, details]}}
        self._page.goto(self._airflow.url)
        settings = {
            "default_dag_view": view,
            f"react-resizable-panels:{view}-ltr": panels,
            f"direction-{path.split('/')[2]}": "DOWN",
            f"{path.split('/')[2]}/open-groups": groups,
        }
        for key, value in settings.items():
            self._page.evaluate("([key, value]) => localStorage.setItem(key, value)", [key, json.dumps(value)])
        self._page.goto(self._airflow.url + path)

    def _take(self, name: str, *, only: str | None = None) -> None:
        """Take the page, or the part of it that shows the elements of a selector, when everything is there."""
        self._page.wait_for_load_state("networkidle")
        for unfinished in (".chakra-skeleton", ".chakra-spinner", "[role=progressbar]"):
            expect(self._page.locator(f"{unfinished}:visible")).to_have_count(0, timeout=LOADED_AFTER_MS)
        alerts = [text for text in self._page.get_by_role("alert").all_inner_texts() if text.strip()]
        if alerts:
            sys.exit(f"{self._page.url} shows {alerts}")
        self._page.add_style_tag(content=".react-flow__panel { display: none }")  # a small map would hide tasks
        self._page.wait_for_timeout(SETTLED_AFTER_MS)
        taken = self._page.screenshot(clip=self._around(only) if only else None)
        picture = PICTURES / f"{name}.png"
        Image.open(io.BytesIO(taken)).convert("RGB").quantize(256).save(picture, optimize=True)
        size = picture.stat().st_size
        if size > MAX_BYTES:
            sys.exit(f"{picture} has {size:,} bytes, more than {MAX_BYTES:,}")
        print(f"{picture.relative_to(ROOT)}: {size:,} bytes", flush=True)

    def _around(self, selector: str) -> FloatRect:
        boxes = [box for element in self._page.locator(selector).all() if (box := element.bounding_box())]
        left, top = (min(box[side] for box in boxes) - MARGIN for side in ("x", "y"))
        right = max(box["x"] + box["width"] for box in boxes) + MARGIN
        bottom = max(box["y"] + box["height"] for box in boxes) + MARGIN
        return {"x": left, "y": top, "width": right - left, "height": bottom - top}


if __name__ == "__main__":
    sys.exit(main())
