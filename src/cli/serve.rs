//! `cairn serve`

use std::io::{self, IsTerminal};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::args::ConfigArgs;
use super::{Exit, complain};
use crate::config::{Loaded, LogConfig, LogFormat};
use crate::ledger::system_clock;
use crate::serve::Server;

/// Runs the server until SIGTERM or SIGINT.
pub fn run(args: &ConfigArgs) -> Exit {
    let loaded = match args.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    start_log(&loaded.config.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(Exit::Failed, &error),
    };
    let result = runtime.block_on(serve(&loaded));
    // Reads that nobody waits for any more must not keep the process alive.
    runtime.shutdown_background();
    match result {
        Ok(()) => Exit::Fine,
        Err(error) => {
            // Into the log and nowhere else: a collector reads both streams.
            tracing::error!("{error}");
            Exit::Failed
        }
    }
}

async fn serve(loaded: &Loaded) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = Server::start(&loaded.config, |store| store, system_clock()).await?;
    announce(loaded, &server)?;
    let shutdown = async {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "shutting down: what is in flight is answered");
    };
    server.run(shutdown).await?;
    tracing::info!("closed");
    Ok(())
}

/// Says what runs, where, and on a terminal how to try it.
fn announce(loaded: &Loaded, server: &Server) -> io::Result<()> {
    let (address, admin) = (server.address()?, server.admin_address()?);
    let otlp = server.otlp_address()?;
    let data_dir = std::path::absolute(&loaded.config.storage.data_dir)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config_file = loaded.file.as_ref().map_or("none".to_owned(), |file| file.display().to_string()),
        instance = %server.ledger().instance(),
        listen = %address,
        admin = %admin,
        otlp = otlp.map(tracing::field::display),
        data_dir = %data_dir.display(),
        events = server.ledger().committed().events(),
        "cairn takes events"
    );
    if is_text(&loaded.config.log) {
        println!(
            "\n  events   http://{address}\n  metrics  http://{admin}/metrics\n  data     {}\n\n  Try it:\n  \
             curl -X POST http://{address}/v1/events -H \"Content-Type: application/json\" \
             -d '{{\"agent_id\": \"my-agent\", \"action_type\": \"TOOL_CALL\", \"action_name\": \"search_database\", \
             \"action_status\": \"success\"}}'\n",
            data_dir.display()
        );
    }
    Ok(())
}

fn is_text(config: &LogConfig) -> bool {
    match config.format {
        LogFormat::Auto => io::stdout().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Text => true,
    }
}

fn start_log(config: &LogConfig) {
    // The level was checked with the configuration.
    let filter = EnvFilter::builder().parse_lossy(&config.level);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    if is_text(config) {
        lines.with_ansi(io::stdout().is_terminal()).init();
    } else {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    }
}
