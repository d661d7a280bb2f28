#!/bin/bash
# Takes a picture of alice's window with bob online, on a screen of its own (Xvfb).
#   docs/screenshot.sh [PICTURE]   the picture is docs/screenshot.png unless named
# THEME=dark takes it in dark. Linux only.
set -eu
cd "$(dirname "$0")/.."
. tests/install.sh

[ "$(uname)" = Linux ] || { echo "Xvfb needs Linux" >&2; exit 1; }
command -v cargo >/dev/null || { echo "missing: Rust (https://rustup.rs)" >&2; exit 1; }
# shellcheck disable=SC2086 # a list of packages
need gcc:cc libc6-dev:/usr/include/stdio.h $WINDOW_LIBRARIES xvfb:Xvfb xdotool:xdotool imagemagick:import
cargo build --release --locked -p pinhole-server -p pinhole-cli -p pinhole-desktop
binaries=${CARGO_TARGET_DIR:-target}/release
picture=${1:-docs/screenshot.png}

# Twice as many pixels as points. The screen is as large as the window.
scale=2
width=$((480 * scale))
height=$((720 * scale))

# The profiles know nobody else on the network, and the user's settings change nothing.
export PINHOLE_NO_NEARBY=1
unset PINHOLE_SERVER PINHOLE_NAME PINHOLE_DATA_DIR PINHOLE_PATH PINHOLE_PROXY WAYLAND_DISPLAY
unset https_proxy HTTPS_PROXY all_proxy ALL_PROXY
folder=$(mktemp -d)
started=()
clean_up() {
    trap - EXIT
    # The last one first. A process that has ended already makes kill fail.
    for ((i = ${#started[@]} - 1; i >= 0; i--)); do kill "${started[i]}" 2>/dev/null || true; done
    wait
    rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

failed() {
    echo "$1" >&2
    cat "$folder"/*.log >&2
    exit 1
}
# start LABEL COMMAND...: in the background; its output goes to a pipe named LABEL.
start() {
    label=$1
    shift
    mkfifo "$folder/$label"
    "$@" >"$folder/$label" 2>"$folder/$label.log" &
    started+=($!)
}

start display Xvfb -displayfd 1 -noreset -nolisten tcp -screen 0 "${width}x${height}x24"
exec 3<"$folder/display"
read -r -t 20 number <&3 || failed "the screen did not come up"
export DISPLAY=":$number"

start server "$binaries/pinhole-server" --json --listen 127.0.0.1:0 --data-dir "$folder/server-data"
exec 4<"$folder/server"
read -r -t 20 ready <&4 || failed "the server did not start"
server=$(echo "$ready" | sed -E 's/.*"addresses":\["([^"]+)".*"fingerprint":"([^"]+)".*/\1#\2/')

mkdir "$folder/inbox"
start bob "$binaries/pinhole" --server "$server" --name bob --data-dir "$folder/bob-data" --json \
    receive --into "$folder/inbox"
exec 5<"$folder/bob"
while read -r -t 20 line <&5 || failed "bob did not log in"; do
    case $line in *'"logged_in"'*) break ;; esac
done

WINIT_X11_SCALE_FACTOR=$scale LIBGL_ALWAYS_SOFTWARE=1 "$binaries/pinhole-desktop" --server "$server" \
    --name alice --data-dir "$folder/alice-data" --position 0,0 --theme "${THEME:-light}" \
    >"$folder/alice.log" 2>&1 &
started+=($!)

# The title has the name once alice is logged in.
tries=60
until xdotool search --onlyvisible --name '^Pinhole - alice$' >"$folder/window" 2>/dev/null; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || failed "the window did not come up"
    sleep 0.5
done
xdotool mousemove "$width" "$height"

# Nothing moves any more once two pictures in a row are equal.
tries=20
import -window root "$folder/before.png"
while sleep 1 && import -window root "$folder/now.png"; do
    cmp -s <(convert "$folder/before.png" rgb:-) <(convert "$folder/now.png" rgb:-) && break
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || failed "the window does not come to rest"
    mv "$folder/now.png" "$folder/before.png"
done
mkdir -p "$(dirname "$picture")"
mv "$folder/now.png" "$picture"
echo "$picture"
