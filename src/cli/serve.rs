//! `cairn serve`

use std::io;
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustix::fs::Mode;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::ConfigArgs;
use super::exit::{CommandResult, Exit};
use super::logging::{LogLevel, is_text, start_log};
use crate::config::Loaded;
use crate::http::{Address, Addresses};
use crate::runtime::system_clock;
use crate::serve::{Changed, Live, Server};

/// Runs the server until SIGTERM or SIGINT.
pub fn run(args: &ConfigArgs) -> CommandResult {
    let loaded = args.load()?;
    let level = start_log(&loaded.config.log);
    for error in restrict() {
        tracing::warn!("{error}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build()?;
    let result = runtime.block_on(serve(loaded, args, level));
    // Reads that nobody waits for any more must not keep the process alive.
    runtime.shutdown_background();
    match result {
        Ok(()) => Ok(Exit::Success),
        Err(error) => {
            // Into the log and nowhere else: a collector reads both streams.
            tracing::error!("{error}");
            Ok(Exit::Failed)
        }
    }
}

/// How many threads take and answer requests: one for each core but one, which is for the shards, what follows them and the
/// database. On two cores, a worker on each took 7 % fewer single events from 128 connections, and at half of that rate 20 %
/// more CPU time for each: they woke one another. Batches and spans are as fast.
fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    cores.saturating_sub(1).max(1)
}

async fn serve(loaded: Loaded, args: &ConfigArgs, level: LogLevel) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    let server = Server::start(&loaded.config, |store| store, system_clock()).await?;
    announce(&loaded, &server)?;
    // It holds keys.
    drop(loaded);
    let reloading = tokio::spawn(listen_for_hangup(hangup, args.clone(), Arc::clone(server.live()), level));
    let shutdown = async {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "shutting down: what is in flight is answered");
    };
    let ledger = Arc::clone(server.ledger());
    let result = server.run(shutdown).await;
    // It holds the ledger.
    reloading.abort();
    let _ = reloading.await;
    if result.is_err() {
        // Not everything that uses the database may have ended, and closing it under its users' feet would end the process
        // in another way than the one that was told.
        std::mem::forget(ledger);
    }
    result?;
    tracing::info!("closed");
    Ok(())
}

/// Reads the configuration again at each SIGHUP.
async fn listen_for_hangup(mut hangup: Signal, args: ConfigArgs, live: Arc<Live>, level: LogLevel) {
    while hangup.recv().await.is_some() {
        let (args, live, level) = (args.clone(), Arc::clone(&live), level.clone());
        let reloaded = tokio::task::spawn_blocking(move || {
            let loaded = args.read().map_err(|error| error.to_string())?;
            let changed = live.change(&loaded.config)?;
            level.set(&loaded.config.log.level);
            Ok::<_, String>(changed)
        });
        match reloaded.await {
            Ok(Ok(Changed { in_force, at_restart })) => {
                match in_force.is_empty() {
                    true => tracing::info!("the configuration was read again: nothing that can change has changed"),
                    false => tracing::info!(in_force = in_force.join(", "), "the configuration was read again"),
                }
                if !at_restart.is_empty() {
                    let keys = at_restart.join(", ");
                    tracing::warn!(keys, "some settings have changed and need a restart: they stay as they are");
                }
            }
            Ok(Err(error)) => tracing::error!(error, "the configuration cannot be used: nothing changes"),
            Err(error) => tracing::error!(%error, "the configuration could not be read again"),
        }
    }
}

/// Says what runs, where, and on a terminal how to try it.
fn announce(loaded: &Loaded, server: &Server) -> io::Result<()> {
    let addresses = Addresses(server.addresses()?);
    let admin = server.admin_address()?;
    let otlp = server.otlp_address()?;
    let data_dir = std::path::absolute(&loaded.config.storage.data_dir)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config_file = loaded.file.as_ref().map_or("none".to_owned(), |file| file.display().to_string()),
        instance = %server.ledger().instance(),
        listen = addresses.0.iter().map(Address::to_string).collect::<Vec<_>>().join(","),
        tls = server.is_tls(),
        admin = %admin,
        otlp = otlp.map(tracing::field::display),
        data_dir = %data_dir.display(),
        events = server.ledger().committed().events(),
        "cairn takes events"
    );
    warn_of_plain_keys(loaded, &addresses, server.is_tls());
    if let Some(address) = addresses.0.iter().find_map(Address::tcp).filter(|_| is_text(&loaded.config.log)) {
        let scheme = if server.is_tls() { "https" } else { "http" };
        println!(
            "\n  events   {scheme}://{address}\n  metrics  http://{admin}/metrics\n  data     {}\n",
            data_dir.display()
        );
        if !server.is_tls() && !loaded.config.auth.has_keys() {
            println!(
                "  Try it:\n  curl -X POST http://{address}/v1/events -H \"Content-Type: application/json\" \
                 -d '{{\"agent_id\": \"my-agent\", \"action_type\": \"TOOL_CALL\", \"action_name\": \"search_database\", \
                 \"action_status\": \"success\"}}'\n"
            );
        }
    }
    Ok(())
}

/// What is not refused, and is dangerous all the same.
fn warn_of_plain_keys(loaded: &Loaded, addresses: &Addresses, is_tls: bool) {
    let config = &loaded.config;
    let mut taking = addresses.0.iter().chain(&config.ingest.otlp.listen);
    if config.auth.has_keys() && !is_tls && taking.any(|address| !address.is_local()) {
        tracing::warn!("keys and events are sent unencrypted: set tls.cert_file and tls.key_file");
    }
    let secrets = config.tls.key_file.iter().chain(&config.auth.api_keys_file);
    for file in secrets.chain(config.relay.all().filter_map(|(_, it)| it.org_id_file.as_ref())) {
        let mode = std::fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
        // Mounted secrets have a group that may read them.
        if mode & 0o007 != 0 {
            tracing::warn!(file = %file.display(), "secret file is readable by every user of this machine: restrict its permissions");
        }
    }
}

/// Makes the process give away no more than it has to, and able to hold as many files as it may.
fn restrict() -> Vec<String> {
    use rustix::process::{DumpableBehavior, Resource, getrlimit, set_dumpable_behavior, setrlimit, umask};
    // Whatever is made from here on is for nobody else.
    umask(Mode::RWXG | Mode::RWXO);
    let mut failed = Vec::new();
    // A core has keys in it, and so has the memory of a process that others may look at.
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
