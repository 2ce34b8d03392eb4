//! TLS for the ports that carry events: certificates from files, which are read again when they change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::text::settings::{Expectations, Expected, InvalidSetting};

/// `tls.*`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate, and those between it and its authority (PEM).
    pub cert_file: Option<PathBuf>,
    /// Its private key (PEM).
    pub key_file: Option<PathBuf>,
    /// The authorities whose certificates callers have to show (PEM); none, and they need none.
    pub client_ca_file: Option<PathBuf>,
}

impl TlsConfig {
    /// What each setting has to be.
    pub const EXPECTED: Expectations = &[
        ("tls", Expected::Section),
        ("tls.cert_file", Expected::Path),
        ("tls.key_file", Expected::Path),
        ("tls.client_ca_file", Expected::Path),
    ];

    /// The settings that cannot be used. Reads the files.
    pub fn check(&self) -> Vec<InvalidSetting> {
        let error = Tls::load(self).err();
        error
            .map(|error| InvalidSetting { key: error.key.to_owned(), sentence: error.to_string() })
            .into_iter()
            .collect()
    }

    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.cert_file, &self.key_file, &self.client_ca_file].into_iter().flatten().map(PathBuf::as_path)
    }
}

/// What a setting of TLS has to be, and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct TlsError {
    /// The setting.
    pub key: &'static str,
    /// What is wrong with it. It has no word of a private key.
    pub reason: String,
}

/// How long a peer may take to hear why there is no TLS with it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Certificates that were read, and are not in force yet.
pub struct PreparedTls(Arc<ServerConfig>);

/// Speaks TLS with those who connect, by the certificates that are in force.
#[derive(Clone)]
pub struct Tls {
    current: Arc<ArcSwap<ServerConfig>>,
}

impl Tls {
    /// Reads the files; `None` if there is to be no TLS.
    ///
    /// # Errors
    /// Which setting is wrong.
    pub fn load(config: &TlsConfig) -> Result<Option<Tls>, TlsError> {
        Ok(read(config)?.map(|current| Tls { current: Arc::new(ArcSwap::from_pointee(current)) }))
    }

    /// Reads the files again, and changes nothing yet.
    ///
    /// # Errors
    /// Which setting is wrong.
    pub fn prepare(config: &TlsConfig) -> Result<Option<PreparedTls>, TlsError> {
        Ok(read(config)?.map(|prepared| PreparedTls(Arc::new(prepared))))
    }

    /// These certificates, for connections from now on. Whether there is TLS at all does not change.
    pub fn change(&self, prepared: PreparedTls) {
        self.current.store(prepared.0);
    }

    /// Agrees with a peer on keys.
    ///
    /// # Errors
    /// When the peer does not speak TLS, or has no certificate that is asked for.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let agreed = TlsAcceptor::from(self.current.load_full()).accept(stream).into_fallible().await;
        let (error, mut stream) = match agreed {
            Ok(stream) => return Ok(stream),
            Err(failed) => failed,
        };
        // The peer has been told why, and has to be able to hear it: a connection that is closed over unread bytes is reset.
        let _ = stream.shutdown().await;
        let mut unread = [0; 1024];
        let read = async { while matches!(stream.read(&mut unread).await, Ok(1..)) {} };
        let _ = tokio::time::timeout(LAST_WORDS, read).await;
        Err(error)
    }
}

fn read(config: &TlsConfig) -> Result<Option<ServerConfig>, TlsError> {
    let (cert_file, key_file) = match (&config.cert_file, &config.key_file) {
        (Some(cert_file), Some(key_file)) => (cert_file, key_file),
        (None, None) if config.client_ca_file.is_none() => return Ok(None),
        (None, _) => return Err(wrong("tls.cert_file", "expected a path")),
        (_, None) => return Err(wrong("tls.key_file", "expected a path")),
    };
    let chain = certificates("tls.cert_file", cert_file)?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| unread("tls.key_file", key_file, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong("tls.cert_file", &error))?;
    let builder = match &config.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("tls.client_ca_file", file)? {
                roots.add(certificate).map_err(|error| wrong("tls.client_ca_file", &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| wrong("tls.client_ca_file", &error))?)
        }
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => wrong("tls.key_file", "it is not the key of tls.cert_file"),
        error => wrong("tls.key_file", &error),
    })?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(server))
}

fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(wrong(key, &format!("{}: no certificate in it", file.display()))),
        Ok(found) => Ok(found),
        Err(error) => Err(unread(key, file, &error)),
    }
}

fn wrong(key: &'static str, reason: &(impl ToString + ?Sized)) -> TlsError {
    TlsError { key, reason: reason.to_string() }
}

fn unread(key: &'static str, file: &Path, error: &pem::Error) -> TlsError {
    let reason = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "no certificate, or no private key that is not encrypted, in it (PEM)".to_owned(),
        // The library's other words may hold a line of the file.
        _ => "it is no PEM".to_owned(),
    };
    wrong(key, &format!("{}: {reason}", file.display()))
}
