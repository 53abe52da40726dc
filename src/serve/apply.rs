//! Takes steps, one at a time: written down, taken, and looked at again.
//!
//! What a command says of itself counts for nothing here. After each edit the
//! configuration is read anew and planned for anew; it is over when there is nothing left
//! to do, or nothing that can be done now.

use std::time::Duration;

use openclaw_tailscale::EditError;

use super::backoff::jittered;
use super::hands::Hands;
use super::journal::{Entry, Journal, Phase};
use super::plan::{NodeFacts, Plan, Route, Step, plan};
use super::status::Trouble;

/// How often an edit is tried again that somebody else's edit got in the way of.
const RACES: u32 = 5;
/// The longest wait before that.
const RACED: Duration = Duration::from_millis(400);
/// More rounds than any sound run takes: one for each step, and one to look.
const ROUNDS: usize = 32;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// The last plan. What steps it has could not be taken.
    pub plan: Plan,
    /// What went wrong, and with which route.
    pub trouble: Vec<(Option<Route>, Trouble)>,
    /// Whether a unix target was refused for want of root or sudo.
    pub unix_refused: bool,
    /// The routes that were published, as far as the daemon said.
    pub published: Vec<Route>,
}

/// Brings what is published in line with what is wanted. `may_publish` has the last word
/// before a route is published.
///
/// # Errors
///
/// When the configuration or the journal cannot be read: then nothing was done.
pub async fn converge<H: Hands, J: Journal + Sync>(
    wanted: &[Route],
    node: &NodeFacts,
    hands: &mut H,
    journal: &J,
    may_publish: impl Fn(&Route) -> Result<(), Trouble> + Send,
) -> Result<Settled, Trouble> {
    let mut run = Run {
        node,
        hands,
        journal,
        settled: Settled::default(),
        given_up: Vec::new(),
        done: Vec::new(),
        races: 0,
    };
    for _ in 0..ROUNDS {
        let found = run.hands.read(node).await?;
        let entries = journal.entries().map_err(|error| Trouble::journal(&error))?;
        let plan = plan(wanted, &found, &entries, &run.hands.held(), node);
        run.note_without_effect(&plan.steps);
        let next: Vec<Step> = plan.steps.iter().filter(|step| !run.gave_up(step)).cloned().collect();
        run.settled.plan = plan;
        if next.is_empty() {
            return Ok(run.settled);
        }
        for step in next {
            let is_edit = step.is_edit();
            if let Step::Publish(route) = &step
                && let Err(trouble) = may_publish(route)
            {
                run.give_up(&step, Some(trouble));
                continue;
            }
            run.take(step, &entries).await;
            if is_edit {
                break;
            }
        }
    }
    let trouble =
        Trouble::new("serve_unstable", "the Serve configuration changes faster than it can be read");
    run.settled.trouble.push((None, trouble));
    Ok(run.settled)
}

/// Takes everything of ours away, and nothing else.
///
/// # Errors
///
/// As [`converge`].
pub async fn undo<H: Hands, J: Journal + Sync>(
    node: &NodeFacts,
    hands: &mut H,
    journal: &J,
) -> Result<Settled, Trouble> {
    converge(&[], node, hands, journal, |_| Ok(())).await
}

struct Run<'a, H, J> {
    node: &'a NodeFacts,
    hands: &'a mut H,
    journal: &'a J,
    settled: Settled,
    /// Steps that failed, or had no effect: not taken again.
    given_up: Vec<Step>,
    /// Edits that were reported done. One that is planned again was not.
    done: Vec<Step>,
    races: u32,
}

impl<H: Hands, J: Journal + Sync> Run<'_, H, J> {
    async fn take(&mut self, step: Step, entries: &[Entry]) {
        match &step {
            Step::Forget(entry) => {
                let struck = self.journal.strike(entry);
                self.noted(&step, struck);
            }
            Step::Confirm(entry) => {
                let put = self.journal.put(entry);
                self.noted(&step, put);
            }
            Step::Remove { entry, by_command } => {
                // Where this cannot be written it is still ours, as the journal says.
                let _ = self.journal.put(&entry.in_phase(Phase::Removing));
                let removed = self.hands.remove(entry, *by_command).await;
                self.edited(step, removed).await;
            }
            Step::Publish(route) => {
                let mut entry = Entry::intended(route, self.node);
                // Until it is seen closed, a Funnel that we opened is ours to close.
                entry.funnel |= entries.iter().any(|known| known.same_place(&entry) && known.funnel);
                if let Err(error) = self.journal.put(&entry) {
                    self.give_up(&step, Some(Trouble::journal(&error)));
                    return;
                }
                let published = self.hands.publish(route, self.node).await;
                self.edited(step, published).await;
            }
        }
    }

    /// A change of the journal alone. One that fails is tried with the next run.
    fn noted(&mut self, step: &Step, result: Result<(), String>) {
        let trouble = result.err().map(|error| Trouble::journal(&error));
        if trouble.is_some() {
            self.give_up(step, trouble);
        }
    }

    async fn edited(&mut self, step: Step, result: Result<(), EditError>) {
        match result {
            Ok(()) => {
                if let Step::Publish(route) = &step {
                    self.settled.published.push(route.clone());
                }
                self.done.push(step);
            }
            Err(EditError::Raced) if self.races < RACES => {
                self.races += 1;
                tokio::time::sleep(jittered(RACED)).await;
            }
            // It went by itself, or by somebody else's hand.
            Err(EditError::NoSuchMount) => self.give_up(&step, None),
            Err(error) => {
                let is_unix = matches!(&step, Step::Publish(route) if route.target.starts_with("unix:"));
                self.settled.unix_refused |= is_unix && matches!(error, EditError::NotAdmin);
                self.give_up(&step, Some(Trouble::from(&error)));
            }
        }
    }

    /// What was reported done and is planned again was not done.
    fn note_without_effect(&mut self, planned: &[Step]) {
        let (without, done) = std::mem::take(&mut self.done)
            .into_iter()
            .partition(|done: &Step| planned.iter().any(|step| step.is_same(done)));
        self.done = done;
        for step in without {
            let trouble = match &step {
                Step::Publish(route) => {
                    format!("{}{} is not served", self.node.host_port(route.port), route.path)
                }
                Step::Remove { entry, .. } | Step::Forget(entry) | Step::Confirm(entry) => {
                    format!("{}{} is served as before", entry.host_port, entry.mount)
                }
            };
            let trouble = format!("tailscale reported success, and {trouble}");
            self.give_up(&step, Some(Trouble::new("serve_not_verified", trouble)));
        }
    }

    fn gave_up(&self, step: &Step) -> bool {
        self.given_up.iter().any(|given_up| given_up.is_same(step))
    }

    fn give_up(&mut self, step: &Step, trouble: Option<Trouble>) {
        let route = match step {
            Step::Publish(route) => Some(route.clone()),
            Step::Forget(_) | Step::Confirm(_) | Step::Remove { .. } => None,
        };
        self.settled.trouble.extend(trouble.map(|trouble| (route, trouble)));
        self.given_up.push(step.clone());
    }
}

#[cfg(test)]
mod tests;
