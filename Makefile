# GNU make and pip are all it takes. Environments stay in the checkout (.venv*), results in build/.
SHELL := bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell test -x .venv/bin/python && echo .venv/bin/python || echo python3)
PYTHON311 ?= $(shell command -v python3.11 || echo python3)
UV ?= uv
PYTEST_ARGS ?=
# Tests run side by side, each file in one process. PYTEST_WORKERS=0 runs them one after the other.
PYTEST_WORKERS ?= 2
PYTEST = -m pytest -n $(PYTEST_WORKERS) --dist loadfile
BENCH_ARGS ?=
KILL_MATRIX_ARGS ?=
MUTANTS_ARGS ?=
SCHEDULES ?= 1000
SEED ?= 1

# Airflow writes its configuration where AIRFLOW_HOME says: keep it in the checkout.
export AIRFLOW_HOME := $(CURDIR)/build/airflow
export AIRFLOW__CORE__LOAD_EXAMPLES := False

.PHONY: help
help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv venv-minimum venv-awscli venv-kill-matrix venv-screenshots
venv: ## Make .venv: the newest Airflow and this package, editable (PYTHON=python3.12 chooses the Python)
	@.ci/venv .venv requirements/airflow-3.3.txt "$(PYTHON)" "3.11 3.12 3.13" --package

venv-minimum:
	@.ci/venv .venv-minimum requirements/minimum.txt "$(PYTHON311)" "3.11" --package

venv-awscli:
	@.ci/venv .venv-awscli requirements/awscli.txt "$(PYTHON)" "3.11 3.12 3.13"

venv-kill-matrix:
	@.ci/venv .venv-kill-matrix requirements/kill-matrix.txt "$(PYTHON)" "3.11 3.12 3.13" --package

venv-screenshots:
	@.ci/venv .venv-screenshots requirements/screenshots.txt "$(PYTHON)" "3.11 3.12 3.13"

.PHONY: demo demo-ui screenshots
demo: venv ## Run the quickstart DAG on a real Airflow against the local HealthOmics
	@.venv/bin/python .ci/demo.py

demo-ui: venv ## Leave Airflow's UI and the local HealthOmics up with the example DAGs, until Ctrl-C
	@.venv/bin/python .ci/demo_ui.py

screenshots: venv venv-screenshots ## Take the pictures of README.md and docs/ (needs Chromium; CHROMIUM=/usr/bin/chromium)
	@.venv-screenshots/bin/python .ci/screenshots.py

.PHONY: test test-minimum test-all
test: venv venv-awscli ## Run all tests on the newest Airflow (PYTEST_ARGS="-k sensor" chooses)
	TEST_ENVIRONMENT=airflow-3.3 AWS_CLI=.venv-awscli/bin/aws \
		.venv/bin/python $(PYTEST) --junit-xml=build/test-airflow-3.3.xml $(PYTEST_ARGS)

test-minimum: venv-minimum ## Run the tests on the oldest supported versions (needs Python 3.11)
	TEST_ENVIRONMENT=minimum AIRFLOW_HOME=$(CURDIR)/build/airflow-minimum \
		.venv-minimum/bin/python $(PYTEST) -m "not system" -rfE --junit-xml=build/test-minimum.xml $(PYTEST_ARGS)

test-all: test test-minimum ## Run the tests on every supported line

.PHONY: lint
lint: venv ## Check style (ruff), types (mypy --strict) and known security faults (bandit)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/bandit -q -c pyproject.toml -r airflow_provider_omics_cache .ci example_dags docs/conf.py

.PHONY: docs
docs: venv ## Build the documentation into build/docs; a warning is an error
	.venv/bin/sphinx-build -W --keep-going -q -b html -d build/doctrees docs build/docs

.PHONY: architecture
architecture: ## Draw docs/_static/architecture.svg from the code's imports
	@$(PYTHON) .ci/architecture_picture.py

.PHONY: bench bench-chart
bench: venv ## Measure speed, memory and AWS calls beside their bars, in about 17 minutes (BENCH_ARGS=--quick tries it)
	@.venv/bin/python -m tests.benchmarks $(BENCH_ARGS)

bench-chart: venv ## Show what make bench has measured last in the documentation
	@.venv/bin/python -m tests.benchmarks.publish

.PHONY: kill-matrix kill-matrix-table
kill-matrix: ## Kill each process of an Airflow while its tasks work, in about 15 minutes (KILL_MATRIX_ARGS=--quick: 4)
	@if .ci/server_programs; then \
		$(MAKE) venv-kill-matrix && PYTHONPATH=.ci .venv-kill-matrix/bin/python -m tests.kill_matrix $(KILL_MATRIX_ARGS); \
	fi

kill-matrix-table: ## Show what make kill-matrix has found last in the documentation
	@$(PYTHON) -m tests.kill_matrix.publish

.PHONY: faults faults-table
faults: venv ## Run tasks under seeded schedules of faults: SCHEDULES=10000 of each profile from SEED=1
	@.venv/bin/python -m tests.faults --schedules "$(SCHEDULES)" --seed "$(SEED)"

faults-table: ## Show what make faults has found last in the documentation
	@$(PYTHON) -m tests.faults.publish

.PHONY: mutants
mutants: venv ## Plant faults in healthomics/, each of which its tests must notice (MUTANTS_ARGS="--only start" chooses)
	@.venv/bin/python -m tests.mutants $(MUTANTS_ARGS)

.PHONY: locks
locks: ## Compile requirements/ anew (needs uv)
	$(UV) pip compile --universal --python-version 3.11 --no-header --no-annotate --upgrade -q \
		pyproject.toml --extra batch --extra local \
		--group test --group lint --group docs \
		-c <(echo apache-airflow==3.3.2) -o requirements/airflow-3.3.txt
	$(UV) pip compile --universal --python-version 3.11 --no-header --no-annotate --upgrade -q \
		<(echo awscli==1.46.2) -o requirements/awscli.txt
	$(UV) pip compile --universal --python-version 3.11 --no-header --no-annotate --upgrade -q \
		pyproject.toml --extra batch --extra local --group kill-matrix \
		-c requirements/airflow-3.3.txt -o requirements/kill-matrix.txt
	$(UV) pip compile --universal --python-version 3.11 --no-header --no-annotate --upgrade -q \
		<(echo playwright; echo pillow; echo psutil) -o requirements/screenshots.txt

.PHONY: clean
clean: ## Remove environments and everything built
	rm -rf .venv .venv-minimum .venv-awscli .venv-kill-matrix .venv-screenshots build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
