//! What the tailnet takes away while somebody is connected: heard on tailscaled's bus,
//! and found out by polling where there is none.

use std::net::TcpStream;
use std::time::Instant;

use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::support::*;

type Socket = WebSocket<TcpStream>;

struct World {
    tailnet: Tailnet,
    /// Ends the daemon when it is dropped.
    daemon: Option<StandIn>,
    gateway: Gateway,
    _app: Upstream,
}

fn config(socket: &str, client: &str, allow: &str) -> String {
    format!(
        r#"{{gateway: {{auth: {{mode: "token", token: "{TOKEN}"}},
            tailscale: {{socket: {socket}, client: "{client}"}},
            access: {{allow: [{allow}]}}}}}}"#
    )
}

fn world(client: &str) -> World {
    world_allowing(client, r#""bob@example.com", "carol@example.com""#)
}

fn world_allowing(client: &str, allow: &str) -> World {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let daemon = StandIn::of(&tailnet, &[]);
    let setup = Setup::on(&tailnet).upstream(&app).config(config(&daemon.socket(), client, allow));
    let gateway = setup.start_on_tailnet();
    World { tailnet, daemon: Some(daemon), gateway, _app: app }
}

impl World {
    fn open(&self, who: &str) -> Socket {
        let origin = format!("http://{}", self.gateway.tailnet());
        let mut socket = self.gateway.peer(who).with("Origin", &origin).websocket("/ws").unwrap();
        assert_open(&mut socket, "before");
        socket
    }

    /// How often the daemon was asked at its socket who has an address.
    fn asked_about(&self, ip: &str) -> usize {
        let about = |call: &serde_json::Value| call["request"].to_string().contains(&format!("addr={ip}\""));
        self.tailnet.calls("whois").iter().filter(|call| about(call)).count()
    }

    /// Waits until the bus is listened to, and what it said at first has been dealt with.
    fn is_heard(&self) {
        until("the bus is listened to", || self.tailnet.calls_via("localapi", "watch-ipn") > 0);
    }
}

#[track_caller]
fn assert_open(socket: &mut Socket, message: &str) {
    socket.send(message.into()).unwrap();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) if text.as_str() == message => return,
            Ok(_) => {}
            Err(error) => panic!("{message}: it is closed: {error}"),
        }
    }
}

#[track_caller]
fn assert_revoked(socket: &mut Socket, why: &str) {
    loop {
        match socket.read() {
            Ok(Message::Close(Some(frame))) => {
                let said = (u16::from(frame.code), frame.reason.as_str());
                return assert_eq!(said, (1008, "revoked"), "{why}");
            }
            Ok(_) => {}
            Err(error) => panic!("{why}: it ended without a close frame: {error}"),
        }
    }
}

/// What takes Bob's right away, and nobody else's.
const REVOCATIONS: [(&str, &[&str]); 6] = [
    ("expiry", &["peer.bobpc.expired=true"]),
    ("tagging", &[r#"peer.bobpc.tags=["tag:ci"]"#, "peer.bobpc.user=null"]),
    ("deletion", &["peer.bobpc=null"]),
    ("another user", &["peer.bobpc.user=eve"]),
    ("jailing", &["peer.bobpc.jailed=true"]),
    (
        "another profile",
        &["tailnet.name=other.example", "self.stableId=nOtherCNTRL", "self.id=77", "peer.bobpc.user=eve"],
    ),
];

fn revocations_close_what_is_bobs_alone(client: &str) {
    for (why, change) in REVOCATIONS {
        let world = world(client);
        let (mut alice, mut bob) = (world.open(ALICE), world.open(BOB));
        world.tailnet.set(change);
        assert_revoked(&mut bob, why);
        assert_open(&mut alice, why);
        let answer = world.gateway.peer(BOB).get("/");
        assert!(matches!(answer.status, 401 | 403), "{why}: {}", answer.status);
    }
}

#[test]
fn threat_049_050_051_what_the_bus_tells_closes_bobs_socket_and_leaves_alices() {
    revocations_close_what_is_bobs_alone("auto");
}

// The clock is the gateway's own: it polls once a second, and asks about everybody
// every five.
#[test]
fn threat_050_what_the_bus_tells_is_asked_about_before_the_next_round() {
    let world = world("auto");
    world.is_heard();
    let (mut alice, mut bob) = (world.open(ALICE), world.open(BOB));
    let before = world.asked_about(BOB);
    until("a round has passed", || world.asked_about(BOB) > before);
    let polls = || world.tailnet.calls("status").len();
    let before = polls();
    world.tailnet.set(&["peer.bobpc=null"]);
    assert_revoked(&mut bob, "deletion");
    assert!(polls() - before <= 3, "{} polls until Bob was asked about", polls() - before);
    assert_open(&mut alice, "deletion");
}

#[test]
fn threat_049_050_051_polling_closes_bobs_socket_and_leaves_alices() {
    revocations_close_what_is_bobs_alone("cli");
}

#[test]
fn threat_050_a_grant_that_is_taken_back_closes_its_socket_both_ways() {
    for client in ["auto", "cli"] {
        let world = world_allowing(client, "");
        let grant = |routes: &str| {
            let grant = format!(r#"{{role: "user", routes: ["{routes}"]}}"#);
            world.tailnet.set(&[&format!(r#"peer.bobpc.caps={{"openclaw.ai/cap/gateway": [{grant}]}}"#)]);
        };
        grant("default");
        let (mut alice, mut bob) = (world.open(ALICE), world.open(BOB));
        grant("other");
        assert_revoked(&mut bob, client);
        assert_open(&mut alice, client);
    }
}

#[test]
fn threat_050_down_closes_every_identitys_socket_and_no_token_holders() {
    for client in ["auto", "cli"] {
        let world = world(client);
        let (mut alice, mut bob) = (world.open(ALICE), world.open(BOB));
        let mut holder = world.gateway.local().bearer(TOKEN).websocket("/ws").unwrap();
        world.tailnet.set(&["backend=Stopped"]);
        assert_revoked(&mut bob, client);
        assert_revoked(&mut alice, client);
        assert_open(&mut holder, "after");
        world.gateway.peer(BOB).get("/").assert_refused(503, "tailscale_not_running");
    }
}

// Bob is not connected, so nobody asks about him by himself for 45 s.
#[test]
fn threat_051_what_is_remembered_of_who_is_not_connected_ends_with_what_the_bus_tells() {
    let mut world = world("auto");
    world.is_heard();
    assert_eq!(world.gateway.peer(BOB).get("/").status, 200);
    world.tailnet.set(&["peer.bobpc.expired=true"]);
    until("Bob is refused", || world.gateway.peer(BOB).get("/").status == 403);
    world.tailnet.set(&["peer.bobpc.expired=false"]);
    until("Bob is let in again", || world.gateway.peer(BOB).get("/").status == 200);

    // What happens while nobody listens is found out when it is heard again.
    drop(world.daemon.take());
    world.gateway.wait_for_log("tailscaled is not heard any more");
    world.tailnet.set(&["peer.bobpc.expired=true"]);
    world.daemon = Some(StandIn::of(&world.tailnet, &[]));
    world.gateway.wait_for_log("tailscaled is heard again");
    until("Bob is refused", || world.gateway.peer(BOB).get("/").status == 403);
    world.tailnet.set(&["peer.bobpc.expired=false"]);
    until("Bob is let in again", || world.gateway.peer(BOB).get("/").status == 200);
}

#[test]
fn threat_050_a_look_up_that_hangs_holds_up_nobody_elses_revocation() {
    let world = world("auto");
    let (mut alice, mut bob, mut carol) = (world.open(ALICE), world.open(BOB), world.open(CAROL));
    world.tailnet.set(&[&format!("fault.whois@{ALICE}=gate:alice")]);
    let before = world.asked_about(ALICE);
    until("Alice is asked about", || world.asked_about(ALICE) > before);
    world.tailnet.set(&["peer.carol.user=eve"]);
    assert_revoked(&mut carol, "with Alice's look-up under way");
    world.tailnet.set(&["peer.bobpc.expired=true"]);
    assert_revoked(&mut bob, "with Alice's look-up under way");
    // The gate is shut, so it has no answer; nor was it given up before the others' turn.
    assert!(!world.gateway.log().contains("whois failed"), "Alice's look-up came first");
    assert_open(&mut alice, "she cannot be asked about, which takes no right away");
    world.tailnet.release("alice");
}

#[test]
fn threat_051_a_storm_of_comings_and_goings_costs_tailscaled_a_few_look_ups() {
    let world = world("auto");
    world.is_heard();
    let mut alice = world.open(ALICE);
    let asked = || world.asked_about(ALICE);
    let (began, before) = (Instant::now(), asked());
    let mut events = 0;
    while began.elapsed().as_secs() < 6 {
        events += 1;
        world.tailnet.set(&[&format!("peer.carol.online={}", events % 2 == 0)]);
        assert_eq!(world.gateway.peer(ALICE).get("/").status, 200);
    }
    // One rise in two seconds, and the round over what is connected.
    let calls = asked() - before;
    let most = 4 + began.elapsed().as_secs() as usize;
    assert!(events > 2 * most, "{events} are no storm");
    assert!(calls <= most, "{calls} look-ups for {events} events");
    assert!(calls > 0, "whoever is connected was not asked about");
    assert_open(&mut alice, "after");
}
