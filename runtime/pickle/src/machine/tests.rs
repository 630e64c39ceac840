//! Pickles of TorchScript archives written by hand, one trait of the reader each.

use super::*;

const MAX_DEPTH: usize = 64;

/// One storage, key `0`.
struct OneStorage(Vec<u8>);

impl Storages for OneStorage {
    fn storage(&self, key: &str) -> Result<&[u8], FormatError> {
        match key {
            "0" => Ok(&self.0),
            _ => Err(FormatError::MissingEntry { entry: format!("data/{key}") }),
        }
    }
}

pub(super) fn read_as(dialect: Dialect, pickle: &[u8]) -> Result<Value, FormatError> {
    let limits = Limits { classes: 8, depth: MAX_DEPTH, ..Limits::for_file(pickle.len()) };
    read(pickle, &OneStorage(vec![0; 28]), dialect, &limits).map(|(value, _)| value)
}

fn read_value(pickle: &[u8]) -> Result<Value, FormatError> {
    read_as(Dialect::TorchScript, pickle)
}

/// `X` with a length and the text.
pub(super) fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A float tensor of `elements` values with the given size, stride and offset bytes.
pub(super) fn tensor(elements: u8, offset: u8, size: &[u8], stride: &[u8]) -> Vec<u8> {
    let ints = |values: &[u8]| values.iter().flat_map(|&v| [b'K', v]).collect::<Vec<_>>();
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage")[..],
        b"ctorch\nFloatStorage\n",
        &text("0"),
        &text("cpu"),
        &[b'K', elements, b't', b'Q', b'K', offset, b'('],
        &ints(size),
        b"t(",
        &ints(stride),
        b"t\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

pub(super) fn finished(body: &[u8]) -> Vec<u8> {
    [b"\x80\x02", body, b"."].concat()
}

#[test]
fn numbers_of_all_widths_are_read() {
    let ints: &[(&[u8], i64)] = &[
        (b"K\xff", 255),
        (b"M\xff\xff", 65535),
        (b"J\xff\xff\xff\xff", -1),
        (b"\x8a\x00", 0),
        (b"\x8a\x01\x80", -128),
        (b"\x8a\x05\x00\x00\x00\x00\x01", 1 << 32),
        (b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80", i64::MIN),
    ];
    for (body, value) in ints {
        assert_eq!(read_value(&finished(body)).unwrap(), Value::Int(*value));
    }
    let float = [b"G", &1.5_f64.to_be_bytes()[..]].concat();
    assert_eq!(read_value(&finished(&float)).unwrap(), Value::Float(1.5));
}

#[test]
fn tensor_named_twice_is_shared() {
    let body = [b"(", &tensor(7, 0, &[7], &[1])[..], b"q\x00h\x00t"].concat();
    let Value::Tuple(items) = read_value(&finished(&body)).unwrap() else { panic!("no tuple") };
    let (a, b) = (items[0].as_tensor().unwrap(), items[1].as_tensor().unwrap());
    assert!(Arc::ptr_eq(a, b));
}

#[test]
fn container_in_the_memo_is_filled_later() {
    let body = b"(]q\x00K\x01ah\x00t";
    let Value::Tuple(items) = read_value(&finished(body)).unwrap() else { panic!("no tuple") };
    assert_eq!(items[0], items[1]);
    assert!(matches!(&items[1], Value::List(list) if list.items == [Value::Int(1)]));
}

#[test]
fn list_that_contains_itself_is_refused() {
    let error = read_value(&finished(b"]q\x00h\x00a")).unwrap_err();
    assert!(matches!(error, FormatError::TooLarge { what: "depth of the pickle", .. }));
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    let nested = |depth: usize| finished(&[b")".as_slice(), &vec![0x85; depth], b""].concat());
    assert!(read_value(&nested(MAX_DEPTH)).is_ok());
    assert!(read_value(&nested(MAX_DEPTH + 1)).is_err());
    assert!(read_value(&nested(500_000)).is_err());
}

/// Each part alone is shallow, and finished before the next one uses it.
#[test]
fn deep_nesting_through_the_memo_is_refused() {
    let mut body = b"()q\x00".to_vec();
    for _ in 0..MAX_DEPTH {
        body.extend_from_slice(b"h\x00\x85q\x00");
    }
    body.extend_from_slice(b"h\x00\x85t");
    assert!(read_value(&finished(&body)).is_err());
}

#[test]
fn doubling_through_the_memo_stays_small() {
    let mut body = b")q\x00".to_vec();
    for _ in 0..50 {
        body.extend_from_slice(b"h\x00\x86q\x00");
    }
    // 2^50 leaves if it were expanded; shared, it is read at once.
    assert!(read_value(&finished(&body)).is_ok());
}

#[test]
fn only_known_globals_are_accepted() {
    for global in ["os\nsystem", "builtins\neval", "torch\nload", "torch\nHalfStorage", "__torch__x\nC"] {
        let body = [b"c", global.as_bytes(), b"\n"].concat();
        let error = read_value(&finished(&body)).unwrap_err();
        assert!(matches!(error, FormatError::Global { .. }), "{global}: {error}");
    }
}

#[test]
fn functions_and_classes_are_no_values() {
    for global in ["collections\nOrderedDict", "torch\nFloatStorage", "__torch__\nC"] {
        let body = [b"c", global.as_bytes(), b"\n"].concat();
        assert!(matches!(read_value(&finished(&body)), Err(FormatError::Pickle { .. })));
    }
}

#[test]
fn tensor_must_stay_inside_its_storage() {
    let read_tensor =
        |elements, offset, size: &[u8], stride: &[u8]| read_value(&finished(&tensor(elements, offset, size, stride)));
    assert!(read_tensor(7, 0, &[7], &[1]).is_ok());
    assert!(read_tensor(7, 1, &[7], &[1]).is_err());
    assert!(read_tensor(6, 0, &[7], &[1]).is_err());
    assert!(read_tensor(7, 0, &[7], &[1, 1]).is_err());
    assert!(read_tensor(7, 0, &[0], &[1]).is_ok());
    assert!(matches!(
        read_tensor(8, 0, &[7], &[1]),
        Err(FormatError::ShortStorage { have_bytes: 28, need_bytes: 32, .. })
    ));
}

#[test]
fn stride_zero_cannot_make_a_huge_tensor() {
    let size = [255; 4];
    let error = read_value(&finished(&tensor(7, 0, &size, &[0; 4]))).unwrap_err();
    assert!(matches!(error, FormatError::TooLarge { .. }));
}

#[test]
fn dict_with_a_repeated_name_is_refused() {
    let body = [b"}(", &text("a")[..], b"K\x01", &text("a"), b"K\x02u"].concat();
    assert!(read_value(&finished(&body)).is_err());
}

#[test]
fn broken_stack_use_is_refused() {
    let bodies: &[&[u8]] = &[
        b"",
        b"t",
        b"u",
        b"e",
        b"R",
        b"b",
        b"Q",
        b"\x81",
        b"\x85",
        b"q\x00",
        b"h\x00",
        b"j\xff\xff\xff\xff",
        b"r\xff\xff\xff\xff",
        b"NN",
        b"(N",
        b"N(t",
        b"}(Nu",
        b"N(NNu",
        b"Na",
        b")(NR",
        b"\x80\x05N",
        b"X\xff\xff\xff\xff",
        b"X\x01\x00\x00\x00\xff",
        b"\x8a\x09",
        b"cos",
        b"K",
        b"N0",
    ];
    for body in bodies {
        assert!(read_value(&finished(body)).is_err(), "{body:?}");
        assert!(read_value(body).is_err(), "{body:?}");
    }
}
