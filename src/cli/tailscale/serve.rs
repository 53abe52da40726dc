//! `openclaw tailscale serve`: what is published, what would be done, and doing it.

use clap::Subcommand;
use serde_json::{Value, json};

use super::super::{Exit, output};
use super::refuse;
use crate::app::serve_desk::{Desk, Planned};
use crate::config::{Config, Env};
use crate::serve::{Entry, Settled, Standing, Step, Trouble};

#[derive(Subcommand)]
pub(super) enum ServeCommand {
    /// What Serve publishes, and which of it is ours
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What would be done to publish the gateway as configured; changes nothing
    Plan {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Do it
    Apply {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take away what is ours, and nothing else
    Undo {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl ServeCommand {
    pub(super) fn as_json(&self) -> bool {
        match self {
            Self::Status { json } | Self::Plan { json } | Self::Apply { json } | Self::Undo { json } => *json,
        }
    }
}

pub(super) async fn run(command: ServeCommand, config: Config, env: &Env) -> Exit {
    let as_json = command.as_json();
    let done = match Desk::open(config, env).await {
        Ok(desk) => match command {
            ServeCommand::Status { .. } => status(&desk, as_json),
            ServeCommand::Plan { .. } => show_plan(&desk, as_json),
            ServeCommand::Apply { .. } => apply(&desk, as_json).await,
            ServeCommand::Undo { .. } => undo(&desk, as_json).await,
        },
        Err(trouble) => Err(trouble),
    };
    done.unwrap_or_else(|trouble| refuse(as_json, trouble.code, &trouble.detail, trouble.fix.as_deref()))
}

fn status(desk: &Desk, as_json: bool) -> Result<Exit, Trouble> {
    let (entries, config) = (desk.entries()?, &desk.facts().config);
    let mut mounts: Vec<Value> = Vec::new();
    let mut lines: Vec<String> = Vec::new();
    for handler in config.web_handlers() {
        let ours = entries.iter().any(|entry| entry.is(handler));
        let public = config.is_funnel(&handler.host_port);
        let target = handler.proxy.clone().or_else(|| handler.path.clone()).unwrap_or_else(|| "other".into());
        lines.push(format!(
            "{}{} -> {target}{}{}",
            handler.host_port,
            handler.mount,
            if ours { "  (ours)" } else { "" },
            if public { "  (public)" } else { "" },
        ));
        mounts.push(json!({
            "site": handler.host_port, "path": handler.mount, "target": target, "ours": ours, "public": public,
        }));
    }
    for forward in config.tcp_forwards() {
        lines.push(format!("port {} -> tcp {}", forward.port, forward.target));
        mounts.push(json!({"port": forward.port, "tcp": forward.target, "ours": false}));
    }
    if as_json {
        output::json(&json!({
            "ok": true, "published": mounts, "gatewayRuns": desk.gateway_runs(), "wanted": desk.is_wanted(),
        }));
    } else if lines.is_empty() {
        output::line("Serve publishes nothing.");
    } else {
        // Anybody who may edit the configuration chose these words.
        lines.iter().for_each(|line| output::line(&line.escape_debug().to_string()));
    }
    Ok(Exit::Ok)
}

fn show_plan(desk: &Desk, as_json: bool) -> Result<Exit, Trouble> {
    let planned = desk.plan()?;
    let blocked = planned.plan.standing.iter().any(|(_, standing)| matches!(standing, Standing::Blocked(_)))
        || (desk.is_wanted() && planned.choice.ingress.is_none());
    let edits: Vec<String> = planned.plan.steps.iter().filter_map(describe).collect();
    if as_json {
        let standing: Vec<Value> = planned
            .plan
            .standing
            .iter()
            .map(|(route, standing)| shown(desk, &route.url(&desk.node().name), standing))
            .collect();
        output::json(&json!({
            "ok": !blocked, "steps": edits, "routes": standing,
            "trouble": planned.choice.trouble.as_ref().map(json_of),
        }));
    } else {
        for (route, standing) in &planned.plan.standing {
            let word = match standing {
                Standing::Ours => "is published".to_owned(),
                Standing::ByHand => "is published by somebody, and used".to_owned(),
                Standing::Pending => "is to be published".to_owned(),
                Standing::Blocked(conflict) => format!("cannot be published: {conflict}"),
            };
            output::line(&format!("{} {word}", route.url(&desk.node().name)));
            if let Standing::Blocked(conflict) = standing {
                output::error(&format!("To mend it: {}", conflict.fix()));
            }
        }
        if edits.is_empty() && !blocked {
            output::line("Nothing is to be done.");
        }
        edits.iter().for_each(|edit| output::line(&format!("  {edit}")));
        if let Some(trouble) = &planned.choice.trouble {
            output::warning(&trouble.detail);
        }
        if planned.session && !desk.gateway_runs() {
            output::line("It is published while the gateway runs: openclaw gateway");
        }
    }
    Ok(if blocked { Exit::Failure } else { Exit::Ok })
}

async fn apply(desk: &Desk, as_json: bool) -> Result<Exit, Trouble> {
    if !desk.is_wanted() {
        return Err(Trouble::new(
            "serve_off",
            "gateway.tailscale.mode is off, so nothing is to be published",
        )
        .fix("openclaw config set gateway.tailscale.mode serve"));
    }
    let Planned { choice, session, plan } = desk.plan()?;
    if let (None, Some(trouble)) = (&choice.ingress, choice.trouble) {
        return Err(trouble);
    }
    if session {
        let served = plan.standing.iter().all(|(_, standing)| *standing == Standing::Ours);
        if desk.gateway_runs() && served {
            return done(as_json, "The running gateway publishes it.");
        }
        return Err(Trouble::new(
            "serve_needs_gateway",
            "this route is published for as long as the gateway runs, by the gateway itself",
        )
        .fix("openclaw gateway"));
    }
    let settled = desk.apply().await?;
    finish(&settled, as_json, || {
        let urls: Vec<String> =
            settled.plan.standing.iter().map(|(route, _)| route.url(&desk.node().name)).collect();
        let rest =
            if desk.gateway_runs() { "" } else { " (the gateway does not run: nothing answers there yet)" };
        format!("Published: {}{rest}", urls.join(", "))
    })
}

async fn undo(desk: &Desk, as_json: bool) -> Result<Exit, Trouble> {
    if desk.is_wanted() && desk.gateway_runs() {
        return Err(Trouble::new("serve_gateway_runs", "the running gateway would publish it again at once")
            .fix("openclaw config set gateway.tailscale.mode off"));
    }
    if desk.entries()?.is_empty() {
        return done(as_json, "Nothing of ours is published.");
    }
    let settled = desk.undo().await?;
    finish(&settled, as_json, || "Taken away.".to_owned())
}

fn finish(settled: &Settled, as_json: bool, said: impl FnOnce() -> String) -> Result<Exit, Trouble> {
    if let Some((_, trouble)) = settled.trouble.first() {
        return Err(trouble.clone());
    }
    for (_, standing) in &settled.plan.standing {
        if let Standing::Blocked(conflict) = standing {
            return Err(conflict.into());
        }
    }
    done(as_json, &said())
}

fn done(as_json: bool, said: &str) -> Result<Exit, Trouble> {
    if as_json {
        output::json(&json!({"ok": true, "message": said}));
    } else {
        output::line(said);
    }
    Ok(Exit::Ok)
}

/// An edit as a sentence; what only the journal sees is nobody's business.
fn describe(step: &Step) -> Option<String> {
    let place = |entry: &Entry| format!("{}{}", entry.host_port, entry.mount);
    match step {
        Step::Publish(route) => {
            Some(format!("publish port {} at {} -> {}", route.port, route.path, route.target))
        }
        Step::Remove { entry, .. } => Some(format!("take away {}", place(entry))),
        Step::Forget(_) | Step::Confirm(_) => None,
    }
}

fn shown(desk: &Desk, url: &str, standing: &Standing) -> Value {
    let (word, conflict) = match standing {
        Standing::Ours => ("ours", None),
        Standing::ByHand => ("by-hand", None),
        Standing::Pending => ("pending", None),
        Standing::Blocked(conflict) => ("blocked", Some(conflict)),
    };
    json!({
        "url": url, "standing": word, "node": desk.node().name,
        "conflict": conflict.map(ToString::to_string), "fix": conflict.map(|conflict| conflict.fix()),
    })
}

fn json_of(trouble: &Trouble) -> Value {
    json!({"code": trouble.code, "detail": trouble.detail, "fix": trouble.fix})
}
