//! `weir check`: every problem of a plan at once, what has no effect yet, and how much memory it can take at worst.

use models::store::human_bytes;
use serde::Serialize;

use routing::plan::Plan;

use super::connect::{self, Connected};
use super::plan_file::{NoPlan, Origin};
use super::{Check, Exit};
use crate::body::PIECE;
use crate::runtime::secrets::Secrets;
use crate::server::conn::{H2_CONNECTION_WINDOW, H2_STREAMS};
use crate::server::tls::Loaded;

#[derive(Serialize)]
struct Found<'a> {
    ok: bool,
    problems: &'a [routing::plan::Problem],
    notes: &'a [routing::plan::Note],
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    worst_case_bytes: Vec<(String, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    providers: Option<Vec<Connected>>,
}

/// Runs it.
pub fn run(args: &Check) -> Exit {
    let origin = Origin::File(args.plan().to_owned());
    match origin.load() {
        Err(NoPlan::Absent(why)) => {
            eprintln!("{why}");
            Exit::Absent
        }
        Err(NoPlan::Wrong(problems)) if args.json => {
            print(&Found {
                ok: false,
                problems: &problems.0,
                notes: &[],
                plan: None,
                worst_case_bytes: Vec::new(),
                providers: None,
            });
            Exit::Finding
        }
        Err(no_plan) => {
            eprintln!("{}", no_plan.say(&origin));
            Exit::Finding
        }
        Ok(compiled) => {
            let worst = worst_case(&compiled.plan);
            let files = compiled.plan.server.tls.as_ref().map(Loaded::new);
            if let Some(Err(why)) = files {
                eprintln!("{}: {why}", origin.say());
                return Exit::Finding;
            }
            let providers = match args.connect.then(|| connected(&compiled.plan)).transpose() {
                Ok(providers) => providers,
                Err(why) => {
                    eprintln!("{why}");
                    return Exit::Absent;
                }
            };
            let wrong = providers.iter().flatten().any(|p| !p.ok);
            let exit = if wrong { Exit::Finding } else { Exit::Fine };
            if args.json {
                let plan = Some(compiled.plan.fingerprint.to_string());
                print(&Found {
                    ok: !wrong,
                    problems: &[],
                    notes: &compiled.notes,
                    plan,
                    worst_case_bytes: worst,
                    providers,
                });
                return exit;
            }
            let plan = &compiled.plan;
            out!(
                "{}: fine. Plan {}: {} targets, {} routes, {} rules.",
                origin.say(),
                plan.fingerprint,
                plan.targets.len(),
                plan.routes.len(),
                plan.rules.len()
            );
            for note in &compiled.notes {
                out!("note: {note}");
            }
            out!(
                "\nMemory at worst, beside the program itself and models (their weights, and KV memory for each slot):"
            );
            for (what, bytes) in &worst {
                out!("  {what:<24} {:>10}", human_bytes(*bytes));
            }
            let sum = worst
                .iter()
                .map(|(_, bytes)| bytes)
                .fold(0_u64, |a, b| a.saturating_add(*b));
            out!("  {:<24} {:>10}", "together", human_bytes(sum));
            if let Some(providers) = &providers {
                out!("\nProviders, asked for their list of models:");
                for p in providers {
                    let mark = if p.ok { "ok   " } else { "WRONG" };
                    out!("  {mark} {:<12} {}", p.provider, p.said.join("; "));
                }
            }
            exit
        }
    }
}

/// With what may wait on each HTTP/2 connection: what its client sent ahead, and of each of its requests the one piece of an
/// answer that HTTP/2's own library has taken over.
fn worst_case(plan: &Plan) -> Vec<(String, u64)> {
    let mut worst = routing::plan::worst_case(plan);
    let waits = u64::from(H2_CONNECTION_WINDOW) + u64::from(H2_STREAMS) * PIECE as u64;
    let all = u64::from(plan.server.max_connections).saturating_mul(waits);
    worst.push(("waiting on HTTP/2".to_owned(), all));
    worst
}

fn connected(plan: &Plan) -> Result<Vec<Connected>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("no runtime: {e}"))?;
    Ok(runtime.block_on(connect::connect(plan, &Secrets::of_process())))
}

fn print(value: &impl Serialize) {
    out!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}
