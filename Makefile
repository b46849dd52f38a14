# Two commands and their helpers; everything stays inside .venv, the cache of the LLM (~/.cache/echox) and answer.wav.
#
#   make ask [QUESTION=path]     answer a recorded question aloud
#   make test                    the whole test suite, without a network
#   make check                   linter, formatter and types
#   make fuzz                    2,000 hostile inputs, half an hour of one core: before a release (docs/safety.md)
#
# PYTHON=...       the interpreter to build .venv with (3.11 to 3.13; python3.11 is preferred)
# PYTEST=...       options of pytest; by default two workers, a test file always in one of them
# FUZZ=...         options of the fuzzer, e.g. --cases 1 --seed NUMBER for a finding again
# TORCH_INDEX=...  torch's own index, e.g. https://download.pytorch.org/whl/cpu for a CPU build where PyPI's wants CUDA

QUESTION ?= examples/question.wav
PYTHON ?=
TORCH_INDEX ?=
PYTEST ?= -q -n 2 --dist loadfile
FUZZ ?= --cases 2000

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PINS := pyproject.toml constraints.txt

.PHONY: ask test check fuzz clean

ask: .venv/ask.stamp
	@$(BIN)/echox ask "$(QUESTION)" -o answer.wav
	@for player in "aplay -q" afplay paplay "play -q" "ffplay -autoexit -nodisp -loglevel quiet"; do \
		if command -v $${player%% *} >/dev/null 2>&1; then $$player answer.wav >/dev/null 2>&1 </dev/null || true; break; fi; \
	done

test: .venv/test.stamp
	$(BIN)/python -m pytest $(PYTEST)

check: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/mypy

fuzz: .venv/test.stamp
	$(BIN)/python -m tests.fuzz.driver $(FUZZ)

# A stamp is newer than the pins it was installed from: the second call installs nothing and needs no network.
.venv/ask.stamp: .venv/python.stamp $(PINS)
	@echo "Installing echox into .venv (once, a few minutes) ..."
	@if [ -n "$(TORCH_INDEX)" ]; then $(PIP) --no-deps --index-url "$(TORCH_INDEX)" torch; fi
	@$(PIP) --editable .
	@touch $@

.venv/test.stamp: .venv/ask.stamp
	@echo "Installing what the tests need into .venv (once, a few minutes) ..."
	@$(PIP) --editable ".[prepare,train,eval,serve,dev]"
	@touch $@

.venv/python.stamp:
	@found=; for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do \
		if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "echox needs Python 3.11, 3.12 or 3.13: install one, or name it with PYTHON=path." >&2; exit 1; fi; \
	rm -rf .venv; \
	$$found -m venv .venv 2>/dev/null || { rm -rf .venv; $$found -m venv --without-pip .venv && $$found -m pip --python .venv/bin/python install --quiet pip; }
	@touch $@

clean:
	rm -rf .venv build dist
