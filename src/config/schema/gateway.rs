//! The keys under `gateway` (gateway spec 1.2, rulings 3).

use super::{Field, Kind};
use Kind::{Bool, False, Int, List, Map, Object, OneOf, Secret, Text, Word};

const PORT: Kind = Int(1, 65535);
const MILLIS: Kind = Int(1, 86_400_000);
const TEXTS: Kind = List(&Text);

/// The words of `gateway.bind`.
pub(crate) const BIND: &[&str] = &["loopback", "lan", "tailnet", "auto", "custom"];
/// The words of `gateway.auth.mode`.
pub(crate) const AUTH_MODE: &[&str] = &["none", "token", "password", "trusted-proxy"];
/// The words of `gateway.tailscale.mode`.
pub(crate) const TAILSCALE_MODE: &[&str] = &["off", "serve", "funnel"];

pub(super) const GATEWAY: Kind = Object(&[
    Field::new("mode", Word(&["local", "remote"]), "only local runs a gateway here").or(r#""local""#),
    Field::new("port", PORT, "the port; OPENCLAW_GATEWAY_PORT and --port come first").or("18789"),
    Field::new("bind", Word(BIND), "which addresses to listen on").or(r#""loopback""#),
    Field::new("customBindHost", Text, "the IPv4 address of bind custom"),
    Field::new("auth", AUTH, "how callers without tailnet identity prove themselves"),
    Field::new("trustedProxies", TEXTS, "addresses or networks of reverse proxies").or("[]"),
    Field::new("allowRealIpFallback", Bool, "read X-Real-IP of a trusted proxy").or("false"),
    Field::new("tailscale", TAILSCALE, "Tailscale Serve and Funnel"),
    Field::new("tls", TLS, "TLS of our own"),
    Field::new("upstream", UPSTREAM, "the one app behind: a port, host:port, URL, unix:/path or object"),
    Field::new("routes", Map(&ROUTE), "several apps behind, by name"),
    Field::new("access", ACCESS, "who may use what"),
    Field::new("timeouts", TIMEOUTS, "how long upstreams may take"),
    Field::new("allowedHosts", TEXTS, "host names served besides our own").or("[]"),
    Field::new("requireHttps", Bool, "tailnet identity needs HTTPS").or("false"),
    Field::new("admin", ADMIN, "the origin of dashboard and admin API"),
    Field::new("log", LOG, "log lines"),
    Field::new("controlUi", CONTROL_UI, "the dashboard"),
    Field::new("http", HTTP, "HTTP endpoints and headers"),
    Field::new("tools", TOOLS, "the HTTP deny list"),
    Field::new("remote", REMOTE, "a gateway elsewhere, for clients only"),
    Field::new("reload", RELOAD, "whether a changed file takes effect by itself"),
]);

const AUTH: Kind = Object(&[
    Field::new("mode", Word(AUTH_MODE), "by token, password, trusted proxy or not at all"),
    Field::new("token", Secret, "the token; OPENCLAW_GATEWAY_TOKEN and --token come first"),
    Field::new("tokenFile", Text, "a file that holds the token"),
    Field::new("password", Secret, "the password; OPENCLAW_GATEWAY_PASSWORD and --password come first"),
    Field::new("passwordFile", Text, "a file that holds the password"),
    Field::new("allowTailscale", Bool, "whether tailnet identity signs in"),
    Field::new(
        "rateLimit",
        Object(&[
            Field::new("maxAttempts", Int(1, 1_000_000), "wrong secrets that lock out").or("10"),
            Field::new("windowMs", MILLIS, "within this time").or("60000"),
            Field::new("lockoutMs", MILLIS, "for this time").or("300000"),
            Field::new("exemptLoopback", Bool, "not from this machine itself").or("true"),
        ]),
        "lockout of clients that guess",
    ),
    Field::new(
        "trustedProxy",
        Object(&[
            Field::new("userHeader", Text, "the header that names the user"),
            Field::new("requiredHeaders", TEXTS, "headers that must be there too"),
            Field::new("allowUsers", TEXTS, "who is let in; nobody else is"),
            Field::new("allowLoopback", Bool, "false: a proxy on this machine is not believed"),
        ]),
        "mode trusted-proxy",
    ),
]);

const TAILSCALE: Kind = Object(&[
    Field::new("mode", Word(TAILSCALE_MODE), "whether we manage Serve or Funnel").or(r#""off""#),
    Field::new("bin", Text, "the tailscale program"),
    Field::new("socket", Text, "the LocalAPI socket"),
    Field::new("client", Word(&["auto", "cli", "localapi"]), "how Tailscale is asked").or(r#""auto""#),
    Field::new("resetOnExit", Bool, "undo our own Serve route when stopping").or("false"),
    Field::new("preserveFunnel", Bool, "accepted, without effect: foreign routes are always kept")
        .or("false"),
    Field::new("trustLocalUsers", Bool, "believe Serve headers of any local process").or("false"),
    Field::new(
        "serve",
        Object(&[
            Field::new(
                "scheme",
                Word(&["https", "http"]),
                "http only where the control server gives no certificates",
            )
            .or(r#""https""#),
            Field::new("port", PORT, "443, or 80 for http"),
            Field::new("path", Text, "the mount").or(r#""/""#),
        ]),
        "our Serve route",
    ),
]);

const TLS: Kind = Object(&[
    Field::new("enabled", Bool, "whether to serve TLS").or("false"),
    Field::new("source", Word(&["files", "self", "tailscale"]), "where the certificate comes from"),
    Field::new("certPath", Text, "PEM chain"),
    Field::new("keyPath", Text, "PEM key"),
    Field::new("caPath", Text, "PEM roots for clients of ours that check the certificate"),
    Field::new("autoGenerate", Bool, "make a self-signed certificate where no files are given").or("true"),
    Field::new("port", PORT, "of source tailscale").or("443"),
]);

/// `gateway.upstream` and a route's `upstream`.
pub(super) const UPSTREAM: Kind = OneOf(
    &[
        Text,
        PORT,
        Object(&[
            Field::new("url", OneOf(&[Text, PORT], UPSTREAM_FORMS), "where the app listens"),
            Field::new(
                "kind",
                Word(&["plain", "openclaw"]),
                "openclaw: a real OpenClaw gateway, signed in to for you",
            ),
            Field::new("tokenFile", Text, "a file with the token of a real OpenClaw gateway"),
            Field::new("host", Word(&["preserve", "upstream"]), "which Host the app sees"),
            Field::new(
                "identityHeaders",
                List(&Word(&["tailscale", "x-forwarded-user", "remote-user"])),
                "under which names the app learns who calls",
            ),
            Field::new("ownerUid", Int(0, 4_294_967_294), "the uid that must own the listener"),
            Field::new("caFile", Text, "PEM roots for an https app"),
            Field::new("insecureSkipVerify", Bool, "believe the app's certificate unseen"),
        ]),
    ],
    "a port, \"host:port\", a URL, \"unix:/path\" or an object with a url",
);

const UPSTREAM_FORMS: &str = "a port, \"host:port\", a URL or \"unix:/path\"";

const ROUTE: Kind = Object(&[
    Field::new("host", Text, "the only host name it answers to"),
    Field::new("path", Text, "the paths it covers"),
    Field::new("listen", PORT, "a port of its own"),
    Field::new("strip", Bool, "cut the path off before proxying"),
    Field::new("upstream", UPSTREAM, "the app"),
    Field::new("allow", List(&ENTRY), "who may use it, instead of gateway.access.allow"),
    Field::new("role", ROLE, "the least role it takes"),
    Field::new(
        "public",
        OneOf(&[False, Word(&["secret", "open"])], "false, \"secret\" or \"open\""),
        "through Funnel",
    ),
    Field::new(
        "guard",
        Object(&[Field::new("nonBrowserUpgrade", Bool, "programs may open WebSockets on tailnet identity")]),
        "the browser guard",
    ),
    Field::new("timeouts", TIMEOUTS_BARE, "how long this app may take"),
]);

const ROLE: Kind = Word(&["user", "admin"]);

const ACCESS: Kind = Object(&[
    Field::new("owner", Bool, "the owner of this machine's node is an admin").or("true"),
    Field::new("allow", List(&ENTRY), "everybody else; empty is nobody").or("[]"),
]);

const ENTRY: Kind = OneOf(
    &[
        Text,
        Object(&[
            Field::new("who", Text, "a login, *@domain, tag:name, autogroup:member or proxy:user"),
            Field::new("role", ROLE, "what they may do"),
            Field::new("routes", TEXTS, "which routes; all where absent"),
            Field::new("shared", Bool, "people of other tailnets too"),
            Field::new("viaRouter", Bool, "devices that forward others' traffic too"),
            Field::new("until", OneOf(&[Text, Int(0, i64::MAX)], UNTIL_FORMS), "when it ends"),
        ]),
    ],
    "a login, \"*@domain\", \"tag:name\", \"autogroup:member\", \"proxy:user\" or an object with a who",
);

const UNTIL_FORMS: &str = "a time such as \"2026-12-31T18:00:00Z\" or Unix seconds";

const TIMEOUTS: Kind = Object(&[
    Field::new("connectMs", MILLIS, "to accept a connection").or("5000"),
    Field::new("firstByteMs", MILLIS, "to begin an answer").or("600000"),
    Field::new("idleMs", MILLIS, "between two pieces of an answer").or("600000"),
]);

/// The same without defaults: a route's own fall back to the gateway's.
const TIMEOUTS_BARE: Kind = Object(&[
    Field::new("connectMs", MILLIS, "to accept a connection"),
    Field::new("firstByteMs", MILLIS, "to begin an answer"),
    Field::new("idleMs", MILLIS, "between two pieces of an answer"),
]);

const ADMIN: Kind = Object(&[Field::new("port", PORT, "gateway.port + 1 where absent")]);

const LOG: Kind = Object(&[
    Field::new("format", Word(&["auto", "json", "text"]), "auto: text on a terminal, else JSON")
        .or(r#""auto""#),
    Field::new("level", Word(&["error", "warn", "info", "debug", "trace"]), "how much").or(r#""info""#),
]);

const CONTROL_UI: Kind = Object(&[
    Field::new("enabled", Bool, "whether there is a dashboard").or("true"),
    Field::new("basePath", Text, "where it is").or(r#""""#),
    Field::new("allowedOrigins", TEXTS, "browser origins besides our own").or("[]"),
    Field::new("dangerouslyAllowHostHeaderOriginFallback", Bool, "accepted, without effect").or("false"),
    Field::new("allowInsecureAuth", Bool, "accepted, without effect").or("false"),
    Field::new("dangerouslyDisableDeviceAuth", Bool, "accepted, without effect").or("false"),
]);

const SWITCH: Kind = Object(&[Field::new("enabled", Bool, "whether it is served").or("false")]);

const HTTP: Kind = Object(&[
    Field::new(
        "endpoints",
        Object(&[
            Field::new("chatCompletions", SWITCH, "/v1/chat/completions"),
            Field::new("responses", SWITCH, "/v1/responses"),
        ]),
        "OpenAI-compatible endpoints",
    ),
    Field::new(
        "securityHeaders",
        Object(&[Field::new(
            "strictTransportSecurity",
            OneOf(&[Text, False], "the header's text, or false"),
            "Strict-Transport-Security",
        )]),
        "headers of our own pages",
    ),
]);

const TOOLS: Kind = Object(&[
    Field::new("allow", TEXTS, "taken off the deny list").or("[]"),
    Field::new("deny", TEXTS, "put on the deny list").or("[]"),
]);

const REMOTE: Kind = Object(&[
    Field::new("url", Text, "its address"),
    Field::new("token", Secret, "its token"),
    Field::new("password", Secret, "its password"),
    Field::new("tlsFingerprint", Text, "its certificate's SHA-256"),
]);

const RELOAD: Kind =
    Object(&[Field::new("mode", Word(&["hybrid", "hot", "restart", "off"]), "off: only at a restart")
        .or(r#""hybrid""#)]);
