//! Guessing a secret is slow, by whichever way.

use super::support::*;

fn on_tailnet(config: &str) -> (Tailnet, Upstream, Gateway) {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let config = format!("{{gateway: {{{config}}}}}");
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config).start_on_tailnet();
    (tailnet, app, gateway)
}

/// In the header that can only be meant for us.
fn guess(client: &Client, number: usize) -> Answer {
    client.with("X-OpenClaw-Gateway-Token", &format!("guess-{number}")).get("/")
}

#[test]
fn threat_043_the_eleventh_guess_is_locked_out_without_being_asked_for() {
    let (_tailnet, app, gateway) = on_tailnet("");
    let bob = gateway.peer(BOB);
    for _ in 0..15 {
        bob.get("/").assert_refused(403, "not_allowed");
    }
    for number in 0..10 {
        guess(&bob, number).assert_refused(401, "token_mismatch");
    }
    let locked = guess(&bob, 11);
    locked.assert_refused(429, "rate_limited");
    let seconds: u64 = locked.header("retry-after").unwrap().parse().unwrap();
    assert!((290..=300).contains(&seconds), "{seconds}");
    // Not even the right one is looked at.
    let right = bob.bearer(TOKEN).get("/");
    right.assert_refused(429, "rate_limited");
    assert_eq!(app.connections(), 0);
    // Another client is not affected, nor is somebody with an identity.
    gateway.peer(CAROL).bearer(TOKEN).get("/").seen();
    gateway.peer(ALICE).get("/").seen();
}

#[test]
fn threat_043_a_bearer_that_no_identity_permits_is_a_guess_and_counted() {
    // Rulings 2: on an app route a bearer passes as the app's own only where the
    // identity permits the request already; "otherwise 401, counted".
    let (_tailnet, app, gateway) = on_tailnet("");
    for peer in [NOBODYS, BOB, EVE, CI] {
        let client = gateway.peer(peer);
        for number in 0..10 {
            client.bearer(&format!("guess-{number}")).get("/").assert_refused(401, "token_mismatch");
        }
        client.bearer("guess-11").get("/").assert_refused(429, "rate_limited");
        client.bearer(TOKEN).get("/").assert_refused(429, "rate_limited");
    }
    assert_eq!(app.connections(), 0);
}

#[test]
fn threat_046_one_budget_whatever_else_is_sent() {
    let (_tailnet, app, gateway) = on_tailnet("");
    // Without an identity, so that a bearer is no app's.
    let bob = gateway.peer(NOBODYS);
    let wrong = |number: usize| {
        let client = bob.clone();
        let guess = format!("guess-{number}");
        match number % 5 {
            0 => client.bearer(&guess).get("/"),
            1 => client.with("X-OpenClaw-Gateway-Token", &guess).get("/other"),
            2 => client
                .with("X-OpenClaw-Gateway-Token", &guess)
                .with("Cookie", "openclaw=1; deviceToken=2")
                .get("/"),
            3 => client.bearer(&guess).websocket("/ws").unwrap_err(),
            _ => client.bearer(&guess).with("X-Device-Token", "1").request(
                "POST",
                "/_openclaw/whoami?mode=password",
                b"{}",
            ),
        }
    };
    for number in 0..10 {
        assert_eq!(wrong(number).status, 401, "guess {number}");
    }
    for number in 10..15 {
        wrong(number).assert_refused(429, "rate_limited");
    }
    // A second Authorization line is no way around it, locked or not.
    let two = gateway.peer(CAROL).bearer("wrong").bearer(TOKEN).get("/");
    assert_eq!(two.status, 400, "{}", two.text());
    assert_eq!(app.connections(), 0);
}

#[test]
fn threat_047_rotating_the_forwarded_address_buys_nothing() {
    // Through nobody: the header of a process here changes nothing.
    let (_tailnet, app, gateway) = on_tailnet("");
    for number in 0..10 {
        let client = gateway.local().with("X-Forwarded-For", &format!("203.0.113.{number}"));
        guess(&client, number).assert_refused(401, "token_mismatch");
    }
    let next = gateway.local().with("X-Forwarded-For", "203.0.113.200");
    guess(&next, 11).assert_refused(429, "rate_limited");
    // Through a direct peer that forwards: its own address is charged.
    for number in 0..10 {
        let client = gateway.peer(BOB).with("X-Forwarded-For", &format!("203.0.113.{number}"));
        guess(&client, number).assert_refused(401, "token_mismatch");
    }
    guess(&gateway.peer(BOB), 11).assert_refused(429, "rate_limited");
    assert_eq!(app.connections(), 0);
}

#[test]
fn threat_044_one_address_is_one_bucket_however_it_is_written() {
    let (_tailnet, app, gateway) = on_tailnet(&format!(r#"trustedProxies: ["{CAROL}"]"#));
    let through = |client: &str| gateway.peer(CAROL).with("X-Forwarded-For", client);
    let spellings = ["203.0.113.4", "::ffff:203.0.113.4", "::FFFF:cb00:7104", "203.0.113.4"];
    for number in 0..10 {
        guess(&through(spellings[number % 4]), number).assert_refused(401, "token_mismatch");
    }
    for client in spellings {
        guess(&through(client), 11).assert_refused(429, "rate_limited");
    }
    assert_eq!(app.connections(), 0);
}

#[test]
fn threat_047_behind_a_trusted_proxy_the_client_is_charged_and_the_nameless_share() {
    let (_tailnet, app, gateway) = on_tailnet(&format!(r#"trustedProxies: ["{CAROL}"]"#));
    let through = |client: &str| gateway.peer(CAROL).with("X-Forwarded-For", client);
    for number in 0..10 {
        // What stands left of the client is the client's own invention.
        guess(&through(&format!("198.51.100.{number}, 203.0.113.4")), number)
            .assert_refused(401, "token_mismatch");
    }
    guess(&through("203.0.113.4"), 11).assert_refused(429, "rate_limited");
    guess(&through("203.0.113.5"), 12).assert_refused(401, "token_mismatch");
    let nameless = gateway.peer(CAROL);
    for number in 0..12 {
        let answer = guess(&nameless, number);
        assert!(matches!(answer.status, 401 | 429), "{}", answer.text());
    }
    assert_eq!(guess(&nameless, 13).status, 429, "those without a name share one budget");
    assert_eq!(app.connections(), 0);
}

#[test]
fn threat_048_loopback_is_exempt_only_where_nobody_else_can_be_behind_it() {
    // A plain gateway on loopback: a local process may mistype for ever.
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::new().tailscale(&tailnet).upstream(&app).token(TOKEN).start();
    let named = gateway.local().with("Tailscale-User-Login", "x@example.com");
    until("Tailscale is known", || named.get("/").status == 401);
    for number in 0..12 {
        guess(&gateway.local(), number).assert_refused(401, "token_mismatch");
    }
    // Somebody points a Serve route at the port.
    tailnet.set(&[&route_to(&format!("http://127.0.0.1:{}", gateway.port()))]);
    let mut number = 0;
    until("the route is seen and the guesses count", || {
        number += 1;
        guess(&gateway.local(), number).status == 429
    });
    gateway.local().bearer(TOKEN).get("/").assert_refused(429, "rate_limited");
    for setup in [
        Setup::new().flag("--tailscale", "serve"),
        Setup::new().config(r#"{gateway: {trustedProxies: ["192.0.2.1"]}}"#),
    ] {
        let gateway = setup.tailscale(&tailnet).upstream(&app).token(TOKEN).start();
        for number in 0..10 {
            guess(&gateway.local(), number).assert_refused(401, "token_mismatch");
        }
        guess(&gateway.local(), 11).assert_refused(429, "rate_limited");
    }
    assert_eq!(app.connections(), 0);
}

#[test]
fn threat_048_a_flood_of_new_clients_unlocks_nobody_and_meets_the_cap() {
    let (_tailnet, _app, gateway) = on_tailnet(&format!(r#"trustedProxies: ["{CAROL}"]"#));
    let through = |client: String| gateway.peer(CAROL).with("X-Forwarded-For", &client);
    for number in 0..10 {
        guess(&through("203.0.113.4".into()), number).assert_refused(401, "token_mismatch");
    }
    guess(&through("203.0.113.4".into()), 11).assert_refused(429, "rate_limited");
    let mut capped = 0;
    for number in 0..150 {
        let answer = guess(&through(format!("198.51.{}.{}", number / 100, number % 100)), number);
        assert!(matches!(answer.status, 401 | 429), "{}", answer.text());
        capped += usize::from(answer.status == 429);
    }
    assert!(capped > 0, "150 failures in a minute meet no cap");
    guess(&through("203.0.113.4".into()), 12).assert_refused(429, "rate_limited");
    // The cap blocks secrets only, never identity.
    gateway.peer(ALICE).get("/").seen();
}
