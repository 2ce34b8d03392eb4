//! A stand-in for Agnost AI: it checks every request against the published schema, records it, and replies as the test
//! configures, also with failures.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

/// The organization id that tests use.
pub const ORG: &str = "6f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11";

/// The call for one event.
pub const EVENT: &str = "/api/v1/capture-event";
/// The call that announces a session.
pub const SESSION: &str = "/api/v1/capture-session";

/// How the upstream treats a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Records it and answers 200.
    Accept,
    /// Answers with this status and an optional `Retry-After`; the request is not recorded as accepted.
    Status(u16, Option<String>),
    /// Never answers.
    Hang,
    /// Records it, and answers 200 after this time.
    AcceptAfter(Duration),
    /// Closes the connection without recording the request.
    Reset,
    /// Records it, and closes the connection without an answer.
    AcceptAndReset,
}

/// A request that the upstream accepted.
#[derive(Debug, Clone)]
pub struct AcceptedRequest {
    pub path: String,
    pub body: Value,
    pub org: String,
    pub version: hyper::Version,
    /// Whether an answer was sent, as far as the upstream knows.
    pub is_answered: bool,
}

impl AcceptedRequest {
    /// A string member of the body. Panics if it is missing.
    pub fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.body))
    }
}

type ChooseReply = dyn FnMut(&str, &Value) -> Reply + Send;

/// The state of an upstream; it survives [`Upstream::down`] and [`Upstream::up`].
pub struct UpstreamState {
    pub accepted: Mutex<Vec<AcceptedRequest>>,
    /// The bodies of all requests, accepted or not.
    pub bodies: Mutex<Vec<String>>,
    /// Requests that violate the schema, with the reason.
    pub violations: Mutex<Vec<String>>,
    /// Disables the schema check: the SDKs send members that the published schema does not have.
    pub accepts_anything: AtomicBool,
    /// Keeps no request, because there are too many.
    pub forgets: AtomicBool,
    choose_reply: Mutex<Box<ChooseReply>>,
    in_flight: AtomicUsize,
    /// The highest number of concurrent requests.
    pub max_in_flight: AtomicUsize,
}

/// A running upstream.
pub struct Upstream {
    pub address: SocketAddr,
    pub state: Arc<UpstreamState>,
    server: Option<JoinHandle<()>>,
    tls: Option<TlsAcceptor>,
}

impl Upstream {
    /// Starts an upstream that accepts every request.
    pub async fn start() -> Upstream {
        Upstream::start_with(|_, _| Reply::Accept).await
    }

    /// Starts an upstream that asks `choose_reply` for its reply to each request, by path and body.
    pub async fn start_with(choose_reply: impl FnMut(&str, &Value) -> Reply + Send + 'static) -> Upstream {
        Upstream::start_as(choose_reply, None).await
    }

    /// As [`Upstream::start_with`], with TLS if `tls` is given.
    pub async fn start_as(
        choose_reply: impl FnMut(&str, &Value) -> Reply + Send + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Upstream {
        let state = Arc::new(UpstreamState {
            accepted: Mutex::default(),
            bodies: Mutex::default(),
            violations: Mutex::default(),
            accepts_anything: AtomicBool::default(),
            forgets: AtomicBool::default(),
            choose_reply: Mutex::new(Box::new(choose_reply)),
            in_flight: AtomicUsize::new(0),
            max_in_flight: AtomicUsize::new(0),
        });
        let mut upstream = Upstream { address: SocketAddr::from(([127, 0, 0, 1], 0)), state, server: None, tls };
        upstream.up().await;
        upstream
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// Listens on its address, the same one after [`Upstream::down`].
    pub async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (state, tls) = (Arc::clone(&self.state), self.tls.clone());
        self.server = Some(tokio::spawn(async move {
            // Dropped with this task, which closes all connections.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, tls.clone(), Arc::clone(&state)));
            }
        }));
    }

    /// Closes the listener and all connections at once, whatever is in flight.
    pub async fn down(&mut self) {
        let server = self.server.take().unwrap();
        server.abort();
        let _ = server.await;
    }

    /// Replaces the function that chooses the replies.
    pub fn reply_with(&self, choose_reply: impl FnMut(&str, &Value) -> Reply + Send + 'static) {
        *self.state.choose_reply.lock().unwrap() = Box::new(choose_reply);
    }

    /// All accepted requests, in the order of their arrival.
    pub fn accepted(&self) -> Vec<AcceptedRequest> {
        self.state.accepted.lock().unwrap().clone()
    }

    /// The accepted requests that are events.
    pub fn events(&self) -> Vec<AcceptedRequest> {
        self.accepted().into_iter().filter(|request| request.path == EVENT).collect()
    }

    /// The number of accepted events, repetitions included.
    pub fn event_count(&self) -> usize {
        self.state.accepted.lock().unwrap().iter().filter(|request| request.path == EVENT).count()
    }

    /// Asserts that every request was valid by the schema.
    pub fn assert_no_violations(&self) {
        let violations = self.state.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, state: Arc<UpstreamState>) {
    stream.set_nodelay(true).unwrap();
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { state.answer(request).await }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // Errors are injected resets, and connections that the client closed.
    let _ = match tls {
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => builder.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
        None => builder.serve_connection(TokioIo::new(stream), service).await,
    };
}

/// Makes hyper close the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("injected connection reset")]
struct ConnectionReset;

impl UpstreamState {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, ConnectionReset> {
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.max_in_flight.fetch_max(now, Ordering::SeqCst);
        let answer = self.reply(request).await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    async fn reply(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, ConnectionReset> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        let text = String::from_utf8(body.collect().await.map_err(|_| ConnectionReset)?.to_bytes().to_vec()).unwrap();
        let forgets = self.forgets.load(Ordering::SeqCst);
        if !forgets {
            self.bodies.lock().unwrap().push(text.clone());
        }
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let is_checked = !self.accepts_anything.load(Ordering::SeqCst);
        if let Err(reason) = check(&path, &head.method, &header("x-org-id"), &header("content-type"), &body)
            && is_checked
        {
            self.violations.lock().unwrap().push(format!("{reason}: {path} {text}"));
            return Ok(respond(400, None, &json!({"error": reason})));
        }
        let reply = (self.choose_reply.lock().unwrap())(&path, &body);
        let id = if path == EVENT { "event_id" } else { "session_id" };
        let answer = json!({ id: body[id] });
        let record = |is_answered| {
            if forgets {
                return;
            }
            let (org, version) = (header("x-org-id"), head.version);
            self.accepted.lock().unwrap().push(AcceptedRequest { path, body, org, version, is_answered });
        };
        match reply {
            Reply::Accept => {
                record(true);
                Ok(respond(200, None, &answer))
            }
            Reply::AcceptAfter(delay) => {
                record(true);
                tokio::time::sleep(delay).await;
                Ok(respond(200, None, &answer))
            }
            // Some services name the client in their error: this one contains the organization id.
            Reply::Status(status, retry_after) => {
                let error = format!("injected failure for {}", header("x-org-id"));
                Ok(respond(status, retry_after, &json!({"error": error})))
            }
            Reply::Hang => {
                // Longer than any test: the client has to give up.
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Err(ConnectionReset)
            }
            Reply::Reset => Err(ConnectionReset),
            Reply::AcceptAndReset => {
                record(false);
                Err(ConnectionReset)
            }
        }
    }
}

fn respond(status: u16, retry_after: Option<String>, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status).header("content-type", "application/json");
    if let Some(retry_after) = retry_after {
        response = response.header("retry-after", retry_after);
    }
    response.body(Full::new(body.to_string().into())).unwrap()
}

/// Checks a request against the published schema of its call. `Err` names what is wrong.
fn check(path: &str, method: &hyper::Method, org: &str, content_type: &str, body: &Value) -> Result<(), String> {
    let require = |is_right: bool, what: &str| if is_right { Ok(()) } else { Err(what.to_owned()) };
    let is_uuid = |value: &Value| value.as_str().is_some_and(|text| text.len() == 36 && Uuid::try_parse(text).is_ok());
    require(method == hyper::Method::POST, "method")?;
    require(Uuid::try_parse(org).is_ok() && org.len() == 36, "x-org-id")?;
    require(content_type == "application/json", "content-type")?;
    require(is_uuid(&body["session_id"]), "session_id")?;
    require(body["timestamp"].is_i64(), "timestamp")?;
    let is_flat = |value: &Value| value.as_object().is_some_and(|members| members.values().all(Value::is_string));
    require(is_flat(&body["metadata"]), "metadata")?;
    let known: &[&str] = match path {
        EVENT => {
            require(is_uuid(&body["event_id"]), "event_id")?;
            for field in ["primitive_name", "args", "result"] {
                require(body[field].is_string(), field)?;
            }
            require(body["primitive_name"] != "", "primitive_name")?;
            require(body["success"].is_boolean(), "success")?;
            require(body.get("latency").is_none_or(Value::is_u64), "latency")?;
            require(body.get("parent_id").is_none_or(is_uuid), "parent_id")?;
            &[
                "event_id",
                "session_id",
                "primitive_name",
                "args",
                "result",
                "success",
                "latency",
                "timestamp",
                "parent_id",
                "metadata",
            ]
        }
        SESSION => {
            require(body["user_data"]["user_id"].is_string(), "user_data.user_id")?;
            require(body["client_config"].is_string(), "client_config")?;
            &["session_id", "client_config", "user_data", "timestamp", "metadata"]
        }
        _ => return Err("path".to_owned()),
    };
    require(body.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "unknown field")
}
