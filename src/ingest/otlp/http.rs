//! The handlers of `POST /v1/traces` and `POST /v1/logs`.

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

use super::answer::{self, Encoding, Rejected};
use super::json;
use super::map::{Limits, Mapped, Mapper};
use super::request::{Item, Items, Signal};
use super::value::Fault;
use crate::auth::Client;
use crate::http::{ApiError, Reserved};
use crate::ingest::accept::{Refused, busy, event_limit, explain, receive_any};
use crate::ingest::body;
use crate::ingest::dispatch::NotStored;
use crate::ingest::metrics::{Reason, RouteMetrics};
use crate::ingest::stage::Ingest;
use crate::ledger::format::record::Draft;
use crate::ledger::shard::queue::Refusal;

/// The second path is what exporters build from a base URL that already ends with the path of a signal.
const TRACES: [&str; 2] = ["/v1/traces", "/v1/traces/v1/traces"];
const LOGS: [&str; 2] = ["/v1/logs", "/v1/logs/v1/logs"];

/// The maximum number of events in a part of a request.
const PART_EVENTS: usize = 2048;
/// The number of bytes at which a part of a request is full. A single event may be longer.
const PART_BYTES: usize = 4 << 20;
/// The maximum expanded size of a request, as a multiple of `limits.body_bytes`. In the expanded size, each item counts
/// with the resource and the scope that it shares with others. Without this bound a few bytes per item could produce
/// events of the maximum length.
const EXPANSION: usize = 16;

/// The routes of OTLP/HTTP.
pub fn routes() -> Router<Arc<Ingest>> {
    let routes = TRACES.into_iter().fold(Router::new(), |routes, path| routes.route(path, post(traces)));
    let routes = LOGS.into_iter().fold(routes, |routes, path| routes.route(path, post(logs)));
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

async fn handle(ingest: &Ingest, metrics: &RouteMetrics, signal: Signal, request: Call) -> Response<Body> {
    let started = Instant::now();
    let response = match store(ingest, metrics, signal, request).await {
        Ok((encoding, rejected)) => {
            if rejected.count > 0 {
                metrics.log_refusal(signal.path(), &rejected.message);
            }
            answer::success(encoding, signal, &rejected)
        }
        Err((error, reason)) => {
            metrics.refused(reason);
            // Most exporters do not print the response.
            metrics.log_refusal(signal.path(), &error.message);
            error.into_response()
        }
    };
    metrics.answered(response.status(), started.elapsed());
    response
}

async fn store(
    ingest: &Ingest,
    metrics: &RouteMetrics,
    signal: Signal,
    (client, request): Call,
) -> Result<(Encoding, Rejected), Refused> {
    let encoding = Encoding::of(request.headers()).map_err(|error| (error, Reason::Invalid))?;
    let mut reserved = ingest.memory_budget.reserve();
    let sent = receive_any(ingest, metrics, client, request, &mut reserved).await?;
    let (body, has_items_field) = match encoding {
        Encoding::Protobuf => (sent, true),
        Encoding::Json => from_json(signal, sent, &mut reserved)?,
    };
    if !has_items_field {
        let message = format!("the request contains no {}: it has no {}", signal.item(), signal.field());
        return Ok((encoding, Rejected { count: 0, message }));
    }
    let mut export = body::run_blocking(body.len(), || Export::new(ingest, metrics, signal, &body))?;
    // The number of items is known only now. It is bounded by limits.otlp_records.
    reserved.grow(export.mapper.tracking_bytes()).map_err(busy)?;
    // The first event was charged when the request was admitted.
    let mut charged = 1;
    while let Some(part) = export.run_blocking(|export| export.next_part(&mut reserved))? {
        ingest.rates.charge(client, part.drafts.len() - charged);
        charged = 0;
        export.store(part, &mut reserved).await?;
    }
    Ok((encoding, export.rejected))
}

fn from_json(signal: Signal, sent: Bytes, reserved: &mut Reserved) -> Result<(Bytes, bool), Refused> {
    // The protobuf form is at most about as long.
    reserved.grow(sent.len()).map_err(busy)?;
    let (body, has_items_field) =
        body::run_blocking(sent.len(), || json::to_protobuf(signal, &sent)).map_err(|error| {
            let message = format!("not OTLP JSON: {error}");
            (ApiError::bad_request(message), Reason::Invalid)
        })?;
    reserved.shrink(sent.len());
    Ok((Bytes::from(body), has_items_field))
}

/// An export request that is being stored.
struct Export<'a> {
    ingest: &'a Ingest,
    metrics: &'a RouteMetrics,
    items: Items<'a>,
    mapper: Mapper<'a>,
    rejected: Rejected,
}

/// Events that are stored together, and the items from which they were mapped.
#[derive(Default)]
struct Part<'a> {
    drafts: Vec<Draft>,
    /// Each item with the id of its event.
    items: Vec<(Item<'a>, Uuid)>,
    bytes: usize,
}

impl<'a> Part<'a> {
    fn push(&mut self, item: Item<'a>, id: Uuid, draft: Draft, reserved: &mut Reserved) -> Result<(), Refused> {
        reserved.grow(draft.memory_bytes()).map_err(busy)?;
        self.bytes += draft.memory_bytes();
        self.items.push((item, id));
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
    ) -> Result<Export<'a>, Refused> {
        let body_limit = usize::try_from(ingest.limits().body_bytes.as_u64()).unwrap_or(usize::MAX);
        let limits = Limits {
            event: event_limit(ingest),
            items: ingest.limits().otlp_records,
            expanded_bytes: body_limit.saturating_mul(EXPANSION),
        };
        let mapper = Mapper::new(signal, body, &ingest.otlp, limits).map_err(|fault| match fault {
            Fault::TooLarge(message) => (ApiError::too_large(message), Reason::TooLarge),
            fault => (ApiError::bad_request(fault.to_string()), Reason::Invalid),
        })?;
        let mapper = mapper.with_labels(&ingest.labels);
        Ok(Export { ingest, metrics, items: Items::of(body), mapper, rejected: Rejected::default() })
    }

    /// Maps the events of the next part; `None` at the end of the request.
    fn next_part(&mut self, reserved: &mut Reserved) -> Result<Option<Part<'a>>, Refused> {
        let mut part = Part::default();
        while !part.is_full() {
            let Some(item) = self.items.next() else { break };
            // `Mapper::new` has checked the request, so this does not fail.
            let item = item.map_err(|error| (ApiError::bad_request(error.to_string()), Reason::Invalid))?;
            match self.mapper.map(&item) {
                Ok(Mapped::Draft(draft, id)) => part.push(item, id, draft, reserved)?,
                Ok(Mapped::Unselected) => self.ingest.unselected.increment(1),
                Err(fault) => self.reject(&fault),
            }
        }
        Ok((!part.drafts.is_empty()).then_some(part))
    }

    fn reject(&mut self, fault: &Fault) {
        self.metrics.refused(match fault {
            Fault::TooLong(_) => Reason::TooLarge,
            _ => Reason::Invalid,
        });
        if self.rejected.count == 0 {
            self.rejected.message = fault.to_string();
        }
        self.rejected.count += 1;
    }

    /// Stores a part. Items whose ids belong to different events are stored under replacement ids.
    async fn store(&mut self, part: Part<'a>, reserved: &mut Reserved) -> Result<(), Refused> {
        let taken = self.commit(part, reserved).await?;
        if taken.is_empty() {
            return Ok(());
        }
        let replaced = self.run_blocking(|export| export.replace_ids(taken, reserved))?;
        for (_, id) in self.commit(replaced, reserved).await? {
            // A replacement id is derived from the content, so no other event has it by accident.
            self.reject(&Fault::Refused(format!("its id and the replacement id {id} belong to different events")));
        }
        Ok(())
    }

    /// Maps items whose ids are taken again, with replacement ids.
    fn replace_ids(&mut self, taken: Vec<(Item<'a>, Uuid)>, reserved: &mut Reserved) -> Result<Part<'a>, Refused> {
        let mut part = Part::default();
        for (item, id) in taken {
            match self.mapper.map_with_replacement_id(&item, id) {
                Ok(Mapped::Draft(draft, id)) => part.push(item, id, draft, reserved)?,
                Ok(Mapped::Unselected) => {}
                Err(fault) => self.reject(&fault),
            }
        }
        Ok(part)
    }

    /// Runs `work` without blocking the other requests of this thread, see [`body::run_blocking`].
    fn run_blocking<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        body::run_blocking(self.mapper.expanded_bytes(), || work(self))
    }

    /// Commits a part, and returns the items whose ids belong to different events.
    async fn commit(&mut self, part: Part<'a>, reserved: &mut Reserved) -> Result<Vec<(Item<'a>, Uuid)>, Refused> {
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
