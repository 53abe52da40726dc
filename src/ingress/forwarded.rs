//! The forwarded chain: who a trusted proxy says the client is.

use std::net::{IpAddr, SocketAddr};

use http::HeaderValue;
use ipnetwork::IpNetwork;

use crate::domain::addr::{canonical_ip, is_in, is_loopback};
use crate::domain::{ClientAddr, Reason};

/// A longer chain is a loop or an attack (threat rule 18).
const MAX_HOPS: usize = 10;

/// The client behind a trusted proxy: the right-most hop that is neither a
/// trusted proxy nor loopback. `None` where every hop is one of those; never
/// the proxy's own address.
///
/// # Errors
///
/// [`Reason::BadRequest`] for more than ten hops or a hop that is no address
/// (threat rule 18).
pub fn client(chain: Option<&HeaderValue>, proxies: &[IpNetwork]) -> Result<Option<ClientAddr>, Reason> {
    let Some(chain) = chain else { return Ok(None) };
    let text = chain.to_str().map_err(|_| Reason::BadRequest)?;
    if text.split(',').count() > MAX_HOPS {
        return Err(Reason::BadRequest);
    }
    let mut client = None;
    for hop in text.rsplit(',') {
        let ip = address(hop).ok_or(Reason::BadRequest)?;
        if client.is_none() && !is_loopback(ip) && !is_in(proxies, ip) {
            client = Some(ClientAddr::new(ip));
        }
    }
    Ok(client)
}

/// One hop: an address, with or without a port, or in brackets.
pub fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let ip = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(canonical_ip(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> Vec<IpNetwork> {
        ["10.0.0.1", "10.0.0.2", "127.0.0.1", "fd00::/8"].iter().map(|p| p.parse().unwrap()).collect()
    }

    fn walk(chain: &str) -> Result<Option<String>, Reason> {
        let value = HeaderValue::from_str(chain).unwrap();
        client(Some(&value), &proxies()).map(|client| client.map(|client| client.to_string()))
    }

    #[test]
    fn threat_018_the_right_most_untrusted_hop_is_the_client() {
        assert_eq!(walk("1.1.1.1, 192.0.2.7, 10.0.0.2"), Ok(Some("192.0.2.7".into())));
        assert_eq!(walk("192.0.2.7:4711"), Ok(Some("192.0.2.7".into())));
        assert_eq!(walk("[2001:db8::1]:80, fd00::7"), Ok(Some("2001:db8::1".into())));
        assert_eq!(walk("::ffff:192.0.2.7"), Ok(Some("192.0.2.7".into())));
    }

    #[test]
    fn threat_018_what_is_no_chain_of_addresses_is_refused() {
        assert_eq!(walk("evil, 192.0.2.7, 10.0.0.2"), Err(Reason::BadRequest));
        assert_eq!(walk("192.0.2.7, unknown"), Err(Reason::BadRequest));
        assert_eq!(walk(&["192.0.2.7"; 11].join(",")), Err(Reason::BadRequest));
    }

    #[test]
    fn a_chain_of_proxies_and_loopback_names_nobody() {
        assert_eq!(walk("127.0.0.1"), Ok(None));
        assert_eq!(walk("10.0.0.1, 127.0.0.1, 10.0.0.2"), Ok(None));
        assert_eq!(client(None, &proxies()), Ok(None));
    }
}
