#!/usr/bin/env python3
"""slow_origin.py PORT: every path is a cacheable body of 1 KiB that takes one second; /requests counts them."""
import asyncio
import sys

BODY = b"x" * 1024
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\n\r\n"
SECONDS = 1.0

requests = 0


async def serve(reader, writer):
    global requests
    try:
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            if request.split(b" ", 2)[1] == b"/requests":
                body = str(requests).encode()
            else:
                requests += 1
                await asyncio.sleep(SECONDS)
                body = BODY
            writer.write(HEAD % len(body) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    async with server:
        await server.serve_forever()


asyncio.run(main())
