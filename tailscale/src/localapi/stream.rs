//! An answer that does not end: lines, as long as the connection lives.

use std::path::PathBuf;

use super::exchange::{Reading, broken};
use crate::Error;

/// One line of a stream.
pub(crate) enum Line {
    /// Without its line break.
    Text(Vec<u8>),
    /// Longer than the limit, and not kept.
    TooLong,
}

/// The open answer. Dropping it closes the connection, which the daemon notices at
/// once.
pub(crate) struct Stream {
    pub(super) command: &'static str,
    pub(super) socket: PathBuf,
    pub(super) reading: Reading,
    /// What came after the last line that was given out.
    pub(super) rest: Vec<u8>,
    /// The beginning of `rest` that has no line break in it.
    pub(super) searched: usize,
    /// Whether the line that is being read is too long already.
    pub(super) skipping: bool,
}

impl Stream {
    /// The next line, of at most `limit` bytes; nothing when the daemon has ended the
    /// stream between two lines. Nothing is lost when the future is dropped.
    pub(crate) async fn line(&mut self, limit: usize) -> Result<Option<Line>, Error> {
        loop {
            let unseen = self.rest.get(self.searched..).unwrap_or_default();
            if let Some(at) = unseen.iter().position(|byte| *byte == b'\n') {
                let after = self.rest.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.rest, after);
                line.pop();
                self.searched = 0;
                let long = std::mem::take(&mut self.skipping) || line.len() > limit;
                return Ok(Some(if long { Line::TooLong } else { Line::Text(line) }));
            }
            self.searched = self.rest.len();
            if self.rest.len() > limit {
                self.skipping = true;
            }
            if self.skipping {
                self.rest.clear();
                self.searched = 0;
            }
            match self.chunk().await? {
                Some(data) => self.rest.extend_from_slice(&data),
                None if self.rest.is_empty() && !self.skipping => return Ok(None),
                None => return Err(Error::StreamEnded { command: self.command }),
            }
        }
    }

    /// Reads to the end and keeps nothing; says what ended it.
    pub(crate) async fn drain(mut self) -> Error {
        loop {
            match self.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => return Error::StreamEnded { command: self.command },
                Err(error) => return error,
            }
        }
    }

    async fn chunk(&mut self) -> Result<Option<hyper::body::Bytes>, Error> {
        let chunk = self.reading.chunk().await;
        chunk.map_err(|error| broken(self.command, &self.socket, &error))
    }
}
