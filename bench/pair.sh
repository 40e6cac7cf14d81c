#!/usr/bin/env bash
# Writes the configuration of one side of the benchmark's pair and becomes that sidecar. The BENCH_* variables are the
# benchmark's contract; see README.md.
set -euo pipefail

case "$BENCH_PROTO" in
  h1) peer_protocol=http1 h2_app=$BENCH_HTTP_APP h2_app_protocol=http1 ;;
  h2) peer_protocol=http2 h2_app=$BENCH_H2_APP h2_app_protocol=http2 ;;
  *) echo "BENCH_PROTO must be h1 or h2, not '$BENCH_PROTO'" >&2; exit 2 ;;
esac

# What the two sidecars take each other for. As sidecars of Outrider they keep opaque connections for the next stream;
# standard peers, which the comparison wants by default, make one for each.
case "${OUTRIDER_PEER:-standard}" in
  standard) peer="peer: standard" to_peer="peer: standard, peer_protocol: $peer_protocol" ;;
  outrider) peer="peer: outrider" to_peer="peer: outrider, mesh_protocol: $peer_protocol" ;;
  *) echo "OUTRIDER_PEER must be standard or outrider, not '$OUTRIDER_PEER'" >&2; exit 2 ;;
esac

config="$BENCH_RUN_DIR/$BENCH_SIDE.yaml"
# The caps are as high as the other proxies' are here: the counting is on, nothing is refused.
caps='max_requests: 1000000, max_connections: 1000000, max_pending: 1000000'

cat > "$config" <<YAML
service: $BENCH_SIDE
trust_domain: bench.local
workers: $BENCH_WORKERS
state_dir: $BENCH_RUN_DIR/$BENCH_SIDE-state
identity:
  file:
    certificate: $BENCH_CERTS/$BENCH_SIDE.crt
    key: $BENCH_CERTS/$BENCH_SIDE.key
    bundle: $BENCH_CERTS/ca.crt
tls:
  cipher_suites: [TLS_AES_128_GCM_SHA256]
  key_exchange: [X25519]
admin:
  socket: $BENCH_RUN_DIR/$BENCH_SIDE.sock
  listen: 127.0.0.1:$BENCH_ADMIN_PORT
drain: { idle_grace: 0s, deadline: 1s }
YAML

if [ "$BENCH_SIDE" = client ]; then
  cat >> "$config" <<YAML
outbound:
  - { name: http, listen: "127.0.0.1:$BENCH_HTTP_OUT", cluster: http }
  - { name: h2, listen: "127.0.0.1:$BENCH_H2_OUT", cluster: h2 }
  - { name: iperf, listen: "127.0.0.1:$BENCH_IPERF_OUT", protocol: tcp, cluster: iperf }
  - { name: tcp, listen: "127.0.0.1:$BENCH_TCP_OUT", protocol: tcp, cluster: tcp }
clusters:
YAML
  for chain in http:$BENCH_HTTP_IN h2:$BENCH_H2_IN iperf:$BENCH_IPERF_IN tcp:$BENCH_TCP_IN; do
    cat >> "$config" <<YAML
  - name: ${chain%%:*}
    endpoints: [{ address: "127.0.0.1:${chain##*:}", spiffe_id: "$BENCH_PEER_ID" }]
    $(echo "$to_peer" | sed 's/, /\n    /g')
    balance: round_robin
    $(echo "$caps" | sed 's/, /\n    /g')
YAML
  done
else
  echo "inbound:" >> "$config"
  for chain in http:$BENCH_HTTP_IN:$BENCH_HTTP_APP:http:http1 h2:$BENCH_H2_IN:$h2_app:http:$h2_app_protocol \
               iperf:$BENCH_IPERF_IN:$BENCH_IPERF_APP:tcp: tcp:$BENCH_TCP_IN:$BENCH_TCP_APP:tcp:; do
    IFS=: read -r name listen app protocol app_protocol <<< "$chain"
    echo "  - { name: $name, listen: \"127.0.0.1:$listen\", app: \"127.0.0.1:$app\", protocol: $protocol," \
         "${app_protocol:+app_protocol: $app_protocol,} $peer, allow: [\"$BENCH_PEER_ID\"], $caps }" >> "$config"
  done
fi

exec "$OUTRIDER" run --config "$config" --log-level warn
