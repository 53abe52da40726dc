//! Finding out that a request came round to us again (threat rule 68).
//!
//! Every process has a random id and adds it to one header of what it forwards.
//! A request that carries our own id has been here before. `Via` would do the
//! same, but it is a forwarding header: some apps compress less behind it, and a
//! real OpenClaw gateway trusts less.

use std::sync::LazyLock;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::ProxyError;
use super::head_lines::HeadLines;

pub(super) const HOP: HeaderName = HeaderName::from_static("x-openclaw-hop");
const ID_LENGTH: usize = 16;
/// More gateways than this in one chain are a loop that loses our id.
const MAX_HOPS: usize = 8;

static OURS: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut id = [0_u8; ID_LENGTH / 2];
    // Without randomness another gateway may have the same id; then a chain of
    // the two is refused, which is the safe side.
    let _ = getrandom::fill(&mut id);
    let text = format!("{:016x}", u64::from_be_bytes(id));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0000000000000000"))
});

/// Puts a request's ids and ours; an error when ours is there already. `headers` where
/// it has any. Anything but a list of ids is replaced: a client cannot send text to an
/// upstream this way.
pub(super) fn put(out: &mut impl HeadLines, headers: Option<&HeaderMap>) -> Result<(), ProxyError> {
    match headers {
        Some(headers) => out.put(&HOP, &extended(headers)?),
        None => out.put(&HOP, &OURS),
    }
    Ok(())
}

fn extended(headers: &HeaderMap) -> Result<HeaderValue, ProxyError> {
    let ids: Vec<&[u8]> = headers.get_all(&HOP).iter().flat_map(super::hop_headers::tokens).collect();
    if ids.len() >= MAX_HOPS || ids.contains(&OURS.as_bytes()) {
        return Err(ProxyError::Loop);
    }
    let is_id = |id: &&[u8]| id.len() == ID_LENGTH && id.iter().all(u8::is_ascii_hexdigit);
    if !ids.iter().all(is_id) {
        return Ok(OURS.clone());
    }
    let mut chain = ids.join(&b","[..]);
    chain.push(b',');
    chain.extend_from_slice(OURS.as_bytes());
    HeaderValue::from_bytes(&chain).map_err(|_| ProxyError::Loop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(headers: &mut HeaderMap) -> Result<(), ProxyError> {
        let sent = std::mem::take(headers);
        put(headers, sent.contains_key(&HOP).then_some(&sent))
    }

    #[test]
    fn threat_068_our_own_id_is_a_loop() {
        let mut headers = HeaderMap::new();
        mark(&mut headers).unwrap();
        assert!(matches!(mark(&mut headers), Err(ProxyError::Loop)));
    }

    #[test]
    fn threat_068_a_loop_through_another_gateway_is_found() {
        let mut headers = HeaderMap::new();
        headers.insert(HOP, HeaderValue::from_static("00000000000000ab"));
        mark(&mut headers).unwrap();
        assert_eq!(headers[&HOP].len(), 2 * ID_LENGTH + 1);
        assert!(matches!(mark(&mut headers), Err(ProxyError::Loop)));

        let endless = ["00000000000000ab"; MAX_HOPS].join(",");
        headers.insert(HOP, endless.parse().unwrap());
        assert!(matches!(mark(&mut headers), Err(ProxyError::Loop)));
    }

    #[test]
    fn other_text_is_replaced() {
        let mut headers = HeaderMap::new();
        headers.append(HOP, HeaderValue::from_static("hello"));
        headers.append(HOP, HeaderValue::from_static("world"));
        mark(&mut headers).unwrap();
        assert_eq!(headers.get_all(&HOP).iter().count(), 1);
        assert_eq!(headers[&HOP], *OURS);
    }
}
