//! Finding and decoding the one JSON object in what a command printed.

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::Error;
use crate::text::printable;

/// The most that is ever parsed, in bytes. Equals the runner's default for
/// standard output; here too, so that documents from elsewhere are bounded.
pub(crate) const MAX_DOCUMENT: usize = 4 << 20;

/// Decodes the one JSON object in `bytes`.
///
/// Other text around it is let pass (a wrapper script's notice), unless it makes
/// unclear which object is meant: a second one, an enclosing array, an unbalanced
/// brace.
pub(crate) fn decode<T: DeserializeOwned>(command: &'static str, bytes: &[u8]) -> Result<T, Error> {
    from_object(command, object(command, text(command, bytes)?)?)
}

/// The same, where `null` means "empty" (old releases print it for a node without
/// Serve configuration).
pub(crate) fn decode_or_null<T: DeserializeOwned + Default>(
    command: &'static str,
    bytes: &[u8],
) -> Result<T, Error> {
    let text = text(command, bytes)?;
    if text == "null" {
        return Ok(T::default());
    }
    from_object(command, object(command, text)?)
}

/// The trimmed text of an output, if it is text of a bearable size.
pub(crate) fn text<'a>(command: &'static str, bytes: &'a [u8]) -> Result<&'a str, Error> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(Error::TooLarge { command, limit: MAX_DOCUMENT });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| Error::Garbage {
        command,
        detail: format!("invalid UTF-8 at byte {}", error.valid_up_to()),
    })?;
    if let Some(at) = text.find('\0') {
        return Err(Error::Garbage { command, detail: format!("a NUL byte at byte {at}") });
    }
    Ok(text.trim())
}

fn from_object<T: DeserializeOwned>(command: &'static str, object: &str) -> Result<T, Error> {
    let mut json = serde_json::Deserializer::from_str(object);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let detail = printable(error.inner().to_string().as_bytes(), 200);
        if error.inner().is_data() {
            let field = printable(error.path().to_string().as_bytes(), 200);
            Error::WrongShape { command, field, detail }
        } else {
            Error::NotJson { command, detail }
        }
    })
}

/// The part of `text` from its first `{` to the matching `}`.
fn object<'a>(command: &'static str, text: &'a str) -> Result<&'a str, Error> {
    let not_json = |detail: &str| Error::NotJson { command, detail: detail.to_owned() };
    if text.is_empty() {
        return Err(not_json("nothing was printed"));
    }
    if !text.starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        return Err(Error::wrong_shape(command, ".", "a JSON value that is not an object"));
    }
    let start = text.find('{').ok_or_else(|| not_json("no object in it"))?;
    let length = balanced(text.as_bytes().get(start..).unwrap_or_default())
        .ok_or_else(|| not_json("the object does not end"))?;
    let (before, rest) = text.split_at(start);
    let (object, after) = rest.split_at(length);
    if before.contains('}') || after.contains(['{', '}']) {
        return Err(not_json("more than one object in it"));
    }
    // An element of a broken array would otherwise pass for the whole.
    if before.trim_end().ends_with(['[', ',']) || after.trim_start().starts_with([']', ',']) {
        return Err(not_json("the object is part of something else"));
    }
    Ok(object)
}

/// The length of the object that starts at the first byte, or nothing if it does
/// not end. A loop, not recursion: depth is the other side's choice.
fn balanced(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
