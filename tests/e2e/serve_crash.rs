//! SIGKILL at every call of `tailscale` while a route is published or taken away. (At
//! every write of the journal, and between the two: `serve/apply/tests.rs`.)

use super::support::*;

/// Slow enough for a kill to fall into a call.
const SLOW: &str = r#"latency={"serve": "80ms", "serve-status": "40ms", "status": "40ms"}"#;

/// Starts a gateway, kills it as soon as `calls` calls have begun, and says whether it was
/// killed before `done`.
fn killed_at(
    world: &Published,
    mode: &str,
    home: Option<&Gateway>,
    calls: usize,
    done: &dyn Fn() -> bool,
) -> (Gateway, bool) {
    let before = world.tailnet.calls("*").len();
    let setup = world.setup(mode);
    let setup = match home {
        Some(other) => setup.home_of(other),
        None => setup,
    };
    let mut gateway = setup.start();
    let mut finished = false;
    until("the call begins", || {
        finished = done();
        finished || world.tailnet.calls("*").len() >= before + calls
    });
    gateway.signal(rustix::process::Signal::KILL);
    gateway.wait();
    (gateway, !finished)
}

#[test]
fn threat_069_killed_at_each_call_the_next_start_comes_to_the_same_end() {
    let mut kills = 0;
    for calls in 1.. {
        let world = Published::by("cli");
        world.neighbours();
        let (before, others) = (world.text(), world.of_others());
        world.tailnet.set(&[SLOW]);
        let published = || world.tailnet.calls("*").iter().any(|_| true) && world.target().is_some();
        let settled = std::cell::Cell::new(0);
        // A few calls beyond the one that had effect, so that its aftermath is met, too.
        let (killed, early) = killed_at(&world, "serve", None, calls, &|| {
            settled.set(if published() { settled.get() + 1 } else { 0 });
            settled.get() > 40
        });
        assert_eq!(world.of_others(), others, "killed at call {calls}");
        // One goes on,
        let mut next = world.setup("serve").home_of(&killed).start();
        next.wait_for_log("serve enabled: ");
        next.signal(rustix::process::Signal::KILL);
        next.wait();
        // and one takes it back, killed on its way as well.
        let (undone, _) = killed_at(&world, "off", Some(&next), calls, &|| world.text() == before);
        let last = world.setup("off").home_of(&undone).start();
        until("nothing of ours is left", || world.text() == before);
        drop(last);
        kills += 1;
        if !early || calls >= 12 {
            break;
        }
    }
    assert!(kills >= 6, "killed at {kills} calls only");
}
