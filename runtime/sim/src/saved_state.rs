//! The bytes of a saved environment: little-endian values in a fixed order, read back with every length checked.

use crate::error::SimError;

/// Appends values to a byte buffer.
#[derive(Debug)]
pub struct StateWriter<'a>(&'a mut Vec<u8>);

impl<'a> StateWriter<'a> {
    /// Appends to `bytes`, which may hold other states already.
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// The values bit for bit, without their number.
    pub fn f64s(&mut self, values: &[f64]) {
        for value in values {
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// The number of bytes (u64), then the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

/// Takes values from the front of saved bytes.
#[derive(Debug)]
pub struct StateReader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> StateReader<'a> {
    /// `what` names the owner in errors.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// The error of a state that does not fit.
    pub fn error(&self, message: impl Into<String>) -> SimError {
        SimError::SavedState { what: self.what, message: message.into() }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], SimError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.error(format!("{len} bytes expected, {} left", self.rest.len())));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SimError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// # Errors
    /// [`SimError::SavedState`] where too few bytes are left; so for every method here.
    pub fn u64(&mut self) -> Result<u64, SimError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// # Errors
    /// As [`u64`](Self::u64).
    pub fn u8(&mut self) -> Result<u8, SimError> {
        let [value] = self.array()?;
        Ok(value)
    }

    /// Fills `values`.
    ///
    /// # Errors
    /// As [`u64`](Self::u64).
    pub fn f64s(&mut self, values: &mut [f64]) -> Result<(), SimError> {
        for value in values {
            *value = f64::from_le_bytes(self.array()?);
        }
        Ok(())
    }

    /// Bytes written by [`StateWriter::bytes`].
    ///
    /// # Errors
    /// As [`u64`](Self::u64).
    pub fn bytes(&mut self) -> Result<&'a [u8], SimError> {
        let len = self.u64()?;
        let len = usize::try_from(len).map_err(|_| self.error(format!("a length of {len} bytes")))?;
        self.take(len)
    }

    /// # Errors
    /// [`SimError::SavedState`] where bytes are left over.
    pub fn finish(self) -> Result<(), SimError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error(format!("{} bytes too many", self.rest.len()))) }
    }
}
