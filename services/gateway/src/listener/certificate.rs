//! The certificate that games see: read from two PEM files, and again whenever these change. Sockets
//! that are open keep what they were greeted with; new ones get the new one.
//!
//! New files that cannot be used change nothing: the certificate in use stays, and the check `tls`
//! says so. It stays ok, as games are served as before: a gateway that called itself not ready for
//! this would be taken away together with all others that share the file.

use std::fs::{File, metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use observer_chassis::Check;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::{self, ServerConfig};
use tracing::info;

/// Pause between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Largest file that is read, in bytes: a long chain has a few tens of thousands.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why there is no certificate. Somebody must put the files right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file is missing, not readable, or far too long to be what it should.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds nothing in PEM that is wanted there.
    #[error("{} holds no {wanted} in PEM", path.display())]
    NoPem {
        /// Which one.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// They are no pair, or of a kind that TLS has no use for.
    #[error("{} and {} do not work together", cert.display(), key.display())]
    NoPair {
        /// The file with the certificate.
        cert: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate with its key, and the files they came from.
#[derive(Debug)]
pub struct Certificate {
    files: Files,
    seen: Stamp,
    current: Mutex<Arc<ServerConfig>>,
}

#[derive(Clone, Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// What the system says of both files: when they were changed, and how long they are.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Certificate {
    /// Reads a certificate, its chain behind it, and its key.
    ///
    /// # Errors
    ///
    /// Names the file that is at fault.
    pub fn read(cert: &Path, key: &Path) -> Result<Self, CertificateError> {
        let files = Files { cert: cert.to_owned(), key: key.to_owned() };
        let seen = files.stamp(); // First: what changes while we read is seen as a change.
        let current = Mutex::new(Arc::new(files.read()?));
        Ok(Self { files, seen, current })
    }

    /// What new connections are greeted with.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Files {
    fn stamp(&self) -> Stamp {
        [&self.cert, &self.key].map(|path| {
            let metadata = metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    fn read(&self) -> Result<ServerConfig, CertificateError> {
        let Self { cert, key } = self;
        let no_pem = |path: &PathBuf, wanted| {
            let path = path.clone();
            move |source| CertificateError::NoPem { path, wanted, source }
        };
        let text = read_bounded(cert)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let chain = chain.and_then(|chain| {
            if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) }
        });
        let chain = chain.map_err(no_pem(cert, "certificate"))?;
        let text = read_bounded(key)?;
        let secret = PrivateKeyDer::from_pem_slice(&text).map_err(no_pem(key, "private key"))?;
        ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions() // 1.2 and 1.3.
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
            .map_err(|source| {
                let (cert, key) = (cert.clone(), key.clone());
                CertificateError::NoPair { cert, key, source }
            })
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let read = || {
        let mut text = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
        if FILE_BYTES_MAX < text.len() as u64 {
            return Err(io::Error::other(format!("longer than {FILE_BYTES_MAX} bytes")));
        }
        Ok(text)
    };
    read().map_err(|source| CertificateError::Unreadable { path: path.to_owned(), source })
}

/// Takes on new files as they come, until it is dropped.
pub(crate) async fn follow(certificate: Arc<Certificate>, check: Check) {
    check.ok();
    let mut seen = certificate.seen;
    loop {
        sleep(LOOK_EVERY).await;
        let files = certificate.files.clone();
        let looked = spawn_blocking(move || {
            let now = files.stamp();
            (now != seen).then(|| (now, files.read()))
        });
        match looked.await {
            Ok(None) => {}
            Ok(Some((now, Ok(config)))) => {
                seen = now;
                *certificate.current.lock().unwrap_or_else(PoisonError::into_inner) =
                    Arc::new(config);
                info!("certificate was changed");
                check.ok();
            }
            Ok(Some((now, Err(error)))) => {
                seen = now; // The same files are not tried again.
                check.ok_but(format!("the old certificate is used: {}", in_full(&error)));
            }
            Err(_) => return, // The runtime ends.
        }
    }
}

/// An error with what it came from.
fn in_full(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", in_full(source)),
        None => error.to_string(),
    }
}
