//! Over real connections: an answer that one origin breaks off and another one ends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::origin::group::Origins;
use crate::origin::resume::{Rest, Resuming};
use crate::origin::session::Session;
use crate::telemetry::metrics::{Levels, Metrics};
use edge_config::section::group::Member as MemberConfig;
use edge_config::section::resolver::Resolver;
use edge_config::section::retry::Retry;
use edge_config::section::site::Site;

const BODY: &[u8] = b"0123456789";

/// Gives every connection this answer and closes it; who listens is told the head of what was asked.
async fn origin(answer: String) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match client.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            // Told before it is answered: who has the answer can see the question.
            if sender.send(String::from_utf8_lossy(&head).into_owned()).is_err() {
                return;
            }
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    (format!("http://{address}"), receiver)
}

fn group(addresses: &[&str], retry: Retry) -> Arc<Group> {
    let origin = |address: &str| address.parse().expect("an origin");
    let mut site = Site::of_one("s", origin(addresses[0]));
    let members = addresses.iter().map(|address| MemberConfig::of(origin(address)));
    site.origins.members = members.collect();
    site.origins.retry = retry;
    let (checks, metrics) = (tokio::runtime::Handle::current(), Metrics::new("fetch"));
    let origins = Origins::new(checks, metrics, &Resolver::default(), [0; 32]);
    Group::new(&site, 0, None, &Arc::new(origins)).expect("no file to read")
}

fn request(avoid: Option<usize>) -> OriginRequest {
    OriginRequest {
        method: "GET",
        target: b"/a".to_vec(),
        host: b"h".to_vec(),
        fields: vec![],
        client: None,
        avoid,
        session: Session::default(),
        through: None,
    }
}

#[tokio::test]
async fn what_one_origin_breaks_off_another_one_ends() {
    let half = "HTTP/1.1 200 OK\r\netag: \"a\"\r\ncontent-length: 10\r\n\r\n01234".to_owned();
    let rest =
        "HTTP/1.1 206 Partial Content\r\netag: \"a\"\r\ncontent-range: bytes 5-9/10\r\ncontent-length: 5\r\n\r\n56789";
    let (first, _asked) = origin(half).await;
    let (second, mut asked) = origin(rest.to_owned()).await;
    let group = group(&[&first, &second], Retry::default());
    let metrics = group.origins.metrics.clone();
    metrics.site("s");
    let upstream = Arc::new(Fetch::new(group, 0));
    let response = upstream.open(&request(None), &|_, _| {}).await.expect("an answer");
    assert_eq!((response.origin, response.length), (0, Some(10)));
    let mut body = Resuming::over(
        response.body,
        Rest {
            upstream,
            request: request(None),
            fields: response.fields,
            origin: response.origin,
            at: 0,
            end: None,
            total: response.length,
            site: 0,
            metrics: metrics.clone(),
        },
    );
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await.expect("it goes on") {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes, BODY);
    let asked = asked.recv().await.expect("the second one was asked").to_lowercase();
    assert!(asked.contains("\r\nrange: bytes=5-\r\n") && asked.contains("\r\nif-range: \"a\"\r\n"), "{asked}");
    let text = metrics.encode(&Levels::default());
    assert!(text.contains("littoral_fills_resumed_total{site=\"s\"} 1"), "{text}");
}

#[tokio::test]
async fn one_that_is_avoided_is_asked_when_there_is_no_other_and_a_retry_left() {
    let (address, _asked) = origin("HTTP/1.1 204 No Content\r\n\r\n".to_owned()).await;
    for (reserve, expected) in [(10, Ok(0)), (0, Err(Failure::Unreachable))] {
        let retry = Retry { attempts: 0, budget_percent: 0, reserve, ..Retry::default() };
        let upstream = Fetch::new(group(&[&address], retry), 0);
        let opened = upstream.open(&request(Some(0)), &|_, _| {}).await;
        assert_eq!(opened.map(|response| response.origin), expected, "{reserve}");
    }
}

/// What asks is moved about with every miss, so that its size is time.
#[tokio::test]
async fn asking_is_small() {
    let (address, _asked) = origin("HTTP/1.1 204 No Content\r\n\r\n".to_owned()).await;
    let group = group(&[&address], Retry::default());
    let choice = group.choose(Wanted::default()).await.expect("one is there");
    let fetch = Fetch::new(group, 0);
    let mut ask = Ask { tried: Vec::new(), avoid: None, key: 0, session: Session::default() };
    let request = request(None);
    let size = size_of_val(&fetch.open_soon(&choice, &mut ask, &request, &|_, _| {}, None));
    assert!(size <= 4_096, "{size} bytes");
}
