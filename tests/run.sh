#!/bin/sh
# Everything that must hold before a change goes in. Ends with the test
# runner's own summary; any failure ends it earlier.
set -eu
cd "$(dirname "$0")/.."
. tests/install.sh

command -v cargo >/dev/null || { echo "missing: Rust (https://rustup.rs)" >&2; exit 1; }
# shellcheck disable=SC2086 # a list of packages
if [ "$(uname)" = Linux ]; then
    need gcc:cc libc6-dev:/usr/include/stdio.h $WINDOW_LIBRARIES \
        fonts-noto-cjk:/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc \
        xvfb:Xvfb zbar-tools:zbarimg xdotool:xdotool openbox:openbox imagemagick:import python3:python3 \
        python3-gi:/usr/lib/python3/dist-packages/gi gir1.2-gtk-3.0:'/usr/lib/*/girepository-1.0/Gtk-3.0.typelib' \
        iproute2:ip nftables:nft conntrack:conntrack miniupnpd-nftables:miniupnpd miniupnpc:upnpc \
        postgresql:'/usr/lib/postgresql/*/bin/postgres'
fi
cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
    rustup component add rustfmt clippy

# Compiled without optimisation: it checks for a second and compiles for minutes.
cargo deny --version >/dev/null 2>&1 || cargo install --locked --debug --quiet cargo-deny

cargo fmt --all --check
cargo deny --locked check --hide-inclusion-graph bans licenses sources
cargo clippy --workspace --all-targets --locked -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
# The end-to-end tests run the programs among them. Without the tests, which turn on
# features of their own, some dependencies would be compiled twice.
cargo build --workspace --all-targets --locked
cargo test --workspace --doc --locked
if [ "$(uname)" != Linux ] || [ "$(id -u)" != 0 ]; then
    echo "SKIPPED, for they need root on Linux: the NAT laboratory, a full and a read-only disk" >&2
fi
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked
else
    cargo test --workspace --locked --lib --bins --tests --examples
fi
