//! The tests' own clients of TLS and HTTP/2 against a server everyone knows: what they report is what happened.

use cache_tests::answer::pattern;
use cache_tests::client::Client;
use cache_tests::h2::frame::{ENABLE_PUSH, Frame, INITIAL_WINDOW_SIZE, PROTOCOL_ERROR};
use cache_tests::h2::polite::Polite;
use cache_tests::h2::raw::{Fate, Raw, get};
use cache_tests::peer::{Peer, skipped_without};
use cache_tests::process::Scratch;
use cache_tests::response::End;
use cache_tests::tls::{H2, HTTP_1_1, Identity, TLS12, TLS13, Tls};

async fn nginx(files: &Scratch) -> Option<Peer> {
    files.write("page", b"a page");
    files.write("large", &pattern(1_000_000, 1));
    let peer = Peer::nginx_with_tls(files.path()).await;
    if peer.is_none() {
        skipped_without("nginx");
    }
    peer
}

#[tokio::test]
async fn tls_is_reported_as_it_is() {
    let files = Scratch::new("files");
    let Some(nginx) = nginx(&files).await else { return };
    for (version, name) in [(&TLS12, "TLSv1_2"), (&TLS13, "TLSv1_3")] {
        let tls = Tls::with_versions(&[version], &[HTTP_1_1]);
        for resumed in [false, true] {
            let stream = tls.connect(nginx.address()).await.expect("a handshake");
            let agreed = stream.agreed();
            assert_eq!(agreed.version.and_then(|version| version.as_str()), Some(name));
            assert_eq!((agreed.alpn.as_deref(), agreed.resumed), (Some(HTTP_1_1), resumed), "{name}");
            // Tickets of TLS 1.3 come after the handshake.
            assert_eq!(Client::on(stream).get("/page").await.text(), "a page");
        }
    }
    let stranger = Tls::offering(&[]).to("other.example.test").connect(nginx.address()).await;
    assert!(stranger.is_err_and(|error| error.to_string().contains("not valid for name")));
    let tls = Tls::offering(&[]).to("other.example.test").trusting_anyone();
    let agreed = tls.agree(nginx.address()).await.expect("a handshake");
    assert!(agreed.alpn.is_none() && agreed.certificate != Identity::of(&["other.example.test"]).certificate);
}

#[tokio::test]
async fn a_polite_client_is_served() {
    let files = Scratch::new("files");
    let Some(nginx) = nginx(&files).await else { return };
    let stream = Tls::offering(&[H2, HTTP_1_1]).connect(nginx.address()).await.expect("a handshake");
    assert_eq!(stream.agreed().alpn.as_deref(), Some(H2));
    let client = Polite::open(stream).await.expect("HTTP/2");
    let (page, large) = tokio::join!(client.get("/page"), client.get("/large"));
    assert_eq!((page.status, page.text().as_str(), page.end), (200, "a page", End::Whole));
    assert!(large.body == pattern(1_000_000, 1));
    let etag = page.head.field("etag").expect("an ETag");
    let condition = format!("If-None-Match: {etag}");
    assert_eq!(client.exchange("GET", "/page", &[&condition], None).await.status, 304);
    assert_eq!(client.exchange("POST", "/page", &[], Some("body".into())).await.status, 405);
}

#[tokio::test]
async fn a_raw_client_reports_every_fate() {
    let files = Scratch::new("files");
    let Some(nginx) = nginx(&files).await else { return };
    let tls = Tls::offering(&[H2]);
    let open = async |settings: &'static [(u16, u32)]| {
        let stream = tls.connect(nginx.address()).await.expect("a handshake");
        Raw::open(stream, settings).await.expect("the server reads")
    };
    let mut raw = open(&[(ENABLE_PUSH, 0)]).await;
    let streams = [raw.ask(&get("/page", &[])).await, raw.ask(&get("/large", &[])).await];
    for (stream, length) in streams.into_iter().zip([6, 1_000_000]) {
        let Fate::Answered(response) = raw.fate(stream).await else { panic!("no answer") };
        assert_eq!((response.status, response.body.len()), (200, length));
    }
    // A byte that belongs in no value.
    let mut fields = get("/page", &[]);
    fields.push((b"x".to_vec(), b"a\nb".to_vec()));
    let stream = raw.ask(&fields).await;
    let fate = raw.fate(stream).await;
    assert!(matches!(fate, Fate::Reset(PROTOCOL_ERROR) | Fate::Gone(_) | Fate::Answered(_)), "{fate:?}");
    // A window of 10 bytes that is never opened.
    let mut raw = open(&[(INITIAL_WINDOW_SIZE, 10)]).await.stingy();
    let stream = raw.ask(&get("/large", &[])).await;
    raw.head(stream).await.expect("a head");
    while raw.answered(stream).body.len() < 10 {
        raw.frame().await.expect("the first bytes");
    }
    raw.send_frames(&[Frame::window_update(stream, 5)]).await.expect("the server reads");
    raw.frame().await.expect("the next bytes");
    assert_eq!(raw.answered(stream).body.len(), 15);
    // A stream of a number that is not a client's ends the connection.
    let mut raw = open(&[]).await;
    raw.send_frames(&[Frame::headers(2, vec![0x82], true)]).await.expect("the server reads");
    let fate = raw.fate(2).await;
    assert!(matches!(fate, Fate::Gone(PROTOCOL_ERROR)), "{fate:?}");
}
