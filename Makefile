# Stockpot. The first call of any target makes .venv from pyproject.toml and constraints.txt; nothing else is installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUITES ?= suites/letters.yaml suites/mnist.yaml suites/domains.yaml
RUN ?= results/letters/latest

POLICY ?= suites/mnist.policy.yaml
INPUTS ?= 1000

.PHONY: help bench test fuzz faults lm-eval-tasks report gate perf gpu-check reference reference-perf reference-simulation check clean

help:
	@echo "make bench    run the suites ($(SUITES)) and print where the report is"
	@echo "make test     run all tests"
	@echo "make fuzz     run the property tests on many random examples, and read INPUTS ($(INPUTS)) damaged files of each sort, to results/reference/fuzz.md"
	@echo "make faults   disturb some hundred runs, to results/reference/faults.md: ten quiet minutes; FAULTS=10 for as many times more"
	@echo "make lm-eval-tasks   score every task that lm-eval ships, on stand-in documents, as lm-eval does (half an hour)"
	@echo "make report   render the report of RUN again ($(RUN))"
	@echo "make gate     judge RUN by POLICY (results/mnist/latest by $(POLICY)), against BASELINE if given; prints the exit code"
	@echo "make perf     time Stockpot against plain readings of the same work, in one run"
	@echo "make gpu-check  compare and time every path of sparse experts on the GPU, to results/perf/<card>.json (ten minutes)"
	@echo "make reference       copy the small files of RUN to results/reference, and its numbers to the README and its pages"
	@echo "make reference-perf  the same of the last make perf"
	@echo "make reference-simulation  simulate tables of variants and curves, and keep how often they are wrong"
	@echo "make check    lint, types, import directions"
	@echo "make clean    remove .venv, caches and results (but not results/reference and results/baselines)"

bench: $(VENV)/.installed
	@$(BIN)/stockpot run $(SUITES)

# What is compiled stays, whatever the environment says: each process would compile all tests and the harness again.
test fuzz: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.installed
	@$(BIN)/python -m pytest -n auto --dist worksteal

# The property tests again, each on 20 times as many examples, other ones at every call; what fails is kept in .hypothesis.
# Then damaged suites, models, tables, tasks and runs, each to be taken or refused in a line; FIRST counts on from there.
fuzz: $(VENV)/.installed
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -n auto --dist worksteal -m hypothesis
	@$(BIN)/python -m tests.fuzz $(INPUTS) $(or $(FIRST),0)

# Kills, full disks, damaged files, too little memory: FAULTS=0.1 to try, SEED for others, AT_ONCE runs at the same time.
faults: $(VENV)/.installed
	@$(BIN)/python -m tests.faults

report: $(VENV)/.installed
	@$(BIN)/stockpot report $(RUN)

lm-eval-tasks: $(VENV)/.installed
	@HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_EVALUATE_OFFLINE=1 $(BIN)/python -m tests.tasks.stand_ins

# make turns every failure into exit code 2: CI calls stockpot gate itself. The policy is of the suite of images.
gate: RUN = results/mnist/latest
gate: $(VENV)/.installed
	@$(BIN)/stockpot gate $(RUN) --policy $(POLICY) $(if $(BASELINE),--baseline $(BASELINE)); \
	  code=$$?; echo "exit code $$code"; exit $$code

perf: $(VENV)/.installed
	@mkdir -p results/perf
	@$(BIN)/python -m pytest tests/perf --benchmark-only --benchmark-columns=median,iqr,rounds \
	  --benchmark-group-by=group --benchmark-json=results/perf/latest.json -s

# Exit codes of the check itself: 0 done, 1 a path fails or is too far from the reference, 2 there is no GPU.
gpu-check: $(VENV)/.installed
	@$(BIN)/python -m tests.perf.gpu_check results/perf

# The small files of a finished run, for results/reference; the README and the pages there show them. scores.parquet keeps
# what variants.csv has not, details.json the first seed, comparisons.parquet those of all seeds, and tables of text
# have nine digits. With SLIM=1, for sweeps, the numbers only, and the figure of weights.
reference: $(VENV)/.installed
	@$(BIN)/stockpot report $(RUN) >/dev/null
	@target=results/reference/$$(basename $$(dirname $(RUN))); rm -rf $$target; mkdir -p $$target/figures; \
	  cd $(RUN) && cp -t $(CURDIR)/$$target $$(ls run.json variants.csv details.json claims.json curves.json correlation.csv correlation.json \
	    $(if $(SLIM),,report.md scores.parquet comparisons.parquet) 2>/dev/null) && \
	  ls figures/*.svg | { grep $(if $(SLIM),"/weights",-v narrow) || true; } | xargs -r cp -t $(CURDIR)/$$target/figures && \
	  sed -i "s#$$HOME/#~/#g" $(CURDIR)/$$target/run.json && \
	  cd $(CURDIR) && $(BIN)/python -m tests.keep $$target && du -sh $$target
	@$(BIN)/python -m tests.readme

# What make perf measured last, without the single times, for results/reference/speed.md.
reference-perf: $(VENV)/.installed
	@$(BIN)/python -m tests.perf.keep results/perf/latest.json results/perf/reference.json
	@$(BIN)/python -m tests.readme

# How often a table of variants says what is not so: 2,000 simulated runs of 100 variants, for results/reference.
reference-simulation: $(VENV)/.installed
	@$(BIN)/python -m tests.stats.simulate_table 2000 results/reference/simulation.json
	@$(BIN)/python -m tests.evaluate.simulate_curves 2000 results/reference/simulation_curves.json
	@$(BIN)/python -m tests.readme

check: $(VENV)/.installed
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find results -mindepth 1 -maxdepth 1 ! -name reference ! -name baselines ! -name perf -exec rm -rf {} + 2>/dev/null || true

$(VENV)/.installed: pyproject.toml constraints.txt $(wildcard harness/streaming/*.c harness/streaming/*.h)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "stockpot needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@echo "installing into $(VENV), once" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
