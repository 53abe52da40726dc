//! Exit codes, the same for every command.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Ok,
    /// 1: not done; also a change of the configuration that was refused.
    Failure,
    /// 2: the command line cannot be read.
    Usage,
    /// 3: there are findings at or above the level asked for.
    Findings,
    /// 78 (`EX_CONFIG`): the gateway does not start with this configuration.
    /// systemd is told not to restart on it.
    Config,
    /// What a program in our place would have ended with.
    Other(u8),
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Findings => 3,
            Self::Config => 78,
            Self::Other(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
