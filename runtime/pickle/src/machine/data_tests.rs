//! Pickles of the dialect of checkpoints and statistics, written by hand.

use super::tests::{finished, read_as, tensor, text};
use super::*;
use crate::{TensorData, TensorValue};

fn read_data(body: &[u8]) -> Result<Value, FormatError> {
    let pickle = [b"\x80\x05", body, b"."].concat();
    read_as(Dialect::Data, &pickle)
}

fn refused(body: &[u8]) -> String {
    read_data(body).unwrap_err().to_string()
}

fn short(text: &str) -> Vec<u8> {
    [&[0x8c, text.len() as u8], text.as_bytes()].concat()
}

fn short_bytes(bytes: &[u8]) -> Vec<u8> {
    [&[b'C', bytes.len() as u8], bytes].concat()
}

fn stack_global(module: &str, name: &str) -> Vec<u8> {
    [&short(module)[..], &short(name), b"\x93"].concat()
}

/// An element type with its state.
fn element(name: &str, order: &str) -> Vec<u8> {
    let state = [b"(K\x03", &short(order)[..], b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"].concat();
    [&stack_global("numpy", "dtype")[..], &short(name), b"\x89\x88\x87R", &state].concat()
}

/// An array of protocol 4: `fortran` is the opcode of the truth value.
fn array(shape: &[u8], element: &[u8], fortran: u8, bytes: &[u8]) -> Vec<u8> {
    let shape: Vec<u8> = shape.iter().flat_map(|&n| [b'K', n]).collect();
    [
        &stack_global("numpy._core.multiarray", "_reconstruct")[..],
        &stack_global("numpy", "ndarray"),
        b"K\x00\x85C\x01b\x87R(K\x01(",
        &shape,
        b"t",
        element,
        &[fortran],
        &short_bytes(bytes),
        b"tb",
    ]
    .concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn tensor_of(value: Value) -> TensorValue {
    TensorValue::clone(value.as_tensor().unwrap_or_else(|| panic!("{} is no tensor", value.kind())))
}

#[test]
fn texts_and_bytes_of_all_lengths_are_read() {
    assert_eq!(read_data(&short("aé")).unwrap().as_str(), Some("aé"));
    assert_eq!(read_data(b"\x8d\x02\0\0\0\0\0\0\0ab").unwrap().as_str(), Some("ab"));
    for body in [&b"C\x02ab"[..], b"B\x02\0\0\0ab", b"\x8e\x02\0\0\0\0\0\0\0ab", b"\x96\x02\0\0\0\0\0\0\0ab"] {
        assert_eq!(read_data(body).unwrap(), Value::Bytes(b"ab"[..].into()), "{body:?}");
    }
    // Frames and MEMOIZE say nothing about the values.
    assert_eq!(read_data(b"\x95\x07\0\0\0\0\0\0\0K\x05\x94h\x00\x86"), read_data(b"K\x05K\x05\x86"));
}

#[test]
fn array_in_both_orders_is_read_in_c_order() {
    let f4 = element("f4", "<");
    let bytes = floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let c = tensor_of(read_data(&array(&[2, 3], &f4, 0x89, &bytes)).unwrap());
    assert_eq!((c.shape(), c.to_f32_vec()), (&[2, 3][..], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let fortran = tensor_of(read_data(&array(&[2, 3], &f4, 0x88, &bytes)).unwrap());
    assert_eq!(fortran.to_f32_vec(), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
}

#[test]
fn array_must_fill_its_shape_and_say_its_byte_order() {
    let f4 = element("f4", "<");
    assert!(refused(&array(&[3], &f4, 0x89, &[0; 8])).contains("with 8 bytes"));
    assert!(refused(&array(&[1], &element("f4", ">"), 0x89, &[0; 4])).contains("big-endian"));
    assert!(refused(&array(&[1], &element("O8", "|"), 0x89, &[0; 8])).contains("O8"));
    let without_state = [&stack_global("numpy", "dtype")[..], &short("f4"), b"\x89\x88\x87R"].concat();
    assert!(refused(&array(&[1], &without_state, 0x89, &[0; 4])).contains("byte order"));
    // Never given its state, an array is no value.
    let empty = [
        &stack_global("numpy.core.multiarray", "_reconstruct")[..],
        &stack_global("numpy", "ndarray"),
        b"K\x00\x85C\x01b\x87R",
    ];
    assert!(refused(&empty.concat()).contains("array without content"));
}

#[test]
fn scalars_become_numbers() {
    let scalar = |name: &str, bytes: &[u8]| {
        [&stack_global("numpy.core.multiarray", "scalar")[..], &element(name, "<"), &short_bytes(bytes), b"\x86R"]
            .concat()
    };
    assert_eq!(read_data(&scalar("f8", &0.25_f64.to_le_bytes())).unwrap(), Value::Float(0.25));
    assert_eq!(read_data(&scalar("i4", &(-7_i32).to_le_bytes())).unwrap(), Value::Int(-7));
    assert_eq!(read_data(&scalar("b1", &[1])).unwrap(), Value::Bool(true));
    assert!(refused(&scalar("f8", &[0; 4])).contains("4 bytes"));
    assert!(refused(&scalar("f4", &[0; 8])).contains("8 bytes"));
}

#[test]
fn latin1_text_becomes_bytes() {
    let encode =
        |content: &str, encoding: &str| [b"c_codecs\nencode\n", &text(content)[..], &text(encoding), b"\x86R"].concat();
    assert_eq!(read_data(&encode("\u{0}ÿ", "latin1")).unwrap(), Value::Bytes([0, 255][..].into()));
    assert!(refused(&encode("\u{100}", "latin1")).contains("latin1"));
    assert!(refused(&encode("a", "rot13")).contains("latin1"));
    assert_eq!(read_data(b"c__builtin__\nbytes\n)R").unwrap(), Value::Bytes([][..].into()));
}

/// Encoding the same text over and over makes much out of little.
#[test]
fn bytes_that_are_made_are_bounded() {
    let long = "x".repeat(4000);
    let mut body = [b"(c_codecs\nencode\n\x94", &text(&long)[..], b"\x94", &text("latin1"), b"\x94"].concat();
    for _ in 0..300 {
        body.extend_from_slice(b"h\x00h\x01h\x02\x86R");
    }
    body.push(b't');
    assert!(matches!(read_data(&body), Err(FormatError::TooLarge { .. })));
}

#[test]
fn checkpoints_have_parameters_sizes_and_attributes_of_dicts() {
    let parameter = [b"ctorch._utils\n_rebuild_parameter\n", &tensor(7, 0, &[7], &[1])[..], b"\x88}\x87R"].concat();
    assert_eq!(tensor_of(read_data(&parameter).unwrap()).shape(), [7]);
    assert!(refused(b"ctorch._utils\n_rebuild_parameter\nK\x01\x88}\x87R").contains("parameter"));
    assert_eq!(read_data(b"ctorch\nSize\nK\x02K\x03\x86\x85R"), read_data(b"K\x02K\x03\x86"));
    let ordered = [b"ccollections\nOrderedDict\n)R", &text("a")[..], b"K\x01s}", &text("_metadata"), b"Nsb"].concat();
    let value = read_data(&ordered).unwrap();
    assert_eq!(value.as_dict().unwrap().get("a"), Some(&Value::Int(1)));
    assert_eq!(value.as_dict().unwrap().entries.len(), 1, "attributes are no entries");
    assert!(refused(b"}}b").contains("BUILD"), "only ordered dicts are given attributes");
}

#[test]
fn tensors_of_every_type_and_device_are_read() {
    let of = |storage: &str, device: &str, elements: u8| {
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            &text("storage")[..],
            format!("ctorch\n{storage}\n").as_bytes(),
            &text("0"),
            &text(device),
            &[b'K', elements, b't', b'Q', b'K', 0, b'K', elements, 0x85, b'K', 1, 0x85],
            b"\x89}tR",
        ]
        .concat()
    };
    // The storage has 28 bytes.
    for (storage, elements) in [("HalfStorage", 14), ("BFloat16Storage", 14), ("CharStorage", 28), ("ShortStorage", 14)]
    {
        let value = tensor_of(read_data(&of(storage, "cuda:0", elements)).unwrap());
        assert_eq!(value.data().len(), elements.into());
        assert!(matches!(read_data(&of(storage, "cpu", elements + 1)), Err(FormatError::ShortStorage { .. })));
        assert!(matches!(
            read_as(Dialect::TorchScript, &finished(&of(storage, "cpu", 1))),
            Err(FormatError::Global { .. })
        ));
    }
    assert!(read_as(Dialect::TorchScript, &finished(&of("FloatStorage", "cuda:0", 7))).is_err());
    let value = tensor_of(read_data(&of("BoolStorage", "mps", 28)).unwrap());
    assert_eq!(value.data(), &TensorData::Bool(vec![false; 28]));
}

#[test]
fn nothing_else_can_be_named() {
    for (module, name) in [
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.jit._pickle", "restore_type_tag"),
        ("__torch__", "C"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("collections", "OrderedDict.__init__"),
        ("", ""),
    ] {
        let error = read_data(&stack_global(module, name)).unwrap_err();
        assert_eq!(
            error,
            FormatError::Global {
                offset: 2 + short(module).len() + short(name).len(),
                name: format!("{module}.{name}")
            }
        );
    }
    let error = refused(b"cbuiltins\nex\x1b[2Jec\n");
    assert!(error.contains(r"builtins.ex\u{1b}[2Jec"), "control characters are escaped: {error}");
}

#[test]
fn opcodes_that_build_more_than_plain_values_are_unknown() {
    // INST, OBJ, NEWOBJ_EX, EXT1, sets, buffers outside the pickle, protocol 0 numbers and names, PERSID, BINSTRING.
    for opcode in *b"io\x92\x82\x8f\x90\x91\x97\x98IFSVPTU" {
        let body = [&[b'(', b'N', b'N', opcode][..], b"0\n1\n\0\0\0\0"].concat();
        assert!(refused(&body).contains(&format!("{opcode:#04x}")), "{opcode:#04x}");
    }
    assert!(refused(b"c__main__\nC\n)\x81").contains("__main__.C"));
    assert!(refused(b"\x80\x06N").contains("protocol 6"));
}

#[test]
fn memo_that_leaves_numbers_out_is_refused() {
    assert!(read_data(b"Nq\x00Nq\x01\x86").is_ok());
    assert!(read_data(b"Nq\x00Nq\x00\x86").is_ok());
    assert!(refused(b"Nr\xff\xff\x00\x00").contains("memo index 65535"));
}
