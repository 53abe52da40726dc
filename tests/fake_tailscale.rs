//! Holds the scripted `tailscale` to the recordings of the real one, and shows
//! that its faults do what their names say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test stops at the first surprise, and here programs are started by design"
)]

#[path = "fake_tailscale/calls.rs"]
mod calls;
#[path = "fake_tailscale/certificates.rs"]
mod certificates;
#[path = "fake_tailscale/claims.rs"]
mod claims;
#[path = "fake_tailscale/client.rs"]
mod client;
#[path = "fake_tailscale/fake.rs"]
mod fake;
#[path = "fake_tailscale/faults.rs"]
mod faults;
#[path = "fake_tailscale/localapi.rs"]
mod localapi;
#[path = "fake_tailscale/recordings.rs"]
mod recordings;
#[path = "fake_tailscale/running.rs"]
mod running;
#[path = "fake_tailscale/sample_app.rs"]
mod sample_app;
#[path = "fake_tailscale/scopes.rs"]
mod scopes;
#[path = "fake_tailscale/serve_requests.rs"]
mod serve_requests;
#[path = "fake_tailscale/transcript.rs"]
mod transcript;
