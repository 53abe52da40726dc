//! `/healthz` and `/readyz`: exact paths, GET and HEAD, from anyone by any way.
//!
//! A health exemption is a path and a method, never a header (threat rule 16).

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::readiness::{Fault, Readiness};

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `/healthz`
    Live,
    /// `/readyz`
    Ready,
}

/// The probe a raw request path asks for.
pub fn probe(path: &str) -> Option<Probe> {
    match path {
        "/healthz" => Some(Probe::Live),
        "/readyz" => Some(Probe::Ready),
        _ => None,
    }
}

/// Whether the method is a probe's.
pub fn allows(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// The answer. `detail` only for local callers and admins.
pub fn answer(probe: Probe, readiness: &Readiness, draining: bool, detail: bool) -> (StatusCode, Value) {
    if probe == Probe::Live {
        return (StatusCode::OK, json!({ "ok": true, "status": "live" }));
    }
    let faults = readiness.faults();
    let ready = faults.is_empty() && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({ "ready": ready });
    if !detail {
        return (status, body);
    }
    let shown =
        |(code, fault): (&str, Fault)| json!({ "code": code, "detail": fault.detail, "fix": fault.fix });
    if !ready {
        let mut failing: Vec<Value> = faults.into_iter().map(shown).collect();
        if draining {
            failing.push(json!({ "code": "draining", "detail": "the gateway is stopping", "fix": null }));
        }
        body["failing"] = failing.into();
    }
    let warnings: Vec<Value> = readiness.warnings().into_iter().map(shown).collect();
    if !warnings.is_empty() {
        body["warnings"] = warnings.into();
    }
    let funnels: Vec<Value> = readiness
        .funnels()
        .into_iter()
        .map(|funnel| json!({ "url": funnel.url, "until": funnel.until, "open": funnel.open }))
        .collect();
    if !funnels.is_empty() {
        body["funnel"] = funnels.into();
    }
    (status, body)
}
