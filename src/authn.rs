//! Who a request belongs to.
//!
//! An ordered list of schemes, each with three answers: not requested,
//! authenticated, failed. The first real answer decides; a failed credential
//! never falls through to a weaker one. The order is that of rulings 2: the
//! explicit secret, what a trusted proxy says, tailnet identity, then nobody.
//!
//! This room believes the [`crate::ingress`] facts and `whois`. Whether the
//! principal may do anything is the next room's business.

pub mod cache;
pub mod network;
pub mod proxy_user;
pub mod secret;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

pub use cache::{IdentityCache, Verdict, WorkerCache};

use crate::config::{Auth, AuthMode};
use crate::domain::{Exposure, Principal, Reason, TailnetState};
use crate::ingress::{Evidence, IngressFacts, Via};
use crate::limits::{Limiter, Subject};
use secret::{ForeignBearer, Presented, SecretAnswer, Secrets};

/// What one scheme says.
#[derive(Clone, Debug)]
pub enum SchemeAnswer {
    /// The request carries nothing for this scheme.
    NotRequested,
    /// It does, and it is good.
    Authenticated(Principal),
    /// It does, and it is not.
    Failed(Refusal),
}

/// A refusal, with what the answer's `Retry-After` should say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Present when waiting helps.
    pub retry_after: Option<Duration>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, retry_after: None }
    }
}

/// The names of the schemes, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemeName {
    /// Token or password.
    Secret,
    /// A trusted proxy's user header.
    TrustedProxy,
    /// `whois`.
    Tailscale,
    /// Mode none, from this machine.
    None,
    /// Nothing was needed.
    Public,
}

impl SchemeName {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::TrustedProxy => "trusted-proxy",
            Self::Tailscale => "tailscale",
            Self::None => "none",
            Self::Public => "public",
        }
    }
}

/// A settled request.
pub struct Authentication {
    /// Whose it is.
    pub principal: Principal,
    /// By which scheme.
    pub scheme: SchemeName,
    /// Whether `Authorization` carried our own secret and must not go upstream.
    pub strip_authorization: bool,
    /// A bearer beside it that is not ours. Forgiven once the request is
    /// permitted; until then it is a guess.
    pub foreign_bearer: Option<ForeignBearer>,
}

impl std::fmt::Debug for Authentication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by {}", self.principal.label(), self.scheme.as_str())
    }
}

impl Authentication {
    fn of(principal: Principal, scheme: SchemeName) -> Self {
        Self { principal, scheme, strip_authorization: false, foreign_bearer: None }
    }
}

/// Everything that authentication reads besides the request.
pub struct Context<'a> {
    /// `gateway.auth`.
    pub auth: &'a Auth,
    /// The digests of the secrets in force.
    pub secrets: &'a Secrets,
    /// The tailnet, as one snapshot.
    pub state: &'a TailnetState,
    /// The lockout table.
    pub limiter: &'a Arc<Limiter>,
    /// Whose budget a wrong secret is charged to.
    pub subject: Subject,
    /// This host's own addresses, which are never a trusted proxy.
    /// Unknown: no proxy but one on loopback can be told from this host.
    pub own_addresses: Option<&'a [std::net::IpAddr]>,
    /// Whether the request is for one of our own pages or endpoints, where a
    /// bearer can only be meant for us.
    pub own_route: bool,
    /// Whether the route admits anybody (`public: "open"`).
    pub open_route: bool,
}

/// Where identities come from: the per-worker cache in front of the shared one.
pub trait Identities {
    /// Who is behind a tailnet address.
    fn of_peer(&self, ip: std::net::IpAddr) -> impl Future<Output = Verdict>;
    /// Who is behind a loopback socket of tailscaled's. Never cached.
    fn of_socket(&self, socket: std::net::SocketAddr) -> impl Future<Output = Verdict>;
}

/// Runs the schemes in order.
///
/// # Errors
///
/// The refusal to answer with.
pub async fn authenticate(
    facts: &IngressFacts,
    headers: &HeaderMap,
    context: &Context<'_>,
    identities: &impl Identities,
) -> Result<Authentication, Refusal> {
    let presented = Presented::read(headers)?;

    if context.auth.mode == AuthMode::TrustedProxy {
        return trusted_proxy(facts, headers, &presented, context);
    }

    // 1. The explicit secret decides first, whoever the peer is.
    let bearer = match context.secrets.check(&presented, facts.via == Via::Funnel, context) {
        SecretAnswer::NotRequested => None,
        SecretAnswer::Authenticated { principal, bearer } => {
            let answer = Authentication::of(principal, SchemeName::Secret);
            return Ok(Authentication { strip_authorization: bearer, ..answer });
        }
        SecretAnswer::Failed(refusal) => return Err(refusal),
        // Perhaps the app's own. It counts as a wrong secret unless something
        // else lets the request through.
        SecretAnswer::ForeignBearer(bearer) => Some(bearer),
    };

    // 2. What the network knows.
    let network = if context.auth.allow_tailscale {
        network::authenticate(facts, context.state, identities).await
    } else {
        SchemeAnswer::NotRequested
    };
    let failed = match network {
        SchemeAnswer::Authenticated(principal) => {
            let answer = Authentication::of(principal, SchemeName::Tailscale);
            return Ok(Authentication { foreign_bearer: bearer, ..answer });
        }
        SchemeAnswer::Failed(refusal) => Some(refusal),
        SchemeAnswer::NotRequested => None,
    };
    // An open route admits anybody, also those whom nothing is known of. What
    // they send as a bearer is the app's; here it counts as a guess all the same,
    // since the internet can reach this.
    if context.open_route {
        return Ok(Authentication::of(Principal::Public, SchemeName::Public));
    }
    if let Some(bearer) = bearer {
        return Err(bearer.refuse());
    }
    if let Some(refusal) = failed {
        return Err(refusal);
    }

    // 3. Mode none: a process of this machine, and nothing that could be more.
    if context.auth.mode == AuthMode::None {
        return match context.state.loopback_exposure() {
            Exposure::Yes => Err(Reason::ModeNoneExposed.into()),
            Exposure::Unknown => Err(Reason::ServeStateUnknown.into()),
            Exposure::No if facts.local_direct => Ok(Authentication::of(Principal::Local, SchemeName::None)),
            Exposure::No => Err(evidence_reason(facts).unwrap_or(Reason::SecretNotConfigured).into()),
        };
    }
    Err(evidence_reason(facts).unwrap_or_else(|| missing(context.auth)).into())
}

/// Mode trusted-proxy: the proxy's word, or a password of a local process.
fn trusted_proxy(
    facts: &IngressFacts,
    headers: &HeaderMap,
    presented: &Presented<'_>,
    context: &Context<'_>,
) -> Result<Authentication, Refusal> {
    match proxy_user::authenticate(facts, headers, context.auth, context.own_addresses) {
        SchemeAnswer::Authenticated(principal) => Ok(Authentication::of(principal, SchemeName::TrustedProxy)),
        // A password is no second way in through the proxy (threat rule 19);
        // only a process of this machine, by no proxy at all, may use one.
        _ if facts.local_direct && presented.any() && context.auth.password.is_some() => {
            match context.secrets.check_password(presented, context) {
                SecretAnswer::Authenticated { principal, bearer } => {
                    let answer = Authentication::of(principal, SchemeName::Secret);
                    Ok(Authentication { strip_authorization: bearer, ..answer })
                }
                SecretAnswer::Failed(refusal) => Err(refusal),
                SecretAnswer::ForeignBearer(bearer) => Err(bearer.refuse()),
                SecretAnswer::NotRequested => Err(Reason::PasswordMissing.into()),
            }
        }
        SchemeAnswer::Failed(refusal) => Err(refusal),
        SchemeAnswer::NotRequested => Err(Reason::TrustedProxyUntrustedSource.into()),
    }
}

fn evidence_reason(facts: &IngressFacts) -> Option<Reason> {
    match facts.evidence {
        Evidence::None(reason) => reason,
        Evidence::Unavailable(reason) => Some(reason),
        _ => None,
    }
}

fn missing(auth: &Auth) -> Reason {
    match auth.mode {
        AuthMode::Password => Reason::PasswordMissing,
        _ if auth.token.is_none() => Reason::SecretNotConfigured,
        _ => Reason::TokenMissing,
    }
}

#[cfg(test)]
mod tests;
