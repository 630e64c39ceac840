//! Memory of a device.

use std::ops::Range;
use std::sync::Arc;

use super::{Driver, must};

/// Some values in a device's memory. Freed when dropped; a clone is a copy of the values.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// None for no values.
    held: Option<(Arc<dyn Driver>, u64)>,
    len: usize,
}

impl Memory {
    pub(super) fn new(driver: Arc<dyn Driver>, len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        let address = must(&format!("{:.1} MB of memory", len as f64 * 4e-6), driver.allocate(len));
        Self { held: Some((driver, address)), len }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn all(&self) -> View<'_> {
        View { memory: self, start: 0, len: self.len }
    }

    pub fn view(&self, range: Range<usize>) -> View<'_> {
        self.all().part(range)
    }
}

impl Clone for Memory {
    fn clone(&self) -> Self {
        let Some((driver, _)) = &self.held else { return Self::default() };
        let copy = Self::new(driver.clone(), self.len);
        copy.all().write(&self.all().read());
        copy
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some((driver, address)) = &self.held {
            driver.free(*address, self.len);
        }
    }
}

/// A part of a [`Memory`], to be read and written by orders of the device: these are done in order, so there is nothing
/// that a lender could race with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    memory: &'a Memory,
    start: usize,
    len: usize,
}

impl<'a> View<'a> {
    pub fn len(self) -> usize {
        self.len
    }

    pub fn part(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "part {range:?} of {} values", self.len);
        Self { memory: self.memory, start: self.start + range.start, len: range.len() }
    }

    /// Where the device finds the first value; 0 where there is none.
    pub fn address(self) -> u64 {
        self.memory.held.as_ref().map_or(0, |(_, address)| address + 4 * self.start as u64)
    }

    /// Puts values in place, from the first on.
    pub fn write(self, values: &[f32]) {
        self.write_words(words_of(values));
    }

    /// The same for indices.
    pub fn write_words(self, words: &[u32]) {
        assert!(words.len() <= self.len, "{} values into {}", words.len(), self.len);
        if let Some((driver, _)) = &self.memory.held
            && !words.is_empty()
        {
            must("writing to its memory", driver.write(self.address(), words));
        }
    }

    /// Takes values out, from the first on.
    pub fn read_into(self, values: &mut [f32]) {
        assert!(values.len() <= self.len, "{} values out of {}", values.len(), self.len);
        if let Some((driver, _)) = &self.memory.held
            && !values.is_empty()
        {
            // SAFETY: f32 and u32 have one size and alignment, and every pattern of bits is a value of both.
            let words = unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) };
            must("reading its memory", driver.read(self.address(), words));
        }
    }

    /// All values.
    pub fn read(self) -> Vec<f32> {
        let mut values = vec![0.0; self.len];
        self.read_into(&mut values);
        values
    }
}

fn words_of(values: &[f32]) -> &[u32] {
    // SAFETY: f32 and u32 have one size and alignment, and every pattern of bits is a value of both.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}
