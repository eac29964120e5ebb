"""The load generators: wrk for throughput, h2load for a fixed number of requests and for HTTP/2 over TLS, a filler."""
import os
import re
import resource
import socket
import ssl
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CONNECTIONS = 64
CIPHER = "TLS_AES_128_GCM_SHA256"
# What h2load says of its first connection, and what all must say in a workload over TLS.
SESSION = ("TLS Protocol", "Cipher", "Application protocol")
TLS_SESSION = ["TLSv1.3", CIPHER, "h2"]
MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def generate(command, cpus, environment=None):
    """Runs a generator on its CPUs; returns what it printed and the share of one CPU that it used."""
    before, start = children_cpu(), time.monotonic()
    argv = ["taskset", "-c", ",".join(map(str, cpus)), *command]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, env={**os.environ, **(environment or {})})
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stdout}{done.stderr}")
    return done.stdout, (children_cpu() - before) / (time.monotonic() - start)


def children_cpu():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def wrk(url, cpus, seconds, clients=CONNECTIONS, threads=1, script=None, environment=None):
    """A closed loop of clients on kept-alive connections."""
    command = ["wrk", f"-t{threads}", f"-c{clients}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    if script is not None:
        command += ["-s", os.path.join(HERE, script)]
    text, cpu = generate([*command, url], cpus, environment)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    latency = {share: float(value) * MS[unit] for share, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(us|ms|s|m)\b", text)}
    return {
        "requests": int(re.search(r"(\d+) requests in", text)[1]),
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),
        "p50": latency["50"],
        "p99": latency["99"],
        "bad": (int(refused[1]) if refused else 0) + (sum(map(int, broken.groups())) if broken else 0),
        "generator_cpu": cpu,
    }


def handshakes(port, names):
    """A connection for each name, one after the other, with a full handshake of TLS 1.3 and nothing else."""
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    anyone.minimum_version = ssl.TLSVersion.TLSv1_3
    for name in names:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            with anyone.wrap_socket(connection, server_hostname=name) as session:
                subject = session.getpeercert(binary_form=True)
                if name.encode() not in subject:
                    raise RuntimeError(f"{name}: the certificate is for another name")


def h2load(url, cpus, requests, clients, streams=None):
    """Exactly `requests` requests over `clients` connections; percentiles from its log of every request.

    With `streams` it is HTTP/2, with so many requests at a time on each connection, else HTTP/1.1.
    """
    # One cipher: servers prefer different ones.
    protocol = ["--h1"] if streams is None else [f"-m{streams}", f"--tls13-ciphers={CIPHER}"]
    with tempfile.NamedTemporaryFile(prefix="littoral-bench-") as log:
        command = ["h2load", *protocol, "-t1", f"-c{clients}", f"-n{requests}", f"--log-file={log.name}", url]
        text, cpu = generate(command, cpus)
        rows = [line.split() for line in open(log.name)]
    spent = sorted(int(row[2]) / 1000 for row in rows)
    good = min(int(re.search(pattern, text)[1]) for pattern in (r"status codes: (\d+) 2xx", r"done, (\d+) succeeded"))
    at = lambda share: spent[min(len(spent) - 1, int(share * len(spent)))] if spent else float("nan")
    return {
        "requests": good,
        "rate": float(re.search(r"finished in [^,]+, ([\d.]+) req/s", text)[1]),
        "bad": requests - good,
        "p50": at(0.5),
        "p99": at(0.99),
        "generator_cpu": cpu,
        "session": [value for label in SESSION if (value := labelled(text, label))],
    }


def labelled(text, label):
    found = re.search(rf"^{label}: (\S+)", text, re.MULTILINE)
    return found and found[1]


def fetch_each(port, paths):
    """Gets every path once over one kept-alive connection; returns how many answered 200 with a whole body."""
    good, connection, answer = 0, None, None
    for path in paths:
        if connection is None:
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answer = connection.makefile("rb", buffering=1 << 16)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        status = answer.readline()
        length, close = None, False
        while (line := answer.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            if name.lower() == b"connection" and value.strip().lower() == b"close":
                close = True
        if length is None:
            raise RuntimeError(f"port {port}: expected an answer with Content-Length, found {status!r} without")
        good += len(answer.read(length)) == length and status.split()[1:2] == [b"200"]
        if close:
            connection.close()
            connection = None
    return good
