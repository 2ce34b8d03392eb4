//! The process log: its format, its level, and the thread that writes it.
//!
//! Whoever logs puts a line into a bounded queue and never waits for standard output, which a collector may not read.

use std::convert::Infallible;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::{self, LogConfig, LogFormat};
use crate::runtime::{FOR_COLLECTOR, FOR_TERMINAL, OnFailure, spawn};

/// The most lines that wait for standard output. Further ones are dropped and counted.
const WAITING_LINES: usize = 2048;
/// How long the end of the process waits for the lines that are left.
const LAST_LINES_WAIT: Duration = Duration::from_secs(1);

/// Whether log lines are written as text, not as JSON.
pub fn is_text(config: &LogConfig) -> bool {
    match config.format {
        LogFormat::Auto => io::stdout().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Text => true,
    }
}

/// Whether a person reads the log lines as they are written.
pub fn is_terminal(config: &LogConfig) -> bool {
    is_text(config) && io::stdout().is_terminal()
}

/// Handle to change the log level while the process runs.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    /// Changes the level.
    pub fn set(&self, level: &str) {
        if let Err(error) = self.0.reload(levels(level)) {
            tracing::error!(%error, "failed to change the log level");
        }
    }
}

/// Parses `log.level`, which was checked with the configuration.
fn levels(text: &str) -> Targets {
    config::parse_levels(text).unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO))
}

/// The queue of the lines that wait for standard output. The crate `tracing-appender` has one, too, but its end waits for
/// standard output.
#[derive(Clone)]
struct Lines {
    queue: Sender<Line>,
    dropped: Arc<AtomicU64>,
}

/// A message to the thread of the log.
enum Line {
    Text(Box<[u8]>),
    /// Everything before it is written: the sender is dropped.
    End(Sender<()>),
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Line::Text(bytes.into())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines until the end. A line that cannot be written is dropped and counted.
fn write_lines(lines: &Receiver<Line>, dropped: &AtomicU64) {
    for line in lines {
        match line {
            Line::Text(text) => {
                if io::stdout().write_all(&text).and_then(|()| io::stdout().flush()).is_err() {
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Line::End(sender) => drop(sender),
        }
    }
}

/// The running process log.
pub struct ProcessLog {
    /// Changes the level.
    pub level: LogLevel,
    lines: Lines,
}

impl ProcessLog {
    /// Starts the thread of the log, and installs the global subscriber that sends lines to it.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(config: &LogConfig) -> io::Result<ProcessLog> {
        let (queue, waiting) = bounded(WAITING_LINES);
        let lines = Lines { queue, dropped: Arc::default() };
        let dropped = Arc::clone(&lines.dropped);
        // Without this thread, lines are dropped and counted; the server goes on.
        let on_failure: OnFailure = Arc::new(|_| {});
        let work = move || {
            write_lines(&waiting, &dropped);
            Ok::<_, Infallible>(())
        };
        spawn("cairn-log-lines".to_owned(), &on_failure, work)?;
        let (filter, level) = reload::Layer::new(levels(&config.level));
        let writer = lines.clone();
        // Internal errors would be written to standard error.
        let layer = tracing_subscriber::fmt::layer().with_target(false).log_internal_errors(false);
        let layer = layer.with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(filter);
        let hidden = if is_terminal(config) { FOR_COLLECTOR } else { FOR_TERMINAL };
        let is_shown = filter_fn(move |line| line.name() != hidden);
        if is_text(config) {
            subscriber
                .with(layer.with_ansi(io::stdout().is_terminal() && config::allows_colors()).with_filter(is_shown))
                .init();
        } else {
            let layer = layer.json().flatten_event(true).with_current_span(false).with_span_list(false);
            subscriber.with(layer.with_filter(is_shown)).init();
        }
        Ok(ProcessLog { level: LogLevel(level), lines })
    }

    /// Returns the number of dropped lines whenever it is called.
    pub fn dropped_lines(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let dropped = Arc::clone(&self.lines.dropped);
        move || dropped.load(Ordering::Relaxed)
    }

    /// Writes text that is not a log line, between the lines.
    pub fn print(&self, text: &str) {
        // Writing to the queue never fails.
        let _ = self.lines.clone().write_all(text.as_bytes());
    }
}

impl Drop for ProcessLog {
    /// Waits until the lines that are left are written, but not for a reader that does not read.
    fn drop(&mut self) {
        let (sender, written) = bounded(0);
        if self.lines.queue.send_timeout(Line::End(sender), LAST_LINES_WAIT / 2).is_ok() {
            // Returns when the sender is dropped.
            let _ = written.recv_timeout(LAST_LINES_WAIT / 2);
        }
    }
}
