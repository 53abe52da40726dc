use super::support::*;
use crate::domain::HostMode;

/// The head an upstream gets for what a client sends.
async fn seen(gateway: &Gateway, app: &App, sent: &str) -> String {
    let mut client = gateway.client();
    client.send(sent).await;
    let mut wire = app.accept().await;
    let head = wire.head().await;
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    assert!(client.head().await.starts_with("http/1.1 200"));
    head
}

fn sorted(head: &str) -> Vec<&str> {
    let mut lines: Vec<_> = head.lines().skip(1).filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn threat_010_to_013_only_we_say_who_is_calling() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let sent = "GET /a?b=%20 HTTP/1.1\r\nHost: gw.example\r\nAccept: */*\r\n\
            Connection: close, Tailscale-User-Login, X-Forwarded-For, X-Request-Id\r\n\
            Tailscale-User-Login: mallory@example.com\r\nTailscale_User_Name: mallory\r\n\
            Tailscale-User-Profile-Pic: http://x\r\nX-Forwarded-For: 1.2.3.4\r\nX_Forwarded_Proto: gopher\r\n\
            X-Real-IP: 1.2.3.4\r\nREMOTE_USER: mallory\r\nX-Pomerium-User: mallory\r\nVia: 1.1 x\r\n\
            X-Request-Id: chosen\r\nTE: trailers\r\nProxy-Authorization: x\r\nX_Other: stays\r\n\r\n";
        let head = seen(&gateway, &app, sent).await;
        assert!(head.starts_with("get /a?b=%20 http/1.1\r\n"));
        let lines = sorted(&head);
        let (hop, rest): (Vec<&str>, Vec<&str>) =
            lines.into_iter().partition(|line| line.starts_with("x-openclaw-hop"));
        assert_eq!(hop.len(), 1);
        assert_eq!(
            rest,
            [
                "accept: */*",
                "host: gw.example",
                "tailscale-headers-info: https://tailscale.com/s/serve-headers",
                "tailscale-user-login: alice@example.com",
                "tailscale-user-name: =?utf-8?q?al=c3=afce?=",
                "x-forwarded-for: 100.64.0.2",
                "x-forwarded-host: gw.example",
                "x-forwarded-proto: https",
                "x-request-id: r1",
                "x_other: stays",
            ]
        );
    });
}

#[test]
fn threat_056_our_credentials_stay_and_the_apps_own_pass() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let sent = "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer app\r\nX-OpenClaw-Gateway-Token: t\r\n\
            Cookie: a=1; openclaw_session=s; b=2\r\n\r\n";
        let head = seen(&gateway, &app, sent).await;
        assert!(head.contains("\r\nauthorization: bearer app\r\n"), "{head}");
        assert!(head.contains("\r\ncookie: a=1; b=2\r\n"), "{head}");
        assert!(!head.contains("gateway-token"), "{head}");

        gateway.authorization_is_ours.set(true);
        let head = seen(&gateway, &app, sent).await;
        assert!(!head.contains("authorization"), "{head}");
    });
}

#[test]
fn the_host_is_the_validated_one_or_the_upstreams() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let head = seen(&gateway, &app, "GET http://gw.example/p HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(head.starts_with("get /p http/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nhost: gw.example\r\n"), "{head}");

        let mut route = app.route();
        std::sync::Arc::get_mut(&mut route.upstream).unwrap().host = HostMode::Upstream;
        let gateway = Gateway::new(route);
        let head = seen(&gateway, &app, GET).await;
        assert!(head.contains(&format!("\r\nhost: 127.0.0.1:{}\r\n", app.port())), "{head}");
        assert!(head.contains("\r\nx-forwarded-host: gw.example\r\n"), "{head}");
    });
}

#[test]
fn threat_015_request_trailers_go_nowhere() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client
            .send(
                "POST / HTTP/1.1\r\nHost: x\r\nTrailer: Authorization\r\nTransfer-Encoding: chunked\r\n\r\n\
                 2\r\nhi\r\n0\r\nAuthorization: Bearer forged\r\nTailscale-User-Login: m\r\n\r\n",
            )
            .await;
        let mut wire = app.accept().await;
        let head = wire.head().await;
        assert!(!head.contains("\r\ntrailer"), "{head}");
        assert_eq!(wire.until("0\r\n\r\n").await, "2\r\nhi\r\n0\r\n\r\n");
        wire.send(OK).await;
        client.head().await;
    });
}

#[test]
fn answers_lose_what_is_between_us_and_the_upstream() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        wire.head().await;
        wire.send(
            "HTTP/1.0 200 Fine\r\nContent-Length: 2\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
             Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nSet-Cookie: openclaw_session=evil\r\n\
             Set-Cookie: theirs=1\r\nClear-Site-Data: \"*\"\r\nLocation: http://elsewhere/\r\n\r\nok",
        )
        .await;
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 200 fine\r\n"), "{head}");
        let lines: Vec<_> = sorted(&head).into_iter().filter(|line| !line.starts_with("date:")).collect();
        assert_eq!(lines, ["content-length: 2", "location: http://elsewhere/", "set-cookie: theirs=1"]);
        assert_eq!(client.exactly(2).await, b"ok");
    });
}

#[test]
fn threat_068_a_loop_is_508() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let head = seen(&gateway, &app, GET).await;
        let id = head.lines().find_map(|line| line.strip_prefix("x-openclaw-hop: ")).unwrap();
        let mut client = gateway.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: x\r\nX-OpenClaw-Hop: {id}\r\n\r\n")).await;
        assert!(client.head().await.starts_with("http/1.1 508"));
    });
}

#[test]
fn expect_is_answered_here_and_not_passed_on() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await;
        let mut wire = app.accept().await;
        assert!(!wire.head().await.contains("expect"));
        assert!(client.head().await.starts_with("http/1.1 100"));
        client.send("hi").await;
        assert_eq!(wire.exactly(2).await, b"hi");
        wire.send(OK).await;
        assert!(client.head().await.starts_with("http/1.1 200"));
    });
}
