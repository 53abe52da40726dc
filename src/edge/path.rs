//! One path for policy and upstream alike (threat rules 37 and 38).
//!
//! Two programs that read a path differently are a hole between them. What is
//! only ever sent to exploit that is refused; what has one obvious reading is
//! brought into it, and the upstream gets the same.

use std::borrow::Cow;

use crate::domain::Reason;

/// A path in its one reading.
#[derive(Debug, PartialEq, Eq)]
pub struct CanonicalPath<'a> {
    /// What goes upstream.
    pub path: Cow<'a, str>,
    /// What rules are matched against: without `;parameters`, which some
    /// servers cut off and others do not.
    pub policy: Cow<'a, str>,
}

/// Brings a request path into its one reading: percent-encoded unreserved
/// characters are decoded, other encodings upper-cased, repeated slashes merged.
///
/// # Errors
///
/// [`Reason::BadPath`] for `.` and `..` segments in any spelling, encoded slashes,
/// backslashes and control characters, encodings that are not UTF-8 and broken
/// ones.
pub fn canonical(path: &str) -> Result<CanonicalPath<'_>, Reason> {
    if !path.starts_with('/') {
        return Err(Reason::BadPath);
    }
    if is_plain(path.as_bytes()) {
        return Ok(CanonicalPath { path: Cow::Borrowed(path), policy: Cow::Borrowed(path) });
    }
    let path = rewrite(path)?;
    let policy =
        if path.contains(';') { Cow::Owned(without_parameters(&path)) } else { Cow::Owned(path.clone()) };
    Ok(CanonicalPath { path: Cow::Owned(path), policy })
}

/// Nothing in it needs a second look: the ordinary case, without allocation.
fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    for &byte in path {
        match byte {
            b'%' | b';' | b'\\' => return false,
            b'/' | b'.' if before == b'/' => return false,
            0x21..=0x7e => {}
            _ => return false,
        }
        before = byte;
    }
    true
}

fn rewrite(path: &str) -> Result<String, Reason> {
    let mut out = String::with_capacity(path.len());
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (Some(high), Some(low)) = (bytes.next().and_then(hex), bytes.next().and_then(hex)) else {
                    return Err(Reason::BadPath);
                };
                let value = high << 4 | low;
                match value {
                    b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(Reason::BadPath),
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        out.push(char::from(value));
                    }
                    _ => {
                        out.push('%');
                        out.push(char::from(b"0123456789ABCDEF"[usize::from(high)]));
                        out.push(char::from(b"0123456789ABCDEF"[usize::from(low)]));
                    }
                }
                decoded.push(value);
            }
            b'\\' | 0..=0x20 | 0x7f..=0xff => return Err(Reason::BadPath),
            b'/' if out.ends_with('/') => {}
            byte => {
                out.push(char::from(byte));
                decoded.push(byte);
            }
        }
    }
    // Overlong and otherwise broken UTF-8 is decoded differently by everybody.
    if std::str::from_utf8(&decoded).is_err() {
        return Err(Reason::BadPath);
    }
    for segment in out.split('/') {
        let name = segment.split(';').next().unwrap_or(segment);
        if name == "." || name == ".." {
            return Err(Reason::BadPath);
        }
    }
    Ok(out)
}

fn without_parameters(path: &str) -> String {
    let segments: Vec<&str> =
        path.split('/').map(|segment| segment.split(';').next().unwrap_or(segment)).collect();
    let mut out = segments.join("/");
    // `/;x/admin` is `//admin` to whoever cuts parameters off, and that is
    // `/admin` to whoever merges slashes.
    while out.contains("//") {
        out = out.replace("//", "/");
    }
    out
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn both(path: &str) -> (String, String) {
        let canonical = canonical(path).unwrap();
        (canonical.path.into_owned(), canonical.policy.into_owned())
    }

    #[test]
    fn threat_037_paths_with_two_readings_are_refused() {
        for path in [
            "/public/../admin",
            "/public/%2e%2e/admin",
            "/public/%2E./admin",
            "/public/.%2e/admin",
            "/public%2fadmin",
            "/public%2Fadmin",
            "/public%5cadmin",
            "/public\\admin",
            "/admin%00",
            "/admin%0a",
            "/admin/.",
            "/./admin",
            "/..",
            "/admin/..;/x",
            "/%c0%ae%c0%ae/admin",
            "/%c0%af",
            "/%ff",
            "/%",
            "/%2",
            "/%zz",
            "admin",
            "",
            "*",
            "/a b",
            "/\u{e9}",
            "/%7f",
        ] {
            assert_eq!(canonical(path), Err(Reason::BadPath), "{path:?}");
        }
    }

    #[test]
    fn threat_037_what_has_one_reading_is_brought_into_it() {
        assert_eq!(both("/%61dmin").0, "/admin");
        assert_eq!(both("/public//admin").0, "/public/admin");
        assert_eq!(both("//admin").0, "/admin");
        assert_eq!(both("/caf%c3%a9").0, "/caf%C3%A9");
        assert_eq!(both("/a%20b%3fc%23").0, "/a%20b%3Fc%23");
        assert_eq!(both("/%252e%252e/").0, "/%252e%252e/", "decoded once, never twice");
        assert_eq!(both("/ADMIN").0, "/ADMIN");
        assert_eq!(both("/admin;x=y/z"), ("/admin;x=y/z".into(), "/admin/z".into()));
        assert_eq!(both("/;x/admin").1, "/admin");
        assert_eq!(both("/a/..b/...").0, "/a/..b/...");
    }

    #[test]
    fn ordinary_paths_are_not_copied() {
        for path in ["/", "/index.html", "/a/b.c/d_e~f", "/@vite/client", "/a:b,c+d=e!f$g&h'i(j)k*l"] {
            assert!(matches!(canonical(path).unwrap().path, Cow::Borrowed(_)), "{path}");
        }
    }

    proptest! {
        #[test]
        fn threat_037_canonical_is_a_fixed_point(path in "/[a-zA-Z0-9./;%\\\\ ]{0,24}") {
            if let Ok(first) = canonical(&path) {
                let again = canonical(&first.path).unwrap();
                prop_assert_eq!(&again.path, &first.path);
                prop_assert!(!first.policy.contains("//"));
                prop_assert!(!first.policy.split('/').any(|s| s == "." || s == ".."));
            }
        }
    }
}
