//! Where the header lines of an outgoing request go.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Takes header lines, in order. What was put is never taken back: whoever puts a
/// name puts it once, after every other line of that name was left out.
pub(super) trait HeadLines {
    /// One line.
    fn put(&mut self, name: &HeaderName, value: &HeaderValue);

    /// One whose value is text of our own making.
    fn put_text(&mut self, name: &HeaderName, value: &[u8]);
}

/// As they are sent. Names and values were checked when they became such.
impl HeadLines for Vec<u8> {
    fn put(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.put_text(name, value.as_bytes());
    }

    fn put_text(&mut self, name: &HeaderName, value: &[u8]) {
        self.extend_from_slice(name.as_str().as_bytes());
        self.extend_from_slice(b": ");
        self.extend_from_slice(value);
        self.extend_from_slice(b"\r\n");
    }
}

/// For hyper to send.
impl HeadLines for HeaderMap {
    fn put(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name, value.clone());
    }

    fn put_text(&mut self, name: &HeaderName, value: &[u8]) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.append(name, value);
        }
    }
}
