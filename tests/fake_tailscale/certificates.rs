//! `Tailscale::cert`, at the socket and through the command line.

use std::time::Duration;

use openclaw_tailscale::{CertPair, ClientMode, Error, Limits, LocateOptions, NodeName, Tailscale};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::fake::Fake;
use crate::running::Running;

const NAME: &str = "gw.tailnet-example.test";
const WAYS: [ClientMode; 2] = [ClientMode::LocalApi, ClientMode::Cli];

fn ask_within(fake: &Fake, client: ClientMode, name: &str, limit: Duration) -> Result<CertPair, Error> {
    let options = LocateOptions {
        bin: Some(fake.dir().join("tailscale")),
        socket: Some(fake.dir().join("tailscaled.sock")),
        client,
        // Far below what it may take to make a certificate.
        limits: Limits { timeout: Duration::from_millis(1), cert_timeout: limit, ..Limits::default() },
        ..LocateOptions::default()
    };
    let tailscale = Tailscale::locate(options).unwrap().tailscale;
    let name: NodeName = name.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tailscale.cert(&name, Some(Duration::from_secs(86_400))))
}

fn ask(fake: &Fake, client: ClientMode, name: &str) -> Result<CertPair, Error> {
    ask_within(fake, client, name, Duration::from_secs(60))
}

#[track_caller]
fn refused(fake: &Fake, client: ClientMode, name: &str, code: &str) {
    let error = ask(fake, client, name).err().expect("it was refused");
    assert_eq!(error.code(), code, "{client:?}: {error}");
    assert!(error.fix().is_some(), "{client:?}: {error}");
}

#[test]
fn each_refusal_is_told_apart_both_ways() {
    let fake = Fake::with("user");
    let daemon = Running::daemon(&fake, &[]);
    for client in WAYS {
        refused(&fake, client, "other.tailnet-example.test", "tailscale_not_cert_domain");
        fake.set(&["fault.cert=exit:1:500 acme: 429 urn:ietf:params:acme:error:rateLimited: too many"]);
        refused(&fake, client, NAME, "tailscale_rate_limited");
        fake.set(&["fault.cert=none", "permissions=denied"]);
        refused(&fake, client, NAME, "tailscale_denied");
        fake.set(&["permissions=root"]);
        for fault in ["empty", "garbage", "truncated", "nul", "invalid-utf8"] {
            fake.set(&[&format!("fault.cert={fault}")]);
            assert!(ask(&fake, client, NAME).is_err(), "{fault} {client:?}");
        }
        fake.set(&["fault.cert=hang"]);
        let error = ask_within(&fake, client, NAME, Duration::from_millis(200)).err().unwrap();
        assert_eq!(error.code(), "tailscale_timed_out");
        fake.set(&["fault.cert=none"]);
    }
    fake.set(&["daemon=down"]);
    for client in WAYS {
        refused(&fake, client, NAME, "tailscale_daemon_down");
    }
    drop(daemon);
    let fake = Fake::with("no-https");
    let _daemon = Running::daemon(&fake, &[]);
    for client in WAYS {
        refused(&fake, client, NAME, "tailscale_https_disabled");
    }
}

#[test]
fn a_pair_comes_whole_and_slowly_made_ones_are_waited_for() {
    let fake = Fake::with("user");
    let _daemon = Running::daemon(&fake, &[]);
    let mut keys = Vec::new();
    for client in WAYS {
        fake.set(&["fault.cert=slow:300ms"]);
        let pair = ask(&fake, client, NAME).unwrap_or_else(|error| panic!("{client:?}: {error}"));
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pair.certificates_pem().as_bytes()).collect();
        assert!(!chain.is_empty() && chain.iter().all(Result::is_ok));
        assert!(PrivateKeyDer::from_pem_slice(pair.key_pem().as_bytes()).is_ok());
        keys.push(pair.key_pem().to_owned());
    }
    assert_eq!(keys[0], keys[1], "the daemon keeps what it has");
}
