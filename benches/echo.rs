//! A limit to measure against: a bare hyper server that reads a body and sends it back.
//!
//! It has what any HTTP server on this stack pays for, and nothing else: no routes, no JSON, no disk. Started as
//! `echo ADDRESS`; ends when it is killed.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Response::new(Full::new(body)))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let Some(address) = std::env::args().skip(1).find_map(|argument| argument.parse::<SocketAddr>().ok()) else {
        eprintln!("usage: echo ADDRESS, such as 127.0.0.1:7700");
        return Ok(());
    };
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(echo);
            // A connection's errors are its peer's.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
