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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_draws_are_equal() {
        let draws: [[u8; 32]; 3] = [bytes().unwrap(), bytes().unwrap(), bytes().unwrap()];
        assert!(draws[0] != draws[1] && draws[1] != draws[2] && draws[0] != draws[2]);
    }
}
