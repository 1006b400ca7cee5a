#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Faults 3, 4 and 5: what the kernel would quietly misread never reaches it.
#[test]
fn fault_03_04_05_misreadable_values_are_refused() {
    for text in [
        "0200",
        "0x200",
        "+1",
        "1e3",
        "１２",
        "12\r\n",
        "12\0",
        "-",
        "-0",
        "4096 garbage",
        "4096 1",
        "",
        " ",
        "1_000",
        "1.5",
        "00",
    ] {
        assert!(Shape::Ints(1).parse(text).is_err(), "{text:?}");
    }
    assert_eq!(Shape::Ints(2).parse("1025"), Err(ValueError::Fields { expected: 2, found: 1 }));
    assert_eq!(Shape::Text.parse("core\nkernel.core_pattern=|/x"), Err(ValueError::Control));
    assert_eq!(Shape::Text.parse(&"x".repeat(5 << 10)), Err(ValueError::TooLong));
    assert!(Shape::Ints(1).parse("18446744073709551615").is_ok());
    assert!(Shape::Ints(1).parse("18446744073709551616").is_err());
    assert_eq!(
        Shape::Ints(1).parse("0200").unwrap_err().to_string(),
        "`0200` is not a plain decimal integer: the kernel would read it as octal"
    );
}

#[test]
fn equal_meaning_is_equality() {
    for (shape, ours, kernels) in [
        (Shape::Ints(3), "4096 131072 6291456", "4096\t131072\t6291456"),
        (Shape::Ports, "8080,9148-9150,9151", "8080,9148-9151"),
        (Shape::Ports, "3,1,2", "1-3"),
        (Shape::Ports, "", ""),
        (Shape::Mask, "3", "00000000,00000003"),
        (Shape::Mask, "0", "0"),
        (Shape::Text, "bbr", "bbr "),
    ] {
        assert_eq!(shape.parse(ours).unwrap(), shape.read(kernels), "{ours} {kernels}");
    }
    assert_ne!(Shape::Ints(1).read("1024"), Shape::Ints(1).parse("1000").unwrap());
}

#[test]
fn a_shape_is_learned_from_what_is_there() {
    assert_eq!(Shape::learn("4096\t87380\t6291456"), Shape::Ints(3));
    assert_eq!(Shape::learn("-1"), Shape::Ints(1));
    assert_eq!(Shape::learn("fq_codel"), Shape::Text);
    assert_eq!(Shape::learn(""), Shape::Text);
    assert_eq!(Shape::learn("0022"), Shape::Text, "octal display: compared as text");
}

#[test]
fn bounds_have_a_place_for_every_field() {
    assert_eq!(
        Shape::Ints(3).parse_bounds("_ _ 33554432").unwrap(),
        [None, None, Some(33_554_432)]
    );
    assert!(Shape::Ints(3).parse_bounds("33554432").is_err());
    assert!(Shape::Ints(1).parse_bounds("0x10").is_err());
}

#[test]
fn bounds_are_one_printable_line_too() {
    for text in ["1\n2\n3", "1\r2 3", "1 2 3\x0c"] {
        assert_eq!(Shape::Ints(3).parse_bounds(text), Err(ValueError::Control), "{text:?}");
    }
    assert_eq!(Shape::AnyInts.parse_bounds(&"1 ".repeat(2100)), Err(ValueError::TooLong));
    assert!(Shape::Ints(3).parse_bounds("1\t2\t_").is_ok(), "as the kernel shows it");
}

proptest! {
    #[test]
    fn parsing_is_total_and_stable(text in "\\PC{0,60}|[0-9 ,-]{0,20}|[0-9a-f,]{0,20}") {
        for shape in [Shape::Ints(1), Shape::Ints(3), Shape::AnyInts, Shape::Text, Shape::Ports, Shape::Mask] {
            let _ = shape.read(&text);
            let _ = shape.parse_bounds(&text);
            if let Ok(value) = shape.parse(&text) {
                // What is written is understood again, and means the same.
                let written = value.to_string();
                prop_assert!(!written.contains('\n'));
                prop_assert_eq!(&shape.parse(&written).unwrap(), &value);
                prop_assert_eq!(shape.read(&written), value);
            }
        }
    }
}
