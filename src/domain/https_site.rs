//! Where HTTPS is, for whoever came over plain HTTP.

use openclaw_tailscale::NodeName;

/// The address of our HTTPS site on the tailnet. Its host is the node's own name,
/// never anything a client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsSite {
    authority: String,
}

impl HttpsSite {
    /// The site of this node at a port.
    pub fn new(name: &NodeName, port: u16) -> Self {
        let authority = if port == 443 { name.to_string() } else { format!("{name}:{port}") };
        Self { authority }
    }

    /// The same page there. `path` begins with a slash; a query that may hold a secret
    /// stays behind (threat rule 54).
    pub fn location(&self, path: &str, query: Option<&str>) -> String {
        // The slash ends the authority, whatever follows it.
        let path = path.strip_prefix('/').unwrap_or(path);
        let query = query.filter(|query| !holds_secret(query));
        match query {
            Some(query) => format!("https://{}/{path}?{query}", self.authority),
            None => format!("https://{}/{path}", self.authority),
        }
    }
}

fn holds_secret(query: &str) -> bool {
    query.split(['&', ';']).any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        // An encoded name is not worth decoding: it is no ordinary one.
        name.contains('%') || ["token", "password", "secret"].iter().any(|word| contains(name, word))
    })
}

fn contains(name: &str, word: &str) -> bool {
    name.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(port: u16) -> HttpsSite {
        HttpsSite::new(&"gw.tailnet-example.ts.net".parse().unwrap(), port)
    }

    #[test]
    fn no_path_leads_to_another_host() {
        for path in
            ["//evil.example/", "/\\evil.example", "/@evil.example", "/.evil.example", "@evil.example", ""]
        {
            let location = site(443).location(path, None);
            assert!(location.starts_with("https://gw.tailnet-example.ts.net/"), "{path}: {location}");
        }
    }

    #[test]
    fn the_page_stays_the_same_and_secrets_stay_behind() {
        assert_eq!(site(443).location("/a/b", Some("c=d&e")), "https://gw.tailnet-example.ts.net/a/b?c=d&e");
        assert_eq!(site(8443).location("/", None), "https://gw.tailnet-example.ts.net:8443/");
        for query in ["token=x", "a=b&Token=x", "gateway_password=x", "tok%65n=x", "a;token=x"] {
            assert_eq!(site(443).location("/", Some(query)), "https://gw.tailnet-example.ts.net/", "{query}");
        }
    }
}
