//! What the tests share: a gateway, a tailnet, an app behind, a client.

mod client;
pub(crate) mod frames;
mod gateway;
pub(crate) mod h2;
mod memory;
mod other_user;
mod public;
mod published;
mod sample_app;
mod serve;
mod stand_in;
pub(crate) mod tailnet;
mod tailscaled;
mod tls;
mod upstream;
mod wait;

pub(crate) use self::client::{Answer, Client, Wire};
pub(crate) use self::frames::header_of;
pub(crate) use self::gateway::{Gateway, Setup};
pub(crate) use self::memory::resident;
pub(crate) use self::other_user::{NOBODY, answer_as, leave_as, may_switch_user, speak_as, speak_bytes_as};
pub(crate) use self::public::{Public, PublicSocket};
pub(crate) use self::published::{BOTH, Published, TheirSession, await_failing, await_ready, failing};
pub(crate) use self::sample_app::SampleApp;
pub(crate) use self::serve::{BehindServe, HOST, route_to};
pub(crate) use self::stand_in::StandIn;
pub(crate) use self::tailnet::*;
pub(crate) use self::tailscaled::Tailscaled;
pub(crate) use self::tls::{Pair, TlsDir, TlsWire, client_config, tls_app};
pub(crate) use self::upstream::{Conn, Upstream};
pub(crate) use self::wait::{LIMIT, until, until_within};

/// A token of sound length.
pub(crate) const TOKEN: &str = "e2e-token-5c1f0a77b3d94e6f8a21";
