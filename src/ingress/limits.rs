//! How long and how large a connection may be before it has earned anything.

use std::time::Duration;

/// The bounds of every connection (threat rules 70, 71, 73, 74, 75).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From accept (or the end of the TLS handshake) to the first byte.
    pub first_byte: Duration,
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a head, or from accept for the first one, to its
    /// end.
    pub head: Duration,
    /// Between two requests of one connection.
    pub idle: Duration,
    /// Between two bytes of a request body that somebody is waiting for.
    pub body_idle: Duration,
    /// Without a byte of progress while a write is waiting for the client.
    pub write_stall: Duration,
    /// How long what a refused client still sends is read and thrown away, so
    /// that the refusal reaches it before a reset does.
    pub linger: Duration,
    /// The size of a request line and its headers.
    pub max_head_bytes: usize,
    /// The number of header lines. The HTTP/1.1 parser's own cap is 100, so
    /// more than that has no effect.
    pub max_headers: usize,
    /// The size of a request target.
    pub max_target_bytes: usize,
    /// Open connections of one worker, upgraded ones included; the newest
    /// beyond it is closed at accept.
    pub max_connections: usize,
    /// Connections of one worker and one peer (an IPv4 address, an IPv6 /64, or
    /// one tailnet address) that have not shown who they are. Loopback is not
    /// counted: everyone behind Tailscale Serve shares it.
    pub max_unproven_per_peer: usize,
    /// Streams at a time on an HTTP/2 connection.
    pub h2_max_streams: u32,
    /// The largest response part that waits for one HTTP/2 client.
    pub h2_send_buffer: usize,
    /// How often an HTTP/2 client is asked whether it is still there.
    pub h2_ping: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            body_idle: Duration::from_secs(30),
            write_stall: Duration::from_secs(60),
            linger: Duration::from_secs(1),
            max_head_bytes: 64 * 1024,
            max_headers: 100,
            max_target_bytes: 16 * 1024,
            max_connections: 16 * 1024,
            max_unproven_per_peer: 32,
            h2_max_streams: 128,
            h2_send_buffer: 64 * 1024,
            h2_ping: Duration::from_secs(30),
        }
    }
}
