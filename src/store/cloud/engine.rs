//! The threads that drive connections: one runtime for all stores of the process, which lives as long
//! as one of them does and is joined with the last. Callers wait on their own threads.

use crate::error::{Error, Result};
use crate::limits;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, SemaphorePermit};

static SHARED: Mutex<Weak<Engine>> = Mutex::new(Weak::new());

/// How long the last store waits for threads that look up names.
const JOIN: Duration = Duration::from_secs(5);

pub(super) struct Engine {
    handle: Handle,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    connections: Semaphore,
}

impl Engine {
    /// The one that runs, or a new one.
    pub(super) fn shared() -> Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = shared.upgrade() {
            return Ok(engine);
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(limits::CLOUD_THREADS)
            .max_blocking_threads(limits::CLOUD_THREADS)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(|e| Error::Invalid(format!("no threads for the store could be started: {e}")))?;
        let connections = Semaphore::new(limits::CLOUD_CONNECTIONS);
        let engine = Arc::new(Self { handle: runtime.handle().clone(), runtime: Some(runtime), connections });
        *shared = Arc::downgrade(&engine);
        Ok(engine)
    }

    /// Waits for what is to be done, on the calling thread, which must not be one that drives
    /// connections.
    pub(super) fn wait<F: Future>(&self, work: F) -> F::Output {
        self.handle.block_on(work)
    }

    /// Leave for one request; waits while there are too many.
    pub(super) async fn connection(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed; without leave the request would still be right.
        self.connections.acquire().await.ok()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(JOIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_engine_serves_many_threads() {
        let engine = Engine::shared().unwrap();
        assert!(Arc::ptr_eq(&engine, &Engine::shared().unwrap()));
        let sum = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..20u64)
                .map(|n| {
                    let engine = &engine;
                    scope.spawn(move || {
                        engine.wait(async {
                            let _leave = engine.connection().await;
                            tokio::time::sleep(Duration::from_millis(1)).await;
                            n
                        })
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
        });
        assert_eq!(sum, 190);
    }
}
