//! Named threads whose failures and panics are never silent: a failure ends the process, or restarts the thread from
//! what is on disk.

use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Called with the reason when a thread has failed. The process must end then.
pub type OnFailure = Arc<dyn Fn(String) + Send + Sync>;

/// Runs `work`, and returns its error or panic as text.
fn catch<E: Display>(work: impl FnOnce() -> Result<(), E>) -> Result<(), String> {
    // Unwind safety: the state of the thread is dropped after a panic, and what it shares with others is rebuilt from
    // disk.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("panicked; this is a bug".to_owned()),
    }
}

/// Starts a thread whose failure or panic ends the process: `on_failure` is called with the reason.
///
/// # Errors
/// When the system cannot start a thread.
pub fn spawn<E: Display>(
    name: String,
    on_failure: &OnFailure,
    work: impl FnOnce() -> Result<(), E> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let on_failure = Arc::clone(on_failure);
    std::thread::Builder::new().name(name.clone()).spawn(move || {
        if let Err(reason) = catch(work) {
            on_failure(format!("{name}: {reason}"));
        }
    })
}

/// Starts a thread that runs `work` until it returns `Ok`, and restarts it after failures and panics.
///
/// `wait` waits before a restart; it returns `true` if the thread must stop instead.
///
/// # Errors
/// When the system cannot start a thread.
pub fn supervise<E: Display>(
    name: String,
    restart_after: Duration,
    mut work: impl FnMut() -> Result<(), E> + Send + 'static,
    mut wait: impl FnMut(Duration) -> bool + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.clone()).spawn(move || {
        while let Err(error) = catch(&mut work) {
            tracing::error!(thread = name, error, ?restart_after, "thread failed; restarting from what is on disk");
            if wait(restart_after) {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_failure_and_a_panic_are_both_reported() {
        let reasons = Arc::new(Mutex::new(Vec::new()));
        let recorder = Arc::clone(&reasons);
        let on_failure: OnFailure = Arc::new(move |reason| recorder.lock().unwrap().push(reason));
        spawn("fails".to_owned(), &on_failure, || Err("no disk")).unwrap().join().unwrap();
        spawn("panics".to_owned(), &on_failure, || -> Result<(), String> { panic!("on purpose") })
            .unwrap()
            .join()
            .unwrap();
        spawn("works".to_owned(), &on_failure, || Ok::<_, String>(())).unwrap().join().unwrap();
        assert_eq!(*reasons.lock().unwrap(), ["fails: no disk", "panics: panicked; this is a bug"]);
    }

    #[test]
    fn a_supervised_thread_restarts_until_it_succeeds_or_must_stop() {
        let mut runs = 0;
        let (sender, receiver) = crossbeam_channel::unbounded();
        let work = move || {
            runs += 1;
            sender.send(runs).unwrap();
            match runs {
                1 => Err("once"),
                2 => panic!("on purpose"),
                _ => Ok(()),
            }
        };
        supervise("restarts".to_owned(), Duration::ZERO, work, |_| false).unwrap().join().unwrap();
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [1, 2, 3]);
        let stopped = supervise("stops".to_owned(), Duration::ZERO, || Err("always"), |_| true);
        stopped.unwrap().join().unwrap();
    }
}
