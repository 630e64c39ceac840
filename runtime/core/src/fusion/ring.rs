//! The last few of something, in place.

/// The newest `length` values pushed, at most `N`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ring<T, const N: usize> {
    values: [Option<T>; N],
    length: usize,
    count: usize,
    next: usize,
}

impl<T: Copy, const N: usize> Ring<T, N> {
    pub fn new(length: usize) -> Self {
        Self { values: [None; N], length: length.clamp(1, N), count: 0, next: 0 }
    }

    pub fn push(&mut self, value: T) {
        self.values[self.next] = Some(value);
        self.next = (self.next + 1) % self.length;
        self.count = (self.count + 1).min(self.length);
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_full(&self) -> bool {
        self.count == self.length
    }

    pub fn clear(&mut self) {
        (self.count, self.next) = (0, 0);
    }

    pub fn newest_first(&self) -> impl Iterator<Item = &T> + Clone {
        (1..=self.count).filter_map(|back| self.values[(self.next + self.length - back) % self.length].as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_values_come_first_and_the_oldest_leave() {
        let mut ring = Ring::<u32, 8>::new(3);
        assert_eq!(ring.newest_first().count(), 0);
        for value in 1..=5 {
            ring.push(value);
        }
        assert!(ring.is_full());
        assert_eq!(ring.newest_first().copied().collect::<Vec<_>>(), [5, 4, 3]);
        ring.clear();
        ring.push(9);
        assert_eq!(ring.newest_first().copied().collect::<Vec<_>>(), [9]);
    }
}
