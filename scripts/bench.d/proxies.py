"""The proxies that are compared, each in front of the same two apps: how they are set up."""

import os
import re
import resource
import shutil
import time
import urllib.request

from lab import BEARER, GATEWAY, TARGET, WORKERS, wait_for

BODY_80 = "x" * 80
SIZES = {"64k": 64 << 10, "10m": 10 << 20}
COLD = [f"127.100.1.{n}" for n in range(1, 49)]


class Subject:
    """One row: where to send requests, whose CPU time counts, which loads it takes."""

    def __init__(self, name, port, pids, tls=None, host="127.0.0.1", headers=(), only=None):
        self.name, self.port, self.pids, self.host = name, port, pids, host
        # Most serve both from the same processes.
        self.tls_port, self.tls_pids = tls or (None, pids)
        self.headers, self.only = list(headers), only

    def url(self, path, tls=False):
        scheme, port = ("https", self.tls_port) if tls else ("http", self.port)
        return f"{scheme}://{self.host}:{port}{path}"


def start(lab, wanted, also, node_gateway):
    """Starts the apps, then every proxy whose name matches, and says which there are."""
    for name, size in SIZES.items():
        (lab.dir / name).write_bytes(b"x" * size)
    upstream = nginx(lab, "app", APP, workers=1)[0]
    sockets = lab.free_port()
    lab.helper("ws", sockets)
    wait_for(sockets, lab.log("ws"))
    apps = {"upstream": upstream, "sockets": sockets}
    fits = lambda name: name == "nginx plain" or re.search(wanted, name)
    subjects = []

    def add(name, started, **more):
        subjects.append(Subject(name, *started, **more))

    add("nginx plain", nginx_proxy(lab, "plain", PLAIN, **apps))
    for kept, words in [(True, "kept"), (False, "one per check")]:
        name = f"nginx auth_request, {words}"
        if fits(name):
            auth, auth_pid = nginx(lab, f"auth-{kept}", AUTH_SERVER, workers=1)
            keep = "keepalive 64; keepalive_requests 1000000000;" if kept else ""
            port, pids, tls = nginx_proxy(
                lab, f"auth-request-{kept}", AUTH_REQUEST, auth=auth, keep=keep, connection="" if kept else "close", **apps
            )
            add(name, (port, [*pids, auth_pid], (tls[0], [*pids, auth_pid])))
    if shutil.which("haproxy") and fits("HAProxy"):
        add("HAProxy", haproxy(lab, apps))
    if shutil.which("caddy") and fits("Caddy"):
        add("Caddy", caddy(lab, "caddy", apps, ""))
    if shutil.which("caddy") and fits("Caddy forward_auth"):
        auth, auth_pid = nginx(lab, "caddy-auth", AUTH_SERVER, workers=1)
        port, pids, tls = caddy(lab, "caddy-auth-request", apps, f"forward_auth 127.0.0.1:{auth} {{\n        uri /\n    }}")
        add("Caddy forward_auth", (port, [*pids, auth_pid], (tls[0], [*pids, auth_pid])))
    for name, binary in [("openclaw", None), *((f"openclaw {name}", path) for name, path in also)]:
        if fits(name + ", token") or fits(name + ", tailnet identity"):
            started = openclaw(lab, name, binary, apps)
            if fits(name + ", token"):
                add(f"{name}, token", started, headers=[BEARER])
            if fits(name + ", tailnet identity"):
                add(f"{name}, tailnet identity", started, host=GATEWAY)
            if fits(name + ", identity cold"):
                add(f"{name}, identity cold", started, host=GATEWAY, only={"close"})
    if node_gateway and fits("OpenClaw's own gateway"):
        add("OpenClaw's own gateway, /healthz", node(lab, *node_gateway), only={"small"})
    return subjects


def openclaw(lab, name, binary, apps):
    key, cert, _ = lab.certificate()
    app = {"upstream": f"http://127.0.0.1:{apps['upstream']}"}
    routes = {"app": app, "sockets": {"path": "/ws", "upstream": f"http://127.0.0.1:{apps['sockets']}"}}
    binary = binary or TARGET / "release/openclaw"
    gateway = {"upstream": None, "routes": routes}
    port, pid = lab.openclaw(name, binary, None, gateway, more_peers=COLD)
    # TLS is for all of a gateway's listeners, so it has one of its own.
    tls_gateway = {**gateway, "tls": {"enabled": True, "certPath": str(cert), "keyPath": str(key)}}
    tls, tls_pid = lab.openclaw(f"{name}-tls", binary, None, tls_gateway)
    return port, [pid], (tls, [tls_pid])


def nginx(lab, name, server, workers=WORKERS, **values):
    port = lab.free_port()
    values.update(dir=lab.dir, name=name, port=port, workers=workers, body=BODY_80)
    values["user"] = "user root;" if os.geteuid() == 0 else ""
    path = lab.dir / f"{name}.conf"
    path.write_text(re.sub(r"@(\w+)@", lambda match: str(values[match[1]]), NGINX + server))
    pid = lab.spawn(name, ["nginx", "-e", lab.dir / f"{name}.err", "-p", lab.dir, "-c", path])
    wait_for(port, lab.log(name))
    return port, pid


def nginx_proxy(lab, name, server, **values):
    key, cert, _ = lab.certificate()
    tls = lab.free_port()
    port, pid = nginx(lab, name, server.replace("@front@", FRONT), tls=tls, key=key, cert=cert, **values)
    return port, [pid], (tls, [pid])


def haproxy(lab, apps):
    port, tls = lab.free_port(), lab.free_port()
    most = min(16000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 - 100)
    path = lab.dir / "haproxy.conf"
    path.write_text(HAPROXY.format(port=port, tls=tls, both=lab.certificate()[2], workers=WORKERS, most=most, **apps))
    pid = lab.spawn("haproxy", ["haproxy", "-f", path])
    wait_for(port, lab.log("haproxy"))
    return port, [pid], (tls, [pid])


def caddy(lab, name, apps, auth):
    port, tls = lab.free_port(), lab.free_port()
    key, cert, _ = lab.certificate()
    path = lab.dir / f"{name}.caddyfile"
    path.write_text(CADDY.format(port=port, tls=tls, key=key, cert=cert, auth=auth, **apps))
    env = {**os.environ, "HOME": str(lab.dir / name)}
    pid = lab.spawn(name, ["caddy", "run", "--adapter", "caddyfile", "--config", path], env=env)
    wait_for(port, lab.log(name))
    return port, [pid], (tls, [pid])


def node(lab, program, package):
    """OpenClaw's own gateway in token mode: no proxy, its own smallest answer."""
    port, home = lab.free_port(), lab.dir / "node-home"
    (home / ".openclaw").mkdir(parents=True, mode=0o700)
    config = home / ".openclaw/openclaw.json"
    config.write_text(NODE.format(port=port, home=home))
    config.chmod(0o600)
    quiet = ["OPENCLAW_NO_AUTO_UPDATE", "OPENCLAW_DISABLE_BONJOUR", "OPENCLAW_SKIP_CHANNELS", "OPENCLAW_OFFLINE", "OPENCLAW_NO_RESPAWN", "DO_NOT_TRACK"]
    env = {"PATH": f"{os.path.dirname(program)}:/usr/bin:/bin", "HOME": str(home), "OPENCLAW_HOME": str(home), **dict.fromkeys(quiet, "1")}
    pid = lab.spawn("node", [program, f"{package}/openclaw.mjs", "gateway", "run", "--port", str(port)], env=env)
    # It answers /healthz while its side services still start; then it is busy.
    for _ in range(240):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                if answer.status == 200:
                    time.sleep(5)
                    return port, [pid]
        except OSError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"OpenClaw's own gateway does not become ready\n{lab.log('node').read_text()[-2000:]}")


NGINX = """
daemon off; @user@ worker_processes @workers@; pid @dir@/@name@.pid; error_log @dir@/@name@.err crit;
worker_rlimit_nofile 65536;
events { worker_connections 16384; }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; tcp_nopush on;
    client_body_temp_path @dir@/@name@-1; proxy_temp_path @dir@/@name@-2; fastcgi_temp_path @dir@/@name@-3;
    uwsgi_temp_path @dir@/@name@-4; scgi_temp_path @dir@/@name@-5;
"""
APP = """
    server {
        listen 127.0.0.1:@port@;
        location /small { default_type text/plain; return 200 "@body@"; }
        location / { root @dir@; sendfile on; }
    }
}
"""
FRONT = """
        listen 127.0.0.1:@port@ reuseport;
        listen 127.0.0.1:@tls@ reuseport ssl;
        ssl_certificate @cert@; ssl_certificate_key @key@; ssl_session_cache off;
        location /ws {
            proxy_pass http://127.0.0.1:@sockets@; proxy_http_version 1.1; proxy_read_timeout 600s;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
            @check@
        }
"""
PLAIN = """
    upstream app { server 127.0.0.1:@upstream@; keepalive 64; keepalive_requests 1000000000; }
    server {
        @front@
        location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }
}
""".replace("@front@", FRONT.replace("@check@", ""))
AUTH_SERVER = """
    server { listen 127.0.0.1:@port@; location / { return 204; } }
}
"""
AUTH_REQUEST = """
    upstream app { server 127.0.0.1:@upstream@; keepalive 64; keepalive_requests 1000000000; }
    upstream auth { server 127.0.0.1:@auth@; @keep@ }
    server {
        @front@
        location / {
            auth_request /auth;
            proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
        }
        location = /auth {
            internal;
            proxy_pass http://auth; proxy_http_version 1.1; proxy_pass_request_body off;
            proxy_set_header Content-Length ""; proxy_set_header Connection "@connection@";
        }
    }
}
""".replace("@front@", FRONT.replace("@check@", "auth_request /auth;"))
HAPROXY = """
global
    nbthread {workers}
    maxconn {most}
    tune.ssl.default-dh-param 2048
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 600s
    http-reuse always
frontend in
    bind 127.0.0.1:{port}
    bind 127.0.0.1:{tls} ssl crt {both}
    use_backend sockets if {{ path /ws }}
    default_backend app
backend app
    server app 127.0.0.1:{upstream}
backend sockets
    server sockets 127.0.0.1:{sockets}
"""
CADDY = """{{
    admin off
    auto_https off
    log default {{
        level ERROR
    }}
}}
(app) {{
    {auth}
    reverse_proxy /ws 127.0.0.1:{sockets}
    reverse_proxy 127.0.0.1:{upstream}
}}
http://127.0.0.1:{port} {{
    import app
}}
https://127.0.0.1:{tls} {{
    tls {cert} {key}
    import app
}}
"""
NODE = """{{
  gateway: {{ mode: "local", port: {port}, bind: "loopback", auth: {{ mode: "token", token: "bench-own-0123456789abcdef" }}, tailscale: {{ mode: "off" }} }},
  logging: {{ file: "{home}/openclaw.log" }}, discovery: {{ mdns: {{ mode: "off" }} }}, update: {{ checkOnStart: false }}, models: {{ catalogRefresh: {{ enabled: false }} }},
}}
"""
