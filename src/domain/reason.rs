//! Every way a request can be refused: one stable code and one status each.
//!
//! The table of rulings 2. Clients and logs see the code; nobody matches on
//! messages.

use http::StatusCode;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident, $message:literal;)*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason, for tests that walk the table.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable code, as in `{"error":{"code":...}}` and the log.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The status it is answered with.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// One sentence for the person who was refused. Says nothing that
            /// helps guessing.
            pub fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }
        }
    };
}

reasons! {
    /// Framing, header or target that no careful server accepts.
    BadRequest = "bad_request", BAD_REQUEST, "The request is malformed.";
    /// A path that two programs could read differently.
    BadPath = "bad_path", BAD_REQUEST, "The path contains an encoding that is not accepted.";
    /// An identity or forwarding header that occurs twice, is joined or empty.
    AmbiguousIdentityHeader = "ambiguous_identity_header", BAD_REQUEST, "An identity header is ambiguous.";
    /// Method that is never served (CONNECT, TRACE).
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "This method is not served.";
    /// Request target too long.
    UriTooLong = "uri_too_long", URI_TOO_LONG, "The request target is too long.";
    /// Too many or too large headers.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The request headers are too large.";

    /// No secret was sent and nothing else identified the caller.
    TokenMissing = "token_missing", UNAUTHORIZED, "A token is required.";
    /// A token was sent and is not ours.
    TokenMismatch = "token_mismatch", UNAUTHORIZED, "The token is wrong.";
    /// No password was sent and nothing else identified the caller.
    PasswordMissing = "password_missing", UNAUTHORIZED, "A password is required.";
    /// A password was sent and is not ours.
    PasswordMismatch = "password_mismatch", UNAUTHORIZED, "The password is wrong.";
    /// The mode has no secret configured, and nothing else identified the caller.
    SecretNotConfigured = "secret_not_configured", UNAUTHORIZED, "This way in has no secret configured.";
    /// Headers of Tailscale Serve from a connection that is not known to be Serve's.
    ServePeerUnattested = "serve_peer_unattested", UNAUTHORIZED, "This connection is not known to come from Tailscale Serve.";
    /// Serve named a source but no user.
    TailscaleUserMissing = "tailscale_user_missing", UNAUTHORIZED, "Tailscale named no user for this request.";
    /// The header and `whois` disagree.
    TailscaleUserMismatch = "tailscale_user_mismatch", UNAUTHORIZED, "The login header does not agree with Tailscale.";
    /// The address is nobody's on this tailnet.
    PeerUnknown = "peer_unknown", UNAUTHORIZED, "Tailscale does not know this address.";
    /// This machine itself, by its tailnet address.
    OwnAddress = "own_address", UNAUTHORIZED, "Requests from this machine itself carry no tailnet identity.";
    /// A tailnet peer that forwards for others.
    ProxiedPeer = "proxied_peer", UNAUTHORIZED, "The request was forwarded by a proxy that is not trusted.";
    /// Trusted-proxy mode and the peer is not in the list.
    TrustedProxyUntrustedSource = "trusted_proxy_untrusted_source", UNAUTHORIZED, "The request does not come from a trusted proxy.";
    /// Trusted-proxy mode, loopback peer, loopback not allowed.
    TrustedProxyLoopbackSource = "trusted_proxy_loopback_source", UNAUTHORIZED, "Loopback is not a trusted proxy here.";
    /// Trusted-proxy mode and the peer is one of this host's own addresses.
    TrustedProxyLocalInterfaceSource = "trusted_proxy_local_interface_source", UNAUTHORIZED, "This machine's own address is not a trusted proxy.";
    /// A required header is missing.
    TrustedProxyMissingHeader = "trusted_proxy_missing_header", UNAUTHORIZED, "The trusted proxy left out a required header.";
    /// The user header is missing or blank.
    TrustedProxyUserMissing = "trusted_proxy_user_missing", UNAUTHORIZED, "The trusted proxy named no user.";
    /// The forwarded chain names no client.
    ProxyAttributionRequired = "proxy_attribution_required", UNAUTHORIZED, "The client behind the proxy cannot be attributed.";

    /// Known, and not on the list.
    NotAllowed = "not_allowed", FORBIDDEN, "You are not on the list of this gateway.";
    /// Known and listed, but the route wants an admin.
    RoleRequired = "role_required", FORBIDDEN, "This route is for admins.";
    /// A person of another tailnet without an entry that says so.
    SharedUserNotListed = "shared_user_not_listed", FORBIDDEN, "People of other tailnets need an entry of their own.";
    /// A tagged machine without a tag entry.
    TaggedNodeNotListed = "tagged_node_not_listed", FORBIDDEN, "This tagged machine is not on the list.";
    /// The login now belongs to another user id.
    UserIdChanged = "user_id_changed", FORBIDDEN, "This login belongs to another user than before.";
    /// The device's key has expired.
    NodeExpired = "node_expired", FORBIDDEN, "This device's key has expired.";
    /// The device is jailed.
    NodeJailed = "node_jailed", FORBIDDEN, "This device may not open connections.";
    /// The device is not signed by the tailnet's lock.
    NodeUnsigned = "node_unsigned", FORBIDDEN, "This device is not signed.";
    /// The device forwards other machines' traffic.
    ViaRouter = "via_router", FORBIDDEN, "This device forwards traffic of others.";
    /// A page of another origin.
    OriginNotAllowed = "origin_not_allowed", FORBIDDEN, "This page may not call the gateway.";
    /// A page of another site, by Fetch metadata.
    CrossSite = "cross_site", FORBIDDEN, "Another site may not change anything here.";
    /// Plain HTTP where TLS is required.
    HttpsRequired = "https_required", FORBIDDEN, "This address is served over HTTPS.";
    /// A Funnel request for something that is not public.
    NotPublic = "not_public", FORBIDDEN, "This is not public.";
    /// Trusted-proxy mode and the user is not listed.
    TrustedProxyUserNotAllowed = "trusted_proxy_user_not_allowed", FORBIDDEN, "The proxy's user is not on the list.";
    /// Trusted-proxy mode and the connection is Tailscale's.
    TrustedProxyIsTailscaled = "trusted_proxy_is_tailscaled", FORBIDDEN, "Tailscale is not a trusted proxy.";

    /// No route matches.
    NoRoute = "no_route", NOT_FOUND, "Nothing is served here.";
    /// The Host is none of ours.
    HostNotAllowed = "host_not_allowed", MISDIRECTED_REQUEST, "This host name is not served here.";
    /// Locked out after too many wrong secrets.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many wrong attempts. Try again later.";
    /// The caller has as much open as they may.
    TooManyOpen = "too_many_open", TOO_MANY_REQUESTS, "You have too many connections open. Close some.";

    /// The app cannot be reached.
    UpstreamUnreachable = "upstream_unreachable", BAD_GATEWAY, "The app behind the gateway cannot be reached.";
    /// The app answered something that is not HTTP.
    UpstreamBadResponse = "upstream_bad_response", BAD_GATEWAY, "The app behind the gateway answered badly.";
    /// Somebody else listens where the app should.
    UpstreamOwnerMismatch = "upstream_owner_mismatch", BAD_GATEWAY, "Another user's program listens where the app should.";
    /// The app did not answer in time.
    UpstreamTimeout = "upstream_timeout", GATEWAY_TIMEOUT, "The app behind the gateway did not answer in time.";
    /// The request came round to us again.
    LoopDetected = "loop_detected", LOOP_DETECTED, "The gateway would call itself.";

    /// The look-up could not be made.
    WhoisUnavailable = "whois_unavailable", SERVICE_UNAVAILABLE, "Tailscale could not be asked who you are.";
    /// Too many look-ups are waiting.
    WhoisBusy = "whois_busy", SERVICE_UNAVAILABLE, "Too many unknown devices at once. Try again.";
    /// Tailscale is not running, or not known to be.
    TailscaleNotRunning = "tailscale_not_running", SERVICE_UNAVAILABLE, "Tailscale is not running on the gateway's machine.";
    /// The Serve configuration is not known yet.
    ServeStateUnknown = "serve_state_unknown", SERVICE_UNAVAILABLE, "The Serve configuration is not known yet.";
    /// Loopback proxies cannot be told from Tailscale's.
    TrustedProxyUnsafe = "trusted_proxy_unsafe", SERVICE_UNAVAILABLE, "A loopback proxy cannot be told from Tailscale here.";
    /// Mode `none` while loopback can be reached from the tailnet.
    ModeNoneExposed = "mode_none_exposed", SERVICE_UNAVAILABLE, "Mode none is not safe while others can reach loopback.";
    /// The gateway is stopping.
    Draining = "draining", SERVICE_UNAVAILABLE, "The gateway is stopping.";
}

impl Reason {
    /// The coarse type beside the code.
    pub fn kind(self) -> &'static str {
        match self.status().as_u16() {
            400 | 405 | 414 | 431 => "bad_request",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            421 => "misdirected",
            429 => "rate_limited",
            502 | 504 | 508 => "upstream",
            _ => "unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
    }

    #[test]
    fn a_lookup_that_failed_is_never_unauthorized() {
        for reason in [
            Reason::WhoisUnavailable,
            Reason::WhoisBusy,
            Reason::TailscaleNotRunning,
            Reason::ServeStateUnknown,
        ] {
            assert_eq!(reason.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
    }
}
