//! Every run is ended at every point at which it can be: before and after each write of
//! the journal and each edit. The next one has to come to the same end.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use openclaw_tailscale::{Error, ServeConfig};

use super::*;
use crate::serve::model::{Model, Tcp, node, route};

/// What survives a process: the daemon's configuration and the journal.
#[derive(Clone, Default)]
struct World {
    model: Arc<Mutex<Model>>,
    journal: Arc<Mutex<Vec<Entry>>>,
}

/// A process that is killed after so many acts.
struct Process {
    world: World,
    left: Arc<Mutex<usize>>,
    /// How the next edits end, instead of well.
    faults: Vec<Fault>,
    edits: Cell<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// Reported done, without effect.
    NoEffect,
    /// Somebody else was faster.
    Raced,
    Denied,
    NotAdmin,
}

impl Process {
    fn of(world: &World) -> Self {
        Self::killed_after(world, usize::MAX)
    }

    fn killed_after(world: &World, acts: usize) -> Self {
        Self {
            world: world.clone(),
            left: Arc::new(Mutex::new(acts)),
            faults: Vec::new(),
            edits: Cell::new(0),
        }
    }

    fn journal(&self) -> Written {
        Written { world: self.world.clone(), left: self.left.clone() }
    }
}

/// Whether the process still lives to act once more.
fn lives(left: &Mutex<usize>) -> bool {
    let mut left = left.lock().unwrap();
    let lives = *left > 0;
    *left = left.saturating_sub(1);
    lives
}

struct Written {
    world: World,
    left: Arc<Mutex<usize>>,
}

const KILLED: &str = "killed";

impl Journal for Written {
    fn entries(&self) -> Result<Vec<Entry>, String> {
        Ok(self.world.journal.lock().unwrap().clone())
    }

    fn put(&self, entry: &Entry) -> Result<(), String> {
        self.strike(entry)?;
        self.world.journal.lock().unwrap().push(entry.clone());
        Ok(())
    }

    fn strike(&self, entry: &Entry) -> Result<(), String> {
        if !lives(&self.left) {
            return Err(KILLED.into());
        }
        self.world.journal.lock().unwrap().retain(|known| !known.same_place(entry));
        Ok(())
    }
}

impl Process {
    fn edit(&mut self, change: impl FnOnce(&mut Model) -> Result<(), EditError>) -> Result<(), EditError> {
        let killed = || EditError::Call(Error::Killed { command: "serve", signal: 9 });
        self.edits.set(self.edits.get() + 1);
        match self.faults.pop() {
            Some(Fault::NoEffect) => return Ok(()),
            Some(Fault::Raced) => return Err(EditError::Raced),
            Some(Fault::Denied) => return Err(EditError::Denied),
            Some(Fault::NotAdmin) => return Err(EditError::NotAdmin),
            None => {}
        }
        if !lives(&self.left) {
            return Err(killed());
        }
        let done = change(&mut self.world.model.lock().unwrap());
        if lives(&self.left) { done } else { Err(killed()) }
    }
}

impl Hands for Process {
    async fn read(&mut self, _: &NodeFacts) -> Result<ServeConfig, Trouble> {
        Ok(self.world.model.lock().unwrap().config())
    }

    async fn publish(&mut self, route: &Route, node: &NodeFacts) -> Result<(), EditError> {
        self.edit(|model| model.publish(route, node).map_err(|detail| EditError::PortTaken { detail }))
    }

    async fn remove(&mut self, entry: &Entry, by_command: bool) -> Result<(), EditError> {
        assert!(by_command, "not in these worlds");
        self.edit(|model| {
            model.off(&node(), entry.port().unwrap(), &entry.mount).map_err(|_| EditError::NoSuchMount)
        })
    }

    fn held(&self) -> Vec<crate::serve::Held> {
        Vec::new()
    }
}

/// A neighbour on the same port, one on another, and a forward.
fn neighbours() -> World {
    let world = World::default();
    {
        let mut model = world.model.lock().unwrap();
        for (site, mount) in [("gw.example.ts.net:443", "/theirs"), ("gw.example.ts.net:8443", "/")] {
            model.web.entry(site.into()).or_default().insert(mount.into(), "http://127.0.0.1:9000".into());
        }
        model.tcp.insert(443, Tcp::Https);
        model.tcp.insert(8443, Tcp::Https);
        model.tcp.insert(2222, Tcp::Forward("127.0.0.1:22".into()));
    }
    world
}

async fn run(process: &mut Process, wanted: &[Route]) -> Settled {
    let journal = process.journal();
    converge(wanted, &node(), process, &journal, |_| Ok(())).await.unwrap()
}

fn is_there(world: &World, route: &Route) -> bool {
    let model = world.model.lock().unwrap();
    let mounts = model.web.get(&node().host_port(route.port));
    mounts.and_then(|mounts| mounts.get(&route.path)) == Some(&route.target)
}

/// Everything but our routes.
fn others(world: &World) -> Model {
    let mut model = world.model.lock().unwrap().clone();
    for mounts in model.web.values_mut() {
        mounts.retain(|_, target| !target.starts_with("unix:"));
    }
    model.web.retain(|_, mounts| !mounts.is_empty());
    model.funnel.clear();
    model.tcp.remove(&10000);
    model
}

#[tokio::test(start_paused = true)]
async fn threat_069_killed_at_every_step_the_next_run_comes_to_the_same_end() {
    let elsewhere = Route { target: "unix:/run/new.sock".into(), ..route() };
    let moved = Route { path: "/x".into(), ..route() };
    let open = Route { funnel: true, port: 10000, ..route() };
    let closed = Route { funnel: false, ..open.clone() };
    let cases: [(&[Route], &[Route]); 7] = [
        (&[], &[route()]),
        (&[route()], &[]),
        (&[route()], &[elsewhere]),
        (&[route()], &[moved]),
        (&[], std::slice::from_ref(&open)),
        (std::slice::from_ref(&open), &[closed]),
        (std::slice::from_ref(&open), &[]),
    ];
    let mut kills = 0;
    for (before, after) in cases {
        for acts in 0.. {
            let world = neighbours();
            let untouched = others(&world);
            run(&mut Process::of(&world), before).await;
            let mut killed = Process::killed_after(&world, acts);
            let settled = run(&mut killed, after).await;
            let survived = *killed.left.lock().unwrap() > 0 && settled.trouble.is_empty();
            assert_eq!(others(&world), untouched, "{before:?} to {after:?}, killed after {acts}");
            // One that is to undo all of it, and one that is to go on.
            for wanted in [&[], after] {
                let world = World {
                    model: Arc::new(Mutex::new(world.model.lock().unwrap().clone())),
                    journal: Arc::new(Mutex::new(world.journal.lock().unwrap().clone())),
                };
                let settled = run(&mut Process::of(&world), wanted).await;
                assert!(settled.trouble.is_empty(), "{:?}", settled.trouble);
                assert_eq!(
                    others(&world),
                    untouched,
                    "{before:?} to {after:?}, after {acts} and a new start"
                );
                for route in before.iter().chain(after) {
                    let same = |other: &&Route| Route { funnel: route.funnel, ..(*other).clone() } == *route;
                    let wants = wanted.iter().any(|wanted| same(&wanted));
                    assert_eq!(is_there(&world, route), wants, "{route:?} after {acts}");
                    let site = node().host_port(route.port);
                    let public = world.model.lock().unwrap().funnel.contains(&site);
                    assert_eq!(
                        public,
                        wanted.iter().any(|wanted| wanted.funnel && wanted.port == route.port)
                    );
                }
                let journal = world.journal.lock().unwrap();
                assert_eq!(journal.len(), wanted.len(), "{journal:?}");
                assert!(journal.iter().all(|entry| entry.phase == Phase::Placed), "{journal:?}");
            }
            if survived {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills >= 25, "only {kills} points to be killed at");
}

#[tokio::test(start_paused = true)]
async fn success_is_not_believed() {
    let world = neighbours();
    let mut process = Process { faults: vec![Fault::NoEffect], ..Process::of(&world) };
    let settled = run(&mut process, &[route()]).await;
    assert_eq!(settled.trouble[0].1.code, "serve_not_verified");
    assert_eq!(process.edits.get(), 1, "not tried again at once");
    // And nothing of it is left to be taken for ours.
    run(&mut Process::of(&world), &[]).await;
    assert!(world.journal.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_race_is_tried_again_and_not_for_ever() {
    let world = neighbours();
    let mut process = Process { faults: vec![Fault::Raced; 3], ..Process::of(&world) };
    assert!(run(&mut process, &[route()]).await.trouble.is_empty());
    assert!(is_there(&world, &route()));
    let world = neighbours();
    let mut process = Process { faults: vec![Fault::Raced; 100], ..Process::of(&world) };
    let settled = run(&mut process, &[route()]).await;
    assert_eq!(settled.trouble[0].1.code, "serve_raced");
    assert_eq!(process.edits.get(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_what_mends_it_and_leaves_no_entry_behind() {
    for (fault, code, refused) in
        [(Fault::Denied, "serve_denied", false), (Fault::NotAdmin, "serve_needs_root", true)]
    {
        let world = neighbours();
        let untouched = others(&world);
        let mut process = Process { faults: vec![fault], ..Process::of(&world) };
        let settled = run(&mut process, &[route()]).await;
        assert_eq!(settled.trouble[0].1.code, code);
        assert!(settled.trouble[0].1.fix.is_some());
        assert_eq!(settled.unix_refused, refused);
        assert_eq!(others(&world), untouched);
        run(&mut Process::of(&world), &[]).await;
        assert!(world.journal.lock().unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_that_cannot_be_written_down() {
    struct Full;
    impl Journal for Full {
        fn entries(&self) -> Result<Vec<Entry>, String> {
            Ok(Vec::new())
        }
        fn put(&self, _: &Entry) -> Result<(), String> {
            Err("disk full".into())
        }
        fn strike(&self, _: &Entry) -> Result<(), String> {
            Err("disk full".into())
        }
    }
    let world = neighbours();
    let before = world.model.lock().unwrap().clone();
    let mut process = Process::of(&world);
    let settled = converge(&[route()], &node(), &mut process, &Full, |_| Ok(())).await.unwrap();
    assert_eq!(settled.trouble[0].1.code, "serve_journal_not_writable");
    assert_eq!((process.edits.get(), &*world.model.lock().unwrap()), (0, &before));
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_published_is_not_and_says_why() {
    let world = neighbours();
    let mut process = Process::of(&world);
    let journal = process.journal();
    let may = |_: &Route| Err(Trouble::new("serve_https_off", "no"));
    let settled = converge(&[route()], &node(), &mut process, &journal, may).await.unwrap();
    assert_eq!((settled.trouble[0].1.code, process.edits.get()), ("serve_https_off", 0));
}
