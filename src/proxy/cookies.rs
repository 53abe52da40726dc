//! Our session cookie is ours: no upstream sees it or sets it (threat rule 56,
//! rulings 5).

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use memchr::memmem;

use super::head_lines::HeadLines;

/// The name of our session cookie.
pub const SESSION_COOKIE: &str = "openclaw_session";
/// Its name where only HTTPS is served.
pub const HOST_SESSION_COOKIE: &str = "__Host-openclaw_session";

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

fn is_ours(name: &[u8]) -> bool {
    name == SESSION_COOKIE.as_bytes() || name == HOST_SESSION_COOKIE.as_bytes()
}

/// Puts a request's cookies without ours; the others stay as they were, byte for
/// byte. With `join`, several lines become one: HTTP/2 clients split them, and
/// HTTP/1.1 apps may read the first line only (RFC 9113, 8.2.3).
pub(super) fn put_others(out: &mut impl HeadLines, headers: &HeaderMap, join: bool) {
    let lines = headers.get_all(COOKIE);
    if !headers.contains_key(COOKIE) {
        return;
    }
    let has_ours = |line: &HeaderValue| memmem::find(line.as_bytes(), SESSION_COOKIE.as_bytes()).is_some();
    let joins = join && lines.iter().nth(1).is_some();
    if !joins && !lines.iter().any(has_ours) {
        return lines.iter().for_each(|line| out.put(&COOKIE, line));
    }
    let kept: Vec<Vec<u8>> = lines.iter().filter_map(without_ours).collect();
    // Made of pieces of valid values, so always valid.
    if joins && !kept.is_empty() {
        out.put_text(&COOKIE, &kept.join(&b"; "[..]));
    } else {
        kept.iter().for_each(|line| out.put_text(&COOKIE, line));
    }
}

/// One line without our cookie; `None` when nothing else was in it.
fn without_ours(line: &HeaderValue) -> Option<Vec<u8>> {
    let mut kept = Vec::with_capacity(line.len());
    for pair in line.as_bytes().split(|&b| b == b';') {
        let name = pair.split(|&b| b == b'=').next().unwrap_or_default();
        if is_ours(name.trim_ascii()) {
            continue;
        }
        if kept.is_empty() {
            kept.extend_from_slice(pair.trim_ascii_start());
        } else {
            kept.push(b';');
            kept.extend_from_slice(pair);
        }
    }
    (!kept.is_empty()).then_some(kept)
}

/// Takes out of a response what would overwrite or delete our cookie.
pub(super) fn protect_ours(headers: &mut HeaderMap) {
    headers.remove(CLEAR_SITE_DATA);
    if !headers.get_all(SET_COOKIE).iter().any(|line| sets_ours(line.as_bytes())) {
        return;
    }
    let kept: Vec<HeaderValue> =
        headers.get_all(SET_COOKIE).iter().filter(|line| !sets_ours(line.as_bytes())).cloned().collect();
    headers.remove(SET_COOKIE);
    for line in kept {
        headers.append(SET_COOKIE, line);
    }
}

/// A cookie without a name, `=openclaw_session=x`, is sent back by browsers as
/// `openclaw_session=x`, so leading `=` do not hide the name.
pub(super) fn sets_ours(line: &[u8]) -> bool {
    let pair = line.split(|&b| b == b';').next().unwrap_or_default();
    let start = pair.iter().position(|b| !b" \t=".contains(b)).unwrap_or(pair.len());
    let name = pair[start..].split(|&b| b == b'=').next().unwrap_or_default();
    let name = name.trim_ascii();
    // The `__Host-` prefix is matched by browsers whatever its case.
    name.eq_ignore_ascii_case(SESSION_COOKIE.as_bytes())
        || name.eq_ignore_ascii_case(HOST_SESSION_COOKIE.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(lines: &[&str], join: bool) -> Vec<String> {
        let mut sent = HeaderMap::new();
        for line in lines {
            sent.append(COOKIE, line.parse().unwrap());
        }
        let mut headers = HeaderMap::new();
        put_others(&mut headers, &sent, join);
        headers.get_all(COOKIE).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn threat_056_our_cookie_goes_and_the_others_stay_as_they_were() {
        assert_eq!(cookies(&["openclaw_session=s"], false), Vec::<String>::new());
        assert_eq!(cookies(&["openclaw_session=s; a=1"], false), ["a=1"]);
        assert_eq!(
            cookies(&["a=\"1\" ;openclaw_session=s;  b=x=y; __Host-openclaw_session=t"], false),
            ["a=\"1\" ;  b=x=y"]
        );
        assert_eq!(cookies(&["a=1", "openclaw_session=s", "b=2"], false), ["a=1", "b=2"]);
        assert_eq!(cookies(&["my_openclaw_session=s;x"], false), ["my_openclaw_session=s;x"]);
        assert_eq!(cookies(&["a=openclaw_session=1"], false), ["a=openclaw_session=1"]);
        assert_eq!(cookies(&["a=1;;b=2"], false), ["a=1;;b=2"]);
    }

    #[test]
    fn crumbs_are_joined_for_http1() {
        assert_eq!(cookies(&["a=1", "b=2; c=3"], true), ["a=1; b=2; c=3"]);
        assert_eq!(cookies(&["a=1", "openclaw_session=s", "b=2"], true), ["a=1; b=2"]);
        assert_eq!(cookies(&["a=1", "b=2"], false), ["a=1", "b=2"]);
    }

    #[test]
    fn an_upstream_cannot_set_or_clear_our_cookie() {
        let mut headers = HeaderMap::new();
        for line in [
            "openclaw_session=evil; Path=/",
            " __host-openclaw_session=evil; Secure",
            "=openclaw_session=evil",
            "openclaw_session",
            "theirs=1; HttpOnly",
            "note=openclaw_session",
        ] {
            headers.append(SET_COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers.insert("clear-site-data", "\"cookies\"".parse().unwrap());
        protect_ours(&mut headers);
        let left: Vec<_> = headers.values().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(left, ["theirs=1; HttpOnly", "note=openclaw_session"]);
    }
}
