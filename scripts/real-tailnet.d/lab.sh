# A tailnet of real nodes in network namespaces, for scripts/real-tailnet.
#
# One control server (headscale, in oc-ctl) and five nodes on a bridge that leads
# nowhere. Everything lives in $D; lab_down ends what lab_up and lab_daemon started,
# and nothing else.
#
#   gw     100.64.0.1  alice@example.com   the gateway's place
#   phone  100.64.0.2  alice@example.com
#   bobpc  100.64.0.3  bob@example.com
#   ci     100.64.0.4  tag:ci
#   usgw   100.64.0.5  alice@example.com   userspace networking
# shellcheck shell=bash disable=SC2154

NODES=(gw phone bobpc ci usgw)
CONTROL=10.77.0.1
declare -A KEY_OF=([gw]=alice [phone]=alice [bobpc]=bob [ci]=ci [usgw]=alice)
declare -A DAEMON=() # node -> pid of its tailscaled

on() { ip netns exec "oc-$1" "${@:2}"; } # node, command: runs it on that node

# The same for the background: the shell becomes the command, so that $! is its pid.
become() { exec ip netns exec "oc-$1" "${@:2}"; }

ts() { # node, arguments: its tailscale command
    local node=$1
    shift
    SSL_CERT_FILE=$D/ca.crt on "$node" "$D/bin/tailscale" --socket="$D/$node/s.sock" "$@"
}

hs() { headscale -c "$D/ctl/config.yaml" "$@"; }

# Polls a condition for at most so many seconds.
within() {
    local until=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.1
    done
}

lab_missing() { # prints what this machine lacks
    local tool
    for tool in tailscaled tailscale headscale ip setpriv curl jq openssl python3; do
        command -v "$tool" >/dev/null || echo "$tool is not on PATH"
    done
    [ -c /dev/net/tun ] || echo "there is no /dev/net/tun"
    for tool in ctl "${NODES[@]}"; do
        [ ! -e "/run/netns/oc-$tool" ] || echo "the namespace oc-$tool exists already: another run, or ip netns del oc-$tool"
    done
}

lab_certificate() {
    local ec=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    openssl req -x509 "${ec[@]}" -days 2 -subj "/CN=drill ca" -keyout "$D/ca.key" -out "$D/ca.crt"
    openssl req "${ec[@]}" -subj "/CN=control" -keyout "$D/ctl/tls.key" -out "$D/ctl/tls.csr"
    openssl x509 -req -days 2 -in "$D/ctl/tls.csr" -CA "$D/ca.crt" -CAkey "$D/ca.key" -CAcreateserial \
        -extfile <(echo "subjectAltName=IP:$CONTROL") -out "$D/ctl/tls.crt"
}

lab_wires() {
    local last=2 node
    ip netns add oc-ctl
    ip -n oc-ctl link set lo up
    ip -n oc-ctl link add br0 type bridge
    ip -n oc-ctl address add "$CONTROL/24" dev br0
    ip -n oc-ctl link set br0 up
    for node in "${NODES[@]}"; do
        ip netns add "oc-$node"
        ip -n "oc-$node" link set lo up
        ip link add "oc-$node" netns oc-ctl type veth peer name eth0 netns "oc-$node"
        ip -n oc-ctl link set "oc-$node" master br0 up
        ip -n "oc-$node" address add "10.77.0.$last/24" dev eth0
        ip -n "oc-$node" link set eth0 up
        ip -n "oc-$node" route add default via "$CONTROL"
        # A name server of its own: nothing here may touch the host's.
        mkdir -p "/etc/netns/oc-$node"
        echo "nameserver $CONTROL" >"/etc/netns/oc-$node/resolv.conf"
        last=$((last + 1))
    done
}

lab_control() {
    cat >"$D/ctl/policy.json" <<P
{"tagOwners": {"tag:ci": ["alice@example.com"]}, "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}
P
    cat >"$D/ctl/config.yaml" <<C
server_url: https://$CONTROL
listen_addr: $CONTROL:443
metrics_listen_addr: 127.0.0.1:9090
grpc_listen_addr: 127.0.0.1:50443
tls_cert_path: $D/ctl/tls.crt
tls_key_path: $D/ctl/tls.key
noise: {private_key_path: $D/ctl/noise.key}
database: {type: sqlite, sqlite: {path: $D/ctl/db}}
unix_socket: $D/ctl/sock
policy: {mode: file, path: $D/ctl/policy.json}
prefixes: {v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: sequential}
dns: {magic_dns: true, base_domain: tailnet-example.test, override_local_dns: false, nameservers: {global: []}}
derp:
  server: {enabled: true, region_id: 900, region_code: drill, region_name: Drill, ipv4: $CONTROL,
           stun_listen_addr: "$CONTROL:3478", private_key_path: $D/ctl/derp.key,
           automatically_add_embedded_derp_region: true}
  urls: []
  auto_update_enabled: false
disable_check_updates: true
logtail: {enabled: false}
log: {level: info}
C
    become ctl headscale -c "$D/ctl/config.yaml" serve >"$D/ctl/log" 2>&1 &
    CONTROL_PID=$!
    within 15 test -S "$D/ctl/sock"
    hs users create alice --email alice@example.com --display-name "Alice Example" >/dev/null
    hs users create bob --email bob@example.com --display-name "Bøb Ķ" >/dev/null
    local key
    for key in "alice --user=1" "bob --user=2" "ci --tags=tag:ci"; do
        hs preauthkeys create "${key#* }" --reusable -e 24h -o json | jq -r .key >"$D/ctl/key-${key%% *}"
    done
}

lab_daemon() { # node, further arguments: starts its tailscaled and waits for its socket
    local node=$1
    shift
    [ "$node" != usgw ] || set -- --tun=userspace-networking "$@"
    SSL_CERT_FILE=$D/ca.crt become "$node" "$(command -v tailscaled)" --statedir="$D/$node" --socket="$D/$node/s.sock" \
        --port=41641 --no-logs-no-support "$@" >>"$D/$node/log" 2>&1 &
    DAEMON[$node]=$!
    within 15 daemon_answers "$node"
}

daemon_answers() { ts "$1" status --json --peers=false >/dev/null 2>&1; }

lab_daemon_kill() { # node, signal
    kill "-$2" "${DAEMON[$1]}"
    wait "${DAEMON[$1]}" 2>/dev/null || true
    unset "DAEMON[$1]"
}

lab_login() { # node
    ts "$1" up --login-server="https://$CONTROL" --auth-key="$(cat "$D/ctl/key-${KEY_OF[$1]}")" --hostname="$1" \
        --accept-dns=false --timeout=40s
}

lab_node_id() { hs nodes list -o json | jq -r --arg n "$1" '.[] | select(.given_name == $n) | .id'; }

lab_up() {
    local node
    mkdir -p "$D/ctl" "$D/bin"
    # Where every uid can run it and nobody but root can replace it.
    install -m 755 "$(command -v tailscale)" "$D/bin/tailscale"
    lab_certificate
    lab_wires
    lab_control
    for node in "${NODES[@]}"; do # in this order: it decides the addresses
        mkdir -m 755 "$D/$node"
        lab_daemon "$node"
        lab_login "$node"
    done
}

lab_down() {
    local pids=("${DAEMON[@]}" ${CONTROL_PID:+"$CONTROL_PID"}) node pid
    for pid in "${pids[@]}"; do
        kill -CONT "$pid" 2>/dev/null || true
        # headscale waits for streams that nobody ends; there is nothing to save.
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    for node in ctl "${NODES[@]}"; do
        ip netns del "oc-$node" 2>/dev/null || true
        rm -rf "/etc/netns/oc-$node"
    done
}
