//! `gateway.access`, a route's `allow`, and the hosts and origins that are ours.

use super::build::Build;
use super::error::Problem;
use super::host::Host;
use super::{raw, schema, time};
use crate::domain::{Access, AccessEntry, Role, Who};

/// Mail domains that anybody can have an address in.
const PUBLIC_DOMAINS: &[&str] = &[
    "gmail.com",
    "googlemail.com",
    "outlook.com",
    "hotmail.com",
    "yahoo.com",
    "icloud.com",
    "proton.me",
    "github",
];

/// Reads `gateway.access`. Route names in entries must exist.
pub(crate) fn access(build: &mut Build<'_>, raw: &raw::Access, route_names: &[String]) -> Access {
    let owner = raw.owner.unwrap_or(true);
    let allow = entries(build, "gateway.access.allow", &raw.allow, Some(route_names));
    if !owner && allow.is_empty() {
        build.warn(
            "gateway.access names nobody and owner is off: no tailnet identity is let in, only a secret",
        );
    }
    Access { owner, allow }
}

/// Reads an allow list. `route_names` is `None` inside a route, whose entries
/// speak of that route alone.
pub(crate) fn entries(
    build: &mut Build<'_>,
    key: &str,
    raw: &[raw::Entry],
    route_names: Option<&[String]>,
) -> Vec<AccessEntry> {
    let list = raw.iter().enumerate();
    list.filter_map(|(i, entry)| self::entry(build, &format!("{key}[{i}]"), entry, route_names)).collect()
}

fn entry(
    build: &mut Build<'_>,
    key: &str,
    raw: &raw::Entry,
    route_names: Option<&[String]>,
) -> Option<AccessEntry> {
    let default = raw::EntryObject::default();
    let (who_key, who, object) = match raw {
        raw::Entry::Who(who) => (key.to_owned(), who, &default),
        raw::Entry::Object(object) => match &object.who {
            Some(who) => (format!("{key}.who"), who, object),
            None => {
                build.refuse(
                    Problem::new(format!("{key}.who"), "is missing: whom the entry speaks of").at_start(),
                );
                return None;
            }
        },
    };
    let who = parse_who(build, &who_key, who)?;
    if let (Some(_), None) = (&object.routes, route_names) {
        let what = "has no place in a route: its entries speak of that route alone";
        build.refuse(Problem::new(format!("{key}.routes"), what));
    }
    for (i, name) in object.routes.iter().flatten().enumerate() {
        let known = route_names.unwrap_or_default();
        if route_names.is_some() && !known.contains(name) {
            let near = schema::nearest(name, known.iter().map(String::as_str));
            let hint = match near {
                Some(near) => format!("; did you mean {near}?"),
                None if known.is_empty() => "; there are no routes".to_owned(),
                None => format!("; there are {}", known.join(", ")),
            };
            build.refuse(Problem::new(format!("{key}.routes[{i}]"), format!("{name:?} is no route{hint}")));
        }
    }
    let until = match &object.until {
        None => None,
        Some(raw::Until::Seconds(seconds)) => Some(*seconds),
        Some(raw::Until::Text(text)) => Some(build.parse::<time::UnixTime>(&format!("{key}.until"), text)?.0),
    };
    Some(AccessEntry {
        who,
        role: role(object.role.as_deref()).unwrap_or(Role::User),
        routes: object.routes.clone(),
        shared: object.shared,
        via_router: object.via_router,
        until,
    })
}

fn parse_who(build: &mut Build<'_>, key: &str, text: &str) -> Option<Who> {
    let who: Who = match text.parse() {
        Ok(who) => who,
        Err(error) => {
            // "*" is what people write who mean everybody.
            let hint = if text == "*" { "; everybody of this tailnet is \"autogroup:member\"" } else { "" };
            build.refuse(Problem::new(key, format!("{error}{hint}")));
            return None;
        }
    };
    if let Who::Domain(domain) = &who
        && PUBLIC_DOMAINS.contains(&domain.as_str())
    {
        build.warn(format!("{key}: anybody can have an address at {domain}"));
    }
    Some(who)
}

/// A role as written; the table of keys allows no other word.
pub(crate) fn role(text: Option<&str>) -> Option<Role> {
    text.map(|word| if word == "admin" { Role::Admin } else { Role::User })
}

/// Reads `gateway.allowedHosts`: names without scheme or port.
pub(crate) fn hosts(build: &mut Build<'_>, raw: &[String]) -> Vec<String> {
    let mut hosts = Vec::new();
    for (i, text) in raw.iter().enumerate() {
        hosts.extend(host(build, &format!("gateway.allowedHosts[{i}]"), text));
    }
    hosts
}

/// Reads one host name as it stands in `Host`, without a port.
pub(crate) fn host(build: &mut Build<'_>, key: &str, text: &str) -> Option<String> {
    if text.contains("://") || text.contains('/') {
        let what = format!("{text:?} is a URL: write the host name alone, such as chat.example.com");
        build.refuse(Problem::new(key, what));
        return None;
    }
    build.parse::<Host>(key, text).map(|host| host.text())
}

/// Reads `gateway.controlUi.allowedOrigins`: `scheme://host[:port]` or `*`.
pub(crate) fn origins(build: &mut Build<'_>, raw: &[String]) -> Vec<String> {
    const KEY: &str = "gateway.controlUi.allowedOrigins";
    let mut origins = Vec::new();
    for (i, text) in raw.iter().enumerate() {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            build.warn(format!(
                "{KEY} holds \"*\": pages of every site may use the gateway as whoever views them"
            ));
            origins.push(text);
        } else if is_origin(&text) {
            origins.push(text);
        } else {
            let what = format!(
                "{text:?} is no origin: scheme and host, such as https://chat.example.com, nothing after it"
            );
            build.refuse(Problem::new(format!("{KEY}[{i}]"), what));
        }
    }
    origins
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let sound_port = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    matches!(scheme, "http" | "https") && sound_port && host.parse::<Host>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scheme_and_host_are_an_origin() {
        for text in [
            "",
            "*.x",
            "null",
            "https://",
            "https://h/",
            "https://u@h",
            "h:1",
            "ftp://h",
            "https://h:0",
            "https://h:x",
        ] {
            assert!(!is_origin(text), "{text:?}");
        }
        for text in ["https://h", "http://localhost:3000", "https://[::1]", "https://[::1]:8443"] {
            assert!(is_origin(text), "{text:?}");
        }
    }
}
