# GNU make and pip are all it takes. Environments stay in the checkout (.venv*), results in build/.
SHELL := bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The Airflow lines besides the newest, which .venv has. Each has its lock and its environment.
OLDER_LINES := 2.11 3.0 3.1 3.2
# The newest Airflow is tested on these too. .venv has the oldest Python, unless PYTHON chooses another.
NEWER_PYTHONS := 3.12 3.13
# The images of Amazon MWAA. tests/mwaa/ has the packages of each.
MWAA_IMAGES := 2.11.0 2.11.2 3.0.6 3.2.1 3.3.1

PYTHON ?= $(shell test -x .venv/bin/python && echo .venv/bin/python || .ci/python 3.11 3.12 3.13 2>/dev/null)
# The Python of an older line: the first that is there, or PYTHON. MWAA runs 3.12.
LINE_PYTHONS = 3.12 3.11 $(if $(filter 3.1 3.2,$*),3.13)
CHOSEN_PYTHON = $(if $(filter file,$(origin PYTHON)),,$(PYTHON))
UV ?= .venv-uv/bin/uv
PYTEST_ARGS ?=
# Tests run side by side, each file in one process. One of the 3 processes runs the real Airflows and mostly waits. The
# other two use the 2 cores. PYTEST_WORKERS=0 runs the tests one after the other.
PYTEST_WORKERS ?= 3
PYTEST = -m pytest -n $(PYTEST_WORKERS) --dist loadfile
BENCH_ARGS ?=
KILL_MATRIX_ARGS ?=
MUTANTS_ARGS ?=
SCHEDULES ?= 1000
SEED ?= 1

# Airflow writes its configuration where AIRFLOW_HOME says: keep it in the checkout.
export AIRFLOW_HOME := $(CURDIR)/build/airflow
export AIRFLOW__CORE__LOAD_EXAMPLES := False
# Without bytecode on disk each process of a test compiles Airflow anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '  make %-18s %s\n' test-airflow-LINE "Run the tests of an older Airflow: $(OLDER_LINES)" \
		test-python-VERSION "Run the tests of the newest Airflow on another Python: $(NEWER_PYTHONS)"

.PHONY: venv-uv venv venv-minimum venv-awscli venv-kill-matrix venv-screenshots venv-release
.PHONY: $(OLDER_LINES:%=venv-airflow-%) $(NEWER_PYTHONS:%=venv-python-%)
venv-uv:
	@.ci/venv_uv "$(CHOSEN_PYTHON)"

venv: venv-uv ## Make .venv: the newest Airflow and this package, editable (PYTHON=python3.12 chooses the Python)
	@.ci/venv .venv requirements/airflow-3.3.txt "$(PYTHON)" "3.11 3.12 3.13" --package

venv-minimum: venv-uv
	@.ci/venv .venv-minimum requirements/minimum.txt "" "3.11" --package

$(OLDER_LINES:%=venv-airflow-%): venv-airflow-%: venv-uv
	@.ci/venv .venv-airflow-$* requirements/airflow-$*.txt "$(CHOSEN_PYTHON)" "$(strip $(LINE_PYTHONS))" --package

$(NEWER_PYTHONS:%=venv-python-%): venv-python-%: venv-uv
	@.ci/venv .venv-python-$* requirements/airflow-3.3.txt "" "$*" --package

venv-awscli: venv-uv
	@.ci/venv .venv-awscli requirements/awscli.txt "$(PYTHON)" "3.11 3.12 3.13"

venv-kill-matrix: venv-uv
	@.ci/venv .venv-kill-matrix requirements/kill-matrix.txt "$(PYTHON)" "3.11 3.12 3.13" --package

venv-screenshots: venv-uv
	@.ci/venv .venv-screenshots requirements/screenshots.txt "$(PYTHON)" "3.11 3.12 3.13"

venv-release: venv-uv
	@.ci/venv .venv-release requirements/release.txt "$(PYTHON)" "3.11 3.12 3.13"

# MWAA runs 3.12. With another Python pip decides the same, apart from requirements that depend on the Python.
.PHONY: $(MWAA_IMAGES:%=venv-mwaa-%)
$(MWAA_IMAGES:%=venv-mwaa-%): venv-mwaa-%: venv-uv
	@.ci/venv .venv-mwaa-$* tests/mwaa/$*.txt "" "3.12 3.11"

.PHONY: demo demo-ui screenshots
demo: venv ## Run a cohort of six samples on a real Airflow against the local HealthOmics
	@.venv/bin/python .ci/demo.py

demo-ui: venv ## Leave Airflow's UI and the local HealthOmics up with the example DAGs, until Ctrl-C
	@.venv/bin/python .ci/demo_ui.py

screenshots: venv venv-screenshots ## Take the pictures of README.md and docs/ (needs Chromium; CHROMIUM=/usr/bin/chromium)
	@.venv-screenshots/bin/python .ci/screenshots.py

# What depends on the versions of Airflow, the amazon provider, botocore and Python.
LINE_TESTS := $(addprefix tests/,examples hooks links operators packaging secrets sensors task_groups testing triggers)
LINE_MARKS := -m "not newest and not large and not demo and not table"
# A real Airflow runs on these older lines too.
LINES_WITH_PROCESSES := 2.11 3.0 3.1

# Installed only here, and from its lock. Its test is skipped without it.
JAVASCRIPT_SDK := build/javascript/node_modules
$(JAVASCRIPT_SDK): tests/local/javascript/package-lock.json
	@mkdir -p $(@D)
	@cp tests/local/javascript/package.json tests/local/javascript/package-lock.json $(@D)
	@cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

.PHONY: javascript-sdk
javascript-sdk: $(if $(shell command -v npm),$(JAVASCRIPT_SDK)) ## Install the AWS SDK for JavaScript, which a test uses (needs node and npm)
	@command -v npm >/dev/null || echo "npm is not installed: the test with the AWS SDK for JavaScript is skipped"

TEST_MARKS := not large and not demo and not table

.PHONY: test test-demo test-table test-minimum test-all
test: venv venv-awscli javascript-sdk ## Run the tests on the newest Airflow, apart from large ones (PYTEST_ARGS="-k sensor" chooses)
	TEST_ENVIRONMENT=airflow-3.3 AWS_CLI=.venv-awscli/bin/aws \
		.venv/bin/python $(PYTEST) -m "$(TEST_MARKS)" --junit-xml=build/test-airflow-3.3.xml $(PYTEST_ARGS)

test-demo: venv ## Run the tests of make demo-ui
	TEST_ENVIRONMENT=airflow-3.3 .venv/bin/python -m pytest -m demo tests/system

test-table: venv ## Compare the support table with the locks
	.venv/bin/python -m pytest -m table tests/packaging/test_support_table.py

test-minimum: venv-minimum ## Run the tests on the oldest supported versions (needs Python 3.11)
	TEST_ENVIRONMENT=minimum \
		.venv-minimum/bin/python $(PYTEST) -m "not system and not large and not table" -rfE --junit-xml=build/test-minimum.xml $(PYTEST_ARGS)

.PHONY: $(OLDER_LINES:%=test-airflow-%) test-airflow-3.3 $(NEWER_PYTHONS:%=test-python-%)
$(OLDER_LINES:%=test-airflow-%): test-airflow-%: venv-airflow-%
	TEST_ENVIRONMENT=airflow-$* .venv-airflow-$*/bin/python $(PYTEST) $(LINE_MARKS) \
		--junit-xml=build/test-airflow-$*.xml $(PYTEST_ARGS) $(if $(filter tests/%,$(PYTEST_ARGS)),,\
		$(if $(filter $*,$(LINES_WITH_PROCESSES)),tests/system/test_quickstart.py) $(LINE_TESTS))

test-airflow-3.3: test

$(NEWER_PYTHONS:%=test-python-%): test-python-%: venv-python-%
	TEST_ENVIRONMENT=airflow-3.3 .venv-python-$*/bin/python $(PYTEST) $(LINE_MARKS) \
		--junit-xml=build/test-python-$*.xml $(PYTEST_ARGS) $(if $(filter tests/%,$(PYTEST_ARGS)),,$(LINE_TESTS))

test-all: test test-minimum $(OLDER_LINES:%=test-airflow-%) ## Run the tests on every supported line and Python
	@for version in $(NEWER_PYTHONS); do \
		if .ci/python $$version >/dev/null; then $(MAKE) test-python-$$version || exit; else echo "Not tested on Python $$version"; fi; \
	done
	@$(MAKE) test-results

.PHONY: lines
lines: # for .ci/run
	@echo $(OLDER_LINES)

.PHONY: test-results support-table
test-results: ## Print how many tests ran on each line, and why others were skipped
	@$(PYTHON) .ci/test_results.py

support-table: ## Show in README.md and docs/install.rst what the tests have run on last
	@$(PYTHON) .ci/support_table.py

# Smallest share of lines and branches, in per cent, that the tests must run: of the package, and of it without local/.
COVERED := 96.7
COVERED_WITHOUT_LOCAL := 97.5

.PHONY: coverage
coverage: venv venv-awscli ## Run all tests, large ones too, in reversed order, and print the lines that no test runs
	@mkdir -p build
	@TEST_ORDER=reversed $(MAKE) test TEST_MARKS="not demo and not table" PYTEST_ARGS="--cov --cov-report= $(PYTEST_ARGS)"
	@.venv/bin/coverage report --precision=1 --show-missing --fail-under=$(COVERED)
	@echo "Without local/, in per cent:"
	@.venv/bin/coverage report --precision=1 --omit='*/local/*' --format=total --fail-under=$(COVERED_WITHOUT_LOCAL)

.PHONY: test-newest
test-newest: needs-uv ## Run all tests on the newest releases of everything, without a lock
	@mkdir -p build
	@$(COMPILE) pyproject.toml --extra batch --extra local --group test -o build/newest.txt
	@.ci/venv .venv-newest build/newest.txt "$(CHOSEN_PYTHON)" "3.13 3.12 3.11" --package
	.venv-newest/bin/python $(PYTEST) -m "not demo and not table" --junit-xml=build/test-newest.xml $(PYTEST_ARGS)

.PHONY: test-mwaa
test-mwaa: venv $(MWAA_IMAGES:%=venv-mwaa-%) ## Let pip resolve the requirements of docs/install.rst as each MWAA image does
	@.venv/bin/python -m tests.mwaa

.PHONY: test-wheel
test-wheel: venv venv-release ## Build the wheel, install it into an empty environment, and use it as users do
	@.venv/bin/python -m tests.wheel

.PHONY: lint
lint: venv ## Check style (ruff), types (mypy --strict) and known security faults (bandit)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/bandit -q -c pyproject.toml -r airflow_provider_omics_cache .ci example_dags docs/conf.py

.PHONY: lint-workflows
lint-workflows: venv-release ## Check the files in .github/ against their schemas
	@.venv-release/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@.venv-release/bin/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	@.venv-release/bin/check-jsonschema --builtin-schema vendor.github-issue-forms \
		$(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))

.PHONY: docs
docs: venv ## Build the documentation into build/docs; a warning is an error
	.venv/bin/sphinx-build -W --keep-going -q -b html -d build/doctrees docs build/docs

.PHONY: architecture
architecture: ## Draw docs/_static/architecture.svg from the code's imports
	@$(PYTHON) .ci/architecture_picture.py

.PHONY: bench bench-chart
bench: venv ## Measure speed, memory and AWS calls beside their bars, in about 25 minutes (BENCH_ARGS=--quick tries it)
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

# Release date of each line's Airflow. Newer packages are excluded, because newer FastAPI and Cadwyn break 3.0 and 3.2.
RELEASED_2.11 := 2026-03-20
RELEASED_3.0 := 2025-09-05
RELEASED_3.1 := 2026-04-01
RELEASED_3.2 := 2026-06-05
ALWAYS_NEW := boto3 botocore aiobotocore s3transfer s3fs fsspec moto
COMPILE = $(UV) pip compile --universal --python-version 3.11 --no-header --no-annotate --upgrade -q

.PHONY: locks locks-newest $(OLDER_LINES:%=lock-airflow-%)
locks: locks-newest $(OLDER_LINES:%=lock-airflow-%) ## Compile requirements/ anew, except minimum.txt

.PHONY: needs-uv
needs-uv: venv-uv
	@command -v $(UV) >/dev/null || { echo "uv could not be installed. Install it with 'pip install uv', and run make with UV=uv"; exit 1; }

locks-newest: needs-uv
	$(COMPILE) pyproject.toml --extra batch --extra local --group test --group coverage --group lint --group docs \
		-c <(echo apache-airflow==3.3.2) -o requirements/airflow-3.3.txt
	$(COMPILE) <(echo awscli==1.46.2) -o requirements/awscli.txt
	$(COMPILE) pyproject.toml --extra batch --extra local --group kill-matrix \
		-c requirements/airflow-3.3.txt -o requirements/kill-matrix.txt
	$(COMPILE) <(echo playwright; echo pillow; echo psutil) -o requirements/screenshots.txt
	$(COMPILE) <(echo twine; echo check-jsonschema) -o requirements/release.txt

.PHONY: lock-javascript
lock-javascript: ## Update the lock of the AWS SDK for JavaScript (needs npm)
	cd tests/local/javascript && npm install --package-lock-only --save-exact @aws-sdk/client-omics@latest

$(OLDER_LINES:%=lock-airflow-%): lock-airflow-%: needs-uv
	$(COMPILE) pyproject.toml --extra batch --extra local --group test -c requirements/airflow-$*.in \
		--exclude-newer $(RELEASED_$*) $(ALWAYS_NEW:%=--exclude-newer-package %=false) -o requirements/airflow-$*.txt

.PHONY: clean
clean: ## Remove environments and everything built
	rm -rf .venv .venv-* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
