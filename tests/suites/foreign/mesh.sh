set -e
export PATH="/work/wt/upgrades/target/debug:$PATH"
cd /tmp/ws; rm -rf mesh; mkdir mesh; cd mesh
outrider-ca init --dir ca --trust-domain example.org
outrider-ca serve --dir ca --listen 127.0.0.1:14350 --san 127.0.0.1 > ca.log 2>&1 & echo $! > ca.pid
sleep 1
outrider-ca token --dir ca --spiffe-id spiffe://example.org/orders --out orders.token
outrider-ca token --dir ca --spiffe-id spiffe://example.org/web --out web.token
cat > orders.yaml <<'E'
service: orders
trust_domain: example.org
state_dir: orders-state
identity: { ca: { address: "127.0.0.1:14350", join_token_file: orders.token } }
admin: { socket: orders.sock, listen: none }
inbound:
  - { listen: "127.0.0.1:14343", app: "127.0.0.1:18080", allow: ["spiffe://example.org/web"] }
E
cat > web.yaml <<'E'
service: web
trust_domain: example.org
state_dir: web-state
identity: { ca: { address: "127.0.0.1:14350", join_token_file: web.token } }
admin: { socket: web.sock, listen: none }
outbound:
  - { listen: "127.0.0.1:14340", cluster: orders }
clusters:
  - name: orders
    spiffe_ids: ["spiffe://example.org/orders"]
    endpoints: [{ address: "127.0.0.1:14343" }]
E
outrider run --config orders.yaml > orders.log 2>&1 & echo $! > orders.pid
outrider run --config web.yaml > web.log 2>&1 & echo $! > web.pid
sleep 3
