//! Opening: ask the gateway, announce the address, confirm, wait.

use std::io::{IsTerminal, Write, stderr, stdin};
use std::time::Instant;

use serde_json::json;

use super::{FunnelArgs, LOOK, PATIENCE, Place, fail, unix_now, when};
use crate::cli::{Exit, output};
use crate::domain::{BootMoment, FunnelAsk, FunnelPhase, FunnelRow, FunnelSite};
use crate::funnel::{OpenFor, boot_now};

pub(super) fn run(place: &Place, args: FunnelArgs) -> Exit {
    let Some(path) = args.path else { return fail(args.json, "--path is missing", None) };
    let ask = FunnelAsk { path, port: args.port, open: args.open };
    let asked = Asked { place, json: args.json, yes: args.yes, open_for: args.for_ };
    match asked.open(&ask) {
        Ok(exit) => exit,
        Err(Failed { message, fix }) => fail(args.json, &message, fix.as_deref()),
    }
}

struct Failed {
    message: String,
    fix: Option<String>,
}

impl From<String> for Failed {
    fn from(message: String) -> Self {
        Self { message, fix: None }
    }
}

struct Asked<'a> {
    place: &'a Place,
    json: bool,
    yes: bool,
    /// `None` is for ever.
    open_for: Option<OpenFor>,
}

impl Asked<'_> {
    fn open(&self, ask: &FunnelAsk) -> Result<Exit, Failed> {
        if !self.place.is_attended()? {
            return Err(not_running());
        }
        let db = &self.place.db;
        let id = db.funnel_ask(ask, &who(), unix_now())?;
        let site = match self.answer(id, &[FunnelPhase::Ready])? {
            Some(FunnelRow { site: Some(site), .. }) => site,
            _ => return Err(gone()),
        };
        self.announce(ask, &site);
        if !self.may_go_on() {
            db.funnel_forget(id)?;
            output::error("Nothing was opened.");
            return Ok(Exit::Failure);
        }
        let now = unix_now();
        let until = self.open_for.map(|open_for| now + open_for.0);
        let boot_until = self.open_for.and_then(|open_for| {
            boot_now().map(|now| BootMoment { seconds: now.seconds + open_for.0, ..now })
        });
        if !db.funnel_confirm(id, now, until, boot_until.as_ref())? {
            return Err(gone());
        }
        match self.answer(id, &[FunnelPhase::Open])? {
            Some(row) => self.tell(&row, &site),
            None => return Err(gone()),
        }
        Ok(Exit::Ok)
    }

    /// Waits for the gateway to bring the row into one of these phases. `None`: it is gone.
    fn answer(&self, id: i64, wanted: &[FunnelPhase]) -> Result<Option<FunnelRow>, Failed> {
        let began = Instant::now();
        loop {
            let row = self.place.db.funnel_rows()?.into_iter().find(|row| row.id == id);
            let Some(row) = row else { return Ok(None) };
            if wanted.contains(&row.phase) {
                return Ok(Some(row));
            }
            if row.phase == FunnelPhase::Refused {
                self.place.db.funnel_forget(id)?;
                let refusal = row.refusal.ok_or_else(gone)?;
                return Err(Failed { message: format!("not opened: {}", refusal.reason), fix: refusal.fix });
            }
            let attended = self.place.is_attended()?;
            if !attended || began.elapsed() > PATIENCE {
                // Not left behind: a later start of the gateway would open it.
                self.place.db.funnel_forget(id)?;
                if !attended {
                    return Err(not_running());
                }
                let message = "not opened: the gateway does not answer; look at its log".to_owned();
                return Err(message.into());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Before anything is published, and on stderr also where JSON was asked for.
    fn announce(&self, ask: &FunnelAsk, site: &FunnelSite) {
        let whom = if ask.open {
            "Everybody on the internet is let in there, without token or password: the app behind it has to check."
        } else {
            "Everybody on the internet can knock there; the token or password is needed to get in."
        };
        let until = match self.open_for {
            Some(open_for) => format!("until {} (to be closed by itself)", when(unix_now() + open_for.0)),
            None => "for ever: until openclaw funnel off".to_owned(),
        };
        output::error(&format!("To be opened: {} {until}", site.url));
        output::error(&format!("It leads to route {}. {whom}", site.route.as_str()));
        output::error(&format!(
            "The name {} becomes public: certificates are logged in public certificate transparency\n\
             logs, for good, and those who scan for new names find it within minutes.",
            site.host
        ));
    }

    fn may_go_on(&self) -> bool {
        if self.yes || !stdin().is_terminal() || !stderr().is_terminal() {
            return true;
        }
        let mut err = stderr().lock();
        let _ = write!(err, "Open it? [y/N] ").and_then(|()| err.flush());
        let mut answer = String::new();
        let read = stdin().read_line(&mut answer);
        read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
    }

    fn tell(&self, row: &FunnelRow, site: &FunnelSite) {
        if self.json {
            output::json(&json!({
                "ok": true,
                "url": site.url,
                "path": row.ask.path.as_str(),
                "port": row.ask.port,
                "route": site.route.as_str(),
                "open": row.ask.open,
                "until": row.until.map(when),
            }));
            return;
        }
        match row.until {
            Some(until) => output::line(&format!("Open until {}: {}", when(until), site.url)),
            None => output::line(&format!("Open: {}", site.url)),
        }
        output::line(&format!("To close it: openclaw funnel off --path {}", row.ask.path.as_str()));
    }
}

fn not_running() -> Failed {
    Failed {
        message:
            "not opened: no gateway runs with this state directory, and one has to be there for what comes in"
                .to_owned(),
        fix: Some("start it, then say this again: openclaw gateway".to_owned()),
    }
}

fn gone() -> Failed {
    "not opened: it was closed by another command".to_owned().into()
}

/// Who asks, for the log.
fn who() -> String {
    format!("uid {}", rustix::process::getuid().as_raw())
}
