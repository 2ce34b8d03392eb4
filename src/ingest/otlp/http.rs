//! The handlers of `POST /v1/traces` and `POST /v1/logs`, and of the calls of gRPC.

use std::iter::Enumerate;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use uuid::Uuid;

use super::answer::{self, Encoding, Remarks};
use super::json_request::{Converted, to_protobuf};
use super::map::{Limits, Mapped, Mapper, Surroundings};
use super::notes::Notes;
use super::request::{Item, Items, Signal};
use super::value::Fault;
use crate::auth::Client;
use crate::http::{ApiError, Reserved};
use crate::ingest::accept::{Refused, busy, event_limit, explain, receive_any, redacted};
use crate::ingest::body;
use crate::ingest::config::MetricsExports;
use crate::ingest::dispatch::NotStored;
use crate::ingest::metrics::{Reason, RouteMetrics};
use crate::ingest::request_memory;
use crate::ingest::stage::Ingest;
use crate::ledger::format::record::Draft;
use crate::ledger::shard::queue::Refusal;
use cairn_proof::chain::EventSource;

/// The second path is what exporters build from a base URL that already ends with the path of a signal.
const TRACES: [&str; 4] = ["/v1/traces", "/v1/traces/v1/traces", LANGFUSE, GRPC_TRACES];
const LOGS: [&str; 3] = ["/v1/logs", "/v1/logs/v1/logs", GRPC_LOGS];
const METRICS: [&str; 3] = ["/v1/metrics", "/v1/metrics/v1/metrics", GRPC_METRICS];
/// The path that the SDKs of Langfuse append to the base URL that they are given.
const LANGFUSE: &str = "/api/public/otel/v1/traces";
/// The calls of gRPC.
const GRPC_TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const GRPC_LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const GRPC_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// The maximum number of events in a part of a request.
const PART_EVENTS: usize = 2048;
/// The number of bytes at which a part of a request is full. A single event may be longer.
const PART_BYTES: usize = request_memory::PART_BYTES as usize;
/// The maximum expanded size of a request, as a multiple of `limits.body_bytes`. In the expanded size, each item counts
/// with the resource and the scope that it shares with others. Without this bound a few bytes per item could produce
/// events of the maximum length.
const EXPANSION: usize = 16;

/// The routes of OTLP/HTTP and OTLP/gRPC.
pub fn routes() -> Router<Arc<Ingest>> {
    let routes = TRACES.into_iter().fold(Router::new(), |routes, path| routes.route(path, post(traces)));
    let routes = LOGS.into_iter().fold(routes, |routes, path| routes.route(path, post(logs)));
    let routes = METRICS.into_iter().fold(routes, |routes, path| routes.route(path, post(metrics_export)));
    routes.method_not_allowed_fallback(|| async { ApiError::method_not_allowed().into_response() })
}

type Call = (Client, Request);

async fn traces(
    State(ingest): State<Arc<Ingest>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Response<Body> {
    handle(&ingest, &ingest.traces_metrics, Signal::Traces, (client, request)).await
}

async fn logs(
    State(ingest): State<Arc<Ingest>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Response<Body> {
    handle(&ingest, &ingest.logs_metrics, Signal::Logs, (client, request)).await
}

/// Metrics are no events. By default they are acknowledged and dropped, because an exporter that also sends metrics cannot
/// always be told not to.
async fn metrics_export(
    State(ingest): State<Arc<Ingest>>,
    Extension(_): Extension<Client>,
    request: Request,
) -> Response<Body> {
    let encoding = match Encoding::of(request.headers()) {
        Ok(encoding) => encoding,
        Err(error) => return error.into_response(),
    };
    if ingest.otlp.metrics == MetricsExports::Refuse {
        return ApiError::not_found("metrics are not received (ingest.otlp.metrics: refuse)").into_response();
    }
    if let Err(error) = body::discard(request.into_body(), &ingest.limits()).await {
        return error.into_response();
    }
    ingest.discarded_metrics.increment();
    answer::empty(encoding)
}

async fn handle(ingest: &Ingest, metrics: &RouteMetrics, signal: Signal, request: Call) -> Response<Body> {
    let started = Instant::now();
    // Until the items are counted, a refused request counts as one.
    let mut open_items = 1;
    let response = match store(ingest, metrics, signal, request, &mut open_items).await {
        Ok((encoding, remarks)) => {
            let message = remarks.message(signal);
            match remarks.rejected() {
                0 if message.is_empty() => {}
                0 => metrics.log_warning(&message),
                _ => metrics.log_refusal(&message),
            }
            answer::success(encoding, signal, &remarks)
        }
        Err(refused) => metrics.refuse(redacted(ingest, refused), open_items as u64),
    };
    metrics.answered(response.status(), started.elapsed());
    response
}

/// Stores a request. After an error, `open_items` is the number of its items that are neither stored nor rejected.
async fn store(
    ingest: &Ingest,
    metrics: &RouteMetrics,
    signal: Signal,
    (client, request): Call,
    open_items: &mut usize,
) -> Result<(Encoding, Remarks), Refused> {
    let encoding = Encoding::of(request.headers()).map_err(|error| (error, Reason::Invalid))?;
    let (sent, mut reserved) = receive_any(ingest, metrics, client, request).await?;
    let converted = match encoding {
        Encoding::Protobuf | Encoding::Grpc => {
            Converted { protobuf: sent, has_items_field: true, ..Converted::default() }
        }
        Encoding::Json => from_json(signal, sent, &mut reserved)?,
    };
    if !converted.has_items_field {
        let message = format!("the request contains no {}: it has no {}", signal.item(), signal.field());
        return Ok((encoding, Remarks::of_request(message)));
    }
    let Converted { protobuf: body, faults, warnings, .. } = converted;
    let notes = [Notes::new(faults), Notes::new(warnings)];
    let export = body::run_blocking(body.len(), || Export::new(ingest, metrics, signal, &body, notes));
    let mut export = export.inspect_err(|_| *open_items = Items::of(&body).map_while(Result::ok).count().max(1))?;
    *open_items = export.mapper.items();
    // The number of items is known only now. It is bounded by limits.otlp_records.
    reserved.grow(export.mapper.tracking_bytes()).map_err(busy)?;
    // The first event was charged when the request was admitted.
    let mut charged = 1;
    while let Some(part) = export.run_blocking(|export| export.next_part(&mut reserved))? {
        ingest.rates.charge(client, part.drafts.len() - charged);
        charged = 0;
        export.store(part, &mut reserved, open_items).await?;
    }
    Ok((encoding, export.remarks))
}

fn from_json(signal: Signal, sent: Bytes, reserved: &mut Reserved) -> Result<Converted, Refused> {
    // The protobuf form is at most about as long.
    reserved.grow(sent.len()).map_err(busy)?;
    let converted = body::run_blocking(sent.len(), || to_protobuf(signal, &sent)).map_err(|error| {
        let message = format!("not OTLP JSON: {error}");
        (ApiError::bad_request(message), Reason::Invalid)
    })?;
    reserved.shrink(sent.len());
    Ok(converted)
}

/// An export request that is being stored.
struct Export<'a> {
    ingest: &'a Ingest,
    metrics: &'a RouteMetrics,
    items: Enumerate<Items<'a>>,
    mapper: Mapper<'a>,
    /// The items that could not be converted.
    faults: Notes,
    /// The items that were converted with a warning.
    warnings: Notes,
    remarks: Remarks,
}

/// Events that are stored together, and the items from which they were mapped.
#[derive(Default)]
struct Part<'a> {
    drafts: Vec<Draft>,
    items: Vec<MappedItem<'a>>,
    bytes: usize,
    /// The number of items that were rejected or not selected meanwhile.
    dropped: usize,
}

/// An item that was mapped.
#[derive(Clone, Copy)]
struct MappedItem<'a> {
    /// Its index in the request.
    index: usize,
    item: Item<'a>,
    /// The id of its event.
    id: Uuid,
}

impl<'a> Part<'a> {
    /// A part with room for the items of a request, or for those of a full part.
    fn with_room_for(items: usize) -> Part<'a> {
        let room = items.min(PART_EVENTS);
        Part { drafts: Vec::with_capacity(room), items: Vec::with_capacity(room), ..Part::default() }
    }

    fn push(&mut self, item: MappedItem<'a>, draft: Draft, reserved: &mut Reserved) -> Result<(), Refused> {
        reserved.grow(draft.memory_bytes()).map_err(busy)?;
        self.bytes += draft.memory_bytes();
        self.items.push(item);
        self.drafts.push(draft);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.drafts.len() >= PART_EVENTS || self.bytes >= PART_BYTES
    }
}

impl<'a> Export<'a> {
    fn new(
        ingest: &'a Ingest,
        metrics: &'a RouteMetrics,
        signal: Signal,
        body: &'a [u8],
        [faults, warnings]: [Notes; 2],
    ) -> Result<Export<'a>, Refused> {
        let body_limit = usize::try_from(ingest.limits().body_bytes.as_u64()).unwrap_or(usize::MAX);
        let limits = Limits {
            event: event_limit(ingest),
            items: ingest.limits().otlp_records,
            expanded_bytes: body_limit.saturating_mul(EXPANSION),
        };
        let around =
            Surroundings { config: &ingest.otlp, mapping: &ingest.otlp_mapping, stored: &*ingest.ledger, limits };
        let mapper = Mapper::new(signal, body, around).map_err(|fault| match fault {
            Fault::TooLarge(message) => (ApiError::too_large(message), Reason::TooLarge),
            fault => (ApiError::bad_request(fault.to_string()), Reason::Invalid),
        })?;
        let mapper = mapper.with_source(ingest.source(EventSource::OTLP));
        let items = Items::of(body).enumerate();
        Ok(Export { ingest, metrics, items, mapper, faults, warnings, remarks: Remarks::default() })
    }

    /// Maps the events of the next part; `None` at the end of the request.
    fn next_part(&mut self, reserved: &mut Reserved) -> Result<Option<Part<'a>>, Refused> {
        let mut part = Part::with_room_for(self.mapper.items());
        while !part.is_full() {
            let Some((index, item)) = self.items.next() else { break };
            // `Mapper::new` has checked the request, so this does not fail.
            let item = item.map_err(|error| (ApiError::bad_request(error.to_string()), Reason::Invalid))?;
            if let Some(fault) = self.faults.of(index).first() {
                let fault = Fault::Refused(fault.text.to_string());
                self.reject(index, &fault);
                part.dropped += 1;
                continue;
            }
            let mapped = self.mapper.map(&item, self.warnings.of(index));
            part.dropped += usize::from(!matches!(mapped, Ok(Mapped::Draft(..))));
            match mapped {
                Ok(Mapped::Draft(draft, id)) => {
                    self.warn(index);
                    part.push(MappedItem { index, item, id }, draft, reserved)?;
                }
                Ok(Mapped::Unselected) => self.ingest.unselected.increment(1),
                Ok(Mapped::Stored) => {}
                Err(fault) => self.reject(index, &fault),
            }
        }
        Ok((!part.drafts.is_empty()).then_some(part))
    }

    fn warn(&mut self, index: usize) {
        if let Some(warning) = self.mapper.warnings().first() {
            self.remarks.warn(index, warning);
        }
    }

    fn reject(&mut self, index: usize, fault: &Fault) {
        self.metrics.refused_many(
            match fault {
                Fault::TooLong(_) => Reason::TooLarge,
                _ => Reason::Invalid,
            },
            1,
        );
        let message = self.ingest.source(EventSource::OTLP).message(fault.to_string());
        self.remarks.reject(index, &message);
    }

    /// Stores a part. Items whose ids belong to different events are stored under replacement ids.
    async fn store(&mut self, part: Part<'a>, reserved: &mut Reserved, open_items: &mut usize) -> Result<(), Refused> {
        *open_items -= part.dropped;
        let stored = part.drafts.len();
        let taken = self.commit(part, reserved).await?;
        if !taken.is_empty() {
            let replaced = self.run_blocking(|export| export.replace_ids(taken, reserved))?;
            for MappedItem { index, id, .. } in self.commit(replaced, reserved).await? {
                // A replacement id is derived from the content, so no other event has it by accident.
                let fault = format!("its id and the replacement id {id} belong to different events");
                self.reject(index, &Fault::Refused(fault));
            }
        }
        *open_items -= stored;
        Ok(())
    }

    /// Maps items whose ids are taken again, with replacement ids.
    fn replace_ids(&mut self, taken: Vec<MappedItem<'a>>, reserved: &mut Reserved) -> Result<Part<'a>, Refused> {
        let mut part = Part::default();
        for MappedItem { index, item, id } in taken {
            match self.mapper.map_with_replacement_id(&item, self.warnings.of(index), id) {
                Ok(Mapped::Draft(draft, id)) => {
                    self.warn(index);
                    part.push(MappedItem { index, item, id }, draft, reserved)?;
                }
                Ok(Mapped::Unselected | Mapped::Stored) => {}
                Err(fault) => self.reject(index, &fault),
            }
        }
        Ok(part)
    }

    /// Runs `work` without blocking the other requests of this thread, see [`body::run_blocking`].
    fn run_blocking<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        body::run_blocking(self.mapper.expanded_bytes(), || work(self))
    }

    /// Commits a part, and returns the items whose ids belong to different events.
    async fn commit(&mut self, part: Part<'a>, reserved: &mut Reserved) -> Result<Vec<MappedItem<'a>>, Refused> {
        let (mut taken, mut failed) = (Vec::new(), None);
        let answers = self.ingest.dispatch.commit_many(part.drafts).await;
        for (answer, item) in answers.into_iter().zip(part.items) {
            match answer {
                Ok(stored) => self.metrics.accepted.increment(u64::from(!stored.is_duplicate)),
                Err(NotStored::Refused(Refusal::IdTaken)) => taken.push(item),
                Err(why) => failed = Some(why),
            }
        }
        reserved.shrink(part.bytes);
        failed.map_or(Ok(taken), |why| Err(explain(self.ingest, why)))
    }
}
