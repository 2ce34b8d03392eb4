//! An Agnost to test against: it checks every request against the published schema, remembers it, and fails to order.

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

/// The organization that tests are.
pub const ORG: &str = "6f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11";

pub const EVENT: &str = "/api/v1/capture-event";
pub const SESSION: &str = "/api/v1/capture-session";

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is taken and answered.
    Take,
    /// It is refused with this status and perhaps a Retry-After.
    Status(u16, Option<String>),
    /// It is never answered.
    Hang,
    /// It is taken, and answered only after a while.
    Late(Duration),
    /// The connection ends before it is looked at.
    Reset,
    /// It is taken, and the connection ends before the answer.
    LoseAnswer,
}

/// A request that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    pub path: String,
    pub body: Value,
    pub org: String,
    pub version: hyper::Version,
    /// The answer was sent as far as the upstream can tell.
    pub is_answered: bool,
}

impl Taken {
    pub fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.body))
    }
}

type Decide = dyn FnMut(&str, &Value) -> Fate + Send;

/// What an upstream knows; it outlives a restart.
pub struct Memory {
    pub taken: Mutex<Vec<Taken>>,
    /// Every body that came, whatever became of it.
    pub seen: Mutex<Vec<String>>,
    /// What was wrong with requests.
    pub violations: Mutex<Vec<String>>,
    /// Whether it looks at nothing: the SDKs send what the published schema does not know.
    pub takes_anything: AtomicBool,
    decide: Mutex<Box<Decide>>,
    in_flight: AtomicUsize,
    /// The most requests at once.
    pub most_in_flight: AtomicUsize,
}

/// A running upstream.
pub struct Upstream {
    pub address: SocketAddr,
    pub memory: Arc<Memory>,
    server: Option<JoinHandle<()>>,
    tls: Option<TlsAcceptor>,
}

impl Upstream {
    pub async fn start() -> Upstream {
        Upstream::start_with(|_, _| Fate::Take).await
    }

    /// Starts an upstream where `decide` says what happens to each request, by its path and body.
    pub async fn start_with(decide: impl FnMut(&str, &Value) -> Fate + Send + 'static) -> Upstream {
        Upstream::start_as(decide, None).await
    }

    pub async fn start_as(
        decide: impl FnMut(&str, &Value) -> Fate + Send + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Upstream {
        let memory = Arc::new(Memory {
            taken: Mutex::default(),
            seen: Mutex::default(),
            violations: Mutex::default(),
            takes_anything: AtomicBool::default(),
            decide: Mutex::new(Box::new(decide)),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
        });
        let mut upstream = Upstream { address: SocketAddr::from(([127, 0, 0, 1], 0)), memory, server: None, tls };
        upstream.up().await;
        upstream
    }

    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    /// Comes back where it was.
    pub async fn up(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (memory, tls) = (Arc::clone(&self.memory), self.tls.clone());
        self.server = Some(tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, tls.clone(), Arc::clone(&memory)));
            }
        }));
    }

    /// Goes away, in the middle of whatever it does.
    pub async fn down(&mut self) {
        let server = self.server.take().unwrap();
        server.abort();
        let _ = server.await;
    }

    /// From now on, this decides.
    pub fn decide(&self, decide: impl FnMut(&str, &Value) -> Fate + Send + 'static) {
        *self.memory.decide.lock().unwrap() = Box::new(decide);
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.memory.taken.lock().unwrap().clone()
    }

    /// The events that were taken.
    pub fn events(&self) -> Vec<Taken> {
        self.taken().into_iter().filter(|taken| taken.path == EVENT).collect()
    }

    /// How many events were taken, again and again counted.
    pub fn event_count(&self) -> usize {
        self.memory.taken.lock().unwrap().iter().filter(|taken| taken.path == EVENT).count()
    }

    /// No request broke the schema.
    pub fn assert_no_violations(&self) {
        let violations = self.memory.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, memory: Arc<Memory>) {
    stream.set_nodelay(true).unwrap();
    let service = service_fn(move |request| {
        let memory = Arc::clone(&memory);
        async move { memory.answer(request).await }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // Errors are those to order, and connections that the other side ended.
    let _ = match tls {
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => builder.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
        None => builder.serve_connection(TokioIo::new(stream), service).await,
    };
}

/// Breaks the connection off.
#[derive(Debug, thiserror::Error)]
#[error("to order")]
struct BrokenOff;

impl Memory {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, BrokenOff> {
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(now, Ordering::SeqCst);
        let answer = self.decide(request).await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    async fn decide(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, BrokenOff> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
        let text = String::from_utf8(body.collect().await.map_err(|_| BrokenOff)?.to_bytes().to_vec()).unwrap();
        self.seen.lock().unwrap().push(text.clone());
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let is_checked = !self.takes_anything.load(Ordering::SeqCst);
        if let Err(why) = check(&path, &head.method, &header("x-org-id"), &header("content-type"), &body)
            && is_checked
        {
            self.violations.lock().unwrap().push(format!("{why}: {path} {text}"));
            return Ok(respond(400, None, &json!({"error": why})));
        }
        let fate = (self.decide.lock().unwrap())(&path, &body);
        let id = if path == EVENT { "event_id" } else { "session_id" };
        let answer = json!({ id: body[id] });
        let take = |is_answered| {
            let (org, version) = (header("x-org-id"), head.version);
            self.taken.lock().unwrap().push(Taken { path, body, org, version, is_answered });
        };
        match fate {
            Fate::Take => {
                take(true);
                Ok(respond(200, None, &answer))
            }
            Fate::Late(wait) => {
                take(true);
                tokio::time::sleep(wait).await;
                Ok(respond(200, None, &answer))
            }
            // Some say whom they refuse.
            Fate::Status(status, retry_after) => {
                let error = format!("to order, {}", header("x-org-id"));
                Ok(respond(status, retry_after, &json!({"error": error})))
            }
            Fate::Hang => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Err(BrokenOff)
            }
            Fate::Reset => Err(BrokenOff),
            Fate::LoseAnswer => {
                take(false);
                Err(BrokenOff)
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

/// The published schema of both calls.
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
