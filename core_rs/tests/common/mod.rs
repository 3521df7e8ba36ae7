//! A random shop for property tests: everything follows from one seed.

use core_rs::{
    encoding, feature,
    proto::{
        Activation, Consent, Context, Control, DocumentChange, Event, EventItem, EventType, Interval, Item, ItemChange,
        ItemFilter, Money, Placement, PlacementRequest, Profile, RecommendRequest, RecordKind, SourceUse,
        control::{Action, Boost, Exclude, Pin, Require},
        document_change::Document,
        item::Availability,
        placement::BoughtRule,
    },
    source,
    state::{Record, State},
    time::timestamp,
};
use prost::Message;
use safetensors::{Dtype, tensor::TensorView};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

/// Moment of all decisions.
pub const NOW: i64 = 1_700_000_000_000;
const DAY: i64 = 86_400_000;
/// Values of a sequence vector.
const ENCODED_WIDTH: usize = 6;

/// Small generator with a known sequence (`SplitMix64`, Steele et al. 2014).
pub struct Chance(pub u64);

impl Chance {
    /// Number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }

    /// True once in `one_in` times.
    pub fn once_in(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// Up to `most` names `<prefix><number below end>`.
    pub fn names(&mut self, prefix: &str, most: usize, end: usize) -> Vec<String> {
        (0..self.below(most + 1)).map(|_| format!("{prefix}{}", self.below(end))).collect()
    }
}

/// State with items, visitors, placements, controls and an active bundle, all random.
pub struct Shop {
    /// The state.
    pub state: State,
    /// Number of item names in use; the catalogue holds some of them.
    pub item_count: usize,
}

impl Shop {
    /// Makes the shop of a seed.
    pub fn new(chance: &mut Chance, folder: &Path) -> Self {
        let mut shop = Self { state: State::default(), item_count: 1 + chance.below(60) };
        for item in 0..shop.item_count {
            if !chance.once_in(8) {
                shop.put(RecordKind::Item, &item_change(chance, item));
            }
        }
        for _ in 0..chance.below(120) {
            let event = event(chance, shop.item_count + 3);
            shop.put(RecordKind::Event, &event);
        }
        if chance.once_in(4) {
            let consents = vec![Consent { purpose: 1, granted: chance.once_in(2) }];
            shop.put(RecordKind::Profile, &Profile { visitor_id: "v0".into(), traits: vec![], consents });
        }
        for number in 0..3 {
            shop.put_document(Document::Placement(placement(chance, number)));
        }
        for number in 0..chance.below(4) {
            let control = control(chance, number, shop.item_count);
            shop.put_document(Document::Control(control));
        }
        if chance.once_in(2) {
            write_bundle(chance, folder, shop.item_count);
            let bundle = core_rs::bundle::Bundle::load(folder).expect("a sound bundle");
            shop.state.keep_bundle(core_rs::bundle::ActiveBundle::new(Arc::new(bundle)));
            shop.put(RecordKind::Activation, &Activation { version: "test".into(), ..Activation::default() });
            for _ in 0..chance.below(4) {
                let event = event(chance, shop.item_count + 3);
                shop.put(RecordKind::Event, &event);
            }
            shop.encode(chance);
        }
        shop
    }

    /// Gives some of the visitors that wait a vector.
    fn encode(&mut self, chance: &mut Chance) {
        let histories = encoding::take(&self.state, chance.below(4), true);
        let values: Vec<f32> = (0..histories.len() * ENCODED_WIDTH).map(|_| chance.below(29) as f32 - 14.0).collect();
        let vectors = histories.vectors(&values);
        encoding::set(&mut self.state, &histories, vectors);
    }

    /// Applies one more record.
    pub fn put(&mut self, kind: RecordKind, message: &impl Message) {
        let record = Record {
            offset: self.state.offset + 1,
            kind: kind as i32,
            time_ms: NOW - DAY,
            payload: &message.encode_to_vec(),
        };
        self.state.apply(&record).expect("a sound record");
    }

    fn put_document(&mut self, document: Document) {
        self.put(RecordKind::Document, &DocumentChange { document: Some(document), deleted: false });
    }
}

fn item_change(chance: &mut Chance, item: usize) -> ItemChange {
    let money = |units: usize| Money { currency_code: "USD".into(), units: units as i64, nanos: 0 };
    let category_path = vec![format!("d{}", chance.below(2)), format!("c{}", chance.below(5))];
    let item = Item {
        item_id: format!("i{item}"),
        category_path: if chance.once_in(6) { vec![] } else { category_path },
        brand: if chance.once_in(4) { String::new() } else { format!("b{}", chance.below(4)) },
        price: if chance.once_in(5) { None } else { Some(money(1 + chance.below(20))) },
        availability: if chance.once_in(7) { Availability::Unavailable } else { Availability::Available } as i32,
        stock_quantity: if chance.once_in(3) { Some(chance.below(2) as i64) } else { None },
        release_time: if chance.once_in(2) { Some(timestamp(NOW - chance.below(90) as i64 * DAY)) } else { None },
        ..Item::default()
    };
    ItemChange { item: Some(item), ..ItemChange::default() }
}

fn event(chance: &mut Chance, item_end: usize) -> Event {
    let types = [EventType::View, EventType::Purchase, EventType::AddToCart, EventType::Click, EventType::Dislike];
    let visitor = chance.below(4);
    let line = |item_id| EventItem { item_id, quantity: 1, ..EventItem::default() };
    Event {
        event_id: format!("e{}", chance.below(usize::MAX)),
        event_type: types[chance.below(types.len())] as i32,
        event_time: Some(timestamp(NOW - chance.below(80) as i64 * DAY / 4)),
        context: Some(Context {
            visitor_id: format!("v{visitor}"),
            user_id: if chance.once_in(6) { format!("u{visitor}") } else { String::new() },
            ..Context::default()
        }),
        items: chance.names("i", 4, item_end).into_iter().map(line).collect(),
        ..Event::default()
    }
}

fn filter(chance: &mut Chance, item_count: usize) -> ItemFilter {
    ItemFilter {
        categories: if chance.once_in(3) { chance.names("c", 2, 6) } else { vec![] },
        brands: if chance.once_in(4) { chance.names("b", 2, 5) } else { vec![] },
        min_price: if chance.once_in(6) { Some(3.0) } else { None },
        max_price: if chance.once_in(6) { Some(12.0) } else { None },
        item_ids: if chance.once_in(6) { chance.names("i", 10, item_count) } else { vec![] },
    }
}

fn placement(chance: &mut Chance, number: usize) -> Placement {
    let rules = [BoughtRule::Keep, BoughtRule::Exclude, BoughtRule::Only, BoughtRule::Decay];
    let mut sources: Vec<SourceUse> = source::names()
        .into_iter()
        .map(|name| SourceUse { source: name.into(), limit: chance.below(20) as i32, weight: chance.below(3) as f64 })
        .collect();
    sources.truncate(1 + chance.below(sources.len()));
    Placement {
        placement_id: format!("p{number}"),
        sources,
        bought_rule: rules[chance.below(4)] as i32,
        hide_viewed_hours: if chance.once_in(3) { 100 } else { 0 },
        filter: if chance.once_in(4) { Some(filter(chance, 20)) } else { None },
        mmr_lambda: [0.0, 0.3, 1.0][chance.below(3)],
        variety: chance.below(3) as i32,
        max_per_category: if chance.once_in(3) { 2 } else { 0 },
        max_per_brand: if chance.once_in(4) { 2 } else { 0 },
        page_size: chance.below(30) as i32,
        use_model: !chance.once_in(3),
        ..Placement::default()
    }
}

fn control(chance: &mut Chance, number: usize, item_count: usize) -> Control {
    let action = match chance.below(6) {
        0 | 1 => Action::Boost(Boost { factor: [0.1, 5.0][chance.below(2)] }),
        2 | 3 => Action::Pin(Pin {
            item_id: format!("i{}", chance.below(item_count)),
            position: 1 + chance.below(12) as i32,
        }),
        4 => Action::Exclude(Exclude {}),
        _ => Action::Require(Require {}),
    };
    let excludes_all = matches!(action, Action::Exclude(_));
    let mut items = filter(chance, item_count);
    if excludes_all {
        items.categories.push("c1".into());
    }
    Control {
        control_id: format!("k{number}"),
        placement_ids: if chance.once_in(2) { vec!["p0".into()] } else { vec![] },
        items: Some(items),
        action: Some(action),
        active: if chance.once_in(4) {
            Some(Interval { start_time: None, end_time: Some(timestamp(NOW - 1)) })
        } else {
            None
        },
        paused: chance.once_in(6),
        ..Control::default()
    }
}

/// Random request over one to three placements.
pub fn request(chance: &mut Chance, item_count: usize) -> RecommendRequest {
    let placements = (0..=chance.below(3)).map(|number| PlacementRequest {
        placement_id: format!("p{number}"),
        page_size: chance.below(40) as i32,
        anchor_item_ids: if chance.once_in(2) { chance.names("i", 3, item_count + 3) } else { vec![] },
        filter: if chance.once_in(3) { Some(filter(chance, item_count)) } else { None },
        exclude_item_ids: if chance.once_in(2) { chance.names("i", 12, item_count + 3) } else { vec![] },
    });
    let placements = placements.collect();
    RecommendRequest {
        request_id: format!("r{}", chance.below(1_000_000)),
        context: Some(Context {
            visitor_id: format!("v{}", chance.below(6)),
            cart_item_ids: if chance.once_in(4) { chance.names("i", 3, item_count) } else { vec![] },
            ..Context::default()
        }),
        placements,
    }
}

fn write_bundle(chance: &mut Chance, folder: &Path, item_count: usize) {
    fs::create_dir_all(folder).expect("a folder");
    let mut files = BTreeMap::new();
    let mut put = |name: &str, bytes: Vec<u8>| {
        files.insert(name.to_owned(), format!("{:x}", Sha256::digest(&bytes)));
        fs::write(folder.join(name), bytes).expect("written");
    };
    let names: Vec<String> = (0..item_count).map(|item| format!("i{item}")).collect();
    put("items.safetensors", texts(&names));
    let visitors: Vec<String> = (0..3).map(|visitor| format!("v{visitor}")).collect();
    put("visitors.safetensors", texts(&visitors));
    put("also_bought.safetensors", lists(chance, "neighbours", item_count, item_count));
    put("bought_together.safetensors", lists(chance, "neighbours", item_count, item_count));
    put("next_basket.safetensors", lists(chance, "items", 3, item_count));
    put("content_items.safetensors", vectors(chance, item_count, 5));
    put("sequence.onnx", vec![0]);
    put("sequence_items.safetensors", vectors(chance, item_count, ENCODED_WIDTH));
    put("sequence_golden.safetensors", table("items", 2, 8));
    put("ranker.onnx", vec![0]);
    let manifest = serde_json::json!({
        "version": "test", "schema_hash": feature::schema_hash(), "actions": ["view", "purchase"],
        "create_ms": NOW, "files": files,
    });
    fs::write(folder.join("manifest.json"), manifest.to_string()).expect("written");
}

fn texts(names: &[String]) -> Vec<u8> {
    let mut offsets = vec![0_u32];
    offsets.extend(names.iter().scan(0, |end, name| {
        *end += name.len() as u32;
        Some(*end)
    }));
    tensors(&[("bytes", Dtype::U8, names.concat().into_bytes()), ("offsets", Dtype::U32, words(&offsets))])
}

fn lists(chance: &mut Chance, column: &'static str, rows: usize, item_count: usize) -> Vec<u8> {
    let (mut offsets, mut items, mut scores) = (vec![0_u32], vec![], vec![]);
    for _ in 0..rows {
        for rank in 0..chance.below(12) {
            items.push(chance.below(item_count) as u32);
            scores.push((1.0 / (rank + 1) as f32).to_bits());
        }
        offsets.push(items.len() as u32);
    }
    tensors(&[
        ("offsets", Dtype::U32, words(&offsets)),
        (column, Dtype::U32, words(&items)),
        ("scores", Dtype::F32, words(&scores)),
    ])
}

fn vectors(chance: &mut Chance, rows: usize, width: usize) -> Vec<u8> {
    let values: Vec<u32> = (0..rows * width).map(|_| (chance.below(5) as f32 - 2.0).to_bits()).collect();
    let bytes = words(&values);
    let view = TensorView::new(Dtype::F32, vec![rows, width], &bytes).expect("a sound tensor");
    safetensors::serialize([("vectors", view)], None).expect("serialisable")
}

fn table(name: &str, rows: usize, columns: usize) -> Vec<u8> {
    let bytes = vec![0; rows * columns * 8];
    let view = TensorView::new(Dtype::I64, vec![rows, columns], &bytes).expect("a sound tensor");
    safetensors::serialize([(name, view)], None).expect("serialisable")
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn tensors(columns: &[(&str, Dtype, Vec<u8>)]) -> Vec<u8> {
    let size = |dtype| if dtype == Dtype::U8 { 1 } else { 4 };
    let views = columns.iter().map(|(name, dtype, bytes)| {
        (*name, TensorView::new(*dtype, vec![bytes.len() / size(*dtype)], bytes).expect("a sound tensor"))
    });
    safetensors::serialize(views, None).expect("serialisable")
}
