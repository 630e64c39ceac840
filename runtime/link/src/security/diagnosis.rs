//! Why a protected link was not made. zenoh says that time was up; a TLS handshake of our own says what was wrong.

use std::io::{ErrorKind, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{CERTIFICATE_FILE, KEY_FILE, TRUST_FILE, host};

const WAIT: Duration = Duration::from_secs(1);

/// One sentence about `address` (`host:port`), asked with the files of a role's `folder`.
pub(crate) fn why_not(address: &str, folder: &Path) -> String {
    match handshake(address, folder) {
        Ok(()) => {
            "both sides accept each other's certificate, but what listens there does not speak zenoh, or has no room"
                .to_owned()
        }
        Err(why) => why,
    }
}

fn handshake(address: &str, folder: &Path) -> Result<(), String> {
    let places = address.to_socket_addrs().map_err(|e| format!("{} is not known ({e})", host(address)))?;
    let stream = connect(places)?;
    let name = ServerName::try_from(host(address).to_owned()).map_err(|e| format!("{}: {e}", host(address)))?;
    let config = config(folder).map_err(|e| format!("the files in {} cannot be used: {e}", folder.display()))?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(|e| e.to_string())?;
    let mut stream = StreamOwned::new(connection, stream);
    stream.conn.complete_io(&mut stream.sock).map_err(|e| explain(&e))?;
    // A client is done before the other side has looked at its certificate: a refusal comes with the first read.
    match stream.read(&mut [0]) {
        Err(e) if !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::UnexpectedEof) => {
            Err(explain(&e))
        }
        _ => Ok(()),
    }
}

fn connect(places: impl Iterator<Item = std::net::SocketAddr>) -> Result<TcpStream, String> {
    let mut last = "it has no address".to_owned();
    for place in places {
        match TcpStream::connect_timeout(&place, WAIT) {
            Ok(stream) => {
                let timed = stream.set_read_timeout(Some(WAIT)).and_then(|()| stream.set_write_timeout(Some(WAIT)));
                return timed.map(|()| stream).map_err(|e| e.to_string());
            }
            Err(error) => last = format!("nothing listens at {place} ({error}): start tenon-bridge there"),
        }
    }
    Err(last)
}

fn config(folder: &Path) -> Result<ClientConfig, String> {
    let certificates = |name: &str| -> Result<Vec<CertificateDer<'static>>, String> {
        CertificateDer::pem_file_iter(folder.join(name)).and_then(Iterator::collect).map_err(|e| format!("{name}: {e}"))
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(TRUST_FILE)? {
        roots.add(authority).map_err(|e| format!("{TRUST_FILE}: {e}"))?;
    }
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY_FILE)).map_err(|e| format!("{KEY_FILE}: {e}"))?;
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(CERTIFICATE_FILE)?, key)
        .map_err(|e| e.to_string())
}

fn explain(error: &std::io::Error) -> String {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return format!("what listens there ends the TLS handshake ({error})");
    };
    match tls {
        rustls::Error::AlertReceived(alert) => {
            format!("the bridge refuses this computer's certificate ({alert:?})")
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the bridge's certificate comes from an authority that is not believed here".to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the bridge's certificate has ended, or this computer's clock is wrong".to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!(
            "the bridge's certificate is for another name ({tls}): `tenon secure --rotate --bridge ADDRESS` adds it"
        ),
        _ => format!("TLS says: {tls}"),
    }
}
