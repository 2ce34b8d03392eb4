//! `grpc.health.v1.Health`: whether the server accepts events, for probes and load balancers that speak gRPC. The answer is that of
//! `/readyz`. Needs no key, because probes have none.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::Stream;
use futures_util::stream;
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::admin::Admin;

/// The interval at which a watched status is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// The most bytes of a request: the name of a service.
const MAX_REQUEST_BYTES: usize = 4 << 10;
/// The names of services whose status can be asked for. The empty one is the server.
const SERVICES: [&str; 4] = [
    "",
    "opentelemetry.proto.collector.trace.v1.TraceService",
    "opentelemetry.proto.collector.logs.v1.LogsService",
    "opentelemetry.proto.collector.metrics.v1.MetricsService",
];

struct Service(Arc<Admin>);

/// The route of the service.
pub fn route(admin: Arc<Admin>) -> Router {
    let service = HealthServer::new(Service(admin)).max_decoding_message_size(MAX_REQUEST_BYTES);
    Router::new().route_service("/grpc.health.v1.Health/{method}", service)
}

impl Service {
    fn status(&self) -> ServingStatus {
        match self.0.not_ready() {
            None => ServingStatus::Serving,
            Some(_) => ServingStatus::NotServing,
        }
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// Whether there is the service whose status is asked for.
fn is_known(request: &Request<HealthCheckRequest>) -> bool {
    SERVICES.contains(&&*request.get_ref().service)
}

#[async_trait]
impl Health for Service {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(&request) {
            return Err(Status::not_found("there is no such service"));
        }
        Ok(Response::new(answer(self.status())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Tells the status now and whenever it changes. Ends when the server shuts down, which waits for it.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (is_known, admin) = (is_known(&request), Arc::clone(&self.0));
        let changes = stream::unfold((Service(admin), None), move |(service, told)| async move {
            loop {
                let status = if is_known { service.status() } else { ServingStatus::ServiceUnknown };
                if told != Some(status) {
                    return Some((Ok(answer(status)), (service, Some(status))));
                }
                if service.0.is_draining() {
                    return None;
                }
                tokio::time::sleep(WATCH_INTERVAL).await;
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
