//! What the command line of `openclaw gateway run` says about the configuration.

use std::path::PathBuf;
use std::str::FromStr;

use super::{AuthMode, TailscaleMode, schema};
use crate::domain::Secret;

/// The words of `gateway.bind`, before the address of `custom` is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindWord {
    /// 127.0.0.1 and ::1.
    Loopback,
    /// Every IPv4 address.
    Lan,
    /// The tailnet addresses, and loopback.
    Tailnet,
    /// Every address in a container, loopback elsewhere.
    Auto,
    /// `gateway.customBindHost`.
    Custom,
}

/// A word that is none of those allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is none of {}", words.join(", "))]
pub struct WordError {
    text: String,
    words: &'static [&'static str],
}

macro_rules! word {
    ($type:ident, $words:path, $($word:literal => $variant:ident),+) => {
        impl FromStr for $type {
            type Err = WordError;

            fn from_str(text: &str) -> Result<Self, WordError> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(WordError { text: text.to_owned(), words: $words }),
                }
            }
        }

        impl $type {
            /// The word in the file.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

word!(BindWord, schema::BIND, "loopback" => Loopback, "lan" => Lan, "tailnet" => Tailnet, "auto" => Auto,
    "custom" => Custom);
word!(AuthMode, schema::AUTH_MODE, "none" => None, "token" => Token, "password" => Password,
    "trusted-proxy" => TrustedProxy);
word!(TailscaleMode, schema::TAILSCALE_MODE, "off" => Off, "serve" => Serve, "funnel" => Funnel);

/// The flags of `openclaw gateway run`. A flag that was not given is `None` or
/// false. No `Debug`: it may hold secrets.
#[derive(Clone, Default)]
pub struct GatewayFlags {
    /// `--config`: the file.
    pub config: Option<PathBuf>,
    /// `--port`; 0 is any free one.
    pub port: Option<u16>,
    /// `--bind`.
    pub bind: Option<BindWord>,
    /// `--auth`.
    pub auth: Option<AuthMode>,
    /// `--token`.
    pub token: Option<Secret>,
    /// `--token-file`.
    pub token_file: Option<PathBuf>,
    /// `--password`.
    pub password: Option<Secret>,
    /// `--password-file`.
    pub password_file: Option<PathBuf>,
    /// `--upstream`.
    pub upstream: Option<String>,
    /// `--tailscale`.
    pub tailscale: Option<TailscaleMode>,
    /// `--tailscale-bin`.
    pub tailscale_bin: Option<PathBuf>,
    /// `--tailscale-reset-on-exit`.
    pub tailscale_reset_on_exit: bool,
    /// `--verbose`: log level debug.
    pub verbose: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_no_bind_words() {
        assert!("0.0.0.0".parse::<BindWord>().is_err());
        assert!("Loopback".parse::<BindWord>().is_err());
        for word in schema::BIND {
            assert_eq!(word.parse::<BindWord>().unwrap().as_str(), *word);
        }
    }
}
