//! Temporary.
fn main() {
    let s = tenon_vision::bench::BenchSettings::default();
    println!("{}", tenon_vision::bench::speed(&s).unwrap());
}
