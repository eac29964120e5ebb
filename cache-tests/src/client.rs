//! A raw HTTP/1 client: sends exactly the bytes it is given and reports exactly what came back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::body::BodyFraming;
use crate::deadline::{PATIENCE, within};
use crate::response::{End, Head, Response};
use crate::stream::Stream;

/// The site every test asks for.
pub const HOST: &str = "www.example.test";

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    buffer: BytesMut,
    body: BodyFraming,
    patience: Duration,
}

/// What is unusual about a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Socket {
    /// The client's own address; tests with many clients are many addresses.
    pub from: Option<IpAddr>,
    /// The kernel's receive buffer, in bytes: small for a client that hardly reads.
    pub receive_buffer: Option<u32>,
}

impl Client {
    /// # Panics
    /// When nobody accepts.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, Socket::default()).await.unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// # Errors
    /// When nobody accepts.
    pub async fn connect_with(address: SocketAddr, options: Socket) -> io::Result<Self> {
        Ok(Self::on(connect_socket(address, options).await?))
    }

    /// On a connection that is there, in the clear or over TLS.
    pub fn on(stream: impl Into<Stream>) -> Self {
        Self { stream: stream.into(), buffer: BytesMut::new(), body: BodyFraming::Done, patience: PATIENCE }
    }

    /// Waits longer, or shorter, than [`PATIENCE`] for each read.
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// # Errors
    /// When the node has closed; a test of refusals does not mind.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let write = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        within(self.patience, "the node reads a request", write).await
    }

    /// Sends a request with this site's Host and these field lines.
    pub async fn ask(&mut self, method: &str, target: &str, fields: &[&str]) {
        let sent = self.send(request(method, target, fields)).await;
        sent.unwrap_or_else(|error| panic!("{method} {target} cannot be sent: {error}"));
    }

    /// Asks and reads the whole answer.
    ///
    /// # Panics
    /// When no answer comes; an answer that breaks off is returned, with its [`End`].
    pub async fn exchange(&mut self, method: &str, target: &str, fields: &[&str]) -> Response {
        self.ask(method, target, fields).await;
        let response = self.response(method).await;
        response.unwrap_or_else(|end| panic!("{method} {target} has no answer: {end:?}"))
    }

    pub async fn get(&mut self, target: &str) -> Response {
        self.exchange("GET", target, &[]).await
    }

    /// GET of another host: the status of the answer, 0 if there is none.
    pub async fn send_to(&mut self, host: &str, target: &str) -> u16 {
        self.status_of("GET", format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
    }

    /// POST without a body to another host: the status of the answer, 0 if there is none.
    pub async fn post_to(&mut self, host: &str, target: &str) -> u16 {
        self.status_of("POST", format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n")).await
    }

    async fn status_of(&mut self, method: &str, request: String) -> u16 {
        self.send(request).await.unwrap_or_else(|error| panic!("{method} cannot be sent: {error}"));
        self.response(method).await.map_or(0, |response| response.status)
    }

    /// Reads one whole response to `method`.
    ///
    /// # Errors
    /// How the connection ended when there was no head.
    pub async fn response(&mut self, method: &str) -> Result<Response, End> {
        let head = self.begin(method).await?;
        let (body, end) = self.rest().await;
        Ok(Response { status: head.status, head, body, end })
    }

    /// Reads the head of the next final response; its body is left to be read.
    ///
    /// # Errors
    /// How the connection ended when there was no head.
    pub async fn begin(&mut self, method: &str) -> Result<Head, End> {
        loop {
            let head = self.any_head(method).await?;
            if head.status >= 200 {
                return Ok(head);
            }
        }
    }

    /// Reads the next head, an interim one too.
    ///
    /// # Errors
    /// How the connection ended when there was no head.
    pub async fn any_head(&mut self, method: &str) -> Result<Head, End> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let bytes = self.buffer.split_to(end + 4);
                let head = Head::parse(&bytes).map_err(End::Malformed)?;
                head.assert_explained();
                self.body = BodyFraming::of_response(method, head.status, &head.fields);
                return Ok(head);
            }
            self.receive().await?;
        }
    }

    /// The next bytes of the body, as they come.
    ///
    /// # Errors
    /// The end, clean or not.
    pub async fn some_body(&mut self) -> Result<Bytes, End> {
        loop {
            match self.body.decode(&mut self.buffer) {
                Ok(Some(bytes)) => return Ok(bytes),
                Ok(None) if self.body.is_done() => return Err(End::Whole),
                Ok(None) => {}
                Err(problem) => return Err(End::Malformed(problem)),
            }
            if let Err(end) = self.receive().await {
                let delimited = self.body == BodyFraming::Close && end == End::Cut;
                return Err(if delimited { End::CloseDelimited } else { end });
            }
        }
    }

    /// Reads on until at least `count` bytes of the body are there.
    ///
    /// # Errors
    /// The end, when it came first.
    pub async fn body_of_at_least(&mut self, count: usize) -> Result<BytesMut, End> {
        let mut body = BytesMut::new();
        while body.len() < count {
            body.extend_from_slice(&self.some_body().await?);
        }
        Ok(body)
    }

    /// The rest of the body and its end.
    pub async fn rest(&mut self) -> (Bytes, End) {
        let mut body = BytesMut::new();
        loop {
            match self.some_body().await {
                Ok(bytes) => body.extend_from_slice(&bytes),
                Err(end) => return (body.freeze(), end),
            }
        }
    }

    /// The next so many bytes, whatever they are: for what is no longer HTTP.
    ///
    /// # Errors
    /// How the connection ended before.
    pub async fn bytes(&mut self, count: usize) -> Result<Bytes, End> {
        while self.buffer.len() < count {
            self.receive().await?;
        }
        Ok(self.buffer.split_to(count).freeze())
    }

    /// Waits for the node to close: what came before, as bytes, and how it closed.
    pub async fn closed(&mut self) -> (Bytes, End) {
        loop {
            if let Err(end) = self.receive().await {
                return (self.buffer.split().freeze(), end);
            }
        }
    }

    /// Ends the connection at once, by RST.
    pub fn vanish(self) {
        self.stream.vanish();
    }

    async fn receive(&mut self) -> Result<(), End> {
        match tokio::time::timeout(self.patience, self.stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(0)) => Err(End::Cut),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(End::Reset),
            Err(_) => Err(End::Stalled),
        }
    }
}

pub(crate) async fn connect_socket(address: SocketAddr, options: Socket) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(size) = options.receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    if let Some(from) = options.from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = match tokio::time::timeout(PATIENCE, socket.connect(address)).await {
        Ok(connected) => connected?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The bytes of a well-formed request without a body.
pub fn request(method: &str, target: &str, fields: &[&str]) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n");
    for line in fields {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head + "\r\n"
}

/// The bytes of a well-formed POST.
pub fn post(target: &str, fields: &[&str], body: &str) -> String {
    let length = format!("Content-Length: {}", body.len());
    let fields: Vec<&str> = fields.iter().copied().chain([length.as_str()]).collect();
    request("POST", target, &fields) + body
}

/// The `number`th of many clients: an address of its own for every hundred of them, all on loopback.
pub fn address_of(number: usize) -> IpAddr {
    let last = u8::try_from(2 + number / 100 % 250).expect("a remainder of 250 and two is a byte");
    IpAddr::V4(Ipv4Addr::new(127, 0, 1, last))
}
