# make demo    write, verify and read a small dataset, and print the throughput
# make test    run ruff, mypy and all tests, with the pinned versions of packages and again with the newest ones
# make hunt    long random searches for counter-examples; not part of `make test`
#
# All work on a bare machine with Python 3.11 or newer. The first run makes .venv and .venv-newest; after that the
# network is not needed until pyproject.toml or a constraints file changes. To choose an interpreter: make PYTHON=… test

PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

# mosaicml-streaming and litdata depend on a torchvision that matches torch (there is none for CPU builds) and on the
# clients of five clouds. The tests use them only with local files, so only the packages that they import are installed.
# torchdata is for testing that StatefulDataLoader resumes from our state.
PEERS := mosaicml-streaming litdata torchdata
PEERS_IMPORT := catalogue lightning-utilities requests tqdm zstd

PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-build-isolation

# Hundreds of processes import the package: without bytecode each of them would compile it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint kernels tested tested-loader tested-remote tested-unit tested-rest newest hunt setup
.DEFAULT_GOAL := test

demo: .venv/.ready
	@.venv/bin/python -m benchmarks.demo

# Three of these parts run at once: on two cores, because most tests of remote data and many of the loader wait. Lint and
# the compiler come first, then the longest parts.
test: setup
	@$(MAKE) --no-print-directory --keep-going --output-sync=target -j3 lint tested-remote tested-rest newest tested

lint: .venv/.ready
	.venv/bin/ruff check --quiet .
	.venv/bin/ruff format --quiet --check .
	.venv/bin/mypy

# Numba's cache, which all parts share. Parts that start together would compile the same kernels.
kernels: .venv/.ready
	@.venv/bin/python -m mx8shards warm-up >/dev/null

# All tests, with the pinned versions: three folders by themselves, and everything else, also new folders.
APART := loader remote unit
tested: tested-remote tested-rest tested-loader tested-unit

$(addprefix tested-,$(APART)): tested-%: .venv/.ready kernels
	.venv/bin/python -m pytest tests/$*

tested-rest: .venv/.ready kernels
	.venv/bin/python -m pytest $(addprefix --ignore=tests/,$(APART))

# With the newest versions, only failures that depend on versions are looked for. So this part leaves out tests of
# kills, signals, forks, full disks, faults, flipped bits and hostile bytes, of the memory limit, of maintaining and
# unpacking local files, of settings, links and hints, of the specification's files, of documents, source code and lazy
# imports, of properties of orders and histories, of files, copies and names of the drop-in and of benchmarks, and most
# of those of remote data. Tests that try random examples try fewer.
PINNED_ONLY := crash integration test_architecture.py test_docs.py conformance/test_vectors_regenerate.py \
	$(addprefix property/test_,append.py histories.py loader_budget.py mutations.py order_orders.py order_statistics.py \
		order_steps.py) \
	$(addprefix unit/test_,cache.py diff.py docstrings.py gc.py index.py links.py log.py merge.py not_found_hints.py \
		public_names.py publication.py seal.py settings.py shared_epoch.py snapshots.py special_files.py verify.py) \
	$(addprefix dropin/test_,cache_limit.py copies.py deep_imports.py installing.py predownload.py writers.py) \
	$(addprefix loader/test_,clip_failures.py cold_reads.py concurrent_access.py explain.py faults.py forks.py \
		interrupts.py iterations.py kills.py lifetime.py measured_sizes.py on_error.py picture_memory.py providers.py \
		stalls.py) \
	$(addprefix remote/test_,clips_in_parts.py commands.py damaged_state.py dataset_faults.py \
		deadlines_of_commands.py eviction.py fork.py helper_records.py hub.py killed_jobs.py ledger.py mirror.py \
		mirror_kills.py new_in_parts.py odd_servers.py outages.py parallel_ranges.py publication_races.py \
		remote_sources.py remote_videos.py repair.py retries.py store_faults.py swapped_places.py sync.py \
		sync_faults.py upload.py upload_faults.py)

# It uses the system's libturbojpeg, if installed (2.x on Debian). The other parts use the wheel's 3.x.
newest: .venv-newest/.ready kernels
	library=$$(.venv-newest/bin/python -c 'import ctypes.util as u; print(u.find_library("turbojpeg") or "")'); \
		if [ -n "$$library" ]; then export MX8SHARDS_TURBOJPEG="$$library"; fi; \
		.venv-newest/bin/python -m pytest -m "not hunt and not streaming" --hypothesis-profile=few \
		$(addprefix --ignore=tests/,$(PINNED_ONLY))

hunt: .venv/.ready
	.venv/bin/python -m pytest -m hunt --hypothesis-profile=hunt

setup: .venv/.ready .venv-newest/.ready

.venv/.ready: pyproject.toml constraints.txt
	@$(call new_environment,.venv)
	@$(find_turbojpeg)
	@.venv/bin/python $(PIP_INSTALL) -c constraints.txt hatchling editables
	@.venv/bin/python $(PIP_INSTALL) -c constraints.txt -e '.[torch,images,compress,convert,remote,test]' $(PEERS_IMPORT)
	@.venv/bin/python $(PIP_INSTALL) -c constraints.txt --no-deps $(PEERS)
	@touch $@

.venv-newest/.ready: pyproject.toml constraints-newest.txt
	@$(call new_environment,.venv-newest)
	@.venv-newest/bin/python $(PIP_INSTALL) -c constraints-newest.txt hatchling editables
	@.venv-newest/bin/python $(PIP_INSTALL) -c constraints-newest.txt -e '.[torch,images,video,compress,remote]' \
		pytest hypothesis jsonschema
	@touch $@

# Pictures are decoded with libturbojpeg if it is installed, otherwise with simplejpeg. Try to install libturbojpeg if
# that needs no password; a failure is harmless.
define find_turbojpeg
	if ! .venv/bin/python -c 'import sys, ctypes.util as u; sys.exit(not u.find_library("turbojpeg"))' \
		&& command -v apt-get >/dev/null; then \
		as_root=; [ "$$(id -u)" = 0 ] || as_root="sudo -n"; \
		if $$as_root true 2>/dev/null; then \
			echo "installing libturbojpeg0, which decodes pictures"; \
			{ $$as_root apt-get update -qq; $$as_root env DEBIAN_FRONTEND=noninteractive \
				apt-get install -y -qq libturbojpeg0; } >/dev/null 2>&1 || true; \
		fi; \
	fi
endef

# Make an environment, or replace a broken one: incomplete, or with a missing interpreter. Debian has ensurepip in a
# separate package.
define new_environment
	set -e; \
	if [ -z "$(PYTHON)" ]; then \
		echo "mx8shards needs Python 3.11 or newer; here: $$(python3 --version 2>&1 || true)." >&2; \
		echo "Install one (Debian 12: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
		exit 1; \
	fi; \
	if ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
		if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
			package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
			if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
				echo "installing $$package, which $(PYTHON) -m venv needs"; \
				apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$package >/dev/null; \
			else \
				echo "$(PYTHON) has no venv module: install it first (Debian: sudo apt-get install $$package)" >&2; \
				exit 1; \
			fi; \
		fi; \
		$(PYTHON) -m venv --clear $(1); \
	fi; \
	echo "installing the tested versions into $(1)"
endef
