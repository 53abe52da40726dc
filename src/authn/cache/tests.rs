use super::*;
use crate::domain::tailnet::tests::state;
use openclaw_tailscale::{Whois, WhoisFuture, parse_whois};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Answers from a table; look-ups of a held address wait until it is released.
#[derive(Default)]
struct Source {
    people: Mutex<HashMap<IpAddr, &'static str>>,
    held: Mutex<HashMap<IpAddr, Arc<Notify>>>,
    fails: std::sync::atomic::AtomicBool,
    /// The role that the plain question's answers grant.
    caps: Mutex<Option<&'static str>>,
    /// At which destination scoped questions are answered, and with which role.
    scoped: Mutex<Option<(IpAddr, &'static str)>>,
    calls: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

fn whois(login: &str, ip: IpAddr, role: Option<&str>) -> Whois {
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let caps = role.map(|role| serde_json::json!({crate::domain::grants::CAPABILITY: [{"role": role}]}));
    let json = serde_json::json!({
        "Node": {"ID": 2, "StableID": "n2", "Name": "phone.tailnet-example.ts.net.", "User": 1,
                 "Addresses": [format!("{ip}/{bits}")], "AllowedIPs": [format!("{ip}/{bits}")]},
        "UserProfile": {"ID": 1, "LoginName": login, "DisplayName": login},
        "CapMap": caps
    });
    parse_whois(json.to_string().as_bytes()).unwrap()
}

impl WhoisSource for Source {
    fn whois(&self, ip: IpAddr) -> WhoisFuture<'_> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_running.fetch_max(now, Ordering::SeqCst);
            let held = guard(&self.held).get(&ip).cloned();
            if let Some(gate) = held {
                gate.notified().await;
            }
            self.running.fetch_sub(1, Ordering::SeqCst);
            if self.fails.load(Ordering::SeqCst) {
                return Err(Error::DaemonDown);
            }
            match guard(&self.people).get(&ip) {
                Some(login) => Ok(whois(login, ip, *guard(&self.caps))),
                None => Err(Error::NotFound),
            }
        })
    }

    fn whois_tcp(&self, addr: SocketAddr) -> WhoisFuture<'_> {
        self.whois(addr.ip())
    }

    fn whois_at(&self, ip: IpAddr, to: IpAddr) -> WhoisFuture<'_> {
        Box::pin(async move {
            match &*guard(&self.scoped) {
                Some((at, role)) if *at == to => Ok(whois("bob@example.com", ip, Some(role))),
                _ => Err(Error::TooOld { command: "whois", needs: "1.100" }),
            }
        })
    }
}

fn guard<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([100, 64, 1, last])
}

fn cache(source: &Arc<Source>) -> (IdentityCache, Arc<ArcSwap<TailnetState>>) {
    let state = Arc::new(ArcSwap::from_pointee(state()));
    (IdentityCache::new(source.clone(), state.clone(), Handle::current()), state)
}

fn login(verdict: &Verdict) -> &str {
    match verdict {
        Ok(Principal::User(user)) => user.login.as_str(),
        _ => "nobody",
    }
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn threat_051_five_hundred_first_requests_are_one_look_up() {
    let source = Arc::new(Source::default());
    guard(&source.people).insert(ip(2), "alice@example.com");
    let gate = Arc::new(Notify::new());
    guard(&source.held).insert(ip(2), gate.clone());
    let (cache, _) = cache(&source);
    let waiting: Vec<_> = (0..500)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.identify(ip(2)).await.verdict })
        })
        .collect();
    settle().await;
    gate.notify_one();
    for answer in waiting {
        assert_eq!(login(&answer.await.unwrap()), "alice@example.com");
    }
    assert_eq!(source.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn bob_is_answered_while_alices_look_up_hangs() {
    let source = Arc::new(Source::default());
    guard(&source.people).insert(ip(3), "bob@example.com");
    guard(&source.held).insert(ip(2), Arc::new(Notify::new()));
    let (cache, _) = cache(&source);
    let alice = tokio::spawn({
        let cache = cache.clone();
        async move { cache.identify(ip(2)).await.verdict }
    });
    settle().await;
    assert_eq!(login(&cache.identify(ip(3)).await.verdict), "bob@example.com");
    assert!(!alice.is_finished());
    alice.abort();
}

#[tokio::test(start_paused = true)]
async fn threat_051_failures_live_five_seconds() {
    let source = Arc::new(Source::default());
    let (cache, _) = cache(&source);
    assert_eq!(cache.identify(ip(9)).await.verdict.unwrap_err(), Reason::PeerUnknown);
    assert_eq!(cache.identify(ip(9)).await.verdict.unwrap_err(), Reason::PeerUnknown);
    assert_eq!(source.calls.load(Ordering::SeqCst), 1);
    let answer = Answer { verdict: Err(Reason::PeerUnknown), at: Instant::now(), epoch: 1 };
    assert!(answer.is_fresh(answer.at + Duration::from_millis(4999), 1));
    assert!(!answer.is_fresh(answer.at + FAILURE_TTL, 1));
    let failed = Answer { verdict: Ok(Principal::Local), at: Instant::now(), epoch: 1 };
    assert!(failed.is_fresh(failed.at + Duration::from_millis(59_999), 1));
    assert!(!failed.is_fresh(failed.at + ANSWER_TTL, 1));
}

#[tokio::test]
async fn threat_009_a_look_up_that_failed_is_unavailable_never_nobody() {
    let source = Arc::new(Source::default());
    source.fails.store(true, Ordering::SeqCst);
    let (cache, _) = cache(&source);
    assert_eq!(cache.identify(ip(2)).await.verdict.unwrap_err(), Reason::WhoisUnavailable);
    assert_eq!(
        cache.identify_socket("127.0.0.1:9".parse().unwrap()).await.unwrap_err(),
        Reason::WhoisUnavailable
    );
}

#[tokio::test]
async fn threat_051_an_address_given_to_somebody_else_is_asked_about_again() {
    let source = Arc::new(Source::default());
    guard(&source.people).insert(ip(2), "alice@example.com");
    let (cache, state) = cache(&source);
    let worker = WorkerCache::new(cache.clone(), state.clone());
    use crate::authn::Identities as _;
    assert_eq!(login(&worker.of_peer(ip(2)).await), "alice@example.com");
    guard(&source.people).insert(ip(2), "mallory@example.com");
    assert_eq!(login(&worker.of_peer(ip(2)).await), "alice@example.com", "cached");
    let mut next = TailnetState::clone(&state.load());
    next.epoch += 1;
    state.store(Arc::new(next));
    assert_eq!(login(&worker.of_peer(ip(2)).await), "mallory@example.com");
}

#[tokio::test]
async fn threat_051_an_answer_asked_for_in_another_world_is_not_kept() {
    let source = Arc::new(Source::default());
    guard(&source.people).insert(ip(2), "alice@example.com");
    let gate = Arc::new(Notify::new());
    guard(&source.held).insert(ip(2), gate.clone());
    let (cache, state) = cache(&source);
    let asked = tokio::spawn({
        let cache = cache.clone();
        async move { cache.identify(ip(2)).await }
    });
    settle().await;
    let mut next = TailnetState::clone(&state.load());
    next.epoch += 1;
    state.store(Arc::new(next));
    guard(&source.held).clear();
    gate.notify_one();
    let answer = asked.await.unwrap();
    assert_eq!(answer.epoch, 2, "asked again after the switch");
    assert_eq!(source.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn threat_077_at_most_eight_look_ups_run_and_new_addresses_are_rationed() {
    let source = Arc::new(Source::default());
    let gate = Arc::new(Notify::new());
    for last in 0..=255 {
        guard(&source.held).insert(ip(last), gate.clone());
    }
    let (cache, _) = cache(&source);
    let waiting: Vec<_> = (0..=200u8)
        .map(|last| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.identify(ip(last)).await.verdict })
        })
        .collect();
    for answer in waiting {
        tokio::select! {
            answer = answer => assert!(answer.unwrap().is_err()),
            () = tokio::time::sleep(Duration::from_secs(30)) => {}
        }
    }
    assert!(source.most_running.load(Ordering::SeqCst) <= 8);
    assert!(source.calls.load(Ordering::SeqCst) <= 64);
}

#[tokio::test]
async fn threat_050_a_device_that_changed_hands_is_forgotten_by_every_worker() {
    use crate::authn::Identities as _;
    let source = Arc::new(Source::default());
    guard(&source.people).insert(ip(2), "alice@example.com");
    let (cache, state) = cache(&source);
    let worker = WorkerCache::new(cache.clone(), state.clone());
    assert_eq!(login(&worker.of_peer(ip(2)).await), "alice@example.com");
    guard(&source.people).remove(&ip(2));
    // What looking after open connections does, here with any age.
    assert_eq!(cache.identify_at_most(ip(2), Duration::ZERO).await.verdict.unwrap_err(), Reason::PeerUnknown);
    assert_eq!(worker.of_peer(ip(2)).await.unwrap_err(), Reason::PeerUnknown);
}

#[tokio::test(start_paused = true)]
async fn known_peers_need_no_place_after_the_world_changed() {
    let source = Arc::new(Source::default());
    for last in 0..=99 {
        guard(&source.people).insert(ip(last), "alice@example.com");
    }
    let (cache, state) = cache(&source);
    for round in 0..3u64 {
        for last in 0..50 {
            assert!(cache.identify(ip(last)).await.verdict.is_ok(), "round {round}");
        }
        let mut next = TailnetState::clone(&state.load());
        next.epoch += 1;
        state.store(Arc::new(next));
    }
}

#[tokio::test(start_paused = true)]
async fn threat_050_however_many_are_connected_each_is_asked_about_and_no_newcomer_waits() {
    let source = Arc::new(Source::default());
    for last in 0..=255 {
        guard(&source.people).insert(ip(last), "alice@example.com");
    }
    let (cache, _) = cache(&source);
    // Nothing is known of them any more, as after a change of the world.
    for last in 0..200 {
        let answer = cache.identify_at_most(ip(last), Duration::from_secs(5)).await;
        assert_eq!(login(&answer.verdict), "alice@example.com", "{last}");
    }
    for last in 200..=255 {
        assert!(cache.identify(ip(last)).await.verdict.is_ok(), "newcomer {last}");
    }
    assert!(source.most_running.load(Ordering::SeqCst) <= REFRESHES);
}

#[tokio::test(start_paused = true)]
async fn threat_050_a_newcomers_full_gate_is_no_answer_about_who_is_connected() {
    let source = Arc::new(Source::default());
    let (cache, _) = cache(&source);
    for last in 0..64 {
        cache.identify(ip(last)).await;
    }
    let asked = tokio::spawn({
        let cache = cache.clone();
        async move { cache.identify(ip(99)).await.verdict }
    });
    settle().await;
    // Joins the newcomer's question, which is never put.
    let answer = cache.identify_at_most(ip(99), Duration::from_secs(5)).await;
    assert_eq!(answer.verdict.unwrap_err(), Reason::PeerUnknown);
    assert_eq!(asked.await.unwrap().unwrap_err(), Reason::WhoisBusy);
}

#[tokio::test(start_paused = true)]
async fn threat_027_who_comes_by_ipv6_has_the_grants_of_that_address_or_none() {
    let source = Arc::new(Source::default());
    let (peer, own): (IpAddr, IpAddr) =
        ("fd7a:115c:a1e0::2".parse().unwrap(), "fd7a:115c:a1e0::1".parse().unwrap());
    guard(&source.people).extend([(peer, "bob@example.com"), (ip(2), "bob@example.com")]);
    let (cache, state) = cache(&source);
    let mut next = TailnetState::clone(&state.load());
    let mut running = crate::domain::Running::clone(next.running().unwrap());
    running.ips = vec![ip(1), own];
    next.phase = crate::domain::Phase::Running(Arc::new(running));
    state.store(Arc::new(next));
    let has_grants = |answer: Answer| {
        answer.verdict.unwrap().grants().is_some_and(|grants| grants.iter().next().is_some())
    };
    guard(&source.caps).replace("admin");
    assert!(has_grants(cache.identify(ip(2)).await), "by IPv4");
    assert!(!has_grants(cache.identify(peer).await), "the IPv4 address's grants count by IPv6");
    guard(&source.scoped).replace((own, "user"));
    assert!(has_grants(cache.identify_at_most(peer, Duration::ZERO).await), "the IPv6 address's do not");
}
