//! Outputs that no parser may accept, and noise that every parser survives.

use proptest::prelude::*;

use super::*;
use crate::test_support::recording;
use crate::{parse_prefs, parse_serve_config, parse_status, parse_version, parse_whois};

/// What every parser makes of `bytes`: the code of its error, or `ok`.
fn verdicts(bytes: &[u8]) -> [(&'static str, &'static str); 5] {
    fn code<T>(result: Result<T, Error>) -> &'static str {
        result.map_or_else(|error| error.code(), |_| "ok")
    }
    [
        ("whois", code(parse_whois(bytes))),
        ("status", code(parse_status(bytes))),
        ("serve", code(parse_serve_config(bytes))),
        ("version", code(parse_version(bytes))),
        ("prefs", code(parse_prefs(bytes))),
    ]
}

#[track_caller]
fn all_say(bytes: &[u8], code: &str) {
    for (parser, said) in verdicts(bytes) {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert_eq!(said, code, "{parser} on {start:?}");
    }
}

#[test]
fn what_is_no_object_is_refused_by_all() {
    for text in ["[]", "[{}]", "true", "5", "\"{}\"", "[ {} , {} ]"] {
        all_say(text.as_bytes(), "tailscale_output_wrong_shape");
    }
    for text in ["", " \n", "{", "}", "}{", "{\"a\": ", "garbage", "The Tailscale GUI failed to start: x"] {
        all_say(text.as_bytes(), "tailscale_output_not_json");
    }
}

#[test]
fn null_is_only_an_empty_serve_configuration() {
    for (parser, said) in verdicts(b" null\n") {
        let expected = if parser == "serve" { "ok" } else { "tailscale_output_wrong_shape" };
        assert_eq!(said, expected, "{parser}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_by_all() {
    for bytes in [&b"{\"a\": \"\xff\"}"[..], b"\xff", b"{}\0", b"\0{}", b"{\"a\"\0: 1}", b"\xfe\xff{}"] {
        all_say(bytes, "tailscale_output_garbage");
    }
}

#[test]
fn two_objects_or_a_part_of_something_are_refused_by_all() {
    for text in ["{}{}", "{}\n{}", "x {} y {}", "{} }", "} {}", "[{}", "[1, {}", "{}, 2]", "{}]", "{} {"] {
        all_say(text.as_bytes(), "tailscale_output_not_json");
    }
}

#[test]
fn an_object_of_another_syntax_is_refused_by_all() {
    for text in ["{a: 1}", "{'a': 1}", "{\"a\": 1,}", "{\"a\": NaN}", "{\"a\": 01}", "{// x\n}"] {
        all_say(text.as_bytes(), "tailscale_output_not_json");
    }
}

#[test]
fn deep_nesting_is_refused_by_all_without_overflow() {
    for depth in [200, 100_000] {
        let text = format!("{{\"CapMap\": {{\"x\": {}1{}}}}}", "[".repeat(depth), "]".repeat(depth));
        // Parsers that ignore the field have nothing to build and may skip it.
        assert!(parse_whois(text.as_bytes()).is_err());
        let text = format!("{}1{}", "{\"Foreground\":{\"x\":".repeat(depth), "}}".repeat(depth));
        assert!(parse_serve_config(text.as_bytes()).is_err());
        let _ = verdicts("{".repeat(depth).as_bytes());
        let _ = verdicts("[".repeat(depth).as_bytes());
        let _ = verdicts("{\"a\":".repeat(depth).as_bytes());
    }
}

#[test]
fn fifty_megabytes_are_refused_by_all() {
    all_say(&vec![b' '; 50 << 20], "tailscale_output_too_large");
}

#[test]
fn a_repeated_field_is_refused() {
    let twice = br#"{"RunSSH": true, "RunSSH": false}"#;
    assert!(parse_prefs(twice).is_err());
}

#[test]
fn braces_inside_strings_are_text() {
    let text = br#"notice: ok
{"OperatorUser": "a}b{\"c\\", "ControlURL": "\u007b"} done"#;
    let prefs = parse_prefs(text).unwrap();
    assert_eq!(prefs.operator_user.as_deref(), Some("a}b{\"c\\"));
    assert_eq!(prefs.control_url.as_deref(), Some("{"));
}

#[test]
fn a_notice_around_the_object_is_ignored() {
    let text = recording("whois-user.json");
    let plain = parse_whois(text.as_bytes()).unwrap();
    let noisy = format!("[2026-11-23] Warning: \"x\n{text}\nbye \"\n");
    assert_eq!(parse_whois(noisy.as_bytes()).unwrap(), plain);
}

#[test]
fn no_beginning_of_an_answer_is_an_answer() {
    for file in ["whois-user.json", "whois-grant.json", "status-running.json"] {
        let text = recording(file);
        let text = text.trim_end();
        for (end, _) in text.char_indices() {
            let (start, _) = text.split_at(end);
            assert!(parse_whois(start.as_bytes()).is_err(), "{file} up to {end}");
            assert!(parse_status(start.as_bytes()).is_err(), "{file} up to {end}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = verdicts(&bytes);
    }

    #[test]
    fn no_json_like_text_makes_a_parser_panic(text in r#"[\[\]{}:,"\\ a0-9nulltrue]{0,80}"#) {
        let _ = verdicts(text.as_bytes());
    }

    #[test]
    fn noise_changes_no_answer(before in r#"[^\u{0}]{0,20}"#, after in r#"[^\u{0}]{0,20}"#) {
        let text = recording("whois-grant.json");
        let plain = parse_whois(text.as_bytes()).unwrap();
        if let Ok(noisy) = parse_whois(format!("{before}{text}{after}").as_bytes()) {
            prop_assert_eq!(noisy, plain);
        }
    }

    #[test]
    fn one_flipped_byte_never_panics(at in 0usize..2000, byte in any::<u8>()) {
        let mut bytes = recording("whois-grant.json").into_bytes();
        bytes[at] = byte;
        let _ = verdicts(&bytes);
    }
}
