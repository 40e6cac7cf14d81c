#!/usr/bin/env bash
# What interception costs: bench/intercepted.sh [ROUNDS]
#
# Two pods (examples/pods), each with two sidecars of the same program: the one that the kernel brings connections to,
# and one with explicit listeners, which the rules leave alone. The same client asks the same app through either pair, in
# turns, ROUNDS times (3). Printed are requests, new connections and greetings of a server that speaks first, per way and
# round, with the CPU time that both sidecars of the pair took for each; and the ratio of the ways.
#
# Needs root, wrk, python3, what `examples/pods/pods check` asks for, and programs in target/release or target/demo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
rounds=${1:-3}
export OUTRIDER_PROGRAMS=${OUTRIDER_PROGRAMS:-$PWD/target/demo}
dir=$(mktemp -d /tmp/outrider-bench.XXXXXX)
pods() { examples/pods/pods -d "$dir/pods" "$@"; }
trap 'pods down >/dev/null 2>&1 || true; rm -rf "$dir"' EXIT
chmod 755 "$dir"
pods up >/dev/null
pods add --intercept 'inbound: { except_ports: [5343, 5325] }' web users:80:25 >/dev/null

# One side of the explicit pair.
explicit() {
    local name=$1 lines=$2
    mkdir -p "$dir/$name"
    "$OUTRIDER_PROGRAMS/outrider-ca" token --dir "$dir/pods/ca/state" --spiffe-id "spiffe://pods.outrider/$name" \
        --out "$dir/$name/token" >/dev/null
    cat >"$dir/$name/outrider.yaml" <<END
service: $name
trust_domain: pods.outrider
state_dir: $dir/$name/state
identity: { ca: { address: "10.43.0.2:4350", join_token_file: $dir/$name/token } }
admin: { socket: $dir/$name/admin.sock, listen: "127.0.0.1:5391" }
$lines
END
    chown -R 4343:4343 "$dir/$name"
    pods exec --root "$name" -- setpriv --reuid=4343 --regid=4343 --clear-groups \
        "$OUTRIDER_PROGRAMS/outrider" run --config "$dir/$name/outrider.yaml" >"$dir/$name/log" 2>&1 &
    until pods exec --root "$name" -- curl -sf http://127.0.0.1:5391/ready >/dev/null 2>&1; do sleep 0.2; done
}
explicit users 'inbound:
  - { name: http, listen: "0.0.0.0:5343", app: "127.0.0.1:80" }
  - { name: mail, listen: "0.0.0.0:5325", app: "127.0.0.1:25", protocol: tcp }'
explicit web 'outbound:
  - { name: http, listen: "127.0.0.1:5340", cluster: users }
  - { name: mail, listen: "127.0.0.1:5341", protocol: tcp, cluster: mail }
clusters:
  - name: users
    endpoints: [{ address: "10.43.0.12:5343", spiffe_id: "spiffe://pods.outrider/users" }]
  - name: mail
    endpoints: [{ address: "10.43.0.12:5325", spiffe_id: "spiffe://pods.outrider/users" }]'

cat >"$dir/connect.py" <<'END'
import socket, statistics, sys, time

# CONNECTIONS of a client each, one after the other: a request with its answer, or a greeting.
what, host, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
took = []
for _ in range(count):
    begun = time.perf_counter()
    with socket.create_connection((host, port), 5) as stream:
        if what == "request":
            stream.sendall(b"GET / HTTP/1.1\r\nhost: users\r\nconnection: close\r\n\r\n")
        assert stream.recv(4096), "no answer"
        took.append(time.perf_counter() - begun)
print(round(statistics.median(took) * 1e6))
END
chmod 644 "$dir/connect.py"
pods run users -- "$OUTRIDER_PROGRAMS/service" --name users --listen 0.0.0.0:80
pods run users -- "$OUTRIDER_PROGRAMS/greeter" --listen 0.0.0.0:25
sleep 1

# Processor time of a pair so far, in ticks of 10 ms: of the sidecars in our pods with that in their command line.
namespaces="$(pods exec web -- readlink /proc/self/ns/net) $(pods exec users -- readlink /proc/self/ns/net)"
ticks() {
    local total=0 pid
    for pid in $(pgrep -x outrider); do
        [[ " $namespaces " == *" $(readlink "/proc/$pid/ns/net") "* ]] || continue
        grep -qaF "$1" "/proc/$pid/cmdline" || continue
        total=$((total + $(cut -d ' ' -f 14,15 "/proc/$pid/stat" | tr ' ' '+')))
    done
    echo $total
}

measure() {
    local way=$1 config=$2 http=$3 host=$4 mail=$5 before wrk requests us
    before=$(ticks "$config")
    wrk=$(pods exec web -- wrk -t1 -c16 -d4s -H 'host: users' "$http")
    requests=$(sed -n 's/ *\([0-9]*\) requests in.*/\1/p' <<<"$wrk")
    us=$(((($(ticks "$config") - before) * 10000) / requests))
    printf '%-12s %8d requests %4d us CPU each | ' "$way" "$requests" "$us"
    printf 'new connection, request, answer: %5d us | ' "$(pods exec web -- python3 "$dir/connect.py" request "$host" "${http##*:}" 400)"
    printf 'greeting: %5d us\n' "$(pods exec web -- python3 "$dir/connect.py" greeting "$host" "$mail" 400)"
}

for ((round = 0; round < rounds; round++)); do
    measure explicit "$dir/" http://127.0.0.1:5340 127.0.0.1 5341
    measure intercepted /run/outrider/ http://10.96.0.12:80 10.96.0.12 25
done
