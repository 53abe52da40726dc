//! The words every room shares: addresses, secrets, principals, routes, reasons.
//!
//! Nothing here does I/O, reads a clock or knows a request.

pub mod access;
pub mod addr;
pub mod funnel;
pub mod grants;
pub mod https_site;
pub mod identity;
pub mod reason;
pub mod rfc2047;
pub mod route;
pub mod secret;
pub mod strict_value;
pub mod tailnet;

pub use access::{Access, AccessEntry, Role, Who};
pub use addr::{ClientAddr, LocalAddr, PeerAddr};
pub use funnel::{
    BootMoment, FunnelAsk, FunnelGrant, FunnelGrants, FunnelPhase, FunnelRefusal, FunnelRow, FunnelSite, Now,
    Term,
};
pub use grants::{TailnetGrant, TailnetGrants};
pub use https_site::HttpsSite;
pub use identity::{Principal, ProxyUser, SecretKind, TailnetNode, TailnetUser};
pub use reason::Reason;
pub use route::{
    HostMode, Public, Route, RouteName, RoutePrefix, Timeouts, Upstream, UpstreamAddr, UpstreamKind,
};
pub use secret::{Secret, SecretDigest};
pub use tailnet::{
    AskDaemon, CleanSince, Exposure, FreshFacts, NodeAttributes, Owner, Phase, Running, ServeFacts,
    ServeView, TailnetState,
};
