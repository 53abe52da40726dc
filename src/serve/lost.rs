//! What an edit by the command line may have taken from others. Pure.
//!
//! The command reads the configuration for itself and sends it back with that version, so
//! what somebody writes after its look is not lost. What they wrote between our look and
//! its own was not planned for. So the configurations before and after are compared.

use openclaw_tailscale::{Origin, ServeConfig};

use super::journal::Entry;
use super::plan::{place, port_of};

/// What was published before and is not any more, and is none of `ours`, each in words.
pub(super) fn lost(before: &ServeConfig, after: &ServeConfig, ours: &Entry) -> Vec<String> {
    let port = ours.port();
    let mut lost = Vec::new();
    let is_ours_site = |site: &str| site.eq_ignore_ascii_case(&ours.host_port);
    for handler in before.web_handlers() {
        let ours_mount = handler.mount.trim_end_matches('/') == ours.mount.trim_end_matches('/');
        let ours = is_ours_site(&handler.host_port) && ours_mount && handler.origin == Origin::Node;
        if !ours && lasts(&handler.origin) && !after.web_handlers().any(|now| now == handler) {
            lost.push(format!("{}{}", handler.host_port, handler.mount));
        }
    }
    for forward in before.tcp_forwards().filter(|forward| lasts(&forward.origin)) {
        if !after.tcp_forwards().any(|now| now == forward) {
            lost.push(format!("the TCP forward of port {} to {}", forward.port, place(&forward.target)));
        }
    }
    for site in before.funnel_hosts().filter(|site| lasts(&site.origin) && !is_ours_site(&site.host_port)) {
        if !after.funnel_hosts().any(|now| now == site) {
            lost.push(format!("the Funnel of {}", site.host_port));
        }
    }
    for listener in before.listeners().filter(|listener| lasts(&listener.origin)) {
        // Ours goes with its last mount.
        let needed = Some(listener.port) != port
            || after.web_handlers().any(|now| now.origin == Origin::Node && port_of(&now.host_port) == port);
        if needed && !after.listeners().any(|now| now == listener) {
            lost.push(format!("the listener of port {}", listener.port));
        }
    }
    lost
}

/// A session comes and goes with its own process.
fn lasts(origin: &Origin) -> bool {
    !matches!(origin, Origin::Foreground(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::model::{Model, Tcp, node, route};

    fn ours() -> Entry {
        Entry::intended(&route(), &node())
    }

    fn mounted(model: &mut Model, site: &str, mount: &str) {
        model.web.entry(site.into()).or_default().insert(mount.into(), "http://127.0.0.1:9000".into());
    }

    fn neighbours() -> Model {
        let mut model = Model::default();
        model.tcp.insert(443, Tcp::Https);
        model.tcp.insert(8443, Tcp::Https);
        model.tcp.insert(22, Tcp::Forward("127.0.0.1:22".into()));
        mounted(&mut model, "gw.example.ts.net:443", "/theirs");
        mounted(&mut model, "gw.example.ts.net:8443", "/");
        mounted(&mut model, "old.example.ts.net:443", "/");
        model.funnel.insert("gw.example.ts.net:8443".into());
        model
    }

    #[test]
    fn ours_may_come_and_go() {
        let (without, mut with) = (neighbours(), neighbours());
        with.publish(&route(), &node()).unwrap();
        assert_eq!(lost(&without.config(), &with.config(), &ours()), [""; 0]);
        assert_eq!(lost(&with.config(), &without.config(), &ours()), [""; 0]);
        let mut alone = Model::default();
        alone.publish(&route(), &node()).unwrap();
        assert_eq!(lost(&alone.config(), &Model::default().config(), &ours()), [""; 0]);
    }

    #[test]
    fn threat_069_whatever_of_others_is_missing_is_named() {
        type Harm = fn(&mut Model);
        let rows: [(Harm, &str); 5] = [
            (
                |model| drop(model.web.get_mut("gw.example.ts.net:443").unwrap().remove("/theirs")),
                "gw.example.ts.net:443/theirs",
            ),
            (|model| mounted_elsewhere(model), "gw.example.ts.net:8443/"),
            (|model| drop(model.tcp.remove(&22)), "the TCP forward of port 22 to 127.0.0.1:22"),
            (
                |model| assert!(model.funnel.remove("gw.example.ts.net:8443")),
                "the Funnel of gw.example.ts.net:8443",
            ),
            // As `off` does, where a site of another name needs it.
            (|model| drop(model.tcp.remove(&443)), "the listener of port 443"),
        ];
        for (harm, named) in rows {
            let mut after = neighbours();
            after.publish(&route(), &node()).unwrap();
            harm(&mut after);
            let lost = lost(&neighbours().config(), &after.config(), &ours());
            assert!(lost.contains(&named.to_owned()), "{named}: {lost:?}");
        }
    }

    fn mounted_elsewhere(model: &mut Model) {
        let mounts = model.web.get_mut("gw.example.ts.net:8443").unwrap();
        mounts.insert("/".into(), "http://127.0.0.1:1".into());
    }
}
