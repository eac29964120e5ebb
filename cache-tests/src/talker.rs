//! An origin that remembers how it was spoken to: with what connections began, who showed what in TLS, in which protocol
//! and with which fields it was asked. HTTP/1.1 or HTTP/2, in the clear or in TLS; bodies are counted, not kept.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ::h2::server::SendResponse;
use ::h2::{RecvStream, server};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use rustls::server::WebPkiClientVerifier;
use rustls::{ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::body::BodyFraming;
use crate::tls::{Identity, authority_certificate, provider};

/// A request, and the connection it came on.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub host: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    /// Bytes of its body.
    pub body: u64,
    /// Which connection it came on, from 1.
    pub connection: usize,
    pub begun: Begun,
}

/// How a connection began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// The header of the PROXY protocol.
    pub header: Vec<u8>,
    pub version: Option<ProtocolVersion>,
    /// The certificate the client showed.
    pub certificate: Option<Vec<u8>>,
}

/// What an origin answers.
#[derive(Clone, Debug)]
pub struct Said {
    pub status: u16,
    pub fields: Vec<(&'static str, String)>,
    pub body: Bytes,
}

type Handler = Arc<dyn Fn(&Asked) -> Said + Send + Sync>;

/// How an origin is to be spoken to.
#[derive(Clone)]
pub struct Manner {
    tls: Option<Arc<ServerConfig>>,
    http2: bool,
    proxy_header: bool,
    handler: Handler,
}

impl Manner {
    /// HTTP/1.1 in the clear, answering by this.
    pub fn answering(handler: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Self {
        Self { tls: None, http2: false, proxy_header: false, handler: Arc::new(handler) }
    }

    /// HTTP/2, with prior knowledge in the clear.
    pub fn http2(self) -> Self {
        Self { http2: true, ..self }
    }

    /// A header of the PROXY protocol comes first.
    pub fn proxied(self) -> Self {
        Self { proxy_header: true, ..self }
    }

    /// In TLS, in these versions, where clients may have to show a certificate of the tests' authority.
    ///
    /// # Panics
    /// When a server like that cannot be set up.
    pub fn in_tls(self, versions: &[&'static SupportedProtocolVersion], wants_certificate: bool, name: &str) -> Self {
        let identity = Identity::of(&[name]);
        let mut roots = RootCertStore::empty();
        roots.add(authority_certificate()).expect("the authority's certificate is one");
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions);
        let builder = builder.expect("versions that ring can do");
        let builder = match wants_certificate {
            true => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
                builder.with_client_cert_verifier(verifier.expect("there is an authority"))
            }
            false => builder.with_no_client_auth(),
        };
        let (chain, key) = identity.der();
        let mut config = builder.with_single_cert(chain, key).expect("a certificate and its key");
        config.alpn_protocols = vec![if self.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Self { tls: Some(Arc::new(config)), ..self }
    }
}

/// A running origin. It ends with the test's runtime.
pub struct Talker {
    address: SocketAddr,
    is_tls: bool,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Talker {
    /// # Panics
    /// Without a free port.
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let talker = Self { address, is_tls: manner.tls.is_some(), asked: Arc::default() };
        let asked = talker.asked.clone();
        tokio::spawn(async move {
            let mut connections = 0;
            while let Ok((stream, _)) = listener.accept().await {
                connections += 1;
                // What goes wrong is for the test to see at the other end.
                tokio::spawn(converse(stream, manner.clone(), connections, asked.clone()));
            }
        });
        talker
    }

    pub fn url(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything it was asked so far.
    ///
    /// # Panics
    /// When the origin did.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("nobody panics").clone()
    }

    /// The last request.
    ///
    /// # Panics
    /// When there was none.
    pub fn last(&self) -> Asked {
        self.asked().pop().expect("a request")
    }
}

impl Asked {
    /// The value of a field; several lines of it with commas.
    pub fn field(&self, name: &str) -> Option<String> {
        let lines: Vec<&str> =
            self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect();
        if lines.is_empty() { None } else { Some(lines.join(", ")) }
    }
}

impl Said {
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self { status: 200, fields: Vec::new(), body: body.into() }
    }

    pub fn status(status: u16) -> Self {
        Self { status, fields: vec![("cache-control", "no-store".into())], body: Bytes::new() }
    }

    pub fn field(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }
}

async fn converse(
    mut stream: TcpStream,
    manner: Manner,
    connection: usize,
    asked: Arc<Mutex<Vec<Asked>>>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let header = if manner.proxy_header { read_header(&mut stream).await? } else { Vec::new() };
    let mut begun = Begun { header, ..Begun::default() };
    let talk = Talk { connection, http2: manner.http2, handler: manner.handler, asked };
    match manner.tls {
        None => talk.over(stream, begun).await,
        Some(config) => {
            let stream = TlsAcceptor::from(config).accept(stream).await?;
            let tls = stream.get_ref().1;
            begun.version = tls.protocol_version();
            begun.certificate = tls.peer_certificates().and_then(<[_]>::first).map(|shown| shown.to_vec());
            talk.over(stream, begun).await
        }
    }
}

/// A line of text, or the mark, a length and so many bytes.
async fn read_header(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    loop {
        header.push(stream.read_u8().await?);
        let ends = match header.first() {
            Some(b'P') => header.ends_with(b"\r\n"),
            _ => header.len() >= 16 && header.len() == 16 + usize::from(header[14]) * 256 + usize::from(header[15]),
        };
        if ends {
            return Ok(header);
        }
    }
}

struct Talk {
    connection: usize,
    http2: bool,
    handler: Handler,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Talk {
    async fn over(self, stream: impl AsyncRead + AsyncWrite + Unpin, begun: Begun) -> io::Result<()> {
        if self.http2 { self.http2(stream, begun).await } else { self.http1(stream, begun).await }
    }

    fn remember(&self, asked: &Asked) {
        self.asked.lock().expect("nobody panics").push(asked.clone());
    }

    async fn http1(self, mut stream: impl AsyncRead + AsyncWrite + Unpin, begun: Begun) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        loop {
            let end = loop {
                match buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    Some(end) => break end + 4,
                    None if stream.read_buf(&mut buffer).await? == 0 => return Ok(()),
                    None => {}
                }
            };
            let head = String::from_utf8_lossy(&buffer.split_to(end)).into_owned();
            let mut lines = head.split("\r\n");
            let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
            let fields: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            let mut asked = Asked {
                method: words.next().unwrap_or_default(),
                target: words.next().unwrap_or_default(),
                connection: self.connection,
                begun: begun.clone(),
                ..Asked::default()
            };
            let mut framing = BodyFraming::of_request(&fields);
            asked.fields = fields;
            asked.host = asked.field("host").unwrap_or_default();
            loop {
                match framing.decode(&mut buffer).map_err(io::Error::other)? {
                    Some(bytes) => asked.body += bytes.len() as u64,
                    None if framing.is_done() => break,
                    None if stream.read_buf(&mut buffer).await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    None => {}
                }
            }
            self.remember(&asked);
            let said = (self.handler)(&asked);
            let mut answer = format!("HTTP/1.1 {} Said\r\ncontent-length: {}\r\n", said.status, said.body.len());
            said.fields.iter().for_each(|(name, value)| answer += &format!("{name}: {value}\r\n"));
            stream.write_all((answer + "\r\n").as_bytes()).await?;
            if asked.method != "HEAD" {
                stream.write_all(&said.body).await?;
            }
            stream.flush().await?;
        }
    }

    async fn http2(self, stream: impl AsyncRead + AsyncWrite + Unpin, begun: Begun) -> io::Result<()> {
        let talk = Arc::new(self);
        let mut connection = server::handshake(stream).await.map_err(io::Error::other)?;
        while let Some(accepted) = connection.accept().await {
            let (request, respond) = accepted.map_err(io::Error::other)?;
            tokio::spawn(talk.clone().stream(request, respond, begun.clone()));
        }
        Ok(())
    }

    async fn stream(
        self: Arc<Self>,
        request: http::Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        begun: Begun,
    ) {
        let (head, mut body) = request.into_parts();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut asked = Asked {
            method: head.method.to_string(),
            target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            host: head.uri.authority().map(ToString::to_string).unwrap_or_default(),
            fields: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            connection: self.connection,
            begun,
            ..Asked::default()
        };
        if asked.field("content-type").is_some_and(|kind| kind.starts_with("application/grpc")) {
            return self.grpc(asked, body, respond).await;
        }
        while let Some(Ok(piece)) = body.data().await {
            asked.body += piece.len() as u64;
            let _ = body.flow_control().release_capacity(piece.len());
        }
        self.remember(&asked);
        let said = (self.handler)(&asked);
        let mut response = http::Response::builder().status(said.status);
        for (name, value) in &said.fields {
            response = response.header(*name, value);
        }
        let ends = said.body.is_empty() || asked.method == "HEAD";
        let response = response.header("content-length", said.body.len()).body(()).expect("a response");
        // A client that has gone away is none of our business.
        let Ok(mut stream) = respond.send_response(response, ends) else { return };
        if !ends {
            let _ = stream.send_data(said.body, true);
        }
    }

    /// Sends back what comes, as it comes, and then how it went. The head comes first.
    async fn grpc(&self, mut asked: Asked, mut body: RecvStream, mut respond: SendResponse<Bytes>) {
        let head = http::Response::builder().header("content-type", "application/grpc").body(()).expect("a response");
        let Ok(mut stream) = respond.send_response(head, false) else { return };
        while let Some(Ok(piece)) = body.data().await {
            asked.body += piece.len() as u64;
            let _ = body.flow_control().release_capacity(piece.len());
            if stream.send_data(piece, false).is_err() {
                return;
            }
        }
        self.remember(&asked);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().expect("a value"));
        trailers.insert("grpc-message", asked.body.to_string().parse().expect("a value"));
        let _ = stream.send_trailers(trailers);
    }
}
