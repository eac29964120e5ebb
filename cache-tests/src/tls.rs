//! TLS from the client's side, and certificates: one authority for all tests of a process, that their clients trust.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;

pub use rustls::version::{TLS12, TLS13};

use crate::client::{HOST, Socket, connect_socket};
use crate::deadline::PATIENCE;
use crate::stream::Stream;

/// What HTTP/2 and HTTP/1.1 are called in ALPN.
pub const H2: &str = "h2";
pub const HTTP_1_1: &str = "http/1.1";

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// As it is sent.
    pub certificate: Vec<u8>,
    pub certificate_pem: String,
    pub key_pem: String,
}

struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Identity {
    /// A new one for these names, wildcards too.
    pub fn of(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().expect("a key can be made");
        let parameters = CertificateParams::new(names).expect("names of certificates");
        let certificate = parameters.signed_by(&key, &authority().issuer).expect("a certificate can be signed");
        Self {
            certificate: certificate.der().to_vec(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// For a server.
    ///
    /// # Panics
    /// When the key is none.
    pub fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("a key in PEM");
        (vec![CertificateDer::from(self.certificate.clone())], key)
    }
}

/// The authority that vouches for every [`Identity`] of this process.
pub fn authority_pem() -> String {
    authority().pem.clone()
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let key = KeyPair::generate().expect("a key can be made");
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names are fine");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signed = parameters.self_signed(&key).expect("a certificate can sign itself");
        let (certificate, pem) = (signed.der().clone(), signed.pem());
        Authority { certificate, pem, issuer: Issuer::new(parameters, key) }
    })
}

/// How a client does TLS. Clones share the sessions they may resume.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: String,
}

/// What client and server agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    pub version: Option<ProtocolVersion>,
    pub alpn: Option<String>,
    pub resumed: bool,
    /// The server's own certificate.
    pub certificate: Vec<u8>,
}

impl Tls {
    /// TLS 1.2 and 1.3 to [`HOST`], trusting the tests' authority and offering these protocols.
    pub fn offering(alpn: &[&str]) -> Self {
        Self::with_versions(&[&TLS13, &TLS12], alpn)
    }

    pub fn with_versions(versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority().certificate.clone()).expect("the authority's certificate is one");
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions);
        let mut config =
            builder.expect("versions that ring can do").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self { config: Arc::new(config), name: HOST.to_owned() }
    }

    /// Asks for another name.
    pub fn to(&self, name: &str) -> Self {
        Self { config: Arc::clone(&self.config), name: name.to_owned() }
    }

    /// Says no name at all.
    pub fn nameless(mut self) -> Self {
        Arc::make_mut(&mut self.config).enable_sni = false;
        self
    }

    /// Trusts this authority in place of the tests' own.
    pub fn trusting(mut self, authority: &CertificateDer<'static>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).expect("the authority's certificate is one");
        let config = Arc::make_mut(&mut self.config);
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        config.dangerous().set_certificate_verifier(verifier.expect("there is a root"));
        self
    }

    /// Takes any certificate.
    pub fn trusting_anyone(mut self) -> Self {
        let verifier = Arc::new(Anyone(provider()));
        Arc::make_mut(&mut self.config).dangerous().set_certificate_verifier(verifier);
        self
    }

    /// # Errors
    /// What went wrong, in rustls's words: an alert of the server is one of `AlertReceived(..)`.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        self.connect_with(address, Socket::default()).await
    }

    /// # Errors
    /// See [`Self::connect`].
    pub async fn connect_with(&self, address: SocketAddr, socket: Socket) -> io::Result<Stream> {
        self.connect_behind(address, socket, b"").await
    }

    /// With something before the handshake.
    ///
    /// # Errors
    /// See [`Self::connect`].
    pub async fn connect_behind(&self, address: SocketAddr, socket: Socket, first: &[u8]) -> io::Result<Stream> {
        let mut stream = connect_socket(address, socket).await?;
        stream.write_all(first).await?;
        let name = ServerName::try_from(self.name.clone()).expect("a name for SNI");
        let handshake = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream);
        match tokio::time::timeout(PATIENCE, handshake).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream?))),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// A good handshake and nothing more.
    ///
    /// # Errors
    /// See [`Self::connect`].
    pub async fn agree(&self, address: SocketAddr) -> io::Result<Agreed> {
        self.connect(address).await.map(|stream| stream.agreed())
    }
}

impl Stream {
    /// # Panics
    /// Without TLS.
    pub fn agreed(&self) -> Agreed {
        let Self::Tls(stream) = self else { panic!("nothing is agreed on in the clear") };
        let connection = stream.get_ref().1;
        let text = |protocol: &[u8]| String::from_utf8_lossy(protocol).into_owned();
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        Agreed {
            version: connection.protocol_version(),
            alpn: connection.alpn_protocol().map(text),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            certificate: leaf.map(|certificate| certificate.to_vec()).unwrap_or_default(),
        }
    }
}

/// The certificate of the authority.
pub fn authority_certificate() -> CertificateDer<'static> {
    authority().certificate.clone()
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

/// For tests where the certificate is expected not to fit.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
