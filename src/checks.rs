//! What `openclaw doctor` looks at, and what it makes of it.
//!
//! [`gather`] does all the asking, each question within seconds and nothing of it
//! changing anything; each area then has one pure function from what was seen to
//! [`Finding`]s, and [`examine`] puts them one after another. A new area is a field of
//! [`Seen`] and a line there.

mod certificate;
mod configuration;
mod finding;
mod gateway;
mod gather;
mod probe;
mod serve;
mod tailscale;

pub use finding::{Finding, Level};
pub use gather::{Seen, gather};

/// Everything there is to say, in the order in which one mends it.
pub fn examine(seen: &Seen) -> Vec<Finding> {
    let mut findings = configuration::findings(&seen.configuration);
    findings.extend(tailscale::findings(seen));
    findings.extend(gateway::findings(&seen.gateway));
    findings.extend(serve::findings(seen));
    findings.extend(certificate::findings(seen));
    findings.into_iter().map(Finding::visible).collect()
}
