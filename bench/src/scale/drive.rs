//! Fills a store; opens it, looks up, renews, lists.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use countersign::base::secret::ExposeSecret as _;
use countersign::base::time::Clock;
use countersign::store::{Error, Kind, Patience, RecordKey, Store};
use countersign::token::consent::UserTokens;
use tokio::task::JoinHandle;

use crate::args::Args;
use crate::gauge::{Watch, forget_peak, quantile, resident};
use crate::place::Where;
use crate::users::{self, Dice};
use crate::{Failure, row};

/// So many writes are under way at once, where the store lets them.
const AT_ONCE: u64 = 64;
/// A rotation's lock, as the control thread takes it.
const LEASE: Duration = Duration::from_secs(60);
/// Redis may be away for so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// A page that failed is asked for again after so long, as the control thread does.
const AGAIN: Duration = Duration::from_millis(100);
/// After a failure Redis is left alone for a while; asking on would count one failure many times.
const REST: Duration = Duration::from_millis(300);

/// `scale load --file PATH | --redis PORT --key FILE --records N --seconds S --count FILE`: puts N records, or as many
/// as fit into the time, and writes how many these were into the file.
pub async fn load(mut args: Args) -> Result<(), Failure> {
    let place = Where::read(&mut args)?;
    let records: u64 = args.parse("records")?;
    let within = Duration::from_secs(args.parse("seconds")?);
    let count = args.text("count")?;
    args.end()?;
    let store = place.open(Patience::of_a_person()).await?;
    let (empty, _) = place.bytes()?;
    let (begun, next) = (Instant::now(), Rc::new(Cell::new(0)));
    let writers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (store, next) = (store.clone(), next.clone());
            tokio::task::spawn_local(async move {
                while next.get() < records && begun.elapsed() < within {
                    let number = next.replace(next.get() + 1);
                    let tokens = users::tokens(number, Clock::System.now())?;
                    let (value, expiry) = users::record(&tokens);
                    store.put(Kind::User, &users::place(&tokens.key), &value, expiry).await?;
                }
                Ok::<(), Failure>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    let (took, done) = (begun.elapsed().as_secs_f64(), next.get());
    row("records", done);
    row("load", format!("{took:.1} s, {:.0} records/s", done as f64 / took));
    if done < records {
        let whole = records as f64 * took / done as f64;
        row(&format!("load of all {records} at this rate, which falls as the store grows"), format!("{whole:.0} s"));
    }
    let (bytes, of) = place.bytes()?;
    let bare = if of == "in the file" { 0.0 } else { empty };
    row(&format!("bytes {of} per record"), format!("{:.0}", (bytes - bare) / done as f64));
    row("resident after the load", format!("{:.0} MiB", resident()?.0));
    Ok(std::fs::write(count, done.to_string())?)
}

/// `scale use --file PATH | --redis PORT --key FILE --records N [--lookups 20000] [--seconds 10]`
pub async fn exercise(mut args: Args) -> Result<(), Failure> {
    let place = Where::read(&mut args)?;
    let (records, lookups): (u64, u64) = (args.parse("records")?, args.or("lookups", 20_000)?);
    let seconds = Duration::from_secs(args.or("seconds", 10)?);
    args.end()?;

    let begun = Instant::now();
    let store = place.open(Patience::default()).await?;
    row("open, in a new process", format!("{:.2} s", begun.elapsed().as_secs_f64()));
    let (now, most) = resident()?;
    row("resident after the opening", format!("{now:.0} MiB; at most {most:.0} MiB during it"));

    let mut dice = Dice::new(records);
    let mut waits = Vec::new();
    let begun = Instant::now();
    for _ in 0..lookups {
        let name = users::place(&users::user(dice.roll() % records)?);
        let asked = Instant::now();
        let record = store.load(Kind::User, &name).await?.ok_or("a record is not there")?;
        UserTokens::open(record.value.expose_secret()).map_err(|error| error.to_string())?;
        waits.push(asked.elapsed());
    }
    let mean = begun.elapsed().as_secs_f64() / lookups as f64;
    waits.sort_unstable();
    let micros = |part| quantile(&waits, part).as_secs_f64() * 1e6;
    row("lookup p50, p99, mean", format!("{:.0}, {:.0}, {:.0} µs", micros(0.5), micros(0.99), mean * 1e6));

    for at_once in [1, AT_ONCE] {
        let before = place.commands()?;
        let (Renewals { done, failed }, rate) = renew(&store, records, at_once, seconds).await?;
        row(
            &format!("renewals without the bank, {at_once} at once"),
            format!("{rate:.0} /s; {failed} of {done} failed"),
        );
        let asked: Vec<String> = place
            .commands()?
            .into_iter()
            .filter_map(|(name, now)| {
                let then = before.iter().find(|(known, _)| *known == name).map_or(0, |(_, then)| *then);
                let each = (now - then) as f64 / done.max(1) as f64;
                (each >= 0.01).then(|| format!("{name} {each:.2}"))
            })
            .collect();
        if !asked.is_empty() {
            row("commands of one renewal, those in scripts included", asked.join(", "));
        }
    }

    forget_peak()?;
    let watch = Watch::start();
    let mut tries = 0;
    let (listing, took) = loop {
        let begun = Instant::now();
        let listing = store.list(Kind::User).await;
        let took = begun.elapsed().as_secs_f64();
        tries += 1;
        match &listing {
            Err(error) if tries < 3 => row("a list that failed", format!("after {took:.2} s: {error}")),
            Err(_) | Ok(_) => break (listing, took),
        }
        store.reach(PATIENCE).await?;
    };
    let stalled = watch.end().await.as_secs_f64();
    row("list", came_of(listing.map(|listing| listing.entries.len()), took));
    row("longest stall of the control thread during it", format!("{stalled:.2} s"));
    row("resident during it, at most", format!("{:.0} MiB", resident()?.1));
    store.reach(PATIENCE).await?;
    let (others, beside) = (Others::start(&store, records), Instant::now());
    let listing = store.list(Kind::User).await;
    let beside = came_of(listing.map(|listing| listing.entries.len()), beside.elapsed().as_secs_f64());
    let (asked, failed) = others.end().await;
    row("list while others look up", format!("{beside}; {failed} of their {asked} lookups failed"));
    store.reach(PATIENCE).await?;
    walk(&store).await
}

/// What `control/consents/renewal.rs` does once a minute where nothing is due.
async fn walk(store: &Store) -> Result<(), Failure> {
    forget_peak()?;
    let (before, watch, begun) = (resident()?.0, Watch::start(), Instant::now());
    let (mut from, mut seen, mut failed) = (None, 0, 0);
    loop {
        let page = match store.page(Kind::User, from.as_ref()).await {
            Ok(page) => page,
            Err(error) if failed >= 50 => return Err(error.into()),
            Err(_) => {
                failed += 1;
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        for (_, record) in &page.records {
            UserTokens::open(record.value.expose_secret()).map_err(|error| error.to_string())?;
            seen += 1;
        }
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    let took = begun.elapsed().as_secs_f64();
    let stalled = watch.end().await.as_secs_f64() * 1e3;
    row("a look-round in which nothing is due", format!("{took:.2} s for {seen} records; {failed} pages asked again"));
    row("longest stall of the control thread during it", format!("{stalled:.0} ms"));
    row("resident before it, and at most during it", format!("{before:.0}, {:.0} MiB", resident()?.1));
    Ok(())
}

fn came_of(listed: Result<usize, Error>, took: f64) -> String {
    match listed {
        Ok(records) => format!("{took:.2} s for {records} records"),
        Err(error) => format!("failed after {took:.2} s: {error}"),
    }
}

/// Somebody else on the same thread, who looks up all the time.
struct Others(Rc<Cell<(u64, u64)>>, JoinHandle<()>);

impl Others {
    fn start(store: &Store, records: u64) -> Self {
        let count = Rc::new(Cell::new((0, 0)));
        let (store, counted, mut dice) = (store.clone(), count.clone(), Dice::new(records * 2));
        let task = tokio::task::spawn_local(async move {
            while let Ok(user) = users::user(dice.roll() % records) {
                let failed = store.load(Kind::User, &users::place(&user)).await.is_err();
                let (asked, before) = counted.get();
                counted.set((asked + 1, before + u64::from(failed)));
                tokio::time::sleep(if failed { REST } else { Duration::from_millis(1) }).await;
            }
        });
        Self(count, task)
    }

    /// How often he asked, and how often in vain.
    async fn end(self) -> (u64, u64) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.1.abort();
        self.0.get()
    }
}

/// What a while of renewals came to.
#[derive(Clone, Copy, Default)]
struct Renewals {
    done: u64,
    failed: u64,
}

/// Renews random users for a while, so many at once.
async fn renew(store: &Store, records: u64, at_once: u64, within: Duration) -> Result<(Renewals, f64), Failure> {
    let (begun, count) = (Instant::now(), Rc::new(Cell::new(Renewals::default())));
    let renewers: Vec<_> = (0..at_once)
        .map(|number| {
            let (store, count, mut dice) = (store.clone(), count.clone(), Dice::new(records + at_once + number));
            tokio::task::spawn_local(async move {
                while begun.elapsed() < within {
                    let renewed = rotate(&store, &users::place(&users::user(dice.roll() % records)?), &mut dice).await;
                    let Renewals { done, failed } = count.get();
                    match renewed {
                        Ok(renewed) => count.set(Renewals { done: done + u64::from(renewed), failed }),
                        Err(_) => {
                            count.set(Renewals { done, failed: failed + 1 });
                            tokio::time::sleep(REST).await;
                        }
                    }
                }
                Ok::<(), Failure>(())
            })
        })
        .collect();
    for renewer in renewers {
        renewer.await??;
    }
    Ok((count.get(), count.get().done as f64 / begun.elapsed().as_secs_f64()))
}

/// What `control/consents/renewal.rs` asks of the store, with a bank that answers at once. Says whether it was done:
/// not where somebody else is at it.
async fn rotate(store: &Store, name: &RecordKey, dice: &mut Dice) -> Result<bool, Failure> {
    let read = || async {
        let record = store.load(Kind::User, name).await?.ok_or("a record is not there")?;
        let tokens = UserTokens::open(record.value.expose_secret()).map_err(|error| error.to_string())?;
        Ok::<_, Failure>((tokens, record.version))
    };
    let _looked = read().await?;
    let Some(lock) = store.lock(name, LEASE).await? else { return Ok(false) };
    let (tokens, version) = read().await?;
    let next = tokens.rotated(users::answer(dice)?, Clock::System.now());
    let (value, expiry) = users::record(&next);
    store.swap(Kind::User, name, Some(version), &value, expiry).await?;
    store.announce(Kind::User, name).await?;
    store.unlock(lock).await?;
    Ok(true)
}
