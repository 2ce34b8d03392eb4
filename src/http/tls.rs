//! TLS of the listeners that carry events. Certificates are read from files and replaced without a restart.
//!
//! The settings are specified in `docs/security.md`, section "TLS". When the files are read again is decided in
//! `serve`.

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

/// The configuration section `tls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate, followed by intermediate certificates (PEM).
    pub cert_file: Option<PathBuf>,
    /// The private key of the certificate (PEM, not encrypted).
    pub key_file: Option<PathBuf>,
    /// The certificate authorities that issue client certificates (PEM). Without it, clients need no certificate.
    pub client_ca_file: Option<PathBuf>,
}

impl TlsConfig {
    /// The expected value of each setting.
    pub const EXPECTED: Expectations = &[
        ("tls", Expected::Section),
        ("tls.cert_file", Expected::Path),
        ("tls.key_file", Expected::Path),
        ("tls.client_ca_file", Expected::Path),
    ];

    /// The settings of the section that cannot be used. Reads the files.
    pub fn check(&self) -> Vec<InvalidSetting> {
        let error = Tls::load(self).err();
        error
            .map(|error| InvalidSetting { key: error.key.to_owned(), message: error.to_string(), limited_by: None })
            .into_iter()
            .collect()
    }

    /// The configured files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.cert_file, &self.key_file, &self.client_ca_file].into_iter().flatten().map(PathBuf::as_path)
    }
}

/// A TLS setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct TlsError {
    /// The key of the setting.
    pub key: &'static str,
    /// Why it cannot be used; never contains a part of a private key.
    pub reason: String,
}

/// How long to wait for the peer to read the TLS alert after a failed handshake.
const ALERT_TIMEOUT: Duration = Duration::from_secs(1);

/// Certificates that were read but are not used yet.
pub struct PreparedTls(Arc<ServerConfig>);

/// Accepts TLS connections with the current certificates. Clones share them.
#[derive(Clone)]
pub struct Tls {
    current: Arc<ArcSwap<ServerConfig>>,
}

impl Tls {
    /// Reads the files; `None` if TLS is not configured.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn load(config: &TlsConfig) -> Result<Option<Tls>, TlsError> {
        Ok(server_config(config)?.map(|current| Tls { current: Arc::new(ArcSwap::from_pointee(current)) }))
    }

    /// Reads the files again, without using them yet.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn prepare(config: &TlsConfig) -> Result<Option<PreparedTls>, TlsError> {
        Ok(server_config(config)?.map(|prepared| PreparedTls(Arc::new(prepared))))
    }

    /// Replaces the certificates for new connections. Whether TLS is used at all does not change.
    pub fn replace(&self, prepared: PreparedTls) {
        self.current.store(prepared.0);
    }

    /// Does the handshake with a peer.
    ///
    /// # Errors
    /// When the handshake fails, for example because the peer does not use TLS or lacks a required client certificate.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let handshake = TlsAcceptor::from(self.current.load_full()).accept(stream).into_fallible().await;
        let (error, mut stream) = match handshake {
            Ok(stream) => return Ok(stream),
            Err(failed) => failed,
        };
        // The peer was sent an alert and must be able to read it: closing a connection with unread bytes resets it.
        let _ = stream.shutdown().await;
        let mut unread = [0; 1024];
        let read = async { while matches!(stream.read(&mut unread).await, Ok(1..)) {} };
        let _ = tokio::time::timeout(ALERT_TIMEOUT, read).await;
        Err(error)
    }
}

fn server_config(config: &TlsConfig) -> Result<Option<ServerConfig>, TlsError> {
    let (cert_file, key_file) = match (&config.cert_file, &config.key_file) {
        (Some(cert_file), Some(key_file)) => (cert_file, key_file),
        (None, None) if config.client_ca_file.is_none() => return Ok(None),
        (None, Some(_)) => return Err(invalid("tls.cert_file", "required with tls.key_file")),
        (None, None) => return Err(invalid("tls.cert_file", "required with tls.client_ca_file")),
        (Some(_), None) => return Err(invalid("tls.key_file", "required with tls.cert_file")),
    };
    let chain = certificates("tls.cert_file", cert_file)?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| unreadable("tls.key_file", key_file, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| invalid("tls.cert_file", &error))?;
    let builder = match &config.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("tls.client_ca_file", file)? {
                roots.add(certificate).map_err(|error| invalid("tls.client_ca_file", &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| invalid("tls.client_ca_file", &error))?)
        }
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            invalid("tls.key_file", "the private key does not match the certificate in tls.cert_file")
        }
        error => invalid("tls.key_file", &error),
    })?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(server))
}

fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => {
            Err(invalid(key, &format!("{}: the file contains no certificate (PEM)", file.display())))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(unreadable(key, file, &error)),
    }
}

fn invalid(key: &'static str, reason: &(impl ToString + ?Sized)) -> TlsError {
    TlsError { key, reason: reason.to_string() }
}

fn unreadable(key: &'static str, file: &Path, error: &pem::Error) -> TlsError {
    let reason = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "the file contains no certificate or no unencrypted private key (PEM)".to_owned(),
        // The library's other messages may contain a line of the file.
        _ => "the file is not valid PEM".to_owned(),
    };
    invalid(key, &format!("{}: {reason}", file.display()))
}
