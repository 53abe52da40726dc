//! Our own endpoints, on axum.
//!
//! `/healthz` and `/readyz` need no permit and are answered by
//! [`health`]; everything else takes an [`ApiPermit`] that the edge got from
//! [`crate::authz`], so an endpoint without a decision cannot be reached.

pub mod health;

use std::sync::Arc;

use axum::Router;
use axum::extract::Extension;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use crate::authz::ApiPermit;
use crate::domain::{Principal, Role};
use crate::ingress::Via;

/// What an endpoint knows of the request besides the request.
#[derive(Clone)]
pub struct Caller {
    /// The proof that they may.
    pub permit: Arc<ApiPermit>,
    /// By which way they came.
    pub via: Via,
}

/// The least role an own path takes. Paths that are not listed do not exist; the
/// edge asks here before it decides, and a test walks the table (threat rule 64).
pub fn least_role(path: &str) -> Option<Role> {
    ENDPOINTS.iter().find(|(known, _)| *known == path).map(|(_, role)| *role)
}

/// What a Prometheus reads. Answered by the edge, like the probes.
pub const METRICS: &str = "/_openclaw/metrics";

/// Every own path with its least role.
pub const ENDPOINTS: &[(&str, Role)] =
    &[("/", Role::User), ("/_openclaw/whoami", Role::User), (METRICS, Role::Admin)];

/// The endpoints.
pub fn router() -> Router {
    Router::new().route("/", get(home)).route("/_openclaw/whoami", get(whoami))
}

async fn home(Extension(caller): Extension<Caller>) -> Response {
    Html(crate::page::nothing_here(caller.permit.principal())).into_response()
}

async fn whoami(Extension(caller): Extension<Caller>) -> Response {
    let mut body = serde_json::json!({
        "who": caller.permit.principal().label(),
        "role": match caller.permit.role() { Role::Admin => "admin", Role::User => "user" },
        "via": caller.via.as_str(),
    });
    match caller.permit.principal() {
        Principal::User(user) => {
            body["login"] = user.login.as_str().into();
            body["name"] = user.display_name.as_str().into();
            body["device"] = user.node_name.as_str().into();
        }
        Principal::Node(node) => {
            body["tags"] = node.tags.clone().into();
            body["device"] = node.node_name.as_str().into();
        }
        _ => {}
    }
    axum::Json(body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_064_an_unlisted_own_path_has_no_role_and_so_no_way_in() {
        assert_eq!(least_role("/_openclaw/secret"), None);
        assert_eq!(least_role("/_openclaw/whoami/"), None);
        assert_eq!(least_role("/_openclaw/whoami"), Some(Role::User));
    }
}
