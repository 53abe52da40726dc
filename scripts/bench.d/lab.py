"""The laboratory of bench, soak and instructions: namespaces, processes, their CPU time and memory.

Everything runs in a network and process namespace of its own, on loopback: nothing of it can be
reached from outside, and it all ends with this program, however that ends. A route in there makes
connections to the gateway's tailnet address come from the address of Alice's phone, so that the
identity of the scripted tailnet is looked up and checked as on a real one.
"""

import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
TOKEN = "bench-6a1f7c52b3d94e0d8f27a95c4be0317d"
BEARER = f"Authorization: Bearer {TOKEN}"
WORKERS = len(os.sched_getaffinity(0))
FILES = 131072
GATEWAY, PHONE = "127.100.0.1", "127.100.0.2"


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command, **more):
    subprocess.run(command, check=True, **more)


def require(name, needed):
    missing = [f"  {tool}: {how}" for tool, how in needed.items() if not shutil.which(tool)]
    if sys.platform != "linux":
        missing.append("  Linux: it uses its namespaces")
    if missing:
        sys.exit(f"{name}: this is missing:\n" + "\n".join(missing))


def build():
    say("Building ...")
    # The gateway as it is shipped; the scripted tailnet beside it.
    run(["cargo", "build", "--locked", "--quiet", "--release", "--bin", "openclaw"], cwd=ROOT)
    run(["cargo", "build", "--locked", "--quiet", "--features", "test-fakes", "--bin", "fake-tailscale"], cwd=ROOT)


def enter():
    """Goes on inside the namespaces, once."""
    if os.environ.get("BENCH_INSIDE"):
        raise_file_limit()
        run(["ip", "link", "set", "lo", "up"])
        run(["ip", "route", "replace", "table", "local", "local", GATEWAY, "dev", "lo", "src", PHONE])
        # 10,000 connections to one address and port, and 10,000 to the app behind it.
        pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("10000 65000")
        return
    alone = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        alone[1:1] = ["--user", "--map-root-user"]
    os.environ["BENCH_INSIDE"] = "1"
    os.execvp(alone[0], [*alone, sys.executable, sys.argv[0], *sys.argv[1:]])


def raise_file_limit():
    """10,000 WebSockets are 20,000 open files, and a gateway keeps room for more."""
    hard = max(FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    for most in [hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]]:
        try:
            return resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        except (ValueError, OSError):
            # Only root may have more than it was given.
            say(f"no more than {resource.getrlimit(resource.RLIMIT_NOFILE)[1]} open files are allowed here (ulimit -n)")


def wait_for(port, log, host="127.0.0.1"):
    for _ in range(400):
        try:
            socket.create_connection((host, port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on {host}:{port}\n{log.read_text()[-2000:]}")


def with_children(pids):
    found = list(pids)
    for pid in found:
        try:
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except FileNotFoundError:
            pass
    return found


def cpu_seconds(pids):
    """User and system time so far. The scheduler's own count has nanoseconds."""
    total = 0
    for pid in with_children(pids):
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_mib(pids):
    pages = sum(int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in with_children(pids))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Lab:
    """Processes and the directory they live in."""

    def __init__(self):
        # Not below /tmp: the gateway runs no tailscale from where others may write.
        self.held = tempfile.TemporaryDirectory(dir=TARGET, prefix="lab.")
        self.dir = pathlib.Path(self.held.name)
        self.dir.chmod(0o700)
        self.processes = []
        self.ports = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.held.cleanup()

    def free_port(self):
        if not os.environ.get("BENCH_INSIDE"):
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                return taken.getsockname()[1]
        # Below the range from which the system takes ports of its own.
        port = 8000 + len(self.ports)
        self.ports.add(port)
        return port

    def log(self, name):
        return self.dir / f"{name}.log"

    def spawn(self, name, command, **more):
        log = self.log(name).open("ab")
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **more)
        self.processes.append(process)
        return process.pid

    def end(self, pid):
        process = next(process for process in self.processes if process.pid == pid)
        process.terminate()
        process.wait(15)
        self.processes.remove(process)

    def helper(self, name, *args):
        """One of the programs beside this file."""
        return self.spawn(name, [sys.executable, str(ROOT / "scripts/bench.d" / f"{name}.py"), *map(str, args)])

    def certificate(self):
        """A key and a certificate for the gateway's address: key, certificate, both in one."""
        key, cert, both = (self.dir / name for name in ["key.pem", "cert.pem", "both.pem"])
        if not both.exists():
            run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-days", "2", "-subj", "/CN=gw", "-addext", f"subjectAltName=IP:127.0.0.1,IP:{GATEWAY}",
                 "-keyout", key, "-out", cert], stderr=subprocess.DEVNULL)
            both.write_text(cert.read_text() + key.read_text())
            both.chmod(0o600)
        return key, cert, both

    def scripted_tailnet(self, name, more_peers=()):
        """A directory with a scripted `tailscale` and a tailnet on loopback addresses."""
        tailscale = self.dir / f"{name}-tailscale"
        tailscale.mkdir()
        shutil.copy(TARGET / "debug/fake-tailscale", tailscale / "tailscale")
        scenario = (ROOT / "fixtures/scenarios/loopback-tailnet.json5").read_text()
        peers = "".join(
            f'    cold{n}: {{ips: ["{ip}"], user: "alice", stableId: "nCold{n}CNTRL"}},\n' for n, ip in enumerate(more_peers)
        )
        (tailscale / "scenario.json5").write_text(scenario.replace("  peers: {\n", "  peers: {\n" + peers, 1))
        return tailscale

    def openclaw(self, name, binary, upstream, gateway=None, wrap=(), tailnet=True, more_peers=()):
        """The gateway in token mode, and with tailnet identity unless told otherwise."""
        home = self.dir / name
        home.mkdir()
        (home / ".openclaw").mkdir(mode=0o700)
        port = self.free_port()
        config = {
            "port": port,
            "bind": "tailnet" if tailnet else "loopback",
            "upstream": upstream,
            "auth": {"mode": "token", "token": TOKEN},
            "tailscale": {"mode": "off"},
            "log": {"level": "warn"},
        }
        if tailnet:
            scripted = self.scripted_tailnet(name, more_peers)
            # Asked at its socket, as on a real machine; the program is there for the rest.
            at = scripted / "tailscaled.sock"
            self.spawn(f"{name}-daemon", [scripted / "tailscale", "fake", "daemon", "--dir", scripted, "--socket", at])
            wait_until(at.exists, f"{name}'s tailscaled", self.log(f"{name}-daemon"))
            config["tailscale"] = {"bin": str(scripted / "tailscale"), "socket": str(at)}
        config.update(gateway or {})
        write_config(home, {key: value for key, value in config.items() if value is not None})
        env = {"PATH": os.environ["PATH"], "HOME": str(home), "OPENCLAW_HOME": str(home)}
        pid = self.spawn(name, [*wrap, str(binary), "gateway"], env=env)
        wait_for(port, self.log(name))
        if tailnet:
            wait_for(port, self.log(name), GATEWAY)
        return port, pid


def write_config(home, gateway):
    file = home / ".openclaw/config.json"
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"gateway": gateway}))
    new.chmod(0o600)
    new.replace(file)


def wait_until(done, what, log, seconds=20):
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            raise SystemExit(f"{what} is not there\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def read_config(home):
    return json.loads((home / ".openclaw/config.json").read_text())["gateway"]
