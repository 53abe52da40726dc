//! What a certificate says of itself: names, validity, and the two digests that
//! people pin. The few fields that we report, read from DER; nothing here decides
//! whom to believe.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::server::ParsedCertificate;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const OBJECT_ID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `id-ce-subjectAltName`, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFacts {
    /// The host names it is for, as written.
    pub dns_names: Vec<String>,
    /// The addresses it is for.
    pub addresses: Vec<IpAddr>,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// SHA-256 of the certificate: what browsers show as its fingerprint.
    pub fingerprint: [u8; 32],
    /// SHA-256 of its public key: the same for a later certificate of one key
    /// (RFC 7469; `curl --pinnedpubkey`).
    pub key_pin: [u8; 32],
}

impl CertFacts {
    /// Reads a certificate in DER form. `None` where it cannot be read.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (SEQUENCE, certificate, _) = element(der)? else { return None };
        let (SEQUENCE, mut rest, _) = element(certificate)? else { return None };
        if rest.first() == Some(&VERSION) {
            rest = element(rest)?.2;
        }
        // Serial number, signature algorithm, issuer.
        for _ in 0..3 {
            rest = element(rest)?.2;
        }
        let (SEQUENCE, validity, rest) = element(rest)? else { return None };
        let (kind, text, until) = element(validity)?;
        let not_before = time(kind, text)?;
        let (kind, text, _) = element(until)?;
        let not_after = time(kind, text)?;
        // Subject, then the public key with its header.
        let key = element(rest)?.2;
        let (SEQUENCE, _, rest) = element(key)? else { return None };
        let spki = &key[..key.len() - rest.len()];
        let (dns_names, addresses) = alternative_names(rest).unwrap_or_default();
        Some(Self {
            dns_names,
            addresses,
            not_before,
            not_after,
            fingerprint: Sha256::digest(der).into(),
            key_pin: Sha256::digest(spki).into(),
        })
    }

    /// The fingerprint as it is shown: `AB:CD:…`.
    pub fn fingerprint_text(&self) -> String {
        let pairs: Vec<String> = self.fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
        pairs.join(":")
    }

    /// The public key's digest as `curl --pinnedpubkey` takes it: `sha256//…`.
    pub fn key_pin_text(&self) -> String {
        use base64::Engine as _;
        format!("sha256//{}", base64::engine::general_purpose::STANDARD.encode(self.key_pin))
    }

    /// Every name, as text.
    pub fn names(&self) -> Vec<String> {
        self.dns_names.iter().cloned().chain(self.addresses.iter().map(IpAddr::to_string)).collect()
    }

    /// When two thirds of its life are over: time for the next one.
    pub fn renew_at(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_before + life * 2 / 3
    }

    /// How long it is still valid at `now`; `None` once it is not.
    pub fn left(&self, now: SystemTime) -> Option<Duration> {
        self.not_after.duration_since(now).ok().filter(|left| !left.is_zero())
    }

    /// The end as a date and time, UTC, to the second.
    pub fn not_after_text(&self) -> String {
        jiff::Timestamp::try_from(self.not_after)
            .map_or_else(|_| "?".into(), |end| end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }
}

/// Whether a client that asks for `name`, a host name or an address, would accept
/// this certificate as that name's: by the rules rustls itself goes by.
pub(super) fn covers(der: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(certificate) = ParsedCertificate::try_from(der) else { return false };
    ServerName::try_from(name).is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
}

/// The alternative names among the extensions at the end of a certificate.
fn alternative_names(mut rest: &[u8]) -> Option<(Vec<String>, Vec<IpAddr>)> {
    let extensions = loop {
        // Unique identifiers may come before them.
        let (tag, content, after) = element(rest)?;
        if tag == EXTENSIONS {
            break element(content)?.1;
        }
        rest = after;
    };
    let mut rest = extensions;
    while let Some((SEQUENCE, extension, after)) = element(rest) {
        rest = after;
        let (OBJECT_ID, id, mut value) = element(extension)? else { return None };
        if id != SUBJECT_ALT_NAME {
            continue;
        }
        // A flag, whether it is critical, may come between.
        let names = loop {
            let (tag, content, after) = element(value)?;
            if tag == OCTET_STRING {
                break element(content)?.1;
            }
            value = after;
        };
        return Some(general_names(names));
    }
    None
}

fn general_names(mut rest: &[u8]) -> (Vec<String>, Vec<IpAddr>) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    while let Some((tag, content, after)) = element(rest) {
        rest = after;
        match tag {
            DNS_NAME => {
                // Shown to people: nothing but what a name is made of.
                let text = String::from_utf8_lossy(content);
                names.push(text.chars().filter(char::is_ascii_graphic).collect());
            }
            IP_ADDRESS => {
                let v4 = <[u8; 4]>::try_from(content).map(IpAddr::from).ok();
                addresses.extend(v4.or_else(|| <[u8; 16]>::try_from(content).map(IpAddr::from).ok()));
            }
            _ => {}
        }
    }
    (names, addresses)
}

/// The tag and content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut len = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        len = digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(len)?;
    Some((tag, content, after))
}

/// `YYMMDDhhmmssZ`, or with four digits of the year.
fn time(kind: u8, text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match kind {
        UTC_TIME if text.len() == 12 => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: u64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME if text.len() == 14 => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
    let (month, day) = (two(0)?, two(2)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970-01-01, counting years from March so that leap days come last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = two(4)? * 3600 + two(6)? * 60 + two(8)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(days * 86_400 + seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn times_are_read() {
        let seconds = |kind, text: &str| {
            Some(time(kind, text.as_bytes())?.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
        };
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "240229120000Z"), Some(1_709_208_000));
        assert_eq!(seconds(GENERALIZED_TIME, "20500101000001Z"), Some(2_524_608_001));
        assert_eq!(seconds(UTC_TIME, "2402291200Z"), None);
        assert_eq!(seconds(UTC_TIME, "241329120000Z"), None);
        assert_eq!(seconds(GENERALIZED_TIME, "99991231235959Z"), Some(253_402_300_799));
    }

    #[test]
    fn a_time_that_is_no_digits_is_none() {
        for text in ["€€€€Z", "2€029120000Z", "é40229120000Z", "+40229120000Z", "24022912000+Z"] {
            assert_eq!(time(UTC_TIME, text.as_bytes()), None, "{text}");
        }
        for text in ["205€101000001Z", "+0500101000001Z", "€€€€01Z"] {
            assert_eq!(time(GENERALIZED_TIME, text.as_bytes()), None, "{text}");
        }
    }

    fn certificate() -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["gw.example".into(), "*.gw.example".into()]).unwrap();
        params.subject_alt_names.push(SanType::IpAddress("100.64.0.1".parse().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress("fd7a:115c:a1e0::1".parse().unwrap()));
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 1);
        (params.self_signed(&key).unwrap().der().clone(), key)
    }

    #[test]
    fn a_certificate_says_its_names_its_time_and_its_key() {
        let (der, key) = certificate();
        let facts = CertFacts::of(&der).unwrap();
        assert_eq!(facts.names(), ["gw.example", "*.gw.example", "100.64.0.1", "fd7a:115c:a1e0::1"]);
        assert_eq!(facts.not_after_text(), "2026-04-01T00:00:00Z");
        let life = facts.not_after.duration_since(facts.not_before).unwrap();
        assert_eq!(life, Duration::from_secs(90 * 86_400));
        assert_eq!(facts.renew_at(), facts.not_before + Duration::from_secs(60 * 86_400));
        assert_eq!(facts.left(facts.not_after), None);
        assert_eq!(facts.left(facts.not_before), Some(life));
        use rcgen::PublicKeyData;
        assert_eq!(facts.key_pin, <[u8; 32]>::from(Sha256::digest(key.subject_public_key_info())));
        assert_eq!(facts.fingerprint_text().len(), 95);
        assert!(facts.key_pin_text().starts_with("sha256//"));
    }

    #[test]
    fn threat_099_a_certificate_for_another_name_is_told_from_ours() {
        let (der, _) = certificate();
        for name in
            ["other.example", "gw.example.evil.example", "a.b.gw.example", "100.64.0.2", "", "gw example"]
        {
            assert!(!covers(&der, name), "{name:?}");
        }
        for name in ["gw.example", "a.gw.example", "100.64.0.1", "fd7a:115c:a1e0::1"] {
            assert!(covers(&der, name), "{name:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_says_nothing() {
        for der in [&b""[..], b"0", b"0\x82", b"0\x03\x02\x01\x01", b"\x30\x84\xff\xff\xff\xff"] {
            assert_eq!(CertFacts::of(der), None);
        }
        let (der, _) = certificate();
        for end in 0..der.len() {
            assert_eq!(CertFacts::of(&der[..end]), None, "cut off at {end}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_certificate_is_no_panic(at in 0_usize..400, byte: u8) {
            let (der, _) = certificate();
            let mut der = der.to_vec();
            let at = at % der.len();
            der[at] = byte;
            let _ = CertFacts::of(&der);
            let _ = covers(&der.into(), "gw.example");
        }
    }
}
