#!/bin/sh
# What takes too long for tests/run.sh: a thousand kills, every failing call,
# every pair of routers twenty times, and thrice with one that opens ports, two
# gibibytes through everything that can happen on the road, two hundred people
# at once, crowds of strangers against a server and a person, the times that connections
# take, the largest offers, and a minute of fuzzing for each target. Ends with a summary, and fails when one of them has.
# Linux and root only; with FUZZ_SECONDS it takes another time for each target.
set -eu
cd "$(dirname "$0")/.."
. tests/install.sh

[ "$(uname)" = Linux ] || { echo "SKIPPED: the nightly tests need Linux" >&2; exit 1; }
command -v cargo >/dev/null || { echo "missing: Rust (https://rustup.rs)" >&2; exit 1; }
need gcc:cc g++:c++ libc6-dev:/usr/include/stdio.h iproute2:ip nftables:nft conntrack:conntrack \
    miniupnpd-nftables:miniupnpd python3:python3 python3-pip:pip3

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
logs=$target/nightly
mkdir -p "$logs"
summary=
failed=
profile=

# stage NAME COMMAND... : runs it, and notes how it ended and how long it took.
stage() {
    name=$1
    shift
    echo "$name: $*"
    begun=$(date +%s)
    outcome=passed
    "$@" >"$logs/$name.log" 2>&1 || outcome=FAILED
    # A test that was not there, or had nothing to test with, has shown nothing.
    if [ "$1" = long ] && ! grep -q 'test result: ok. [1-9]' "$logs/$name.log"; then
        outcome=FAILED
    fi
    grep -q '^SKIPPED' "$logs/$name.log" && outcome=FAILED
    if [ "$outcome" = FAILED ]; then
        failed=1
        tail -n 40 "$logs/$name.log"
    fi
    summary="$summary
$(printf '%-20s %-7s %4d s' "$name" "$outcome" $(($(date +%s) - begun)))"
}

# long CRATE FILE TEST : one test that is too long for every day.
long() {
    cargo test --locked ${profile:-} -p "$1" --test "$2" -- --ignored --exact "$3" --nocapture
}

# In a build of its own, with the instrumentation of the compiler that
# libFuzzer works with. No sanitizer, which only a nightly compiler has.
fuzz_build() {
    flags="-Cpasses=sancov-module -Ccodegen-units=1"
    for option in coverage-level=4 coverage-inline-8bit-counters coverage-pc-table coverage-trace-compares; do
        flags="$flags -Cllvm-args=-sanitizer-$option"
    done
    # With a target named, build scripts and macros go without.
    RUSTFLAGS="$flags" cargo build --locked --release --bins --target "$host" \
        --manifest-path tests/fuzz/Cargo.toml --target-dir "$target/fuzz"
}

# fuzz NAME : begins with the seeds and what earlier nights have found.
fuzz() {
    mkdir -p "$target/fuzz/corpus/$1"
    "$target/fuzz/$host/release/$1" -max_total_time="${FUZZ_SECONDS:-60}" -timeout=10 \
        -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1 -artifact_prefix="$logs/$1-" \
        "$target/fuzz/corpus/$1" "tests/fuzz/corpus/$1"
}

# OpenSSL that knows raw public keys comes in this wheel; Debian 12 has 3.0.
interop() {
    folder=$target/openssl
    cargo build --locked -p pinhole-tls --example interop &&
        pip3 download --quiet --no-deps --only-binary :all: -d "$folder" psycopg2-binary &&
        python3 -m zipfile -e "$folder"/psycopg2_binary-*.whl "$folder" &&
        python3 tests/openssl/interop.py "$target/debug/examples/interop" "$folder/psycopg2_binary.libs"
}

# Another implementation of the hash, from PyPI.
digests() {
    folder=$target/blake3
    pip3 install --quiet --target "$folder" blake3 &&
        PYTHONPATH=$folder python3 tests/blake3/digests.py "$target/debug"
}

host=$(rustc -vV | sed -n 's/^host: //p')
stage build cargo build --locked -p pinhole-server -p pinhole-cli --bins
stage kills long pinhole-transfer crash a_thousand_kills_lose_nothing
stage faults long pinhole-transfer faults every_call_that_fails_costs_nothing_but_the_attempt
stage huge long pinhole-transfer engine extremes::one_chunk_of_sixty_four_gibibytes_is_sent_again
stage matrix long pinhole-tests matrix every_pair_connects_directly_nineteen_times_of_twenty
stage mapped long pinhole-tests mapped every_pair_with_a_router_that_opens_ports_is_direct
stage moving long pinhole-tests moving two_gibibytes_survive_all_of_it
stage pipes long pinhole-tests pipes two_gibibytes_go_through_pipes_about_as_fast_as_a_file
stage bad_line long pinhole-tests topologies a_bad_line_connects_twenty_times_of_twenty
stage crowd long pinhole-tests crowd two_hundred_people_behind_twenty_routers_connect_at_once
stage strangers long pinhole-server rendezvous strangers::a_crowd_of_strangers_takes_nothing_in_a_minute_from_a_server_of_full_size
# In the build that people run: the other takes more memory.
stage patience long pinhole-tests patience an_offer_on_an_idle_session_waits_longer_than_that_would
stage consent long pinhole-tests faults_consent one_yes_is_a_yes_to_one_offer_for_five_minutes
stage friends long pinhole-tests strangers a_crowd_of_strangers_keeps_no_friend_out_for_a_minute
stage timing long pinhole-tests timing connections_stand_and_bytes_arrive_in_so_many_round_trips
stage idle long pinhole-tests timing two_who_are_idle_take_one_round_trip_to_the_server_more
stage cold long pinhole-tests timing a_program_that_is_only_started_takes_few_round_trips_more
stage build_release cargo build --locked --release -p pinhole-server -p pinhole-cli --bins
profile=--release
stage many long pinhole-tests extremes a_hundred_thousand_files_need_little_memory
profile=
# What cannot be run here is at least compiled, where the toolchain can.
for system in x86_64-pc-windows-gnu aarch64-apple-darwin; do
    if [ -d "$(rustc --print sysroot)/lib/rustlib/$system/lib" ]; then
        stage "check_${system#*-}" cargo check --locked -p pinhole-transfer --target "$system"
    else
        echo "SKIPPED: rustup target add $system, to compile the engine for it" >&2
    fi
done
stage interop interop
stage digests digests
# The list of known faults of dependencies is no package of the registry.
if cargo deny fetch db >/dev/null 2>&1; then
    stage advisories cargo deny --locked check --disable-fetch advisories
else
    echo "SKIPPED: the database of advisories cannot be fetched from here" >&2
fi
stage fuzz_build fuzz_build
for seeds in tests/fuzz/corpus/*; do
    stage "fuzz_${seeds##*/}" fuzz "${seeds##*/}"
done

echo "$summary"
echo "logs: $logs"
[ -z "$failed" ]
