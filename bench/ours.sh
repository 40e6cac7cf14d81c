# The benchmark's adapter for Outrider: standard mTLS peers (ALPN h2, http/1.1 or none), certificates from files.
# OUTRIDER names the program to measure; build it with `cargo build --release --workspace --bins`.
BENCH_FOLDER="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)"
export OUTRIDER="${OUTRIDER:-$BENCH_FOLDER/../target/release/outrider}"
START_CLIENT='bash "$BENCH_FOLDER/pair.sh"'
START_SERVER='bash "$BENCH_FOLDER/pair.sh"'
