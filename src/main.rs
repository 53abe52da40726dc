//! temporary
#![allow(clippy::print_stderr)]
use openclaw::config::{Env, GatewayFlags};
fn main() {
    let mut flags = GatewayFlags::default();
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "gateway" && a != "run").collect();
    for pair in args.chunks(2) {
        let v = pair[1].clone();
        match pair[0].as_str() {
            "--port" => flags.port = v.parse().ok(),
            "--bind" => flags.bind = v.parse().ok(),
            "--auth" => flags.auth = v.parse().ok(),
            "--tailscale" => flags.tailscale = v.parse().ok(),
            "--upstream" => flags.upstream = Some(v),
            "--token" => flags.token = openclaw::domain::Secret::new(&v),
            "--tailscale-bin" => flags.tailscale_bin = Some(v.into()),
            _ => panic!("{}", pair[0]),
        }
    }
    if let Err(e) = openclaw::app::run(flags, Env::from_process()) {
        eprintln!("{e}");
        std::process::exit(if e.is_configuration() { 78 } else { 1 });
    }
}
