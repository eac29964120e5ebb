"""The workloads: what is sent, what is checked, which figures are printed.

A workload is a function of its name and the options; it prints Markdown and says whether every
round of Littoral was sound.
"""
import contextlib
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

import load
import rig

SERVER_CPU, LOAD_CPU = 0, 1
TLS_STREAMS = {"1k": 10, "32k": 4, "1m": 4}
BASELINE = "nginx"


def hits(name, options):
    size = name.removeprefix("hot")

    def one(server, _):
        return load.wrk(f"{server.url}/{size}/hot", [LOAD_CPU], options.seconds)

    def warm(server):
        check_body(server, size)
        load.wrk(f"{server.url}/{size}/hot", [LOAD_CPU], 1)

    return throughput(name, f"hits of one {size} object", options, warm, one, expected_fetches=lambda _: 0)


def tls_hits(name, options):
    """Hits over TLS 1.3 with HTTP/2; as many requests a round as the server was seen to answer in the time."""
    size = name.removeprefix("tls")
    streams = TLS_STREAMS[size]
    requests = {}

    def run(server, count):
        result = load.h2load(f"{server.url}/{size}/hot", [LOAD_CPU], count, load.CONNECTIONS, streams)
        if result["session"] != load.TLS_SESSION:
            raise rig.Failure(f"{server.name}: expected {' '.join(load.TLS_SESSION)}, found {' '.join(result['session']) or 'no TLS'}")
        return result

    def warm(server):
        check_body(server, size)
        least = load.CONNECTIONS * streams
        run(server, least)
        rate = run(server, 2 * least)["rate"]
        requests[server.name] = max(least, int(rate * options.seconds))

    def one(server, _):
        return run(server, requests[server.name])

    title = f"hits of one {size} object over TLS 1.3 with HTTP/2, {streams} streams to a connection"
    return throughput(name, title, options, warm, one, expected_fetches=lambda _: 0, tls=True)


def check_body(server, size):
    if not all([len(server.get(f"/{size}/hot")) == rig.BODIES[size] for _ in range(5)]):
        raise rig.Failure(f"{server.name}: expected a body of {size}, found another length")


def misses(name, options):
    size = name.removeprefix("miss")

    def one(server, number):
        environment = {"SIZE": size, "TAG": f"{name}-{server.name}-{number}"}
        return load.wrk(server.url, [LOAD_CPU], options.seconds, script="unique.lua", environment=environment)

    return throughput(name, f"every request a new {size} object, stored", options, lambda _: None, one, expected_fetches=lambda r: r["requests"])


def disk_hits(name, options, objects=8192, memory=256):
    """A working set eight times the memory: the rest is read from the system's memory of the disk, by nginx with sendfile."""
    size = name.removeprefix("disk")

    def one(server, _):
        return load.wrk(server.url, [LOAD_CPU], options.seconds, script="random.lua", environment={"SIZE": size, "COUNT": str(objects)})

    def warm(server):
        check_body(server, size)
        paths = [f"/{size}/{number + 1}" for number in range(objects)]
        if load.fetch_each(server.port, paths) != objects:
            raise rig.Failure(f"{server.name}: not every object was answered")

    rig.ON_DISK = True
    title = f"hits of {objects:,} objects of {size}, memory {memory} MiB, uniformly random"
    try:
        return throughput(name, title, options, warm, one, expected_fetches=lambda _: 0, memory=memory, disk="4GiB")
    finally:
        rig.ON_DISK = False


def throughput(name, title, options, warm, one, expected_fetches, tls=False, **settings):
    rounds = {server: [] for server in contenders(options, tls)}
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(rig.origin([LOAD_CPU]))
        certificate = stack.enter_context(rig.certificate()) if tls else None
        servers = [stack.enter_context(start(server, origin, options, certificate=certificate, **settings)) for server in rounds]
        for server in servers:
            warm(server)
        for number, server in alternating(servers, options.rounds):
            rounds[server.name].append(measured(server, origin, number, one, expected_fetches))
    head(name, f"{title}; {options.rounds} rounds of {options.seconds} s, {load.CONNECTIONS} connections")
    return table(rounds)


def contenders(options, tls):
    return [server for server in options.servers if not tls or server in rig.SPEAK_TLS]


def start(name, origin, options, cpus=(SERVER_CPU,), workers=1, prefix=(), certificate=None, **settings):
    return rig.Server(name, origin.port, list(cpus), workers, options.littoral, prefix, certificate, **settings)


def alternating(servers, rounds):
    """Every server once per round; the order turns round every other round."""
    for number in range(rounds):
        for server in servers if number % 2 == 0 else reversed(servers):
            yield number, server


def measured(server, origin, number, one, expected_fetches):
    """One round. It is unsound when an answer was not 2xx, or the origin saw other than it should."""
    fetched, cpu = rig.origin_requests(origin), server.cpu_seconds()
    result = one(server, number)
    # Fetches for clients that have gone would otherwise be charged to the next server.
    after = rig.settled_origin_requests(origin)
    result["cpu"] = server.cpu_seconds() - cpu
    result["fetches"] = after - fetched
    result["per_cpu"] = result["requests"] / result["cpu"]
    expected = expected_fetches(result)
    # What is in flight when the generator stops is fetched and not counted: at most one per connection.
    in_flight = load.CONNECTIONS if expected else 0
    result["sound"] = result["bad"] == 0 and expected <= result["fetches"] <= expected + in_flight
    return result


def table(rounds):
    """Medians and quartiles of the sound rounds; ratios to the baseline round by round."""
    print("| server | req per server-CPU-s: median (quartiles) | ratio to nginx: median, lower quartile | req/s | p50 ms | p99 ms | origin fetches | not 2xx | unsound rounds | loadgen CPU |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for server, results in rounds.items():
        sound = [result for result in results if result["sound"]]
        unsound = len(results) - len(sound)
        total = lambda key: sum(result[key] for result in results)
        checked = f"{total('fetches')} | {total('bad')} | {unsound}/{len(results)}"
        if not sound:
            print(f"| {server} | - | - | - | - | - | {checked} | - |")
            continue
        middle = lambda key: statistics.median(result[key] for result in sound)
        pairs = zip(results, rounds.get(BASELINE, []))
        ratios = [mine["per_cpu"] / base["per_cpu"] for mine, base in pairs if mine["sound"] and base["sound"]]
        print(
            f"| {server} | {spread([result['per_cpu'] for result in sound])} | {ratio(ratios)} | {middle('rate'):,.0f} "
            f"| {middle('p50'):.2f} | {middle('p99'):.2f} | {checked} | {middle('generator_cpu'):.2f} |"
        )
    print()
    return all(result["sound"] for result in rounds.get("littoral", []))


def coalesce(name, options):
    """A thousand clients ask at once for an object that nobody has and the origin takes a second for."""
    clients, rounds = 1000, {server: [] for server in options.servers}
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(rig.slow_origin([LOAD_CPU]))
        servers = [stack.enter_context(start(server, origin, options)) for server in options.servers]
        for number, server in alternating(servers, options.rounds):
            path = f"/cold/{number}"
            fetched, cpu = rig.origin_requests(origin), server.cpu_seconds()
            result = load.h2load(server.url + path, [LOAD_CPU], clients, clients)
            result["cpu"] = server.cpu_seconds() - cpu
            result["fetches"] = rig.origin_requests(origin) - fetched
            rounds[server.name].append(result)
    head(name, f"{clients} clients, one cold object, the origin takes 1 s; {options.rounds} rounds")
    print("| server | origin fetches: median (least-most) | p50 ms | p99 ms: median (quartiles) | CPU ms | not 2xx |\n|---|---|---|---|---|---|")
    for server, results in rounds.items():
        of = lambda key: [result[key] for result in results]
        fetches = of("fetches")
        print(
            f"| {server} | {statistics.median(fetches):.0f} ({min(fetches)}-{max(fetches)}) | {statistics.median(of('p50')):,.0f} "
            f"| {spread(of('p99'))} | {statistics.median(of('cpu')) * 1000:.0f} | {sum(of('bad'))} |"
        )
    print()
    return all(result["bad"] == 0 and result["fetches"] == 1 for result in rounds.get("littoral", []))


def memory(name, options, objects=100_000):
    """What one stored object of 1 KiB costs in RAM beyond its body."""
    head(name, f"{objects:,} objects of 1 KiB in the cache; proportional set size, body not counted")
    print("| server | bytes per object over the body | before MiB | after MiB | not 2xx | of 1,000 read again, fetched again |\n|---|---|---|---|---|---|")
    sound = True
    os.sched_setaffinity(0, {LOAD_CPU})
    with rig.origin([LOAD_CPU]) as origin:
        for each in options.servers:
            with start(each, origin, options) as server:
                load.fetch_each(server.port, ["/1k/first"])
                time.sleep(1)
                before = rig.resident_bytes(server.pids())
                paths = [f"/1k/{number}" for number in range(objects)]
                good = load.fetch_each(server.port, paths)
                time.sleep(2)
                after = rig.resident_bytes(server.pids())
                fetched = rig.origin_requests(origin)
                load.fetch_each(server.port, paths[:: objects // 1000])
                again = rig.origin_requests(origin) - fetched
            note = {"nginx": "bodies on disk", "haproxy": "memory taken at start"}.get(each)
            over = note or f"{(after - before) / objects - rig.BODIES['1k']:,.0f}"
            print(f"| {each} | {over} | {before >> 20} | {after >> 20} | {objects - good} | {again} |", flush=True)
            sound &= each != "littoral" or (good == objects and again == 0)
    os.sched_setaffinity(0, range(os.cpu_count()))
    print()
    return sound


def purged_hits(name, options, rate=1000):
    """Hits of one object with ten surrogate keys, with and without purges of other things meanwhile."""
    with rig.origin([LOAD_CPU]) as origin, start("littoral", origin, options) as server:
        return beside_purges(name, options, rate, origin, server, server)


def followed_hits(name, options, rate=1000):
    """The same of a node that follows a hub, while another node is asked for the purges."""
    with rig.origin([LOAD_CPU]) as origin, rig.hub([LOAD_CPU], options.littoral) as hub:
        follows = {"more": "", "log": f'{{ nats = "{hub.url.replace("http", "nats")}" }}'}
        with start("littoral", origin, options, **follows) as server, start("littoral", origin, options, (LOAD_CPU,), **follows) as other:
            return beside_purges(name, options, rate, origin, server, other)


def beside_purges(name, options, rate, origin, server, asked):
    """Rounds of hits at `server` in pairs, one of them while `asked` purges."""
    rounds = {"no purges": [], f"{rate:,} purges a second": []}
    reached = []
    check_body(server, "1k")
    load.wrk(f"{server.url}/1k/hot", [LOAD_CPU], 1)
    hit = lambda server, _: load.wrk(f"{server.url}/1k/hot", [LOAD_CPU], options.seconds)

    def one(number):
        serving = rig.thread_cpu_seconds(server.pids(), "front")
        result = measured(server, origin, number, hit, lambda _: 0)
        result["serving"] = (rig.thread_cpu_seconds(server.pids(), "front") - serving) / result["requests"]
        return result

    for number in range(options.rounds):
        for what in rounds if number % 2 == 0 else reversed(rounds):
            if what == "no purges":
                rounds[what].append(one(number))
                continue
            purger = subprocess.Popen(
                ["taskset", "-c", str(LOAD_CPU), sys.executable, os.path.join(rig.HERE, "purger.py"), str(asked.admin), str(rate)],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            time.sleep(0.3)
            rounds[what].append(one(number))
            purger.terminate()
            reached.append(int(purger.communicate()[0]))
    head(name, f"hits of one 1 KiB object with ten surrogate keys; {options.rounds} rounds of {options.seconds} s")
    print("| | CPU us per hit of the threads that serve: median | against no purges: median, upper quartile | of the whole process, purging included | purges/s |\n|---|---|---|---|---|")
    plain, purged = rounds.values()
    ratios = lambda cost: quartiles([cost(withal) / cost(without) for without, withal in zip(plain, purged)])[1:]
    for what, results in rounds.items():
        middle = statistics.median(result["serving"] for result in results) * 1e6
        serving = whole = "1.00"
        if results is purged:
            serving, whole = ("{:.2f}, {:.2f}".format(*ratios(cost)) for cost in (lambda r: r["serving"], lambda r: 1 / r["per_cpu"]))
        rates = 0 if results is plain else statistics.median(reached)
        print(f"| {what} | {middle:.2f} | {serving} | {whole} | {rates:,.0f} |")
    print()
    return all(result["sound"] for results in rounds.values() for result in results)


def shield_hits(name, options):
    """Misses of an edge that a shield answers from its cache, and the same misses of a node that asks the origin."""
    place = '{}\n[node]\nname = "{}"\npop = "{}"\nkey_file = "{}"\n{}'
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(rig.origin([LOAD_CPU]))
        hub = stack.enter_context(rig.hub([LOAD_CPU], options.littoral))
        log = f'{{ nats = "{hub.url.replace("http", "nats")}" }}'
        key = os.path.join(hub.run, "nodes.key")
        with open(key, "wb") as file:
            file.write(os.urandom(32))
        node = lambda cpu, more: stack.enter_context(start("littoral", origin, options, (cpu,), more=more, log=log))
        shield = node(LOAD_CPU, place.format("", "shield", "shield", key, 'address = "http://127.0.0.1:@PORT@"\n'))
        edges = {
            "the origin": node(SERVER_CPU, '\n[node]\nname = "plain"\n'),
            "a hit at the shield": node(SERVER_CPU, place.format('shield = "shield"', "edge", "edge", key, "")),
        }
        # Until they have heard of one another.
        time.sleep(2)
        rounds = {what: [] for what in edges}
        for number in range(options.rounds):
            asked = lambda tag: {"SIZE": "1k", "TAG": tag, "HOST": "bench.test"}
            for what in edges if number % 2 == 0 else reversed(edges):
                tag = f"{name}-{edges[what].port}-{number}"
                is_shielded = what != "the origin"
                if is_shielded:
                    # Objects of the same names, and more of them.
                    load.wrk(shield.url, [LOAD_CPU], 5 * options.seconds, script="unique.lua", environment=asked(tag))
                miss = lambda server, _: load.wrk(server.url, [LOAD_CPU], options.seconds, script="unique.lua", environment=asked(tag))
                rounds[what].append(measured(edges[what], origin, number, miss, lambda r: 0 if is_shielded else r["requests"]))
    head(name, f"every request a new 1k object at the node, stored; {options.rounds} rounds of {options.seconds} s, {load.CONNECTIONS} connections")
    print("| answered by | CPU us per miss: median | against the origin: median, upper quartile | unsound rounds |\n|---|---|---|---|")
    plain, shielded = rounds.values()
    for what, results in rounds.items():
        cost = statistics.median(1 / result["per_cpu"] for result in results) * 1e6
        ratio = "{:.2f}, {:.2f}".format(*quartiles([a["per_cpu"] / b["per_cpu"] for a, b in zip(plain, results)])[1:])
        print(f"| {what} | {cost:.2f} | {ratio} | {sum(not result['sound'] for result in results)}/{len(results)} |")
    print()
    return all(result["sound"] for results in rounds.values() for result in results)


def mirrored_hits(name, options):
    """Hits of one object, not mirrored, and every one mirrored to a target that is dead or never answers."""
    group = '[site.main.group.shadow]\norigins = "http://127.0.0.1:{}"\n[[site.main.rule]]\nthen = {{ mirror = {} }}\n'
    to = '{ group = "shadow" }'
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(rig.origin([LOAD_CPU]))
        # Connections are accepted by the kernel, and nobody reads.
        hanging = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        targets = {
            "no rule": "", "a rule, not to mirror": group.format(1, "false"),
            "nobody listens": group.format(1, to), "never answers": group.format(hanging.getsockname()[1], to),
        }  # fmt: skip
        servers = {what: stack.enter_context(start("littoral", origin, options, more=more)) for what, more in targets.items()}
        rounds = {what: [] for what in targets}
        hit = lambda server, _: load.wrk(f"{server.url}/1k/hot", [LOAD_CPU], options.seconds)
        for server in servers.values():
            check_body(server, "1k")
            load.wrk(f"{server.url}/1k/hot", [LOAD_CPU], 1)
        for number in range(options.rounds):
            for what in targets if number % 2 == 0 else reversed(targets):
                rounds[what].append(measured(servers[what], origin, number, hit, lambda _: 0))
    head(name, f"hits of one 1 KiB object, mirrored; {options.rounds} rounds of {options.seconds} s")
    print("| target | CPU us per hit: median | against no mirroring: median | against no rule | p99 ms | not 2xx |\n|---|---|---|---|---|---|")
    for what, results in rounds.items():
        cost = statistics.median(1 / result["per_cpu"] for result in results) * 1e6
        against = lambda base: statistics.median(plain["per_cpu"] / result["per_cpu"] for plain, result in zip(rounds[base], results))
        of = lambda key: [result[key] for result in results]
        print(f"| {what} | {cost:.2f} | {against('a rule, not to mirror'):.3f} | {against('no rule'):.3f} | {statistics.median(of('p99')):.2f} | {sum(of('bad'))} |")
    print()
    return all(result["sound"] for results in rounds.values() for result in results)


def scale(name, options):
    """One worker against two, on hits of 1 KiB."""
    cores = range(os.cpu_count())
    load_cpus = list(cores) if len(cores) < 4 else list(cores[2:])
    results = {(server, workers): [] for server in options.servers for workers in (1, 2)}
    with rig.origin([LOAD_CPU]) as origin:
        for number in range(options.rounds):
            for each in options.servers if number % 2 == 0 else options.servers[::-1]:
                for workers in (1, 2) if number % 2 == 0 else (2, 1):
                    with start(each, origin, options, range(workers), workers) as server:
                        load.wrk(f"{server.url}/1k/hot", load_cpus, 1, threads=2)
                        run = lambda server, _: load.wrk(f"{server.url}/1k/hot", load_cpus, options.seconds, threads=2)
                        results[each, workers].append(measured(server, origin, number, run, lambda _: 0))
    head(name, f"hits of 1 KiB, one worker on one CPU against two on two; the generator on CPUs {load_cpus}; {options.rounds} rounds of {options.seconds} s")
    print("| server | req/s, 1 worker | req/s, 2 workers | ratio | req per CPU-s, 1 worker | req per CPU-s, 2 workers | 2 CPUs to themselves would serve | efficiency | unsound rounds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for server in options.servers:
        sound = {workers: [result for result in results[server, workers] if result["sound"]] for workers in (1, 2)}
        unsound = 2 * options.rounds - sum(map(len, sound.values()))
        if not all(sound.values()):
            print(f"| {server} | - | - | - | - | - | - | - | {unsound}/{2 * options.rounds} |")
            continue
        rate, per_cpu = ([statistics.median(result[key] for result in sound[workers]) for workers in (1, 2)] for key in ("rate", "per_cpu"))
        print(
            f"| {server} | {rate[0]:,.0f} | {rate[1]:,.0f} | {rate[1] / rate[0]:.2f} | {per_cpu[0]:,.0f} | {per_cpu[1]:,.0f} "
            f"| {2 * per_cpu[1]:,.0f} | {per_cpu[1] / per_cpu[0]:.2f} | {unsound}/{2 * options.rounds} |"
        )
    print()
    return all(result["sound"] for workers in (1, 2) for result in results.get(("littoral", workers), []))


def instructions(name, options):
    """User instructions per hit, or per miss, of 1 KiB: a figure that a busy machine does not move."""
    tls, missed = name.startswith("tls"), name.startswith("miss")
    tool = "perf" if perf_counts_instructions() and not missed else "callgrind" if shutil.which("valgrind") else None
    what = "miss" if missed else "hit"
    over = " over TLS 1.3 with HTTP/2" if tls else ""
    head(name, f"user instructions per {what} of 1 KiB{over}, counted by {tool or 'nothing'}")
    if tool is None:
        print("Not available: the CPU counts no instructions for us here and valgrind is not installed.\n")
        return True
    print(f"| server | instructions per {what} | ratio to nginx |\n|---|---|---|")
    found = {}
    with rig.origin([LOAD_CPU]) as origin, rig.certificate() if tls else contextlib.nullcontext() as certificate:
        for each in contenders(options, tls):
            try:
                found[each] = {"perf": perf_instructions, "callgrind": callgrind_instructions}[tool](each, origin, options, certificate, **({"unique": True} if missed else {}))
            except (rig.Failure, RuntimeError) as problem:
                print(f"| {each} | not available: {str(problem).splitlines()[0]} | - |", flush=True)
    for each, count in found.items():
        against = f"{count / found[BASELINE]:.2f}" if BASELINE in found else "-"
        print(f"| {each} | {count:,.0f} | {against} |")
    print()
    return "littoral" in found or "littoral" not in options.servers


NAMES = 10_000
NAMED_COST_MAX = 1.05


def named_handshakes(name, options, warm=100, measured=400):
    """User instructions per full handshake for one of many names, against those where there is one: names are not to cost anything."""
    title = f"user instructions per handshake of TLS 1.3 for one name, and for {NAMES:,} names of as many certificates in no order"
    head(name, f"{title}, counted by callgrind")
    if shutil.which("callgrind_control") is None:
        print("Not available: valgrind is not installed.\n")
        return True
    print("| names | instructions per handshake | ratio to one name |\n|---|---|---|")
    found = []
    with rig.origin([LOAD_CPU]) as origin, rig.certificate() as certificate:
        for count in (1, NAMES):
            with rig.named_certificates(count) as (names, more):
                found.append(callgrind_handshakes(origin, options, certificate, names, more, warm, measured))
            print(f"| {count:,} | {found[-1]:,.0f} | {found[-1] / found[0]:.3f} |", flush=True)
    print()
    return found[-1] / found[0] <= NAMED_COST_MAX


def callgrind_handshakes(origin, options, certificate, names, more, warm, measured):
    out = os.path.join(origin.run, f"callgrind-{len(names)}")
    os.mkdir(out)
    # Nothing of the start is counted, which reads all certificates.
    prefix = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}/%p"]
    draw = random.Random(len(names))
    with start("littoral", origin, options, prefix=prefix, certificate=certificate, more=more) as server:
        control = lambda *what: subprocess.run(["callgrind_control", *what, str(server.child.pid)], check=True, capture_output=True)
        quiet(server)
        control("--instr=on")
        load.handshakes(server.tls_port, [draw.choice(names) for _ in range(warm)])
        control("--zero")
        load.handshakes(server.tls_port, [draw.choice(names) for _ in range(measured)])
        control("--dump")
        texts = [open(os.path.join(out, file)).read() for file in os.listdir(out)]
    totals = [int(count) for text in texts for count in re.findall(r"^(?:totals|summary): (\d+)$", text, re.MULTILINE)[:1]]
    return sum(totals) / measured


def quiet(server, within=120):
    """Until a server does nothing: what it has begun with its start is done."""
    before = -1
    for _ in range(within):
        now = server.cpu_seconds()
        if now - before < 0.05:
            return
        before = now
        time.sleep(1)
    raise rig.Failure(f"{server.name} is still busy {within} s after its start")


def perf_counts_instructions():
    if shutil.which("perf") is None:
        return False
    done = subprocess.run(["perf", "stat", "-x,", "-e", "instructions:u", "true"], capture_output=True, text=True)
    return re.search(r"^\d+,,instructions", done.stderr, re.MULTILINE) is not None


def perf_instructions(name, origin, options, certificate, requests=100_000):
    streams = certificate and TLS_STREAMS["1k"]
    with start(name, origin, options, certificate=certificate) as server:
        load.h2load(server.url + "/1k/hot", [LOAD_CPU], 1000, 8, streams)
        pids = ",".join(map(str, server.pids()))
        counter = subprocess.Popen(["perf", "stat", "-x,", "-e", "instructions:u", "-p", pids], stderr=subprocess.PIPE, text=True)
        time.sleep(0.5)
        load.h2load(server.url + "/1k/hot", [LOAD_CPU], requests, 8, streams)
        counter.send_signal(2)
        return int(re.search(r"^(\d+),,instructions", counter.communicate()[1], re.MULTILINE)[1]) / requests


def callgrind_instructions(name, origin, options, certificate, few=1000, many=21_000, unique=False):
    """The difference between two runs: start, end, handshakes and the first miss are in both."""
    streams = certificate and TLS_STREAMS["1k"]
    totals = []
    if unique:
        few, many = few // 4, many // 4
    for requests in (few, many):
        out = os.path.join(origin.run, f"callgrind-{name}-{requests}")
        os.mkdir(out)
        prefix = ["valgrind", "--tool=callgrind", "--trace-children=yes", f"--callgrind-out-file={out}/%p"]
        with start(name, origin, options, prefix=prefix, certificate=certificate) as server:
            server.get("/1k/hot")
            fetched = rig.origin_requests(origin)
            if unique:
                good = load.fetch_each(server.port, [f"/1k/{requests}-{number}" for number in range(requests)])
                if good != requests or rig.origin_requests(origin) != fetched + requests:
                    raise rig.Failure("answers were not 2xx, or did not come from the origin")
            else:
                result = load.h2load(server.url + "/1k/hot", [LOAD_CPU], requests, 8, streams)
                if result["bad"] or rig.origin_requests(origin) != fetched:
                    raise rig.Failure("answers were not 2xx, or reached the origin")
        texts = [open(os.path.join(out, file)).read() for file in os.listdir(out)]
        totals.append(sum(int(count) for text in texts for count in re.findall(r"^(?:totals|summary): (\d+)$", text, re.MULTILINE)[:1]))
    return (totals[1] - totals[0]) / (many - few)


def head(name, title):
    print(f"### {name}: {title}\n")


def spread(values):
    low, middle, high = quartiles(values)
    return f"{middle:,.0f} ({low:,.0f}-{high:,.0f})"


def ratio(values):
    if not values:
        return "-"
    low, middle, _ = quartiles(values)
    return f"{middle:.2f}, {low:.2f}"


def quartiles(values):
    if len(values) < 2:
        return (values[0],) * 3
    return statistics.quantiles(values, n=4, method="inclusive")


WORKLOADS = {
    "hot1k": hits, "hot32k": hits, "hot1m": hits,
    "tls1k": tls_hits, "tls32k": tls_hits, "tls1m": tls_hits,
    "disk256k": disk_hits,
    "miss1k": misses, "miss32k": misses,
    "coalesce": coalesce, "mem1k": memory, "purge1k": purged_hits, "purgehub1k": followed_hits, "mirror1k": mirrored_hits, "shield1k": shield_hits, "scale": scale, "instr1k": instructions, "missinstr1k": instructions, "tlsinstr1k": instructions, "tlsnames": named_handshakes,
}  # fmt: skip
