//! Which `Host` an upstream sees.

use http::HeaderValue;
use http::header::{HOST, HeaderMap};

use super::ProxyError;
use crate::domain::{Upstream, UpstreamAddr, UpstreamKind};

/// The upstream's own authority, for `host: "upstream"` and kind `openclaw`.
pub(super) fn of_upstream(upstream: &Upstream) -> HeaderValue {
    let text = match &upstream.addr {
        UpstreamAddr::Unix { .. } => "localhost".to_owned(),
        // A real gateway treats a connection as local only under a loopback
        // name, and this is the one it is always known by.
        UpstreamAddr::Tcp { host, port, .. }
            if matches!(upstream.kind, UpstreamKind::OpenClaw { .. }) && is_loopback(host) =>
        {
            format!("127.0.0.1:{port}")
        }
        UpstreamAddr::Tcp { tls, host, port } => {
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let default = if *tls { 443 } else { 80 };
            if *port == default { host } else { format!("{host}:{port}") }
        }
    };
    // The configuration admits no host that is not a header value.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("localhost"))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(crate::domain::addr::is_loopback)
}

/// The client's validated authority as a header value. Nearly always what the
/// client sent, byte for byte, and then not copied.
pub(super) fn of_client(headers: &HeaderMap, host: &str) -> Result<HeaderValue, ProxyError> {
    match headers.get(HOST) {
        Some(sent) if sent.as_bytes() == host.as_bytes() => Ok(sent.clone()),
        _ => HeaderValue::from_str(host).map_err(|_| ProxyError::BadRequest("its host is no header value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Secret;
    use crate::proxy::tests::support::upstream;

    fn own(tls: bool, host: &str, port: u16, openclaw: bool) -> String {
        let mut upstream = upstream(UpstreamAddr::Tcp { tls, host: host.into(), port });
        if openclaw {
            upstream.kind = UpstreamKind::OpenClaw { secret: Secret::new("s").unwrap() };
        }
        of_upstream(&upstream).to_str().unwrap().to_owned()
    }

    #[test]
    fn the_upstreams_own_host_leaves_out_a_default_port() {
        assert_eq!(own(false, "app.lan", 80, false), "app.lan");
        assert_eq!(own(true, "app.lan", 443, false), "app.lan");
        assert_eq!(own(true, "app.lan", 80, false), "app.lan:80");
        assert_eq!(own(false, "::1", 3000, false), "[::1]:3000");
        let unix = upstream(UpstreamAddr::Unix { path: "/run/app.sock".into() });
        assert_eq!(of_upstream(&unix), "localhost");
    }

    #[test]
    fn a_real_gateway_on_loopback_is_called_by_its_address() {
        assert_eq!(own(false, "localhost", 18800, true), "127.0.0.1:18800");
        assert_eq!(own(false, "::1", 80, true), "127.0.0.1:80");
        assert_eq!(own(true, "claw.lan", 443, true), "claw.lan");
    }

    #[test]
    fn the_clients_host_is_the_validated_one() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        assert_eq!(of_client(&headers, "gw.example").unwrap(), "gw.example");
        assert!(of_client(&headers, "gw\r\n").is_err());
    }
}
