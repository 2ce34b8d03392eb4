//! Asking a running server.

use std::fmt::Display;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::blocking::{Client as HttpClient, RequestBuilder, Response};
use reqwest::header::LINK;
use reqwest::{Certificate, Identity, StatusCode};
use serde_json::Value;

use super::args::{ConfigArgs, ConnectArgs, ServerArgs};
use super::exit::Failure;
use crate::auth::plain;
use crate::config::Config;
use crate::http::Address;
use crate::text::sanitize;

/// A chain of a million events takes a while to walk.
const ANSWER_WAIT: Duration = Duration::from_secs(600);

/// A package of a hundred million events takes hours.
const DOWNLOAD_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A tile or a checkpoint comes at once.
const BYTES_WAIT: Duration = Duration::from_secs(60);
/// How much of a refusal is shown.
const SHOWN_BYTES: u64 = 1000;
/// No answer that is read whole is longer.
const ANSWER_BYTES: u64 = 1 << 30;

/// Whether a URL names this machine.
fn is_here(url: &str) -> bool {
    let host = reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Where a server with this configuration is reached from its own machine.
fn url_of(config: &Config) -> String {
    let scheme = if config.tls.cert_file.is_some() { "https" } else { "http" };
    match config.listen.0.iter().find_map(Address::tcp) {
        Some(address) => format!("{scheme}://{}", from_here(address)),
        None => config.listen.0.first().map_or_else(String::new, Address::to_string),
    }
}

/// Where this machine reaches a server that listens there.
fn from_here(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

/// Of some keys as they are written, one that may do everything, or the first.
fn most_useful<'l>(lines: impl Iterator<Item = &'l str> + Clone) -> Option<&'l str> {
    let may_do_all = |line: &&str| line.split_whitespace().nth(1).is_none_or(|scopes| scopes.contains(','));
    lines.clone().filter(may_do_all).find_map(plain).or_else(|| lines.clone().find_map(plain))
}

fn wrong(argument: &str, path: &Path, why: &dyn Display) -> Failure {
    Failure::usage(format!("{argument} {}: {why}", path.display()))
}

fn read(argument: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| wrong(argument, path, &error))
}

fn read_key(path: &Path) -> Result<String, Failure> {
    let keys = String::from_utf8(read("--api-key-file", path)?);
    let keys = keys.map_err(|_| wrong("--api-key-file", path, &"expected a key, found no text"))?;
    let key = keys.lines().find_map(plain).map(str::to_owned);
    key.ok_or_else(|| wrong("--api-key-file", path, &"no key in it"))
}

/// Whether nobody was there to ask.
pub fn is_unreachable(failure: &Failure) -> bool {
    failure.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect)
}

/// A running server.
pub struct Client {
    client: HttpClient,
    url: String,
    /// Its socket, if it is reached by one: the URL is only a form then.
    socket: Option<reqwest::Url>,
    key: Option<String>,
}

impl Client {
    /// The server at a URL, or at a socket in the file system.
    ///
    /// # Errors
    /// When an argument is wrong.
    pub fn at(url: &str, connect: &ConnectArgs) -> Result<Client, Failure> {
        let socket = url.strip_prefix("unix:");
        if socket.is_none() && !url.starts_with("http://") && !url.starts_with("https://") {
            let expected = "expected a URL such as http://localhost:7600, or unix:/run/cairn.sock";
            return Err(Failure::usage(format!("{expected}, found {url:?}")));
        }
        let key = connect.api_key_file.as_deref().map(read_key).transpose()?;
        let mut client = HttpClient::builder().timeout(ANSWER_WAIT);
        if is_here(url) || socket.is_some() {
            // A proxy is for the way out; it has no business with what we ask ourselves.
            client = client.no_proxy();
        }
        if let Some(path) = socket {
            client = client.unix_socket(PathBuf::from(path));
        }
        if let Some(path) = &connect.ca_file {
            let certificates = Certificate::from_pem_bundle(&read("--ca-file", path)?);
            let certificates = certificates.map_err(|_| wrong("--ca-file", path, &"expected certificates (PEM)"))?;
            client = client.tls_certs_merge(certificates);
        }
        if let Some(path) = &connect.identity_file {
            // The library's words may hold a line of the file.
            let expected = "expected a certificate and its private key (PEM)";
            let identity = Identity::from_pem(&read("--identity-file", path)?);
            client = client.identity(identity.map_err(|_| wrong("--identity-file", path, &expected))?);
        }
        let client = client.build()?;
        let base = socket.map_or(url, |_| "http://localhost").trim_end_matches('/').to_owned();
        let socket = socket.and_then(|_| reqwest::Url::parse(url).ok());
        Ok(Client { client, url: base, socket, key })
    }

    /// The server that the arguments name, or that the configuration describes.
    ///
    /// # Errors
    /// When an argument is wrong.
    pub fn of(args: &ServerArgs) -> Result<Client, Failure> {
        let connect = &args.connect;
        if let Some(url) = &args.server {
            return Client::at(url, connect);
        }
        let config = ConfigArgs { config: args.config.clone(), ..ConfigArgs::default() }.load()?.config;
        let mut server = Client::at(&url_of(&config), connect)?;
        if server.key.is_none() {
            // Whoever can read the server's own keys may use one, if there is one that is not only its hash.
            let file =
                config.auth.api_keys_file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
            let lines = config.auth.api_keys.iter().map(String::as_str).chain(file.lines());
            server.key = most_useful(lines).map(str::to_owned);
        }
        Ok(server)
    }

    /// The port for operators of the server that the configuration describes.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn for_operators(config: &Config) -> Result<Client, Failure> {
        let address = config.admin.listen;
        let is_any_v6 = address.is_ipv6() && address.ip().is_unspecified();
        // Where there is no IPv6, it listens to the rest: the client tries both.
        let url = match is_any_v6 {
            true => format!("http://localhost:{}", address.port()),
            false => format!("http://{}", from_here(address)),
        };
        // It is this machine, whatever its address.
        let client = HttpClient::builder().no_proxy().build()?;
        Ok(Client { client, url, socket: None, key: None })
    }

    /// Asks for text, which has to be there within `wait`.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub fn text(&self, path: &str, wait: Duration) -> Result<String, Failure> {
        let mut text = String::new();
        self.ask(path, &[], wait)?.take(ANSWER_BYTES).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Asks.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        Ok(self.send(self.client.get(format!("{}{path}", self.url)).query(query), path)?.0)
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        self.socket.as_ref().map_or(&self.url, reqwest::Url::as_str)
    }

    /// Asks for bytes, and no more than so many.
    ///
    /// # Errors
    /// When there is no answer, a refusal, or more.
    pub fn bytes(&self, path: &str, most: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = self.ask(path, &[], BYTES_WAIT)?.take(most + 1).read_to_end(&mut bytes)? as u64;
        if read > most {
            Err(format!("{}{path} answered more than {most} bytes", self.url()).into())
        } else {
            Ok(bytes)
        }
    }

    /// Asks for what may be long, and is read as it comes.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub fn download(&self, path: &str, query: &[(&str, &str)]) -> Result<impl Read + use<>, Failure> {
        self.ask(path, query, DOWNLOAD_WAIT)
    }

    fn ask(&self, path: &str, query: &[(&str, &str)], wait: Duration) -> Result<Response, Failure> {
        let request = self.client.get(format!("{}{path}", self.url)).query(query).timeout(wait);
        let response = self.answer_to(request)?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(path, response)) }
    }

    /// Has something done.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub fn post(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.send(self.client.post(format!("{}{path}", self.url)), path)?.0)
    }

    /// Has something removed.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub fn delete(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.send(self.client.delete(format!("{}{path}", self.url)), path)?.0)
    }

    /// The pages of a list, from the first one on.
    pub fn pages(&self, first: &str) -> impl Iterator<Item = Result<Value, Failure>> {
        let mut next = Some(first.to_owned());
        std::iter::from_fn(move || {
            let path = next.take()?;
            let answer = self.send(self.client.get(format!("{}{path}", self.url)), &path);
            Some(answer.map(|(page, link)| {
                // <path>; rel="next"
                next = link.and_then(|link| Some(link.strip_prefix('<')?.split_once('>')?.0.to_owned()));
                page
            }))
        })
    }

    fn answer_to(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        request.send().map_err(|error| match &self.socket {
            Some(socket) => error.with_url(socket.clone()).into(),
            None => error.into(),
        })
    }

    /// Says what a server answered that did not do it. It may be anybody's.
    fn refused(&self, path: &str, response: Response) -> Failure {
        let status = response.status();
        let mut body = Vec::new();
        // What cannot be read of it is not shown.
        let _ = response.take(SHOWN_BYTES).read_to_end(&mut body);
        let hint = if status == StatusCode::UNAUTHORIZED { " (--api-key-file names a file with a key)" } else { "" };
        let body = sanitize(String::from_utf8_lossy(&body).trim());
        format!("{}{path} answered {status}{hint}: {body}", self.url()).into()
    }

    fn send(&self, request: RequestBuilder, path: &str) -> Result<(Value, Option<String>), Failure> {
        let response = self.answer_to(request)?;
        let status = response.status();
        let link = response.headers().get(LINK).and_then(|link| Some(link.to_str().ok()?.to_owned()));
        if !status.is_success() {
            return Err(self.refused(path, response));
        }
        Ok((serde_json::from_reader(response.take(ANSWER_BYTES))?, link))
    }
}
