//! The pair is made once, kept, and never replaced behind anybody's back.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn pair(&self) -> SelfSigned {
        let dir = self.0.path().join("tls");
        let files = TlsFiles { cert: dir.join("self-cert.pem"), key: dir.join("self-key.pem") };
        SelfSigned::new(files, self.0.path())
    }

    fn made(&self) -> (SelfSigned, CertFacts) {
        let pair = self.pair();
        let (tls, ensured) = pair.ensure(&names()).unwrap();
        assert_eq!(ensured, Ensured::Made);
        (pair, tls.facts().unwrap())
    }

    /// Everything on disk.
    fn bytes(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all = Vec::new();
        let mut dirs = vec![self.0.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    all.push((path.clone(), std::fs::read(path).unwrap()));
                }
            }
        }
        all.sort();
        all
    }
}

fn names() -> Vec<String> {
    ["gw.example.ts.net", "gw", "localhost", "127.0.0.1", "::1", "gw", "no name"].map(str::to_owned).to_vec()
}

#[test]
fn threat_093_the_pair_is_ours_alone_and_kept() {
    let place = Place::new();
    let (pair, facts) = place.made();
    for path in [&pair.files.key, &pair.files.cert, &pair.note] {
        assert_eq!(
            std::fs::metadata(path).unwrap().permissions().mode() & 0o7777,
            0o600,
            "{}",
            path.display()
        );
    }
    let dir = pair.files.key.parent().unwrap();
    assert_eq!(std::fs::metadata(dir).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 2, "nothing is left over");
    assert_eq!(facts.names(), ["gw.example.ts.net", "gw", "localhost", "127.0.0.1", "::1"]);
    let left = facts.left(SystemTime::now()).unwrap();
    assert!(left > LIFE - Duration::from_secs(60) && !is_due(&facts, SystemTime::now()));
    assert!(is_due(&facts, facts.not_after - Duration::from_secs(29 * 86_400)));

    let before = place.bytes();
    let (tls, ensured) = pair.ensure(&["other.example".to_owned()]).unwrap();
    assert_eq!((ensured, tls.facts().unwrap()), (Ensured::Kept, facts));
    assert_eq!(place.bytes(), before);
}

#[test]
fn a_pair_that_is_lost_or_broken_is_an_error_and_never_a_new_key() {
    type Damage = fn(&SelfSigned);
    let cases: &[(&str, Damage, &str)] = &[
        ("both lost", |pair| std::fs::remove_dir_all(pair.files.key.parent().unwrap()).unwrap(), "--new-key"),
        ("key lost", |pair| std::fs::remove_file(&pair.files.key).unwrap(), "--new-key"),
        ("certificate lost", |pair| std::fs::remove_file(&pair.files.cert).unwrap(), "openclaw tls renew"),
        ("key broken", |pair| std::fs::write(&pair.files.key, "x").unwrap(), "--new-key"),
        ("certificate broken", |pair| std::fs::write(&pair.files.cert, "").unwrap(), "--new-key"),
        (
            "another pair",
            |pair| {
                let key = KeyPair::generate().unwrap();
                std::fs::write(&pair.files.key, key.serialize_pem()).unwrap();
                std::fs::write(&pair.files.cert, issue(&key, &names()).unwrap().pem()).unwrap();
            },
            "source \"files\"",
        ),
    ];
    for (what, damage, fix) in cases {
        let place = Place::new();
        let (pair, _) = place.made();
        damage(&pair);
        let before = place.bytes();
        let error = pair.ensure(&names()).err().unwrap_or_else(|| panic!("{what}: taken"));
        assert!(error.to_string().contains(fix), "{what}: {error}");
        assert_eq!(place.bytes(), before, "{what}");
    }
}

#[test]
fn threat_094_files_that_we_did_not_make_are_left_alone() {
    for name in ["self-key.pem", "self-cert.pem"] {
        let place = Place::new();
        let pair = place.pair();
        std::fs::create_dir(place.0.path().join("tls")).unwrap();
        std::fs::write(place.0.path().join("tls").join(name), "precious").unwrap();
        let before = place.bytes();
        for error in [pair.ensure(&names()).err(), pair.renew(&names()).err(), pair.renew_key(&names()).err()]
        {
            assert!(error.is_some(), "{name}");
        }
        assert_eq!(place.bytes(), before, "{name}");
    }
    // Nor a link followed.
    let place = Place::new();
    let pair = place.pair();
    std::fs::create_dir(place.0.path().join("tls")).unwrap();
    std::os::unix::fs::symlink(place.0.path().join("elsewhere"), &pair.files.key).unwrap();
    assert!(matches!(pair.ensure(&names()), Err(SelfSignedError::NotOurs { .. })));
    assert!(!place.0.path().join("elsewhere").exists());
}

#[test]
fn renewing_keeps_the_key_and_a_new_key_is_only_made_on_request() {
    let place = Place::new();
    let (pair, first) = place.made();
    let second = pair.renew(&["new.example".to_owned()]).unwrap();
    assert_eq!(second.key_pin, first.key_pin);
    assert_ne!(second.fingerprint, first.fingerprint);
    assert_eq!(pair.ensure(&names()).unwrap().0.facts().unwrap(), second);
    std::fs::remove_file(&pair.files.cert).unwrap();
    assert_eq!(pair.renew(&names()).unwrap().key_pin, first.key_pin);

    let third = pair.renew_key(&names()).unwrap();
    assert_ne!(third.key_pin, first.key_pin);
    assert_eq!(pair.ensure(&names()).unwrap().1, Ensured::Kept);
    std::fs::remove_dir_all(pair.files.key.parent().unwrap()).unwrap();
    assert!(pair.renew(&names()).is_err(), "there is no key to renew for");
    let fourth = pair.renew_key(&names()).unwrap();
    assert_eq!(pair.ensure(&names()).unwrap().0.facts().unwrap(), fourth);
}

#[test]
fn making_that_was_cut_off_is_finished_or_begun_anew() {
    let place = Place::new();
    let (pair, facts) = place.made();
    // As after the key was put in place.
    std::fs::rename(&pair.files.cert, pair.pending()).unwrap();
    std::fs::remove_file(&pair.note).unwrap();
    let (tls, ensured) = pair.ensure(&names()).unwrap();
    assert_eq!((ensured, tls.facts().unwrap()), (Ensured::Made, facts));
    // As before it: only the certificate waits.
    std::fs::rename(&pair.files.cert, pair.pending()).unwrap();
    std::fs::remove_file(&pair.note).unwrap();
    std::fs::remove_file(&pair.files.key).unwrap();
    assert_eq!(pair.ensure(&names()).unwrap().1, Ensured::Made);
    assert!(!pair.pending().exists());
}
