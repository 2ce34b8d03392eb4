//! A limit for `bench.py`: a bare hyper server that returns the request body.
//!
//! It has the cost of every HTTP server on this stack, and nothing else: no routes, no JSON, no disk. Usage:
//! `echo ADDRESS`; it runs until it is killed.

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
            // Errors of a connection are caused by its peer.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
