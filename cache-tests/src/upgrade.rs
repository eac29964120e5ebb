//! WebSockets as far as a proxy sees them: an origin that switches protocols and sends every byte back, and a client.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::answer::pattern;
use crate::client::{Client, request};
use crate::response::End;

/// The fields of a WebSocket handshake (RFC 6455 section 1.3).
const HANDSHAKE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// An origin that switches protocols for `/echo`, and sends [`download`] for everything else, slowly.
#[derive(Debug)]
pub struct EchoOrigin {
    address: SocketAddr,
    open: Arc<AtomicUsize>,
}

/// What is downloaded from it.
pub fn download() -> Bytes {
    pattern(200_000, 7)
}

impl EchoOrigin {
    /// Ends with the test's runtime. A download takes `pieces` times `pause`.
    pub async fn start(pieces: usize, pause: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a listener has an address");
        let open = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&open);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, pieces, pause, Arc::clone(&counter)));
            }
        });
        Self { address, open }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections that have switched protocols and are still there.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, pieces: usize, pause: Duration, open: Arc<AtomicUsize>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::new();
    loop {
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head = String::from_utf8_lossy(&buffer.split_to(end + 4)).to_ascii_lowercase();
        let head_only = head.starts_with("head ");
        if head.starts_with("get /echo ") && head.contains("\r\nupgrade: websocket\r\n") {
            let switch = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
            );
            stream.write_all(switch.as_bytes()).await?;
            open.fetch_add(1, Ordering::Relaxed);
            let echoed = echo(&mut stream, buffer).await;
            open.fetch_sub(1, Ordering::Relaxed);
            return echoed;
        }
        let body = download();
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        if head_only {
            continue;
        }
        for piece in body.chunks(body.len().div_ceil(pieces)) {
            stream.write_all(piece).await?;
            tokio::time::sleep(pause).await;
        }
    }
}

async fn echo(stream: &mut TcpStream, mut buffer: BytesMut) -> io::Result<()> {
    loop {
        stream.write_all(&buffer).await?;
        buffer.clear();
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// One connection that has switched protocols.
#[derive(Debug)]
pub struct Socket {
    client: Client,
}

impl Socket {
    /// Asks `/echo` to switch.
    ///
    /// # Errors
    /// What came instead.
    pub async fn open(mut client: Client) -> Result<Self, String> {
        client.send(request("GET", "/echo", &HANDSHAKE)).await.map_err(|error| error.to_string())?;
        let head = client.any_head("GET").await.map_err(|end| format!("no answer: {end:?}"))?;
        let said = (head.status, head.field("upgrade"), head.field("sec-websocket-accept"));
        if said != (101, Some("websocket".to_owned()), Some(ACCEPT.to_owned())) {
            return Err(format!("not switched: {head:?}"));
        }
        Ok(Self { client })
    }

    /// Sends bytes, and waits until they are back.
    ///
    /// # Errors
    /// When others came, or none.
    pub async fn echo(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.client.send(bytes).await.map_err(|error| format!("cannot be sent: {error}"))?;
        let back = self.client.bytes(bytes.len()).await.map_err(|end| format!("nothing came back: {end:?}"))?;
        if back == bytes { Ok(()) } else { Err(format!("other bytes: {}", back.escape_ascii())) }
    }

    /// How the node ended it.
    pub async fn closed(&mut self) -> End {
        self.client.closed().await.1
    }
}
