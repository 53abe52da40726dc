//! What the tailnet's own policy lets a peer do here: app grants of the capability
//! `openclaw.ai/cap/gateway`.
//!
//! A policy file grants them next to the network rule:
//! `"app": {"openclaw.ai/cap/gateway": [{"role": "user", "routes": ["chat"]}]}`.
//! Several grants add up, and none takes anything away (tailscale spec 9). One that
//! cannot be read ends all of them: what was meant is not known (threat rule 26).

use serde_json::Value;

use super::Role;

/// The capability's name.
pub const CAPABILITY: &str = "openclaw.ai/cap/gateway";
/// The most bytes of its value that are looked at.
const MAX_BYTES: usize = 64 * 1024;
/// The most grants.
const MAX_GRANTS: usize = 64;

/// One grant. Like an entry of `gateway.access.allow`, it speaks of people of other
/// tailnets, of devices that forward others' traffic and of tagged machines only if
/// it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailnetGrant {
    /// What they may do.
    pub role: Role,
    /// Route names they may use; `None` is every route without a list of its own.
    pub routes: Option<Vec<String>>,
    /// Whether it also speaks of people of other tailnets.
    pub shared: bool,
    /// Whether it also speaks of devices that forward others' traffic.
    pub via_router: bool,
    /// Whether it also speaks of tagged machines.
    pub tagged: bool,
}

/// The grants of one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TailnetGrants {
    grants: Vec<TailnetGrant>,
    ignored: Option<String>,
}

impl TailnetGrants {
    /// Reads the capability's value, as `whois` has it in `CapMap`.
    pub fn read(values: &[Value]) -> Self {
        match read(values) {
            Ok(grants) => Self { grants, ignored: None },
            Err(why) => Self { grants: Vec::new(), ignored: Some(why) },
        }
    }

    /// The grants; none where one of them could not be read.
    pub fn iter(&self) -> impl Iterator<Item = &TailnetGrant> {
        self.grants.iter()
    }

    /// Why they are all ignored, for the log.
    pub fn ignored(&self) -> Option<&str> {
        self.ignored.as_deref()
    }
}

fn read(values: &[Value]) -> Result<Vec<TailnetGrant>, String> {
    if values.len() > MAX_GRANTS {
        return Err(format!("more than {MAX_GRANTS} grants"));
    }
    let mut left = MAX_BYTES;
    values.iter().map(|value| grant(value, &mut left)).collect()
}

/// `left` is how many bytes of text may still come.
fn grant(value: &Value, left: &mut usize) -> Result<TailnetGrant, String> {
    let Value::Object(fields) = value else {
        return Err("a grant is no object such as {\"role\": \"user\"}".into());
    };
    let mut role = None;
    let mut grant =
        TailnetGrant { role: Role::User, routes: None, shared: false, via_router: false, tagged: false };
    for (key, value) in fields {
        let flag = || value.as_bool().ok_or_else(|| format!("`{key}` is neither true nor false"));
        match key.as_str() {
            "role" => role = Some(self::role(value)?),
            "routes" => grant.routes = Some(routes(value, left)?),
            "shared" => grant.shared = flag()?,
            "viaRouter" => grant.via_router = flag()?,
            "tagged" => grant.tagged = flag()?,
            // A later version's word may have been meant to narrow the grant.
            _ => return Err("a grant has a key besides role, routes, shared, viaRouter and tagged".into()),
        }
    }
    grant.role = role.ok_or("a grant has no role")?;
    Ok(grant)
}

fn role(value: &Value) -> Result<Role, String> {
    match value.as_str() {
        Some("user") => Ok(Role::User),
        Some("admin") => Ok(Role::Admin),
        _ => Err("a grant's role is neither user nor admin".into()),
    }
}

fn routes(value: &Value, left: &mut usize) -> Result<Vec<String>, String> {
    let names = value.as_array().ok_or("a grant's routes are no list of names")?;
    let name = |name: &Value| {
        let name = name.as_str().ok_or("a grant's routes are no list of names")?;
        *left = left.checked_sub(name.len() + 1).ok_or("the grants are too long")?;
        Ok(name.to_owned())
    };
    names.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn refused(value: &Value) {
        let Value::Array(values) = value else { panic!("a test's mistake") };
        let grants = TailnetGrants::read(values);
        assert!(grants.iter().next().is_none() && grants.ignored().is_some(), "{value}: {grants:?}");
    }

    #[test]
    fn threat_026_a_grant_that_cannot_be_read_ends_all_of_them() {
        let sound = json!({"role": "admin"});
        for odd in [
            json!("admin"),
            json!(null),
            json!([]),
            json!({}),
            json!({"routes": ["chat"]}),
            json!({"role": "owner"}),
            json!({"role": "Admin"}),
            json!({"role": ["user"]}),
            json!({"role": "user", "routes": "chat"}),
            json!({"role": "user", "routes": null}),
            json!({"role": "user", "routes": [1]}),
            json!({"role": "user", "shared": "true"}),
            json!({"role": "user", "shared": null}),
            json!({"role": "user", "until": "2020-01-01"}),
            json!({"role": "user", "Role": "admin"}),
        ] {
            refused(&json!([odd]));
            refused(&json!([sound, odd]));
            refused(&json!([odd, sound]));
        }
        refused(&json!([{"role": "user", "routes": ["x".repeat(1 << 20)]}]));
        refused(&json!([{"role": "user", "routes": vec![""; 1 << 20]}]));
        refused(&Value::Array(vec![sound; 65]));
    }

    #[test]
    fn grants_are_read_as_they_are_written() {
        let values = [
            json!({"role": "user", "routes": ["chat"]}),
            json!({"role": "admin", "shared": true, "viaRouter": true, "tagged": true}),
        ];
        let grants = TailnetGrants::read(&values);
        let read: Vec<_> = grants.iter().cloned().collect();
        let plain = TailnetGrant {
            role: Role::User,
            routes: Some(vec!["chat".into()]),
            shared: false,
            via_router: false,
            tagged: false,
        };
        let all =
            TailnetGrant { role: Role::Admin, routes: None, shared: true, via_router: true, tagged: true };
        assert_eq!(read, [plain, all]);
        assert_eq!(TailnetGrants::read(&[]), TailnetGrants::default());
    }
}
