//! An origin that is a process of its own, so that a test can kill it or stop it: `origin ADDRESS`.
//!
//! It answers every GET with its name and says on standard output where it listens. Lines on standard input change how:
//! `well`, `fail` (500), `drip` (a byte of the head every 100 ms). It ends with its standard input.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const WELL: u8 = 0;
const FAIL: u8 = 1;
const DRIP: u8 = 2;
const DRIP_PAUSE: Duration = Duration::from_millis(100);
const HEAD_MAX: usize = 16_384;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address: SocketAddr = std::env::args().nth(1).and_then(|address| address.parse().ok()).ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::InvalidInput, "expected an address to listen on, as in 127.0.0.1:0")
    })?;
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let mode = Arc::new(AtomicU8::new(WELL));
    let said = mode.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let mode = match line.as_str() {
                "fail" => FAIL,
                "drip" => DRIP,
                _ => WELL,
            };
            said.store(mode, Ordering::Relaxed);
        }
        std::process::exit(0);
    });
    let mut out = std::io::stdout();
    writeln!(out, "{address}")?;
    out.flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, address, mode.clone()));
    }
}

/// Answers until the peer has enough.
async fn serve(mut stream: TcpStream, address: SocketAddr, mode: Arc<AtomicU8>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = head.windows(4).position(|part| part == b"\r\n\r\n") {
                break at + 4;
            }
            if head.len() > HEAD_MAX || stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        };
        head.drain(..end);
        let mode = mode.load(Ordering::Relaxed);
        let status = if mode == FAIL { "500 Internal Server Error" } else { "200 OK" };
        let body = address.to_string();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nCache-Control: max-age=1, stale-if-error=86400\r\n\r\n{body}",
            body.len()
        );
        if mode == DRIP {
            for byte in answer.as_bytes() {
                stream.write_all(&[*byte]).await?;
                tokio::time::sleep(DRIP_PAUSE).await;
            }
        } else {
            stream.write_all(answer.as_bytes()).await?;
        }
    }
}
