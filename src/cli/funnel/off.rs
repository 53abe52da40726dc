//! Closing.

use std::time::Instant;

use serde_json::json;

use super::{LOOK, PATIENCE, Place, fail, unix_now};
use crate::cli::{Exit, output};
use crate::domain::{FunnelPhase, FunnelRow, RoutePrefix};

/// Closes what was opened at a path; without one, everything.
pub(super) fn run(place: &Place, path: Option<&RoutePrefix>, json: bool) -> Exit {
    match close(place, path) {
        Ok(closed) if closed.is_empty() => {
            let what = path.map_or_else(
                || "nothing is open to the internet".to_owned(),
                |path| format!("nothing is open at {}", path.as_str()),
            );
            fail(json, &what, Some("openclaw funnel status shows what is"))
        }
        Ok(closed) => {
            let urls: Vec<&str> = closed.iter().filter_map(url).collect();
            if json {
                output::json(&json!({ "ok": true, "closed": urls }));
            } else {
                for url in urls {
                    output::line(&format!("Closed: {url}"));
                }
            }
            Exit::Ok
        }
        Err(error) => fail(json, &error, None),
    }
}

fn close(place: &Place, path: Option<&RoutePrefix>) -> Result<Vec<FunnelRow>, String> {
    let rows = place.db.funnel_rows()?;
    let chosen: Vec<FunnelRow> = rows
        .into_iter()
        .filter(|row| matches!(row.phase, FunnelPhase::Confirmed | FunnelPhase::Open | FunnelPhase::Closing))
        .filter(|row| path.is_none_or(|path| *path == row.ask.path))
        .collect();
    for row in &chosen {
        place.db.funnel_close(row.id, unix_now())?;
    }
    let began = Instant::now();
    while !chosen.is_empty() {
        let left = place.db.funnel_rows()?;
        if !left.iter().any(|row| chosen.iter().any(|closed| closed.id == row.id)) {
            break;
        }
        if !place.is_attended()? {
            for row in &chosen {
                place.db.funnel_forget(row.id)?;
            }
            output::warning(
                "no gateway runs that could tell Tailscale: the port may stay open there, with nobody behind it, \
                 until the gateway is started again",
            );
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err(
                "the gateway lets nobody in there any more, but it does not say that Tailscale has closed \
                        the port; look at its log"
                    .to_owned(),
            );
        }
        std::thread::sleep(LOOK);
    }
    Ok(chosen)
}

fn url(row: &FunnelRow) -> Option<&str> {
    row.site.as_ref().map(|site| site.url.as_str())
}
