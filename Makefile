# make run     build and run the agent on its embedded default (without root it observes)
# make test    install the peers that tests need, run all tests
# make lint    rustfmt, clippy, dependency policy
# make docs    bring generated documentation up to date
# make bench   measure beside the peers (root; about 25 minutes)
# make conformance  hold Headroom, systemd-sysctl, procps and TuneD to the rules they document (root)
# make exhaustion  drive limits to the kernel's refusal, beside what was foretold (root; half a minute). Lowers
#              host keys for that and puts them back, writes docs/density.md
# make vm-test   run tests with real modules on Debian kernels in virtual machines (half an hour)
# make image   build the container image with docker or buildah

CARGO ?= cargo
export HEADROOM_REVISION ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

.PHONY: run build test peers lint docs bench conformance exhaustion vm-test image clean

run: build
	$${CARGO_TARGET_DIR:-target}/release/headroom run

build:
	$(CARGO) build --release --locked -p headroom

# Debian's own packages; no service of theirs is started.
PEERS = containerd containernetworking-plugins iproute2 iptables nftables procps prometheus prometheus-node-exporter runc systemd
peers:
	@.ci/install $(PEERS)

# The kernel's neighbor tables and /proc/sys are one for all tests, so those that touch them take
# turns; what needs no kernel runs side by side.
test: peers
	$(CARGO) test --locked -p headroom
	$(CARGO) build --locked -p headroom
	RUST_TEST_THREADS=1 $(CARGO) test --locked -p headroom-tests --lib --bins --tests

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items
	@if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; else echo "cargo-deny is not installed: dependency policy not checked"; fi

SCHEMAS = config apply check diff explain import plan privileges restore status
docs:
	$(CARGO) build --locked -p headroom
	@mkdir -p docs/reference docs/schemas
	@for page in metrics keys limits profiles; do target/debug/headroom reference $$page > docs/reference/$$page.md; done
	@for name in $(SCHEMAS); do target/debug/headroom schema $$name > docs/schemas/$$name.v1.json; done

bench: build
	@.ci/install $(PEERS) tuned
	$(CARGO) run --release --locked -p headroom-tests --bin bench -- --out docs/benchmarks.md

# In a virtual machine without hardware help. Kernels, builds and consoles are kept in target/vm:
# remove target/vm/kernels to look for newer kernels.
VM_TOOLS = bash busybox-static dash debian-archive-keyring iproute2 kmod mount procps qemu-system-x86 util-linux xz-utils
vm-test:
	@.ci/install $(VM_TOOLS)
	$(CARGO) run --locked -p headroom-tests --bin vm -- --out docs/kernels.md

# TuneD brings 11 MiB of packages to a Debian that has no Python.
conformance:
	@.ci/install iproute2 procps systemd tuned
	$(CARGO) build --locked -p headroom
	$(CARGO) run --locked -p headroom-tests --bin conformance -- --out docs/conformance.md

exhaustion:
	@.ci/install containernetworking-plugins iproute2 iptables
	$(CARGO) run --locked -p headroom-tests --bin exhaustion -- --out docs/density.md

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
IMAGE ?= headroom:$(VERSION)
image:
	@args="--build-arg REVISION=$(HEADROOM_REVISION) --build-arg VERSION=$(VERSION) -t $(IMAGE) ."; \
	if command -v docker >/dev/null && docker info >/dev/null 2>&1; then docker build $$args; \
	else buildah bud --isolation chroot $$args; fi

clean:
	$(CARGO) clean
