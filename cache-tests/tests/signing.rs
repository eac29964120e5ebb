//! Requests that are signed by AWS Signature Version 4, and an origin that checks the signature as S3 does: from what came,
//! with nothing of the node's code.

use std::time::Duration;

use cache_tests::client::post;
use cache_tests::node::NodeOptions;
use cache_tests::origin::nobody_listens;
use cache_tests::table::{Table, same, that};
use cache_tests::talker::{Asked, Manner, Said, Talker};
use ring::{digest, hmac};

const ACCESS_KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const REGION: &str = "eu-central-1";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut out) = (text.bytes(), Vec::new());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits: Vec<u8> = bytes.by_ref().take(2).collect();
            let digits = String::from_utf8(digits).expect("two digits");
            out.push(u8::from_str_radix(&digits, 16).expect("two digits"));
        } else {
            out.push(byte);
        }
    }
    out
}

fn escape(bytes: &[u8], keep_slash: bool) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (keep_slash && byte == b'/');
    bytes.iter().map(|byte| if keep(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// What is wrong with the signature of a request.
fn check(asked: &Asked, session_token: Option<&str>) -> Result<(), String> {
    let authorization = asked.field("authorization").ok_or("no Authorization")?;
    let rest = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another algorithm")?;
    let part = |name: &str| -> Result<String, String> {
        let part = rest.split(',').find_map(|part| part.trim().strip_prefix(&format!("{name}=")));
        part.map(str::to_owned).ok_or(format!("no {name}"))
    };
    let (credential, names, signature) = (part("Credential")?, part("SignedHeaders")?, part("Signature")?);
    let scope = credential.strip_prefix(&format!("{ACCESS_KEY}/")).ok_or("another key")?;
    let stamp = asked.field("x-amz-date").ok_or("no X-Amz-Date")?;
    let day = stamp.get(..8).ok_or("no date")?;
    same("scope", scope, &format!("{day}/{REGION}/s3/aws4_request"))?;
    // Every field of AWS's has to be signed, and the host.
    let names: Vec<&str> = names.split(';').collect();
    that(names.contains(&"host"), || "the host is not signed".into())?;
    for (name, _) in asked.fields.iter().filter(|(name, _)| name.starts_with("x-amz-")) {
        that(names.contains(&name.as_str()), || format!("{name} is not signed"))?;
    }
    that(names.is_sorted(), || format!("{names:?}"))?;
    let content = asked.field("x-amz-content-sha256").ok_or("no X-Amz-Content-SHA256")?;
    let empty = hex(digest::digest(&digest::SHA256, b"").as_ref());
    that(content == "UNSIGNED-PAYLOAD" || (content == empty && asked.body == 0), || content.clone())?;
    same("token", asked.field("x-amz-security-token").as_deref(), session_token)?;

    // As a server does: from what the target means.
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let path = escape(&unescape(path), true);
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (escape(&unescape(name), false), escape(&unescape(value), false)))
        .collect();
    pairs.sort();
    let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut canonical = format!("{}\n{path}\n{}\n", asked.method, query.join("&"));
    for name in &names {
        let value = if *name == "host" { Some(asked.host.clone()) } else { asked.field(name) };
        canonical += &format!("{name}:{}\n", value.ok_or(format!("{name} is signed and not there"))?);
    }
    canonical += &format!("\n{}\n{content}", names.join(";"));
    let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let mac = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    let key = mac(format!("AWS4{SECRET}").as_bytes(), day);
    let key = mac(mac(mac(key.as_ref(), REGION).as_ref(), "s3").as_ref(), "aws4_request");
    let expected = mac(key.as_ref(), &format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hash}"));
    same("signature", signature, hex(expected.as_ref()))
}

/// A bucket: who signs wrong gets nothing.
fn bucket(token: Option<&'static str>) -> Manner {
    Manner::answering(move |asked| {
        if let Err(problem) = check(asked, token) {
            return Said { body: problem.into(), ..Said::status(403) };
        }
        let etag = "\"e1\"";
        if asked.field("if-none-match").as_deref() == Some(etag) {
            return Said::status(304).field("etag", etag).field("cache-control", "max-age=60");
        }
        let body: Vec<u8> = (0..100_000u32).map(|number| u8::try_from(number % 251).expect("a byte")).collect();
        let (status, body, range) = match asked.field("range").and_then(|range| range_of(&range, body.len())) {
            Some((first, last)) => {
                let range = format!("bytes {first}-{last}/{}", body.len());
                (206, body[first..=last].to_vec(), Some(range))
            }
            None => (200, body, None),
        };
        let said = Said { status, ..Said::ok(body) }.field("etag", etag).field("cache-control", "max-age=60");
        match range {
            Some(range) => said.field("content-range", &range),
            None => said,
        }
    })
}

fn range_of(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().unwrap_or(length).min(length - 1)))
}

fn site(url: &str, more: &str) -> String {
    format!(
        "[site.main]\nhosts = [\"*\"]\norigins = [{{ url = \"{url}\", {more} sigv4 = {{ region = \"{REGION}\", \
         access_key = \"{ACCESS_KEY}\", secret_key_file = \"secret.key\", session_token_file = \"token\" }} }}]\n"
    )
}

#[tokio::test]
async fn every_request_is_signed() {
    let mut table = Table::new("signatures");
    for http2 in [false, true] {
        let manner = bucket(Some("the-token"));
        let talker = Talker::start(if http2 { manner.http2() } else { manner }).await;
        let text = site(&talker.url(), &format!("http2 = {http2},"))
            + "health = { path = \"/healthz?b&a=1\", interval = \"100ms\", timeout = \"100ms\" }\n";
        let node = NodeOptions::configured_before(&nobody_listens(), &text)
            .file("secret.key", format!("{SECRET}\n"))
            .file("token", "the-token\n")
            .test_clock()
            .start()
            .await;
        let mut client = node.client().await;
        let of_client = ["X-Amz-Date: 20200101T000000Z", "Authorization: Bearer mine", "X-Amz-Acl: public-read"];
        for (target, fields, status) in [
            ("/plain.txt", &[][..], 200),
            ("/with%20space/and(brackets)+plus~'!*", &[], 200),
            ("/%C3%A9/%2f%2F/double%2520", &[], 200),
            ("/p?versionId=a%2fb&acl&x-id=GetObject&a=2&a=1", &[], 200),
            ("/range", &["Range: bytes=10-19"], 206),
            ("/conditional", &["If-None-Match: \"e1\""], 304),
            ("/mine", &of_client, 200),
        ] {
            let response = client.exchange("GET", target, fields).await;
            let name = format!("GET {target}, http2 = {http2}");
            table.row(&name, same(&response.text(), response.status, status));
        }
        let response = client.exchange("HEAD", "/head", &[]).await;
        table.row("HEAD", same("status", response.status, 200));
        for fields in [&[][..], &of_client] {
            client.send(post("/posted", fields, "a body")).await.expect("it is sent");
            let response = client.response("POST").await.expect("an answer");
            table.row(&format!("POST, http2 = {http2}"), same(&response.text(), response.status, 200));
        }
        let response = client.exchange("DELETE", "/gone", &[]).await;
        table.row("DELETE", same(&response.text(), response.status, 200));

        // What the node adds for the origin does not make an answer private.
        let again = client.get("/plain.txt").await;
        table.row("stored", that(again.is_hit(), || format!("{:?}", again.head)));
        // Renewed with a signature of its own time, which the clock has moved to.
        let before = talker.asked().iter().rfind(|asked| asked.target == "/plain.txt").cloned().expect("a request");
        node.advance_clock(Duration::from_secs(86_400)).await;
        let renewed = client.get("/plain.txt").await;
        table.row("renewed", same(&renewed.text().len().to_string(), renewed.status, 200));
        let after = talker.asked().iter().rfind(|asked| asked.target == "/plain.txt").cloned().expect("a request");
        table.row("renewed", same("condition", after.field("if-none-match").as_deref(), Some("\"e1\"")));
        let day = |asked: &Asked| asked.field("x-amz-date").map(|stamp| stamp[..8].to_owned());
        table.row("renewed", that(day(&before) < day(&after), || format!("{:?} {:?}", day(&before), day(&after))));
        for asked in talker.asked() {
            table.row(&asked.target, check(&asked, Some("the-token")));
        }
        table
            .row("checks", that(talker.asked().iter().any(|asked| asked.target == "/healthz?b&a=1"), || "none".into()));
    }
    table.finish();
}

#[tokio::test]
async fn a_retry_is_signed_for_whom_it_goes_to() {
    let talker = Talker::start(bucket(None)).await;
    let sigv4 =
        format!("sigv4 = {{ region = \"{REGION}\", access_key = \"{ACCESS_KEY}\", secret_key_file = \"secret.key\" }}");
    let text = format!(
        "[site.main]\nhosts = [\"*\"]\norigins = [{{ url = \"{}\", headers = {{ authorization = \"Basic x\" }} }}, \
         {{ url = \"{}\", {sigv4} }}]\n",
        nobody_listens(),
        talker.url()
    );
    let options = NodeOptions::configured_before(&nobody_listens(), &text).file("secret.key", SECRET);
    let node = options.start().await;
    let mut table = Table::new("retries");
    let mut client = node.client().await;
    for number in 0..4 {
        let response = client.get(&format!("/{number}")).await;
        table.row("GET", same(&response.text(), response.status, 200));
        client.send(post("/posted", &[], "a body")).await.expect("it is sent");
        let response = client.response("POST").await.expect("an answer");
        table.row("POST", same(&response.text(), response.status, 200));
    }
    table.finish();
}
