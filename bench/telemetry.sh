#!/usr/bin/env bash
# What telemetry costs: bench/telemetry.sh [ROUNDS] [SECONDS]
#
#   wrk --HTTP/1--> outrider ==mutual TLS==> outrider --> service        64 connections, saturated
#                       ╲                        ╲
#                        ╲-------- OTLP/gRPC -----╲--> collector         the program in examples/, which decodes every span
#
# The same two sidecars in several ways, all started at once and loaded in turns, ROUNDS times (5) for SECONDS (5) each, in
# another order each round: without `telemetry.traces` (off), at 1 % and at 100 % of sampling, and, where BEFORE names an
# older `outrider`, that one without any (before), which is what metrics and trails cost. All sidecars have one core of
# their own, the rest the others. Printed are the CPU time of both sidecars per request, all their threads, and at the end
# minimum and median of each way, and the median of its ratios to `off` of the same round.
#
# Needs wrk, taskset, python3, two cores, and programs in target/release (or OUTRIDER_PROGRAMS).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
rounds=${1:-5} seconds=${2:-5}
programs=${OUTRIDER_PROGRAMS:-$PWD/target/release}
dir=$(mktemp -d /tmp/outrider-bench.XXXXXX)
started=()
end() {
    # Those started here, and nobody else's.
    [[ ${#started[@]} -eq 0 ]] || kill "${started[@]}" 2>/dev/null || true
    wait
    rm -rf "$dir"
}
trap end EXIT
net=127.$((RANDOM % 200 + 20)).$((RANDOM % 250))
others=0 # the core of load, app and collector
sidecars=$(($(nproc) - 1))
[[ $sidecars -gt 0 ]] || { echo "two cores are needed" >&2; exit 1; }

run() {
    local core=$1 log=$2
    shift 2
    taskset -c "$core" "$@" >"$dir/$log.log" 2>&1 &
    started+=($!)
}
listening() { # ADDRESS NAME
    local tries=0
    until (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; do
        ((++tries < 100)) || { echo "$2 does not listen:" >&2; cat "$dir/$2.log" >&2; exit 1; }
        sleep 0.1
    done
}

"$programs/outrider-ca" init --dir "$dir/ca" --trust-domain bench.local >/dev/null
for name in web app; do
    "$programs/outrider-ca" issue --dir "$dir/ca" --spiffe-id "spiffe://bench.local/$name" --out "$dir/$name" >/dev/null
done
run $others service "$programs/service" --name app --listen "$net.1:8080"
run $others collector "$programs/collector" --listen "$net.1:4317"
collector=$!
listening "$net.1:8080" service
listening "$net.1:4317" collector

# One sidecar: way, program, host, service, its part of the configuration, its telemetry.
sidecar() {
    local way=$1 program=$2 host=$3 name=$4 part=$5 telemetry=$6 id=$1-$4
    mkdir -m 700 "$dir/$id"
    cat >"$dir/$id/outrider.yaml" <<END
service: $name
trust_domain: bench.local
state_dir: $dir/$id/state
identity:
  file: { certificate: $dir/$name/svid.pem, key: $dir/$name/svid_key.pem, bundle: $dir/$name/bundle.pem }
admin: { socket: $dir/$id/admin.sock, listen: "$net.$host:4391" }
drain: { idle_grace: 0s, deadline: 1s }
$part
$telemetry
END
    run $sidecars "$id" "$program" run --config "$dir/$id/outrider.yaml" --log-level warn
    pids[$way]+=" $!"
}

caps='max_requests: 100000, max_connections: 100000, max_pending: 100000'
declare -A pids port results
ways=()
add() { # WAY PROGRAM TELEMETRY
    local way=$1 program=$2 telemetry=$3 host=$((${#ways[@]} * 2 + 10))
    ways+=("$way")
    port[$way]="$net.$host:4340"
    sidecar "$way" "$program" $((host + 1)) app "inbound:
  - { listen: \"$net.$((host + 1)):4343\", app: \"$net.1:8080\", allow: [\"spiffe://bench.local/web\"], $caps }" "$telemetry"
    sidecar "$way" "$program" $host web "outbound:
  - { listen: \"$net.$host:4340\", cluster: app }
clusters:
  - name: app
    spiffe_ids: [\"spiffe://bench.local/app\"]
    endpoints: [{ address: \"$net.$((host + 1)):4343\" }]
    max_requests: 100000
    max_connections: 100000
    max_pending: 100000" "$telemetry"
    listening "$net.$((host + 1)):4343" "$way-app"
    listening "${port[$way]}" "$way-web"
}
traces() { echo "telemetry: { traces: { endpoint: \"http://$net.1:4317\", sample_percent: $1, interval: 1s } }"; }
[[ -z ${BEFORE:-} ]] || add before "$BEFORE" ""
add off "$programs/outrider" ""
add 1% "$programs/outrider" "$(traces 1)"
add 100% "$programs/outrider" "$(traces 100)"

# Nanoseconds of CPU time that a way's two sidecars have had, all threads.
nanos() {
    local pid total=0 task had
    for pid in ${pids[$1]}; do
        for task in /proc/"$pid"/task/*/schedstat; do
            read -r had _ <"$task"
            total=$((total + had))
        done
    done
    echo $total
}

measure() { # WAY SECONDS
    local before wrk requests bad
    before=$(nanos "$1")
    wrk=$(taskset -c $others wrk -t1 -c64 -d"$2s" "http://${port[$1]}/")
    sleep 1.2 # what it still has to send is part of it
    requests=$(sed -n 's/ *\([0-9]*\) requests in.*/\1/p' <<<"$wrk")
    bad=$(sed -n 's/ *Non-2xx or 3xx responses: *//p' <<<"$wrk")
    [[ ${requests:-0} -gt 0 && -z $bad ]] || { echo "$1: $wrk" >&2; exit 1; }
    printf '%s %s\n' "$requests" $((($(nanos "$1") - before) / requests))
}

for way in "${ways[@]}"; do measure "$way" 1 >/dev/null; done
printf '%-8s %-8s %10s %22s\n' round way requests "ns of CPU per request"
for ((round = 0; round < rounds; round++)); do
    for ((turn = 0; turn < ${#ways[@]}; turn++)); do
        way=${ways[$(((turn + round) % ${#ways[@]}))]}
        read -r requests cost < <(measure "$way" "$seconds")
        printf '%-8s %-8s %10s %22s\n' $((round + 1)) "$way" "$requests" "$cost"
        results[$way]+=" $cost"
    done
done

for way in "${ways[@]}"; do echo "$way${results[$way]}"; done | python3 -c '
import statistics, sys

costs = {way: [int(cost) for cost in rest] for way, *rest in map(str.split, sys.stdin)}
print("\n%-8s %12s %12s %18s" % ("way", "minimum us", "median us", "ratio to off"))
for way, own in costs.items():
    ratio = statistics.median(cost / off for cost, off in zip(own, costs["off"]))
    print("%-8s %12.1f %12.1f %18.3f" % (way, min(own) / 1e3, statistics.median(own) / 1e3, ratio))
'
kill -TERM "$collector"
wait "$collector" || true
received=$(sed -n 's/^\([0-9]*\) spans received.*/\1/p' "$dir/collector.log")
echo
echo "${received:-0} spans came to the collector"
[[ ${received:-0} -gt 0 ]] || { echo "none: these numbers say nothing of tracing" >&2; exit 1; }
