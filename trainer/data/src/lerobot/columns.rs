//! Parquet tables: the columns that LeRobot has, numbers and texts, single or in lists.

use std::fs::File;
use std::path::Path;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::array::Data;

/// Most values of a column, as a multiple of the file's bytes: runs of equal values pack well, but not without end.
const LARGEST_GROWTH: u64 = 1 << 16;

/// Values of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    Numbers(Data),
    Texts(Vec<String>),
}

impl Values {
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers(data) => data.len(),
            Self::Texts(texts) => texts.len(),
        }
    }
}

/// A column: its values, and how many of them each row has.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: String,
    pub values: Values,
    /// `None`: one each.
    pub lengths: Option<Vec<usize>>,
}

impl Column {
    /// One number a row.
    pub fn numbers(name: impl Into<String>, data: Data) -> Self {
        Self { name: name.into(), values: Values::Numbers(data), lengths: None }
    }

    /// One text a row.
    pub fn texts(name: impl Into<String>, texts: Vec<String>) -> Self {
        Self { name: name.into(), values: Values::Texts(texts), lengths: None }
    }

    /// In lists of one length.
    pub fn in_lists(mut self, length: usize) -> Self {
        let rows = self.values.len().checked_div(length).unwrap_or(0);
        self.lengths = Some(vec![length; rows]);
        self
    }

    pub fn rows(&self) -> usize {
        self.lengths.as_ref().map_or_else(|| self.values.len(), Vec::len)
    }
}

/// Reads the columns of a table that `wanted` names.
///
/// # Errors
/// A sentence.
pub fn read(path: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Column>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let length = file.metadata().map_err(|e| e.to_string())?.len();
    // The library checks much but promises nothing about damaged files; a panic of it is one more kind of damage.
    let read = std::panic::AssertUnwindSafe(|| read_all(file, length, wanted));
    match crate::quiet::catch(read) {
        Some(result) => result.map_err(|e| format!("{e}: the file is truncated or damaged")),
        None => Err("the table cannot be decoded: the file is damaged".into()),
    }
}

fn read_all(file: File, length: u64, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Column>, ParquetError> {
    let reader = SerializedFileReader::new(file)?;
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let rows = reader.metadata().file_metadata().num_rows();
    let wrong = |what: String| ParquetError::General(what);
    if u64::try_from(rows).is_ok_and(|r| r > length.saturating_mul(LARGEST_GROWTH)) || rows < 0 {
        return Err(wrong(format!("{rows} rows in {length} bytes")));
    }
    let mut columns = Vec::new();
    for (i, described) in schema.columns().iter().enumerate() {
        let name = described.path().parts().first().cloned().unwrap_or_default();
        if !wanted(&name) {
            continue;
        }
        if columns.iter().any(|c: &Column| c.name == name) {
            return Err(wrong(format!("column `{name}` is made of several, which is not read")));
        }
        let list = described.max_rep_level() > 0;
        let mut column = Column { name, values: Values::Numbers(Data::F32(vec![])), lengths: list.then(Vec::new) };
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group)?;
            let rows = group.metadata().num_rows();
            let rows = usize::try_from(rows).map_err(|_| wrong(format!("{rows} rows")))?;
            let part = column_of(group.get_column_reader(i)?, rows, described.max_def_level(), list);
            let (values, lengths) = part.map_err(|e| wrong(format!("column `{}`: {e}", column.name)))?;
            if lengths.as_ref().map_or(values.len(), Vec::len) != rows {
                return Err(wrong(format!("column `{}` is shorter than its table", column.name)));
            }
            column.append(values, lengths).map_err(|e| wrong(format!("column `{}`: {e}", column.name)))?;
        }
        if column.rows() as i64 != rows {
            return Err(wrong(format!("column `{}` has {} rows of {rows}", column.name, column.rows())));
        }
        columns.push(column);
    }
    Ok(columns)
}

impl Column {
    fn append(&mut self, values: Values, lengths: Option<Vec<usize>>) -> Result<(), String> {
        if self.values.len() == 0 {
            self.values = values;
        } else {
            match (&mut self.values, values) {
                (Values::Texts(a), Values::Texts(b)) => a.extend(b),
                (Values::Numbers(a), Values::Numbers(b)) => append(a, b)?,
                _ => return Err("changes its type".into()),
            }
        }
        if let (Some(a), Some(b)) = (&mut self.lengths, lengths) {
            a.extend(b);
        }
        Ok(())
    }
}

/// Puts `more` behind `data`.
pub fn append(data: &mut Data, more: Data) -> Result<(), String> {
    match (data, more) {
        (Data::F32(a), Data::F32(b)) => a.extend(b),
        (Data::F64(a), Data::F64(b)) => a.extend(b),
        (Data::I64(a), Data::I64(b)) => a.extend(b),
        (Data::U8(a), Data::U8(b)) => a.extend(b),
        (Data::Bool(a), Data::Bool(b)) => a.extend(b),
        _ => return Err("changes its type".into()),
    }
    Ok(())
}

/// Values, and how many of them each row has.
type Filled<T> = (Vec<T>, Option<Vec<usize>>);
type Part = (Values, Option<Vec<usize>>);

fn column_of(reader: ColumnReader, rows: usize, deepest: i16, list: bool) -> Result<Part, String> {
    let numbers = |(data, lengths)| (Values::Numbers(data), lengths);
    match reader {
        ColumnReader::BoolColumnReader(r) => typed(r, rows, deepest, list).map(|(v, l)| numbers((Data::Bool(v), l))),
        ColumnReader::Int32ColumnReader(r) => {
            typed(r, rows, deepest, list).map(|(v, l)| numbers((Data::I64(v.into_iter().map(i64::from).collect()), l)))
        }
        ColumnReader::Int64ColumnReader(r) => typed(r, rows, deepest, list).map(|(v, l)| numbers((Data::I64(v), l))),
        ColumnReader::FloatColumnReader(r) => typed(r, rows, deepest, list).map(|(v, l)| numbers((Data::F32(v), l))),
        ColumnReader::DoubleColumnReader(r) => typed(r, rows, deepest, list).map(|(v, l)| numbers((Data::F64(v), l))),
        ColumnReader::ByteArrayColumnReader(r) => {
            let (values, lengths) = typed(r, rows, deepest, list)?;
            let text =
                |b: ByteArray| String::from_utf8(b.data().to_vec()).map_err(|_| "a text that is not UTF-8".to_string());
            Ok((Values::Texts(values.into_iter().map(text).collect::<Result<_, _>>()?), lengths))
        }
        _ => Err("elements of a type that is not read".into()),
    }
}

fn typed<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    rows: usize,
    deepest: i16,
    list: bool,
) -> Result<Filled<T::T>, String> {
    let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let (records, _, _) = reader
        .read_records(rows, Some(&mut definitions), list.then_some(&mut repetitions), &mut values)
        .map_err(|e| e.to_string())?;
    if records != rows {
        return Err(format!("{records} rows of {rows}"));
    }
    if let Some(i) = definitions.iter().position(|&d| d != deepest) {
        let row = if list { repetitions[..=i].iter().filter(|r| **r == 0).count() } else { i + 1 };
        return Err(format!("row {} has no value", row.saturating_sub(1)));
    }
    let lengths = list.then(|| {
        let mut lengths = Vec::with_capacity(rows);
        for repetition in repetitions {
            match lengths.last_mut() {
                Some(last) if repetition > 0 => *last += 1,
                _ => lengths.push(1),
            }
        }
        lengths
    });
    Ok((values, lengths))
}
