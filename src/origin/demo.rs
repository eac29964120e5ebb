//! The built-in demonstration origin: what a node without any other shows to a newcomer.
//!
//! [`respond`] is a function of its arguments; [`DemoOrigin`] serves it.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

/// A page, as the demonstration origin answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demo {
    pub status: u16,
    pub content_type: &'static str,
    pub cache_control: &'static str,
    /// `ETag` and `Last-Modified`, where the page stays as it is.
    pub validators: Option<(&'static str, &'static str)>,
    /// How long the origin takes to answer.
    pub delay: Duration,
    pub body: Bytes,
}

/// Pages change with the version, and only with it.
const VALIDATORS: (&str, &str) = (concat!("\"", env!("CARGO_PKG_VERSION"), "\""), "Thu, 01 Jan 2026 00:00:00 GMT");

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

const LARGE_BYTES: usize = 16 << 20;
static LARGE: LazyLock<Bytes> = LazyLock::new(large);

/// The page at `path`; `count` is how often pages that count have been asked for.
pub fn respond(path: &str, count: u64) -> Demo {
    let page = |content_type, cache_control, body| Demo {
        status: 200,
        content_type,
        cache_control,
        validators: Some(VALIDATORS),
        delay: Duration::ZERO,
        body,
    };
    match path {
        "/" => page(HTML, "max-age=60", Bytes::from_static(INDEX.as_bytes())),
        "/style.css" => page("text/css; charset=utf-8", "max-age=3600", Bytes::from_static(STYLE.as_bytes())),
        "/large.bin" => page("application/octet-stream", "max-age=3600", LARGE.clone()),
        "/slow" => Demo {
            delay: Duration::from_secs(1),
            ..page(TEXT, "max-age=10, stale-while-revalidate=30", Bytes::from_static(SLOW.as_bytes()))
        },
        "/uncacheable" => Demo {
            validators: None,
            ..page(TEXT, "no-store", format!("The origin has been asked for this page {count} times.\n").into())
        },
        _ => Demo {
            status: 404,
            validators: None,
            ..page(TEXT, "max-age=5", Bytes::from_static(b"There is no such page. Try / instead.\n"))
        },
    }
}

/// Bytes that do not compress and are the same everywhere: xorshift64 (Marsaglia 2003), from a fixed seed.
fn large() -> Bytes {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(LARGE_BYTES);
    while bytes.len() < LARGE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.into()
}

/// Serves the demonstration pages on a connection of its own, like any other origin.
#[derive(Debug, Default)]
pub struct DemoOrigin {
    uncacheable: AtomicU64,
}

#[async_trait]
impl ServeHttp for DemoOrigin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let path = request.uri.path();
        let count = match path {
            "/uncacheable" => 1 + self.uncacheable.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        let demo = respond(path, count);
        let known = request.headers.get(header::IF_NONE_MATCH).map(|value| value.as_bytes());
        let (head, delay) = (request.method == Method::HEAD, demo.delay);
        let response = demo.into_response(head, known);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        response
    }
}

impl Demo {
    /// The answer to a GET, or HEAD, of one who knows the representation with the entity tag `known`.
    fn into_response(self, head: bool, known: Option<&[u8]>) -> Response<Vec<u8>> {
        let not_modified = self.validators.is_some_and(|(etag, _)| Some(etag.as_bytes()) == known);
        let mut response = Response::builder().header(header::CACHE_CONTROL, self.cache_control);
        if let Some((etag, last_modified)) = self.validators {
            response = response.header(header::ETAG, etag).header(header::LAST_MODIFIED, last_modified);
        }
        if not_modified {
            response = response.status(StatusCode::NOT_MODIFIED);
        } else {
            response = response.status(self.status).header(header::CONTENT_TYPE, self.content_type);
            response = response.header(header::CONTENT_LENGTH, self.body.len());
        }
        let body = if head || not_modified { Vec::new() } else { self.body.into() };
        response.body(body).expect("statuses and fields are constants, and valid")
    }
}

const SLOW: &str = "\
This page takes the origin a second.

Ask again within 10 seconds: it comes from the cache, at once. Ask later than that, but within 40: it still comes at
once, a little stale, while the cache fetches it anew behind your back (stale-while-revalidate).
";

const INDEX: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Littoral</title>
<link rel="stylesheet" href="/style.css">
<main>
<h1>Littoral <small>is running</small></h1>
<p>This page comes from the demonstration origin inside the node, through its cache. The first request for it was a
miss; for a minute, every other one is a hit. The <code>Cache-Status</code> field of each response says which, and why.</p>

<h2>See it work</h2>
<pre><b># a miss, then hits: mind Age and ttl</b>
curl -sI http://localhost:8080/style.css | grep -iE 'age|cache'
curl -sI http://localhost:8080/style.css | grep -iE 'age|cache'

<b># one second, then none</b>
curl -s -o /dev/null -w '%{time_total} s\n' http://localhost:8080/slow
curl -s -o /dev/null -w '%{time_total} s\n' http://localhost:8080/slow

<b># ten clients, one request to the origin</b>
for i in $(seq 10); do curl -s -o /dev/null 'http://localhost:8080/slow?together' &amp; done; wait

<b># a part of a stored response</b>
curl -s -r 0-99 http://localhost:8080/large.bin | wc -c</pre>

<h2>Pages to try</h2>
<dl>
<dt><a href="/style.css">/style.css</a><dd>fresh for an hour
<dt><a href="/large.bin">/large.bin</a><dd>16 MiB, fresh for an hour
<dt><a href="/slow">/slow</a><dd>takes the origin a second; served stale while it is fetched anew
<dt><a href="/uncacheable">/uncacheable</a><dd><code>no-store</code>: counts how often the origin was asked
<dt><a href="/missing">/missing</a><dd>not found, and even that is stored, for five seconds
</dl>

<h2>Put it in front of your own site</h2>
<pre>littoral run --origin https://example.org</pre>
</main>
</html>
"#;

const STYLE: &str = "\
:root { color-scheme: light dark; --sea: light-dark(#0b6e8a, #6fd0ea); --sand: light-dark(#f6f1e7, #10191d);
  --ink: light-dark(#1d2b30, #dfe9ec); --foam: light-dark(#fff, #18252b) }
* { box-sizing: border-box }
body { margin: 0; background: var(--sand); color: var(--ink); font: 1.05rem/1.6 system-ui, sans-serif }
main { max-width: 46rem; margin: 0 auto; padding: 3rem 1.25rem 4rem }
h1 { font-size: 2.6rem; margin: 0 0 1rem; color: var(--sea) }
h1 small { font-size: 1.1rem; font-weight: 400; opacity: .8 }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.2rem }
a { color: var(--sea) }
pre { padding: 1rem 1.2rem; overflow-x: auto; background: var(--foam); border-left: 4px solid var(--sea); border-radius: 6px;
  font: .85rem/1.6 ui-monospace, monospace }
pre b { font-weight: 400; opacity: .65 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.2rem }
dt { font-family: ui-monospace, monospace }
dd { margin: 0 }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let rows = [
            ("/", 200, "max-age=60", 0, true),
            ("/style.css", 200, "max-age=3600", 0, true),
            ("/large.bin", 200, "max-age=3600", 0, true),
            ("/slow", 200, "max-age=10, stale-while-revalidate=30", 1, true),
            ("/uncacheable", 200, "no-store", 0, false),
            ("/no/such/page", 404, "max-age=5", 0, false),
        ];
        for (path, status, cache_control, delay, validators) in rows {
            let demo = respond(path, 0);
            let found = (demo.status, demo.cache_control, demo.delay.as_secs(), demo.validators.is_some());
            assert_eq!(found, (status, cache_control, delay, validators), "{path}");
            assert!(!demo.body.is_empty(), "{path}");
        }
    }

    #[test]
    fn links_of_the_front_page_lead_somewhere() {
        let links = INDEX.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
        for link in links.filter(|link| *link != "/missing") {
            assert_eq!(respond(link, 0).status, 200, "{link}");
        }
    }

    #[test]
    fn the_large_page_is_the_same_everywhere() {
        let large = respond("/large.bin", 0).body;
        assert_eq!((large.len(), &large[..]), (LARGE_BYTES, &super::large()[..]));
    }

    #[test]
    fn what_counts_is_never_the_same() {
        assert_ne!(respond("/uncacheable", 1).body, respond("/uncacheable", 2).body);
    }

    #[test]
    fn answers_to_conditions_and_head() {
        let rows = [(false, None, 200, true), (true, None, 200, false), (false, Some(VALIDATORS.0), 304, false)];
        for (head, known, status, body) in rows {
            let response = respond("/style.css", 0).into_response(head, known.map(str::as_bytes));
            assert_eq!((response.status().as_u16(), !response.body().is_empty()), (status, body), "{known:?}");
            let length = response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
            assert_eq!(length, (status == 200).then_some(STYLE.len().to_string()).as_deref(), "{known:?}");
        }
    }
}
