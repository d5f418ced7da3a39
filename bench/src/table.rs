//! Medians, ratios and tables.

use crate::contender::{Contender, Door, Kind as Of};
use crate::measure::{
    BESIDE_FAILED, BESIDE_RATE, BESIDE_UNSIGNED, Figures, Kind, LOGGED_P50, LOGGED_P99, STOLEN, Test,
};

/// All rounds of one test: for each contender, in order, its figures round by round.
pub type Rounds = Vec<Vec<Figures>>;

/// The middle value; of an even number the mean of the two in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len() % 2, values.get(middle), middle.checked_sub(1).and_then(|below| values.get(below))) {
        (1, Some(value), _) => *value,
        (_, Some(above), Some(below)) => (above + below) / 2.0,
        _ => 0.0,
    }
}

/// Prints one test's table; its name may be that of several.
pub fn print(name: &str, test: &Test, contenders: &[Contender], rounds: &Rounds) {
    println!("\n### {name}: {}\n", test.what);
    match test.kind {
        Kind::Idle | Kind::Peak | Kind::Stall | Kind::Syscalls => special(contenders, rounds),
        Kind::Allocations => {
            special(contenders, rounds);
            steal(rounds);
        }
        Kind::Neighbour => {
            neighbours(contenders, rounds);
            steal(rounds);
        }
        Kind::Bytes | Kind::Growth(_) | Kind::Latency | Kind::Requests | Kind::Tunnels => {
            usual(test, contenders, rounds);
            steal(rounds);
        }
    }
    if test.door == Door::Forward {
        notes(contenders, rounds);
    }
}

fn usual(test: &Test, contenders: &[Contender], rounds: &Rounds) {
    let peers: Vec<usize> = match test.kind {
        // Growth is compared with the first row.
        Kind::Growth(_) => vec![0],
        _ => (0..contenders.len()).filter(|at| contenders[*at].kind != Of::Countersign).collect(),
    };
    let unit = match test.kind {
        Kind::Bytes => "MiB",
        Kind::Tunnels => "tunnels",
        Kind::Allocations
        | Kind::Growth(_)
        | Kind::Idle
        | Kind::Latency
        | Kind::Neighbour
        | Kind::Peak
        | Kind::Requests
        | Kind::Stall
        | Kind::Syscalls => "requests",
    };
    let (compared, figure): (&str, fn(&Figures) -> f64) = match test.kind {
        Kind::Latency => ("p50", |figures| figures.p50_us),
        _ => ("per CPU-s", |figures| figures.per_cpu),
    };
    let mut head = format!("| | {unit}/s | {unit}/CPU-s | user µs | system µs | p50 µs | p99 µs | busy | wrong |");
    for peer in &peers {
        head.push_str(&format!(" {compared} : {} |", contenders[*peer].name));
    }
    println!("{head}\n|{}", "---|".repeat(9 + peers.len()));
    for (contender, own) in contenders.iter().zip(rounds) {
        let middle = |what: fn(&Figures) -> f64| median(own.iter().map(what));
        let mut row = format!(
            "| {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} | {:.2} | {} |",
            contender.name,
            middle(|figures| figures.rate),
            middle(|figures| figures.per_cpu),
            middle(|figures| figures.user_us),
            middle(|figures| figures.system_us),
            middle(|figures| figures.p50_us),
            middle(|figures| figures.p99_us),
            middle(|figures| figures.busy),
            own.iter().map(|figures| figures.wrong).sum::<u64>(),
        );
        for peer in &peers {
            row.push_str(&format!(" {} |", ratio(own, &rounds[*peer], figure)));
        }
        println!("{row}");
    }
}

/// The median of the rounds' ratios of a figure to that of a peer, with their range.
fn ratio(own: &[Figures], peer: &[Figures], figure: fn(&Figures) -> f64) -> String {
    let mut ratios: Vec<f64> = own.iter().zip(peer).map(|(own, peer)| figure(own) / figure(peer)).collect();
    ratios.sort_by(f64::total_cmp);
    let (low, high) = (ratios.first().unwrap_or(&0.0), ratios.last().unwrap_or(&0.0));
    format!("**{:.2}** ({low:.2}-{high:.2})", median(ratios.iter().copied()))
}

/// Prints the latency of some calls, without and with others beside them, and what became of those.
fn neighbours(contenders: &[Contender], rounds: &Rounds) {
    let Some((first, alone)) = contenders.first().zip(rounds.first()) else { return };
    println!(
        "| | requests/s | p50 µs | p99 µs | p50 in the log | p99 in the log | busy | wrong | calls/s beside | refused | failed \
         | p99 : {0} | p99 in the log : {0} |",
        first.name
    );
    println!("|{}", "---|".repeat(13));
    for (contender, own) in contenders.iter().zip(rounds) {
        let middle = |what: fn(&Figures) -> f64| median(own.iter().map(what));
        let named = |name: &str| own.iter().map(|figures| figures.named(name)).collect::<Vec<_>>();
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} | {} | {:.0} | {} | {} | {} | {} |",
            contender.name,
            middle(|figures| figures.rate),
            middle(|figures| figures.p50_us),
            middle(|figures| figures.p99_us),
            median(named(LOGGED_P50)),
            median(named(LOGGED_P99)),
            middle(|figures| figures.busy),
            own.iter().map(|figures| figures.wrong).sum::<u64>(),
            median(named(BESIDE_RATE)),
            named(BESIDE_UNSIGNED).iter().sum::<f64>(),
            named(BESIDE_FAILED).iter().sum::<f64>(),
            ratio(own, alone, |figures| figures.p99_us),
            ratio(own, alone, |figures| figures.named(LOGGED_P99)),
        );
    }
}

/// Prints how many windows the host disturbed.
fn steal(rounds: &Rounds) {
    let windows: Vec<&Figures> = rounds.iter().flatten().collect();
    let repeated = windows.iter().filter(|figures| figures.repeats > 0).count();
    let disturbed = windows.iter().filter(|figures| figures.stolen > STOLEN).count();
    println!("\nSteal: {repeated} of {} windows repeated, {disturbed} still disturbed.", windows.len());
}

/// What the forward proxies do differently.
fn notes(contenders: &[Contender], rounds: &Rounds) {
    println!();
    for (contender, own) in contenders.iter().zip(rounds) {
        let opened = median(own.iter().map(|figures| figures.opened));
        println!("- {}: {}; {opened:.3} connections to the bank a request", contender.name, contender.kind.manner());
    }
}

fn special(contenders: &[Contender], rounds: &Rounds) {
    for (contender, own) in contenders.iter().zip(rounds) {
        let Some(first) = own.first() else { continue };
        let told: Vec<String> = first
            .more
            .iter()
            .map(|(name, _)| {
                let values = own.iter().filter_map(|figures| figures.more.iter().find(|(known, _)| known == name));
                format!("{name} {:.2}", median(values.map(|(_, value)| *value)))
            })
            .collect();
        println!("- {}: {}", contender.name, told.join(" · "));
    }
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
    }
}
