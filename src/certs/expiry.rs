//! What is said of a certificate's end.

use std::time::{Duration, SystemTime};

use crate::ingress::CertFacts;
use crate::readiness::{Fault, Readiness};

/// How long before the end of a certificate its operator is told.
pub const WARN_BEFORE: Duration = Duration::from_secs(14 * 86_400);
const EXPIRED: &str = "certificate_expired";
const EXPIRES_SOON: &str = "certificate_expires_soon";

/// Says once what is to be said of a certificate's end: not ready once it is over, a
/// warning from 14 days before (threat rule 99). `place` says which certificate.
pub fn judge_expiry(
    place: &str,
    facts: Option<&CertFacts>,
    fix: &str,
    now: SystemTime,
    readiness: &Readiness,
) {
    let Some(facts) = facts else { return };
    let detail = |word: &str| format!("the certificate in {place} {word} {}", facts.not_after_text());
    let fault = |detail: String| Fault { detail, fix: Some(fix.to_owned()) };
    let left = facts.left(now);
    if left.is_none() {
        let detail = detail("expired at");
        if readiness.fail(EXPIRED, fault(detail.clone())) {
            tracing::error!(code = EXPIRED, "{detail}");
        }
    } else {
        readiness.clear(EXPIRED);
    }
    if left.is_some_and(|left| left <= WARN_BEFORE) {
        let detail = detail("expires at");
        if readiness.warn(EXPIRES_SOON, fault(detail.clone())) {
            tracing::warn!(code = EXPIRES_SOON, "{detail}");
        }
    } else {
        readiness.settle(EXPIRES_SOON);
    }
}
