//! Names that are not ASCII, in headers (RFC 2047, as Serve writes them).
use http::HeaderValue;
/// placeholder
pub fn header_value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}
/// placeholder
pub fn decode(text: &str) -> Option<String> {
    Some(text.to_owned())
}
