//! `tailscale cert`: the node's certificate and its private key.

use zeroize::Zeroizing;

use crate::text::printable;
use crate::{Error, NodeName};

const COMMAND: &str = "cert";

/// A certificate chain and its private key, as PEM. The key's memory is cleared when
/// this is dropped; nothing prints it.
///
/// Whether the two fit each other, and the name, is for whoever loads them to see.
pub struct CertPair {
    certificates: String,
    key: Zeroizing<String>,
}

impl CertPair {
    /// The certificate of the name, then those that it was issued by.
    #[must_use]
    pub fn certificates_pem(&self) -> &str {
        &self.certificates
    }

    /// The private key. A secret.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key
    }
}

/// Reads what the LocalAPI (key first) or the command line (certificate first)
/// printed: one private key and at least one certificate. Other blocks, and text
/// around them, are ignored.
///
/// # Errors
/// When that is not so. What was printed never gets into the error: it may be the
/// key.
pub(crate) fn parse(bytes: &Zeroizing<Vec<u8>>) -> Result<CertPair, Error> {
    let garbage = |detail: &str| Error::Garbage { command: COMMAND, detail: detail.to_owned() };
    let text = std::str::from_utf8(bytes).map_err(|_| garbage("invalid UTF-8"))?;
    if text.contains('\0') {
        return Err(garbage("a NUL byte"));
    }
    let (mut certificates, mut key) = (String::new(), None);
    let mut rest = text;
    while let Some(block) = next_block(&mut rest)? {
        if block.label == "CERTIFICATE" {
            certificates.push_str(block.text);
            certificates.push('\n');
        } else if block.label.ends_with("PRIVATE KEY") {
            // Reserved at once: growing would leave copies behind.
            let mut pem = Zeroizing::new(String::with_capacity(block.text.len() + 1));
            pem.push_str(block.text);
            pem.push('\n');
            if key.replace(pem).is_some() {
                return Err(Error::wrong_shape(COMMAND, "PRIVATE KEY", "there are two"));
            }
        }
    }
    let key = key.ok_or_else(|| Error::wrong_shape(COMMAND, "PRIVATE KEY", "there is none"))?;
    if certificates.is_empty() {
        return Err(Error::wrong_shape(COMMAND, "CERTIFICATE", "there is none"));
    }
    Ok(CertPair { certificates, key })
}

/// From `-----BEGIN` to the end of the matching last line, without its line break.
struct Block<'a> {
    label: &'a str,
    text: &'a str,
}

fn next_block<'a>(rest: &mut &'a str) -> Result<Option<Block<'a>>, Error> {
    const BEGIN: &str = "-----BEGIN ";
    let broken = || Error::wrong_shape(COMMAND, "PEM", "a block does not end");
    let Some(start) = rest.find(BEGIN) else { return Ok(None) };
    let from = rest.get(start..).unwrap_or_default();
    let (label, _) = from.get(BEGIN.len()..).unwrap_or_default().split_once("-----").ok_or_else(broken)?;
    let end = format!("-----END {label}-----");
    let length = from.find(&end).ok_or_else(broken)? + end.len();
    let (text, after) = from.split_at(length);
    // Another block's beginning inside of it: something is missing in between.
    if text.get(BEGIN.len()..).is_some_and(|inner| inner.contains(BEGIN)) {
        return Err(broken());
    }
    *rest = after;
    Ok(Some(Block { label, text }))
}

/// What a failure means that is not told apart by its status. The daemon answers 500
/// to all of these, in the words of whoever failed (1.102.3).
pub(crate) fn refine(error: Error, domain: &NodeName) -> Error {
    let said = match &error {
        Error::Status { detail, .. } => detail,
        Error::Failed { stderr, .. } => stderr,
        _ => return error,
    };
    let folded = said.to_ascii_lowercase();
    let status_is = |wanted: u16| matches!(&error, Error::Status { status, .. } if *status == wanted);
    if folded.contains("does not support getting tls certs") {
        Error::HttpsDisabled
    } else if folded.contains("invalid domain") {
        Error::NotCertDomain { domain: domain.to_string(), detail: said.clone() }
    } else if status_is(429) || folded.contains("429 ") || folded.contains("ratelimited") {
        Error::RateLimited { detail: printable(said.as_bytes(), 400) }
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\n";
    const LEAF: &str = "-----BEGIN CERTIFICATE-----\nMIIBleaf\n-----END CERTIFICATE-----\n";
    const ISSUER: &str = "-----BEGIN CERTIFICATE-----\nMIIBissuer\n-----END CERTIFICATE-----\n";

    fn read(text: &str) -> Result<CertPair, Error> {
        parse(&Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn half_a_pair_is_none_and_the_error_does_not_show_it() {
        let cut = &KEY[..KEY.len() - 10];
        for text in [
            "",
            "certificate",
            KEY,
            LEAF,
            &format!("{KEY}{KEY}{LEAF}"),
            &format!("{cut}{LEAF}"),
            &format!("{LEAF}{cut}"),
            &format!("{}{KEY}{LEAF}", &LEAF[..LEAF.len() - 10]),
            "-----BEGIN EC PRIVATE KEY\nMHcCAQEE",
        ] {
            let error = read(text).err().expect("it was taken for a pair");
            assert!(!format!("{error} {error:?}").contains("MHcC"), "{error}");
        }
        assert!(parse(&Zeroizing::new(b"\xff".to_vec())).is_err());
    }

    #[test]
    fn a_pair_is_read_in_either_order_and_the_chain_keeps_its_own() {
        for text in [
            format!("{KEY}{LEAF}{ISSUER}"),
            format!("{LEAF}{ISSUER}{KEY}"),
            format!("Warning: versions differ\n{LEAF}\n{ISSUER}{KEY}bye").replace('\n', "\r\n"),
        ] {
            let pair = read(&text).expect("it is a pair");
            assert_eq!(pair.key_pem().replace('\r', ""), KEY);
            assert_eq!(pair.certificates_pem().replace('\r', ""), format!("{LEAF}{ISSUER}"));
        }
    }

    #[test]
    fn every_refusal_has_its_own_name_and_says_what_to_do() {
        let domain: NodeName = "gw.tailnet-example.ts.net".parse().unwrap();
        let failed = |said: &str| Error::Failed { command: COMMAND, code: 1, stderr: said.to_owned() };
        let status = |status, said: &str| Error::Status { command: COMMAND, status, detail: said.to_owned() };
        for (said, code) in [
            ("your Tailscale account does not support getting TLS certs", "tailscale_https_disabled"),
            (r#"invalid domain "x"; must be one of ["y"]"#, "tailscale_not_cert_domain"),
            (
                "acme.GetCertificate: 429 urn:ietf:params:acme:error:rateLimited: too many certificates",
                "tailscale_rate_limited",
            ),
        ] {
            for error in [status(500, said), failed(&format!("500 Internal Server Error: {said}"))] {
                let error = refine(error, &domain);
                assert_eq!(error.code(), code, "{said}");
                assert!(error.fix().is_some(), "{said}");
            }
        }
        assert_eq!(refine(status(429, "slow down"), &domain).code(), "tailscale_rate_limited");
        assert_eq!(refine(status(500, "no space left"), &domain).code(), "tailscale_failed");
        assert_eq!(refine(Error::DaemonDown, &domain).code(), "tailscale_daemon_down");
        let denied = Error::Denied { command: COMMAND, detail: String::new() };
        assert!(refine(denied, &domain).fix().unwrap().contains("TS_PERMIT_CERT_UID"));
    }
}
