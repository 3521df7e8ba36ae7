//! The whole state in one file, so that a replica starts from it and not from the first record of the log.
//!
//! The file is a head and frames: length, checksum over length and content, content. Contents are [`Part`]s, applied in
//! order; the last one says that it is the last, so that a file cut between frames is found out too. Equal states give
//! equal bytes. Bundles are not in it.

mod rows;

use crate::{
    error::{Error, Result},
    ids::Interner,
    proto::{Control, Placement, Trial},
    state::State,
    visitor::Visitor,
};
use prost::Message;
use rows::{CatalogRow, ErasedRow, PopularityRow, SalesRow, VisitorRow};
use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// First bytes of every snapshot.
const MAGIC: [u8; 8] = *b"shopkeep";
/// Number of the format that is written.
const FORMAT: u32 = 5;
/// Oldest format that is read; what came since is absent there.
const OLDEST: u32 = 2;
/// Most rows of one part.
const PART_ROWS: usize = 8_192;

/// Snapshot beside its place, not yet published.
pub struct Draft {
    file: File,
    beside: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Opens a file beside `path`.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut beside = path.to_path_buf().into_os_string();
        beside.push(".partial");
        let beside = PathBuf::from(beside);
        Ok(Self { file: File::create(&beside)?, beside, path: path.to_path_buf() })
    }

    /// Writes the state.
    ///
    /// # Errors
    /// Where the file system refuses, e.g. because the disk is full.
    pub fn write(mut self, state: &State) -> io::Result<Self> {
        write(state, &mut BufWriter::new(&mut self.file))?;
        Ok(self)
    }

    /// Puts the file into its place; after this it outlives a loss of power.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn publish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.beside, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// State of a snapshot, without bundles.
///
/// # Errors
/// Corrupt where the file cannot be read or is damaged at any byte.
pub fn load(path: &Path) -> Result<State> {
    let fault =
        |what: String| Error::corrupt(format!("snapshot {}: {what}; use an older one or the log", path.display()));
    let file = File::open(path).map_err(|cause| fault(cause.to_string()))?;
    read(BufReader::new(file)).map_err(fault)
}

/// Some of a state; what comes first is needed by what comes after.
#[derive(Clone, PartialEq, Message)]
struct Part {
    #[prost(message, optional, tag = "1")]
    head: Option<Head>,
    #[prost(string, repeated, tag = "2")]
    items: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    categories: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    brands: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    catalog: Vec<CatalogRow>,
    #[prost(message, repeated, tag = "6")]
    popularity: Vec<PopularityRow>,
    #[prost(message, repeated, tag = "7")]
    visitors: Vec<VisitorRow>,
    #[prost(message, repeated, tag = "8")]
    erased: Vec<ErasedRow>,
    #[prost(message, repeated, tag = "9")]
    placements: Vec<Placement>,
    #[prost(message, repeated, tag = "10")]
    controls: Vec<Control>,
    #[prost(bool, tag = "11")]
    is_last: bool,
    #[prost(string, repeated, tag = "12")]
    stores: Vec<String>,
    #[prost(message, optional, tag = "13")]
    sales: Option<SalesRow>,
}

#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(int64, tag = "1")]
    offset: i64,
    #[prost(uint64, tag = "2")]
    events: u64,
    #[prost(string, tag = "3")]
    active_version: String,
    #[prost(string, tag = "4")]
    previous_version: String,
    #[prost(message, optional, tag = "5")]
    trial: Option<Trial>,
}

fn write(state: &State, out: &mut impl Write) -> io::Result<()> {
    out.write_all(&MAGIC)?;
    out.write_all(&FORMAT.to_le_bytes())?;
    write_part(out, &first_part(state))?;
    let catalog: Vec<u32> =
        (0..state.catalog.end()).filter(|&item| state.catalog.row(item).set_ms > i64::MIN).collect();
    for items in catalog.chunks(PART_ROWS) {
        let catalog = items.iter().map(|&item| CatalogRow::new(&state.catalog, item)).collect();
        write_part(out, &Part { catalog, ..Part::default() })?;
    }
    let items: Vec<u32> = (0..state.popularity.len() as u32).collect();
    for items in items.chunks(PART_ROWS) {
        let popularity = items.iter().map(|&item| PopularityRow::new(&state.popularity, item)).collect();
        write_part(out, &Part { popularity, ..Part::default() })?;
    }
    for rows in state.places.rows().chunks(PART_ROWS) {
        write_part(out, &Part { sales: Some(SalesRow::new(rows)), ..Part::default() })?;
    }
    let mut visitors: Vec<(&str, &Visitor)> =
        state.visitors.iter().map(|(key, visitor)| (&**key, &**visitor)).collect();
    visitors.sort_unstable_by_key(|&(key, _)| key);
    for visitors in visitors.chunks(PART_ROWS) {
        let row = |&(key, visitor): &(&str, &Visitor)| VisitorRow::new(key, visitor, state.waiting.since(key));
        let visitors = visitors.iter().map(row).collect();
        write_part(out, &Part { visitors, ..Part::default() })?;
    }
    write_part(out, &Part { is_last: true, ..Part::default() })?;
    out.flush()
}

fn write_part(out: &mut impl Write, part: &Part) -> io::Result<()> {
    let content = part.encode_to_vec();
    let length = (content.len() as u64).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&checksum(&length, &content).to_le_bytes())?;
    out.write_all(&content)
}

fn checksum(length: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(content);
    hasher.finalize()
}

fn first_part(state: &State) -> Part {
    let texts = |table: &Interner| table.names().map(str::to_owned).collect();
    let erased = state.erased.iter();
    Part {
        head: Some(Head {
            offset: state.offset,
            events: state.events,
            active_version: state.active_version.clone(),
            previous_version: state.previous_version.clone(),
            trial: state.trial.clone(),
        }),
        items: texts(&state.items),
        categories: texts(&state.catalog.categories),
        brands: texts(&state.catalog.brands),
        stores: texts(&state.places.stores),
        erased: erased.map(|(key, &time_ms)| ErasedRow { key: key.to_string(), time_ms }).collect(),
        placements: state.documents.placements.values().map(|placement| (**placement).clone()).collect(),
        controls: state.documents.controls.values().map(|control| (**control).clone()).collect(),
        ..Part::default()
    }
}

/// What was read, or what is wrong with the file.
type Sound<T> = std::result::Result<T, String>;

fn read(mut file: impl Read) -> Sound<State> {
    let head = read_bytes(&mut file, MAGIC.len() + 4)?;
    if head[..MAGIC.len()] != MAGIC {
        return Err("is not a snapshot".to_owned());
    }
    if !(OLDEST..=FORMAT).any(|format| head[MAGIC.len()..] == format.to_le_bytes()) {
        return Err(format!("has another format than {OLDEST} to {FORMAT}, those this version reads"));
    }
    let mut state = State::default();
    loop {
        let part = read_part(&mut file)?;
        if part.is_last {
            break;
        }
        apply(&mut state, part)?;
    }
    match file.read(&mut [0]) {
        Ok(0) => Ok(state),
        _ => Err("has bytes after its end".to_owned()),
    }
}

fn read_part(file: &mut impl Read) -> Sound<Part> {
    let head = read_bytes(file, 12)?;
    let (length, expected) = head.split_at(8);
    let bytes = length.iter().rev().fold(0_u64, |all, &byte| all << 8 | u64::from(byte));
    let content = read_bytes(file, usize::try_from(bytes).map_err(|_| "has a frame of impossible length")?)?;
    if checksum(length, &content).to_le_bytes() != expected {
        return Err("has a wrong checksum".to_owned());
    }
    Part::decode(&*content).map_err(|cause| format!("cannot be decoded: {cause}"))
}

/// Reads exactly `count` bytes; a damaged count costs no more memory than the file has bytes.
fn read_bytes(file: &mut impl Read, count: usize) -> Sound<Vec<u8>> {
    let mut bytes = Vec::new();
    let found = file.take(count as u64).read_to_end(&mut bytes).map_err(|cause| cause.to_string())?;
    if found == count { Ok(bytes) } else { Err("ends too early".to_owned()) }
}

fn apply(state: &mut State, part: Part) -> Sound<()> {
    if let Some(head) = part.head {
        (state.offset, state.events) = (head.offset, head.events);
        (state.active_version, state.previous_version) = (head.active_version, head.previous_version);
        state.trial = head.trial;
    }
    restore_names(&mut state.items, &part.items)?;
    restore_names(&mut state.catalog.categories, &part.categories)?;
    restore_names(&mut state.catalog.brands, &part.brands)?;
    restore_names(&mut state.places.stores, &part.stores)?;
    for row in part.catalog {
        check_ids(&[row.item], state.items.len())?;
        row.restore(&mut state.catalog)?;
    }
    for row in part.popularity {
        check_ids(&[row.item], state.items.len())?;
        row.restore(&mut state.popularity);
    }
    if let Some(sales) = part.sales {
        check_ids(&sales.items, state.items.len())?;
        sales.restore(&mut state.places)?;
    }
    state.visitors.reserve(part.visitors.len());
    for row in part.visitors {
        check_ids(&row.recent_items, state.items.len())?;
        check_ids(&row.bought_items, state.items.len())?;
        let visitor = row.visitor()?;
        if let Some(since_ms) = row.waits_since_ms {
            state.waiting.add(&row.key, since_ms);
        }
        state.visitors.insert(row.key.as_str().into(), Box::new(visitor));
        state.update_unrecorded(&row.key);
    }
    state.erased.extend(part.erased.into_iter().map(|row| (row.key.into(), row.time_ms)));
    let documents = Arc::make_mut(&mut state.documents);
    documents.placements.extend(part.placements.into_iter().map(|one| (one.placement_id.clone(), Arc::new(one))));
    documents.controls.extend(part.controls.into_iter().map(|one| (one.control_id.clone(), Arc::new(one))));
    Ok(())
}

fn restore_names(table: &mut Interner, names: &[String]) -> Sound<()> {
    let before = table.len();
    for name in names {
        table.intern(name);
    }
    if table.len() == before + names.len() { Ok(()) } else { Err("has one id twice".to_owned()) }
}

fn check_ids(ids: &[u32], end: usize) -> Sound<()> {
    if ids.iter().all(|&id| (id as usize) < end) { Ok(()) } else { Err("names an item it does not hold".to_owned()) }
}

#[cfg(test)]
mod tests;
