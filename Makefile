# Every target makes its own virtual environment, installs what it needs, and builds katipo when its sources have changed.
# `make help` lists the targets.

# For the virtual environment: any Python from 3.10 on.
PYTHON ?= python3
VENV ?= .venv
# Further arguments of pytest: make test ARGS="-m core -x"
ARGS ?=
# Of the demo: make demo URL=https://...
URL ?=
# Further arguments of the benchmark.
BENCH_ARGS ?=

BIN := $(VENV)/bin
SOURCES := meson.build meson.options pyproject.toml $(shell find src engine -type f \
  \( -name '*.py' -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.[ch]' -o -name 'meson.build' -o -name 'py.typed' \))
C_FILES := $(shell find engine -name '*.[ch]')
CYTHON_FILES := $(wildcard src/katipo/*.pyx src/katipo/*.pxd)
PYTHON_TREES := src tests benchmarks examples

.DELETE_ON_ERROR:
.PHONY: help demo test test-c asan tsan lint format types bench coverage clean distclean

help:
	@echo "demo [URL=...]    what katipo does, shown"
	@echo "test [ARGS=...]   the suite of the package; tests of servers that are not installed are skipped"
	@echo "coverage          the same, and which lines it reached"
	@echo "test-c            the engine's own tests;  asan, tsan: under the sanitizers"
	@echo "lint, format      ruff, clang-format, cython-lint: check, apply"
	@echo "types             mypy and pyright, strict; the stub against the extension"
	@echo "bench             katipo beside other clients"
	@echo "clean, distclean  what was built;  the virtual environment too"

demo: $(VENV)/.katipo $(VENV)/.group-demo
	URL="$(URL)" $(BIN)/python examples/demo.py

test: $(VENV)/.katipo $(VENV)/.group-test $(VENV)/.group-types
	$(BIN)/python -m pytest $(ARGS)

coverage: $(VENV)/.katipo $(VENV)/.group-test $(VENV)/.group-types
	$(BIN)/python -m coverage run -m pytest $(ARGS)
	$(BIN)/python -m coverage report

test-c: BUILD := build-c
test-c: MESON_OPTIONS := -Dbuildtype=debug
test-c: $(VENV)/.katipo $(VENV)/.group-native
	$(meson-test)

# The programs load the libcurl that comes with pycurl. Leaks are counted by the engine itself too; LeakSanitizer sees what it cannot.
asan: BUILD := build-asan
asan: SANITIZER := address
asan: MESON_OPTIONS := -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false
asan: export ASAN_OPTIONS := abort_on_error=1:detect_stack_use_after_return=1
asan: export UBSAN_OPTIONS := halt_on_error=1:print_stacktrace=1
asan: $(VENV)/.katipo $(VENV)/.group-native
	$(meson-test)

tsan: BUILD := build-tsan
tsan: SANITIZER := thread
tsan: MESON_OPTIONS := -Dbuildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false
tsan: export TSAN_OPTIONS := halt_on_error=1:second_deadlock_stack=1
tsan: $(VENV)/.katipo $(VENV)/.group-native
	$(meson-test)

define meson-test
	test -f $(BUILD)/build.ninja || PATH="$(CURDIR)/$(BIN):$$PATH" \
	  $(if $(SANITIZER),CC="$$(.ci/sanitizing_cc $(SANITIZER))") \
	  $(BIN)/meson setup $(BUILD) -Dextension=false -Dtests=true $(MESON_OPTIONS)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/meson test -C $(BUILD) --list | grep . >/dev/null \
	  || { echo "the engine has no tests: is engine/tests in the build?" >&2; exit 1; }
	PATH="$(CURDIR)/$(BIN):$$PATH" KATIPO_LIBCURL="$${KATIPO_LIBCURL:-$$(echo $(CURDIR)/$(VENV)/lib/python*/site-packages/pycurl.libs/libcurl-*)}" \
	  $(BIN)/meson test -C $(BUILD) --print-errorlogs
endef

lint: $(VENV)/.group-lint
	$(BIN)/ruff format --check $(PYTHON_TREES)
	$(BIN)/ruff check $(PYTHON_TREES)
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint $(CYTHON_FILES)

format: $(VENV)/.group-lint
	$(BIN)/ruff format $(PYTHON_TREES)
	$(BIN)/ruff check --fix $(PYTHON_TREES)
	$(BIN)/clang-format -i $(C_FILES)

types: $(VENV)/.katipo $(VENV)/.group-test $(VENV)/.group-types $(VENV)/.bench
	$(BIN)/python -m mypy
	$(BIN)/python -m pyright --pythonpath $(BIN)/python
	MYPYPATH=src $(BIN)/python -m mypy.stubtest --allowlist .ci/stubtest_allowlist katipo._engine

bench: $(VENV)/.katipo $(VENV)/.bench
	$(BIN)/python -m benchmarks.compare $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.startup

clean:
	rm -rf build-c build-asan build-tsan .mypy_cache .ruff_cache .pytest_cache .coverage
	find src tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

# pip 25.1 is the first to know dependency groups.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "katipo needs Python 3.10 or later: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/.group-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --group $*
	@touch $@

$(VENV)/.bench: benchmarks/requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r $<
	@touch $@

$(VENV)/.katipo: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet .
	@touch $@
