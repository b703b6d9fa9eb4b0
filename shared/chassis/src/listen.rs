//! An address becomes a listener. Accepting from it is the service's business.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tracing::info;

/// A listener could not be opened: somebody must change the address or end who holds it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}")]
pub struct ListenError {
    what: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// Binds `address` and says in the log, as `listening`, what listens where.
///
/// Other programs read that line to learn which port was taken for port 0, so it is written only
/// once the port is open, and its text and field names stay as they are.
///
/// # Errors
///
/// [`ListenError`] when the address is taken, not of this machine, or not permitted.
pub async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    let failed = |source| ListenError { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    info!(what, address = %local, "listening");
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    const FREE_PORT: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[tokio::test]
    async fn port_0_takes_a_free_port() {
        let listener = bind("gateway", FREE_PORT).await.unwrap();
        assert_ne!(listener.local_addr().unwrap().port(), 0);
    }

    #[tokio::test]
    async fn taken_address_is_named_in_the_error() {
        let first = bind("gateway", FREE_PORT).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind("gateway", address).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address} for gateway"));
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::AddrInUse));
    }
}
