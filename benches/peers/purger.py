#!/usr/bin/env python3
"""Purges at a rate: purger.py ADMIN_PORT RATE. Each names a surrogate key that nothing stored has. Prints what it reached."""
import http.client
import itertools
import json
import signal
import sys
import threading
import time

CONNECTIONS = 16


def main():
    port, rate = int(sys.argv[1]), float(sys.argv[2])
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    done, numbers, started = [0] * CONNECTIONS, itertools.count(), time.monotonic()
    threads = [threading.Thread(target=purge, args=(port, rate, numbers, over, started, done, slot)) for slot in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(round(sum(done) / (time.monotonic() - started)))


def purge(port, rate, numbers, over, started, done, slot):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    while not over.is_set():
        number = next(numbers)
        time.sleep(max(0, started + number / rate - time.monotonic()))
        connection.request("POST", "/v1/purge", json.dumps({"tags": [f"other-{started}-{number}"]}))
        answer = connection.getresponse()
        answer.read()
        # A hub has it by then; that every node has applied it is not waited for.
        if answer.status not in (200, 202):
            raise SystemExit(f"purge: {answer.status}")
        done[slot] += 1


if __name__ == "__main__":
    main()
