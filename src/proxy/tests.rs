//! The room as a whole: a client's bytes in, an upstream's bytes out.

mod headers;
mod kept;
mod openclaw;
mod streams;
pub(crate) mod support;
mod timeouts;
mod transports;
mod websocket;
