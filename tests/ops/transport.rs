//! Connections: TLS with and without client certificates, Unix sockets, the limit of connections, and file permissions.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn::http::{Address, Addresses};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, Client, Identity};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::harness::{Process, TestServer, config, eventually, metric, run_text};

/// A certificate authority.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Issues a certificate; returns it and its key in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A client that trusts an authority, with an optional certificate and key. It opens a new connection for each request.
fn client(authority: &Authority, identity: Option<&(String, String)>) -> Client {
    let certificate = Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let mut client = Client::builder().tls_certs_only([certificate]).pool_max_idle_per_host(0);
    if let Some((certificate, key)) = identity {
        client = client.identity(Identity::from_pem(format!("{certificate}{key}").as_bytes()).unwrap());
    }
    client.build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_certificates_can_be_replaced_while_the_server_runs() {
    let data = TempDir::new().unwrap();
    let (first, second) = (Authority::new(), Authority::new());
    let (certificate, key) = first.sign("127.0.0.1");
    let mut config = config(&data.path().join("ledger"));
    config.tls.cert_file = Some(write(data.path(), "tls.crt", &certificate));
    config.tls.key_file = Some(write(data.path(), "tls.key", &key));
    let server = TestServer::start(&config).await;
    let url = server.url.replace("http://", "https://");
    let status =
        async |client: &Client| client.get(format!("{url}/v1/stats")).send().await.map(|it| it.status().as_u16());
    let client_1 = client(&first, None);
    let response = client_1.get(format!("{url}/v1/stats")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, reqwest::Version::HTTP_2));
    let event = client_1.post(format!("{url}/v1/events")).header("content-type", "application/json");
    assert_eq!(event.body(json!({"agent_id": "a"}).to_string()).send().await.unwrap().status(), 201);
    assert!(server.client.get(format!("{}/v1/stats", server.url)).send().await.is_err(), "plain HTTP is refused");
    // A connection without a TLS handshake does not block other connections.
    let silent = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();

    // Between the two writes of a rotation certificate and key do not match: the old pair stays in use.
    let (certificate, key) = second.sign("127.0.0.1");
    write(data.path(), "tls.crt", &certificate);
    server.reload_changed_files();
    assert_eq!(status(&client_1).await.unwrap(), 200);
    write(data.path(), "tls.key", &key);
    let client_2 = client(&second, None);
    eventually("the new certificate", async || status(&client_2).await.is_ok()).await;
    assert!(status(&client_1).await.is_err());
    drop(silent);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_client_ca_only_clients_with_its_certificates_are_served_including_the_command_line() {
    let data = TempDir::new().unwrap();
    let (ours, theirs, other) = (Authority::new(), Authority::new(), Authority::new());
    let (certificate, key) = ours.sign("127.0.0.1");
    let mut config = config(&data.path().join("ledger"));
    config.tls.cert_file = Some(write(data.path(), "tls.crt", &certificate));
    config.tls.key_file = Some(write(data.path(), "tls.key", &key));
    config.tls.client_ca_file = Some(write(data.path(), "clients.crt", &theirs.pem()));
    config.auth.api_keys = vec!["k".to_owned()];
    let server = TestServer::start(&config).await;
    let url = server.url.replace("http://", "https://");
    let identity = theirs.sign("agent");
    for (identity, key, expected) in [
        (None, "k", None),
        (Some(other.sign("agent")), "k", None),
        (Some(identity.clone()), "wrong", Some(401)),
        (Some(identity.clone()), "k", Some(200)),
    ] {
        let request = client(&ours, identity.as_ref()).get(format!("{url}/v1/stats")).bearer_auth(key);
        let status = request.send().await.ok().map(|response| response.status().as_u16());
        assert_eq!(status, expected);
    }
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let ca = text(write(data.path(), "ours.crt", &ours.pem()));
    let me = text(write(data.path(), "me.pem", &format!("{}{}", identity.0, identity.1)));
    let keys = text(write(data.path(), "keys", "k\n"));
    let ask =
        |more: &[&str]| run_text(&[&["verify", "--all", "--server", &url, "--api-key-file", &keys], more].concat());
    assert_eq!(tokio::task::block_in_place(|| ask(&["--ca-file", &ca, "--identity-file", &me])).0, 0);
    assert_eq!(tokio::task::block_in_place(|| ask(&["--ca-file", &ca])).0, 3);
    assert_eq!(
        tokio::task::block_in_place(|| ask(&["--identity-file", &me])).0,
        3,
        "a server with an untrusted certificate is not used"
    );
    let (code, _, stderr) = tokio::task::block_in_place(|| ask(&["--ca-file", &ca, "--identity-file", &keys]));
    assert!(code == 2 && stderr.contains("--identity-file") && !stderr.contains("\nk"), "{stderr}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_has_the_configured_mode_and_is_removed_at_shutdown() {
    let data = TempDir::new().unwrap();
    let path = data.path().join("cairn.sock");
    let both = format!("127.0.0.1:0,unix:{}", path.display());
    let config = {
        let mut config = config(&data.path().join("ledger"));
        config.listen = both.parse().unwrap();
        config.socket_mode = 0o620;
        config
    };
    for _ in 0..2 {
        let server = TestServer::start(&config).await;
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o620);
        let client = Client::builder().unix_socket(path.clone()).build().unwrap();
        let event = client.post("http://localhost/v1/events").header("content-type", "application/json");
        assert_eq!(event.body(json!({"agent_id": "a"}).to_string()).send().await.unwrap().status(), 201);
        assert_eq!(server.get("/v1/stats").await.status, 200, "the other address is served as well");
        let url = format!("unix:{}", path.display());
        let verify = || run_text(&["verify", "--agent-id", "a", "--server", &url]);
        assert_eq!(tokio::task::block_in_place(verify).0, 0);
        server.stop().await.unwrap();
        assert!(!path.exists(), "the socket is removed at shutdown");
        let (code, _, stderr) =
            tokio::task::block_in_place(|| run_text(&["verify", "--agent-id", "a", "--server", &url]));
        assert!(code == 3 && stderr.contains(&format!("({url}")) && !stderr.contains("localhost"), "{stderr}");
    }
    // A socket that another process has put in its place is not removed.
    {
        let server = TestServer::start(&config).await;
        std::fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        server.stop().await.unwrap();
        assert!(path.exists());
        std::fs::remove_file(&path).unwrap();
    }
    // A stale socket is replaced; a socket in use, and a file that is not a socket, are left alone.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let mut alone = config.clone();
    alone.listen = Addresses(vec![Address::Unix(path.clone())]);
    let _used = tokio::net::UnixListener::bind(data.path().join("used")).unwrap();
    std::fs::write(data.path().join("file"), "mine").unwrap();
    for name in ["used", "file"] {
        let mut config = config.clone();
        config.listen = Addresses(vec![Address::Unix(data.path().join(name))]);
        let error = TestServer::start_with(&config, |store| store).await.err().expect("the path is in use").to_string();
        assert!(error.starts_with("listen: unix:/") && error.contains(name), "{error}");
        assert!(data.path().join(name).exists());
    }
    // Only a socket, without a port.
    let server = cairn::serve::Server::start(&alone, |store| store, cairn::runtime::system_clock()).await.unwrap();
    assert_eq!(server.addresses(), [Address::Unix(path.clone())]);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async move { stopped.await.unwrap_or_default() }));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /v1/stats HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    drop(stop);
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait_until_one_ends() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.limits.connections = 3;
    let server = TestServer::start(&config).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(b"GET /v1/stats HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut byte = [0];
        tokio::time::timeout(Duration::from_millis(700), stream.read_exact(&mut byte)).await.is_ok()
    };
    let mut first = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        assert!(ask(&mut stream).await);
        first.push(stream);
    }
    let mut late = TcpStream::connect(&address).await.unwrap();
    assert!(!ask(&mut late).await, "the fourth connection has to wait");
    assert_eq!(
        metric(&server.metrics().await, "cairn_connections"),
        Some(3.0),
        "connections of the admin port do not count"
    );
    first.pop();
    let mut byte = [0];
    tokio::time::timeout(Duration::from_secs(5), late.read_exact(&mut byte)).await.unwrap().unwrap();
    drop((first, late));
    eventually("the end of all connections", async || {
        metric(&server.metrics().await, "cairn_connections") == Some(0.0)
    })
    .await;
    server.stop().await.unwrap();
}

#[test]
fn files_are_accessible_only_for_their_owner_and_the_file_limit_is_raised() {
    let data = TempDir::new().unwrap();
    let ledger = data.path().join("ledger");
    let server = Process::start(&ledger, &[]);
    let mut folders = vec![ledger];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            // Temporary files may have been removed meanwhile.
            let Ok(metadata) = path.metadata() else { continue };
            let mode = metadata.permissions().mode() & 0o777;
            if metadata.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(mode, 0o600, "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 5);
    let status = std::fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let files = status.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = files.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert_eq!(numbers[0], numbers[1], "the limit of open files is raised to the maximum");
    drop(server);
}
