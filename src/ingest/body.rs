//! Reads and decompresses the body of a request, bounded in bytes, in time, and in the memory of all requests together.

use std::future::Future;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body::Frame;
use http_body_util::BodyExt;

use super::config::LimitsConfig;
use super::request_memory::RequestMemory;
use crate::http::{ApiError, Reserved, grpc};

/// The time after which a peer that sends nothing is compared with [`MIN_BYTES_PER_SECOND`].
const STALL: Duration = Duration::from_millis(500);
/// The rate at which a body has to arrive while other requests wait for memory.
const MIN_BYTES_PER_SECOND: u64 = 64 << 10;

/// The `Content-Encoding` of a body.
enum Encoding {
    Identity,
    Gzip,
    Zstd,
    Deflate,
}

/// Checks that the `Content-Type` of a request is `application/json`.
///
/// # Errors
/// 415 if it is another one, or missing.
pub fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let sent = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = sent.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::unsupported(if sent.is_empty() {
        "Content-Type: expected application/json, found none".to_owned()
    } else {
        format!("Content-Type: expected application/json, found {sent}")
    }))
}

/// Reads and decompresses a whole body. Its memory is reserved before it is read.
///
/// # Errors
/// 400 when it cannot be decompressed or is truncated, 408 when it takes too long, 413 when it is too large, 415 for an
/// unknown encoding, 503 when the requests of all connections together take too much memory.
pub async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limits: &LimitsConfig,
    memory: &RequestMemory,
) -> Result<(Bytes, Reserved), ApiError> {
    let is_grpc = grpc::is_grpc(headers);
    let encoding = encoding(headers, if is_grpc { grpc::ENCODING } else { header::CONTENT_ENCODING })?;
    let limit = usize::try_from(limits.body_bytes.as_u64()).unwrap_or(usize::MAX);
    let content_length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = content_length.filter(|length| *length > limit as u64) {
        // A client that waits for a permission to send the body sees the answer without sending it, and a body that is
        // far too large would not be read to its end.
        if length <= 2 * limits.body_bytes.as_u64() {
            Box::pin(skip(headers, &mut body, limits)).await;
        }
        return Err(too_large(limit));
    }
    let collected = async {
        let mut reserved = memory.admit(content_length, !matches!(encoding, Encoding::Identity)).await?;
        let sent =
            with_timeout(limits.body_timeout, collect(&mut body, (limit, content_length), &mut reserved, memory));
        Ok((sent.await?, reserved))
    };
    let collected: Result<_, ApiError> = collected.await;
    if let Err(error) = &collected
        && matches!(error.status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::SERVICE_UNAVAILABLE)
    {
        Box::pin(skip(headers, &mut body, limits)).await;
    }
    let (sent, mut reserved) = collected?;
    let received = sent.len();
    let (encoding, sent) = match is_grpc {
        true => grpc::message(sent).map(|(sent, is_compressed)| match is_compressed {
            true => (encoding, sent),
            false => (Encoding::Identity, sent),
        })?,
        false => (encoding, sent),
    };
    let decompressed = match encoding {
        Encoding::Identity => {
            reserved.end_turn();
            return Ok((sent, reserved));
        }
        Encoding::Gzip => run_blocking(sent.len() * ASSUMED_RATIO, || decompress::gzip(&sent, limit, &mut reserved)),
        Encoding::Zstd => run_blocking(sent.len() * ASSUMED_RATIO, || decompress::zstd(&sent, limit, &mut reserved)),
        Encoding::Deflate => {
            run_blocking(sent.len() * ASSUMED_RATIO, || decompress::deflate(&sent, limit, &mut reserved))
        }
    };
    let decompressed = Bytes::from(decompressed?);
    reserved.shrink(received);
    memory.settle(&mut reserved, decompressed.len() as u64).await?;
    reserved.end_turn();
    Ok((decompressed, reserved))
}

/// Reads and drops a whole body.
///
/// # Errors
/// 408 when it takes too long, 413 when it is too large.
pub async fn discard(mut body: Body, limits: &LimitsConfig) -> Result<(), ApiError> {
    match drain(&mut body, limits).await {
        Drained::Whole => Ok(()),
        Drained::TooLarge => Err(too_large(usize::try_from(limits.body_bytes.as_u64()).unwrap_or(usize::MAX))),
        Drained::TooSlow => {
            let limit = limits.body_timeout;
            Err(ApiError::timeout(format!("the body took longer than {limit:?} (limits.body_timeout)")))
        }
    }
}

/// Reads and drops a body whose request is refused, unless the client waits for a permission to send it.
pub async fn skip(headers: &HeaderMap, body: &mut Body, limits: &LimitsConfig) {
    if !headers.contains_key(header::EXPECT) {
        drain(body, limits).await;
    }
}

/// How the drain of a body ended.
enum Drained {
    Whole,
    TooLarge,
    TooSlow,
}

/// Reads and drops the rest of a body, up to twice `limits.body_bytes` and for `limits.body_timeout`. A client that is still sending
/// when the connection is closed would not see the answer.
async fn drain(body: &mut Body, limits: &LimitsConfig) -> Drained {
    let max = 2 * limits.body_bytes.as_u64();
    let reading = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, |data| data.len() as u64);
            if read > max {
                return Drained::TooLarge;
            }
        }
        Drained::Whole
    };
    tokio::time::timeout(limits.body_timeout, reading).await.unwrap_or(Drained::TooSlow)
}

/// The compression ratio that is assumed to estimate the work of decompressing a body.
const ASSUMED_RATIO: usize = 32;

/// Runs `work` on `bytes` bytes. If that takes long, the other requests of this thread move to another thread
/// meanwhile.
pub fn run_blocking<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    const LONG_BYTES: usize = 64 << 10;
    if bytes > LONG_BYTES { tokio::task::block_in_place(work) } else { work() }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::too_large(format!("the body is larger than {limit} bytes (limits.body_bytes)"))
}

/// The encoding that the header `name` names.
fn encoding(headers: &HeaderMap, name: HeaderName) -> Result<Encoding, ApiError> {
    let mut encodings = headers.get_all(&name).iter();
    let sent = encodings.next().map(|value| value.to_str().unwrap_or("?").trim());
    match sent.map(str::to_ascii_lowercase).as_deref() {
        _ if encodings.next().is_some() => {
            Err(ApiError::unsupported(format!("{}: expected at most one", title(&name))))
        }
        None | Some("" | "identity") => Ok(Encoding::Identity),
        Some("gzip" | "x-gzip") => Ok(Encoding::Gzip),
        Some("zstd") => Ok(Encoding::Zstd),
        Some("deflate") => Ok(Encoding::Deflate),
        Some(other) => Err(ApiError::unsupported(format!(
            "{}: expected gzip, zstd, deflate or identity, found {other}",
            title(&name)
        ))),
    }
}

/// The name of a header that names an encoding, as people know it.
fn title(name: &HeaderName) -> &str {
    if *name == header::CONTENT_ENCODING { "Content-Encoding" } else { name.as_str() }
}

/// Waits for `collecting`, but not longer than `limit`.
async fn with_timeout(
    limit: Duration,
    collecting: impl Future<Output = Result<Bytes, ApiError>>,
) -> Result<Bytes, ApiError> {
    let mut collecting = std::pin::pin!(collecting);
    // Most bodies arrive together with the head and need no timer.
    if let Some(collected) = collecting.as_mut().now_or_never() {
        return collected;
    }
    let timed_out = |_| ApiError::timeout(format!("the body took longer than {limit:?} (limits.body_timeout)"));
    tokio::time::timeout(limit, collecting).await.map_err(timed_out)?
}

/// Collects a body of at most `limit` bytes, of which the client announced `content_length`.
async fn collect(
    body: &mut Body,
    (limit, content_length): (usize, Option<u64>),
    reserved: &mut Reserved,
    memory: &RequestMemory,
) -> Result<Bytes, ApiError> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut received = 0;
    let started = Instant::now();
    while let Some(frame) = next_frame(body, received, started, reserved).await? {
        let Ok(data) = frame.into_data() else { continue };
        received += data.len();
        if received > limit {
            return Err(too_large(limit));
        }
        // Waits for the memory, so that what follows takes it from what is reserved.
        memory.cover(reserved, received as u64).await?;
        reserved.grow(data.len())?;
        // A body that consists of one chunk is not copied.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                // The announced length was checked against the limit. A buffer that grows would be copied several times.
                rest.reserve(content_length.map_or(0, |length| length as usize).max(received));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// The next frame of a body; `None` at its end. While others wait for memory, a peer that has reserved some has to send.
async fn next_frame(
    body: &mut Body,
    received: usize,
    started: Instant,
    reserved: &Reserved,
) -> Result<Option<Frame<Bytes>>, ApiError> {
    let truncated = |error| ApiError::bad_request(format!("the body is truncated: {error}"));
    let mut frame = std::pin::pin!(body.frame());
    // Most frames are there already and need no timer.
    if let Some(ready) = frame.as_mut().now_or_never() {
        return ready.transpose().map_err(truncated);
    }
    let waiting = async {
        loop {
            if let Ok(arrived) = tokio::time::timeout(STALL, frame.as_mut()).await {
                return arrived.transpose().map_err(truncated);
            }
            let required = started.elapsed().as_millis() as u64 * MIN_BYTES_PER_SECOND / 1000;
            if reserved.is_contended() && (received as u64) < required {
                let message =
                    "the body arrives too slowly while other requests wait for memory (limits.inflight_bytes)";
                return Err(ApiError::timeout(message));
            }
        }
    };
    // Boxed, because every request's future has room for it.
    Box::pin(waiting).await
}

/// Decompresses a body, but not beyond its limit.
mod decompress {
    use std::io::Read;

    use super::{ApiError, Reserved, too_large};

    const STEP: usize = 64 << 10;
    /// RFC 8878 recommends that decoders support windows of up to 8 MiB. A larger window takes its size in memory.
    const ZSTD_WINDOW_LOG_MAX: u32 = 23;

    pub fn gzip(sent: &[u8], limit: usize, reserved: &mut Reserved) -> Result<Vec<u8>, ApiError> {
        inflate("gzip", flate2::read::MultiGzDecoder::new(sent), limit, reserved)
    }

    /// RFC 9110 defines `deflate` as the zlib format (RFC 1950); some clients send the bare stream (RFC 1951).
    pub fn deflate(sent: &[u8], limit: usize, reserved: &mut Reserved) -> Result<Vec<u8>, ApiError> {
        // The header of zlib: method 8, and a checksum over both bytes.
        let is_zlib = matches!(sent, [a, b, ..] if a & 0x0f == 8 && (u16::from(*a) << 8 | u16::from(*b)) % 31 == 0);
        match is_zlib {
            true => inflate("deflate", flate2::read::ZlibDecoder::new(sent), limit, reserved),
            false => inflate("deflate", flate2::read::DeflateDecoder::new(sent), limit, reserved),
        }
    }

    fn inflate(name: &str, mut decoder: impl Read, limit: usize, reserved: &mut Reserved) -> Result<Vec<u8>, ApiError> {
        let invalid = |error: std::io::Error| ApiError::bad_request(format!("the body is not valid {name}: {error}"));
        let mut out = Vec::new();
        loop {
            let before = out.len();
            make_room(&mut out, reserved)?;
            let mut step = Read::by_ref(&mut decoder).take(STEP as u64);
            step.read_to_end(&mut out).map_err(invalid)?;
            if out.len() > limit {
                return Err(too_large(limit));
            }
            if out.len() == before {
                return Ok(out);
            }
        }
    }

    /// Makes room for a step. The buffer grows by a quarter, and what it grew by is reserved.
    fn make_room(out: &mut Vec<u8>, reserved: &mut Reserved) -> Result<(), ApiError> {
        // `read_to_end` looks for the end in a buffer with some room.
        const PROBE: usize = 64;
        if out.capacity() - out.len() < STEP + PROBE {
            let before = out.capacity();
            let more = STEP + PROBE + out.len() / 4;
            reserved.grow(out.len() + more - before)?;
            out.reserve_exact(more);
        }
        Ok(())
    }

    pub fn zstd(sent: &[u8], limit: usize, reserved: &mut Reserved) -> Result<Vec<u8>, ApiError> {
        let invalid =
            |code| ApiError::bad_request(format!("the body is not valid zstd: {}", zstd_safe::get_error_name(code)));
        let mut context = zstd_safe::DCtx::create();
        context.set_parameter(zstd_safe::DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(invalid)?;
        let mut input = zstd_safe::InBuffer::around(sent);
        let mut out: Vec<u8> = Vec::new();
        let mut step = vec![0; STEP];
        loop {
            make_room(&mut out, reserved)?;
            let mut output = zstd_safe::OutBuffer::around(&mut step[..]);
            let missing = context.decompress_stream(&mut output, &mut input).map_err(invalid)?;
            let written = output.as_slice().len();
            out.extend_from_slice(output.as_slice());
            if out.len() > limit {
                return Err(too_large(limit));
            }
            let is_at_end = input.pos() == sent.len();
            match missing {
                // The last frame is complete and all of its output is written.
                0 if is_at_end => return Ok(out),
                _ if is_at_end && written < STEP => {
                    return Err(ApiError::bad_request("the body is not valid zstd: it is truncated"));
                }
                _ => {}
            }
        }
    }
}
