# What the drills share; sourced by them. Needs bash, and root for the namespaces.
#
# A drill runs in namespaces of its own (network, mounts, processes). Nothing in
# them reaches the network, nothing of the machine is changed, and when the drill
# ends everything that it started ends with it.

set -uo pipefail

drill=$(basename "$0")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/scripts/drills
target=$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}")
bin=$target/debug
# Not below /tmp: the gateway runs no tailscale from a directory that others may write to.
out=$target/$drill
gw=ocd-gw
passed=0 failed=0
missing=()

say() { printf '%s\n' "$*"; }

# want COMMAND HOW-TO-GET-IT
want() {
    command -v "$1" >/dev/null || missing+=("$1: $2")
}

# Where npm packages lie: $1 is the name of one.
npm_package() {
    local dir
    for dir in "$(npm root 2>/dev/null)" "$(npm root -g 2>/dev/null)"; do
        [ -n "$dir" ] && [ -e "$dir/$1/package.json" ] && { say "$dir/$1"; return; }
    done
    return 1
}

# Finds node and playwright-core. Chromium is driven by them.
want_browser() {
    PLAYWRIGHT=${PLAYWRIGHT:-$(npm_package playwright-core)} || PLAYWRIGHT=
    [ -e "${PLAYWRIGHT:-/nowhere}/package.json" ] ||
        missing+=("playwright-core: npm install playwright-core here or with -g, or PLAYWRIGHT=<its directory>")
    if [ -z "${NODE:-}" ]; then
        NODE=$(npm_package node)/bin/node
        [ -x "$NODE" ] || NODE=$(command -v node) || NODE=
    fi
    [ -x "$NODE" ] || missing+=("node: npm install node@26, or NODE=<its program>")
    CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome)}
    [ -n "$CHROMIUM" ] || missing+=("chromium: apt-get install chromium, or CHROMIUM=<its program>")
    export PLAYWRIGHT NODE CHROMIUM
}

want_common() {
    [ "$(uname -s)" = Linux ] || missing+=("Linux: the drill uses its namespaces")
    [ "$(id -u)" = 0 ] || missing+=("root: the drill makes network namespaces; run it with sudo -E")
    want ip "apt-get install iproute2"
    want unshare "apt-get install util-linux"
    want curl "apt-get install curl"
    want cargo "https://rustup.rs, 1.95 or later"
}

# Says what is missing; else builds, and starts the drill again where it is alone.
enter() {
    [ -n "${DRILL_INSIDE:-}" ] && return
    if [ "${#missing[@]}" -gt 0 ]; then
        say "$drill: this is missing:" >&2
        printf '  %s\n' "${missing[@]}" >&2
        exit 2
    fi
    (cd "$root" && cargo build --locked --quiet --features test-fakes --bins) || exit 1
    DRILL_INSIDE=1 exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "$@"
}

# The tailnet of fixtures/scenarios/namespaces.json5: gw is 100.64.0.1, and each
# argument NAME=ADDRESS is a machine ocd-NAME that reaches it.
tailnet_up() {
    mkdir -p /run/netns
    mount -t tmpfs tmpfs /run/netns
    rm -rf "$out"
    mkdir -p -m 700 "$out"
    ip netns add $gw
    ip -n $gw link set lo up
    ip -n $gw link add tailnet0 type bridge
    ip -n $gw addr add 100.64.0.1/24 dev tailnet0
    ip -n $gw link set tailnet0 up
    local peer
    for peer in "$@"; do
        ip netns add "ocd-${peer%=*}"
        ip -n $gw link add "${peer%=*}" type veth peer name tailnet0 netns "ocd-${peer%=*}"
        ip -n $gw link set "${peer%=*}" master tailnet0 up
        ip -n "ocd-${peer%=*}" addr add "${peer#*=}/24" dev tailnet0
        ip -n "ocd-${peer%=*}" link set tailnet0 up
        ip -n "ocd-${peer%=*}" link set lo up
    done
    "$bin/fake-tailscale" fake install --dir "$out/tailscale" "$root/fixtures/scenarios/namespaces.json5" >/dev/null
}

# on MACHINE COMMAND…
on() {
    local machine=ocd-$1
    shift
    ip netns exec "$machine" "$@"
}

# start NAME COMMAND…: runs it on gw with an empty environment; output to NAME.log.
# What stands before the command as NAME=VALUE is its environment.
start() {
    local name=$1
    shift
    mkdir -p -m 700 "$out/$name.home"
    ip netns exec $gw env -i PATH=/usr/bin:/bin HOME="$out/$name.home" "$@" \
        >>"$out/$name.out" 2>>"$out/$name.log" </dev/null &
    say $! >"$out/$name.pid"
}

# stop NAME, and wait until it has ended.
stop() {
    local pid
    pid=$(cat "$out/$1.pid")
    kill "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
}

# configure CONFIG: the gateway notices by itself; the drill waits until it has.
configure() {
    local before
    before=$(readings)
    mkdir -p -m 700 "$out/gateway.home/.openclaw"
    (umask 077 && say "$1" >"$out/config.new")
    mv "$out/config.new" "$out/gateway.home/.openclaw/config.json"
    [ ! -e "$out/gateway.pid" ] || wait_for gateway 10 more_readings_than "$before"
}

readings() { grep -sc 'the configuration was read again' "$out/gateway.log"; }
more_readings_than() { [ "$(readings)" -gt "$1" ]; }

# gateway CONFIG FLAG…: the gateway in front of the app, until it is ready.
gateway() {
    configure "$1"
    shift
    start gateway OPENCLAW_HOME="$out/gateway.home" "$bin/openclaw" gateway \
        --port 18789 --tailscale-bin "$out/tailscale/tailscale" "$@"
    wait_for gateway 20 on gw curl -fsS -o /dev/null http://127.0.0.1:18789/readyz
}

# wait_for NAME SECONDS COMMAND…: until it succeeds; the drill ends where it does not.
wait_for() {
    local name=$1 until=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ! kill -0 "$(cat "$out/$name.pid")" 2>/dev/null || [ "$SECONDS" -ge "$until" ]; then
            say "FAIL $name: not within its time: $*; the end of its log:"
            cat "$out/$name.out" "$out/$name.log" | tail -n 20
            failed=$((failed + 1))
            finish
        fi
        sleep 0.2
    done
}

# check WHAT COMMAND…: one line, and the command's output where it fails.
check() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        say "ok   $what"
        passed=$((passed + 1))
    else
        say "FAIL $what"
        sed 's/^/       /' <<<"$output" | tail -n 20
        failed=$((failed + 1))
    fi
}

# equals WANTED COMMAND…: its output is exactly this.
equals() {
    local wanted=$1 output
    shift
    output=$("$@")
    [ "$output" = "$wanted" ] || { say "got: $output"; say "not: $wanted"; return 1; }
}

# logged FILE TEXT…: it has a line with all of these.
logged() {
    local lines text
    lines=$(cat "$1")
    shift
    for text in "$@"; do lines=$(grep -F -- "$text" <<<"$lines"); done
    [ -n "$lines" ]
}

# lacks FILE TEXT: the file is there and does not contain the text.
lacks() {
    [ -s "$1" ] || { say "$1 is empty"; return 1; }
    ! grep -nF -- "$2" "$1"
}

status() {
    local machine=$1
    shift
    on "$machine" curl -sS -o /dev/null -w '%{http_code}' --max-time 20 "$@"
}

# The same where no answer is what is wanted.
silent_status() { status "$@" 2>/dev/null; :; }

# browse MACHINE SCRIPT ARGUMENT…: a browser there; its checks count as ours.
browse() {
    local machine=$1 script=$2 before=$((passed + failed)) line
    shift 2
    mkdir -p "$out/browser.home"
    while IFS= read -r line; do
        say "$line"
        case $line in
            "ok "*) passed=$((passed + 1)) ;;
            FAIL*) failed=$((failed + 1)) ;;
        esac
    done < <(cd "$out" && on "$machine" env -i PATH=/usr/bin:/bin HOME="$out/browser.home" \
        PLAYWRIGHT="$PLAYWRIGHT" CHROMIUM="$CHROMIUM" "$NODE" "$here/$script" "$@" 2>&1)
    [ $((passed + failed)) -gt "$before" ] || { say "FAIL $script on $machine checked nothing"; failed=$((failed + 1)); }
}

finish() {
    say "$drill: $passed passed, $failed failed; logs and screenshots in $out"
    [ "$failed" = 0 ] && exit 0
    exit 1
}
