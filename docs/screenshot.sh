#!/bin/bash
# Takes the picture of the window that the README shows, on a screen of its own (Xvfb):
# alice has received a folder from carol, and receives a film from bob.
#   docs/screenshot.sh [PICTURE]   the picture is docs/window.png unless named
# THEME=dark takes it in dark, PROFILE=debug with a debug build. Linux only.
set -eu
cd "$(dirname "$0")/.."
. tests/install.sh

[ "$(uname)" = Linux ] || { echo "Xvfb needs Linux" >&2; exit 1; }
command -v cargo >/dev/null || { echo "missing: Rust (https://rustup.rs)" >&2; exit 1; }
# shellcheck disable=SC2086 # a list of packages
need gcc:cc libc6-dev:/usr/include/stdio.h $WINDOW_LIBRARIES xvfb:Xvfb xdotool:xdotool imagemagick:import
case ${PROFILE:-release} in
debug) cargo build --locked --workspace --bins ;;
*) cargo build --locked --workspace --bins --release ;;
esac
binaries=${CARGO_TARGET_DIR:-target}/${PROFILE:-release}
picture=${1:-docs/window.png}

# Twice as many pixels as points. The window fills the screen, and nothing scrolls.
scale=2
width=$((500 * scale))
height=$((736 * scale))

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
# start LABEL COMMAND...: in the background; its output goes to a file.
start() {
    label=$1
    shift
    "$@" >"$folder/$label.out" 2>"$folder/$label.log" &
    started+=($!)
}
# until_said LABEL TEXT: waits until the output of a command contains a text.
until_said() {
    for _ in $(seq 300); do
        grep -q "$2" "$folder/$1.out" 2>/dev/null && return
        sleep 0.2
    done
    failed "$1 did not say $2"
}
# pinhole NAME ARGUMENT...
pinhole() {
    name=$1
    shift
    start "$name" "$binaries/pinhole" --server "$server" --name "$name" --data-dir "$folder/$name" \
        --json "$@"
}

start display Xvfb -displayfd 1 -noreset -nolisten tcp -screen 0 "${width}x${height}x24"
until_said display '[0-9]'
export DISPLAY=":$(cat "$folder/display.out")"

start server "$binaries/pinhole-server" --json --listen 127.0.0.1:0 --data-dir "$folder/server"
until_said server fingerprint
server=$(sed -E 's/.*"addresses":\["127.0.0.1([^"]+)".*"fingerprint":"([^"]+)".*/localhost\1#\2/' \
    "$folder/server.out")

pinhole dave receive --into "$folder/inbox"
until_said dave '"logged_in"'

# Nobody clicks here: alice takes whatever comes.
mkdir "$folder/alice" "$folder/photos"
echo '{"accept":"all"}' >"$folder/alice/settings.json"
WINIT_X11_SCALE_FACTOR=$scale LIBGL_ALWAYS_SOFTWARE=1 \
    start alice "$binaries/pinhole-desktop" --server "$server" --name alice \
    --data-dir "$folder/alice" --position 0,0 --theme "${THEME:-light}"
# The title has the name once alice is logged in.
for _ in $(seq 120); do
    xdotool search --onlyvisible --name '^Pinhole - alice$' >"$folder/window" 2>/dev/null && break
    sleep 0.5
done
[ -s "$folder/window" ] || failed "the window did not come up"
xdotool windowsize "$(tail -n 1 "$folder/window")" "$width" "$height" mousemove "$width" "$height"

for number in $(seq 12); do
    head -c 3000000 /dev/urandom >"$folder/photos/$number.jpg"
done
truncate -s 240000000 "$folder/holiday.mp4"
pinhole carol send --limit 10M alice "$folder/photos"
until_said carol '"completed"'
pinhole carol receive --into "$folder/inbox"
until_said carol '"logged_in"'
pinhole bob send --limit 12M alice "$folder/holiday.mp4"
# More than half of the film.
until_said bob '"progress".*"bytes":1[3-9][0-9]\{7\},'

mkdir -p "$(dirname "$picture")"
import -window root -strip +dither -colors 128 "png8:$picture"
echo "$picture"
