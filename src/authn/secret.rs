//! The explicit secret: `X-OpenClaw-Gateway-Token` or `Authorization: Bearer`.
//!
//! Query strings, Basic and cookies of other names never count (rulings 2,
//! threat rule 54).

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, header};

use super::{Context, Refusal};
use crate::config::{Auth, AuthMode};
use crate::domain::{Principal, Reason, SecretDigest, SecretKind};
use crate::limits::{Attempt, CredentialClass, Guess, PendingGuess};

/// The header that can only be meant for us.
pub const SECRET_HEADER: HeaderName = HeaderName::from_static("x-openclaw-gateway-token");

/// What the request presents. Borrowed from its headers; never printed.
pub struct Presented<'a> {
    own: Option<&'a [u8]>,
    bearer: Option<&'a [u8]>,
}

impl<'a> Presented<'a> {
    /// Reads both headers. A blank value counts as none.
    ///
    /// # Errors
    ///
    /// 400 where either header occurs twice: one of the two would be a guess
    /// that nobody counts.
    pub fn read(headers: &'a HeaderMap) -> Result<Self, Reason> {
        let own = single(headers, &SECRET_HEADER)?.filter(|value| !value.is_empty());
        let bearer = single(headers, &header::AUTHORIZATION)?.and_then(bearer);
        Ok(Self { own, bearer })
    }

    /// Whether anything was presented.
    pub fn any(&self) -> bool {
        self.own.is_some() || self.bearer.is_some()
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Reason> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Reason::BadRequest);
    }
    Ok(first.map(|value| value.as_bytes().trim_ascii()))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") || !rest.first()?.is_ascii_whitespace() {
        return None;
    }
    let secret = rest.trim_ascii();
    (!secret.is_empty()).then_some(secret)
}

/// A bearer that is not ours, or was not looked at: the app's own, or a guess.
/// Dropped without being forgiven it counts as a guess.
pub struct ForeignBearer {
    guess: Result<PendingGuess, Duration>,
    kind: SecretKind,
}

impl ForeignBearer {
    /// The request is permitted without it: it was the app's own.
    pub fn forgive(self) {
        if let Ok(guess) = self.guess {
            guess.forgive();
        }
    }

    /// Nothing else let the request through: what to answer. It is counted.
    pub fn refuse(self) -> Refusal {
        match self.guess {
            Ok(counted_when_dropped) => {
                drop(counted_when_dropped);
                mismatch(self.kind).into()
            }
            Err(retry_after) => locked(retry_after),
        }
    }
}

/// What the secret scheme says.
pub enum SecretAnswer {
    /// Nothing was presented, or there is no secret to compare with.
    NotRequested,
    /// It is right. `bearer`: it came in `Authorization`.
    Authenticated {
        /// Its holder.
        principal: Principal,
        /// Whether it came in `Authorization`.
        bearer: bool,
    },
    /// It can only have been meant for us, and is wrong or locked out.
    Failed(Refusal),
    /// It may be the app's.
    ForeignBearer(ForeignBearer),
}

/// The digests of the secrets in force, made once per configuration.
pub struct Secrets {
    active: Option<(SecretKind, SecretDigest)>,
    password: Option<SecretDigest>,
}

impl Secrets {
    /// The secrets of a configuration. Only that of the active mode counts.
    pub fn new(auth: &Auth) -> Self {
        let password = auth.password.as_ref().map(|secret| secret.digest());
        let active = match auth.mode {
            AuthMode::Token => auth.token.as_ref().map(|secret| (SecretKind::Token, secret.digest())),
            AuthMode::Password => password.clone().map(|digest| (SecretKind::Password, digest)),
            AuthMode::None | AuthMode::TrustedProxy => None,
        };
        Self { active, password }
    }

    /// Whether the same secret is in force in both: what was opened with one is
    /// closed when it is replaced.
    pub fn same(a: &Self, b: &Self) -> bool {
        a.active == b.active && a.password == b.password
    }

    /// Checks what was presented against the active secret.
    pub fn check(&self, presented: &Presented<'_>, public: bool, context: &Context<'_>) -> SecretAnswer {
        match &self.active {
            Some((kind, digest)) => compare(*kind, digest, presented, public, context),
            None => SecretAnswer::NotRequested,
        }
    }

    /// Mode trusted-proxy: checks against the password, for a local process.
    pub fn check_password(&self, presented: &Presented<'_>, context: &Context<'_>) -> SecretAnswer {
        match &self.password {
            Some(digest) => compare(SecretKind::Password, digest, presented, false, context),
            None => SecretAnswer::NotRequested,
        }
    }
}

fn compare(
    kind: SecretKind,
    digest: &SecretDigest,
    presented: &Presented<'_>,
    public: bool,
    context: &Context<'_>,
) -> SecretAnswer {
    let right = |bearer| {
        let principal = Principal::SecretHolder { kind, public };
        SecretAnswer::Authenticated { principal, bearer }
    };
    let attempt = |candidate: &[u8]| {
        context.limiter.attempt(context.subject, CredentialClass::SharedSecret, Instant::now(), || {
            digest.matches(candidate)
        })
    };
    if let Some(own) = presented.own {
        return match attempt(own) {
            Attempt::Right => {
                // The same secret in both places is ours in both; any other
                // bearer beside it is the app's.
                right(presented.bearer.is_some_and(|bearer| digest.matches(bearer)))
            }
            Attempt::Wrong => SecretAnswer::Failed(mismatch(kind).into()),
            Attempt::Locked { retry_after } => SecretAnswer::Failed(locked(retry_after)),
        };
    }
    let Some(bearer) = presented.bearer else { return SecretAnswer::NotRequested };
    if context.own_route {
        return match attempt(bearer) {
            Attempt::Right => right(true),
            Attempt::Wrong => SecretAnswer::Failed(mismatch(kind).into()),
            Attempt::Locked { retry_after } => SecretAnswer::Failed(locked(retry_after)),
        };
    }
    // It may be the app's own. While locked nothing is compared; the app's own
    // still passes if the network knows who sends it.
    let class = CredentialClass::SharedSecret;
    let guess = context.limiter.guess(context.subject, class, Instant::now(), || digest.matches(bearer));
    match guess {
        Guess::Right => right(true),
        Guess::Pending(guess) => SecretAnswer::ForeignBearer(ForeignBearer { guess: Ok(guess), kind }),
        Guess::Unseen { retry_after } => {
            SecretAnswer::ForeignBearer(ForeignBearer { guess: Err(retry_after), kind })
        }
    }
}

fn mismatch(kind: SecretKind) -> Reason {
    match kind {
        SecretKind::Token => Reason::TokenMismatch,
        SecretKind::Password => Reason::PasswordMismatch,
    }
}

fn locked(retry_after: Duration) -> Refusal {
    Refusal { reason: Reason::RateLimited, retry_after: Some(retry_after) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_is_read_from_authorization() {
        for value in ["Basic abc", "Bearer", "Bearer ", "Bearerabc", "abc", "", "Token abc"] {
            assert!(bearer(value.as_bytes()).is_none(), "{value:?}");
        }
        assert_eq!(bearer(b"bEaReR  abc "), Some(&b"abc"[..]));
    }
}
