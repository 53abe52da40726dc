//! Signing an allowed person in to a real OpenClaw gateway (rulings 4,
//! `openclaw-upstream` spec).
//!
//! Two places take the upstream's secret: the bearer of a few HTTP routes, and
//! one field of the first message a client sends over its WebSocket. That
//! message is parsed, changed and written anew; everything after it passes
//! untouched. What does not look like the message it must be gets no secret and
//! ends the connection.

use http::header::HeaderValue;
use serde_json::{Map, Value};

use super::ProxyError;
use super::frames::{self, Head};
use super::strict_json;
use crate::domain::Secret;

/// What the first message may take, in bytes of text.
const MAX_MESSAGE: usize = 64 * 1024;
const MAX_CONTROL: u64 = 125;

/// The upstream's token as a bearer, for the routes that take it; in place of the
/// client's own `Authorization`. `path` is the one the upstream sees.
pub(super) fn authorization(path: &str, secret: &Secret) -> Result<Option<HeaderValue>, ProxyError> {
    if !(path.starts_with("/v1/") || path == "/tools/invoke") {
        return Ok(None);
    }
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", secret.expose()))
        .map_err(|_| ProxyError::BadRequest("the upstream's token is no header value"))?;
    bearer.set_sensitive(true);
    Ok(Some(bearer))
}

/// Stands in a client's way until its first message has been rewritten.
pub(super) struct Gate {
    secret: Secret,
    /// Bytes of a frame that is not complete yet.
    raw: Vec<u8>,
    /// The message so far; `None` until its first frame.
    text: Option<Vec<u8>>,
    open: bool,
}

/// Why a client was not let through; goes into its close frame.
pub(super) type Refusal = &'static str;

impl Gate {
    pub(super) fn new(secret: Secret) -> Self {
        Self { secret, raw: Vec::new(), text: None, open: false }
    }

    /// Whether the first message is through and everything else may pass.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Takes what a client sent and answers what the upstream gets of it.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut out = Vec::new();
        self.raw.extend_from_slice(bytes);
        while !self.open && self.take_frame(&mut out)? {}
        if self.open {
            out.append(&mut self.raw);
        }
        Ok(out)
    }

    /// Whether there was a complete frame to take.
    fn take_frame(&mut self, out: &mut Vec<u8>) -> Result<bool, Refusal> {
        let Some(head) = Head::parse(&self.raw) else { return Ok(false) };
        let mask = self.check(&head)?;
        let start = head.length;
        // Bounded by the checks above.
        let end = start + usize::try_from(head.payload).map_err(|_| "first message too large")?;
        if self.raw.len() < end {
            return Ok(false);
        }
        if head.is_control() {
            // A ping, or a farewell: it says nothing that is ours to change.
            out.extend(self.raw.drain(..end));
            return Ok(true);
        }
        let text = self.text.get_or_insert_default();
        let before = text.len();
        text.extend_from_slice(&self.raw[start..end]);
        frames::mask(&mut text[before..], mask);
        self.raw.drain(..end);
        if head.fin {
            out.append(&mut self.rewritten()?);
            self.open = true;
        }
        Ok(true)
    }

    fn check(&self, head: &Head) -> Result<[u8; 4], Refusal> {
        let mask = head.mask.ok_or("frame not masked")?;
        if head.reserved {
            return Err("reserved bits set");
        }
        if head.is_control() {
            return if head.fin && head.payload <= MAX_CONTROL { Ok(mask) } else { Err("bad control frame") };
        }
        let (expected, taken) = match &self.text {
            None => (frames::TEXT, 0),
            Some(text) => (frames::CONTINUATION, text.len()),
        };
        if head.opcode != expected {
            return Err("first message must be text");
        }
        if head.payload > (MAX_MESSAGE - taken) as u64 {
            return Err("first message too large");
        }
        Ok(mask)
    }

    fn rewritten(&mut self) -> Result<Vec<u8>, Refusal> {
        let text = self.text.take().unwrap_or_default();
        let message = sign_in(&text, &self.secret)?;
        let mut key = [0; 4];
        getrandom::fill(&mut key).map_err(|_| "no randomness")?;
        Ok(frames::masked_text(&message, key))
    }
}

/// Puts the secret into a `connect` request. `auth.password` and not
/// `auth.token`: the client's device signature covers the token.
fn sign_in(text: &[u8], secret: &Secret) -> Result<Vec<u8>, Refusal> {
    let mut message = strict_json::parse(text).map_err(|_| "first message is not sound JSON")?;
    let is = |field: &str, word: &str| message.get(field).and_then(Value::as_str) == Some(word);
    if !is("type", "req") || !is("method", "connect") {
        return Err("first message must be connect");
    }
    let params = message.get_mut("params").and_then(Value::as_object_mut).ok_or("connect has no params")?;
    let auth = params.entry("auth").or_insert(Value::Null);
    if auth.is_null() {
        *auth = Value::Object(Map::new());
    }
    let auth = auth.as_object_mut().ok_or("auth is not an object")?;
    auth.insert("password".into(), secret.expose().into());
    serde_json::to_vec(&message).map_err(|_| "first message is not sound JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::frames::{CLOSE, masked_text};

    const CONNECT: &str = r#"{"type":"req","id":9007199254740993,"method":"connect","params":{"auth":{"token":"t"},"x":[1.5,"\u00e9"]}}"#;

    fn gate() -> Gate {
        Gate::new(Secret::new("s3cret").unwrap())
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = masked_text(payload, [7, 8, 9, 10]);
        frame[0] = first;
        frame
    }

    /// The text of the one frame in `bytes`, and what follows it.
    fn unmask(bytes: &[u8]) -> (Value, &[u8]) {
        let head = Head::parse(bytes).unwrap();
        let end = head.length + usize::try_from(head.payload).unwrap();
        let mut text = bytes[head.length..end].to_vec();
        frames::mask(&mut text, head.mask.unwrap());
        assert!(head.fin && head.opcode == frames::TEXT);
        (serde_json::from_slice(&text).unwrap(), &bytes[end..])
    }

    #[test]
    fn the_first_message_gets_the_secret_and_keeps_the_rest() {
        let mut gate = gate();
        let mut sent = frame(0x81, CONNECT.as_bytes());
        sent.extend_from_slice(b"whatever comes next");
        let out = gate.pass(&sent).unwrap();
        let (message, rest) = unmask(&out);
        let mut expected: Value = serde_json::from_str(CONNECT).unwrap();
        expected["params"]["auth"]["password"] = "s3cret".into();
        assert_eq!(message, expected);
        assert_eq!(message["id"].as_u64(), Some(9_007_199_254_740_993));
        assert_eq!(rest, b"whatever comes next");
        assert!(gate.is_open());
    }

    #[test]
    fn fragments_with_pings_between_become_one_frame() {
        let mut gate = gate();
        let (one, two) = CONNECT.as_bytes().split_at(20);
        let ping = frame(0x89, b"p");
        let sent =
            [ping.clone(), frame(0x01, one), frame(0x00, b""), ping.clone(), frame(0x80, two)].concat();
        let mut out = Vec::new();
        for byte in &sent {
            out.extend(gate.pass(&[*byte]).unwrap());
        }
        let pings = [ping.clone(), ping].concat();
        assert!(out.starts_with(&pings));
        assert_eq!(unmask(&out[pings.len()..]).0["params"]["auth"]["password"], "s3cret");
    }

    #[test]
    fn auth_is_made_where_there_is_none() {
        for params in [r#"{}"#, r#"{"auth":null}"#, r#"{"auth":{"password":"guess"}}"#] {
            let text = format!(r#"{{"type":"req","method":"connect","params":{params}}}"#);
            let out = gate().pass(&frame(0x81, text.as_bytes())).unwrap();
            assert_eq!(unmask(&out).0["params"]["auth"], serde_json::json!({"password": "s3cret"}));
        }
    }

    #[test]
    fn what_is_not_connect_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            "not json",
            r#"{"type":"req","method":"chat.send","params":{}}"#,
            r#"{"type":"event","method":"connect","params":{}}"#,
            r#"{"type":"req","method":"connect"}"#,
            r#"{"type":"req","method":"connect","params":[]}"#,
            r#"{"type":"req","method":"connect","params":{"auth":"x"}}"#,
            r#"{"type":"req","method":"connect","params":{}} {}"#,
            r#"{"type":"req","method":"chat","method":"connect","params":{}}"#,
            r#"{"type":"req","method":"connect","params":{"auth":{},"\u0061uth":{}}}"#,
        ] {
            assert!(gate().pass(&frame(0x81, text.as_bytes())).is_err(), "{text}");
        }
        assert!(gate().pass(&frame(0x81, b"\xff\xfe")).is_err());
    }

    #[test]
    fn frames_no_client_sends_are_refused() {
        let unmasked = [&[0x81, 2][..], b"{}"].concat();
        let long_ping = frame(0x89, &[0; 126]);
        let bad = [
            unmasked,
            long_ping,
            frame(0x09, b""),
            frame(0xc1, CONNECT.as_bytes()),
            frame(0x82, CONNECT.as_bytes()),
            frame(0x80, CONNECT.as_bytes()),
            [frame(0x01, b"{"), frame(0x81, b"}")].concat(),
        ];
        for bytes in bad {
            assert!(gate().pass(&bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_message_over_64_kib_is_refused_by_its_head() {
        let whole = frame(0x81, &vec![b' '; MAX_MESSAGE + 1]);
        assert!(gate().pass(&whole[..14]).is_err());
        let mut gate = gate();
        assert!(gate.pass(&frame(0x01, &vec![b' '; MAX_MESSAGE])).unwrap().is_empty());
        assert!(gate.pass(&frame(0x00, b" ")[..6]).is_err());
    }

    #[test]
    fn exactly_64_kib_passes_and_a_farewell_too() {
        let mut text = CONNECT.as_bytes().to_vec();
        text.resize(MAX_MESSAGE, b' ');
        assert!(gate().pass(&frame(0x81, &text)).is_ok());
        let bye = frame(0x80 | CLOSE, &1000_u16.to_be_bytes());
        assert_eq!(gate().pass(&bye).unwrap(), bye);
    }

    #[test]
    fn the_bearer_goes_to_two_kinds_of_path_only() {
        let secret = Secret::new("s3cret").unwrap();
        let bearer = |path: &str| authorization(path, &secret).unwrap();
        for path in ["/v1/models", "/v1/chat/completions", "/tools/invoke"] {
            let bearer = bearer(path).unwrap();
            assert!(bearer == "Bearer s3cret" && bearer.is_sensitive(), "{path}");
        }
        for path in ["/", "/v1", "/V1/x", "/v10/x", "/tools/invoke/", "/tools", "/x/v1/y"] {
            assert_eq!(bearer(path), None, "{path}");
        }
    }
}
