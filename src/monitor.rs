//! How a running verb tells what it does, and learns that it should stop.
//! The library never prints: whoever calls a verb brings a monitor.

/// Something worth telling while a verb runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A new phase began; `total_bytes` where it is known.
    Phase {
        /// What is done now, in a word or two.
        name: &'static str,
        /// Bytes that the phase will work through, if known.
        total_bytes: Option<u64>,
    },
    /// Bytes of the phase done since the last such event.
    Bytes(u64),
    /// Entries done since the last such event.
    Entries(u64),
    /// Something went wrong that does not stop the verb; it is counted in its outcome too.
    Warning(String),
}

/// Receives events. Called from several threads.
pub trait Monitor: Send + Sync {
    /// Takes note of an event.
    fn event(&self, event: Event);

    /// True once the user asked to stop: the verb ends soon, with `Error::Interrupted`.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Keeps nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn event(&self, _: Event) {}
}
