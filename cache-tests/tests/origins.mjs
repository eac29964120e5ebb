// One of several origins, for tests that kill it. Run by origins.rs: node origins.mjs PORT
import { createServer } from "node:http";

const port = Number(process.argv[2]);

// Every answer takes 15 ms, so that some are always under way.
createServer((request, response) => {
    const fields = { "X-Origin": String(port), "Cache-Control": "max-age=60", "Content-Type": "text/plain" };
    if (request.url.startsWith("/stale")) fields["Cache-Control"] = "max-age=1, stale-if-error=600";
    if (request.url === "/healthz") return response.writeHead(200).end();
    setTimeout(() => response.writeHead(200, fields).end(`${request.url} of ${port}\n`), 15);
}).listen(port, "127.0.0.1");
