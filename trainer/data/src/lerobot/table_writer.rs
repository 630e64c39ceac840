//! Writing Parquet tables as pyarrow does: optional columns, lists of three levels, Snappy.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::columns::{Column, Values};
use crate::array::Data;

/// Writes a table whose columns have the same number of rows. `metadata`: a key and its text.
///
/// # Errors
/// What the disk says.
pub fn write(out: impl Write + Send, columns: &[Column], metadata: Option<(&str, String)>) -> std::io::Result<()> {
    table(out, columns, metadata).map_err(std::io::Error::other)
}

fn table(out: impl Write + Send, columns: &[Column], metadata: Option<(&str, String)>) -> Result<(), ParquetError> {
    let fields = columns.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    let schema = Type::group_type_builder("schema").with_fields(fields).build()?;
    let metadata = metadata.map(|(key, text)| vec![KeyValue::new(key.to_string(), text)]);
    let properties =
        WriterProperties::builder().set_compression(Compression::SNAPPY).set_key_value_metadata(metadata).build();
    let mut writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for column in columns {
        match &column.values {
            Values::Numbers(Data::F32(v)) => put::<_, FloatType>(&mut group, v, column)?,
            Values::Numbers(Data::F64(v)) => put::<_, DoubleType>(&mut group, v, column)?,
            Values::Numbers(Data::I64(v)) => put::<_, Int64Type>(&mut group, v, column)?,
            Values::Numbers(Data::Bool(v)) => put::<_, BoolType>(&mut group, v, column)?,
            Values::Numbers(Data::U8(v)) => {
                put::<_, Int64Type>(&mut group, &v.iter().map(|&b| i64::from(b)).collect::<Vec<_>>(), column)?;
            }
            Values::Texts(v) => {
                put::<_, ByteArrayType>(
                    &mut group,
                    &v.iter().map(|t| ByteArray::from(t.as_str())).collect::<Vec<_>>(),
                    column,
                )?;
            }
        }
    }
    group.close()?;
    writer.close()?;
    Ok(())
}

fn field(column: &Column) -> Result<TypePtr, ParquetError> {
    let (physical, logical) = match &column.values {
        Values::Numbers(Data::F32(_)) => (Physical::FLOAT, None),
        Values::Numbers(Data::F64(_)) => (Physical::DOUBLE, None),
        Values::Numbers(Data::I64(_) | Data::U8(_)) => (Physical::INT64, None),
        Values::Numbers(Data::Bool(_)) => (Physical::BOOLEAN, None),
        Values::Texts(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
    };
    let element = |name: &str| {
        let builder = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
        builder.with_logical_type(logical.clone()).build().map(Arc::new)
    };
    if column.lengths.is_none() {
        return element(&column.name);
    }
    let repeated = Type::group_type_builder("list").with_repetition(Repetition::REPEATED);
    let repeated = repeated.with_fields(vec![element("element")?]).build()?;
    let list = Type::group_type_builder(&column.name)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(Some(LogicalType::List))
        .with_converted_type(ConvertedType::LIST)
        .with_fields(vec![Arc::new(repeated)]);
    list.build().map(Arc::new)
}

/// Every value is there, so the definition levels are the deepest.
fn put<W: Write + Send, T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    column: &Column,
) -> Result<(), ParquetError> {
    let none = || ParquetError::General("a column more than the schema has".into());
    let mut writer = group.next_column()?.ok_or_else(none)?;
    let (deepest, repetitions) = match &column.lengths {
        None => (1, None),
        Some(lengths) => {
            let mut repetitions = Vec::with_capacity(values.len());
            for &length in lengths {
                repetitions.extend((0..length).map(|i| i16::from(i > 0)));
            }
            (3, Some(repetitions))
        }
    };
    let definitions = vec![deepest; values.len()];
    writer.typed::<T>().write_batch(values, Some(&definitions), repetitions.as_deref())?;
    writer.close()
}
