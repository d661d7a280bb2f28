#!/bin/bash
# A server and two people, alice and bob, on this machine, in throw-away profiles.
#   ./run-demo.sh             two windows side by side (without a display: as --headless)
#   ./run-demo.sh --headless  alice sends a file on the command line; fails if it differs
#   --nat with either         both behind a NAT of their own (Linux, root)
set -eu
cd "$(dirname "$0")"
. tests/install.sh

headless=
nat=
for argument in "$@"; do
    case $argument in
    --headless) headless=1 ;;
    --nat) nat=1 ;;
    *) sed -n '2,5s/^# //p' "$0"; exit 2 ;;
    esac
done
if [ "$(uname)" = Linux ] && [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then headless=1; fi
if [ -n "$nat" ] && { [ "$(uname)" != Linux ] || [ "$(id -u)" != 0 ]; }; then
    echo "--nat builds network namespaces: it needs Linux and root" >&2
    exit 1
fi

command -v cargo >/dev/null || { echo "missing: Rust (https://rustup.rs)" >&2; exit 1; }
if [ "$(uname)" = Linux ]; then
    need gcc:cc libc6-dev:/usr/include/stdio.h
    # shellcheck disable=SC2086 # a list of packages
    [ -n "$headless" ] || need $WINDOW_LIBRARIES
    [ -z "$nat" ] || need iproute2:ip nftables:nft
fi
# In one go: what they share is built once.
packages="-p pinhole-server -p pinhole-cli"
[ -n "$headless" ] || packages="$packages -p pinhole-desktop"
# shellcheck disable=SC2086 # a list of packages
cargo build --release --locked $packages ${headless:+--quiet}
binaries=${CARGO_TARGET_DIR:-target}/release

# They show the way through the server, and nobody else on the network sees them.
export PINHOLE_NO_NEARBY=1
folder=$(mktemp -d)
lab=demo$$
started=()
clean_up() {
    trap - EXIT
    # Fails for those that have ended already.
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    if [ -n "$nat" ]; then for node in W NA NB A B; do ip netns del "$lab-$node" 2>/dev/null || true; done; fi
    rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# at NODE COMMAND...: becomes the command, inside that namespace when there are any.
at() {
    node=$1
    shift
    if [ -n "$nat" ]; then exec ip netns exec "$lab-$node" "$@"; else exec "$@"; fi
}
# start LABEL NODE COMMAND...: in the background; its output goes to a pipe named LABEL.
start() {
    label=$1
    shift
    mkfifo "$folder/$label"
    at "$@" >"$folder/$label" 2>"$folder/$label.log" &
    started+=($!)
}
failed() {
    echo "$1" >&2
    cat "$folder"/*.log >&2
    exit 1
}

# One site: a router that translates like a home router's, and a host behind it.
site() {
    router=$1 host=$2 public=$3 private=$4
    ip link add wan0 netns "$lab-$router" type veth peer name "to$router" netns "$lab-W"
    ip link add eth0 netns "$lab-$host" type veth peer name lan0 netns "$lab-$router"
    ip -n "$lab-W" address add "$public.254/24" dev "to$router"
    ip -n "$lab-W" link set dev "to$router" up
    ip -n "$lab-$router" address add "$public.10/24" dev wan0
    ip -n "$lab-$router" address add "$private.1/24" dev lan0
    ip -n "$lab-$router" link set dev wan0 up
    ip -n "$lab-$router" link set dev lan0 up
    ip -n "$lab-$router" route add default via "$public.254"
    ip -n "$lab-$host" address add "$private.10/24" dev eth0
    ip -n "$lab-$host" link set dev eth0 up
    ip -n "$lab-$host" route add default via "$private.1"
    # A port outside that is not the host's own.
    mapping="meta l4proto { tcp, udp } snat to $public.10 : th sport ^ 0x2000"
    sed -e "s/@OUTSIDE@/$public.10/" -e "s/@MAPPING@/$mapping/" -e 's/@UNSOLICITED@/drop/' -e '/@[A-Z]*@/d' \
        tests/nat/translate.nft tests/nat/firewall.nft |
        ip netns exec "$lab-$router" nft -f -
}
server_ip=127.0.0.1
if [ -n "$nat" ]; then
    for node in W NA NB A B; do
        ip netns add "$lab-$node"
        ip -n "$lab-$node" link set dev lo up
        ip netns exec "$lab-$node" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
    done
    site NA A 198.51.100 10.1.0
    site NB B 192.0.2 10.2.0
    server_ip=203.0.113.1
    ip -n "$lab-W" address add $server_ip/32 dev lo
fi

start server W "$binaries/pinhole-server" --json --listen $server_ip:0 --data-dir "$folder/server-data"
exec 3<"$folder/server"
read -r ready <&3 || failed "the server did not start"
server=$(echo "$ready" | sed -E 's/.*"addresses":\["([^"]+)".*"fingerprint":"([^"]+)".*/\1#\2/')

sample="$folder/a file for bob.txt"
{
    echo "Hello bob, this came straight from alice."
    head -c 20000000 /dev/urandom | base64
} >"$sample"

if [ -n "$headless" ]; then
    mkdir "$folder/inbox"
    start bob B "$binaries/pinhole" --server "$server" --name bob --data-dir "$folder/bob-data" --json \
        receive --into "$folder/inbox" --accept all --once
    bob=$!
    exec 4<"$folder/bob"
    while read -r line <&4 || failed "bob did not log in"; do
        case $line in *'"logged_in"'*) break ;; esac
    done
    (at A "$binaries/pinhole" --server "$server" --name alice --data-dir "$folder/alice-data" send bob "$sample") ||
        failed "alice could not send"
    cat <&4 >/dev/null # until bob ends
    wait "$bob" || failed "bob did not receive"
    sha256=$(command -v sha256sum || echo shasum -a 256)
    sent=$($sha256 <"$sample")
    received=$($sha256 <"$folder/inbox/a file for bob.txt")
    echo "alice sent   ${sent%% *}"
    echo "bob received ${received%% *}"
    [ "$sent" = "$received" ] || failed "the digests differ"
    exit
fi

# window NAME NODE POSITION
window() {
    at "$2" "$binaries/pinhole-desktop" --server "$server" --name "$1" --data-dir "$folder/$1-data" --position "$3" \
        >"$folder/$1.log" 2>&1 &
    started+=($!)
}
window alice A 40,80
alice=$!
window bob B 560,80
bob=$!
cat <<TEXT

Two windows: alice on the left, bob on the right${nat:+, each behind a NAT of their own}.
Try this:
  1. Drag a file from your file manager onto "bob" in alice's window. One to begin with:
     $sample
  2. Accept it in bob's window. It lands in
     $folder/bob-data/received
  3. Send a whole folder back the other way.
Ctrl-C here, or closing both windows, ends it and removes everything.
TEXT
wait "$alice" || failed "alice's window ended with an error"
wait "$bob" || failed "bob's window ended with an error"
