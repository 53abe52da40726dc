//! A daemon's Serve configuration for tests, edited as the real command line edits it.

use std::collections::{BTreeMap, BTreeSet};

use openclaw_tailscale::{ServeConfig, parse_serve_config};
use serde_json::{Map, Value, json};

use super::plan::{NodeFacts, Route};

/// The target of [`route`].
pub(super) const SOCKET: &str = "unix:/run/openclaw/serve.sock";

/// The node of these tests.
pub(super) fn node() -> NodeFacts {
    NodeFacts { id: "nGw".into(), tailnet: "example.com".into(), name: "gw.example.ts.net".into() }
}

/// What a gateway on it wants.
pub(super) fn route() -> Route {
    Route { https: true, port: 443, path: "/".into(), target: SOCKET.into(), session: false, funnel: false }
}

/// What a port listens for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tcp {
    Https,
    Http,
    Forward(String),
}

/// One configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) tcp: BTreeMap<u16, Tcp>,
    /// Site, mount, target.
    pub(super) web: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) funnel: BTreeSet<String>,
    pub(super) foreground: BTreeMap<String, Model>,
    pub(super) services: BTreeMap<String, Model>,
}

impl Model {
    pub(super) fn config(&self) -> ServeConfig {
        parse_serve_config(self.json().to_string().as_bytes()).unwrap()
    }

    fn json(&self) -> Value {
        let tcp: Map<String, Value> = self
            .tcp
            .iter()
            .map(|(port, tcp)| {
                let value = match tcp {
                    Tcp::Https => json!({"HTTPS": true}),
                    Tcp::Http => json!({"HTTP": true}),
                    Tcp::Forward(target) => json!({"TCPForward": target}),
                };
                (port.to_string(), value)
            })
            .collect();
        let handler = |(mount, target): (&String, &String)| (mount.clone(), json!({"Proxy": target}));
        let web: Map<String, Value> = self
            .web
            .iter()
            .map(|(site, mounts)| {
                let handlers: Map<String, Value> = mounts.iter().map(handler).collect();
                (site.clone(), json!({"Handlers": handlers}))
            })
            .collect();
        let inner = |models: &BTreeMap<String, Self>| -> Map<String, Value> {
            models.iter().map(|(name, model)| (name.clone(), model.json())).collect()
        };
        let funnel: Map<String, Value> = self.funnel.iter().map(|site| (site.clone(), json!(true))).collect();
        json!({
            "TCP": tcp, "Web": web, "AllowFunnel": funnel,
            "Foreground": inner(&self.foreground), "Services": inner(&self.services),
        })
    }

    /// `serve --bg` or `funnel --bg`; a foreground one goes into a session of its own.
    pub(super) fn publish(&mut self, route: &Route, node: &NodeFacts) -> Result<(), String> {
        let kind = if route.https { Tcp::Https } else { Tcp::Http };
        let site = node.host_port(route.port);
        if route.session {
            let taken = self.tcp.contains_key(&route.port)
                || self.foreground.values().any(|session| session.tcp.contains_key(&route.port));
            if taken {
                return Err(format!("listener already exists for port {}", route.port));
            }
            let mut session = Self::default();
            session.set(&site, route, kind);
            self.foreground.insert(format!("session of {}", route.target), session);
            return Ok(());
        }
        if self.foreground.values().any(|session| session.tcp.contains_key(&route.port)) {
            return Err(format!("foreground listener already exists for port {}", route.port));
        }
        match self.tcp.get(&route.port) {
            Some(other) if *other != kind => return Err("already serving another type".into()),
            _ => {}
        }
        self.set(&site, route, kind);
        Ok(())
    }

    fn set(&mut self, site: &str, route: &Route, kind: Tcp) {
        self.tcp.insert(route.port, kind);
        let mounts = self.web.entry(site.to_owned()).or_default();
        mounts.retain(|mount, _| mount.trim_end_matches('/') != route.path.trim_end_matches('/'));
        mounts.insert(route.path.clone(), route.target.clone());
        if route.funnel {
            self.funnel.insert(site.to_owned());
        } else {
            self.funnel.remove(site);
        }
    }

    /// `serve --set-path=… off`.
    pub(super) fn off(&mut self, node: &NodeFacts, port: u16, mount: &str) -> Result<(), &'static str> {
        let site = node.host_port(port);
        if matches!(self.tcp.get(&port), Some(Tcp::Forward(_))) {
            return Err("currently serving TCP");
        }
        let mounts = self.web.get_mut(&site).ok_or("handler does not exist")?;
        mounts.remove(mount).ok_or("handler does not exist")?;
        if mounts.is_empty() {
            self.web.remove(&site);
            self.tcp.remove(&port);
            self.funnel.remove(&site);
        }
        Ok(())
    }
}
