# Every target installs what it needs. They share everything that is compiled.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/cairn/target
RELEASE := $(CARGO_TARGET_DIR)/release

.PHONY: run build install test clippy deny bench profile bench-micro bench-relay bench-grpc bench-otlp bench-peers interop openapi deploy-check chart-docs image-check kube-test release aarch64 \
	fuzz memory soak setup-build setup-test setup-interop setup-deploy setup-release setup-aarch64 setup-image setup-kube setup-bench

PREFIX ?= $(HOME)/.cargo

run: build
	$(RELEASE)/cairn serve --config config/cairn.yaml

build: setup-build
	cargo build --release --locked --bin cairn
	cargo build --release --locked -p cairn-proof --bin cairn-verify

install: build
	install -D -m 755 $(RELEASE)/cairn $(PREFIX)/bin/cairn
	install -D -m 755 $(RELEASE)/cairn-verify $(PREFIX)/bin/cairn-verify

# The tests are compiled with the profile of the product, so that the database is compiled once. Those that measure run alone.
test: build setup-test
	cargo test --release --locked --workspace -- --skip scale
	cargo test --release --locked --test promises -- --nocapture --test-threads=1 scale

# The memory of the process under every kind of load, in cgroups of 256 and 128 MiB: ten minutes. Needs root. `make test` has a short form.
MEMORY_SECONDS ?= 10
memory: build setup-test
	TEST_REQUIRE_ALL=1 TEST_MEMORY_SECONDS=$(MEMORY_SECONDS) \
		cargo test --release --locked --test promises -- --nocapture --test-threads=1 scale_memory

clippy: setup-build
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings

# Licences, sources and duplicate versions of the dependencies. The database of advisories is not fetched.
TOOLS ?= $(HOME)/.cache/cairn/tools
deny:
	sh deploy/cargo-tools.sh $(TOOLS) cargo-deny@0.20.2
	cargo fetch --locked --quiet
	$(TOOLS)/bin/cargo-deny --offline --locked check bans licenses sources

# Every figure of docs/performance.md beside its limit, as a table, as JSON and as a drawing: a quarter of an hour, 10 GB of disk.
# A part of it: make bench ONLY="single batches".
ROUNDS ?= 5
ONLY ?=
BENCH ?= $(HOME)/.cache/cairn/bench
bench: setup-build setup-bench
	cargo build --release --locked --bins --benches
	sh deploy/venv.sh $(BENCH) benches/requirements.txt
	$(BENCH)/bin/python benches/bench.py --rounds $(ROUNDS) $(if $(ONLY),--only $(ONLY),--json benches/results.json --plot benches/growth.svg)

# Where the CPU time goes, as flame graphs in benches/profiles. Needs perf (on Debian: linux-perf), and the permission to use it.
PROFILE_TOOLS ?= $(HOME)/.cache/cairn/profile
profile: build setup-bench
	sh deploy/cargo-tools.sh $(PROFILE_TOOLS) inferno@0.12.8
	python3 benches/profile.py $(PROFILE_TOOLS)/bin

# What each step of an event's path takes, without a server.
bench-micro: setup-build
	cargo bench --locked --bench micro

# The same load with a relay whose upstream is down, beside a server without a relay.
bench-relay: build setup-bench
	sh benches/relay.sh

# Spans in exports of 512, each on disk before the answer, beside decoding the same bytes on one core, and beside RocksDB alone.
bench-otlp: setup-build setup-bench setup-interop
	cargo build --release --locked --bins --benches
	sh tests/interop/install.sh $(INTEROP)
	$(INTEROP)/python/bin/python benches/otlp.py $(RELEASE)/cairn

# Exports over gRPC beside the same ones over HTTP: three minutes.
bench-grpc: setup-build setup-interop
	cargo build --release --locked --bins --benches
	sh tests/interop/install.sh $(INTEROP)
	$(INTEROP)/python/bin/python benches/grpc.py $(RELEASE)/cairn

# Cairn beside the OpenTelemetry Collector, which is built from its modules: spans in exports of 1, 20, 512 and 2,000, interleaved in one
# run of ten minutes, as the table of docs/performance.md. Needs Go 1.26 or later, and 20 GB of disk. The configurations are in
# benches/peers.
PEERS ?= $(HOME)/.cache/cairn/peers
bench-peers: setup-build setup-bench setup-interop
	cargo build --release --locked --bin cairn
	sh tests/interop/install.sh $(INTEROP)
	sh benches/peers/build.sh $(PEERS)
	$(INTEROP)/python/bin/python benches/peers/peers.py $(PEERS)/otelcol --rounds $(ROUNDS) --write docs/performance.md

# What may take long: 500 kills under load, 160 power losses, and ten minutes of full load that watch memory and files.
# A part of it: make soak KILLS=100 POWER_LOSSES=0 SOAK_SECONDS=60.
KILLS ?= 500
POWER_LOSSES ?= 160
SOAK_SECONDS ?= 600
soak: build setup-test
	TEST_KILLS=$(KILLS) cargo test --release --locked --test promises -- --nocapture killed_at_any_time
	TEST_ERASURE_KILLS=100 cargo test --release --locked --test promises -- --nocapture an_erasure_survives_a_kill
	TEST_RETENTION_KILLS=100 cargo test --release --locked --test promises -- --nocapture a_drop_survives_a_kill
	TEST_POWER_LOSSES=$(POWER_LOSSES) cargo test --release --locked --test promises -- --nocapture when_the_power_goes an_erasure_survives_a_loss a_drop_survives_a_loss
	TEST_SMALL_VOLUME_SECONDS=$(SOAK_SECONDS) cargo test --release --locked --test promises -- --nocapture a_small_volume
	TEST_SOAK_SECONDS=$(SOAK_SECONDS) cargo test --release --locked --test promises -- --nocapture full_load_keeps

# Real clients against a server of their own, and what it stored: SDKs, a browser, and the OpenTelemetry Collector. Only installing them
# needs the network. Needs Go 1.26 or later.
INTEROP ?= $(HOME)/.cache/cairn/interop
interop: build setup-interop
	sh tests/interop/install.sh $(INTEROP)
	sh benches/peers/build.sh $(PEERS)
	python3 tests/interop/check.py $(RELEASE)/cairn $(INTEROP) $(PEERS)/otelcol

# Clients generated from openapi.json by three generators, and every call of it, in ways that it allows and in ways that it does not,
# against a running server. The generator for Go needs Go 1.24 or later.
OPENAPI ?= $(HOME)/.cache/cairn/openapi
openapi: build setup-interop
	sh deploy/venv.sh $(OPENAPI) tests/openapi/requirements.txt
	sh tests/openapi/run.sh $(RELEASE)/cairn $(OPENAPI)

# Every manifest as Kubernetes reads it, every alert as it fires, every metric as it is documented; without a cluster. As root, and after
# `make release`, also the life of the Debian package on a server with systemd, in a container. A part of it:
# make deploy-check PART=charts. Only installing the tools needs the network.
DEPLOY ?= $(HOME)/.cache/cairn/deploy
PART ?=
deploy-check: build setup-deploy
	sh deploy/venv.sh $(DEPLOY) deploy/check/requirements.txt
	$(DEPLOY)/bin/python deploy/check/check.py $(RELEASE)/cairn $(PART)

# The image as the Dockerfile says, built and run by an engine that needs no registry of images: half an hour the first time. As root.
IMAGE ?= $(HOME)/.cache/cairn/image
image-check: build setup-deploy setup-image
	sh deploy/venv.sh $(DEPLOY) deploy/check/requirements.txt
	sh deploy/image/base.sh $(IMAGE)
	$(DEPLOY)/bin/python deploy/check/image.py $(IMAGE)

# Charts, examples and overlays in a real Kubernetes, which is built from its modules the first time: a quarter of an hour, and ten minutes
# after that. As root, with Go 1.24 or later. A part of it: make kube-test CHECKS="kills claim". docs/testing.md has the list.
KUBE ?= $(HOME)/.cache/cairn/kube
CHECKS ?=
kube-test: build setup-deploy setup-kube
	sh deploy/venv.sh $(DEPLOY) deploy/check/requirements.txt
	KUBE_LAB=$(KUBE) bash tests/kube/run.sh $(RELEASE)/cairn $(DEPLOY)/bin/python $(CHECKS)

# The parts of the charts that come from elsewhere: the schema of `config`, and the table of all values.
chart-docs: build
	sh deploy/venv.sh $(DEPLOY) deploy/check/requirements.txt
	$(DEPLOY)/bin/python deploy/check/generated.py $(RELEASE)/cairn

# What users get, in dist/.
RELEASE_TOOLS ?= $(HOME)/.cache/cairn/release
release: setup-build setup-release
	sh deploy/cargo-tools.sh $(RELEASE_TOOLS) cargo-auditable@0.7.7 cargo-cyclonedx@0.5.9 cargo-deb@3.8.0
	sh deploy/venv.sh $(RELEASE_TOOLS)/python deploy/python/requirements.txt
	sh deploy/release.sh $(RELEASE_TOOLS)

# The programs for 64-bit ARM, with the unit tests and a server in emulation: half an hour the first time, because the database is
# compiled again. Needs rustup.
aarch64: setup-build setup-aarch64
	sh deploy/aarch64.sh

# Each target of fuzz/ for a minute. They are compiled with the same compiler as everything else; what they find is kept in the folder of
# seeds, and becomes a test.
FUZZ_SECONDS ?= 60
FUZZ ?= $(HOME)/.cache/cairn/fuzz
FUZZ_TARGETS ?= canonical event otlp agnost package redact tlog
fuzz: build
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/fuzz/instrument.sh cargo build --release --locked -p cairn-fuzz
	sh fuzz/run.sh $(FUZZ_SECONDS) $(RELEASE)/cairn $(FUZZ) $(foreach target,$(FUZZ_TARGETS),$(RELEASE)/$(target))

setup-build:
	@sh deploy/setup.sh build

setup-test:
	@sh deploy/setup.sh test

setup-interop:
	@sh deploy/setup.sh interop

setup-deploy:
	@sh deploy/setup.sh deploy

setup-release:
	@sh deploy/setup.sh release

setup-aarch64:
	@sh deploy/setup.sh aarch64

setup-image:
	@sh deploy/setup.sh image

setup-kube:
	@sh deploy/setup.sh kube

setup-bench:
	@sh deploy/setup.sh bench
