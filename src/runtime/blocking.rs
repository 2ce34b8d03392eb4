//! Work that blocks, outside the threads that serve.

/// Runs work that blocks. It is not cancelled when the caller is.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // A panic is a bug and is propagated.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
