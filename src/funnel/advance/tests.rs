use super::*;
use crate::domain::FunnelAsk;
use crate::funnel::check::tests::{ROUTES, ask, permitted, settings};

const HOST: &str = "gw.tailnet-example.ts.net";

fn row(phase: FunnelPhase) -> FunnelRow {
    let site = FunnelSite {
        host: HOST.into(),
        url: format!("https://{HOST}/hooks"),
        route: "hooks".parse().unwrap(),
    };
    FunnelRow {
        id: 1,
        ask: ask("/hooks"),
        phase,
        site: Some(site),
        refusal: None,
        by: "uid 0".into(),
        since: 1000,
        opened_at: Some(1000),
        until: Some(2000),
        boot_until: None,
    }
}

fn now(unix: i64) -> Now {
    Now { unix, instant: Instant::now() }
}

fn see(row: &FunnelRow, unix: i64, publication: &Publication) -> Verdict {
    see_in(row, unix, publication, &settings(ROUTES), &permitted())
}

fn see_in(
    row: &FunnelRow,
    unix: i64,
    publication: &Publication,
    settings: &Settings,
    state: &TailnetState,
) -> Verdict {
    let published = |port| {
        assert_eq!(port, row.ask.port);
        publication.clone()
    };
    let world = World { settings, state, published: &published, now: now(unix) };
    advance(row, None, &world)
}

#[track_caller]
fn refused(verdict: Verdict, says: &str) {
    match verdict {
        Verdict::Refuse(refusal) => assert!(refusal.reason.contains(says), "{refusal:?}"),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn threat_060_nothing_is_let_through_before_it_is_published() {
    let confirmed = row(FunnelPhase::Confirmed);
    assert_eq!(see(&confirmed, 1001, &Publication::Pending(None)), Verdict::Keep);
    assert_eq!(see(&confirmed, 1001, &Publication::Closed), Verdict::Keep);
    refused(see(&confirmed, 1061, &Publication::Pending(None)), "within 60 seconds");
    let denied = Publication::Pending(Some(FunnelRefusal { reason: "access denied".into(), fix: None }));
    assert_eq!(see(&confirmed, 1015, &denied), Verdict::Keep, "it may pass");
    refused(see(&confirmed, 1016, &denied), "access denied");
    let failed = Publication::Failed(FunnelRefusal { reason: "a foreign mount".into(), fix: None });
    refused(see(&confirmed, 1001, &failed), "a foreign mount");
    refused(see(&confirmed, 2000, &Publication::Published), "over before");
    assert_eq!(confirmed.grant(None), None);
    assert_eq!(see(&confirmed, 1001, &Publication::Published), Verdict::Open);
    assert!(row(FunnelPhase::Open).grant(None).is_some());
    for phase in [FunnelPhase::Asked, FunnelPhase::Ready, FunnelPhase::Refused, FunnelPhase::Closing] {
        assert_eq!(row(phase).grant(None), None);
        assert!(!row(phase).wants_port(None, now(1001)), "{phase:?}");
    }
}

#[test]
fn threat_060_it_ends_and_is_struck() {
    let open = row(FunnelPhase::Open);
    assert_eq!(see(&open, 1999, &Publication::Published), Verdict::Keep);
    assert!(open.wants_port(None, now(1999)));
    assert_eq!(see(&open, 2000, &Publication::Published), Verdict::Forget);
    assert!(!open.wants_port(None, now(2000)));
    // The clock was set back, the other one went on.
    let past = Some(Instant::now());
    assert!(!open.wants_port(past, now(1500)));
    assert!(!open.grant(past).unwrap().term.holds(now(1500)));
    let for_ever = FunnelRow { until: None, ..open.clone() };
    assert_eq!(see(&for_ever, i64::MAX, &Publication::Published), Verdict::Keep);
    // Trouble at Tailscale is no end: it is published again when it is over.
    let failed = Publication::Failed(FunnelRefusal { reason: "x".into(), fix: None });
    for trouble in [failed, Publication::Pending(None), Publication::Closed] {
        assert_eq!(see(&open, 1999, &trouble), Verdict::Keep);
    }
}

#[test]
fn threat_060_what_is_configured_away_is_not_open_any_more() {
    let open = row(FunnelPhase::Open);
    let after = |gateway: &str, state: &TailnetState| {
        see_in(&open, 1001, &Publication::Published, &settings(gateway), state)
    };
    let private = ROUTES.replace(r#"upstream: 3001, public: "secret""#, "upstream: 3001");
    refused(after(&private, &permitted()), "not public");
    let all_in = ROUTES.replace(r#""secret""#, r#""open""#);
    refused(after(&all_in, &permitted()), "everybody");
    refused(after(&ROUTES.replace("hooks: {", "hooky: {"), &permitted()), "leads to route hooky now");
    refused(
        after(&ROUTES.replace(r#"mode: "serve""#, r#"mode: "off""#), &permitted()),
        "gateway.tailscale.mode",
    );
    // While Tailscale is away nothing can be said of the name, and nobody comes in.
    let away = TailnetState { phase: Phase::Unknown, ..permitted() };
    assert_eq!(after(ROUTES, &away), Verdict::Keep);
}

#[test]
fn threat_101_only_the_announced_name_is_published() {
    for phase in [FunnelPhase::Confirmed, FunnelPhase::Open] {
        let mut row = row(phase);
        if let Some(site) = &mut row.site {
            site.host = "old.tailnet-example.ts.net".into();
        }
        refused(see(&row, 1001, &Publication::Published), "this node is now gw.tailnet-example.ts.net");
    }
}

#[test]
fn a_question_is_answered_and_forgotten_where_nobody_waits() {
    let asked = FunnelRow { site: None, opened_at: None, until: None, ..row(FunnelPhase::Asked) };
    let ready = see(&asked, 1001, &Publication::Closed);
    assert_eq!(ready, Verdict::Ready(row(FunnelPhase::Ready).site.unwrap()));
    let private = FunnelRow { ask: FunnelAsk { ..ask("/") }, ..asked.clone() };
    refused(see(&private, 1001, &Publication::Closed), "not public");
    // Tailscale is asked a moment after the start.
    let unknown = TailnetState { phase: Phase::Unknown, ..permitted() };
    assert_eq!(see_in(&asked, 1001, &Publication::Closed, &settings(ROUTES), &unknown), Verdict::Keep);
    refused(see_in(&asked, 1010, &Publication::Closed, &settings(ROUTES), &unknown), "not answered");
    for phase in [FunnelPhase::Ready, FunnelPhase::Refused] {
        assert_eq!(see(&row(phase), 1600, &Publication::Closed), Verdict::Keep);
        assert_eq!(see(&row(phase), 1601, &Publication::Closed), Verdict::Forget);
    }
}

#[test]
fn an_end_that_was_asked_for_waits_for_tailscale_but_not_for_ever() {
    let closing = row(FunnelPhase::Closing);
    assert_eq!(see(&closing, 1001, &Publication::Published), Verdict::Keep);
    assert_eq!(see(&closing, 1001, &Publication::Closed), Verdict::Forget);
    assert_eq!(see(&closing, 1061, &Publication::Published), Verdict::Forget);
}

#[test]
fn threat_060_a_restart_and_a_clock_that_was_set_back_win_nothing() {
    let moment = |boot: &str, seconds| BootMoment { boot: boot.into(), seconds };
    let row = FunnelRow { boot_until: Some(moment("a", 500)), ..row(FunnelPhase::Open) };
    let at = now(1900);
    let left = |boot: Option<BootMoment>| bound(&row, at, boot.as_ref()).unwrap() - at.instant;
    assert_eq!(left(None), Duration::from_secs(100));
    assert_eq!(left(Some(moment("b", 490))), Duration::from_secs(100), "another start of the machine");
    assert_eq!(left(Some(moment("a", 490))), Duration::from_secs(10), "the day was set back by 90 s");
    assert_eq!(left(Some(moment("a", 300))), Duration::from_secs(100), "or forward");
    assert_eq!(left(Some(moment("a", 501))), Duration::ZERO);
    let late = now(2001);
    assert_eq!(bound(&row, late, None), Some(late.instant));
    assert_eq!(bound(&FunnelRow { until: None, ..row.clone() }, at, None), None);
}
