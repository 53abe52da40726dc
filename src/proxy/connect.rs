//! Opening a connection to an upstream.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::io::{Transport, UpstreamIo};
use super::pool::Entry;
use super::{ProxyError, owner};
use crate::domain::{Upstream, UpstreamAddr, addr};

/// Connects, checks the owner where one is required, and does the TLS
/// handshake, all within `limit`.
pub(super) async fn connect(entry: &Entry, limit: Duration) -> Result<UpstreamIo, ProxyError> {
    let deadline = Instant::now() + limit;
    let connected = timeout_at(deadline, open(entry, deadline)).await;
    let transport = connected.unwrap_or_else(|_| {
        Err(ProxyError::ConnectTimeout { upstream: entry.upstream.addr.to_string(), after: limit })
    })?;
    Ok(UpstreamIo::new(transport))
}

async fn open(entry: &Entry, deadline: Instant) -> Result<Transport, ProxyError> {
    let upstream = &*entry.upstream;
    let failed = |source| ProxyError::Connect { upstream: upstream.addr.to_string(), source };
    match &upstream.addr {
        UpstreamAddr::Unix { path } => {
            let stream = UnixStream::connect(path).await.map_err(failed)?;
            check_unix(upstream, &stream)?;
            Ok(Transport::Unix(stream))
        }
        UpstreamAddr::Tcp { tls, host, port } => {
            let stream = open_tcp(host, *port, deadline).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            check_tcp(upstream, &stream).await?;
            if !tls {
                return Ok(Transport::Tcp(stream));
            }
            let broken = |source| ProxyError::Tls { upstream: upstream.addr.to_string(), source };
            let name = host.clone().try_into().map_err(|e| broken(io::Error::other(e)))?;
            let config = entry.tls().map_err(broken)?;
            let stream = TlsConnector::from(config).connect(name, stream).await.map_err(broken)?;
            Ok(Transport::Tls(Box::new(stream)))
        }
    }
}

async fn open_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return TcpStream::connect((ip, port)).await;
    }
    let found: Vec<SocketAddr> = lookup_host((host, port)).await?.filter(|addr| usable(addr.ip())).collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no usable address");
    for (at, addr) in found.iter().enumerate() {
        // One address that swallows packets must not use up the time of those
        // after it.
        let left = u32::try_from(found.len() - at).unwrap_or(u32::MAX);
        let share = Instant::now() + deadline.saturating_duration_since(Instant::now()) / left;
        match timeout_at(share, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// A name must not lead to the link-local addresses where cloud metadata lives;
/// who means one writes the address itself (threat rule 66).
fn usable(ip: IpAddr) -> bool {
    match addr::canonical_ip(ip) {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

fn mismatch(upstream: &Upstream, uid: u32, why: &'static str) -> ProxyError {
    ProxyError::Owner { upstream: upstream.addr.to_string(), uid, why }
}

fn check_unix(upstream: &Upstream, stream: &UnixStream) -> Result<(), ProxyError> {
    let Some(uid) = owner::required(upstream) else { return Ok(()) };
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == uid => Ok(()),
        Ok(_) => Err(mismatch(upstream, uid, "the socket belongs to another uid")),
        Err(_) => Err(mismatch(upstream, uid, "the system does not say whose the socket is")),
    }
}

async fn check_tcp(upstream: &Upstream, stream: &TcpStream) -> Result<(), ProxyError> {
    let Some(uid) = owner::required(upstream) else { return Ok(()) };
    let ends = stream.peer_addr().and_then(|server| Ok((server, stream.local_addr()?)));
    let Ok((server, client)) = ends else {
        return Err(mismatch(upstream, uid, "the connection is gone"));
    };
    if addr::is_loopback(server.ip()) {
        return owner::check_tcp(server, client, uid).await.map_err(|why| mismatch(upstream, uid, why));
    }
    // On another machine only a verified certificate says who it is.
    let tls = matches!(upstream.addr, UpstreamAddr::Tcp { tls: true, .. });
    if tls && !upstream.insecure_skip_verify && upstream.owner_uid.is_none() {
        return Ok(());
    }
    Err(mismatch(upstream, uid, "it is not on loopback, where its owner could be told"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_066_a_name_never_leads_to_link_local() {
        for text in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::"] {
            assert!(!usable(text.parse().unwrap()), "{text}");
        }
        for text in ["127.0.0.1", "::1", "192.168.1.2", "100.64.0.1"] {
            assert!(usable(text.parse().unwrap()), "{text}");
        }
    }
}
