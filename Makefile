# make demo   asks a real question about a real image
# make test   checks style, types, who imports whom, and runs the tests
# Both set up .venv first, from requirements.lock, with no need of anything but Python 3.10 to 3.12 and pip.

.PHONY: help demo test nightly format lock clean

# The first of these that runs and is 3.10, 3.11 or 3.12; or name one yourself: make test PYTHON=/path/to/python3.12
SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for python in python3.12 python3.11 python3.10 python3; do \
	"$$python" -c '$(SUPPORTED)' >/dev/null 2>&1 && echo "$$python" && break; done)
NO_PYTHON = MedReasoner needs Python 3.10, 3.11 or 3.12, but $(if $(PYTHON),$(PYTHON) is not one,none was found):\
	install one, or name it with make PYTHON=/path/to/python3.12
UV ?= uv

BIN := .venv/bin
LOCK_IN_PLACE := .venv/.lock-in-place
READY := .venv/.ready

help:
	@echo 'make demo     set up .venv and ask a real question about a real image'
	@echo 'make test     set up .venv and run every check and every test but the nightly ones'
	@echo 'make nightly  run the tests that take minutes'
	@echo 'make format   let ruff fix and format the code'
	@echo 'make lock     write requirements.lock anew (needs uv; newer releases: make lock UPGRADE=--upgrade)'
	@echo 'make clean    remove .venv and all caches'

demo: $(READY)
	$(BIN)/python -m medreasoner.demo

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -m 'not nightly' -n 2 --dist loadfile

nightly: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m nightly

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Always from scratch, so that .venv holds what the lock says and nothing else.
$(LOCK_IN_PLACE): requirements.lock
	@'$(PYTHON)' -c '$(SUPPORTED)' 2>/dev/null || { echo '$(NO_PYTHON)' >&2; exit 1; }
	'$(PYTHON)' scripts/make_venv.py .venv
	$(BIN)/python -m pip install --no-deps --require-hashes --requirement requirements.lock
	@touch $@

$(READY): $(LOCK_IN_PLACE) pyproject.toml
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

lock:
	$(UV) pip compile pyproject.toml requirements.in --all-extras --universal --python-version 3.10 \
		--generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command 'make lock' --output-file requirements.lock $(UPGRADE)
	@! grep -n '://' requirements.lock || { echo 'requirements.lock names an address: remove it.' >&2; exit 1; }

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
