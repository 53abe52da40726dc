//! Asks Tailscale for the node's certificate, keeps it, and has it renewed.
//!
//! Nobody else does: tailscaled renews only what its own Serve shows. It runs beside
//! everything else, on the control thread; a fault of Tailscale's is reported and
//! waited out, and what was there before stays in use.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use openclaw_tailscale::{CertPair, Error, NodeName};
use tokio::sync::watch;

use super::expiry::judge_expiry;
use super::node::{self, Next, NodeCertificate};
use crate::domain::TailnetState;
use crate::ingress::{Tls, TlsError};
use crate::readiness::{Fault, Readiness};
use crate::telemetry;

/// The first wait after a failure; each further one is four times as long.
const FIRST: Duration = Duration::from_secs(5);
/// The longest. The certificate authority locks out who tries more often.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);
const MISSING: &str = "certificate_missing";
const NOT_RENEWED: &str = "certificate_not_renewed";
const LOOK_AT_LOG: &str = "the gateway asks again by itself; Tailscale's log says more";

/// Asks Tailscale for the certificate of a name, valid for at least so long.
pub type AskCert = Box<dyn Fn(NodeName, Option<Duration>) -> Asked + Send + Sync>;
type Asked = Pin<Box<dyn Future<Output = Result<CertPair, Error>> + Send>>;

/// Keeps the node's certificate.
pub struct NodeKeeper {
    ask: AskCert,
    state: Arc<ArcSwap<TailnetState>>,
    readiness: Arc<Readiness>,
    path: PathBuf,
    have: Option<NodeCertificate>,
    failures: u32,
    retry: Option<(NodeName, SystemTime)>,
    /// The name that was said to become public.
    announced: Option<NodeName>,
    current: watch::Sender<Option<NodeCertificate>>,
}

/// Why a certificate that was given is not used.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Pair(#[from] TlsError),
    #[error("the certificate that Tailscale gave is not for {0}")]
    WrongName(NodeName),
    #[error("the certificate that Tailscale gave is not valid now")]
    NotValid,
    #[error("Tailscale gave the same certificate again")]
    Same,
}

impl NodeKeeper {
    /// Keeps it in this file ([`super::node_file`]), beginning with what is there. The
    /// receiver wakes on the first certificate and on one for another name; a renewed
    /// one is swapped inside [`NodeCertificate::tls`].
    pub fn new(
        ask: AskCert,
        state: Arc<ArcSwap<TailnetState>>,
        readiness: Arc<Readiness>,
        path: PathBuf,
    ) -> (Self, watch::Receiver<Option<NodeCertificate>>) {
        let have = match node::kept(&path) {
            Ok(tls) => tls.and_then(|tls| {
                // Whose it is, it says itself.
                let name = tls.facts()?.dns_names.first()?.parse().ok()?;
                Some(NodeCertificate { name, tls })
            }),
            Err(error) => {
                // It can be had again.
                tracing::warn!(error = telemetry::chain(&error), "the kept certificate cannot be used");
                None
            }
        };
        if have.is_none() {
            let detail = "there is no certificate for HTTPS on the tailnet yet".to_owned();
            readiness.fail(MISSING, Fault { detail, fix: Some(LOOK_AT_LOG.into()) });
        }
        let (current, receiver) = watch::channel(have.clone());
        let keeper =
            Self { ask, state, readiness, path, have, failures: 0, retry: None, announced: None, current };
        (keeper, receiver)
    }

    /// Runs for ever. `changed` wakes it when something about the tailnet did.
    pub async fn run(mut self, mut changed: watch::Receiver<u64>) {
        loop {
            let until = match self.look() {
                Next::Ask(name, validity) => {
                    self.ask(name, validity).await;
                    continue;
                }
                Next::Wait(until) => until.duration_since(SystemTime::now()).unwrap_or_default(),
                Next::Nothing | Next::Fault(_) => LONGEST,
            };
            // Looked at hourly all the same: clocks are set.
            let sleep = tokio::time::sleep(until.clamp(Duration::from_millis(100), LONGEST));
            tokio::select! {
                () = sleep => {}
                answer = changed.changed() => if answer.is_err() { return },
            }
        }
    }

    /// What to do now, and what is to be said about it.
    fn look(&mut self) -> Next {
        let now = SystemTime::now();
        let state = self.state.load_full();
        let facts = self.have.as_ref().and_then(|have| have.tls.facts());
        let have = self.have.as_ref().zip(facts.as_ref()).map(|(have, facts)| (&have.name, facts));
        let running = state.running().map(|running| &**running);
        let retry = self.retry.as_ref().map(|(name, at)| (name, *at));
        let next = node::next(running, have, retry, now);
        judge_expiry(&self.path.display().to_string(), facts.as_ref(), LOOK_AT_LOG, now, &self.readiness);
        let has_usable = have.is_some_and(|(name, facts)| {
            let ours = running.is_none_or(|running| running.dns_name.as_ref() == Some(name));
            ours && facts.left(now).is_some()
        });
        if has_usable {
            self.readiness.clear(MISSING);
        }
        match &next {
            Next::Fault(fault) => self.report(fault.clone(), has_usable),
            Next::Wait(_) if has_usable && self.failures == 0 => {
                self.readiness.settle(NOT_RENEWED);
            }
            _ => {}
        }
        next
    }

    /// A fault while there is a certificate is one of the future.
    fn report(&self, fault: Fault, has_usable: bool) {
        let detail = fault.detail.clone();
        let fix = fault.fix.clone().unwrap_or_default();
        if has_usable {
            if self.readiness.warn(NOT_RENEWED, fault) {
                tracing::warn!(
                    code = NOT_RENEWED,
                    "{detail}; the certificate in use stays -- to mend it: {fix}"
                );
            }
        } else if self.readiness.fail(MISSING, fault) {
            tracing::error!(code = MISSING, "no HTTPS on the tailnet yet: {detail} -- to mend it: {fix}");
        }
    }

    async fn ask(&mut self, name: NodeName, validity: Option<Duration>) {
        if self.announced.as_ref() != Some(&name) && self.have.as_ref().is_none_or(|have| have.name != name) {
            // Before anything is asked for (threat rule 101).
            tracing::warn!(
                name = name.as_str(),
                "asking Tailscale for a certificate: with it this name becomes public, in certificate transparency logs"
            );
            self.announced = Some(name.clone());
        }
        let (fault, longest) = match (self.ask)(name.clone(), validity).await {
            Ok(pair) => match self.take(&name, &pair, validity.is_some()) {
                Ok(()) => {
                    self.failures = 0;
                    // Where the new one is due for renewal already, for its short life or
                    // for our clock, the next will be no better.
                    let now = SystemTime::now();
                    let facts = self.have.as_ref().and_then(|have| have.tls.facts());
                    let due = validity.is_some() && facts.is_none_or(|facts| facts.renew_at() <= now);
                    self.retry = due.then(|| (name, now + LONGEST));
                    return;
                }
                Err(refused) => {
                    let same = matches!(refused, Refused::Same);
                    let detail = telemetry::chain(&refused);
                    (Fault { detail, fix: Some(LOOK_AT_LOG.into()) }, same)
                }
            },
            Err(error) => {
                let fix = error.fix().unwrap_or(LOOK_AT_LOG).to_owned();
                let limited = matches!(error, Error::RateLimited { .. });
                (Fault { detail: telemetry::chain(&error), fix: Some(fix) }, limited)
            }
        };
        self.failures += 1;
        let wait = if longest { LONGEST } else { backoff(self.failures) };
        self.retry = Some((name.clone(), SystemTime::now() + wait));
        self.report(fault, validity.is_some());
    }

    /// Puts a pair in use and on disk. One that does not fit leaves the old in use.
    fn take(&mut self, name: &NodeName, pair: &CertPair, renewing: bool) -> Result<(), Refused> {
        let bundle = node::bundle(pair);
        let files = node::files(&self.path);
        let tls = Tls::from_pem(files, bundle.as_bytes(), bundle.as_bytes())?;
        let facts = tls.facts().ok_or(Refused::NotValid)?;
        let now = SystemTime::now();
        if !tls.covers(name.as_str()) {
            return Err(Refused::WrongName(name.clone()));
        }
        if facts.left(now).is_none() {
            return Err(Refused::NotValid);
        }
        let before = self.have.as_ref().and_then(|have| have.tls.facts());
        if renewing && before.as_ref().is_some_and(|before| before.fingerprint == facts.fingerprint) {
            return Err(Refused::Same);
        }
        if let Err(error) = node::keep(&self.path, &bundle) {
            tracing::error!(path = %self.path.display(), %error, "the certificate cannot be kept; it is in memory only");
        }
        tracing::info!(
            name = name.as_str(),
            fingerprint = facts.fingerprint_text(),
            not_after = facts.not_after_text(),
            "the certificate of this node is in use"
        );
        match &mut self.have {
            // Listeners hold it: the pair inside is replaced, connections go on.
            Some(have) => {
                have.tls.replace(bundle.as_bytes(), bundle.as_bytes())?;
                have.name = name.clone();
            }
            None => self.have = Some(NodeCertificate { name: name.clone(), tls }),
        }
        self.readiness.clear(MISSING);
        self.readiness.settle(NOT_RENEWED);
        self.current.send_replace(self.have.clone());
        Ok(())
    }
}

fn backoff(failures: u32) -> Duration {
    FIRST.saturating_mul(4_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_an_hour() {
        let waits: Vec<u64> = (1..=8).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(waits, [5, 20, 80, 320, 1280, 3600, 3600, 3600]);
        assert_eq!(backoff(u32::MAX), LONGEST);
    }
}
