//! Random bytes from the operating system.

use crate::error::{Error, Result};

/// Fresh random bytes.
///
/// # Errors
/// [`Error::Invalid`] where the operating system gives none: nothing may be sealed then.
pub fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut out = [0; N];
    getrandom::fill(&mut out)
        .map_err(|e| Error::Invalid(format!("the operating system gives no random bytes: {e}")))?;
    Ok(out)
}
