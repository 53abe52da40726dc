use proptest::prelude::*;

use super::*;
use crate::serve::journal::Phase;
use crate::serve::model::{Model, SOCKET, Tcp, node, route};

fn session() -> Route {
    Route { target: "http://127.0.0.1:4000".into(), session: true, ..route() }
}

fn placed(route: &Route) -> Entry {
    Entry::intended(route, &node()).in_phase(Phase::Placed)
}

fn with(build: impl FnOnce(&mut Model)) -> Model {
    let mut model = Model::default();
    build(&mut model);
    model
}

fn published(route: &Route) -> Model {
    with(|model| model.publish(route, &node()).unwrap())
}

fn mounted(model: &mut Model, site: &str, mount: &str, target: &str) {
    model.web.entry(site.into()).or_default().insert(mount.into(), target.into());
}

#[track_caller]
fn planned(wanted: &[Route], model: &Model, journal: &[Entry]) -> Plan {
    plan(wanted, &model.config(), journal, &[], &node())
}

#[track_caller]
fn blocked(route: &Route, model: &Model) -> String {
    let plan = planned(std::slice::from_ref(route), model, &[]);
    assert!(plan.steps.is_empty(), "{:?}", plan.steps);
    match &plan.standing[..] {
        [(_, Standing::Blocked(conflict))] => conflict.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn threat_069_what_is_in_the_way_is_named_and_left_alone() {
    let other = |mount: &str| {
        with(|model| {
            model.tcp.insert(443, Tcp::Https);
            mounted(model, "gw.example.ts.net:443", mount, "http://127.0.0.1:9000");
        })
    };
    assert_eq!(
        blocked(&route(), &other("/")),
        "gw.example.ts.net:443/ of Serve leads to http://127.0.0.1:9000"
    );
    // `/x/` and `/x` are one mount.
    let at_x = Route { path: "/x".into(), ..route() };
    assert!(blocked(&at_x, &other("/x/")).contains("/x/ of Serve"));
    let raw = with(|model| drop(model.tcp.insert(443, Tcp::Forward("127.0.0.1:22".into()))));
    assert_eq!(blocked(&route(), &raw), "port 443 of Serve is a TCP forward to 127.0.0.1:22");
    let http = with(|model| drop(model.tcp.insert(443, Tcp::Http)));
    assert_eq!(blocked(&route(), &http), "port 443 of Serve speaks http");
    let foreground = with(|model| drop(model.foreground.insert("1f".into(), other("/"))));
    let said = blocked(&route(), &foreground);
    assert!(said.contains("another program's session") && said.contains("127.0.0.1:9000"), "{said}");
    // A session wants the port for itself.
    assert!(blocked(&session(), &other("/elsewhere")).contains("in use"));
    assert!(blocked(&session(), &raw).contains("TCP forward"));
}

#[test]
fn threat_006_nobodys_funnel_is_switched_off_and_nothing_is_made_public() {
    let public = with(|model| {
        model.tcp.insert(443, Tcp::Https);
        mounted(model, "gw.example.ts.net:443", "/hook", "http://127.0.0.1:9000");
        model.funnel.insert("gw.example.ts.net:443".into());
    });
    assert!(blocked(&route(), &public).contains("somebody's Funnel"));
    let private = Model { funnel: BTreeSet::new(), ..public };
    let to_open = Route { funnel: true, ..route() };
    assert!(blocked(&to_open, &private).contains("would open gw.example.ts.net:443/hook"));
    // Ours is there, and somebody opened the port: said, and left as it is.
    let mut opened = published(&route());
    opened.funnel.insert("gw.example.ts.net:443".into());
    let plan = planned(&[route()], &opened, &[placed(&route())]);
    assert_eq!((plan.steps, plan.made_public), (vec![], vec![route()]));
}

#[test]
fn a_funnel_of_ours_is_closed_unless_somebody_else_needs_it_by_then() {
    let open = Route { funnel: true, ..route() };
    let mut model = published(&open);
    let plan = planned(&[route()], &model, &[placed(&open)]);
    assert_eq!(plan.steps, [Step::Publish(route())]);
    mounted(&mut model, "gw.example.ts.net:443", "/theirs", "http://127.0.0.1:9000");
    let plan = planned(&[route()], &model, &[placed(&open)]);
    assert_eq!(plan.steps, [Step::Confirm(placed(&route()))], "only the claim to it is given up");
    assert_eq!(plan.made_public, [route()]);
}

#[test]
fn what_is_ours_is_what_the_journal_has_exactly() {
    let model = published(&route());
    assert_eq!(planned(&[route()], &model, &[placed(&route())]).steps, []);
    // Removed with the journal, left alone without.
    let gone = planned(&[], &model, &[placed(&route())]);
    assert!(matches!(&gone.steps[..], [Step::Remove { by_command: true, .. }]), "{:?}", gone.steps);
    assert_eq!(planned(&[], &model, &[]).steps, []);
    // A journal of another node, or of another target, says nothing of this mount.
    let other_node = Entry { node: "nOther".into(), ..placed(&route()) };
    assert_eq!(planned(&[], &model, std::slice::from_ref(&other_node)).steps, []);
    // Nor one of another tailnet whose control server counts its nodes, too.
    let other_tailnet = NodeFacts { tailnet: "other.example".into(), ..node() };
    let theirs = plan(&[], &model.config(), &[placed(&route())], &[], &other_tailnet);
    assert_eq!(theirs.steps, [], "nothing is removed, and nothing forgotten");
    let other_target = Entry { target: "unix:/elsewhere".into(), ..placed(&route()) };
    assert_eq!(planned(&[], &model, std::slice::from_ref(&other_target)).steps, [Step::Forget(other_target)]);
    // Nor is a mount ours that forwards capabilities nobody of us asked for.
    let with_caps = br#"{"TCP":{"443":{"HTTPS":true}},"Web":{"gw.example.ts.net:443":{"Handlers":{"/":
        {"Proxy":"unix:/run/openclaw/serve.sock","AcceptAppCaps":["x.example/cap/y"]}}}}}"#;
    let config = openclaw_tailscale::parse_serve_config(with_caps).unwrap();
    let plan = plan(&[], &config, &[placed(&route())], &[], &node());
    assert_eq!(plan.steps, [Step::Forget(placed(&route()))]);
}

#[test]
fn a_route_that_was_there_before_us_is_used_and_never_taken_away() {
    let model = published(&route());
    let plan = planned(&[route()], &model, &[]);
    assert_eq!((plan.steps, &plan.standing[0].1), (vec![], &Standing::ByHand));
}

#[test]
fn each_state_that_a_crash_leaves_is_taken_up_again() {
    let (absent, present) = (Model::default(), published(&route()));
    let entry = |phase| Entry::intended(&route(), &node()).in_phase(phase);
    for phase in [Phase::Intended, Phase::Placed, Phase::Removing] {
        let forget = Step::Forget(entry(phase));
        assert_eq!(planned(&[], &absent, &[entry(phase)]).steps, std::slice::from_ref(&forget));
        assert_eq!(planned(&[route()], &absent, &[entry(phase)]).steps, [forget, Step::Publish(route())]);
        let remove = planned(&[], &present, &[entry(phase)]).steps;
        assert!(matches!(&remove[..], [Step::Remove { .. }]), "{remove:?}");
        let keep = planned(&[route()], &present, &[entry(phase)]).steps;
        let confirm = vec![Step::Confirm(entry(Phase::Placed))];
        assert_eq!(keep, if phase == Phase::Placed { vec![] } else { confirm });
    }
}

#[test]
fn a_changed_target_is_replaced_and_a_changed_place_is_left_first() {
    let model = published(&route());
    let journal = [placed(&route())];
    let elsewhere = Route { target: "unix:/run/new.sock".into(), ..route() };
    assert_eq!(planned(std::slice::from_ref(&elsewhere), &model, &journal).steps, [Step::Publish(elsewhere)]);
    let moved = Route { port: 8443, ..route() };
    let steps = planned(std::slice::from_ref(&moved), &model, &journal).steps;
    assert!(matches!(&steps[..], [Step::Remove { .. }, Step::Publish(to)] if *to == moved), "{steps:?}");
    // A session needs the port that ours still has.
    let plan = planned(&[session()], &model, &journal);
    assert!(matches!(&plan.steps[..], [Step::Remove { .. }]), "{:?}", plan.steps);
    assert_eq!(plan.standing[0].1, Standing::Pending);
}

#[test]
fn a_renamed_node_leaves_a_site_that_the_command_line_cannot_take_away() {
    let model = published(&route());
    let renamed = NodeFacts { name: "new.example.ts.net".into(), ..node() };
    let plan = plan(&[route()], &model.config(), &[placed(&route())], &[], &renamed);
    assert!(matches!(&plan.steps[..], [Step::Remove { by_command: false, .. }]), "{:?}", plan.steps);
    // A site of another name on our port would lose its listener with our last mount.
    let mut shared = published(&route());
    mounted(&mut shared, "old.example.ts.net:443", "/", "http://127.0.0.1:9000");
    let steps = planned(&[], &shared, &[placed(&route())]).steps;
    assert!(matches!(&steps[..], [Step::Remove { by_command: false, .. }]), "{steps:?}");
}

#[test]
fn what_a_service_publishes_is_in_nobodys_way() {
    let mut model = Model::default();
    let mut service = Model::default();
    service.tcp.insert(443, Tcp::Https);
    mounted(&mut service, "app.example.ts.net:443", "/", SOCKET);
    model.services.insert("svc:app".into(), service);
    assert_eq!(planned(&[route()], &model, &[]).steps, [Step::Publish(route())]);
    // Nor is it ours, whatever it leads to.
    assert_eq!(planned(&[], &model, &[placed(&route())]).steps, [Step::Forget(placed(&route()))]);
}

/// An entry of the session that [`Model::publish`] makes.
fn in_session(id: &str) -> Entry {
    Entry { session_id: Some(id.into()), ..placed(&session()) }
}

const ITS_ID: &str = "session of http://127.0.0.1:4000";

#[test]
fn a_session_is_ours_while_it_is_held() {
    let model = published(&session());
    let held = [Held { route: session(), session_id: ITS_ID.into() }];
    let of = |journal: &[Entry]| plan(&[session()], &model.config(), journal, &held, &node());
    let known = of(&[in_session(ITS_ID)]);
    assert_eq!((known.steps, &known.standing[0].1), (vec![], &Standing::Ours));
    // Its id is written down once it is known.
    let fresh = of(&[Entry::intended(&session(), &node())]);
    assert_eq!(
        (fresh.steps, &fresh.standing[0].1),
        (vec![Step::Confirm(in_session(ITS_ID))], &Standing::Ours)
    );
    // Of a process that is gone nothing is left to lead to: it goes first.
    let lingering = plan(&[session()], &model.config(), &[in_session(ITS_ID)], &[], &node());
    assert!(matches!(&lingering.steps[..], [Step::Remove { by_command: false, .. }]), "{lingering:?}");
    assert_eq!(Held::by_journal(&[session(), route()], &[in_session(ITS_ID)], &node()), held);
    assert_eq!(Held::by_journal(&[session()], &[placed(&session())], &node()), []);
}

#[test]
fn threat_069_somebody_elses_session_is_theirs_wherever_it_leads() {
    let model = published(&session());
    // Ours had another id, or none that was ever seen: what is there now is not it.
    for ours in [in_session("1f"), placed(&session()), Entry::intended(&session(), &node())] {
        let plan = plan(&[session()], &model.config(), std::slice::from_ref(&ours), &[], &node());
        assert_eq!(plan.steps, [Step::Forget(ours)], "it is not taken away");
        assert!(matches!(&plan.standing[0].1, Standing::Blocked(Conflict::Session { .. })), "{plan:?}");
    }
    // Nor while a session of ours is held that is not to be seen.
    let held = [Held { route: session(), session_id: "1f".into() }];
    let plan = plan(&[session()], &model.config(), &[in_session("1f")], &held, &node());
    assert!(plan.steps.is_empty(), "{:?}", plan.steps);
    assert!(matches!(&plan.standing[0].1, Standing::Blocked(Conflict::Session { .. })), "{plan:?}");
}

#[test]
fn addresses_are_what_people_type() {
    let url = |https, port, path: &str| {
        Route { https, port, path: path.into(), ..route() }.url("gw.example.ts.net")
    };
    assert_eq!(url(true, 443, "/"), "https://gw.example.ts.net/");
    assert_eq!(url(true, 8443, "/x"), "https://gw.example.ts.net:8443/x/");
    assert_eq!(url(false, 80, "/"), "http://gw.example.ts.net/");
    assert_eq!(url(false, 443, "/"), "http://gw.example.ts.net:443/");
}

/// Small worlds, in which everything collides.
fn targets() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(SOCKET.to_owned()),
        Just("http://127.0.0.1:4000".to_owned()),
        Just("http://127.0.0.1:9000".to_owned()),
        Just("unix:/run/other.sock".to_owned()),
    ]
}

fn ports() -> impl Strategy<Value = u16> {
    prop_oneof![Just(443), Just(8443)]
}

fn paths() -> impl Strategy<Value = String> {
    prop_oneof![Just("/".to_owned()), Just("/x".to_owned()), Just("/x/".to_owned())]
}

fn sites() -> impl Strategy<Value = String> {
    let names = prop_oneof![Just("gw.example.ts.net"), Just("old.example.ts.net")];
    (names, ports()).prop_map(|(name, port)| format!("{name}:{port}"))
}

fn flat() -> impl Strategy<Value = Model> {
    let tcp = prop_oneof![
        4 => Just(Tcp::Https),
        1 => Just(Tcp::Http),
        1 => Just(Tcp::Forward("127.0.0.1:22".into())),
    ];
    let mounts = proptest::collection::btree_map(paths(), targets(), 1..3);
    (
        proptest::collection::btree_map(ports(), tcp, 0..3),
        proptest::collection::btree_map(sites(), mounts, 0..3),
        proptest::collection::btree_set(sites(), 0..2),
    )
        .prop_map(|(tcp, web, funnel)| Model { tcp, web, funnel, ..Model::default() })
}

fn worlds() -> impl Strategy<Value = Model> {
    let inner = || proptest::collection::btree_map("[a-f0-9]{2}", flat(), 0..2);
    (flat(), inner(), inner()).prop_map(|(mut model, foreground, services)| {
        model.foreground = foreground;
        model.services = services.into_iter().map(|(name, inner)| (format!("svc:{name}"), inner)).collect();
        model
    })
}

fn routes() -> impl Strategy<Value = Route> {
    (any::<bool>(), ports(), paths(), any::<bool>(), any::<bool>()).prop_map(
        |(https, port, path, session, funnel)| Route {
            https,
            port,
            path: if path == "/x/" { "/x".into() } else { path },
            target: if session { "http://127.0.0.1:4000".into() } else { SOCKET.into() },
            session,
            funnel: funnel && https,
        },
    )
}

fn journals() -> impl Strategy<Value = Vec<Entry>> {
    let phase = prop_oneof![Just(Phase::Intended), Just(Phase::Placed), Just(Phase::Removing)];
    let entry = (routes(), targets(), phase, any::<[bool; 2]>()).prop_map(
        |(route, target, phase, [old_name, seen])| {
            let name = if old_name { "old.example.ts.net" } else { "gw.example.ts.net" };
            let at = NodeFacts { name: name.into(), ..node() };
            let session_id = (route.session && seen).then(|| ITS_ID.to_owned());
            Entry { target, session_id, ..Entry::intended(&route, &at).in_phase(phase) }
        },
    );
    proptest::collection::vec(entry, 0..4).prop_map(|mut entries| {
        let mut kept: Vec<Entry> = Vec::new();
        entries.retain(|entry| {
            let new = !kept.iter().any(|known| known.same_place(entry));
            kept.push(entry.clone());
            new
        });
        entries
    })
}

/// Everything that is not ours, and what it depends on.
fn foreign(model: &Model, journal: &[Entry]) -> Model {
    let mut rest = model.clone();
    let is_ours = |site: &str, mount: &str, target: &str| {
        journal.iter().any(|entry| {
            !entry.session && entry.host_port == site && entry.mount == mount && entry.target == target
        })
    };
    for (site, mounts) in &mut rest.web {
        mounts.retain(|mount, target| !is_ours(site, mount, target));
    }
    rest.web.retain(|_, mounts| !mounts.is_empty());
    // A listener is somebody's where they have a mount on it; one without any mount
    // serves nobody. A Funnel is whoever's who has a mount on its site, or who left it.
    let used: BTreeSet<Option<u16>> = rest.web.keys().map(|site| port_of(site)).collect();
    rest.tcp.retain(|port, tcp| matches!(tcp, Tcp::Forward(_)) || used.contains(&Some(*port)));
    let left: BTreeSet<String> = rest.web.keys().cloned().collect();
    rest.funnel.retain(|site| left.contains(site) || !model.web.contains_key(site));
    rest.foreground.retain(|id, _| !id.starts_with("session of"));
    rest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever is found and whatever the journal says: taking the planned steps, with
    /// everything the command line does besides, changes nothing of anybody else's.
    #[test]
    fn threat_069_no_plan_changes_what_is_somebody_elses(
        world in worlds(), journal in journals(), wanted in proptest::collection::vec(routes(), 0..2)
    ) {
        let before = foreign(&world, &journal);
        let mut now = world.clone();
        let mut entries = journal.clone();
        for step in planned(&wanted, &world, &journal).steps {
            match step {
                Step::Forget(_) | Step::Confirm(_) => {}
                Step::Remove { by_command: false, .. } => {}
                Step::Remove { entry, .. } => {
                    prop_assert!(journal.iter().any(|known| known.same_place(&entry)));
                    now.off(&node(), entry.port().unwrap(), &entry.mount).unwrap();
                }
                Step::Publish(route) => {
                    entries.push(Entry::intended(&route, &node()));
                    // One that the daemon refuses changes nothing either.
                    let _ = now.publish(&route, &node());
                }
            }
        }
        prop_assert_eq!(foreign(&now, &entries), before, "{:#?}\nbecame {:#?}", world, now);
    }

    /// The steps lead somewhere: taken again and again, none is left that could be taken.
    #[test]
    fn every_plan_comes_to_an_end(
        world in worlds(), journal in journals(), wanted in proptest::collection::vec(routes(), 0..2)
    ) {
        let (mut now, mut entries) = (world, journal);
        let mut given_up: Vec<Step> = Vec::new();
        for _ in 0..12 {
            let steps = planned(&wanted, &now, &entries).steps;
            let Some(step) = steps.into_iter().find(|step| !given_up.iter().any(|other| other.is_same(step)))
            else {
                return Ok(());
            };
            match &step {
                Step::Forget(entry) => entries.retain(|known| !known.same_place(entry)),
                Step::Confirm(entry) => {
                    entries.retain(|known| !known.same_place(entry));
                    entries.push(entry.clone());
                }
                Step::Remove { entry, by_command } => {
                    let taken = *by_command
                        && now.off(&node(), entry.port().unwrap(), &entry.mount).is_ok();
                    if !taken {
                        given_up.push(step);
                    }
                }
                Step::Publish(route) => {
                    let mut entry = Entry::intended(route, &node());
                    entry.funnel |= entries.iter().any(|known| known.same_place(&entry) && known.funnel);
                    entries.retain(|known| !known.same_place(&entry));
                    entries.push(entry);
                    if now.publish(route, &node()).is_err() || route.session {
                        given_up.push(step);
                    }
                }
            }
        }
        prop_assert!(false, "it never ends: {:?}", planned(&wanted, &now, &entries));
    }
}

#[test]
fn what_is_shown_of_somebodys_route_is_its_place_alone() {
    for (target, shown) in [
        ("http://user:secret@127.0.0.1:9000/s/3f9c0e7d/?k=v", "http://127.0.0.1:9000"),
        ("http://127.0.0.1:9000#x", "http://127.0.0.1:9000"),
        ("unix:/run/app.sock", "unix:/run/app.sock"),
        ("3000", "3000"),
        ("http://a\u{1b}[31m/", "http://a\u{fffd}[31m"),
    ] {
        assert_eq!(place(target), shown, "{target:?}");
    }
    assert_eq!(place(&"x".repeat(10_000)).len(), 120);
}
