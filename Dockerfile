# One static binary in an empty image. Offline, or with a toolchain of your own: any image that
# has Rust 1.89 or later, a C linker and glibc's static library (Debian: gcc, libc6-dev) will do:
#   docker build --build-arg RUST_IMAGE=registry.example/rust:1.95 --build-arg REVISION=$(git rev-parse --short=12 HEAD) .
ARG RUST_IMAGE=docker.io/library/rust:1.95-bookworm

FROM ${RUST_IMAGE} AS build
# Set by the builder from --platform; without it the machine's own. The stage runs on the target's
# architecture (natively or emulated), so no cross linker is needed.
ARG TARGETARCH
ARG REVISION=unknown
ARG VERSION=0.1.0
WORKDIR /src
COPY . .
# --target is needed although it names the machine itself: without it the static flag would reach
# procedural macros too, which cannot be static. CARGO_HOME is the cache's, whatever the base image has.
RUN --mount=type=cache,id=headroom-cargo,target=/cache/cargo \
    --mount=type=cache,id=headroom-target,target=/cache/target \
    set -eu; \
    case "${TARGETARCH:-$(uname -m)}" in \
      amd64 | x86_64) target=x86_64-unknown-linux-gnu ;; \
      arm64 | aarch64) target=aarch64-unknown-linux-gnu ;; \
      *) echo "no target for ${TARGETARCH:-$(uname -m)}: amd64 and arm64 are built" >&2; exit 1 ;; \
    esac; \
    export CARGO_HOME=/cache/cargo CARGO_TARGET_DIR=/cache/target; \
    export HEADROOM_REVISION="$REVISION" RUSTFLAGS='-C target-feature=+crt-static'; \
    cargo build --release --locked -p headroom --target "$target"; \
    cp "/cache/target/$target/release/headroom" /headroom; \
    if [ "$(/headroom --version)" != "headroom $VERSION" ]; then \
      echo "the label would say $VERSION, the binary says $(/headroom --version)" >&2; exit 1; \
    fi

FROM scratch
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="headroom" \
      org.opencontainers.image.description="Node agent for Kubernetes: tunes kernel parameters, watches the limits of dense nodes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY LICENSE /LICENSE
COPY --from=build /headroom /headroom
# Root, without any capability: the kernel lets nobody else write /proc/sys.
USER 0:0
ENTRYPOINT ["/headroom"]
CMD ["run"]
