//! `gateway.tls.source: "self"`: a pair that we make once and then keep.
//!
//! Nobody vouches for it, so clients pin it: its fingerprint, or its public key.
//! A new key made silently would break them, or teach people to click a warning
//! away. So the key is made once, its digest is noted in another directory, and
//! from then on a pair that is lost, broken or another one is an error that says
//! what to do. A certificate that nears its end is made anew for the same key.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::DnsName;
use zeroize::Zeroizing;

use super::private_file;
use crate::ingress::{CertFacts, Tls, TlsError, TlsFiles};

/// Below the 825 days that Apple's clients take, whoever installed it.
const LIFE: Duration = Duration::from_secs(800 * 86_400);
/// Clocks differ.
const BACKDATED: Duration = Duration::from_secs(86_400);
/// How long before its end a certificate is made anew.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// Why there is no self-signed pair to use.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// Both files are gone, and they were there.
    #[error(
        "{} and its key are lost, whose public key clients may have pinned ({pin}): put them back from a \
         backup, or make new ones and pin those: openclaw tls renew --new-key", cert.display()
    )]
    Lost {
        /// The certificate.
        cert: PathBuf,
        /// What was noted of its key.
        pin: String,
    },
    /// The key is gone.
    #[error(
        "{} is missing: put it back from a backup, or make a new pair and pin that: openclaw tls renew --new-key",
        key.display()
    )]
    KeyLost {
        /// The key.
        key: PathBuf,
    },
    /// The certificate is gone.
    #[error(
        "{} is missing: put it back from a backup, or make a new one for the same key: openclaw tls renew",
        cert.display()
    )]
    CertLost {
        /// The certificate.
        cert: PathBuf,
    },
    /// One of the two cannot be used.
    #[error(
        "put the self-signed pair back from a backup, or make a new one and pin that: openclaw tls renew --new-key"
    )]
    Broken(#[source] TlsError),
    /// The key is not the one that was made here.
    #[error(
        "{} is not the key that was made here ({pin} was noted): put that one back, or set gateway.tls.source \
         \"files\" for a pair of your own", key.display()
    )]
    Replaced {
        /// The key.
        key: PathBuf,
        /// What was noted.
        pin: String,
    },
    /// There are files that we did not make.
    #[error(
        "{} was not made by openclaw: move it away, or set gateway.tls.source \"files\" for a pair of your own",
        path.display()
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written or read.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate could not be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

/// The self-signed pair of a state directory.
#[derive(Clone, Debug)]
pub struct SelfSigned {
    files: TlsFiles,
    /// The digest of the key that was made here, beside the database: whoever
    /// loses the one directory still has the other.
    note: PathBuf,
}

/// What [`SelfSigned::ensure`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// The pair of before is in use.
    Kept,
    /// There was none; one was made.
    Made,
}

impl SelfSigned {
    /// That of this state directory, in these files.
    pub fn new(files: TlsFiles, state_dir: &Path) -> Self {
        Self { files, note: state_dir.join("state/self-signed.pin") }
    }

    /// The files.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Whether a pair was made before.
    pub fn is_made(&self) -> bool {
        self.note.exists() || self.files.key.exists() || self.files.cert.exists()
    }

    /// The pair, made for these names where there never was one.
    ///
    /// # Errors
    ///
    /// [`SelfSignedError`], which says what to do; nothing on disk is changed then.
    pub fn ensure(&self, names: &[String]) -> Result<(Tls, Ensured), SelfSignedError> {
        let noted = self.noted()?;
        match (noted, exists(&self.files.key), exists(&self.files.cert)) {
            (None, false, false) => {
                self.make(names)?;
                Ok((self.load()?, Ensured::Made))
            }
            (None, true, false) if self.finish_making()? => Ok((self.load()?, Ensured::Made)),
            (None, key, _) => {
                let path = if key { self.files.key.clone() } else { self.files.cert.clone() };
                Err(SelfSignedError::NotOurs { path })
            }
            (Some(pin), false, false) => Err(SelfSignedError::Lost { cert: self.files.cert.clone(), pin }),
            (Some(_), false, true) => Err(SelfSignedError::KeyLost { key: self.files.key.clone() }),
            (Some(_), true, false) => Err(SelfSignedError::CertLost { cert: self.files.cert.clone() }),
            (Some(_), true, true) => Ok((self.load()?, Ensured::Kept)),
        }
    }

    /// Makes a new certificate for the same key, for these names. What pins the
    /// key goes on working; what pins the certificate does not.
    ///
    /// # Errors
    ///
    /// [`SelfSignedError`]; the files are as they were then.
    pub fn renew(&self, names: &[String]) -> Result<CertFacts, SelfSignedError> {
        let pin = match self.noted()? {
            Some(pin) => pin,
            None if exists(&self.files.key) => {
                return Err(SelfSignedError::NotOurs { path: self.files.key.clone() });
            }
            None => return Err(SelfSignedError::KeyLost { key: self.files.key.clone() }),
        };
        if !exists(&self.files.key) {
            return Err(SelfSignedError::KeyLost { key: self.files.key.clone() });
        }
        let pem =
            std::fs::read_to_string(&self.files.key).map(Zeroizing::new).map_err(io(&self.files.key))?;
        let key = KeyPair::from_pem(&pem)?;
        let cert = issue(&key, names)?;
        let facts = facts_of(&cert)?;
        if facts.key_pin_text() != pin {
            return Err(SelfSignedError::Replaced { key: self.files.key.clone(), pin });
        }
        private_file::replace(&self.files.cert, cert.pem().as_bytes()).map_err(io(&self.files.cert))?;
        Ok(facts)
    }

    /// Makes a new pair in place of the one that was made here, or was lost.
    /// Everything that pinned the old one has to pin the new one.
    ///
    /// # Errors
    ///
    /// [`SelfSignedError`]; files that we did not make are never replaced.
    pub fn renew_key(&self, names: &[String]) -> Result<CertFacts, SelfSignedError> {
        if self.noted()?.is_none() {
            if let Some(path) = [&self.files.key, &self.files.cert].into_iter().find(|path| exists(path)) {
                return Err(SelfSignedError::NotOurs { path: path.clone() });
            }
            self.make(names)?;
            return facts_of_files(&self.files);
        }
        let key = KeyPair::generate()?;
        let cert = issue(&key, names)?;
        let facts = facts_of(&cert)?;
        // The running gateway sees a pair that does not fit in between, keeps the
        // old one, and takes this one when it is whole.
        let pem = Zeroizing::new(key.serialize_pem());
        private_file::replace(&self.files.key, pem.as_bytes()).map_err(io(&self.files.key))?;
        private_file::replace(&self.note, note(&facts).as_bytes()).map_err(io(&self.note))?;
        private_file::replace(&self.files.cert, cert.pem().as_bytes()).map_err(io(&self.files.cert))?;
        Ok(facts)
    }

    fn noted(&self) -> Result<Option<String>, SelfSignedError> {
        match std::fs::read_to_string(&self.note) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SelfSignedError::Io { path: self.note.clone(), source }),
        }
    }

    fn load(&self) -> Result<Tls, SelfSignedError> {
        let tls = Tls::load(self.files.clone()).map_err(SelfSignedError::Broken)?;
        let pin = self.noted()?.unwrap_or_default();
        if tls.facts().is_none_or(|facts| facts.key_pin_text() != pin) {
            return Err(SelfSignedError::Replaced { key: self.files.key.clone(), pin });
        }
        Ok(tls)
    }

    /// Makes the first pair. Whatever moment it is cut off at, the next start
    /// either makes one anew or finishes this one.
    fn make(&self, names: &[String]) -> Result<(), SelfSignedError> {
        let key = KeyPair::generate()?;
        let cert = issue(&key, names)?;
        let pending = self.pending();
        private_file::replace(&pending, cert.pem().as_bytes()).map_err(io(&pending))?;
        let pem = Zeroizing::new(key.serialize_pem());
        private_file::create(&self.files.key, pem.as_bytes()).map_err(io(&self.files.key))?;
        self.finish_making()?;
        Ok(())
    }

    /// Puts the certificate that waits into its place, where it is the key's.
    fn finish_making(&self) -> Result<bool, SelfSignedError> {
        let pending = self.pending();
        if !exists(&pending) {
            return Ok(false);
        }
        let files = TlsFiles { cert: pending.clone(), key: self.files.key.clone() };
        let Ok(facts) = facts_of_files(&files) else { return Ok(false) };
        private_file::replace(&self.note, note(&facts).as_bytes()).map_err(io(&self.note))?;
        std::fs::rename(&pending, &self.files.cert).map_err(io(&self.files.cert))?;
        private_file::sync_dir(&self.files.cert);
        Ok(true)
    }

    fn pending(&self) -> PathBuf {
        self.files.cert.with_extension("pem.new")
    }
}

/// Whether a self-signed certificate is near enough to its end to be made anew.
pub fn is_due(facts: &CertFacts, now: SystemTime) -> bool {
    facts.left(now).is_none_or(|left| left < RENEW_BEFORE)
}

fn note(facts: &CertFacts) -> String {
    format!("{}\n", facts.key_pin_text())
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn io(path: &Path) -> impl FnOnce(io::Error) -> SelfSignedError + '_ {
    move |source| SelfSignedError::Io { path: path.to_owned(), source }
}

fn facts_of(cert: &rcgen::Certificate) -> Result<CertFacts, SelfSignedError> {
    CertFacts::of(cert.der()).ok_or(SelfSignedError::Make(rcgen::Error::CouldNotParseCertificate))
}

fn facts_of_files(files: &TlsFiles) -> Result<CertFacts, SelfSignedError> {
    let tls = Tls::load(files.clone()).map_err(SelfSignedError::Broken)?;
    tls.facts().ok_or(SelfSignedError::Make(rcgen::Error::CouldNotParseCertificate))
}

fn issue(key: &KeyPair, names: &[String]) -> Result<rcgen::Certificate, rcgen::Error> {
    let mut params = CertificateParams::default();
    for name in names {
        let name = match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            // A host may be called what no certificate can say.
            Err(_) if DnsName::try_from(name.as_str()).is_err() => continue,
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        };
        if !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    let now = SystemTime::now();
    params.distinguished_name.push(DnType::CommonName, "openclaw gateway");
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + LIFE).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.self_signed(key)
}

#[cfg(test)]
mod tests;
