"""Starts the servers of a benchmark from the configurations in conf/, and accounts for what they use."""
import contextlib
import glob
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BODIES = {"1k": 1 << 10, "32k": 32 << 10, "256k": 256 << 10, "1m": 1 << 20}
MEMORY_MIB = 1024
# nginx keeps the 8 GiB that its configuration allows at most.
FILES_BYTES = 8 << 30
START_S = 180
# A workload about disks has its files on one: RAM that only looks like one answers some questions otherwise.
ON_DISK = False
STOP_S = 10
TICKS = os.sysconf("SC_CLK_TCK")


def files_directory():
    """Where servers keep files: in RAM if there is room.

    On a disk the file system, not nginx, decides what a miss costs nginx: on ext4 the same load has
    been seen to take it nineteen times the CPU from one run to the next, on tmpfs 1.4 times.
    """
    with contextlib.suppress(OSError):
        if not ON_DISK and shutil.disk_usage("/dev/shm").free >= FILES_BYTES:
            return "/dev/shm"
    return tempfile.gettempdir()


class Failure(Exception):
    """Something an operator of the benchmark has to know; printed without a trace."""


class Certificate:
    """A self-signed certificate (ECDSA P-256) for loopback and its key, in one file and in two."""

    def __init__(self, directory):
        self.chain, self.key, self.both = (os.path.join(directory, name) for name in ("chain.pem", "key.pem", "both.pem"))
        command = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", self.key, "-out", self.chain,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"openssl could not make a certificate:\n{done.stderr}")
        with open(self.both, "w") as both:
            both.write(open(self.chain).read() + open(self.key).read())


@contextlib.contextmanager
def named_certificates(count):
    """As many certificates of one size and one key, each for a name of its own; gives their names, and what a file says of them."""
    with certificate() as first:
        directory = os.path.dirname(first.chain)
        name = "n{:05}.names.test".format
        command = [
            "openssl", "req", "-x509", "-key", first.key, "-days", "30", "-outform", "DER",
            "-subj", f"/CN={name(0)}", "-addext", f"subjectAltName=DNS:{name(0)}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True)
        if done.returncode != 0:
            raise Failure(f"openssl could not make a certificate:\n{done.stderr.decode(errors='replace')}")
        lines = []
        for number in range(count):
            path = os.path.join(directory, f"{number}.pem")
            # Another name in its place: nobody here looks at who has signed it.
            with open(path, "w") as file:
                file.write(ssl.DER_cert_to_PEM_cert(done.stdout.replace(name(0).encode(), name(number).encode())))
            lines.append(f'{{ certificate = "{path}", key = "{first.key}" }},\n')
        yield [name(number) for number in range(count)], f"[tls]\ncertificates = [\n{''.join(lines)}]\n"


@contextlib.contextmanager
def certificate():
    """A certificate for the servers of one workload."""
    with tempfile.TemporaryDirectory(prefix="littoral-bench-tls-", dir=files_directory()) as directory:
        yield Certificate(directory)


class Process:
    """A child that listens on a port of its own, with a directory of its own. Both go with close()."""

    def __init__(self, name, command, cpus, prefix=()):
        self.name = name
        self.run = tempfile.mkdtemp(prefix=f"littoral-bench-{name}-", dir=files_directory())
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = os.path.join(self.run, "output.log")
        self.child = None
        self.trust = None
        self.questions = 0
        try:
            argv = ["taskset", "-c", ",".join(map(str, cpus)), *prefix, *command(self)]
            with open(self.log, "wb") as log:
                self.child = subprocess.Popen(argv, cwd=self.run, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self.wait(lambda: connects(self.port), f"listen on {self.port}")
        except BaseException:
            self.close()
            raise

    def wait(self, ready, what):
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self.child.poll() is not None:
                raise Failure(f"{self.name} ended before it could {what}:\n{self.output()}")
            if ready():
                return
            time.sleep(0.05)
        raise Failure(f"{self.name} did not {what} within {START_S} s:\n{self.output()}")

    def output(self):
        with open(self.log, errors="replace") as log:
            return log.read()[-3000:]

    def pids(self):
        return tree(self.child.pid)

    def cpu_seconds(self):
        return cpu_seconds(self.pids())

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30, context=self.trust) as answer:
            return answer.read()

    def close(self):
        if self.child is not None and self.child.poll() is None:
            pids = self.pids()
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.child.wait()
        shutil.rmtree(self.run, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def origin(cpus):
    """The fast origin: an nginx with files."""

    def command(process):
        os.mkdir(os.path.join(process.run, "bodies"))
        for name, size in BODIES.items():
            with open(os.path.join(process.run, "bodies", name), "wb") as body:
                body.write(os.urandom(size))
        return nginx_command(process, configure(process, "origin.conf"))

    return Process("origin", command, cpus)


def slow_origin(cpus):
    return Process("slow-origin", lambda p: [sys.executable, os.path.join(HERE, "slow_origin.py"), str(p.port)], cpus)


def origin_requests(process):
    """How many requests an origin of ours has answered, these questions not counted."""
    answer = process.get("/requests").decode()
    if "\n" not in answer:
        return int(answer)
    # nginx's stub_status counts every question as well; its third line is "accepts handled requests".
    process.questions += 1
    return int(answer.split("\n")[2].split()[2]) - process.questions


def settled_origin_requests(process):
    """The same, once nothing new has reached the origin for a while."""
    count = origin_requests(process)
    for _ in range(50):
        time.sleep(0.1)
        before, count = count, origin_requests(process)
        if before == count:
            return count
    raise Failure("the origin is still asked 5 s after the load ended")


class Server(Process):
    """A cache under test. With a certificate, `url` is that of its listener with TLS; `more` is what Littoral's file says, `log` where its purges are."""

    def __init__(self, name, origin_port, cpus, workers=1, littoral="", prefix=(), certificate=None, memory=MEMORY_MIB, disk="off", more=None, log='"local"'):
        self.admin = free_port()
        settings = {"ORIGIN": origin_port, "WORKERS": workers, "MEMORY": memory, "DISK": disk, "ADMIN": self.admin, "LOG": log}
        if more is not None:
            settings["MORE"] = more
        self.littoral = littoral
        self.certificate = certificate
        if certificate is not None:
            self.tls_port = free_port()
            settings |= {"TLS": self.tls_port, "CERTIFICATE": certificate.chain, "KEY": certificate.key, "PEM": certificate.both}
        super().__init__(name, lambda process: COMMANDS[name](process, settings), cpus, prefix)
        try:
            if certificate is not None:
                self.url = f"https://127.0.0.1:{self.tls_port}"
                self.trust = ssl.create_default_context(cafile=certificate.chain)
                self.wait(lambda: connects(self.tls_port), f"listen on {self.tls_port}")
            if name == "littoral":
                self.wait(lambda: self.says_200("/readyz"), "answer 200 on /readyz")
                self.wait(lambda: self.says_200("/currentz"), "answer 200 on /currentz")
        except BaseException:
            self.close()
            raise

    def says_200(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


def hub(cpus, littoral):
    """A hub that nodes share, set up as an operator does it."""

    def command(process):
        return [shutil.which("nats-server", path=os.environ["PATH"] + ":/usr/sbin"), "-a", "127.0.0.1", "-p", str(process.port), "-js", "-sd", process.run]

    process = Process("hub", command, cpus)
    try:
        subprocess.run([littoral, "hub", "init", "--nats", f"nats://127.0.0.1:{process.port}"], check=True, stdout=subprocess.DEVNULL)
    except BaseException:
        process.close()
        raise
    return process


def littoral_command(process, settings):
    # As an operator runs it: with its access log and its metrics.
    if "MORE" in settings:
        return [process.littoral, "run", "--config", configure(process, "littoral.toml", settings)]
    tls = []
    if process.certificate is not None:
        tls = ["--https", f"127.0.0.1:{settings['TLS']}", "--certificate", settings["CERTIFICATE"], "--key", settings["KEY"]]
    return [
        process.littoral, "run",
        "--origin", f"http://127.0.0.1:{settings['ORIGIN']}",
        "--listen", f"127.0.0.1:{process.port}",
        "--admin", f"127.0.0.1:{process.admin}",
        "--data", os.path.join(process.run, "data"),
        "--memory", f"{settings['MEMORY']}MiB",
        "--disk", settings["DISK"],
        "--workers", str(settings["WORKERS"]),
        "--access-log", os.path.join(process.run, "access.log"),
        *tls,
    ]  # fmt: skip


def cached_nginx_command(process, settings):
    if process.certificate is not None:
        configure(process, "nginx-tls.conf", settings)
    return nginx_command(process, configure(process, "nginx.conf", settings))


def nginx_command(process, config):
    return ["nginx", "-p", process.run, "-e", os.path.join(process.run, "error.log"), "-c", config, "-g", "daemon off;"]


def varnish_command(process, settings):
    # Varnish has threads instead of workers; what it may use is the CPUs it is pinned to.
    return [
        "varnishd", "-F", "-j", "none", "-n", os.path.join(process.run, "varnish"),
        "-a", f"127.0.0.1:{process.port}", "-f", configure(process, "varnish.vcl", settings),
        "-s", f"malloc,{settings['MEMORY']}M", "-p", "thread_pool_max=3000", "-p", "listen_depth=4096",
    ]  # fmt: skip


def haproxy_command(process, settings):
    files = ["haproxy.cfg"] if process.certificate is None else ["haproxy.cfg", "haproxy-tls.cfg"]
    return ["haproxy", "-db", *(word for name in files for word in ("-f", configure(process, name, settings)))]


COMMANDS = {"littoral": littoral_command, "nginx": cached_nginx_command, "varnish": varnish_command, "haproxy": haproxy_command}
# Varnish leaves TLS to a program in front of it.
SPEAK_TLS = ("littoral", "nginx", "haproxy")


def configure(process, name, settings=None):
    """Fills @NAME@ in a file of conf/ and returns where the result is."""
    with open(os.path.join(HERE, "conf", name)) as source:
        text = source.read()
    # What a file gets more may have names of its own.
    settings = settings or {}
    https = f'https = "127.0.0.1:{settings["TLS"]}"' if "TLS" in settings else ""
    values = {"MORE": settings.get("MORE", ""), "HTTPS": https, "PORT": process.port, "RUN": process.run, "USER": "user root;" if os.geteuid() == 0 else "", **settings}
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    path = os.path.join(process.run, name)
    with open(path, "w") as target:
        target.write(text)
    return path


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def connects(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False


def tree(root):
    """A process and all that descend from it."""
    parents = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat_fields(path)
            parents[int(path.split("/")[2])] = int(fields[1])
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def stat_fields(path):
    """/proc/PID/stat from its third field on; the second may hold anything."""
    with open(path) as stat:
        text = stat.read()
    return text[text.rindex(")") + 2 :].split()


def thread_cpu_seconds(pids, name):
    """Of the threads of that name."""
    ticks = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat") as stat:
                text = stat.read()
            fields = text[text.rindex(")") + 2 :].split()
            if text[text.index("(") + 1 : text.rindex(")")] == name:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids):
    """CPU time of processes, in two ways of which each can only miss some; the larger is taken.

    Run time per thread in nanoseconds forgets threads that ended; user and system time of the
    process remembers them, and reaped children, in ticks of 10 ms.
    """
    total = 0.0
    for pid in pids:
        precise, ticks = 0, 0
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            with contextlib.suppress(OSError, ValueError), open(path) as schedstat:
                precise += int(schedstat.read().split()[0])
        with contextlib.suppress(OSError):
            ticks = sum(map(int, stat_fields(f"/proc/{pid}/stat")[11:15]))
        total += max(precise / 1e9, ticks / TICKS)
    return total


def resident_bytes(pids):
    """Memory in RAM, what is shared counted once (proportional set size)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as rollup:
            total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return total * 1024
