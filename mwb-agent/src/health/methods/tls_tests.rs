//! HTTPS against servers with certificates of all sorts.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::super::budget::Budget;
use super::super::testing::{
    Outcome, SHORT, SOON, head, http_server, knows, lo, local, response, tcp_server,
};
use super::super::{Good, Http, HttpOptions};
use super::*;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// What a server shows: its certificate and the key of it.
struct Shown(CertificateDer<'static>, KeyPair);

/// An authority of our own, and its certificate in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Authority {
    fn new(name: &str) -> Fallible<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("ca.pem");
        fs::write(&file, issuer.pem())?;
        Ok(Self { issuer, file, _folder: folder })
    }

    fn certifies(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Fallible<Shown> {
        let (params, key) = params(name, change)?;
        Ok(Shown(params.signed_by(&key, &self.issuer)?.der().clone(), key))
    }
}

fn params(
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> Fallible<(CertificateParams, KeyPair)> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    change(&mut params);
    Ok((params, KeyPair::generate()?))
}

/// A server that shows a certificate and tells the names it is asked for.
async fn serve(shown: Shown) -> Fallible<(SocketAddr, mpsc::UnboundedReceiver<Option<String>>)> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(shown.1.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![shown.0], key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (tell, told) = mpsc::unbounded_channel();
    let server = tcp_server(move |stream| {
        let (acceptor, tell) = (acceptor.clone(), tell.clone());
        async move {
            let mut stream = acceptor.accept(stream).await?;
            let _ = tell.send(stream.get_ref().1.server_name().map(str::to_owned));
            head(&mut stream).await?;
            stream.write_all(response(200, "", "all is well").as_bytes()).await?;
            stream.shutdown().await
        }
    });
    Ok((server.await?, told))
}

async fn ask(host: &str, server: SocketAddr, tls: TlsOptions) -> Fallible<Result<Good, Bad>> {
    let url = format!("https://{host}:{}/", server.port());
    let body = Some("well".to_owned());
    let http = Http::new(&HttpOptions { url, body, tls, ..HttpOptions::default() })?;
    Ok(http.ask(&lo(), Some(&local()), &Budget::new(SOON)).await)
}

fn trusting(authority: &Authority) -> TlsOptions {
    TlsOptions { ca_file: Some(authority.file.clone()), ..TlsOptions::default() }
}

fn unverified() -> TlsOptions {
    TlsOptions { verify: false, ..TlsOptions::default() }
}

/// Why TLS failed; no silence.
fn why(asked: Result<Good, Bad>) -> Fallible<String> {
    match asked {
        Err(bad @ Bad::Tls { .. }) if !bad.is_silence() => Ok(bad.to_string()),
        other => Err(format!("{other:?}").into()),
    }
}

#[tokio::test]
async fn a_certificate_of_the_named_authority_is_good_and_the_server_sees_the_name() -> Outcome {
    let authority = Authority::new("The lab")?;
    let (server, mut told) = serve(authority.certifies("www.example.com", |_| {})?).await?;
    let good = ask("www.example.com", server, trusting(&authority)).await??;
    assert!(good.time > Duration::ZERO, "{good:?}");
    assert_eq!(told.recv().await, Some(Some("www.example.com".to_owned())));
    Ok(())
}

#[tokio::test]
async fn a_certificate_for_an_address_is_good_and_no_name_is_shown() -> Outcome {
    let authority = Authority::new("The lab")?;
    let (server, mut told) = serve(authority.certifies("127.0.0.1", |_| {})?).await?;
    ask("127.0.0.1", server, trusting(&authority)).await??;
    assert_eq!(told.recv().await, Some(None));
    Ok(())
}

#[tokio::test]
async fn another_name_can_be_shown_and_is_then_expected() -> Outcome {
    let authority = Authority::new("The lab")?;
    let (server, mut told) = serve(authority.certifies("inner.example.com", |_| {})?).await?;
    let server_name = Some("inner.example.com".to_owned());
    let tls = TlsOptions { server_name, ..trusting(&authority) };
    ask("www.example.com", server, tls).await??;
    assert_eq!(told.recv().await, Some(Some("inner.example.com".to_owned())));
    Ok(())
}

#[tokio::test]
async fn each_fault_of_a_certificate_has_its_own_words() -> Outcome {
    let authority = Authority::new("The lab")?;
    let stranger = Authority::new("Another")?;
    let double = Authority::new("The lab")?;
    let expired = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    };
    let early = |params: &mut CertificateParams| params.not_before = date_time_ymd(4000, 1, 1);
    let ca =
        |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let alone = |change: fn(&mut CertificateParams)| -> Fallible<Shown> {
        let (params, key) = params("www.example.com", change)?;
        Ok(Shown(params.self_signed(&key)?.der().clone(), key))
    };
    let rows = [
        (authority.certifies("www.example.com", expired)?, "days ago"),
        (authority.certifies("www.example.com", early)?, "not valid yet"),
        (authority.certifies("else.example.com", |_| {})?, "for another name: "),
        (stranger.certifies("www.example.com", |_| {})?, "issuer that is not trusted"),
        (double.certifies("www.example.com", |_| {})?, "signature is wrong"),
        (alone(|_| {})?, "self-signed"),
        (alone(ca)?, "self-signed"),
    ];
    for (shown, words) in rows {
        let (server, _told) = serve(shown).await?;
        let text = why(ask("www.example.com", server, trusting(&authority)).await?)?;
        assert!(text.contains(words) && text.contains("www.example.com"), "{words}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_is_named_itself_is_good_in_its_time_and_for_its_name() -> Outcome {
    let ca =
        |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let old_ca = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    };
    let folder = tempfile::tempdir()?;
    let make = |change: fn(&mut CertificateParams), file: &str| -> Fallible<(Shown, TlsOptions)> {
        let (params, key) = params("www.example.com", change)?;
        let signed = params.self_signed(&key)?;
        let file = folder.path().join(file);
        fs::write(&file, signed.pem())?;
        let tls = TlsOptions { ca_file: Some(file), ..TlsOptions::default() };
        Ok((Shown(signed.der().clone(), key), tls))
    };
    let plain: fn(&mut CertificateParams) = |_| {};
    let mut refused = Vec::new();
    for (change, file) in [(plain, "plain.pem"), (ca, "ca.pem")] {
        let (shown, tls) = make(change, file)?;
        let (server, _told) = serve(shown).await?;
        ask("www.example.com", server, tls.clone()).await??;
        refused.push((why(ask("www.example.org", server, tls).await?)?, "another name"));
    }
    let (shown, tls) = make(old_ca, "old.pem")?;
    let (server, _told) = serve(shown).await?;
    refused.push((why(ask("www.example.com", server, tls).await?)?, "days ago"));
    // Of the same name, and another.
    let ((shown, _), (_, tls)) = (make(ca, "one.pem")?, make(ca, "other.pem")?);
    let (server, _told) = serve(shown).await?;
    refused.push((why(ask("www.example.com", server, tls).await?)?, "self-signed"));
    for (text, words) in refused {
        assert!(text.contains(words), "{words}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn the_systems_authorities_do_not_know_ours() -> Outcome {
    let authority = Authority::new("The lab")?;
    let (server, _told) = serve(authority.certifies("www.example.com", |_| {})?).await?;
    let asked = ask("www.example.com", server, TlsOptions::default()).await?;
    // A system without any says so, and does not trust it either.
    let text = asked.err().map(|bad| bad.to_string()).unwrap_or_default();
    assert!(text.contains("not trusted") || text.contains("no CA certificates"), "{text}");
    Ok(())
}

#[tokio::test]
async fn with_verification_off_any_certificate_is_good() -> Outcome {
    let expired = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    };
    let (params, key) = params("else.example.com", expired)?;
    let shown = Shown(params.self_signed(&key)?.der().clone(), key);
    let (server, mut told) = serve(shown).await?;
    ask("www.example.com", server, unverified()).await??;
    assert_eq!(told.recv().await, Some(Some("www.example.com".to_owned())));
    Ok(())
}

#[tokio::test]
async fn a_server_that_has_not_the_key_is_bad_even_without_verification() -> Outcome {
    let (params, key) = params("www.example.com", |_| {})?;
    let certificate = params.self_signed(&key)?.der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let stolen = KeyPair::generate()?.serialize_der();
    let stolen = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(stolen));
    let key = provider.key_provider.load_private_key(stolen)?;
    let shown = rustls::sign::CertifiedKey::new(vec![certificate], key);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(shown)));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = tcp_server(move |stream| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(stream).await.map(drop) }
    });
    let text = why(ask("www.example.com", server.await?, unverified()).await?)?;
    assert!(text.contains("signature is wrong"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_server_without_tls_is_no_silence() -> Outcome {
    let server = tcp_server(async |mut stream| stream.write_all(b"220 hello\r\n").await).await?;
    let bad = ask("www.example.com", server, unverified()).await?.err();
    assert!(bad.as_ref().is_some_and(|bad| !bad.is_silence()), "{bad:?}");
    Ok(())
}

#[tokio::test]
async fn a_handshake_that_is_not_answered_is_over_when_the_time_is() -> Outcome {
    use tokio::io::AsyncReadExt;
    let mute = tcp_server(async |mut stream| {
        while stream.read(&mut [0; 512]).await? > 0 {}
        Ok(())
    });
    let url = format!("https://127.0.0.1:{}/", mute.await?.port());
    let http = Http::new(&HttpOptions { url, tls: unverified(), ..HttpOptions::default() })?;
    let bad = http.ask(&lo(), None, &Budget::new(SHORT)).await;
    let Err(Bad::TimedOut { after, waiting }) = bad else { panic!("{bad:?}") };
    assert!(after == SHORT && waiting.contains("TLS"), "{waiting}");
    Ok(())
}

#[tokio::test]
async fn a_redirect_leads_from_http_to_https_and_the_other_hosts_name_is_shown() -> Outcome {
    let authority = Authority::new("The lab")?;
    let (secure, mut told) = serve(authority.certifies("safe.example.com", |_| {})?).await?;
    let location = format!("Location: https://safe.example.com:{}/\r\n", secure.port());
    let plain = http_server(move |_| response(301, &location, "")).await?;
    let http = Http::new(&HttpOptions {
        url: format!("http://127.0.0.1:{}/", plain.port()),
        redirects: true,
        tls: TlsOptions {
            server_name: Some("first.example.com".to_owned()),
            ..trusting(&authority)
        },
        servers: knows("safe.example.com.", &["127.0.0.1"]).await?,
        ..HttpOptions::default()
    })?;
    http.ask(&lo(), None, &Budget::new(SOON)).await?;
    assert_eq!(told.recv().await, Some(Some("safe.example.com".to_owned())));
    Ok(())
}

#[test]
fn options_that_cannot_work_are_refused() -> Outcome {
    let authority = Authority::new("The lab")?;
    let folder = tempfile::tempdir()?;
    let empty = folder.path().join("empty.pem");
    fs::write(&empty, "no certificate here\n")?;
    let broken = folder.path().join("broken.pem");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")?;
    for file in [&empty, &broken, &folder.path().join("missing.pem")] {
        let tls = TlsOptions { ca_file: Some(file.clone()), ..TlsOptions::default() };
        let error = Tls::new(&tls).err().ok_or("it was taken")?;
        assert!(error.option == "ca_file" && error.value.ends_with(".pem"), "{error}");
    }
    let unused = TlsOptions { verify: false, ..trusting(&authority) };
    assert_eq!(Tls::new(&unused).err().map(|error| error.option), Some("ca_file"));
    let name = TlsOptions { server_name: Some("a b".to_owned()), ..TlsOptions::default() };
    assert_eq!(Tls::new(&name).err().map(|error| error.option), Some("server_name"));
    Ok(())
}
