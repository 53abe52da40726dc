//! A configuration is in force as a whole, or not at all.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use super::support::*;

/// One of two policies: this app for this person, and nobody else.
fn policy(app: &Upstream, who: &str) -> String {
    format!(
        r#"{{gateway: {{upstream: "{}", auth: {{token: "{TOKEN}"}}, access: {{owner: false, allow: ["{who}"]}}}}}}"#,
        app.flag()
    )
}

#[test]
fn threat_100_a_thousand_reloads_under_load_serve_nothing_under_half_of_two_policies() {
    const RELOADS: usize = 1000;
    let tailnet = Tailnet::new();
    let app = |name: &'static str| {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        Upstream::answering(text)
    };
    let (bobs, carols) = (app("bobs"), app("carols"));
    let first = policy(&bobs, "bob@example.com");
    let second = policy(&carols, "carol@example.com");
    let gateway = Setup::on(&tailnet).config(first.clone()).start_on_tailnet();
    let (done, served, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (who, own) in [(BOB, "bobs"), (CAROL, "carols")] {
            let (gateway, done, served, refused) = (&gateway, &done, &served, &refused);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let answer = gateway.peer(who).get("/");
                    match answer.status {
                        200 => {
                            assert_eq!(answer.text(), own, "another person's app");
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        403 => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => panic!("{answer:?}"),
                    }
                }
            });
        }
        for round in 0..RELOADS {
            let text = match round % 4 {
                0 => &second,
                1 => "{gateway: {access: {allow: ['bob@example.com', 'carol@example.com'], owner: 7}}}",
                2 => &first,
                _ => "{gateway: {auth: {mode: 'none'}, bind: 'lan'}}",
            };
            gateway.write_config(text);
            gateway.signal(Signal::HUP);
        }
        gateway.write_config(&second);
        gateway.signal(Signal::HUP);
        until("the last one is in force", || gateway.peer(CAROL).get("/").status == 200);
        done.store(true, Ordering::Relaxed);
    });
    gateway.peer(BOB).get("/").assert_refused(403, "not_allowed");
    let (served, refused) = (served.into_inner(), refused.into_inner());
    assert!(served > 0 && refused > 0, "{served} served, {refused} refused");
    let log = gateway.log();
    assert!(log.contains("was read again") && log.contains("is refused"), "both kinds were seen");
}
