//! TLS for HTTPS checks: whom to trust, what name to show and to ask for, and
//! what exactly is wrong with a certificate.
//!
//! No session is resumed: each check sees the whole handshake.
//!
//! Must not know: what is said over the connection.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::budget::Budget;
use super::via::fault;
use super::{Bad, Invalid};

/// How TLS is done, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// Whether the certificate must be valid, trusted and of the right name.
    pub verify: bool,
    /// The name shown to the server (SNI) and looked for in its certificate,
    /// instead of the URL's host.
    pub server_name: Option<String>,
    /// A PEM file with the only CA certificates to trust; the system's if none
    /// is given. One that a server shows itself is good as well: such are made by
    /// `openssl req -x509`. It is read once.
    pub ca_file: Option<PathBuf>,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self { verify: true, server_name: None, ca_file: None }
    }
}

/// How TLS is done, ready for use.
#[derive(Clone, Debug)]
pub struct Tls {
    server_name: Option<ServerName<'static>>,
    trust: Trust,
    /// Made at the first use.
    config: Arc<OnceCell<Arc<ClientConfig>>>,
}

#[derive(Clone, Debug)]
enum Trust {
    Anyone,
    These(Arc<RootCertStore>, Arc<[CertificateDer<'static>]>),
    System,
}

impl Tls {
    /// Reads the CA file, if there is one.
    ///
    /// # Errors
    /// A name that is none, a CA file without a certificate, or one that is not
    /// looked at as nothing is verified.
    pub fn new(options: &TlsOptions) -> Result<Self, Invalid> {
        let server_name = options.server_name.as_deref().map(server_name).transpose()?;
        let trust = match (&options.ca_file, options.verify) {
            (None, false) => Trust::Anyone,
            (None, true) => Trust::System,
            (Some(path), true) => {
                let (roots, named) = read_roots(path)?;
                Trust::These(Arc::new(roots), named.into())
            }
            (Some(path), false) => {
                let why = "has no effect as `verify` is off; leave one of them out";
                return Err(Invalid::new("ca_file", path.display().to_string(), why));
            }
        };
        Ok(Self { server_name, trust, config: Arc::default() })
    }

    /// Makes a connection to `host` safe, within a time.
    ///
    /// # Errors
    /// Those of [`Bad`] that are about TLS.
    pub async fn open(
        &self,
        stream: TcpStream,
        to: SocketAddr,
        host: &str,
        within: std::time::Duration,
    ) -> Result<TlsStream<TcpStream>, Bad> {
        self.connect(stream, to, host, false, &Budget::new(within)).await
    }

    /// Makes a connection safe. `host` is whose certificate is expected;
    /// `renamed` if the configured name goes before it.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        to: SocketAddr,
        host: &str,
        renamed: bool,
        budget: &Budget,
    ) -> Result<TlsStream<TcpStream>, Bad> {
        let name = match &self.server_name {
            Some(name) if renamed => name.clone(),
            _ => server_name(host).map_err(|invalid| Bad::NotSent(invalid.to_string()))?,
        };
        let text = name.to_str().into_owned();
        let waiting = || format!("connected to {to}, TLS with {text} was not done");
        let work = async {
            let config = self.config.get_or_try_init(|| self.configure()).await?;
            let connector = TlsConnector::from(Arc::clone(config));
            connector.connect(name, stream).await.map_err(|error| failure(&text, to, &error))
        };
        budget.within(waiting, work).await?
    }

    async fn configure(&self) -> Result<Arc<ClientConfig>, Bad> {
        let failed = |why: String| Bad::NotSent(format!("TLS cannot be used: {why}"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = match &self.trust {
            Trust::Anyone => None,
            Trust::These(roots, named) => Some((Arc::clone(roots), Arc::clone(named))),
            Trust::System => Some((system_roots().await?, Arc::default())),
        };
        let verifier: Arc<dyn ServerCertVerifier> = match roots {
            None => Arc::new(Anyone(Arc::clone(&provider))),
            Some((roots, named)) => {
                let builder =
                    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
                let inner = builder.build().map_err(|error| failed(error.to_string()))?;
                Arc::new(Strict { inner, named })
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?;
        let mut config =
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, Invalid> {
    ServerName::try_from(text.to_owned())
        .map_err(|error| Invalid::new("server_name", text, format!("is no host name: {error}")))
}

/// What the certificates of a file vouch for, and they themselves.
fn read_roots(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Invalid> {
    let invalid = |why: String| Invalid::new("ca_file", path.display().to_string(), why);
    let (mut roots, mut named) = (RootCertStore::empty(), Vec::new());
    let read = CertificateDer::pem_file_iter(path);
    for certificate in read.map_err(|error| invalid(format!("cannot be read: {error}")))? {
        let added = certificate.map_err(|error| error.to_string()).and_then(|certificate| {
            named.push(certificate.clone());
            roots.add(certificate).map_err(|error| error.to_string())
        });
        added.map_err(|why| invalid(format!("has a certificate that cannot be read: {why}")))?;
    }
    if roots.is_empty() {
        return Err(invalid("has no certificate; it must be PEM".to_owned()));
    }
    Ok((roots, named))
}

/// The system's CA certificates; read once, kept for all checks.
async fn system_roots() -> Result<Arc<RootCertStore>, Bad> {
    static ROOTS: OnceCell<Arc<RootCertStore>> = OnceCell::const_new();
    let none = |why: &str| {
        Bad::NotSent(format!(
            "this system has no CA certificates ({why}): install them (ca-certificates) or name \
             a `ca_file`"
        ))
    };
    let read = || async {
        let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
        let found = found.map_err(|error| none(&error.to_string()))?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why =
                found.errors.first().map_or("none were found".to_owned(), ToString::to_string);
            return Err(none(&why));
        }
        Ok(Arc::new(roots))
    };
    ROOTS.get_or_try_init(read).await.cloned()
}

/// What a handshake's failure means.
fn failure(name: &str, to: SocketAddr, error: &io::Error) -> Bad {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(error) => Bad::Tls { name: name.to_owned(), why: explain(error) },
        None => fault(to, error),
    }
}

/// In words that say what to do.
fn explain(error: &rustls::Error) -> String {
    let rustls::Error::InvalidCertificate(certificate) = error else {
        return error.to_string();
    };
    match certificate {
        CertificateError::ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / (24 * 60 * 60);
            format!("its certificate expired {days} days ago, by this machine's clock")
        }
        CertificateError::Expired => "its certificate has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet, by this machine's clock".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            format!("its certificate is for another name: {}", presented.join(", "))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "its certificate is from an issuer that is not trusted; name it as `ca_file`".to_owned()
        }
        CertificateError::BadSignature => {
            "a signature is wrong: its certificate is from another authority that has a trusted \
             one's name, or it has not the certificate's key"
                .to_owned()
        }
        CertificateError::Other(OtherError(why)) => why.to_string(),
        other => format!("its certificate is not valid: {other}"),
    }
}

/// A certificate that vouches for itself and is not among the trusted ones.
#[derive(Debug)]
struct SelfSigned;

impl std::error::Error for SelfSigned {}

impl fmt::Display for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "its certificate is self-signed; name it as `ca_file` if that is as it should be",
        )
    }
}

/// As browsers verify; tells self-signed certificates from untrusted issuers.
#[derive(Debug)]
struct Strict {
    inner: Arc<WebPkiServerVerifier>,
    /// The certificates that were named.
    named: Arc<[CertificateDer<'static>]>,
}

impl Strict {
    /// Whether nothing is wrong with a certificate but that it is an authority's, and it is
    /// one of those named. That is found wrong after its time was found right, before its
    /// name is looked at.
    fn is_named(&self, certificate: &CertificateDer<'_>, wrong: &CertificateError) -> bool {
        let CertificateError::Other(OtherError(why)) = wrong else { return false };
        why.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
            && self.named.iter().any(|named| named == certificate)
    }
}

impl ServerCertVerifier for Strict {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.inner.verify_server_cert(certificate, intermediates, name, ocsp, now);
        verified.or_else(|error| match error {
            rustls::Error::InvalidCertificate(wrong) if self.is_named(certificate, &wrong) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            // The second: a CA's own certificate, which no server should show.
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::Other(_),
            ) if is_self_signed(certificate) => {
                Err(CertificateError::Other(OtherError(Arc::new(SelfSigned))).into())
            }
            other => Err(other),
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    webpki::EndEntityCert::try_from(certificate)
        .is_ok_and(|certificate| certificate.issuer() == certificate.subject())
}

/// Takes any certificate, as long as the server has its key.
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
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
