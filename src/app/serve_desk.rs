//! What `openclaw tailscale` does: the same look, plan and journal as the gateway's, from
//! another process. Two of them never edit at once, and what lives as long as the gateway
//! is left to the gateway.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openclaw_tailscale::Tailscale;
use tokio::sync::Notify;

use super::serve_route::{tie, wanted};
use crate::config::{Config, Env, TailscaleMode};
use crate::domain::{Running, ServeFacts, TailnetState};
use crate::ingress::{is_served_at, serve_dir, serve_socket};
use crate::serve::Wanted;
use crate::serve::{
    Choice, EditLock, Entry, Hands, Held, Ingress, Journal, NodeFacts, Plan, Settled, TailscaleHands,
    Trouble, choose_ingress, converge, may_publish, node_of, plan, routes, undo,
};
use crate::state_db::{StateDb, is_attended};
use crate::watch::{Finder, Interest, state_now};

/// Everything that was seen, once.
pub(crate) struct Desk {
    config: Config,
    tailscale: Tailscale,
    running: Arc<Running>,
    facts: ServeFacts,
    journal: StateDb,
    node: NodeFacts,
    unix: PathBuf,
}

/// What is planned, and by which choice.
pub(crate) struct Planned {
    /// The steps.
    pub(crate) plan: Plan,
    /// Where Serve is to lead.
    pub(crate) choice: Choice,
    /// Whether it lives only as long as the gateway runs.
    pub(crate) session: bool,
}

impl Desk {
    /// Looks.
    pub(crate) async fn open(config: Config, env: &Env) -> Result<Self, Trouble> {
        check_owner(&config.state_dir)?;
        let finder = Arc::new(Finder::new(super::locate_options(&config.gateway)));
        let interest = Interest { port: config.gateway.port, unix: None, ingress: None };
        let state = state_now(&finder, &interest).await.map_err(|error| Trouble::from(&error))?;
        let tailscale = finder.tailscale().ok_or_else(|| {
            Trouble::new("tailscale_not_installed", "there is no Tailscale on this machine")
        })?;
        let (running, facts) = known(&state)?;
        let node = node_of(&running)
            .ok_or_else(|| Trouble::new("serve_no_name", "this node has no name on the tailnet yet"))?;
        let journal = StateDb::open(&config.state_dir).map_err(|error| {
            Trouble::new("serve_journal_not_writable", crate::telemetry::chain(&error))
                .fix("make the state directory writable")
        })?;
        let dir = serve_dir(|name| env.get(name).map(Into::into), &config.state_dir);
        let mut desk = Self { config, tailscale, running, facts, journal, node, unix: serve_socket(&dir) };
        // The gateway may run in another environment, and its socket be elsewhere.
        if let Some(path) = desk.entries()?.iter().find_map(|entry| entry.target.strip_prefix("unix:")) {
            desk.unix = path.into();
        }
        Ok(desk)
    }

    /// This node.
    pub(crate) fn node(&self) -> &NodeFacts {
        &self.node
    }

    /// What Serve publishes.
    pub(crate) fn facts(&self) -> &ServeFacts {
        &self.facts
    }

    /// The journal's entries of this node.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, Trouble> {
        let entries =
            self.journal.entries().map_err(|error| Trouble::new("serve_journal_not_writable", error))?;
        Ok(entries.into_iter().filter(|entry| entry.node == self.node.key()).collect())
    }

    /// Whether a gateway runs: it attends to the state directory, or answers at the Serve
    /// ingress.
    pub(crate) fn gateway_runs(&self) -> bool {
        is_attended(&self.config.state_dir).unwrap_or(true) || is_served_at(&self.unix)
    }

    /// Whether the configuration wants a route at all.
    pub(crate) fn is_wanted(&self) -> bool {
        self.config.gateway.tailscale.mode != TailscaleMode::Off
    }

    /// What the configuration wants. What a running gateway opened to the internet stays
    /// its affair.
    fn wanted(&self) -> Result<Wanted, Trouble> {
        let entries = self.entries()?;
        let opened = entries.iter().filter(|entry| entry.funnel && self.gateway_runs());
        let public: BTreeSet<u16> = opened.filter_map(Entry::port).collect();
        Ok(wanted(&self.config.gateway, &public))
    }

    fn choice(&self) -> Result<Choice, Trouble> {
        let entries = self.entries()?;
        let port = entries.iter().filter(|entry| entry.session).find_map(|entry| {
            entry.target.strip_prefix("http://127.0.0.1:").and_then(|port| port.parse().ok())
        });
        // The port of a gateway that does not run is not known; that there would be one is.
        let port = port.unwrap_or(0);
        Ok(choose_ingress(
            &self.unix,
            port,
            self.config.gateway.tailscale.trust_local_users,
            &self.running,
            &self.facts,
        ))
    }

    /// What would be done.
    pub(crate) fn plan(&self) -> Result<Planned, Trouble> {
        let choice = self.choice()?;
        let routes = routes(&self.wanted()?, &choice);
        let session = matches!(choice.ingress, Some(Ingress::Loopback(_)));
        let entries = self.entries()?;
        let held = match self.gateway_runs() {
            true => Held::by_journal(&routes, &entries, &self.node),
            false => Vec::new(),
        };
        let plan = plan(&routes, &self.facts.config, &entries, &held, &self.node);
        Ok(Planned { plan, choice, session })
    }

    /// Does what is planned, as far as it outlives this process.
    pub(crate) async fn apply(&self) -> Result<Settled, Trouble> {
        let choice = self.choice()?;
        let routes = routes(&self.wanted()?, &choice);
        let has_program = self.tailscale.path().is_some();
        let (_lock, mut hands) = self.hands().await?;
        converge(&routes, &self.node, &mut hands, &self.journal, |route| {
            may_publish(route, &self.running, has_program)
        })
        .await
    }

    /// Takes away what is ours.
    pub(crate) async fn undo(&self) -> Result<Settled, Trouble> {
        let (_lock, mut hands) = self.hands().await?;
        undo(&self.node, &mut hands, &self.journal).await
    }

    async fn hands(&self) -> Result<(EditLock, impl Hands + use<>), Trouble> {
        let lock = EditLock::take(&self.config.state_dir)
            .await
            .map_err(|error| Trouble::new("serve_edit_locked", error.to_string()))?;
        Ok((lock, TailscaleHands::new(self.tailscale.clone(), tie(), Arc::new(Notify::new()))))
    }
}

/// Another user's files beside the gateway's, such as root's, would keep it out.
fn check_owner(state_dir: &Path) -> Result<(), Trouble> {
    let Ok(meta) = std::fs::metadata(state_dir) else { return Ok(()) };
    if meta.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let detail = format!("{} belongs to another user", state_dir.display());
    Err(Trouble::new("not_our_state", detail).fix(format!("run this as the user with uid {}", meta.uid())))
}

fn known(state: &TailnetState) -> Result<(Arc<Running>, ServeFacts), Trouble> {
    use crate::domain::Phase;
    match (&state.phase, state.serve_facts()) {
        (Phase::Running(running), Some(facts)) => Ok((running.clone(), facts.clone())),
        (Phase::Running(_), None) => {
            Err(Trouble::new("serve_state_unknown", "the Serve configuration cannot be read"))
        }
        (Phase::NotRunning { state }, _) => {
            let detail = format!("Tailscale is {}", state.as_str());
            let fix = state.as_error().and_then(|error| error.fix()).unwrap_or("tailscale up");
            Err(Trouble::new("tailscale_not_running", detail).fix(fix))
        }
        (Phase::Down { detail, fix, .. }, _) => {
            Err(Trouble { fix: fix.clone(), ..Trouble::new("whois_unavailable", detail.clone()) })
        }
        (Phase::Unknown, _) => Err(Trouble::new("whois_unavailable", "Tailscale did not answer")),
    }
}
