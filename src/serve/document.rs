//! One exact edit of the Serve configuration, as it is sent to the LocalAPI.
//!
//! More exact than the command line: it knows every name, leaves a listener that a site of
//! another name needs, and is refused if anybody else wrote since it was read.

use openclaw_tailscale::{Error, Origin, ServeDocument, WebHandler};
use serde_json::json;

use super::journal::Entry;
use super::plan::{NodeFacts, Route, port_of};

/// Puts a background route in.
pub(super) fn publish(document: &mut ServeDocument, route: &Route, node: &NodeFacts) -> Result<(), Error> {
    let config = document.config()?;
    let (port, site) = (route.port.to_string(), node.host_port(route.port));
    let listens =
        |port| config.listeners().any(|listener| listener.port == port && listener.origin == Origin::Node);
    if !listens(route.port) {
        let scheme = if route.https { "HTTPS" } else { "HTTP" };
        document.set(&["TCP", &port], &json!({scheme: true}))?;
    }
    document.set(&["Web", &site, "Handlers", &route.path], &json!({"Proxy": route.target}))?;
    if route.funnel {
        document.set(&["AllowFunnel", &site], &true)?;
    } else {
        document.remove(&["AllowFunnel", &site])?;
    }
    Ok(())
}

/// Takes an entry of ours out; false where it is not there.
pub(super) fn remove(document: &mut ServeDocument, entry: &Entry) -> Result<bool, Error> {
    let config = document.config()?;
    let Some(ours) = config.web_handlers().find(|handler| entry.is(handler)) else { return Ok(false) };
    if let Origin::Foreground(session) = &ours.origin {
        return document.remove(&["Foreground", session]);
    }
    let site = &ours.host_port;
    document.remove(&["Web", site, "Handlers", &ours.mount])?;
    let of_node = |handler: &&WebHandler| {
        handler.origin == Origin::Node && !(handler.host_port == *site && handler.mount == ours.mount)
    };
    let mut left = config.web_handlers().filter(of_node);
    if !left.any(|handler| handler.host_port == *site) {
        document.remove(&["AllowFunnel", site])?;
    }
    let Some(port) = entry.port() else { return Ok(true) };
    let needed =
        config.web_handlers().filter(of_node).any(|handler| port_of(&handler.host_port) == Some(port));
    let is_ours = |https: bool, http: bool| https == entry.https && http != entry.https;
    let listener =
        config.listeners().find(|listener| listener.port == port && listener.origin == Origin::Node);
    if !needed && listener.is_some_and(|listener| is_ours(listener.https, listener.http)) {
        document.remove(&["TCP", &port.to_string()])?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::journal::Phase;
    use crate::serve::model::{node, route};

    fn entry() -> Entry {
        Entry::intended(&route(), &node()).in_phase(Phase::Placed)
    }

    /// Publishes, takes away again, and gives both documents.
    #[track_caller]
    fn there_and_back(text: &str, route: &Route) -> (String, String) {
        let mut document = ServeDocument::parse(text.as_bytes()).unwrap();
        publish(&mut document, route, &node()).unwrap();
        let published = document.to_json();
        assert!(remove(&mut document, &Entry::intended(route, &node())).unwrap());
        (published, document.to_json())
    }

    #[test]
    fn threat_069_there_and_back_is_byte_for_byte_the_same() {
        for others in [
            "{}",
            r#"{"TCP":{"22":{"TCPForward":"127.0.0.1:22"}},"New":{"x":1.50}}"#,
            r#"{"TCP":{"443":{"HTTPS":true,"Later":1}},"Web":{"gw.example.ts.net:443":{"Handlers":{"/theirs":{"Proxy":"http://127.0.0.1:9000","Later":[2]}}}}}"#,
            r#"{"TCP":{"443":{"HTTPS":true}},"Web":{"old.example.ts.net:443":{"Handlers":{"/":{"Text":"hi"}}}}}"#,
            r#"{"Services":{"svc:x":{"TCP":{"443":{"HTTPS":true}}}},"Foreground":{"1f":{"TCP":{"8443":{"HTTPS":true}}}}}"#,
        ] {
            let (published, after) = there_and_back(others, &route());
            assert_ne!(published, others);
            assert_eq!(after, others);
        }
    }

    #[test]
    fn a_site_of_an_old_name_is_taken_out_by_that_name() {
        let text = r#"{"TCP":{"443":{"HTTPS":true}},"Web":{"old.example.ts.net:443":{"Handlers":{"/":{"Proxy":"unix:/run/openclaw/serve.sock"}}},"gw.example.ts.net:443":{"Handlers":{"/x":{"Text":"theirs"}}}}}"#;
        let mut document = ServeDocument::parse(text.as_bytes()).unwrap();
        let old = Entry { host_port: "old.example.ts.net:443".into(), ..entry() };
        assert!(!remove(&mut document, &entry()).unwrap(), "of the new name there is none");
        assert!(remove(&mut document, &old).unwrap());
        let left = r#"{"TCP":{"443":{"HTTPS":true}},"Web":{"gw.example.ts.net:443":{"Handlers":{"/x":{"Text":"theirs"}}}}}"#;
        assert_eq!(document.to_json(), left);
    }

    #[test]
    fn funnel_is_opened_and_closed_with_the_route() {
        let open = Route { funnel: true, ..route() };
        let (published, after) = there_and_back("{}", &open);
        assert!(published.contains(r#""AllowFunnel":{"gw.example.ts.net:443":true}"#), "{published}");
        assert_eq!(after, "{}");
        let mut document = ServeDocument::parse(published.as_bytes()).unwrap();
        publish(&mut document, &route(), &node()).unwrap();
        assert!(!document.to_json().contains("AllowFunnel"));
    }

    #[test]
    fn a_session_that_was_left_behind_goes_as_a_whole() {
        let text = r#"{"Foreground":{"1f":{"TCP":{"443":{"HTTPS":true}},"Web":{"gw.example.ts.net:443":{"Handlers":{"/":{"Proxy":"http://127.0.0.1:4000"}}}}},"2f":{"TCP":{"8443":{"HTTPS":true}}}}}"#;
        let mut document = ServeDocument::parse(text.as_bytes()).unwrap();
        let entry = Entry { session: true, target: "http://127.0.0.1:4000".into(), ..entry() };
        let of = |id: &str| Entry { session_id: Some(id.into()), ..entry.clone() };
        // One of another id is somebody else's, though it leads to the same place.
        assert!(!remove(&mut document, &entry).unwrap());
        assert!(!remove(&mut document, &of("2f")).unwrap());
        assert!(remove(&mut document, &of("1f")).unwrap());
        assert_eq!(document.to_json(), r#"{"Foreground":{"2f":{"TCP":{"8443":{"HTTPS":true}}}}}"#);
    }
}
