//! Pairs that are taken and pairs that are not.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A certificate for this name that ends in so many days, and its key.
fn issue(name: &str, days: u64) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_after = (SystemTime::now() + Duration::from_secs(days * 86_400)).into();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn write(dir: &Path, cert: &str, key: &str) -> TlsFiles {
    let files = TlsFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
    fs::write(&files.cert, cert).unwrap();
    fs::write(&files.key, key).unwrap();
    files
}

#[test]
fn threat_099_a_bad_pair_on_disk_leaves_the_old_one_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = issue("a.example", 30);
    let (other_cert, other_key) = issue("b.example", 60);
    let tls = Tls::load(write(dir.path(), &cert, &key)).unwrap();
    let in_use = || tls.current.0.load_full();
    let before = in_use();

    write(dir.path(), &other_cert, &key);
    assert!(matches!(tls.reload(), Err(TlsError::Mismatch { .. })));
    write(dir.path(), &cert[..cert.len() / 2], &key);
    assert!(matches!(tls.reload(), Err(TlsError::Certificate { .. })));
    write(dir.path(), &cert, &key[..key.len() / 2]);
    assert!(matches!(tls.reload(), Err(TlsError::Key { .. })));
    write(dir.path(), "", "");
    assert!(tls.reload().is_err());
    fs::remove_file(&tls.files.key).unwrap();
    let error = tls.reload().unwrap_err();
    assert!(error.to_string().contains("key.pem"), "{error}");
    assert!(Arc::ptr_eq(&before, &in_use()));

    write(dir.path(), &other_cert, &other_key);
    tls.reload().unwrap();
    assert!(!Arc::ptr_eq(&before, &in_use()));
}

#[test]
fn threat_099_the_end_of_a_certificate_is_known() {
    let (cert, key) = issue("a.example", 13);
    let files = TlsFiles { cert: "cert".into(), key: "key".into() };
    let tls = Tls::from_pem(files, cert.as_bytes(), key.as_bytes()).unwrap();
    let left = tls.facts().unwrap().not_after.duration_since(SystemTime::now()).unwrap();
    assert!(left > Duration::from_secs(12 * 86_400) && left <= Duration::from_secs(13 * 86_400));
}

#[test]
fn a_key_that_others_can_read_is_noticed() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let files = write(dir.path(), "", "");
    for (mode, exposed) in [(0o600, None), (0o400, None), (0o640, Some(0o640)), (0o644, Some(0o644))] {
        fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(files.exposed_key_mode(), exposed);
    }
}
