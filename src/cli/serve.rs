//! `cairn serve`: runs the server, reloads its configuration at SIGHUP, and shuts it down at SIGTERM or SIGINT.

use std::io;
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::Mode;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::ConfigArgs;
use super::exit::{CommandResult, Exit};
use super::logging::{LogLevel, ProcessLog, is_terminal};
use super::{service, termination};
use crate::config::{Loaded, is_lone_container};
use crate::http::{Address, Addresses};
use crate::ledger::store::StoreError;
use crate::relay::Unsent;
use crate::runtime::{FOR_COLLECTOR, system_clock};
use crate::serve::{Changed, Live, ServeError, Server};
use crate::text::plural;

/// The most threads for reads and for long work on requests. Each holds memory; with 256 connections that sent exports of 512
/// spans there were up to 178, for two cores. Eight reads run at once at most, so requests always get some.
const BLOCKING_THREADS: usize = 16;

/// Runs the server until SIGTERM or SIGINT.
pub fn run(args: &ConfigArgs) -> CommandResult {
    let loaded = args.load()?;
    let log = ProcessLog::start(&loaded.config.log)?;
    for warning in harden().into_iter().chain(service::sandbox_warnings(&loaded.config)) {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let fail_if_unsent = loaded.config.shutdown.fail_if_unsent;
    let result = runtime.block_on(serve(loaded, args, &log));
    // Blocking tasks of aborted requests must not delay the end of the process.
    runtime.shutdown_background();
    match result {
        Ok(unsent) if unsent.is_empty() => Ok(Exit::Success),
        Ok(unsent) => {
            termination::report(&unsent);
            Ok(if fail_if_unsent { Exit::Unsent } else { Exit::Success })
        }
        Err(error) => {
            // Written to the process log only, because log collectors read both standard output and standard error.
            tracing::error!("{error}");
            // A restart does not make the directory that storage.data_dir names a ledger.
            let is_wrong_path = matches!(error.downcast_ref(), Some(ServeError::Store(StoreError::NotALedger { .. })));
            Ok(if is_wrong_path { Exit::Usage } else { Exit::Failed })
        }
    }
}

/// The number of threads that handle requests: one less than there are cores. The remaining core is for the shards, the
/// consumers and the database. On two cores, two workers accepted 7 % fewer single events from 128 connections, and
/// took 20 % more CPU time per event at half of that rate, because they woke each other. Batches and spans are as fast.
/// See `docs/adr/0017-one-request-thread-less-than-cores.md`.
fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    cores.saturating_sub(1).max(1)
}

async fn serve(loaded: Loaded, args: &ConfigArgs, log: &ProcessLog) -> Result<Vec<Unsent>, Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    let server = Server::start(&loaded.config, |store| store, system_clock()).await?;
    server.count_dropped_lines(log.dropped_lines());
    announce(&loaded, &server, log)?;
    let reporting = service::ready(&server);
    // The configuration contains keys.
    drop(loaded);
    let reloading = tokio::spawn(listen_for_hangup(hangup, args.clone(), Arc::clone(server.live()), log.level.clone()));
    let shutdown = async {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "shutting down, answering requests in flight");
        reporting.abort();
        service::stopping();
    };
    let ledger = Arc::clone(server.ledger());
    let result = server.run(shutdown).await;
    // The task holds a reference to the ledger.
    reloading.abort();
    let _ = reloading.await;
    if result.is_err() {
        // Threads may still use the database. Closing it while they do could crash the process before it exits with the
        // reported error.
        std::mem::forget(ledger);
    }
    let unsent = result?;
    tracing::info!("shutdown complete");
    Ok(unsent)
}

/// Reloads the configuration at each SIGHUP.
async fn listen_for_hangup(mut hangup: Signal, args: ConfigArgs, live: Arc<Live>, level: LogLevel) {
    while hangup.recv().await.is_some() {
        let (args, live, level) = (args.clone(), Arc::clone(&live), level.clone());
        let reloaded = tokio::task::spawn_blocking(move || {
            let loaded = args.read().map_err(|error| error.to_string())?;
            let changed = live.apply(&loaded.config)?;
            level.set(&loaded.config.log.level);
            Ok::<_, String>(changed)
        });
        match reloaded.await {
            Ok(Ok(Changed { applied, needs_restart })) => {
                match applied.is_empty() {
                    true => tracing::info!("configuration reloaded: no setting changed that can be applied"),
                    false => tracing::info!(applied = applied.join(", "), "configuration reloaded"),
                }
                if !needs_restart.is_empty() {
                    let keys = needs_restart.join(", ");
                    tracing::warn!(keys, "changed settings need a restart and were not applied");
                }
            }
            Ok(Err(error)) => tracing::error!(error, "configuration not reloaded: it is invalid, nothing was changed"),
            Err(error) => tracing::error!(%error, "configuration not reloaded"),
        }
    }
}

/// Logs that the server is ready, with version and addresses. On a terminal, also prints how to send a first event.
fn announce(loaded: &Loaded, server: &Server, log: &ProcessLog) -> io::Result<()> {
    let addresses = Addresses(server.addresses());
    let admin = server.admin_address()?;
    let otlp = Some(Addresses(server.otlp_addresses())).filter(|addresses| !addresses.0.is_empty());
    let data_dir = std::path::absolute(&loaded.config.storage.data_dir)?;
    tracing::info!(
        name: FOR_COLLECTOR,
        version = env!("CARGO_PKG_VERSION"),
        config_file = loaded.file.as_ref().map_or("none".to_owned(), |file| file.display().to_string()),
        instance = %server.ledger().instance(),
        listen = %addresses,
        tls = server.is_tls(),
        admin = %admin,
        otlp = otlp.as_ref().map(tracing::field::display),
        data_dir = %data_dir.display(),
        events = server.ledger().committed().events(),
        "cairn is ready"
    );
    if is_terminal(&loaded.config.log) {
        log.print(&greeting(loaded, server, &admin, &data_dir));
    }
    warn_of_exposed_secrets(loaded, &addresses, server.is_tls());
    warn_if_unreachable(&addresses);
    Ok(())
}

/// What a person at a terminal gets instead of the line about the ready server.
fn greeting(loaded: &Loaded, server: &Server, admin: &Address, data_dir: &Path) -> String {
    let scheme = if server.is_tls() { "https" } else { "http" };
    let urls: Vec<String> = server
        .addresses()
        .iter()
        .map(|address| if address.tcp().is_some() { format!("{scheme}://{address}") } else { address.to_string() })
        .collect();
    let otlp = server.otlp_addresses();
    let otlp: String = otlp.iter().map(|address| format!("  OTLP     {scheme}://{address}\n")).collect();
    let config = loaded.file.as_ref().map_or("none, only defaults".to_owned(), |file| file.display().to_string());
    let mut text = format!(
        "\n  cairn {} is listening on {}\n{otlp}  metrics  http://{admin}/metrics\n  data     {}, {}\n  config   {config}\n\n",
        env!("CARGO_PKG_VERSION"),
        urls.join(" and "),
        data_dir.display(),
        plural(server.ledger().committed().events(), "event"),
    );
    if !server.is_tls() && !loaded.config.auth.has_keys() && server.addresses().iter().any(|it| it.tcp().is_some()) {
        text += &format!(
            "  Try it:\n  curl {}/v1/events -H \"Content-Type: application/json\" -d '{{\"agent_id\": \"my-agent\", \
             \"action_type\": \"TOOL_CALL\", \"action_name\": \"search_database\", \"action_status\": \"success\"}}'\n\n",
            urls[0]
        );
    }
    text
}

/// Warns if nothing outside of a container can reach the server. The containers of a pod share their loopback interface.
fn warn_if_unreachable(addresses: &Addresses) {
    if is_lone_container() && addresses.0.iter().all(Address::is_local) {
        tracing::warn!(
            "only programs in this container can send events: to publish the port, set CAIRN_LISTEN=0.0.0.0:7600, and \
             CAIRN_AUTH__API_KEYS or CAIRN_AUTH__ALLOW_ANONYMOUS=true"
        );
    }
}

/// Warns if keys are sent unencrypted, or if files with secrets are readable by every user. Neither prevents the start.
fn warn_of_exposed_secrets(loaded: &Loaded, addresses: &Addresses, is_tls: bool) {
    let config = &loaded.config;
    // The standard ports are local.
    let mut receiving = addresses.0.iter().chain(&config.ingest.otlp.listen);
    if config.auth.has_keys() && !is_tls && receiving.any(|address| !address.is_local()) {
        tracing::warn!("keys and events are sent unencrypted: set tls.cert_file and tls.key_file");
    }
    let has_clear_keys = config.auth.api_keys.iter().any(|key| !key.starts_with("sha256:"));
    let configuration = loaded.file.as_ref().filter(|_| has_clear_keys);
    let secrets = config.tls.key_file.iter().chain(&config.auth.api_keys_file).chain(configuration);
    for file in secrets.chain(config.relay.all().filter_map(|(_, destination)| destination.org_id_file.as_ref())) {
        let mode = std::fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
        // Mounted secrets are usually readable by a group.
        if mode & 0o007 != 0 {
            tracing::warn!(
                file = %file.display(),
                "secret file is readable by every user of this machine: restrict its permissions"
            );
        }
    }
}

/// Restricts the permissions of new files, turns off core dumps, and raises the limit of open files. Returns what
/// failed.
fn harden() -> Vec<String> {
    use rustix::process::{DumpableBehavior, Resource, getrlimit, set_dumpable_behavior, setrlimit, umask};
    // New files are accessible to their owner only.
    umask(Mode::RWXG | Mode::RWXO);
    let mut failed = Vec::new();
    // Core dumps, and the memory of a process that other processes may inspect, contain keys.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        failed.push(format!("core dumps cannot be turned off: {error}"));
    }
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        failed.push(format!("the limit of open files cannot be raised: {error}"));
    }
    failed
}
