//! The gateway's own pages: small, without script, and inert whatever a name
//! contains.

use crate::domain::{Principal, Reason};

/// The content policy: one inline style by hash-free `style-src`, nothing else.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                          frame-ancestors 'none'";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:12vh auto;padding:0 1.5rem;\
color:#1c2024;background:#fbfcfd}h1{font-size:1.5rem;margin:0 0 1rem}dl{display:grid;grid-template-columns:auto 1fr;\
gap:.25rem 1rem;margin:1.5rem 0}dt{color:#60646c}dd{margin:0;overflow-wrap:anywhere}code{background:#eef0f3;\
border-radius:4px;padding:.1em .35em}small{color:#60646c}\
@media(prefers-color-scheme:dark){body{color:#edeef0;background:#111113}dt,small{color:#b0b4ba}code{background:#272a2d}}";

/// The page of a refusal: who they are, why, and what to do.
pub fn refusal(reason: Reason, principal: Option<&Principal>, request_id: &str) -> String {
    let mut facts = Vec::new();
    match principal {
        Some(Principal::User(user)) => {
            facts.push(("You are", user.login.as_str().to_owned()));
            if !user.display_name.is_empty() && user.display_name != user.login.as_str() {
                facts.push(("Name", user.display_name.clone()));
            }
            facts.push(("Device", user.node_name.clone()));
        }
        Some(Principal::Node(node)) => {
            facts.push(("You are", node.tags.join(", ")));
            facts.push(("Device", node.node_name.clone()));
        }
        Some(Principal::Proxy(user)) => facts.push(("You are", user.name.clone())),
        _ => {}
    }
    facts.push(("Reason", reason.code().to_owned()));
    facts.push(("Request", request_id.to_owned()));
    page(title(reason), reason.message(), &advice(reason, principal), &facts)
}

/// The page at `/` while no app is configured.
pub fn nothing_here(principal: &Principal) -> String {
    page(
        "The gateway is running",
        "No app is behind it yet.",
        "Put one there, for example the one on port 3000: <code>openclaw config set gateway.upstream 3000</code>",
        &[("You are", principal.label().into_owned())],
    )
}

fn title(reason: Reason) -> &'static str {
    match reason.status().as_u16() {
        401 => "Who are you?",
        403 => "Not for you",
        404 => "Nothing here",
        429 => "Too much at once",
        502 | 504 | 508 => "The app does not answer",
        503 => "Not right now",
        _ => "That did not work",
    }
}

/// What the person, or the owner they ask, can do. Trusted text with escaped
/// names.
fn advice(reason: Reason, principal: Option<&Principal>) -> String {
    match (reason, principal) {
        (Reason::NotAllowed, Some(Principal::User(user))) => format!(
            "Ask the owner of this gateway to let you in: <code>{}</code> has to be in \
             <code>gateway.access.allow</code>.",
            escape(user.login.as_str())
        ),
        (Reason::SharedUserNotListed, Some(Principal::User(user))) => format!(
            "You belong to another tailnet. To let you in, the owner of this gateway adds <code>{}</code> with \
             <code>shared: true</code> to <code>gateway.access.allow</code>.",
            escape(user.login.as_str())
        ),
        (Reason::TaggedNodeNotListed, Some(Principal::Node(node))) => format!(
            "To let machines with this tag in, the owner of this gateway adds <code>{}</code> to \
             <code>gateway.access.allow</code>.",
            escape(node.tags.first().map_or("tag:name", String::as_str))
        ),
        (Reason::UserIdChanged, _) => {
            "If the account was made anew on purpose, the owner can run <code>openclaw access unpin LOGIN</code>.".into()
        }
        (Reason::NodeExpired, _) => "Log this device in to Tailscale again: <code>tailscale up</code>.".into(),
        (Reason::WhoisUnavailable | Reason::TailscaleNotRunning | Reason::ServeStateUnknown, _) => {
            "The gateway keeps trying by itself. Its owner sees what is wrong at <code>/readyz</code> on that machine.".into()
        }
        (Reason::UpstreamUnreachable, _) => "Is the app running? The gateway tries again with every request.".into(),
        (Reason::TokenMissing | Reason::TokenMismatch | Reason::PasswordMissing | Reason::PasswordMismatch, _) => {
            "Open this page from a device on the tailnet, or send the secret as <code>Authorization: Bearer</code>.".into()
        }
        _ => String::new(),
    }
}

fn page(title: &str, message: &str, advice: &str, facts: &[(&str, String)]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} \u{2013} openclaw</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n\
         <p>{message}</p>\n"
    );
    if !advice.is_empty() {
        html.push_str(&format!("<p>{advice}</p>\n"));
    }
    html.push_str("<dl>");
    for (name, value) in facts {
        html.push_str(&format!("<dt>{name}</dt><dd>{}</dd>", escape(value)));
    }
    html.push_str("</dl>\n<small>openclaw gateway</small></body></html>\n");
    html
}

/// Makes text inert: markup, and characters that reorder or hide what is around
/// them.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.push('\u{fffd}')
            }
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_inert() {
        assert_eq!(escape("<img onerror=\"x\">&'"), "&lt;img onerror=&quot;x&quot;&gt;&amp;&#39;");
        assert_eq!(escape("a\u{202e}b\u{1b}[31m"), "a\u{fffd}b\u{fffd}[31m");
    }
}
