//! What every request of an address passes first, and what every refusal causes.
//!
//! An address of the loopback interface without API keys accepts only requests that name a local host, because a page in
//! a browser on the same machine can otherwise reach it through a name of its own that resolves to 127.0.0.1 (DNS
//! rebinding). `docs/security.md`, section "Hosts and origins", specifies the rule.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, Version, header};

use super::protocols::MAX_FIELDS;
use super::response::{ApiError, Logged};
use crate::runtime::LogThrottle;

/// The minimum interval between log lines about refused requests of one route.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// The label of requests whose path is no route.
const OTHER: &str = "other";

/// A refused request.
#[derive(Debug, Clone)]
pub struct RefusedRequest {
    /// The method.
    pub method: Method,
    /// The status of the response.
    pub status: StatusCode,
    /// The route.
    pub route: &'static str,
    /// Whether the stage that the request is for has counted and logged it.
    pub is_logged: bool,
}

/// Counts a refused request.
pub type OnRefusal = Arc<dyn Fn(RefusedRequest) + Send + Sync>;

/// Whether API keys are configured.
pub type HasKeys = Arc<dyn Fn() -> bool + Send + Sync>;

/// The first and the last step of every request of an address.
pub struct Front {
    hosts: HostRule,
    /// The routes, each with the throttle of its log lines; the last one is for all other paths.
    routes: Vec<(&'static str, LogThrottle)>,
    on_refusal: Option<OnRefusal>,
}

/// Which hosts a request may name.
struct HostRule {
    /// Whether the address is one of the loopback interface.
    is_loopback: bool,
    has_keys: HasKeys,
    /// `http.allowed_hosts`
    allowed: Vec<String>,
}

impl Front {
    /// A front without counts and log lines. `is_loopback`: the address is one of the loopback interface.
    pub fn new(is_loopback: bool, has_keys: HasKeys, allowed_hosts: &[String]) -> Front {
        let hosts = HostRule { is_loopback, has_keys, allowed: allowed_hosts.to_vec() };
        Front { hosts, routes: Vec::new(), on_refusal: None }
    }

    /// Counts and logs refused requests by these routes.
    #[must_use]
    pub fn with_refusals(self, routes: &[&'static str], on_refusal: OnRefusal) -> Front {
        let throttled = |route| (route, LogThrottle::new(LOG_INTERVAL));
        let routes = routes.iter().copied().chain([OTHER]).map(throttled).collect();
        Front { routes, on_refusal: Some(on_refusal), ..self }
    }

    /// The route of a path: the longest one that the path is, or that it continues after a slash.
    fn route_of(&self, path: &str) -> Option<&(&'static str, LogThrottle)> {
        let is_of = |route: &str| path.strip_prefix(route).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let known = self.routes.iter().filter(|(route, _)| is_of(route));
        known.max_by_key(|(route, _)| route.len()).or(self.routes.last())
    }

    /// Admits a request: checks the host and the origin that it names, and drops doubled and trailing slashes of its
    /// path.
    ///
    /// # Errors
    /// 400 without a host (RFC 9112, section 3.2), 403 if the host or the origin may not call.
    pub fn admit(&self, request: &mut Request) -> Result<(), ApiError> {
        if request.version() == Version::HTTP_11 && request.headers().get_all(header::HOST).iter().count() != 1 {
            return Err(ApiError::bad_request("expected exactly one Host header"));
        }
        if request.headers().len() > MAX_FIELDS {
            return Err(ApiError::header_too_large(format!("the request has more than {MAX_FIELDS} header fields")));
        }
        self.hosts.check(request.uri(), request.headers())?;
        let path = request.uri().path();
        if path.len() > 1 && (path.ends_with('/') || path.contains("//")) {
            *request.uri_mut() = without_slashes(request.uri());
        }
        Ok(())
    }

    /// Counts and logs the refusal, if the response is one. `method` and `uri` are those of the request.
    pub fn observe(&self, method: Method, uri: &Uri, response: &Response<Body>) {
        let Some(on_refusal) = &self.on_refusal else { return };
        let error = response.extensions().get::<ApiError>();
        let status = error.map_or(response.status(), |error| error.status);
        if !status.is_client_error() && !status.is_server_error() {
            return;
        }
        let Some((route, log)) = self.route_of(uri.path()) else { return };
        let is_logged = response.extensions().get::<Logged>().is_some();
        on_refusal(RefusedRequest { method, status, route, is_logged });
        if is_logged {
            return;
        }
        if let Some(suppressed) = log.allow() {
            let error = error.map_or("", |error| &*error.message);
            tracing::warn!(route, status = status.as_u16(), error, suppressed, "request refused");
        }
    }
}

impl HostRule {
    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        if !self.is_loopback {
            return Ok(());
        }
        let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
        let names = || uri.authority().map(Authority::as_str).into_iter().chain(host);
        let origin = headers.get(header::ORIGIN);
        if (origin.is_none() && names().all(is_local)) || (self.has_keys)() {
            return Ok(());
        }
        if let Some(other) = names().find(|name| !self.allows(name)) {
            let message = format!("the host {other} is not local: add it to http.allowed_hosts, or use API keys");
            return Err(ApiError::forbidden(message));
        }
        let Some(origin) = origin else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        let site = origin.split_once("://").map(|(_, site)| site);
        let is_own = site.is_some_and(|site| names().any(|name| name.eq_ignore_ascii_case(site)));
        if is_own || site.is_some_and(|site| self.is_listed(site)) {
            return Ok(());
        }
        let message = format!("the origin {origin} is another site: add its host to http.allowed_hosts");
        Err(ApiError::forbidden(message))
    }

    fn allows(&self, name: &str) -> bool {
        is_local(name) || self.is_listed(name)
    }

    fn is_listed(&self, name: &str) -> bool {
        self.allowed
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(name) || allowed.eq_ignore_ascii_case(host_of(name)))
    }
}

/// The host of `HOST`, `HOST:PORT` or `[IPv6]:PORT`.
fn host_of(name: &str) -> &str {
    match name.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(host, _)| host),
        None => name.rsplit_once(':').map_or(name, |(host, _)| host),
    }
}

/// Whether a host is the local machine: `localhost`, a name below it (RFC 6761, section 6.3), or an address of the
/// loopback interface.
fn is_local(name: &str) -> bool {
    let host = host_of(name);
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let below = host.len() > ".localhost".len()
        && host.as_bytes()[host.len() - ".localhost".len()..].eq_ignore_ascii_case(b".localhost");
    below
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|address| IpAddr::V6(address).to_canonical().is_loopback())
}

/// The URI without doubled slashes and without a slash at the end of its path.
fn without_slashes(uri: &Uri) -> Uri {
    let path: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(format!("/{}{query}", path.join("/"))).ok();
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(is_loopback: bool, has_keys: bool) -> Front {
        Front::new(is_loopback, Arc::new(move || has_keys), &["cairn.internal".to_owned()])
    }

    fn admitted(front: &Front, host: &str, origin: Option<&str>) -> Result<String, u16> {
        let mut request = axum::http::Request::builder().uri("/v1//events/?limit=1").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let mut request = request.body(Body::empty()).unwrap();
        front.admit(&mut request).map(|()| request.uri().to_string()).map_err(|error| error.status.as_u16())
    }

    #[test]
    fn a_loopback_address_without_keys_accepts_only_local_hosts_and_its_own_origin() {
        let local = front(true, false);
        for host in [
            "localhost",
            "LOCALHOST:7600",
            "localhost.:7600",
            "app.localhost:7600",
            "127.0.0.1:7600",
            "127.8.9.10",
            "[::1]:7600",
            "[::ffff:127.0.0.1]:7600",
            "cairn.internal",
            "Cairn.Internal:7600",
        ] {
            assert_eq!(admitted(&local, host, None), Ok("/v1/events?limit=1".to_owned()), "{host}");
            assert_eq!(admitted(&local, host, Some(&format!("http://{host}"))), Ok("/v1/events?limit=1".to_owned()));
        }
        for host in
            ["evil.example", "evil.example:7600", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""]
        {
            assert_eq!(admitted(&local, host, None), Err(403), "{host}");
            assert!(admitted(&front(false, false), host, None).is_ok(), "an address of the network");
            assert!(admitted(&front(true, true), host, None).is_ok(), "with keys");
        }
        for origin in ["http://evil.example", "http://localhost:3000", "null", "https://evil.example:7600", ""] {
            assert_eq!(admitted(&local, "localhost:7600", Some(origin)), Err(403), "{origin}");
        }
        assert!(admitted(&local, "localhost:7600", Some("https://cairn.internal")).is_ok());
    }

    #[test]
    fn a_request_without_exactly_one_host_is_refused_and_paths_have_routes() {
        let local = front(false, false).with_refusals(&["/v1/events", "/v1/events/verify", "/log"], Arc::new(|_| {}));
        let mut request = axum::http::Request::builder().uri("/").body(Body::empty()).unwrap();
        assert_eq!(local.admit(&mut request).unwrap_err().status, StatusCode::BAD_REQUEST);
        for (path, route) in [
            ("/v1/events", 0),
            ("/v1/events/7", 0),
            ("/v1/events/verify/x", 1),
            ("/log/tile/0", 2),
            ("/logs", 3),
            ("/", 3),
        ] {
            assert_eq!(
                local.route_of(path).unwrap().0,
                ["/v1/events", "/v1/events/verify", "/log", OTHER][route],
                "{path}"
            );
        }
    }
}
