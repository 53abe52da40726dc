//! What is open.

use serde_json::{Value, json};

use super::{Place, fail, when};
use crate::cli::{Exit, output};
use crate::domain::{FunnelPhase, FunnelRow};

pub(super) fn run(place: &Place, as_json: bool) -> Exit {
    let gathered = place.db.funnel_rows().and_then(|rows| Ok((rows, place.is_attended()?)));
    let (rows, attended) = match gathered {
        Ok(gathered) => gathered,
        Err(error) => return fail(as_json, &error, None),
    };
    let now = super::unix_now();
    // What only ever was a question is nobody's business.
    let shown: Vec<&FunnelRow> = rows
        .iter()
        .filter(|row| matches!(row.phase, FunnelPhase::Confirmed | FunnelPhase::Open | FunnelPhase::Closing))
        .collect();
    if as_json {
        let funnels: Vec<Value> = shown.iter().map(|row| to_json(row, now)).collect();
        output::json(&json!({ "gatewayRuns": attended, "funnels": funnels }));
        return Exit::Ok;
    }
    if shown.is_empty() {
        output::line("Nothing is open to the internet.");
    }
    for row in shown {
        output::line(&text(row, now));
    }
    if !attended {
        output::warning("no gateway runs: nobody is let in");
    }
    Exit::Ok
}

fn state(row: &FunnelRow, now: i64) -> &'static str {
    match row.phase {
        _ if row.until.is_some_and(|until| until <= now) => "ended",
        FunnelPhase::Open => "open",
        FunnelPhase::Confirmed => "opening",
        _ => "closing",
    }
}

fn text(row: &FunnelRow, now: i64) -> String {
    let (url, route) = match &row.site {
        Some(site) => (site.url.as_str(), site.route.as_str()),
        None => ("-", "-"),
    };
    let until = row.until.map_or_else(|| "for ever".to_owned(), |until| format!("until {}", when(until)));
    let whom = if row.ask.open { "everybody" } else { "with the secret" };
    format!("{}  {url}  {until}, route {route}, {whom}, opened by {}", state(row, now), row.by)
}

fn to_json(row: &FunnelRow, now: i64) -> Value {
    json!({
        "state": state(row, now),
        "url": row.site.as_ref().map(|site| site.url.as_str()),
        "path": row.ask.path.as_str(),
        "port": row.ask.port,
        "route": row.site.as_ref().map(|site| site.route.as_str()),
        "open": row.ask.open,
        "openedAt": row.opened_at.map(when),
        "until": row.until.map(when),
        "by": row.by,
    })
}
