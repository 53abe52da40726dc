//! One answer as bytes.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{Response, StatusCode};
use http_body::Body as _;

use super::{MOST, plain_length};
use crate::body::{Body, Lines};

/// Writes an answer that is all here, in place of what is in `out`, and says whether
/// the connection ends with it. `None` when it is not all here, is large, or says of
/// its own framing anything that needs a second thought; then nothing was taken of it.
/// `head_only` is for HEAD; `close` ends the connection whatever the answer says.
pub(super) fn write(
    out: &mut Vec<u8>,
    response: &mut Response<Body>,
    head_only: bool,
    mut close: bool,
) -> Option<bool> {
    if let Some(lines) = response.body_mut().take_lines() {
        return Some(write_lines(out, response, &lines, close));
    }
    let status = response.status();
    let size = usize::try_from(response.body().size_hint().exact()?).ok().filter(|size| *size <= MOST)?;
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if status.is_informational() || !response.extensions().is_empty() || (bodiless && size > 0) {
        return None;
    }

    begin(out, status);
    let (mut length, mut dated) = (None, false);
    for (name, value) in response.headers() {
        if name == CONTENT_LENGTH {
            if length.replace(plain_length(value.as_bytes())?).is_some() {
                return None;
            }
        } else if name == CONNECTION {
            if !value.as_bytes().eq_ignore_ascii_case(b"close") {
                return None;
            }
            close = true;
            continue;
        } else if name == TRANSFER_ENCODING {
            return None;
        }
        dated |= name == DATE;
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    match length {
        // Of what a GET would have brought.
        Some(_) if head_only || status == StatusCode::NOT_MODIFIED => {}
        Some(length) if length != size || bodiless => return None,
        None if !bodiless && (size > 0 || !head_only) => {
            line(out, b"content-length", size.to_string().as_bytes());
        }
        _ => {}
    }
    finish(out, close, dated);
    // Not even taken for a HEAD: the log counts what is.
    if !head_only {
        out.extend_from_slice(&response.body_mut().take_whole()?);
    }
    Some(close)
}

/// The same for an answer that the proxy has read and cleaned: its length is right, and
/// it has no body where it must not.
fn write_lines(out: &mut Vec<u8>, response: &Response<Body>, lines: &Lines, mut close: bool) -> bool {
    begin(out, response.status());
    for (name, value) in response.headers() {
        if name == CONNECTION {
            close |= value.as_bytes().eq_ignore_ascii_case(b"close");
        } else {
            line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    let (head, body) = lines.bytes.split_at(lines.head);
    out.extend_from_slice(head);
    finish(out, close, lines.dated);
    out.extend_from_slice(body);
    close
}

fn begin(out: &mut Vec<u8>, status: StatusCode) {
    out.clear();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn finish(out: &mut Vec<u8>, close: bool, dated: bool) {
    if close {
        line(out, b"connection", b"close");
    }
    if !dated {
        line(out, b"date", &now());
    }
    out.extend_from_slice(b"\r\n");
}

/// Names and values were checked when they became names and values.
fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

thread_local! {
    /// The second, and how it is written.
    static NOW: Cell<(u64, [u8; 29])> = const { Cell::new((0, [0; 29])) };
}

/// The time for `Date`, written out once a second.
fn now() -> [u8; 29] {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (of, text) = NOW.get();
    if of == second && second > 0 {
        return text;
    }
    let mut text = [0; 29];
    text.copy_from_slice(httpdate::fmt_http_date(now).as_bytes());
    NOW.set((second, text));
    text
}
