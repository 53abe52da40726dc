//! The listener side as a whole: real sockets, hyper, and a handler that says
//! what it was given.

mod http1;
mod http2;
mod limits;
pub(super) mod support;
