// An ordinary web program as an origin. Run by first_run.rs: node origin.mjs PORT
import { createServer } from "node:http";

let served = 0;
const fresh = { "Cache-Control": "max-age=60", "Content-Type": "text/plain; charset=utf-8" };

// Sends one line every 20 ms, in chunks.
function drip(response, lines) {
    response.writeHead(200, fresh);
    let line = 0;
    const timer = setInterval(() => {
        response.write(`line ${line++}\n`);
        if (line === lines) {
            clearInterval(timer);
            response.end();
        }
    }, 20);
}

const pages = {
    "/page": (response) => response.writeHead(200, { ...fresh, "Content-Length": 5, ETag: '"p"' }).end("page\n"),
    "/chunked": (response) => {
        response.writeHead(200, fresh);
        for (const piece of ["one, ", "two, ", "", "three"]) response.write(piece);
        response.end();
    },
    "/slow": (response) => setTimeout(() => response.writeHead(200, fresh).end("slow\n"), 300),
    "/slow-chunks": (response) => drip(response, 20),
    "/large": (response) => response.writeHead(200, fresh).end(Buffer.alloc(3_000_000, "0123456789abcdef.")),
    "/empty": (response) => response.writeHead(200, { ...fresh, "Content-Length": 0 }).end(),
    "/gone": (response) => response.writeHead(410, fresh).end("gone\n"),
    "/uncacheable": (response) =>
        response.writeHead(200, { "Cache-Control": "no-store" }).end(`request ${++served}\n`),
    "/failing": (response) => response.writeHead(500, { "Content-Type": "text/plain" }).end("failed\n"),
    "/abrupt": (response) => {
        response.writeHead(200, { ...fresh, "Content-Length": 1000 });
        response.write("half of it");
        setImmediate(() => response.destroy());
    },
};

createServer((request, response) => {
    const page = pages[request.url];
    if (page) page(response);
    else response.writeHead(404).end();
}).listen(Number(process.argv[2]), "127.0.0.1");
