//! The state machine of one HTTP/1.1 byte stream. It looks and does not touch.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::FramingFault;
use super::chunked::Chunked;
use super::head::{BodyFraming, Head, HeadLimits, check, hopeless, overlong};

static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// Where in the stream the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// To a head, or to the pause before one.
    Head,
    /// To a body with so many bytes left.
    Body { left: u64, upgrade: bool },
    /// To a chunked body.
    Chunked { state: Chunked, upgrade: bool },
    /// Behind a request to switch protocols that is not answered yet.
    Undecided,
    /// To another protocol.
    Opaque,
    /// Nowhere: a fault came before it.
    Refused,
}

/// Why the machine stopped before the end of what it was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It did not.
    End,
    /// The rest is an unfinished head.
    Unfinished,
    /// The rest waits for the answer to a request to switch protocols.
    Undecided,
    /// The rest begins with a head that is refused.
    Fault(FramingFault),
    /// The rest breaks the body it is in.
    BrokenBody,
}

pub(super) struct Machine {
    pub(super) place: Place,
    limits: HeadLimits,
    /// How many heads were good so far.
    pub(super) heads: u64,
    /// The fault was inside a body.
    pub(super) broken: bool,
}

impl Machine {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self { place: Place::Head, limits, heads: 0, broken: false }
    }

    /// Moves over `data`, the next bytes of the stream, and says how many of
    /// them may be passed on. What may not must be shown again, with more behind
    /// it; the first `searched` bytes of an unfinished head are known not to
    /// contain its end.
    pub(super) fn feed(&mut self, data: &[u8], mut searched: usize) -> (usize, Stop) {
        let mut at = 0;
        loop {
            let rest = &data[at..];
            match &mut self.place {
                Place::Opaque => return (data.len(), Stop::End),
                Place::Undecided => {
                    return (at, if rest.is_empty() { Stop::End } else { Stop::Undecided });
                }
                // The guard asks no more; if it did, nothing would pass.
                Place::Refused => return (at, Stop::BrokenBody),
                _ if rest.is_empty() => return (at, Stop::End),
                Place::Head => match self.head(rest, std::mem::take(&mut searched)) {
                    Ok(Some(len)) => at += len,
                    Ok(None) => return (at, Stop::Unfinished),
                    Err(fault) => {
                        self.place = Place::Refused;
                        return (at, Stop::Fault(fault));
                    }
                },
                Place::Body { left, upgrade } => {
                    let skip = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                    at += skip;
                    *left -= skip as u64;
                    if *left == 0 {
                        self.place = after(*upgrade);
                    }
                }
                Place::Chunked { state, upgrade } => {
                    let (good, fault) = state.advance(rest);
                    at += good;
                    if fault {
                        self.place = Place::Refused;
                        self.broken = true;
                        return (at, Stop::BrokenBody);
                    }
                    if *state == Chunked::Done {
                        self.place = after(*upgrade);
                    }
                }
            }
        }
    }

    /// The length of the head at the start of `rest`, once it is all there.
    fn head(&mut self, rest: &[u8], searched: usize) -> Result<Option<usize>, FramingFault> {
        // An empty line before the head must not be taken for half of its end.
        let skip = if rest.starts_with(b"\r\n") { 2 } else { 0 };
        let from = searched.saturating_sub(3).max(skip);
        let within = &rest[..rest.len().min(self.limits.bytes)];
        let end = within.get(from..).and_then(|tail| END.find(tail));
        let Some(end) = end else {
            if within.len() == self.limits.bytes {
                return Err(overlong(within, &self.limits));
            }
            return if hopeless(within, searched.min(within.len())) || within.starts_with(b"\r\n\r\n") {
                Err(FramingFault::BadRequest)
            } else {
                Ok(None)
            };
        };
        let len = from + end + 4;
        let Head { body, upgrade } = check(&rest[..len], &self.limits)?;
        self.heads += 1;
        self.place = match body {
            BodyFraming::Length(0) => after(upgrade),
            BodyFraming::Length(left) => Place::Body { left, upgrade },
            BodyFraming::Chunked => Place::Chunked { state: Chunked::START, upgrade },
        };
        Ok(Some(len))
    }
}

fn after(upgrade: bool) -> Place {
    if upgrade { Place::Undecided } else { Place::Head }
}
