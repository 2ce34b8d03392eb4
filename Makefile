# Two commands on a fresh machine that has Rust: `make run` and `make test`. They share everything they compile.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/cairn/target

.PHONY: run build install test bench profile bench-micro bench-relay bench-otlp interop openapi deploy-check release fuzz soak setup

PREFIX ?= $(HOME)/.cargo

run: build
	$(CARGO_TARGET_DIR)/release/cairn serve --config config/cairn.yaml

build: setup
	cargo build --release --locked

install: build
	install -D -m 755 $(CARGO_TARGET_DIR)/release/cairn $(PREFIX)/bin/cairn

# The tests are compiled with the profile of the product, so that the database is compiled once. Those
# that measure run alone.
test: setup
	cargo test --release --locked -- --skip scale
	cargo test --release --locked --test promises -- --nocapture --test-threads=1 scale

# Every figure of the README beside its limit, as a table, as JSON and as a drawing: a quarter of an hour, 10 GB of disk.
# A part of it: make bench ONLY="single batches".
ROUNDS ?= 5
ONLY ?=
BENCH ?= $(HOME)/.cache/cairn/bench
bench: setup
	cargo build --release --locked --bins --benches
	sh deploy/venv.sh $(BENCH) benches/requirements.txt
	$(BENCH)/bin/python benches/bench.py --rounds $(ROUNDS) $(if $(ONLY),--only $(ONLY),--json benches/results.json --plot benches/growth.svg)

# Where the CPU time goes, as flame graphs in benches/profiles. Needs perf (on Debian: linux-perf), and the right to use it.
PROFILE_TOOLS ?= $(HOME)/.cache/cairn/profile
profile: build
	sh deploy/cargo-tools.sh $(PROFILE_TOOLS) inferno@0.12.8
	python3 benches/profile.py $(PROFILE_TOOLS)/bin

# What each piece of work on the way of an event takes, without a server.
bench-micro: setup
	cargo bench --locked --bench micro

# The same load with a relay whose upstream is away, beside a server without one.
bench-relay: build
	sh benches/relay.sh

# Spans in exports of 512, each on disk before the answer, beside decoding the same bytes on one core, and beside RocksDB alone.
bench-otlp: setup
	cargo build --release --locked --bins --benches
	sh tests/interop/install.sh $(INTEROP)
	$(INTEROP)/python/bin/python benches/otlp.py $(CARGO_TARGET_DIR)/release/cairn

# What may take long: 500 kills under load, 500 power losses, and ten minutes of full load with an eye on memory and files.
# Part of it: make soak KILLS=100 POWER_LOSSES=0 SOAK_SECONDS=60.
KILLS ?= 500
POWER_LOSSES ?= 160
SOAK_SECONDS ?= 600
soak: setup
	TEST_KILLS=$(KILLS) cargo test --release --locked --test promises -- --nocapture killed_at_any_time
	TEST_POWER_LOSSES=$(POWER_LOSSES) cargo test --release --locked --test promises -- --nocapture when_the_power_goes
	TEST_SOAK_SECONDS=$(SOAK_SECONDS) cargo test --release --locked --test promises -- --nocapture full_load_keeps

# Real clients against a server of their own, and what it stored. Only installing them needs the network.
INTEROP ?= $(HOME)/.cache/cairn/interop
interop: build
	sh tests/interop/install.sh $(INTEROP)
	python3 tests/interop/check.py $(CARGO_TARGET_DIR)/release/cairn $(INTEROP)

# Every call of openapi.json, in ways that it allows and in ways that it does not, against a running server.
OPENAPI ?= $(HOME)/.cache/cairn/openapi
openapi: build
	sh deploy/venv.sh $(OPENAPI) tests/openapi/requirements.txt
	sh tests/openapi/run.sh $(CARGO_TARGET_DIR)/release/cairn $(OPENAPI)/bin/schemathesis

# Every manifest as Kubernetes takes it, every alert as it fires, every metric as it is told of; without a cluster. A part of it:
# make deploy-check PART=charts. Only installing the tools needs the network.
DEPLOY ?= $(HOME)/.cache/cairn/deploy
PART ?=
deploy-check: build
	sh deploy/venv.sh $(DEPLOY) deploy/check/requirements.txt
	$(DEPLOY)/bin/python deploy/check/check.py $(CARGO_TARGET_DIR)/release/cairn $(PART)

# What is given to users, in dist/.
RELEASE_TOOLS ?= $(HOME)/.cache/cairn/release
release: setup
	sh deploy/cargo-tools.sh $(RELEASE_TOOLS) cargo-auditable@0.7.7 cargo-cyclonedx@0.5.9 cargo-deb@3.8.0
	sh deploy/release.sh $(RELEASE_TOOLS)

# Each target of fuzz/ for a minute. They run with the compiler that everything else is made with; what they find is kept in
# the folder of seeds, and becomes a test.
FUZZ_SECONDS ?= 60
FUZZ ?= $(HOME)/.cache/cairn/fuzz
FUZZ_TARGETS ?= canonical event otlp agnost package tlog
fuzz: build
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/fuzz/instrument.sh cargo build --release --locked -p cairn-fuzz
	sh fuzz/run.sh $(FUZZ_SECONDS) $(CARGO_TARGET_DIR)/release/cairn $(FUZZ) \
		$(foreach target,$(FUZZ_TARGETS),$(CARGO_TARGET_DIR)/release/$(target))

setup:
	@sh deploy/setup.sh
