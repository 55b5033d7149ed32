//! A few connections to one server, opened when they are needed and used in turn; what broke is
//! replaced, and what was to be done over it is done again. Only what may be done twice is given here.

use super::client::{Answer, Connection, Failure};
use super::link::Lost;
use crate::limits;
use crate::store::pace::Rates;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Opens a connection.
type Dial = dyn Fn() -> Result<Connection, Lost> + Send + Sync;

struct State {
    idle: Vec<Connection>,
    /// Idle, in use, or being opened.
    open: usize,
    /// How many may be: fewer where the server does not take more.
    most: usize,
}

pub(super) struct Pool {
    dial: Box<Dial>,
    state: Mutex<State>,
    freed: Condvar,
    /// The pause before a second try.
    pause: Duration,
    /// What all connections keep to together.
    pub rates: Rates,
    /// True from a connection that was opened until a server was given up. A server that nobody has
    /// ever reached is not waited for: most likely it is misspelt.
    is_patient: AtomicBool,
}

/// The place of a connection in use.
struct Place<'a>(&'a Pool);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().open -= 1;
        self.0.freed.notify_one();
    }
}

impl Pool {
    pub fn new(dial: Box<Dial>, pause: Duration) -> Self {
        let state = State { idle: Vec::new(), open: 0, most: limits::SFTP_CONNECTIONS };
        let is_patient = AtomicBool::new(false);
        Self { dial, state: Mutex::new(state), freed: Condvar::new(), pause, rates: Rates::default(), is_patient }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection, or room for a new one; waits for either.
    fn place(&self) -> (Place<'_>, Option<Connection>) {
        let mut state = self.lock();
        loop {
            if let Some(connection) = state.idle.pop() {
                return (Place(self), Some(connection));
            }
            if state.open < state.most {
                state.open += 1;
                return (Place(self), None);
            }
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A connection, and whether it has been used before.
    fn connection(&self) -> Result<(Place<'_>, Connection, bool), Lost> {
        loop {
            let (place, idle) = self.place();
            if let Some(connection) = idle {
                return Ok((place, connection, true));
            }
            match (self.dial)() {
                Ok(mut connection) => {
                    connection.rates = self.rates.clone();
                    self.is_patient.store(true, Ordering::Relaxed);
                    return Ok((place, connection, false));
                }
                Err(lost) => {
                    let mut state = self.lock();
                    let others = state.open - 1;
                    if others == 0 {
                        state.most = limits::SFTP_CONNECTIONS;
                        drop(state);
                        return Err(lost);
                    }
                    // Servers bound how many they take. The others have to do.
                    tracing::debug!("{others} connections have to do: {}", lost.why);
                    state.most = others;
                }
            }
        }
    }

    /// Does something over one connection; where that breaks, whether it had been used before.
    fn once<T>(&self, go: impl FnOnce(&mut Connection) -> Answer<T>) -> Result<Answer<T>, (Lost, bool)> {
        let (place, mut connection, was_used) = self.connection().map_err(|lost| (lost, false))?;
        let answer = match go(&mut connection) {
            Err(Failure::Lost(lost)) => {
                drop(connection);
                // What else has been waiting is most likely broken too.
                let idle = std::mem::take(&mut self.lock().idle);
                for connection in idle {
                    drop((connection, Place(self)));
                }
                return Err((lost, was_used));
            }
            answer => answer,
        };
        connection.push();
        // The place goes with the connection.
        std::mem::forget(place);
        self.lock().idle.push(connection);
        self.freed.notify_one();
        Ok(answer)
    }

    /// Does something over a connection, and again over another if that broke, with pauses that grow.
    pub fn run<T>(&self, mut go: impl FnMut(&mut Connection) -> Answer<T>) -> Answer<T> {
        let (mut pause, mut tried) = (self.pause, 0);
        loop {
            tried += 1;
            let (lost, was_used) = match self.once(&mut go) {
                Ok(answer) => return answer,
                Err(broken) => broken,
            };
            if !lost.is_passing() || !self.is_patient.load(Ordering::Relaxed) {
                return Err(lost.into());
            }
            if tried == limits::SFTP_TRIES {
                self.is_patient.store(false, Ordering::Relaxed);
                return Err(lost.into());
            }
            tracing::debug!("try {tried}: {}", lost.why);
            // A connection that lay idle may have been broken for long: that costs no pause.
            if !(was_used && tried == 1) {
                std::thread::sleep(jittered(pause));
                pause *= 2;
            }
        }
    }
}

/// Between half of a pause and all of it: who lost a server together should not come back together.
fn jittered(pause: Duration) -> Duration {
    let drawn = getrandom::u32().unwrap_or_default();
    pause / 2 + pause.mul_f64(f64::from(drawn) / f64::from(u32::MAX) / 2.0)
}
