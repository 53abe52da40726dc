use super::*;
use crate::domain::identity::IdentityHeaders;
use crate::domain::{
    HostMode, ProxyUser, RoutePrefix, SecretKind, Timeouts, Upstream, UpstreamAddr, UpstreamKind,
};
use http::HeaderValue;

fn user(login: &str, id: i64) -> TailnetUser {
    TailnetUser {
        login: login.parse().unwrap(),
        user_id: id,
        display_name: login.into(),
        node_id: "n1".parse().unwrap(),
        node_name: "laptop".into(),
        addr: None,
        member: true,
        router: false,
        grants: TailnetGrants::default(),
        headers: IdentityHeaders {
            login: HeaderValue::from_static("x"),
            name: HeaderValue::from_static("x"),
            profile_pic: None,
        },
    }
}

fn entry(who: &str) -> AccessEntry {
    AccessEntry {
        who: who.parse().unwrap(),
        role: Role::User,
        routes: None,
        shared: false,
        via_router: false,
        until: None,
    }
}

fn route() -> Route {
    Route {
        name: "chat".parse().unwrap(),
        host: None,
        path: RoutePrefix::root(),
        strip: false,
        upstream: Arc::new(Upstream {
            addr: UpstreamAddr::Tcp { tls: false, host: "127.0.0.1".into(), port: 1 },
            base_path: String::new(),
            kind: UpstreamKind::Plain,
            host: HostMode::Preserve,
            identity_headers: Default::default(),
            owner_uid: None,
            ca_file: None,
            insecure_skip_verify: false,
        }),
        allow: None,
        role: Role::User,
        public: Public::No,
        guard: Default::default(),
        timeouts: Timeouts::default(),
    }
}

struct Case {
    route: Route,
    access: Access,
    owner: Option<Owner>,
    via: Via,
    pinned: Option<i64>,
}

impl Case {
    fn new(allow: &[AccessEntry]) -> Self {
        Self {
            route: route(),
            access: Access { owner: true, allow: allow.to_vec() },
            owner: Some(Owner { login: "alice@example.com".parse().unwrap(), user_id: 1 }),
            via: Via::Tailnet,
            pinned: None,
        }
    }

    fn ask(&self, principal: Principal) -> Result<Role, Reason> {
        let question = Question {
            principal,
            via: self.via,
            access: &self.access,
            owner: self.owner.as_ref(),
            pinned: self.pinned,
            now: 1000,
        };
        decide(&Arc::new(self.route.clone()), question).map(|permit| permit.role())
    }

    fn ask_user(&self, user: TailnetUser) -> Result<Role, Reason> {
        self.ask(Principal::User(Arc::new(user)))
    }
}

fn tagged(tags: &[&str]) -> Principal {
    Principal::Node(Arc::new(TailnetNode {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        node_id: "n2".parse().unwrap(),
        node_name: "ci".into(),
        addr: None,
        router: false,
        grants: TailnetGrants::default(),
    }))
}

#[test]
fn threat_059_an_empty_list_is_nobody_but_the_owner() {
    let case = Case::new(&[]);
    assert_eq!(case.ask_user(user("bob@example.com", 2)), Err(Reason::NotAllowed));
    assert_eq!(case.ask(tagged(&["tag:ci"])), Err(Reason::TaggedNodeNotListed));
    assert_eq!(case.ask_user(user("alice@example.com", 1)), Ok(Role::Admin));

    let closed = Case { access: Access { owner: false, allow: vec![] }, ..Case::new(&[]) };
    assert_eq!(closed.ask_user(user("alice@example.com", 1)), Err(Reason::NotAllowed));
    let ownerless = Case { owner: None, ..Case::new(&[]) };
    assert_eq!(ownerless.ask_user(user("alice@example.com", 1)), Err(Reason::NotAllowed));
}

#[test]
fn threat_020_logins_are_compared_by_ascii_case_only() {
    let case = Case::new(&[entry("bob@example.com")]);
    for login in
        ["bob@example.com.evil", "bob@example.com.", "b\u{f6}b@example.com", "bo\u{1d5bb}@example.com"]
    {
        assert_eq!(case.ask_user(user(login, 2)), Err(Reason::NotAllowed), "{login}");
    }
    assert_eq!(case.ask_user(user("Bob@Example.COM", 2)), Ok(Role::User));
}

#[test]
fn threat_022_people_of_other_tailnets_need_an_entry_that_says_shared() {
    let eve = || TailnetUser { member: false, ..user("alice@example.com", 9) };
    for allow in [
        vec![],
        vec![entry("alice@example.com")],
        vec![entry("*@example.com")],
        vec![entry("autogroup:member")],
    ] {
        assert_eq!(Case::new(&allow).ask_user(eve()), Err(Reason::SharedUserNotListed), "{allow:?}");
    }
    let member_shared = AccessEntry { shared: true, ..entry("autogroup:member") };
    assert_eq!(Case::new(&[member_shared]).ask_user(eve()), Err(Reason::SharedUserNotListed));
    let shared = AccessEntry { shared: true, ..entry("alice@example.com") };
    assert_eq!(Case::new(&[shared]).ask_user(eve()), Ok(Role::User));
}

#[test]
fn threat_022_a_login_with_another_user_id_is_somebody_else() {
    let mut case = Case::new(&[entry("bob@example.com")]);
    case.pinned = Some(2);
    assert_eq!(case.ask_user(user("bob@example.com", 7)), Err(Reason::UserIdChanged));
    assert_eq!(case.ask_user(user("bob@example.com", 2)), Ok(Role::User));
    case.pinned = None;
    assert_eq!(
        case.ask_user(user("alice@example.com", 99)),
        Err(Reason::NotAllowed),
        "the owner is an id too"
    );
}

#[test]
fn threat_023_odd_logins_match_no_domain_entry() {
    let case = Case::new(&[entry("*@example.com")]);
    for login in ["x@y@example.com", "@example.com", "example.com", "bob@sub.example.com", "tagged-devices"] {
        assert!(case.ask_user(user(login, 2)).is_err(), "{login}");
    }
    assert_eq!(case.ask_user(user("bob@EXAMPLE.com", 2)), Ok(Role::User));
}

#[test]
fn threat_024_a_tagged_machine_matches_tag_entries_only() {
    let people = Case::new(&[entry("*@example.com"), entry("autogroup:member"), entry("alice@example.com")]);
    assert_eq!(people.ask(tagged(&["tag:ci"])), Err(Reason::TaggedNodeNotListed));
    let tags = Case::new(&[entry("tag:ci")]);
    assert_eq!(tags.ask(tagged(&["tag:cd"])), Err(Reason::TaggedNodeNotListed));
    assert_eq!(tags.ask(tagged(&["tag:cd", "tag:ci"])), Ok(Role::User));
    assert_eq!(tags.ask_user(user("bob@example.com", 2)), Err(Reason::NotAllowed));
}

#[test]
fn threat_105_a_machine_that_forwards_others_needs_an_entry_that_says_so() {
    let router = || TailnetUser { router: true, ..user("bob@example.com", 2) };
    assert_eq!(Case::new(&[entry("bob@example.com")]).ask_user(router()), Err(Reason::ViaRouter));
    let owner = TailnetUser { router: true, ..user("alice@example.com", 1) };
    assert_eq!(Case::new(&[]).ask_user(owner.clone()), Err(Reason::ViaRouter));
    let said = AccessEntry { via_router: true, ..entry("alice@example.com") };
    assert_eq!(Case::new(&[said]).ask_user(owner), Ok(Role::Admin));
}

#[test]
fn threat_006_funnel_reaches_public_routes_only() {
    let holder = || Principal::SecretHolder { kind: SecretKind::Token, public: true };
    let mut case = Case { via: Via::Funnel, ..Case::new(&[]) };
    assert_eq!(case.ask(holder()), Err(Reason::NotPublic), "a right secret notwithstanding");
    assert_eq!(case.ask(Principal::Public), Err(Reason::NotPublic));
    case.route.public = Public::Secret;
    assert_eq!(case.ask(Principal::Public), Err(Reason::NotPublic));
    assert_eq!(case.ask(holder()), Ok(Role::User));
    case.route.role = Role::Admin;
    assert_eq!(case.ask(holder()), Err(Reason::RoleRequired));
    case.route.role = Role::User;
    case.route.public = Public::Open;
    assert_eq!(case.ask(Principal::Public), Ok(Role::User));
}

#[test]
fn an_open_route_takes_strangers_as_the_public() {
    let mut case = Case::new(&[]);
    case.route.public = Public::Open;
    let bob = || Principal::User(Arc::new(user("bob@example.com", 2)));
    assert_eq!(case.ask(bob()), Ok(Role::User));
    case.route.role = Role::Admin;
    assert_eq!(case.ask(bob()), Err(Reason::NotAllowed));
}

#[test]
fn roles_routes_and_ends_of_entries_are_kept() {
    let mut case =
        Case::new(&[AccessEntry { routes: Some(vec!["other".into()]), ..entry("bob@example.com") }]);
    assert_eq!(case.ask_user(user("bob@example.com", 2)), Err(Reason::NotAllowed));
    case.access.allow = vec![AccessEntry { until: Some(1000), ..entry("bob@example.com") }];
    assert_eq!(case.ask_user(user("bob@example.com", 2)), Err(Reason::NotAllowed));
    case.access.allow = vec![AccessEntry { until: Some(1001), ..entry("bob@example.com") }];
    assert_eq!(case.ask_user(user("bob@example.com", 2)), Ok(Role::User));
    case.route.role = Role::Admin;
    assert_eq!(case.ask_user(user("bob@example.com", 2)), Err(Reason::RoleRequired));
    case.access.allow.push(AccessEntry { role: Role::Admin, ..entry("*@example.com") });
    assert_eq!(case.ask_user(user("bob@example.com", 2)), Ok(Role::Admin), "the union of what matches");
}

#[test]
fn a_routes_own_list_replaces_the_gateways() {
    let mut case = Case::new(&[entry("bob@example.com")]);
    case.route.allow = Some(vec![entry("carol@example.com")]);
    assert_eq!(case.ask_user(user("bob@example.com", 2)), Err(Reason::NotAllowed));
    assert_eq!(case.ask_user(user("carol@example.com", 3)), Ok(Role::User));
    assert_eq!(case.ask_user(user("alice@example.com", 1)), Ok(Role::Admin));
}

#[test]
fn a_proxys_user_is_a_user_until_an_entry_raises_them() {
    let proxy = |name: &str| {
        Principal::Proxy(Arc::new(ProxyUser { name: name.into(), header: HeaderValue::from_static("x") }))
    };
    let case = Case::new(&[AccessEntry { role: Role::Admin, ..entry("proxy:bob") }]);
    assert_eq!(case.ask(proxy("Bob")), Ok(Role::User));
    assert_eq!(case.ask(proxy("bob")), Ok(Role::Admin));
}

fn granted(login: &str, id: i64, values: serde_json::Value) -> TailnetUser {
    let serde_json::Value::Array(values) = values else { panic!("a test's mistake") };
    TailnetUser { grants: TailnetGrants::read(&values), ..user(login, id) }
}

#[test]
fn threat_026_what_a_grant_does_not_say_is_refused() {
    use serde_json::json;
    let bob = |values| granted("bob@example.com", 2, values);
    let case = Case::new(&[]);
    for values in
        [json!([]), json!([{"role": "user", "routes": ["other"]}]), json!([{"role": "user", "routes": []}])]
    {
        assert_eq!(case.ask_user(bob(values.clone())), Err(Reason::NotAllowed), "{values}");
    }
    // Not for people of other tailnets, not through a router, unless it says so.
    let eve = TailnetUser { member: false, ..bob(json!([{"role": "admin"}])) };
    assert_eq!(case.ask_user(eve), Err(Reason::SharedUserNotListed));
    let router = TailnetUser { router: true, ..bob(json!([{"role": "admin"}])) };
    assert_eq!(case.ask_user(router), Err(Reason::ViaRouter));
    // A route with a list of its own is opened by its name only.
    let listed = Case { route: Route { allow: Some(Vec::new()), ..route() }, ..Case::new(&[]) };
    assert_eq!(listed.ask_user(bob(json!([{"role": "admin"}]))), Err(Reason::NotAllowed));
    assert_eq!(listed.ask_user(bob(json!([{"role": "user", "routes": ["chat"]}]))), Ok(Role::User));
    // The role of the route, the pinned id and the way in bind as ever.
    let admins = Case { route: Route { role: Role::Admin, ..route() }, ..Case::new(&[]) };
    assert_eq!(admins.ask_user(bob(json!([{"role": "user"}]))), Err(Reason::RoleRequired));
    let pinned = Case { pinned: Some(7), ..Case::new(&[]) };
    assert_eq!(pinned.ask_user(bob(json!([{"role": "user"}]))), Err(Reason::UserIdChanged));
    let public = Case { via: Via::Funnel, ..Case::new(&[]) };
    assert_eq!(public.ask_user(bob(json!([{"role": "admin"}]))), Err(Reason::NotPublic));
}

#[test]
fn threat_024_a_grant_speaks_of_tagged_machines_only_if_it_says_so() {
    use serde_json::json;
    let ci = |value: serde_json::Value| {
        let Principal::Node(node) = tagged(&["tag:ci"]) else { panic!("a test's mistake") };
        let node = TailnetNode { grants: TailnetGrants::read(&[value]), ..TailnetNode::clone(&node) };
        Case::new(&[]).ask(Principal::Node(Arc::new(node)))
    };
    assert_eq!(ci(json!({"role": "user"})), Err(Reason::TaggedNodeNotListed));
    assert_eq!(ci(json!({"role": "user", "tagged": true})), Ok(Role::User));
}

#[test]
fn grants_and_entries_add_up() {
    use serde_json::json;
    let both = json!([{"role": "user"}, {"role": "admin", "routes": ["chat"]}]);
    assert_eq!(Case::new(&[]).ask_user(granted("bob@example.com", 2, both)), Ok(Role::Admin));
    let listed = Case::new(&[entry("bob@example.com")]);
    assert_eq!(listed.ask_user(granted("bob@example.com", 2, json!([{"role": "admin"}]))), Ok(Role::Admin));
    assert_eq!(listed.ask_user(granted("bob@example.com", 2, json!(["?"]))), Ok(Role::User));
    let eve = granted("eve@example.com", 9, json!([{"role": "user", "shared": true, "viaRouter": true}]));
    let eve = TailnetUser { member: false, router: true, ..eve };
    assert_eq!(Case::new(&[]).ask_user(eve), Ok(Role::User));
}
