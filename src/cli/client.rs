//! HTTP client for a running server.

use std::fmt::Display;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::blocking::{Client as HttpClient, RequestBuilder, Response};
use reqwest::header::{CONTENT_TYPE, LINK, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Identity, StatusCode};
use serde_json::Value;

use super::args::{ConnectArgs, ServerArgs};
use super::exit::Failure;
use crate::auth::{Scopes, plain_key, scopes_of};
use crate::config::Config;
use crate::http::Address;
use crate::text::sanitize;

/// The default timeout of a request. Verifying a chain of a million events takes a while.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// The timeout of a download. A package of a hundred million events takes hours.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The timeout for a tile or a checkpoint.
const BYTES_TIMEOUT: Duration = Duration::from_secs(60);
/// The maximum number of bytes of an error response that are shown.
const SHOWN_BYTES: u64 = 1000;
/// The maximum length of a response that is read as a whole, in bytes.
const RESPONSE_BYTES: u64 = 1 << 30;

/// Whether the host of a URL is this machine.
fn is_loopback(url: &str) -> bool {
    let host = reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// The URL of a server with this configuration, from its own machine.
fn url_of(config: &Config) -> String {
    let scheme = if config.tls.cert_file.is_some() { "https" } else { "http" };
    match config.listen.0.iter().find_map(Address::tcp) {
        Some(address) => format!("{scheme}://{}", connect_address(address)),
        None => config.listen.0.first().map_or_else(String::new, Address::to_string),
    }
}

/// The address to connect to for a server that listens on `address` of this machine: a loopback address if it is
/// unspecified.
fn connect_address(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// The first key with the scopes, else the first key, of lines as in `auth.api_keys_file`. Keys that are given only as
/// their hash cannot be used.
fn best_key<'l>(lines: impl Iterator<Item = &'l str> + Clone, needed: Scopes) -> Option<&'l str> {
    let is_enough = |line: &&str| scopes_of(line).is_some_and(|scopes| scopes.contains(needed));
    lines.clone().filter(is_enough).find_map(plain_key).or_else(|| lines.clone().find_map(plain_key))
}

fn file_error(argument: &str, path: &Path, why: &dyn Display) -> Failure {
    Failure::usage(format!("{argument} {}: {why}", path.display()))
}

fn read(argument: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| file_error(argument, path, &error))
}

fn read_key(path: &Path) -> Result<String, Failure> {
    let keys = String::from_utf8(read("--api-key-file", path)?);
    let keys =
        keys.map_err(|_| file_error("--api-key-file", path, &"expected a key, found bytes that are not UTF-8"))?;
    let key = keys.lines().find_map(plain_key).map(str::to_owned);
    key.ok_or_else(|| file_error("--api-key-file", path, &"it contains no key"))
}

/// Whether a request failed because no connection could be established.
pub fn is_unreachable(failure: &Failure) -> bool {
    failure.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect)
}

/// Client of one server.
pub struct Client {
    client: HttpClient,
    /// The base URL; a placeholder if there is a socket.
    url: String,
    /// The Unix socket of the server, if it is reached by one.
    socket: Option<reqwest::Url>,
    key: Option<String>,
}

impl Client {
    /// Creates a client for the server at a URL, or at a Unix socket (`unix:PATH`).
    ///
    /// # Errors
    /// When an argument is invalid, or a file that it names cannot be read.
    pub fn at(url: &str, connect: &ConnectArgs) -> Result<Client, Failure> {
        let socket = url.strip_prefix("unix:");
        if socket.is_none() && !url.starts_with("http://") && !url.starts_with("https://") {
            let expected = "expected a URL such as http://localhost:7600, or unix:/run/cairn.sock";
            return Err(Failure::usage(format!("{expected}, found {url:?}")));
        }
        let key = connect.api_key_file.as_deref().map(read_key).transpose()?;
        // A server that redirects would decide which other server gets the key, and whose log is verified.
        let mut client = HttpClient::builder().timeout(REQUEST_TIMEOUT).redirect(Policy::none());
        if is_loopback(url) || socket.is_some() {
            // Requests to this machine must not go through a proxy.
            client = client.no_proxy();
        }
        if let Some(path) = socket {
            client = client.unix_socket(PathBuf::from(path));
        }
        if let Some(path) = &connect.ca_file {
            let certificates = Certificate::from_pem_bundle(&read("--ca-file", path)?);
            let certificates =
                certificates.map_err(|_| file_error("--ca-file", path, &"expected certificates (PEM)"))?;
            client = client.tls_certs_merge(certificates);
        }
        if let Some(path) = &connect.identity_file {
            // The error of the crate may contain a line of the file, so it is not shown.
            let expected = "expected a certificate and its private key (PEM)";
            let identity = Identity::from_pem(&read("--identity-file", path)?);
            client = client.identity(identity.map_err(|_| file_error("--identity-file", path, &expected))?);
        }
        let client = client.build()?;
        let base = socket.map_or(url, |_| "http://localhost").trim_end_matches('/').to_owned();
        let socket = socket.and_then(|_| reqwest::Url::parse(url).ok());
        Ok(Client { client, url: base, socket, key })
    }

    /// Creates a client for the server that the arguments name, else for the one that the configuration describes.
    ///
    /// # Errors
    /// When an argument or the configuration is invalid.
    pub fn of(args: &ServerArgs) -> Result<Client, Failure> {
        Client::with_scopes(args, Scopes::ALL)
    }

    /// Creates a client like [`Client::of`], with a key of the configuration that has these scopes.
    ///
    /// # Errors
    /// As for [`Client::of`].
    pub fn with_scopes(args: &ServerArgs, needed: Scopes) -> Result<Client, Failure> {
        let connect = &args.connect;
        if let Some(url) = &args.server {
            return Client::at(url, connect);
        }
        let config = args.file.load()?.config;
        let mut server = Client::at(&url_of(&config), connect)?;
        if server.key.is_none() {
            // A user who can read the keys of the server may use one of them.
            let file =
                config.auth.api_keys_file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
            let lines = config.auth.api_keys.iter().map(String::as_str).chain(file.lines());
            server.key = best_key(lines, needed).map(str::to_owned);
        }
        Ok(server)
    }

    /// Creates a client for the admin port of the server that the configuration describes.
    ///
    /// # Errors
    /// When the HTTP client cannot be created.
    pub fn for_admin_port(config: &Config) -> Result<Client, Failure> {
        // The configuration allows only TCP.
        let address = config.admin.listen.tcp().ok_or("admin.listen: expected an address of TCP")?;
        let is_any_v6 = address.is_ipv6() && address.ip().is_unspecified();
        // On a machine without IPv6, such a server listens on IPv4. `localhost` makes the client try both.
        let url = match is_any_v6 {
            true => format!("http://localhost:{}", address.port()),
            false => format!("http://{}", connect_address(address)),
        };
        // The address belongs to this machine, so requests must not go through a proxy.
        let client = HttpClient::builder().no_proxy().redirect(Policy::none()).build()?;
        Ok(Client { client, url, socket: None, key: None })
    }

    /// Gets a text within `timeout`.
    ///
    /// # Errors
    /// When there is no response, or it is an error.
    pub fn text(&self, path: &str, timeout: Duration) -> Result<String, Failure> {
        let mut text = String::new();
        self.get_response(path, &[], timeout)?.take(RESPONSE_BYTES).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Gets JSON.
    ///
    /// # Errors
    /// When there is no response, it is an error, or it is not JSON.
    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        Ok(self.send(self.client.get(format!("{}{path}", self.url)).query(query), path)?.0)
    }

    /// The URL or the Unix socket of the server, for messages.
    pub fn url(&self) -> &str {
        self.socket.as_ref().map_or(&self.url, reqwest::Url::as_str)
    }

    /// Gets at most `max` bytes.
    ///
    /// # Errors
    /// When there is no response, it is an error, or it is longer than `max`.
    pub fn bytes(&self, path: &str, max: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = self.get_response(path, &[], BYTES_TIMEOUT)?.take(max + 1).read_to_end(&mut bytes)? as u64;
        if read > max {
            Err(format!("{}{path}: the response is longer than {max} bytes", self.url()).into())
        } else {
            Ok(bytes)
        }
    }

    /// Gets a response of any length, which the caller reads as a stream.
    ///
    /// # Errors
    /// When there is no response, or it is an error.
    pub fn download(&self, path: &str, query: &[(&str, &str)]) -> Result<impl Read + use<>, Failure> {
        self.get_response(path, query, DOWNLOAD_TIMEOUT)
    }

    fn get_response(&self, path: &str, query: &[(&str, &str)], timeout: Duration) -> Result<Response, Failure> {
        let request = self.client.get(format!("{}{path}", self.url)).query(query).timeout(timeout);
        let response = self.execute(request)?;
        if response.status().is_success() { Ok(response) } else { Err(self.error_response(path, response)) }
    }

    /// Sends a POST request without a body, and returns the JSON of the response.
    ///
    /// # Errors
    /// When there is no response, it is an error, or it is not JSON.
    pub fn post(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.send(self.client.post(format!("{}{path}", self.url)), path)?.0)
    }

    /// Sends a POST request with JSON, and returns the JSON of the response.
    ///
    /// # Errors
    /// When there is no response, it is an error, or it is not JSON.
    pub fn post_json(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.client.post(format!("{}{path}", self.url));
        let request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        Ok(self.send(request, path)?.0)
    }

    /// Sends a DELETE request, and returns the JSON of the response.
    ///
    /// # Errors
    /// When there is no response, it is an error, or it is not JSON.
    pub fn delete(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.send(self.client.delete(format!("{}{path}", self.url)), path)?.0)
    }

    /// A path with a query.
    ///
    /// # Errors
    /// When the path is not one.
    pub fn path(path: &str, query: &[(&str, &str)]) -> Result<String, Failure> {
        let url = reqwest::Url::parse_with_params(&format!("http://server{path}"), query);
        let url = url.map_err(|error| Failure::from(format!("{path}: {error}")))?;
        Ok(format!("{}?{}", url.path(), url.query().unwrap_or_default()))
    }

    /// Iterates over the pages of a list. `first` is the path of the first page.
    pub fn pages(&self, first: &str) -> impl Iterator<Item = Result<Value, Failure>> {
        let mut next = Some(first.to_owned());
        std::iter::from_fn(move || {
            let path = next.take()?;
            let answer = self.send(self.client.get(format!("{}{path}", self.url)), &path);
            Some(answer.map(|(page, link)| {
                // <path>; rel="next"
                let path = link.and_then(|link| Some(link.strip_prefix('<')?.split_once('>')?.0.to_owned()));
                // Anything else could name another server.
                next = path.filter(|path| path.starts_with('/'));
                page
            }))
        })
    }

    fn execute(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        request.send().map_err(|error| match &self.socket {
            Some(socket) => error.with_url(socket.clone()).into(),
            None => error.into(),
        })
    }

    /// The failure for an error response, with the beginning of its body, which is untrusted.
    fn error_response(&self, path: &str, response: Response) -> Failure {
        let status = response.status();
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let to = sanitize(to.unwrap_or("another URL"));
            return format!(
                "{}{path} answered {status} to {to}, which is not followed: give that URL if you trust it",
                self.url()
            )
            .into();
        }
        let mut body = Vec::new();
        // If the body cannot be read, the part that was read is shown.
        let _ = response.take(SHOWN_BYTES).read_to_end(&mut body);
        let hint = if status == StatusCode::UNAUTHORIZED { " (--api-key-file names a file with a key)" } else { "" };
        let body = sanitize(String::from_utf8_lossy(&body).trim());
        format!("{}{path} answered {status}{hint}: {body}", self.url()).into()
    }

    fn send(&self, request: RequestBuilder, path: &str) -> Result<(Value, Option<String>), Failure> {
        let response = self.execute(request)?;
        let status = response.status();
        let link = response.headers().get(LINK).and_then(|link| Some(link.to_str().ok()?.to_owned()));
        if !status.is_success() {
            return Err(self.error_response(path, response));
        }
        Ok((serde_json::from_reader(response.take(RESPONSE_BYTES))?, link))
    }
}
